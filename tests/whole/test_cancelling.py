"""Cancel and delete in every state of a video: over at once, for good, and paid for only what a seller bills."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.whole.scenes import PRICES, Played, Troupe, check_the_ledger, check_the_log, eventually, opened, play, rows
from tests.whole.stage import Stage

SPEED = 25.0
"""A render takes three to six seconds: time enough to stop it."""

VERBS = ("cancel", "delete")
LIVE = ("waiting", "sending", "stoppable", "unstoppable", "copying")
"""What the attempt is doing when the customer has had enough."""
ENDED = ("completed", "failed")


async def _reaches(stage: Stage, video_id: str, state: str) -> None:
    """Until the last attempt is in this state."""

    def there(video: dict[str, Any]) -> bool:
        attempts = video["routing"]["attempts"]
        return bool(attempts) and attempts[-1]["status"] == state

    await stage.until(video_id, there)


async def _waiting(troupe: Troupe, case: str) -> None:
    one = await troupe.ask(case, "throttled_seconds@evolink", model="evolink/seedance-2.0")
    await _reaches(troupe.stage, one, "refused")


async def _sending(troupe: Troupe, case: str) -> None:
    await _reaches(troupe.stage, await troupe.ask(case, model="shortapi/seedance-2.0"), "sending")


async def _stoppable(troupe: Troupe, case: str) -> None:
    await _reaches(troupe.stage, await troupe.ask(case, "never_ends@fal", model="fal/seedance-2.0"), "running")


async def _unstoppable(troupe: Troupe, case: str) -> None:
    await _reaches(troupe.stage, await troupe.ask(case, model="runflow/seedance-2.0"), "running")


async def _copying(troupe: Troupe, case: str) -> None:
    await _reaches(troupe.stage, await troupe.ask(case, model="evolink/seedance-2.0"), "done")


async def _completed(troupe: Troupe, case: str) -> None:
    await troupe.stage.ended(await troupe.ask(case, model="runflow/seedance-2.0"))


async def _failed(troupe: Troupe, case: str) -> None:
    await troupe.stage.ended(await troupe.ask(case, "moderation@runflow", model="runflow/seedance-2.0"))


BRINGS_ABOUT: dict[str, Callable[[Troupe, str], Awaitable[None]]] = {
    "waiting": _waiting,
    "sending": _sending,
    "stoppable": _stoppable,
    "unstoppable": _unstoppable,
    "copying": _copying,
    "completed": _completed,
    "failed": _failed,
}


async def _act(troupe: Troupe, state: str, verb: str) -> dict[str, Any]:
    """The answer to the verb, once the video is in this state, and what was known just before it."""
    stage, case = troupe.stage, f"{state}-{verb}"
    await BRINGS_ABOUT[state](troupe, case)
    path = f"/v1/videos/{troupe.ids[case]}"
    before = await stage.video(troupe.ids[case])
    request = stage.client.post(f"{path}/cancel") if verb == "cancel" else stage.client.delete(path)
    answer = (await request).raise_for_status().json()
    after = await stage.client.get(path)
    again = await (stage.client.post(f"{path}/cancel") if verb == "cancel" else stage.client.delete(path))
    return {"before": before, "answer": answer, "after": after, "again": again}


async def _scene(folder: Path) -> Played:
    async with opened(folder, speed=SPEED, deadline_s=60, submit_timeout_s=20) as stage:
        troupe = Troupe(stage)
        (await stage.admin.post("/admin/switches", json={"fal_cancel_completes": False})).raise_for_status()
        await stage.arm("shortapi", "slow_reply", count=2, delay_s=4)
        await stage.arm("evolink", "slow_file", count=2, delay_s=0.3)
        acts = [(state, verb) for state in BRINGS_ABOUT for verb in VERBS]
        answers = await asyncio.gather(*(_act(troupe, state, verb) for state, verb in acts))

        async def settled() -> bool:
            return rows(folder, "select count(*) from videos where hold = 'held'") == [(0,)]

        await eventually(settled)
        listed = (await stage.client.get("/v1/videos", params={"limit": 100})).json()["data"]
        seen = {f"{state}-{verb}": answer for (state, verb), answer in zip(acts, answers, strict=True)}
        return await troupe.played(seen=seen, listed=[video["id"] for video in listed], ids=troupe.ids)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    return play(_scene, tmp_path_factory.mktemp("cancel"))


def _row(played: Played, case: str) -> dict[str, Any]:
    names = ("status", "error_code", "hold", "hold_microusd", "charged_microusd", "prompt", "metadata", "footage")
    (found,) = rows(played.folder, f"select {', '.join(names)} from videos where id = ?", played.found["ids"][case])  # noqa: S608  # the names stand above
    return dict(zip(names, found, strict=True))


@pytest.mark.parametrize("state", LIVE)
def test_cancelled_video_has_failed_at_once_and_stays_readable(played: Played, state: str) -> None:
    seen = played.found["seen"][f"{state}-cancel"]
    for video in (seen["answer"], seen["after"].json(), seen["again"].json(), played.videos[f"{state}-cancel"]):
        assert (video["status"], video["error"]["code"]) == ("failed", "cancelled")


@pytest.mark.parametrize("state", ENDED)
def test_cancel_of_an_ended_video_changes_nothing(played: Played, state: str) -> None:
    seen = played.found["seen"][f"{state}-cancel"]
    assert seen["answer"] == seen["before"] == played.videos[f"{state}-cancel"]


@pytest.mark.parametrize("state", BRINGS_ABOUT)
def test_deleted_video_is_gone_at_once(played: Played, state: str) -> None:
    case = f"{state}-delete"
    seen, video_id = played.found["seen"][case], played.found["ids"][case]
    assert seen["answer"] == {"id": video_id, "object": "video.deleted", "deleted": True}
    assert seen["after"].status_code == seen["again"].status_code == 404
    assert video_id not in played.found["listed"]


@pytest.mark.parametrize("state", BRINGS_ABOUT)
def test_delete_erases_prompt_metadata_and_file(played: Played, state: str) -> None:
    row = _row(played, f"{state}-delete")
    assert (row["prompt"], row["metadata"], row["footage"]) == (None, None, None)
    assert list((played.folder / "data/videos").rglob(f"{played.found['ids'][f'{state}-delete']}*")) == []
    links = rows(
        played.folder,
        "select count(*) from attempts where video_id = ? and (link is not null or message is not null)",
        played.found["ids"][f"{state}-delete"],
    )
    assert links == [(0,)]


@pytest.mark.parametrize("verb", VERBS)
def test_video_that_nobody_took_costs_nothing_and_is_never_bought(played: Played, verb: str) -> None:
    row = _row(played, f"waiting-{verb}")
    assert (row["hold"], row["charged_microusd"]) == ("void", 0)
    assert played.sellers(f"waiting-{verb}") == []


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("state", "seller"), [("sending", "shortapi"), ("unstoppable", "runflow"), ("copying", "evolink")]
)
def test_film_that_a_seller_makes_and_bills_is_paid_by_who_cancelled(
    played: Played, state: str, seller: str, verb: str
) -> None:
    case = f"{state}-{verb}"
    row = _row(played, case)
    assert (row["status"], row["error_code"]) == ("failed", "cancelled")
    assert row["hold"] == "posted"
    assert row["charged_microusd"] == 4 * PRICES[seller] <= row["hold_microusd"]
    (job,) = played.jobs[case]
    assert (job["seller"], job["charged_microusd"]) == (seller, 4 * PRICES[seller])
    assert row["footage"] is None


@pytest.mark.parametrize("verb", VERBS)
def test_render_that_fal_stops_costs_nothing(played: Played, verb: str) -> None:
    row = _row(played, f"stoppable-{verb}")
    assert (row["hold"], row["charged_microusd"]) == ("void", 0)
    assert [job["state"] for job in played.jobs[f"stoppable-{verb}"]] == ["cancelled"]


def test_delete_of_a_completed_video_keeps_its_bill(played: Played) -> None:
    row = _row(played, "completed-delete")
    assert (row["hold"], row["charged_microusd"]) == ("posted", 4 * PRICES["runflow"])


def test_nothing_was_bought_twice(played: Played) -> None:
    assert all(len(jobs) == 1 for jobs in played.jobs.values())


def test_ledger_balances_and_nothing_broke_in_all_of_this(played: Played) -> None:
    check_the_ledger(played.folder)
    check_the_log(played.folder)
