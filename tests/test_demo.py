"""The demo, as somebody sees it who has just cloned the project."""

import asyncio
import os
import shutil
import sys
from pathlib import Path

from proxy.outside.film import measure
from tests.whole.stage import ROOT

WIDTH = 100


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def demo(folder: Path, *arguments: str) -> tuple[int, str, str]:
    """Into a pipe, as a build runs it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("REELAY_", "COLUMNS"))}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "proxy", "demo", *arguments, cwd=folder, env=environment | {"PYTHONPATH": str(ROOT)},
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 90)
    return process.returncode or 0, out.decode(), err.decode()


async def test_demo_shows_plan_and_bill_and_leaves_a_film(tmp_path: Path) -> None:
    shutil.copy(ROOT / "routing_rules.yaml", tmp_path)
    code, out, err = await demo(tmp_path)
    assert (code, err) == (0, ""), err
    assert names_in(tmp_path) == ["demo.mp4", "routing_rules.yaml"]
    film = measure(str(tmp_path / "demo.mp4"))
    assert (film.width_px, film.height_px, film.has_audio) == (1280, 720, True)
    assert 5000 <= film.duration_ms <= 5100
    lines = out.splitlines()
    assert max(len(line) for line in lines) <= WIDTH + len("`make serve` starts a sandbox that stays.")
    assert "…" not in out, "nothing is cut"
    plan = [line for line in lines if line.split()[:1] in (["1"], ["2"], ["3"], ["4"])]
    assert [line.split()[1] for line in plan] == ["evolink", "shortapi", "fal", "runflow"]
    assert "$0.992500" in plan[0]
    assert "the lowest price" in plan[0]
    assert [line.split()[-2:] for line in lines if "took" in line] == [["as", "done"]]
    bill = next(line for line in lines if "you pay" in line)
    assert bill.split() == ["you", "pay", "$0.992500", "for", "5", "s"]
    assert "\x1b" not in out


async def test_demo_that_fails_says_why_in_one_line(tmp_path: Path) -> None:
    shutil.copy(ROOT / "routing_rules.yaml", tmp_path)
    code, out, err = await demo(tmp_path, "[fault:moderation] a paper boat")
    assert code == 2
    assert "[fault:moderation] a paper boat" in out
    assert err.startswith("reelay: the video failed: moderation_blocked: ")
    assert err.count("\n") == 1
    assert not (tmp_path / "demo.mp4").exists()


async def test_demo_without_a_place_for_its_film_does_not_begin(tmp_path: Path) -> None:
    code, out, err = await demo(tmp_path, "--out", "nowhere/demo.mp4")
    assert (code, out, err) == (2, "", "reelay: nowhere/demo.mp4 cannot be written\n")
