"""The demo's video is seen on every page that tells of what goes well, by a real Prometheus that watches the demo."""

import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.dashboards.prometheus import Prometheus, running
from tests.dashboards.test_on_prometheus import filled_in, panels
from tests.ports import free_port
from tests.whole.stage import ROOT

NOTHING_TO_TELL = {
    # Nothing went wrong,
    "Absorbed",
    "Breakers",
    "Callbacks that healed",
    "Clock set",
    "Cost of falling back",
    "Costs that differ",
    "Errors by route",
    "Exchanges that went wrong",
    "Failed videos",
    "Failures by class",
    "Fallbacks",
    "Fallbacks by reason",
    "Leases lost",
    "Ledger drift",
    "Paid for nothing",
    "Possible double purchases",
    "Retries put off",
    "Server errors",
    "Store errors",
    "Unknown attempts",
    "Unknown exposure",
    "Unknown exposure by provider",
    # nobody set a budget or a limit,
    "Beyond shadow budgets",
    "Budgets used",
    "Refused by a budget",
    "Refused by a limit",
    "Warnings of budgets",
    # no seller calls a demo back, one video teaches no time, and none waits.
    "Callbacks",
    "Due work",
    "Learned times",
    "Overdue work",
}


def shown(prometheus: Prometheus, expr: str, begun_at: float) -> bool:
    found = prometheus.matrix(filled_in(expr), start=begun_at, end=time.time(), step_s=1)
    numbers = (float(value) for series in found for _, value in series["values"])
    return any(number and not math.isnan(number) for number in numbers)


@pytest.mark.long
@pytest.mark.timeout(180)
def test_video_of_the_demo_is_shown_by_every_panel_that_should(tmp_path: Path) -> None:
    port, begun_at = free_port(), time.time()
    arguments = [sys.executable, "-m", "proxy", "demo", "--stay", "--out", str(tmp_path / "demo.mp4")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("REELAY_")}
    with (
        running(tmp_path, f"127.0.0.1:{port}") as prometheus,
        subprocess.Popen(
            arguments, env=environment | {"REELAY_PORT": str(port)}, cwd=ROOT, stdout=subprocess.PIPE, text=True
        ) as demo,
    ):
        try:
            assert demo.stdout is not None
            assert any("It serves on at" in line for line in demo.stdout), "it broke"
            time.sleep(3)  # a scrape or two
            silent = {title for _, title, expr in panels() if not shown(prometheus, expr, begun_at)}
        finally:
            demo.terminate()
    assert demo.returncode == 0
    assert silent <= NOTHING_TO_TELL, silent - NOTHING_TO_TELL
