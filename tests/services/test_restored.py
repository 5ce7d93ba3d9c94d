"""A database that is older than the world doubts what it would buy next, until sellers or operators tell."""

from pathlib import Path

import pytest

from proxy.core.errors import ConfigError
from proxy.core.wire import Call, Reply
from proxy.services.heal import RESTORED
from proxy.services.resolve import Finding, resolve
from proxy.services.restored import Doubted, doubt_everything, last_restore, look_back
from proxy.store import tenants
from tests.services.rehearsal import FalOrder, Rehearsal, nobody_answers, rehearse, reply


async def restored(house: Rehearsal) -> Doubted:
    """What a start with --after-restore does."""
    await house.restart()
    doubted = await house.house.store.write(doubt_everything)
    house.house.restored_at = await house.house.store.read_now(last_restore)
    return doubted


def bought(house: Rehearsal) -> int:
    return [method for _, method, _ in house.transport.calls].count("POST")


class Runflow:
    """Knows these orders by our name for them, and has finished them."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = numbers

    async def __call__(self, provider: str, call: Call) -> Reply:
        if provider != "runflow" or call.method != "GET":
            return await nobody_answers(provider, call)
        if "outputs" in call.path or call.path.rsplit("/", 1)[-1].startswith("run-"):
            output = {"outputs": [{"url": "https://files.example/film.mp4", "type": "video"}]}
            return reply(200, {"id": "run-9", "status_code": "succeeded", "output": output})
        known = any(f"-{number}" in repr(call) for number in self.numbers)
        return reply(200, {"items": [{"id": "run-9", "status_code": "queued"}] if known else []})


async def test_video_that_was_never_sent_may_have_been_and_is_not_sent_again(house: Rehearsal) -> None:
    video_id = await house.accept()
    assert await restored(house) == Doubted(sending=0, next_offers=1)
    attempt = await house.attempt(video_id)
    assert (attempt.state, attempt.provider, attempt.client_ref) == ("unknown", "fal", f"{video_id}-1")
    assert (attempt.message, attempt.possible_microusd, attempt.cost_microusd) == (RESTORED, 1_213_600, None)
    house.answers(FalOrder())
    await house.run(1300, step_s=10)
    assert bought(house) == 0
    video = await house.video(video_id)
    assert (video.status, video.error_code, video.hold) == ("failed", "outcome_unknown", "void")
    assert await house.states(video_id) == ["unknown"], "operators see it"
    assert await house.balances() == {}


async def test_submit_that_was_under_way_is_of_unknown_end(house: Rehearsal) -> None:
    async def killed(provider: str, call: Call) -> Reply:
        raise KeyboardInterrupt(f"{provider} {call.path}")

    video_id = await house.accept()
    house.answers(killed)
    with pytest.raises(KeyboardInterrupt):
        await house.settle()
    assert await house.states(video_id) == ["sending"]
    assert await restored(house) == Doubted(sending=1, next_offers=0)
    assert await house.states(video_id) == ["unknown"]
    house.answers(nobody_answers)
    await house.run(60, step_s=10)
    assert await house.states(video_id) == ["unknown"]


async def test_attempt_that_ran_is_polled_on_and_delivered(house: Rehearsal) -> None:
    order = FalOrder()
    house.answers(order)
    video_id = await house.accept()
    await house.settle()
    assert await restored(house) == Doubted(sending=0, next_offers=0)
    order.status = "COMPLETED"
    await house.run(20)
    assert (await house.video(video_id)).status == "completed"
    assert bought(house) == 1


async def test_what_follows_a_render_that_failed_is_doubted_too(house: Rehearsal) -> None:
    """The same failure may have been seen before, and the next offer bought."""

    async def breaks(provider: str, call: Call) -> Reply:
        if call.path.endswith("/status"):
            return reply(200, {"status": "COMPLETED", "error_type": "internal_error", "error": "broken"})
        return await FalOrder()(provider, call)

    house.answers(breaks)
    video_id = await house.accept()
    await house.settle()
    await restored(house)
    await house.run(15)
    attempts = await house.attempts(video_id)
    assert [(one.provider, one.state) for one in attempts] == [("fal", "failed"), ("runflow", "unknown")]
    assert bought(house) == 1


async def test_offer_that_may_be_asked_only_later_has_not_been_asked(house: Rehearsal) -> None:
    async def throttled(provider: str, call: Call) -> Reply:
        del provider, call
        return reply(429, {"detail": "slow down"}, **{"retry-after": "30"})

    house.answers(throttled)
    video_id = await house.accept(model="fal/seedance-2.0")
    await house.settle()
    assert await restored(house) == Doubted(sending=0, next_offers=0)
    house.clock.move(31)
    assert await restored(house) == Doubted(sending=0, next_offers=1)
    assert await house.states(video_id) == ["refused", "unknown"]


async def test_seller_that_can_be_asked_is_asked_by_the_name_that_was_sent(tmp_path: Path, film: bytes) -> None:
    async with rehearse(tmp_path, film, order=("runflow", "fal")) as house:
        video_id = await house.accept()
        house.answers(Runflow(1))
        await restored(house)
        await house.run(30)
        assert (await house.video(video_id)).status == "completed"
        assert bought(house) == 0


async def test_no_such_order_is_no_proof_of_what_came_after_it(tmp_path: Path, film: bytes) -> None:
    """The first try had been refused and the second was taken: both are found out, neither is sent again."""
    async with rehearse(tmp_path, film, order=("runflow",)) as house:
        video_id = await house.accept()
        house.answers(Runflow(2))
        await restored(house)
        await house.run(400, step_s=5)
        assert await house.states(video_id) == ["refused", "done"]
        assert (await house.video(video_id)).status == "completed"
        assert bought(house) == 0


async def test_rule_that_would_rather_pay_twice_buys_at_the_next_offer(bold: Rehearsal) -> None:
    video_id = await bold.accept()
    await restored(bold)

    async def takes(provider: str, call: Call) -> Reply:
        assert provider == "runflow"
        assert call.method == "POST"
        return reply(201, {"id": "run-1", "status_code": "queued"})

    bold.answers(takes)
    await bold.settle()
    attempts = await bold.attempts(video_id)
    assert [(one.provider, one.state) for one in attempts] == [("fal", "unknown"), ("runflow", "running")]


async def test_rule_that_would_rather_pay_twice_doubts_what_came_after_an_earlier_unknown(
    tmp_path: Path, film: bytes
) -> None:
    """It may have bought there already; only the offer after that is surely new."""
    async with rehearse(tmp_path, film, order=("fal", "shortapi", "runflow"), on_unknown="fallback") as house:

        async def killed_at_the_second(provider: str, call: Call) -> Reply:
            if provider == "fal":
                return await nobody_answers(provider, call)
            raise KeyboardInterrupt

        video_id = await house.accept()
        house.answers(killed_at_the_second)
        (claim,) = await house.claim()
        await house.do(claim)
        assert await house.states(video_id) == ["unknown"]
        assert await restored(house) == Doubted(sending=0, next_offers=0)

        async def takes(provider: str, call: Call) -> Reply:
            assert (provider, call.method) == ("runflow", "POST")
            return reply(201, {"id": "run-1", "status_code": "queued"})

        house.answers(takes)
        await house.settle()
        attempts = await house.attempts(video_id)
        assert [(one.provider, one.state) for one in attempts] == [
            ("fal", "unknown"), ("shortapi", "unknown"), ("runflow", "running"),
        ]  # fmt: skip


async def test_operator_who_has_looked_lifts_the_doubt_of_an_offer(tmp_path: Path, film: bytes) -> None:
    async with rehearse(tmp_path, film, order=("fal",)) as house:
        video_id = await house.accept()
        await restored(house)
        await house.settle()
        finding = Finding(bought=False, reason="fal's books")
        await resolve(house.house.store, house.house.new_id, actor="cli", video_id=video_id, number=1, finding=finding)
        house.answers(FalOrder())
        await house.settle()
        assert await house.states(video_id) == ["refused", "running"]
        assert bought(house) == 1


async def test_second_time_at_once_changes_nothing(house: Rehearsal) -> None:
    video_id = await house.accept()
    await restored(house)
    before = await house.attempts(video_id)
    assert await restored(house) == Doubted(sending=0, next_offers=0)
    assert await house.attempts(video_id) == before


async def test_video_past_its_deadline_may_have_been_bought_before_it(house: Rehearsal) -> None:
    video_id = await house.accept()
    house.clock.move(5000)
    await restored(house)
    await house.settle()
    video = await house.video(video_id)
    assert (video.error_code, await house.states(video_id)) == ("outcome_unknown", ["unknown"])


async def test_video_accepted_after_the_restore_is_bought_as_ever(house: Rehearsal) -> None:
    await restored(house)
    house.clock.move(1)
    house.answers(FalOrder())
    video_id = await house.accept()
    await house.settle()
    assert await house.states(video_id) == ["running"]


async def test_clock_that_was_put_back_lets_no_video_slip_through(house: Rehearsal) -> None:
    video_id = await house.accept()
    house.clock.move(-3600)
    await restored(house)
    assert house.house.restored_at > (await house.video(video_id)).created_at


async def test_video_that_has_ended_is_left_alone(house: Rehearsal) -> None:
    video_id = await house.accept()
    await house.cancel(video_id)
    assert await restored(house) == Doubted(sending=0, next_offers=0)
    assert await house.states(video_id) == []


async def test_order_that_a_callback_had_named_runs(house: Rehearsal) -> None:
    """The submit was under way at the backup, and its id already known."""

    async def named_and_killed(provider: str, call: Call) -> Reply:
        await house.call_back(video_id, 1, {"request_id": "fal-1", "status": "OK"})
        raise KeyboardInterrupt(f"{provider} {call.path}")

    house.answers(named_and_killed)
    video_id = await house.accept()
    with pytest.raises(KeyboardInterrupt):
        await house.settle()
    assert await restored(house) == Doubted(sending=1, next_offers=0)
    attempt = await house.attempt(video_id)
    assert (attempt.state, attempt.seller_id) == ("running", "fal-1")


async def test_backup_is_not_taken_for_the_database_itself(house: Rehearsal) -> None:
    store = house.house.store
    assert await store.write(lambda tx: look_back(tx, after_restore=False)) is None
    await store.write(lambda tx: tenants.set_fact(tx, tenants.BACKUP_AT, "1"))
    with pytest.raises(ConfigError, match="this database is a backup"):
        await store.write(lambda tx: look_back(tx, after_restore=False))
    assert await store.write(lambda tx: look_back(tx, after_restore=True)) == Doubted(sending=0, next_offers=0)
    assert await store.write(lambda tx: look_back(tx, after_restore=False)) is None
    assert await store.read_now(last_restore) == house.clock.now_us
