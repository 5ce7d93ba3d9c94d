"""Create, retrieve and decision take no more instructions than they did."""

import os

import pytest

from tests.bench.counting import TOLERANCE, WHAT, build, count, kept, missing_tool


def test_kept_figures_name_everything_that_is_counted_once_a_build() -> None:
    every = kept()
    assert every
    assert all(tuple(one.instructions) == WHAT for one in every)
    assert len({one.build for one in every}) == len(every)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_create_retrieve_and_decision_take_no_more_instructions_than_were_kept(
    capsys: pytest.CaptureFixture[str],
) -> None:
    missing = missing_tool()
    if missing is not None:
        assert "CI" not in os.environ, missing
        _say(capsys, f"nothing was counted: {missing}")
        return
    counted = count().instructions
    before = next((one.instructions for one in kept() if one.build == build()), None)
    if before is None:
        _say(capsys, f"no figures are kept for {build()}: {counted} is compared to nothing")
        return
    told = {what: f"{counted[what]:,} instead of {before[what]:,}" for what in WHAT}
    dearer = {what: told[what] for what in WHAT if counted[what] > before[what] * (1 + TOLERANCE)}
    assert not dearer, f"dearer than before; if it is worth it: python -m tests.bench.counting --keep: {dearer}"
    cheaper = {what: told[what] for what in WHAT if counted[what] < before[what] * (1 - TOLERANCE)}
    if cheaper:
        _say(capsys, f"cheaper than before, so keep it: python -m tests.bench.counting --keep: {cheaper}")


def _say(capsys: pytest.CaptureFixture[str], what: str) -> None:
    with capsys.disabled():
        print(f"\n{what}")
