"""Orders that were taken: what polls may say, what the deadline does, and that an ended video stays ended."""

import asyncio
from copy import deepcopy
from pathlib import Path

import pytest

from tests.whole.scenes import (
    PRICES,
    Played,
    Rules,
    Troupe,
    check_the_ledger,
    check_the_log,
    eventually,
    opened,
    play,
    rows,
    rule,
)

SPEED = 40.0
"""A render takes two to four seconds, so that polls see it run."""
OTHER_KEY = "id-2:play"


def _rules(rules: Rules) -> None:
    rules["providers"]["fal-two"] = deepcopy(rules["providers"]["fal"]) | {"api_key": OTHER_KEY}
    rules["rules"] = [
        rule("hurry", {"metadata.case": "hurry"}, fallback={"deadline_s": 1}),
        rule("brief", {"metadata.case": "brief"}, fallback={"deadline_s": 3}),
        rule("default"),
    ]


async def _progress(troupe: Troupe, case: str) -> list[tuple[str, int]]:
    """Every status and progress that a client sees until the end."""
    seen: list[tuple[str, int]] = []
    while not seen or seen[-1][0] in {"queued", "in_progress"}:
        video = await troupe.stage.video(troupe.ids[case])
        seen.append((video["status"], video["progress"]))
        await asyncio.sleep(0.05)
    return seen


async def _revoke(troupe: Troupe) -> bool:
    """A key at fal is refused for a while; whether the video was still in progress afterwards."""
    stage = troupe.stage
    await stage.until(troupe.ids["revoked"], lambda video: video["status"] == "in_progress")
    (await stage.admin.post("/admin/keys", json={"key": OTHER_KEY})).raise_for_status()
    await asyncio.sleep(5)
    during = await stage.video(troupe.ids["revoked"])
    (await stage.admin.post("/admin/keys", json={"key": OTHER_KEY, "revoked": False})).raise_for_status()
    return bool(during["status"] == "in_progress")


async def _scene(folder: Path) -> Played:
    async with opened(folder, speed=SPEED, change=_rules, deadline_s=60) as stage:
        troupe = Troupe(stage)
        (await stage.admin.post("/admin/switches", json={"fal_cancel_completes": False})).raise_for_status()
        await stage.arm("shortapi", "poll_throttled", count=1)
        await troupe.ask("revoked", "cb_lost", model="fal-two/seedance-2.0")
        await troupe.ask("throttled", "cb_lost", model="shortapi/seedance-2.0")
        await troupe.ask("broken", "poll_500@evolink")
        await troupe.ask("unheard-of", "unknown_status@evolink")
        await troupe.ask("backwards", "backwards@evolink")
        await troupe.ask("overdue", model="runflow/seedance-2.0", metadata={"case": "hurry"})
        await troupe.ask("stopped", "never_ends@fal", model="fal/seedance-2.0", metadata={"case": "brief"})
        await troupe.ask("endless", "never_ends@evolink", metadata={"case": "brief"})
        still_there, seen = await asyncio.gather(_revoke(troupe), _progress(troupe, "backwards"))
        await troupe.end()

        async def known() -> bool:
            open_ends = "select count(*) from attempts where video_id in (?, ?) and bearer is null"
            return rows(folder, open_ends, troupe.ids["overdue"], troupe.ids["stopped"]) == [(0,)]

        await eventually(known)
        return await troupe.played(still_there=still_there, seen=seen)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    return play(_scene, tmp_path_factory.mktemp("watch"))


@pytest.mark.parametrize("case", ["throttled", "broken", "unheard-of", "backwards", "revoked"])
def test_poll_that_says_nothing_certain_never_ends_a_video(played: Played, case: str) -> None:
    assert played.outcome(case) == ("completed", None)
    assert len(played.attempts(case)) == len(played.sellers(case)) == 1


def test_key_that_is_refused_while_polling_is_tried_again(played: Played) -> None:
    assert played.found["still_there"]
    assert played.metric("reelay_provider_attempts_total", provider="fal-two", operation="poll", outcome="garbled") >= 2


def test_progress_and_status_never_go_back(played: Played) -> None:
    seen = played.found["seen"]
    order = {"queued": 0, "in_progress": 1, "completed": 2}
    assert seen == sorted(seen, key=lambda one: (order[one[0]], one[1]))
    assert any(0 < percent < 100 for _, percent in seen)


def test_deadline_fails_a_running_video_and_frees_the_money(played: Played) -> None:
    for case in ("overdue", "stopped", "endless"):
        assert played.outcome(case) == ("failed", "deadline_exceeded")
        assert played.hold(case)[0] == "void"
        assert played.paid(case) == 0


def test_film_that_comes_after_the_deadline_is_ours_to_pay_and_reopens_nothing(played: Played) -> None:
    assert played.sellers("overdue") == ["runflow"]
    assert played.attempts("overdue") == [("runflow", "done", None)]
    assert played.absorbed("overdue") == {"absorbed:abandoned": 4 * PRICES["runflow"]}
    assert played.outcome("overdue") == ("failed", "deadline_exceeded")
    assert played.metric("reelay_absorbed_usd_total", reason="abandoned") == pytest.approx(1.2136)


def test_seller_that_can_be_asked_to_stop_is_asked_at_the_deadline(played: Played) -> None:
    assert [job["state"] for job in played.jobs["stopped"]] == ["cancelled"]
    assert played.attempts("stopped") == [("fal", "failed", "cancelled")]
    assert played.absorbed("stopped") == {}


def test_ledger_balances_and_nothing_broke_in_all_of_this(played: Played) -> None:
    check_the_ledger(played.folder)
    check_the_log(played.folder)


# What takes the sellers' own minutes


async def _long_scene(folder: Path) -> Played:
    async with opened(folder, deadline_s=150) as stage:
        troupe = Troupe(stage)
        await troupe.ask("never-arrived", "reset_before@runflow", routing={"order": ["runflow", "evolink"]})
        await troupe.ask("lost", "lost@evolink", routing={"order": ["evolink", "shortapi"]})
        await troupe.end("never-arrived", within_s=200)
        await troupe.end("lost", within_s=300)
        listed = (await stage.client.get("/admin/attempts", params={"state": "lost"})).json()["data"]
        return await troupe.played(listed=listed)


@pytest.mark.long
@pytest.mark.timeout(400)
def test_orders_that_sellers_deny(tmp_path: Path) -> None:
    """Runflow's third "no such run" is believed; five denials over two minutes are not a failure."""
    played = play(_long_scene, tmp_path)
    assert played.outcome("never-arrived") == ("completed", None)
    assert played.attempts("never-arrived") == [("runflow", "refused", "capacity"), ("evolink", "done", None)]
    assert played.sellers("never-arrived") == ["evolink"]
    assert played.outcome("lost") == ("failed", "outcome_unknown")
    assert played.sellers("lost") == ["evolink"], "made once, and nothing bought elsewhere"
    assert [line["video"] for line in played.found["listed"]] == [played.videos["lost"]["id"]]
    assert played.hold("lost")[0] == "void"
    check_the_ledger(played.folder)
