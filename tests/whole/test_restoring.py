"""A server that was restored from a backup buys nothing that the lost one had bought; without the flag it would."""

import asyncio
import shutil
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from proxy.store.backup import back_up
from tests.databases import choose
from tests.ports import free_port
from tests.whole.scenes import Played, Rules, Troupe, check_the_ledger, check_the_log, opened, play, rows
from tests.whole.stage import Stage

SPEED = 50.0
LIMITS: dict[str, Any] = {"deadline_s": 170, "submit_timeout_s": 20}

WAITING = {"waiting-1": "evolink", "waiting-2": "runflow", "waiting-3": "fal"}
RUNNING = {"running-1": "evolink", "running-2": "runflow"}


def _rules(rules: Rules, *, reached: bool) -> None:
    """Each seller has a second account, which cannot be reached at first."""
    for seller in WAITING.values():
        account = rules["providers"][seller]
        url = account["base_url"] if reached else f"http://127.0.0.1:{free_port()}"
        rules["providers"][f"later-{seller}"] = account | {"base_url": url}


async def _before_the_backup(stage: Stage, troupe: Troupe) -> None:
    """Some run, and some could not be sent and are tried again and again."""
    for case, seller in WAITING.items():
        # Whoever calls back would name the order to the restored server.
        await troupe.ask(case, "cb_lost", model=f"later-{seller}/seedance-2.0")
    for case in WAITING:
        await _until(stage, troupe.ids[case], {"refused"})
    for case, seller in RUNNING.items():
        await troupe.ask(case, model=f"{seller}/seedance-2.0")
    for case in RUNNING:
        await _until(stage, troupe.ids[case], {"running", "done"})


async def _until(stage: Stage, video_id: str, states: set[str]) -> None:
    await stage.until(video_id, lambda video: any(one["status"] in states for one in video["routing"]["attempts"]))


def _put_back(folder: Path, copy: Path) -> None:
    database = folder / "data" / "reelay.db"
    for path in (database, database.with_name("reelay.db-wal"), database.with_name("reelay.db-shm")):
        path.unlink(missing_ok=True)
    shutil.copy(copy, database)


def _unmark(copy: Path) -> None:
    """As a copy that was made by other means than ours."""
    with closing(sqlite3.connect(copy)) as database, database:
        assert database.execute("delete from facts where name = 'backup_at'").rowcount == 1


async def _lost_and_restored(folder: Path, *flags: str) -> Played:
    async with opened(folder, speed=SPEED, change=partial(_rules, reached=False), **LIMITS) as stage:
        troupe = Troupe(stage)
        await _before_the_backup(stage, troupe)
        copy = folder / "copy.db"
        # Killed at the same moment, so that no try between the two moves what the restored server has to find.
        await stage.server.kill()
        back_up(folder / "data" / "reelay.db", copy, at_us=1)
        states = _states(copy)
        stage.write_rules(partial(_rules, reached=True), **LIMITS)
        await stage.start_server()
        lost = (await stage.create("lost", model="evolink/seedance-2.0"))["id"]
        await stage.ended(lost)
        await troupe.end()
        await stage.server.kill()
        if not flags:
            _unmark(copy)
        _put_back(folder, copy)
        await stage.start_server(*flags)
        await troupe.end(*([*RUNNING, "waiting-2"] if flags else ()))
        listed = (await stage.client.get("/admin/attempts")).json()["data"]
        gone = (await stage.client.get(f"/v1/videos/{lost}")).status_code
        return await troupe.played(states=states, listed={line["video"] for line in listed}, gone=gone)


def _states(copy: Path) -> dict[str, str]:
    """By case, the state of the last attempt in the backup."""
    query = "select v.prompt, a.state from videos v join attempts a on a.video_id = v.id order by a.number"
    with closing(sqlite3.connect(copy)) as database:
        return {prompt.split(" ")[0]: state for prompt, state in database.execute(query)}


async def _both(folder: Path) -> tuple[Played, Played]:
    for name in ("restored", "careless"):
        (folder / name).mkdir()
        choose("sqlite", folder / name)  # PostgreSQL has its own ways of backing up
    return await asyncio.gather(
        _lost_and_restored(folder / "restored", "--after-restore"), _lost_and_restored(folder / "careless")
    )


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Played, Played]:
    return play(_both, tmp_path_factory.mktemp("restoring"))


@pytest.fixture(scope="module")
def restored(both: tuple[Played, Played]) -> Played:
    """Started with the flag."""
    return both[0]


@pytest.fixture(scope="module")
def careless(both: tuple[Played, Played]) -> Played:
    """Started without it, from a copy that does not tell what it is."""
    return both[1]


def test_backup_was_made_before_those_that_waited_were_bought(restored: Played, careless: Played) -> None:
    for played in (restored, careless):
        assert {case: played.found["states"][case] for case in WAITING} == dict.fromkeys(WAITING, "refused")
        assert {played.found["states"][case] for case in RUNNING} <= {"running", "done"}
        assert played.found["gone"] == 404, "what was accepted after the backup is lost"


@pytest.mark.parametrize("case", [*RUNNING, *WAITING])
def test_nothing_is_bought_twice_after_a_restore(restored: Played, case: str) -> None:
    assert restored.sellers(case) == [(RUNNING | WAITING)[case]]


@pytest.mark.parametrize("case", RUNNING)
def test_what_ran_is_polled_on_and_delivered(restored: Played, case: str) -> None:
    assert restored.outcome(case) == ("completed", None)


def test_seller_that_can_be_asked_tells_of_the_order_and_the_film_is_delivered(restored: Played) -> None:
    assert restored.outcome("waiting-2") == ("completed", None)
    assert restored.attempts("waiting-2")[-1][1] == "done"


@pytest.mark.parametrize("case", ["waiting-1", "waiting-3"])
def test_what_nobody_can_be_asked_of_waits_and_is_on_the_operators_list(restored: Played, case: str) -> None:
    """Seconds after it would have been sent again; at the deadline it ends as `outcome_unknown`."""
    assert restored.videos[case]["status"] == "queued"
    assert restored.attempts(case)[-1][:2] == (f"later-{WAITING[case]}", "unknown")
    assert restored.videos[case]["id"] in restored.found["listed"]
    assert restored.hold(case)[0] == "held"


@pytest.mark.parametrize("case", WAITING)
def test_without_the_flag_the_same_orders_are_bought_twice(careless: Played, case: str) -> None:
    """So the tests above can fail."""
    assert careless.sellers(case) == [WAITING[case]] * 2


def test_ledger_balances_and_nothing_broke_in_all_of_this(restored: Played) -> None:
    check_the_ledger(restored.folder)
    check_the_log(restored.folder)
    assert rows(restored.folder, "select count(*) from facts where name = 'restored_at'") == [(1,)]
