"""The server is killed in the middle of its work, and started again: nothing is lost and nothing bought twice."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.databases import WHOLE_ENGINE
from tests.whole.scenes import PRICES, Played, Rules, Troupe, check_the_ledger, check_the_log, opened, play, rows, rule
from tests.whole.stage import Stage

SPEED = 25.0
BRIEF_S = 12
"""The deadline of what may end unknown."""

PATIENCE_S = 60 if WHOLE_ENGINE == "sqlite" else 150
"""Where other processes may live, what a dead one held is taken over when its lease ends, and no sooner."""

COPIED = ("copying-1", "copying-2")
IN_FLIGHT = {"sending-1": "evolink", "sending-2": "runflow", "sending-3": "shortapi"}
RUNNING = {"running-1": "fal", "running-2": "fal", "running-3": "evolink", "running-4": "shortapi"}
WAITING = ("waiting-1",)


async def _until_attempt(stage: Stage, video_id: str, state: str) -> None:
    await stage.until(
        video_id, lambda video: any(one["status"] == state for one in video["routing"]["attempts"]), within_s=20
    )


async def _begin(stage: Stage, troupe: Troupe) -> None:
    """Ten videos, each brought to what its name says."""
    await stage.arm("evolink", "slow_file", count=2, delay_s=0.3)
    for case in COPIED:
        await troupe.ask(case, model="evolink/seedance-2.0")
    for case in COPIED:
        await _until_attempt(stage, troupe.ids[case], "done")
    for case, seller in RUNNING.items():
        await troupe.ask(case, model=f"{seller}/seedance-2.0")
    for case in RUNNING:
        await _until_attempt(stage, troupe.ids[case], "running")
    await stage.arm("runflow", "throttled", count=1)
    for case in WAITING:
        await troupe.ask(case, model="runflow/seedance-2.0")
        await _until_attempt(stage, troupe.ids[case], "refused")
    for case, seller in IN_FLIGHT.items():
        await stage.arm(seller, "slow_reply", count=1, delay_s=20)
        brief = {} if seller == "runflow" else {"metadata": {"case": "brief"}}
        await troupe.ask(case, routing={"order": [seller, "fal"]}, **brief)
    for case in IN_FLIGHT:
        await _until_attempt(stage, troupe.ids[case], "sending")
    async with asyncio.timeout(20):  # what is written down as sent may still be on its way
        while not set(IN_FLIGHT) <= {job["prompt"].split(" ")[0] for job in await stage.books()}:
            await asyncio.sleep(0.05)


def _states(folder: Path) -> dict[str, str]:
    """Every video's last attempt, as the database had it at the kill."""
    found = rows(
        folder,
        "select v.prompt, (select state from attempts a where a.video_id = v.id order by number desc limit 1)"
        " from videos v",
    )
    return {prompt.split(" ")[0]: state for prompt, state in found}


def _rules(rules: Rules) -> None:
    brief = rule("brief", {"metadata.case": "brief"}, fallback={"deadline_s": BRIEF_S})
    rules["rules"] = [brief, rule("default")]


async def _scene(folder: Path) -> Played:
    async with opened(folder, speed=SPEED, change=_rules, deadline_s=PATIENCE_S, submit_timeout_s=30) as stage:
        troupe = Troupe(stage)
        await _begin(stage, troupe)
        await stage.server.kill()
        at_the_kill = _states(folder)
        await stage.start_server()
        await asyncio.sleep(0.7)
        await stage.server.kill()
        await stage.start_server()
        await troupe.end(within_s=PATIENCE_S)
        # A video may end at its deadline, while the lease of its submit still runs; its order is looked for after that.
        async with asyncio.timeout(PATIENCE_S):
            while not set(_states(folder).values()) <= {"done", "unknown"}:
                await asyncio.sleep(0.2)
        listed = (await stage.client.get("/admin/attempts", params={"state": "unknown"})).json()["data"]
        return await troupe.played(at_the_kill=at_the_kill, listed=[line["video"] for line in listed])


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Played:
    return play(_scene, tmp_path_factory.mktemp("killed"))


