"""Whatever fails around a server, what was accepted waits and is delivered, and a metric tells of it."""

from pathlib import Path

import pytest

from tests.torture import surroundings
from tests.torture.verdict import table

SOME = {
    "sqlite": {
        "no file takes anything for 8 s",
        "disk full right after a submit, then killed",
        "storage away for 10 s",
        "clock set back by 1 day",
    },
    "postgresql": {"tables locked for 20 s", "clock set back by 1 h, then a restart"},
}
"""`make torture` plays them all."""


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_what_was_accepted_waits_and_is_delivered(tmp_path: Path, engine: str) -> None:
    lines = await surroundings.torture(tmp_path, engine, names=SOME[engine])
    assert len(lines) == len(SOME[engine])
    assert all(line.is_clean for line in lines), table(lines)
    assert all(line.delivered == line.tries > 1 for line in lines), table(lines)


@pytest.mark.parametrize("engine", SOME)
def test_every_scene_has_a_name_of_its_own_and_those_of_the_short_play_are_among_them(engine: str) -> None:
    names = [scene.name for scene in surroundings.scenes(engine)]
    assert len(set(names)) == len(names)
    assert SOME[engine] <= set(names)
