"""Submits that last as long as the render: an answer is the film, and no answer is an order of unknown end."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.core.errors import Interrupted, NotSent
from proxy.core.wire import Call, Reply
from proxy.outside.assets import FileUnavailable
from proxy.services.watch import attend
from tests.services.rehearsal import Blocking, FalOrder, Hasty, Rehearsal, rehearse, reply

FILM_MICROUSD = 1_213_600
"""Four seconds of 720p at 0.3034 USD, and what the newer interface takes too."""
LINK = "https://files.example/film.mp4"


@pytest.fixture
async def blocking(tmp_path: Path, film: bytes) -> AsyncIterator[Rehearsal]:
    """Waits where a submit's end is unknown."""
    async with rehearse(tmp_path, film, order=("runflow-legacy", "fal")) as house:
        yield house


@pytest.fixture
async def bold(tmp_path: Path, film: bytes) -> AsyncIterator[Rehearsal]:
    """Buys elsewhere."""
    async with rehearse(tmp_path, film, order=("runflow-legacy", "fal"), on_unknown="fallback") as house:
        yield house


@pytest.fixture
async def hasty(tmp_path: Path, film: bytes) -> AsyncIterator[Rehearsal]:
    """A fal that may answer with the film."""
    async with rehearse(tmp_path, film, adapters={"fal": Hasty()}) as house:
        yield house


def submits(house: Rehearsal) -> list[str]:
    return [provider for provider, method, _ in house.transport.calls if method == "POST"]


# Answered with the film


async def test_film_is_copied_at_once_and_billed_by_its_price(blocking: Rehearsal) -> None:
    async def render() -> None:
        blocking.clock.move(85)

    blocking.answers(Blocking(render))
    video_id = await blocking.accept()
    await blocking.settle()
    video, attempt = await blocking.video(video_id), await blocking.attempt(video_id)
    assert (video.status, video.charged_microusd, video.hold) == ("completed", FILM_MICROUSD, "posted")
    assert (attempt.state, attempt.link, attempt.seller_id) == ("done", LINK, None)
    assert (attempt.cost_microusd, attempt.cost_stated, attempt.bearer) == (FILM_MICROUSD, 0, "tenant")
    assert attempt.accepted_at == attempt.ended_at == attempt.started_at + 85_000_000
    assert submits(blocking) == ["runflow-legacy"]
    assert len(blocking.transport.calls) == 1, "there is nothing to ask"
    assert await blocking.rows_of_work(video_id) == []


async def test_id_that_comes_with_the_film_is_kept(blocking: Rehearsal) -> None:
    seller = Blocking()
    seller.answer = reply(200, {"id": "run-1", "video": {"url": LINK}})
    blocking.answers(seller)
    video_id = await blocking.accept()
    await blocking.settle()
    attempt = await blocking.attempt(video_id)
    assert (attempt.state, attempt.seller_id, attempt.link) == ("done", "run-1", LINK)


async def test_film_under_the_id_of_another_order_is_not_taken_for_ones_own(blocking: Rehearsal) -> None:
    seller = Blocking()
    seller.answer = reply(200, {"id": "run-1", "video": {"url": LINK}})
    blocking.answers(seller)
    first, second = await blocking.accept(), await blocking.accept()
    await blocking.settle()
    states = sorted([*await blocking.states(first), *await blocking.states(second)])
    assert states == ["done", "unknown"]


async def test_copy_that_failed_is_tried_again_with_the_only_link_there_is(blocking: Rehearsal) -> None:
    async def gone() -> None:
        raise FileUnavailable("files.example answers 404", status=404, retryable=True)

    blocking.answers(Blocking())
    blocking.fetcher.before = gone
    video_id = await blocking.accept()
    await blocking.run(60, step_s=5)
    attempt = await blocking.attempt(video_id)
    assert attempt.fetches > 2
    assert (attempt.link, len(blocking.transport.calls)) == (LINK, 1)
    blocking.fetcher.before = None
    await blocking.run(300, step_s=10)
    assert (await blocking.video(video_id)).status == "completed"
    assert submits(blocking) == ["runflow-legacy"]


async def test_link_that_is_dead_for_its_whole_life_ends_the_video_and_buys_nothing_more(blocking: Rehearsal) -> None:
    async def gone() -> None:
        raise FileUnavailable("files.example answers 404", status=404, retryable=True)

    blocking.answers(Blocking())
    blocking.fetcher.before = gone
    video_id = await blocking.accept()
    await blocking.run(3700, step_s=20)
    video = await blocking.video(video_id)
    assert (video.error_code, video.hold) == ("storage_error", "void")
    assert await blocking.balances() == {
        "absorbed:undelivered": FILM_MICROUSD,
        "provider:runflow-legacy:payable": -FILM_MICROUSD,
    }
    assert submits(blocking) == ["runflow-legacy"]


# While it renders


