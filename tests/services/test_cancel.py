"""Cancel and delete, whatever the attempt is doing."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from proxy.core.errors import Interrupted
from proxy.core.wire import Call, Reply
from proxy.services.cancel import cancel, delete
from proxy.services.watch import attend
from proxy.store.tables import metadata
from tests.databases import Database
from tests.services.rehearsal import TENANT, FalOrder, Rehearsal, rehearse, reply

FAL_720P_MICROUSD = 1_213_600
FAL = "fal/seedance-2.0"


async def test_video_that_was_never_sent_costs_nothing(house: Rehearsal) -> None:
    video_id = await house.accept()
    video = await house.cancel(video_id)
    assert video is not None
    assert (video.status, video.error_code, video.hold, video.charged_microusd) == ("failed", "cancelled", "void", 0)
    await house.settle()
    assert house.transport.calls == []
    assert await house.balances() == {}
    assert await house.rows_of_work(video_id) == []


async def test_video_that_waits_to_ask_again_costs_nothing(house: Rehearsal) -> None:
    async def throttle(provider: str, call: Call) -> Reply:
        del provider, call
        return reply(429, {"detail": "slow down"}, **{"retry-after": "30"})

    house.answers(throttle)
    video_id = await house.accept(model=FAL)
    await house.settle()
    await house.cancel(video_id)
    await house.run(100, step_s=10)
    assert len(house.transport.calls) == 1
    assert (await house.video(video_id)).hold == "void"


async def test_submit_under_way_is_answered_and_then_stopped(house: Rehearsal) -> None:
    order = FalOrder()

    async def cancelled_meanwhile(provider: str, call: Call) -> Reply:
        if call.method == "POST":
            video = await house.cancel(video_id)
            assert video is not None
            assert (video.status, video.hold) == ("failed", "held")
        return await order(provider, call)

    house.answers(cancelled_meanwhile)
    video_id = await house.accept(model=FAL)
    await house.run(20)
    assert await house.states(video_id) == ["running"]
    assert [method for _, method, _ in house.transport.calls].count("PUT") == 1


async def test_submit_that_is_refused_after_the_cancel_costs_nothing(house: Rehearsal) -> None:
    async def cancelled_meanwhile(provider: str, call: Call) -> Reply:
        del provider, call
        await house.cancel(video_id)
        return reply(429, {"detail": "slow down"})

    house.answers(cancelled_meanwhile)
    video_id = await house.accept()
    await house.run(60, step_s=10)
    assert await house.states(video_id) == ["refused"], "nothing is bought for a video that is over"
    assert (await house.video(video_id)).hold == "void"
    assert await house.rows_of_work(video_id) == []


async def test_unknown_submit_keeps_the_hold_of_a_cancelled_video_to_the_deadline(house: Rehearsal) -> None:
    async def lost(provider: str, call: Call) -> Reply:
        await house.cancel(video_id)
        raise Interrupted(f"{provider} {call.path}")

    house.answers(lost)
    video_id = await house.accept()
    await house.run(1190, step_s=10)
    assert (await house.video(video_id)).hold == "held"
    await house.run(30, step_s=10)
    assert (await house.video(video_id)).hold == "void"
    assert await house.states(video_id) == ["unknown"], "operators still see it"


async def test_film_that_is_made_all_the_same_is_billed_to_who_cancelled(house: Rehearsal) -> None:
    order = FalOrder()
    house.answers(order)
    video_id = await house.accept(model=FAL)
    await house.settle()
    await house.cancel(video_id)
    order.status = "COMPLETED"
    await house.run(20)
    video = await house.video(video_id)
    assert (video.status, video.error_code) == ("failed", "cancelled")
    assert (video.hold, video.charged_microusd) == ("posted", FAL_720P_MICROUSD)
    assert house.fetcher.opened == 0
    balances = await house.balances()
    assert balances[f"tenant:{TENANT.id}:spend"] == FAL_720P_MICROUSD
    assert house.metric("reelay_charged_usd_total", tenant="other", model="seedance-2.0") == pytest.approx(1.2136)


async def test_film_of_a_length_that_only_the_seller_knows_is_not_billed_by_guess(house: Rehearsal) -> None:
    order = FalOrder()
    house.answers(order)
    video_id = await house.accept(model=FAL, seconds="auto")
    await house.settle()
    await house.cancel(video_id)
    order.status = "COMPLETED"
    await house.run(20)
    attempt = await house.attempt(video_id)
    assert (attempt.state, attempt.cost_microusd) == ("done", None)
    assert (await house.video(video_id)).hold == "void"


async def test_render_that_the_seller_stops_costs_nothing_that_is_known(house: Rehearsal) -> None:
    stopped = False

    async def stops(provider: str, call: Call) -> Reply:
        nonlocal stopped
        stopped = stopped or call.method == "PUT"
        if stopped and call.path.endswith("/status"):
            return reply(200, {"status": "COMPLETED", "error_type": "client_cancelled", "error": "cancelled"})
        return await FalOrder()(provider, call)

    house.answers(stops)
    video_id = await house.accept(model=FAL)
    await house.settle()
    await house.cancel(video_id)
    await house.run(20)
    attempt = await house.attempt(video_id)
    assert (attempt.state, attempt.failure_kind) == ("failed", "cancelled")
    assert (await house.video(video_id)).hold == "void"


async def test_cancel_that_got_lost_on_its_way_is_sent_again(house: Rehearsal) -> None:
    """A film that is not stopped has to be paid."""
    puts = 0

    async def loses_the_first(provider: str, call: Call) -> Reply:
        nonlocal puts
        if call.method == "PUT":
            puts += 1
            if puts == 1:
                raise Interrupted("reset")
        return await FalOrder()(provider, call)

    house.answers(loses_the_first)
    video_id = await house.accept(model=FAL)
    await house.settle()
    await house.cancel(video_id)
    await house.run(60, step_s=5)
    assert puts == 2


async def test_cancel_in_the_middle_of_a_copy_delivers_nothing_and_leaves_no_file(
    house: Rehearsal, tmp_path: Path
) -> None:
    order = FalOrder()
    order.status = "COMPLETED"
    house.answers(order)
    video_id = await house.accept(model=FAL)
    house.fetcher.before = lambda: house.cancel(video_id)
    await house.run(20)
    video = await house.video(video_id)
    assert (video.status, video.error_code, video.footage) == ("failed", "cancelled", None)
    assert (video.hold, video.charged_microusd) == ("posted", FAL_720P_MICROUSD)
    assert list((tmp_path / "videos").rglob("*.mp4")) == []


async def test_cancel_of_a_completed_video_changes_nothing(house: Rehearsal) -> None:
    order = FalOrder()
    order.status = "COMPLETED"
    house.answers(order)
    video_id = await house.accept(model=FAL)
    await house.run(20)
    before = await house.video(video_id)
    assert before.status == "completed"
    assert await house.cancel(video_id) == before
    await house.run(20)
    assert await house.video(video_id) == before


async def test_cancel_of_a_failed_video_changes_nothing(house: Rehearsal) -> None:
    async def blocked(provider: str, call: Call) -> Reply:
        del provider, call
        return reply(422, {"detail": [{"type": "content_policy_violation", "msg": "no", "loc": ["body", "prompt"]}]})

    house.answers(blocked)
    video_id = await house.accept(model=FAL)
    await house.settle()
    before = await house.video(video_id)
    assert before.error_code == "moderation_blocked"
    assert await house.cancel(video_id) == before


async def test_nobody_cancels_or_deletes_what_is_not_theirs(house: Rehearsal) -> None:
    video_id = await house.accept()
    assert await cancel(house.house, "tenant_b", video_id) is None
    assert await delete(house.house, "tenant_b", video_id) is False
    assert await cancel(house.house, TENANT.id, "video_0") is None
    assert (await house.video(video_id)).status == "queued"


async def test_deleted_video_cannot_be_cancelled_or_deleted_again(house: Rehearsal) -> None:
    video_id = await house.accept()
    assert await house.delete(video_id)
    assert await house.delete(video_id) is False
    assert await house.cancel(video_id) is None


# What a delete erases


SECRET = "an unlucky paper boat"
LINK = "files.example"


def _everything(database: Database) -> str:
    """Every value of every row, as text."""
    return repr([database.rows(f"select * from {table}") for table in metadata.tables])  # noqa: S608  # the names are our own


async def _before_it_is_sent(house: Rehearsal, video_id: str) -> None:
    await house.delete(video_id)


async def _while_it_runs(house: Rehearsal, video_id: str) -> None:
    await house.settle()
    await house.delete(video_id)


async def _while_it_is_copied(house: Rehearsal, video_id: str) -> None:
    house.fetcher.before = lambda: house.delete(video_id)
    await house.run(20)


async def _after_it_is_completed(house: Rehearsal, video_id: str) -> None:
    await house.run(20)
    assert (await house.video(video_id)).status == "completed"
    await house.delete(video_id)


@pytest.mark.parametrize("when", [_before_it_is_sent, _while_it_runs, _while_it_is_copied, _after_it_is_completed])
async def test_delete_leaves_no_prompt_no_link_and_no_file(
    house: Rehearsal, database: Database, when: Callable[[Rehearsal, str], Awaitable[None]]
) -> None:
    order = FalOrder()
    order.status = "COMPLETED"
    house.answers(order)
    video_id = await house.accept(model=FAL, prompt=SECRET, metadata={"team": "ads"})
    assert SECRET in _everything(database)
    await when(house, video_id)
    await house.run(30)
    kept = _everything(database)
    assert SECRET not in kept
    assert LINK not in kept
    assert list((database.folder / "videos").rglob("*.mp4")) == []
    video = await house.video(video_id)
    assert video.hold != "held"
    pairs = [row[0] for row in database.rows("select metadata from settlements")]
    assert pairs == ['{"team":"ads"}'] * bool(video.charged_microusd), "whose cost it was stays in the books"


async def test_refusal_text_that_comes_after_the_delete_is_not_kept(house: Rehearsal, database: Database) -> None:
    order = FalOrder()

    async def quotes_the_prompt(provider: str, call: Call) -> Reply:
        if call.path.endswith("/requests/fal-1"):
            detail = [{"type": "content_policy_violation", "msg": f"refused: {SECRET}", "loc": ["body", "prompt"]}]
            return reply(422, {"detail": detail})
        return await order(provider, call)

    house.answers(quotes_the_prompt)
    video_id = await house.accept(model=FAL, prompt=SECRET)
    await house.settle()
    await house.delete(video_id)
    order.status = "COMPLETED"
    await house.run(20)
    assert await house.states(video_id) == ["failed"]
    assert SECRET not in _everything(database)


async def test_answer_after_the_delete_leaves_none_of_its_words(house: Rehearsal, database: Database) -> None:
    async def quotes_the_prompt(provider: str, call: Call) -> Reply:
        del provider, call
        await house.delete(video_id)
        return reply(500, {"detail": f"broke at {SECRET}"})

    house.answers(quotes_the_prompt)
    video_id = await house.accept(model=FAL, prompt=SECRET)
    await house.settle()
    assert await house.states(video_id) == ["unknown"]
    assert SECRET not in _everything(database)


async def test_copy_that_a_crash_left_behind_goes_with_the_video(house: Rehearsal, tmp_path: Path) -> None:
    """The file was in place, the process died before saying so, and the customer deleted the video then."""
    order = FalOrder()
    order.status = "COMPLETED"
    house.answers(order)
    video_id = await house.accept(model=FAL)
    await house.settle()
    house.clock.move(11)
    (claim,) = await house.claim()
    ready = await attend(house.house, claim, await house.video(video_id), await house.attempt(video_id))
    assert ready is not None
    left = tmp_path / "videos" / TENANT.id / f"{video_id}-1-{claim.fence}.mp4"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"film")
    await house.restart()
    await house.delete(video_id)
    await house.run(5)
    assert not left.exists()


async def test_charge_of_a_cancelled_video_never_exceeds_its_hold(database: Database, film: bytes) -> None:
    """The seller names a price beyond what was held; the rest is ours."""
    async with rehearse(database, film, order=("runflow",)) as house:

        async def dear(provider: str, call: Call) -> Reply:
            assert provider == "runflow"
            if call.method == "POST":
                return reply(201, {"id": "run-1", "status_code": "queued"})
            output = {"outputs": [{"url": "https://files.example/film.mp4", "type": "video"}]}
            return reply(200, {"id": "run-1", "status_code": "succeeded", "cost": "5.00", "output": output})

        house.answers(dear)
        video_id = await house.accept()
        await house.settle()
        await house.cancel(video_id)
        await house.settle()
        video = await house.video(video_id)
        assert video.charged_microusd == video.hold_microusd == FAL_720P_MICROUSD
        balances = await house.balances()
        assert balances["absorbed:overrun"] == 5_000_000 - FAL_720P_MICROUSD
        assert balances["provider:runflow:payable"] == -5_000_000


async def _never_ends(provider: str, call: Call) -> Reply:
    assert provider == "shortapi"
    if call.method == "POST":
        return reply(200, {"code": 0, "data": {"job_id": "job-1", "amount": "0.96"}})
    return reply(200, {"code": 0, "data": {"id": "job-1", "status": 1}})


async def test_order_that_never_ends_is_given_up_at_an_unknown_cost_and_not_charged(
    database: Database, film: bytes
) -> None:
    """What was named at accept is no sign that a film was made."""
    async with rehearse(database, film, order=("shortapi",)) as house:
        house.answers(_never_ends)
        video_id = await house.accept()
        await house.run(3)
        await house.cancel(video_id)
        house.clock.move(73 * 3600)
        await house.run(120, step_s=10)
        attempt, video = await house.attempt(video_id), await house.video(video_id)
        assert (attempt.state, attempt.cost_microusd) == ("failed", None)
        assert (video.hold, video.charged_microusd) == ("void", 0)
