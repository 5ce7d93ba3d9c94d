"""Servers that share a database lose nothing where one sleeps, the database goes away, or a new version comes."""

from pathlib import Path

import pytest

from tests.torture import replicas
from tests.torture.replicas import PAUSES
from tests.torture.verdict import Tally, table

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


async def test_worker_that_wakes_after_its_lease_changes_nothing_but_brings_what_it_knows(tmp_path: Path) -> None:
    """One at each kind of moment, whose lease is cut short; `make torture` tries them all, and waits for some."""
    chosen = {pause.fault: pause for pause in PAUSES if not pause.patient}
    tallies = await replicas.torture_pauses(tmp_path, list(chosen.values()))
    assert all(tally.is_clean for tally in tallies), table(tallies)
    assert sum(tally.delivered for tally in tallies) == sum(tally.kills for tally in tallies) == len(chosen)


async def test_nothing_is_lost_where_the_database_crashes_under_load(tmp_path: Path) -> None:
    _check(await replicas.torture_database(tmp_path, rounds=1, customers=4))


async def test_new_version_takes_over_and_nobody_notices(tmp_path: Path) -> None:
    _check(await replicas.torture_deployment(tmp_path, customers=4))


def _check(tally: Tally) -> None:
    assert tally.is_clean, table([tally])
    assert tally.delivered > tally.tries / 2