@pytest.mark.parametrize("delete", [False, True], ids=["cancelled", "deleted"])
async def test_film_of_a_video_that_was_given_up_meanwhile_is_billed_and_not_copied(
    blocking: Rehearsal, *, delete: bool
) -> None:
    async def stop() -> None:
        await (blocking.delete(video_id) if delete else blocking.cancel(video_id))
        assert (await blocking.video(video_id)).hold == "held", "what was sent may still be billed"

    blocking.answers(Blocking(stop))
    video_id = await blocking.accept()
    await blocking.settle()
    video, attempt = await blocking.video(video_id), await blocking.attempt(video_id)
    assert (video.status, video.error_code) == ("failed", "cancelled")
    assert (video.hold, video.charged_microusd) == ("posted", FILM_MICROUSD)
    assert (attempt.state, attempt.bearer) == ("done", "tenant")
    assert (attempt.link is None) == delete
    assert blocking.fetcher.opened == 0
    assert await blocking.rows_of_work(video_id) == []


async def test_film_is_kept_though_the_lease_was_lost_and_the_order_called_unknown(blocking: Rehearsal) -> None:
    async def slow() -> None:
        blocking.clock.move(1000)
        await blocking.settle()
        assert await blocking.states(video_id) == ["unknown"]

    blocking.answers(Blocking(slow))
    video_id = await blocking.accept()
    await blocking.settle()
    video, attempt = await blocking.video(video_id), await blocking.attempt(video_id)
    assert (video.status, video.charged_microusd) == ("completed", FILM_MICROUSD)
    assert (attempt.state, attempt.message, attempt.missing_since) == ("done", None, None)
    assert submits(blocking) == ["runflow-legacy"]


async def test_film_that_comes_beside_another_purchase_is_delivered_and_that_one_absorbed(bold: Rehearsal) -> None:
    other = FalOrder()

    async def slow() -> None:
        bold.clock.move(1000)
        await bold.settle()
        assert await bold.states(video_id) == ["unknown", "running"]

    seller = Blocking(slow)

    async def both(provider: str, call: Call) -> Reply:
        return await (other if provider == "fal" else seller)(provider, call)

    bold.answers(both)
    video_id = await bold.accept()
    await bold.settle()
    video = await bold.video(video_id)
    assert (video.status, video.delivered_no) == ("completed", 1)
    other.status = "COMPLETED"
    await bold.run(60, step_s=5)
    assert [attempt.bearer for attempt in await bold.attempts(video_id)] == ["tenant", "absorbed:double"]


async def test_deadline_does_not_wait_for_a_submit_that_is_still_under_way(tmp_path: Path, film: bytes) -> None:
    async with rehearse(tmp_path, film, order=("runflow-legacy",), deadline_s=60) as house:

        async def slow() -> None:
            await house.run(59)
            assert (await house.video(video_id)).status == "queued"
            await house.run(2)
            video = await house.video(video_id)
            assert (video.status, video.error_code, video.hold) == ("failed", "outcome_unknown", "void")
            assert await house.states(video_id) == ["sending"]
            house.clock.move(30)

        house.answers(Blocking(slow))
        video_id = await house.accept(model="runflow-legacy/seedance-2.0")
        await house.settle()
        attempt = await house.attempt(video_id)
        assert (attempt.state, attempt.bearer) == ("done", "absorbed:unknown")
        assert (await house.video(video_id)).status == "failed", "it never reopens"
        assert (await house.balances())["absorbed:unknown"] == FILM_MICROUSD
        assert house.fetcher.opened == 0
        assert await house.rows_of_work(video_id) == []


async def test_film_that_comes_as_the_deadline_is_looked_at_is_copied(tmp_path: Path, film: bytes) -> None:
    """The look was begun for a submit under way; by the time it is written down the answer has come."""
    async with rehearse(tmp_path, film, order=("runflow-legacy",), deadline_s=60) as house:
        release, looking = asyncio.Event(), asyncio.Event()

        async def slow() -> None:
            looking.set()
            await release.wait()

        house.answers(Blocking(slow))
        video_id = await house.accept(model="runflow-legacy/seedance-2.0")
        submit = asyncio.create_task(house.turn())
        await looking.wait()
        house.clock.move(60)
        (look,) = await house.claim()
        video, attempt = await house.video(video_id), await house.attempt(video_id)
        release.set()
        await submit
        assert await house.states(video_id) == ["done"]
        assert await attend(house.house, look, video, attempt) is None
        await house.settle()
        assert (await house.video(video_id)).status == "completed"