def test_the_kill_found_every_kind_of_work_under_way(killed: Played) -> None:
    at_the_kill = killed.found["at_the_kill"]
    assert len(at_the_kill) == 10
    assert {case for case, state in at_the_kill.items() if state == "sending"} == set(IN_FLIGHT)
    assert "done" in {at_the_kill[case] for case in COPIED}
    assert "running" in {at_the_kill[case] for case in RUNNING}


@pytest.mark.parametrize("case", [*COPIED, *RUNNING, *WAITING])
def test_video_without_a_submit_in_flight_completes_after_the_kill(killed: Played, case: str) -> None:
    assert killed.outcome(case) == ("completed", None)


@pytest.mark.parametrize("case", IN_FLIGHT)
def test_submit_in_flight_ends_in_a_video_in_a_cost_of_ours_or_on_the_operators_list(killed: Played, case: str) -> None:
    listed = killed.videos[case]["id"] in killed.found["listed"]
    if killed.outcome(case) == ("completed", None):
        assert not listed
        return
    assert killed.outcome(case) == ("failed", "outcome_unknown")
    assert killed.hold(case)[0] == "void"
    price = 4 * PRICES[IN_FLIGHT[case]]
    assert killed.absorbed(case) == ({} if listed else {"absorbed:unknown": price})


def test_runflow_order_in_flight_is_found_again(killed: Played) -> None:
    assert killed.outcome("sending-2") == ("completed", None)


@pytest.mark.parametrize("case", [*COPIED, *RUNNING, *WAITING, *IN_FLIGHT])
def test_no_seller_was_paid_twice_for_one_video(killed: Played, case: str) -> None:
    assert len(killed.sellers(case)) == 1


def test_ledger_balances_and_nothing_broke_in_all_of_this(killed: Played) -> None:
    check_the_ledger(killed.folder)
    check_the_log(killed.folder)


async def _no_more(stage: Stage) -> dict[str, Any]:
    """What a server that drains says; it may have ended a moment ago."""
    ready = await stage.client.get("/readyz")
    refused = await stage.client.post("/v1/videos", json={"prompt": "too late"})
    return {"ready": ready.status_code, "refused": (refused.status_code, refused.json()["error"]["code"])}


async def _drained(folder: Path) -> Played:
    async with opened(folder, speed=SPEED, deadline_s=60, submit_timeout_s=30) as stage:
        troupe = Troupe(stage)
        for seller in ("evolink", "fal"):
            await stage.arm(seller, "slow_reply", count=1, delay_s=3)
            await troupe.ask(f"sending-{seller}", model=f"{seller}/seedance-2.0")
            await _until_attempt(stage, troupe.ids[f"sending-{seller}"], "sending")
        await troupe.ask("running", "never_ends@runflow", model="runflow/seedance-2.0")
        await _until_attempt(stage, troupe.ids["running"], "running")
        stage.server.process.terminate()
        await asyncio.sleep(0.3)
        said = await _no_more(stage)
        code = await asyncio.wait_for(stage.server.process.wait(), 30)
        states = dict(rows(folder, "select provider, state from attempts"))
        leases = rows(folder, "select count(*) from work where lease_until > 0")
        await stage.start_server()
        await troupe.end("sending-evolink", "sending-fal")
        return await troupe.played(said=said, code=code, states=states, leases=leases)


def test_sigterm_waits_for_answers_takes_nothing_new_and_leaves_nothing_held(tmp_path: Path) -> None:
    played = play(_drained, tmp_path)
    assert played.found["said"] == {"ready": 503, "refused": (503, "server_is_overloaded")}
    assert played.found["code"] == 0
    assert played.found["states"] == {"evolink": "running", "fal": "running", "runflow": "running"}
    assert played.found["leases"] == [(0,)]
    for case in ("sending-evolink", "sending-fal"):
        assert played.outcome(case) == ("completed", None)
        assert len(played.sellers(case)) == 1
    check_the_ledger(tmp_path)
    check_the_log(tmp_path)
