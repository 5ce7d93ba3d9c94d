"""The bench itself: that every line finds its figures."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.bench.following import read_lags
from tests.bench.load import ROOT
from tests.bench.machine import Disturbance, Watch
from tests.bench.report import Line, table, why_no_verdict

LINES = {
    "create, 16 in parallel": r"[\d,]+/s +[\d,]+/s +\d\.\d\d",
    "create, one at a time": r"p50 [\d.]+ ms, p99 [\d.]+ ms +p50 [\d.]+ ms",
    "GET /v1/videos/{id}, 16 in parallel": r"[\d,]+/s +[\d,]+/s +\d\.\d\d",
    "ready after start": r"[\d.]+ s",
    "RSS idle": r"\d+ MB",
    "videos carried end to end": r"[1-9]\d*/s",
    "download of 20 MB": r"[\d,]+ MB/s, [\d.]+ ms, \d+ MB, [\d.]+ MB",
    "create, 16 in parallel, worker at work": r"[\d,]+/s",
    "100 in flight at 10 s": r"p99 [<>]=? [\d.]+ s, \d+ MB",
    "200 in flight at 30 s": r"p99 [<>]=? [\d.]+ s, \d+ MB",
    "decision, 12 candidates": r"\d+ µs",
    "decision, 500 offers over 40 models": r"\d+ µs +\d\.\d\d",
}


@pytest.mark.long
@pytest.mark.timeout(600)
def test_quick_bench_has_a_figure_on_every_line_and_gives_no_verdict(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", "--quick", "--folder", str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    text = done.stdout
    assert done.returncode == 0, done.stderr
    for name, figures in LINES.items():
        assert re.search(rf"^{re.escape(name)}  .*  {figures} .*no verdict$", text, re.MULTILINE), (name, text)
    assert not list(tmp_path.iterdir())


def make_line(**fields: object) -> Line:
    defaults: dict[str, object] = {"name": "a line", "goal": "<= 2 s", "measured": "1 s", "met": True}
    return Line(**defaults | fields)  # type: ignore[arg-type]  # a factory's fields are as its caller says


def test_busy_machine_gives_figures_but_no_verdict() -> None:
    busy = make_line(disturbance=Disturbance(others=0.5, stolen=0.0))
    assert busy.verdict == "machine busy"
    assert "1 s" in table([busy])
    assert "others took 0.50 cores" in table([busy])


QUIET, BUSY = Disturbance(others=0.02, stolen=0.0), Disturbance(others=0.0, stolen=0.5)


def test_run_is_judged_only_on_a_machine_that_was_quiet_and_kept_its_speed() -> None:
    assert why_no_verdict(quick=False, before=QUIET, speed_change=-0.1) is None
    assert "too short" in str(why_no_verdict(quick=True, before=QUIET, speed_change=0.0))
    assert "busy" in str(why_no_verdict(quick=False, before=BUSY, speed_change=0.0))
    assert "speed" in str(why_no_verdict(quick=False, before=QUIET, speed_change=0.3))
    assert table([make_line()], verdicts=False).endswith("no verdict")


def test_watch_tells_what_others_take_from_what_is_ours() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as child:
        everything, all_but_the_child = Watch(()), Watch((child.pid,))
        time.sleep(1.0)
        with_it, without_it = everything.end(), all_but_the_child.end()
        child.kill()
    assert with_it.is_too_much
    assert with_it.others - without_it.others > 0.12


def test_goal_that_was_missed_is_said_to_be_missed() -> None:
    quiet = Disturbance(others=0.02, stolen=0.0)
    assert make_line(disturbance=quiet).verdict == "met"
    assert make_line(met=False, disturbance=quiet).verdict == "missed"


def test_line_that_was_not_measured_has_no_verdict() -> None:
    assert Line(name="a line", goal="<= 2 s").verdict == "-"
    assert "not measured" in table([Line(name="a line", goal="<= 2 s")])


SCRAPE = """
reelay_poll_lag_seconds_bucket{le="0.5",provider="a"} 90.0
reelay_poll_lag_seconds_bucket{le="10.0",provider="a"} 98.0
reelay_poll_lag_seconds_bucket{le="+Inf",provider="a"} 99.0
reelay_poll_lag_seconds_bucket{le="+Inf",provider="b"} 1.0
reelay_poll_lag_seconds_count{provider="a"} 99.0
"""


def test_lag_is_told_by_the_bucket_that_holds_it() -> None:
    lags = read_lags(SCRAPE)
    assert lags.polls == 100
    assert (lags.told(50), lags.told(95), lags.told(99)) == ("p50 <= 0.5 s", "p95 <= 10 s", "p99 > 10 s")
    assert lags.since(lags).polls == 0