@pytest.mark.parametrize("status", ["IN_PROGRESS", "COMPLETED"])
async def test_film_that_is_answered_after_a_callback_healed_the_order_changes_no_more_than_it_must(
    hasty: Rehearsal, status: str
) -> None:
    order = FalOrder()

    async def slow(provider: str, call: Call) -> Reply:
        if call.method != "POST":
            return await order(provider, call)
        hasty.clock.move(200)
        await hasty.settle()
        assert await hasty.call_back(video_id, 1, {"request_id": "fal-1"})
        order.status = status
        await hasty.settle()
        assert await hasty.states(video_id) == ["running" if status == "IN_PROGRESS" else "done"]
        return reply(200, {"video": {"url": LINK}, "seed": 1})

    hasty.answers(slow)
    video_id = await hasty.accept()
    await hasty.settle()
    video, attempt = await hasty.video(video_id), await hasty.attempt(video_id)
    assert (video.status, video.charged_microusd) == ("completed", FILM_MICROUSD)
    assert (attempt.state, attempt.seller_id, hasty.fetcher.opened) == ("done", "fal-1", 1)
    assert await hasty.rows_of_work(video_id) == []


async def test_film_without_an_id_is_not_asked_for_again_where_orders_can_be(hasty: Rehearsal) -> None:
    async def gone() -> None:
        raise FileUnavailable("files.example answers 404", status=404, retryable=True)

    async def at_once(provider: str, call: Call) -> Reply:
        assert (provider, call.method) == ("fal", "POST")
        return reply(200, {"video": {"url": LINK}, "seed": 1})

    hasty.answers(at_once)
    hasty.fetcher.before = gone
    video_id = await hasty.accept()
    await hasty.run(20)
    attempt = await hasty.attempt(video_id)
    assert (attempt.state, attempt.seller_id, attempt.link) == ("done", None, LINK)
    assert attempt.fetches > 1


# Not answered


@pytest.mark.parametrize(
    "answer",
    [
        Interrupted("reset"),
        Interrupted("no answer within 900 s"),
        reply(500, {"code": "INTERNAL_ERROR", "message": "x"}),
        reply(502, None),
        reply(503, None),
        reply(504, None),
        reply(200, {"id": "run-1", "status_code": "queued"}),
        reply(200, {"video": None}),
    ],
    ids=["reset", "timeout", "500", "502", "503", "504", "a run", "no film"],
)
async def test_whatever_breaks_the_call_leaves_the_order_unknown(
    blocking: Rehearsal, answer: Reply | Interrupted
) -> None:
    async def breaks(provider: str, call: Call) -> Reply:
        assert (provider, call.method) == ("runflow-legacy", "POST")
        if isinstance(answer, Interrupted):
            raise answer
        return answer

    blocking.answers(breaks)
    video_id = await blocking.accept()
    await blocking.run(1190, step_s=10)
    assert await blocking.states(video_id) == ["unknown"]
    await blocking.run(20, step_s=10)
    video = await blocking.video(video_id)
    assert (video.error_code, video.hold) == ("outcome_unknown", "void")
    assert len(blocking.transport.calls) == 1
    assert await blocking.rows_of_work(video_id) == []


async def test_unknown_end_moves_on_where_the_rule_says_so(bold: Rehearsal) -> None:
    order = FalOrder()
    order.status = "COMPLETED"

    async def breaks(provider: str, call: Call) -> Reply:
        if provider == "runflow-legacy":
            raise Interrupted("reset")
        return await order(provider, call)

    bold.answers(breaks)
    video_id = await bold.accept()
    await bold.run(30)
    assert await bold.states(video_id) == ["unknown", "done"]
    assert bold.metric("reelay_possible_double_total", provider="runflow-legacy") == 1


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (NotSent("no connection"), "capacity"),
        (reply(402, {"code": "INSUFFICIENT_CREDIT", "message": "empty"}), "account"),
        (reply(503, {"code": "MODEL_UNAVAILABLE", "message": "off"}), "capacity"),
        (reply(429, None), "throttled"),
    ],
    ids=["not connected", "402", "503 in its own words", "429"],
)
async def test_definite_no_lets_another_seller_try(blocking: Rehearsal, answer: Reply | NotSent, kind: str) -> None:
    order = FalOrder()

    async def refuses(provider: str, call: Call) -> Reply:
        if provider == "fal":
            return await order(provider, call)
        if isinstance(answer, NotSent):
            raise answer
        return answer

    blocking.answers(refuses)
    video_id = await blocking.accept()
    await blocking.settle()
    refused, running = await blocking.attempts(video_id)
    assert (refused.state, refused.failure_kind, refused.cost_microusd) == ("refused", kind, 0)
    assert (running.state, running.provider) == ("running", "fal")


async def test_killed_in_the_middle_of_a_render_is_an_unknown_end(blocking: Rehearsal) -> None:
    sent = asyncio.Event()

    async def forever() -> None:
        sent.set()
        await asyncio.Event().wait()

    blocking.answers(Blocking(forever))
    video_id = await blocking.accept()
    submit = asyncio.create_task(blocking.turn())
    await sent.wait()
    submit.cancel()
    await asyncio.wait([submit])
    await blocking.restart()
    await blocking.settle()
    assert await blocking.states(video_id) == ["unknown"]
    assert len(blocking.transport.calls) == 1
