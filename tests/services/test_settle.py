"""Money inside one transaction: a hold ends once, and every entry balances."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from proxy.core.attempt import Attempt
from proxy.core.video import Footage
from proxy.services import settle
from proxy.services.settle import Moved
from proxy.store import videos, work
from proxy.store.base import Tx
from proxy.store.videos import Video
from tests.databases import Database
from tests.services.rehearsal import TENANT, Rehearsal, rehearse

PRICE_MICROUSD = 1_213_600
"""Four seconds of 720p, at both sellers."""

FOOTAGE = Footage(
    key="k", size_bytes=1, sha256="0", duration_ms=4042, width_px=1280, height_px=720, has_audio=True
)  # fmt: skip


async def _begun(house: Rehearsal, *states: str, **fields: Any) -> str:
    """A video with an attempt in each of these states, at fal and then at Runflow."""
    video_id = await house.accept()
    offers = {one.provider: one for one in (await house.video(video_id)).read_plan().candidates}

    def unit(tx: Tx) -> None:
        videos.start(tx, video_id)
        for number, state in enumerate(states, 1):
            provider = ("fal", "runflow")[(number - 1) % 2]
            attempt = Attempt(
                video_id=video_id,
                number=number,
                offer=offers[provider].offer,
                provider=provider,
                seller_model="m",
                state=state,  # type: ignore[arg-type]  # the tests name states
                client_ref=f"{video_id}-{number}",
                seller_id=f"{video_id}-{number}",
                started_at=tx.now_us,
                accepted_at=tx.now_us,
                possible_microusd=PRICE_MICROUSD,
                **fields,
            )
            videos.insert_attempt(tx, attempt)
        work.done(tx, video_id, 0)

    await house.house.store.write(unit)
    return video_id


async def _in_one(house: Rehearsal, video_id: str, act: Callable[[Tx, Video, list[Attempt], Moved], object]) -> Moved:
    moved = Moved()

    def unit(tx: Tx) -> None:
        video = videos.by_id(tx, video_id)
        assert video is not None
        act(tx, video, videos.attempts_of(tx, video_id), moved)

    await house.house.store.write(unit)
    return moved


def _complete(tx: Tx, video: Video, attempts: list[Attempt], moved: Moved) -> None:
    assert videos.complete(tx, video.id, 1, FOOTAGE, at=tx.now_us, expires_at=tx.now_us + 1)
    settle.complete(tx, video, video.read_spec(), attempts[0], FOOTAGE, moved, tolerance="0.01")


def _fail(code: str) -> Callable[[Tx, Video, list[Attempt], Moved], bool]:
    def act(tx: Tx, video: Video, attempts: list[Attempt], moved: Moved) -> bool:
        del attempts
        assert videos.fail(tx, video.id, code, "over", at=tx.now_us, cancelled=code == "cancelled")
        after = videos.by_id(tx, video.id)
        assert after is not None
        return settle.close(tx, after, moved)

    return act


def _conclude(number: int, *, finished: bool, cost: int | None) -> Callable[[Tx, Video, list[Attempt], Moved], None]:
    def act(tx: Tx, video: Video, attempts: list[Attempt], moved: Moved) -> None:
        ended = msgspec.structs.replace(
            attempts[number - 1], state="done" if finished else "failed", cost_microusd=cost, ended_at=tx.now_us
        )
        settle.conclude(tx, video, ended, moved, finished=finished)

    return act


async def test_hold_takes_from_the_credits_what_it_holds(house: Rehearsal) -> None:
    video_id = await house.accept()
    hold = (await house.video(video_id)).hold_microusd
    assert hold == PRICE_MICROUSD
    assert await house.balances() == {f"tenant:{TENANT.id}:held": hold, f"credits:{TENANT.id}": -hold}


async def test_completed_video_is_charged_once_whatever_asks_again(house: Rehearsal) -> None:
    video_id = await _begun(house, "done")
    moved = await _in_one(house, video_id, _complete)
    assert moved.charged_microusd == PRICE_MICROUSD
    charged = await house.balances()

    def again(tx: Tx, video: Video, attempts: list[Attempt], moved: Moved) -> None:
        settle.complete(tx, video, video.read_spec(), attempts[0], FOOTAGE, moved, tolerance="0.01")

    with pytest.raises(RuntimeError, match="ended before"):
        await _in_one(house, video_id, again)
    assert await house.balances() == charged


async def test_hold_that_was_posted_is_not_posted_for_another_attempt(house: Rehearsal) -> None:
    video_id = await _begun(house, "done", "done")
    await _in_one(house, video_id, _complete)
    charged = await house.balances()

    def other(tx: Tx, video: Video, attempts: list[Attempt], moved: Moved) -> None:
        settle.complete(tx, video, video.read_spec(), attempts[1], FOOTAGE, moved, tolerance="0.01")

    with pytest.raises(RuntimeError, match="ended before"):
        await _in_one(house, video_id, other)
    assert await house.balances() == charged


async def test_hold_that_was_voided_is_not_voided_again(house: Rehearsal) -> None:
    video_id = await _begun(house, "unknown")
    await _in_one(house, video_id, _fail("outcome_unknown"))
    with pytest.raises(RuntimeError, match="ended before"):
        await _in_one(house, video_id, lambda tx, video, _, moved: settle.close(tx, video, moved))
    assert await house.balances() == {}


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("deadline_exceeded", "abandoned"),
        ("outcome_unknown", "unknown"),
        ("storage_error", "undelivered"),
        ("provider_error", "unknown"),
    ],
)
async def test_cost_that_appears_after_the_end_is_ours(house: Rehearsal, code: str, reason: str) -> None:
    video_id = await _begun(house, "running")
    await _in_one(house, video_id, _fail(code))
    assert (await house.video(video_id)).hold == "void"
    moved = await _in_one(house, video_id, _conclude(1, finished=True, cost=PRICE_MICROUSD))
    assert moved.absorbed == [(reason, PRICE_MICROUSD)]
    balances = await house.balances()
    assert balances == {f"absorbed:{reason}": PRICE_MICROUSD, "provider:fal:payable": -PRICE_MICROUSD}


@pytest.mark.parametrize("state", ["sending", "running", "unknown", "lost"])
async def test_cancelled_video_keeps_its_hold_while_an_attempt_may_be_billed(house: Rehearsal, state: str) -> None:
    video_id = await _begun(house, state)
    await _in_one(house, video_id, _fail("cancelled"))
    assert (await house.video(video_id)).hold == "held"
    await _in_one(house, video_id, _conclude(1, finished=True, cost=500_000))
    video = await house.video(video_id)
    assert (video.hold, video.charged_microusd) == ("posted", 500_000)


async def test_cancelled_video_with_two_attempts_pays_for_both_at_most_its_hold(house: Rehearsal) -> None:
    video_id = await _begun(house, "running", "running")
    await _in_one(house, video_id, _fail("cancelled"))
    await _in_one(house, video_id, _conclude(1, finished=True, cost=PRICE_MICROUSD))
    assert (await house.video(video_id)).hold == "held"
    moved = await _in_one(house, video_id, _conclude(2, finished=True, cost=PRICE_MICROUSD))
    video = await house.video(video_id)
    assert video.charged_microusd == video.hold_microusd == moved.charged_microusd
    balances = await house.balances()
    assert balances[f"tenant:{TENANT.id}:spend"] == PRICE_MICROUSD
    assert balances["absorbed:overrun"] == PRICE_MICROUSD


async def test_bill_that_comes_after_the_hold_of_a_cancelled_video_ended_is_ours(house: Rehearsal) -> None:
    """An unknown end keeps the hold no longer than to the deadline."""
    video_id = await _begun(house, "unknown")
    await _in_one(house, video_id, _fail("cancelled"))
    house.clock.move(1300)
    await _in_one(house, video_id, lambda tx, video, _, moved: settle.close(tx, video, moved))
    assert (await house.video(video_id)).hold == "void"
    moved = await _in_one(house, video_id, _conclude(1, finished=True, cost=PRICE_MICROUSD))
    assert moved.absorbed == [("unknown", PRICE_MICROUSD)]


async def test_cost_that_nobody_knows_is_written_nowhere(house: Rehearsal) -> None:
    video_id = await _begun(house, "running")
    await _in_one(house, video_id, _fail("cancelled"))
    moved = await _in_one(house, video_id, _conclude(1, finished=False, cost=None))
    assert (moved.costs, moved.absorbed, moved.charged_microusd) == ([], [], 0)
    assert (await house.video(video_id)).hold == "void"
    assert (await house.attempt(video_id)).cost_microusd is None
    assert await house.balances() == {}


async def test_failed_attempts_that_the_rule_bills_share_the_hold(database: Database, film: bytes) -> None:
    """The hold is then the sum of what may be tried, so that both fit."""
    async with rehearse(database, film, rule={"bill_failed_attempts": True}) as house:
        video_id = await _begun(house, "done", "running")
        assert (await house.video(video_id)).hold_microusd == 2 * PRICE_MICROUSD
        await _in_one(house, video_id, _conclude(2, finished=False, cost=300_000))
        assert (await house.video(video_id)).hold == "held"
        await _in_one(house, video_id, _complete)
        video = await house.video(video_id)
        assert video.charged_microusd == PRICE_MICROUSD + 300_000
        balances = await house.balances()
        assert balances[f"tenant:{TENANT.id}:spend"] == PRICE_MICROUSD + 300_000
        assert balances["provider:runflow:payable"] == -300_000
