"""Submits: what is kept of them, whatever happens around them."""

import asyncio
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from proxy.core.errors import Interrupted, InvalidValue, LeaseLost, Overloaded
from proxy.core.video import Ask
from proxy.core.wire import Call, Reply
from proxy.services.dispatch import advance
from proxy.services.intake import accept
from proxy.store import videos
from tests.databases import Database
from tests.policy.policies import make_spec
from tests.services.rehearsal import CALLER, FalOrder, Refusing, Rehearsal, rehearse, reply
from tests.store.rows import make_attempt
from tests.whole.stage import PLAY_KEYS

T = TypeVar("T")


async def _no_answer(provider: str, call: Call) -> Reply:
    raise Interrupted(f"{provider} said nothing to {call.path}")


async def test_attempt_is_written_down_before_anything_is_sent(house: Rehearsal) -> None:
    seen: list[str] = []

    async def look(provider: str, call: Call) -> Reply:
        seen.extend(await house.states(video_id))
        return await FalOrder()(provider, call)

    house.answers(look)
    video_id = await house.accept()
    await house.turn()
    assert seen == ["sending"]
    assert await house.states(video_id) == ["running"]


async def test_unknown_end_waits_for_the_deadline_and_buys_nowhere_else(house: Rehearsal) -> None:
    house.answers(_no_answer)
    video_id = await house.accept()
    await house.run(1190, step_s=10)
    assert await house.states(video_id) == ["unknown"]
    assert (await house.video(video_id)).status == "queued"
    await house.run(20, step_s=10)
    video = await house.video(video_id)
    assert (video.status, video.error_code, video.hold) == ("failed", "outcome_unknown", "void")
    assert [provider for provider, _, _ in house.transport.calls] == ["fal"]
    assert await house.balances() == {}


async def test_killed_in_the_middle_of_a_submit_is_an_unknown_end(house: Rehearsal) -> None:
    never, sent = asyncio.Event(), asyncio.Event()

    async def hang(provider: str, call: Call) -> Reply:
        sent.set()
        await never.wait()
        raise AssertionError(f"{provider} {call.path}")

    house.answers(hang)
    video_id = await house.accept()
    submit = asyncio.create_task(house.turn())
    await sent.wait()
    submit.cancel()
    await asyncio.wait([submit])
    await house.restart()
    await house.settle()
    assert await house.states(video_id) == ["unknown"]
    assert len(house.transport.calls) == 1


async def test_nobody_takes_over_a_submit_that_is_still_under_way(house: Rehearsal) -> None:
    others: list[int] = []

    async def slow(provider: str, call: Call) -> Reply:
        house.clock.move(85)
        others.append(await house.turn())
        return await FalOrder()(provider, call)

    house.answers(slow)
    video_id = await house.accept()
    await house.turn()
    assert others == [0]
    assert await house.states(video_id) == ["running"]


async def test_answer_is_kept_though_the_lease_was_lost_meanwhile(house: Rehearsal) -> None:
    async def slow(provider: str, call: Call) -> Reply:
        if call.method == "POST":
            house.clock.move(200)
            await house.settle()
            assert await house.states(video_id) == ["unknown"]
        return await FalOrder()(provider, call)

    house.answers(slow)
    video_id = await house.accept()
    await house.turn()
    attempt = await house.attempt(video_id)
    assert (attempt.state, attempt.seller_id) == ("running", "fal-1")
    assert (await house.video(video_id)).status == "in_progress"
    assert house.metric("reelay_job_lease_lost_total") == 1


async def test_refusal_that_comes_after_the_lease_was_lost_moves_the_video_on(house: Rehearsal) -> None:
    async def slow(provider: str, call: Call) -> Reply:
        assert call.method == "POST"
        if provider == "fal":
            house.clock.move(200)
            await house.settle()
            return reply(401, {"detail": "no such key"})
        return reply(201, {"id": "run-1", "status_code": "queued"})

    house.answers(slow)
    video_id = await house.accept()
    await house.settle()
    assert await house.states(video_id) == ["refused", "running"]


async def test_answer_outlives_a_commit_that_failed(tmp_path: Path, film: bytes) -> None:
    """A disk that is full for a moment must not turn an order that was taken into one that nobody knows of."""
    async with rehearse(tmp_path, film, store=Refusing) as house:
        store = house.house.store
        assert isinstance(store, Refusing)

        async def answer(provider: str, call: Call) -> Reply:
            store.refusals = 2
            return await FalOrder()(provider, call)

        house.answers(answer)
        video_id = await house.accept()
        await house.turn()
        assert store.refusals == 0
        assert await house.states(video_id) == ["running"]


async def test_callback_that_comes_before_the_answer_is_lost_names_the_order(house: Rehearsal) -> None:
    async def lost(provider: str, call: Call) -> Reply:
        if call.method == "POST":
            await house.call_back(video_id, 1, {"request_id": "fal-1", "status": "OK"})
            raise Interrupted("reset")
        return await FalOrder()(provider, call)

    house.answers(lost)
    video_id = await house.accept()
    await house.turn()
    attempt = await house.attempt(video_id)
    assert (attempt.state, attempt.seller_id, attempt.message) == ("running", "fal-1", None)


@pytest.mark.parametrize("when", ["during", "after"])
async def test_order_that_was_refused_and_then_called_back_about_was_taken(house: Rehearsal, when: str) -> None:
    """An ingress may answer 503 for an order that had reached the seller; the callback proves it."""
    order = FalOrder()

    async def contradict(provider: str, call: Call) -> Reply:
        if call.method != "POST" or provider != "fal":
            return await order(provider, call)
        if when == "during":
            await house.call_back(video_id, 1, {"request_id": "fal-1"})
        return reply(503, {"detail": "try later"})

    house.answers(contradict)
    video_id = await house.accept(model="fal/seedance-2.0")
    await house.turn()
    if when == "after":
        assert await house.states(video_id) == ["refused"]
        await house.call_back(video_id, 1, {"request_id": "fal-1"})
    attempt = await house.attempt(video_id)
    assert (attempt.state, attempt.seller_id, attempt.failure_kind, attempt.ended_at) == (
        "running",
        "fal-1",
        None,
        None,
    )
    order.status = "COMPLETED"
    await house.run(20)
    assert (await house.video(video_id)).status == "completed"
    assert len(await house.attempts(video_id)) == 1


async def test_id_that_belongs_to_another_order_is_no_acceptance(bold: Rehearsal) -> None:
    async def same_id(provider: str, call: Call) -> Reply:
        if provider == "fal":
            return await FalOrder("fal-1")(provider, call)
        return reply(201, {"id": "run-1", "status_code": "queued"})

    bold.answers(same_id)
    first, second = await bold.accept(), await bold.accept()
    await bold.settle()
    states = sorted([await bold.states(first), await bold.states(second)])
    assert states == [["running"], ["unknown", "running"]], "the rule says to buy elsewhere, at once"


async def test_every_submit_beside_an_unknown_one_counts_as_a_possible_double(database: Database, film: bytes) -> None:
    async with rehearse(database, film, on_unknown="fallback") as bold:
        answers: list[Any] = [
            Interrupted("reset"),
            reply(429, {"error": {"code": "RATE_LIMITED"}}),
            reply(201, {"id": "run-1", "status_code": "queued"}),
        ]

        async def script(provider: str, call: Call) -> Reply:
            if call.method != "POST":
                assert provider == "runflow"
                return reply(200, {"id": "run-1", "status_code": "running"})
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            assert isinstance(answer, Reply)
            return answer

        bold.answers(script)
        video_id = await bold.accept()
        await bold.run(10)
        assert await bold.states(video_id) == ["unknown", "refused", "running"]
        assert bold.metric("reelay_possible_double_total", provider="fal") == 2


async def test_submit_under_way_when_another_attempt_delivers_is_not_forgotten_by_a_crash(bold: Rehearsal) -> None:
    """Its row of work is what makes it unknown, and so seen by operators, once its process is gone."""
    never, sent = asyncio.Event(), asyncio.Event()
    order = FalOrder()
    order.status = "COMPLETED"

    async def script(provider: str, call: Call) -> Reply:
        if provider == "runflow" and call.method == "POST":
            sent.set()
            await never.wait()
        if provider == "fal" and call.method == "POST":
            raise Interrupted("reset")
        return await order(provider, call)

    bold.answers(script)
    video_id = await bold.accept()
    await bold.turn()
    second = asyncio.create_task(bold.turn())
    await sent.wait()
    await bold.call_back(video_id, 1, {"request_id": "fal-1"})
    await bold.turn()
    assert (await bold.video(video_id)).status == "completed"
    assert await bold.states(video_id) == ["done", "sending"]
    second.cancel()
    await asyncio.wait([second])
    await bold.restart()
    await bold.settle()
    assert await bold.states(video_id) == ["done", "unknown"]


async def test_lost_lease_stops_a_step_before_anything_is_sent(house: Rehearsal) -> None:
    await house.accept()
    (claim,) = await house.claim()
    house.clock.move(100)
    (_,) = await house.claim()
    with pytest.raises(LeaseLost):
        await advance(house.house, claim)
    assert house.transport.calls == []


async def test_commit_that_took_too_long_lets_nothing_leave(database: Database, film: bytes) -> None:
    async with rehearse(database, film) as house:
        video_id = await house.accept(model="fal/seedance-2.0")
        (claim,) = await house.claim()
        ticks = iter([0, 45])

        def slow_clock() -> int:
            house.clock.move(next(ticks, 0))
            return house.clock.now_us

        house.house.clock = slow_clock
        slow_clock()
        await advance(house.house, claim)
        assert house.transport.calls == []
        attempt = await house.attempt(video_id)
        assert (attempt.state, attempt.failure_kind, attempt.cost_microusd) == ("refused", "throttled", 0)


async def test_provider_that_is_switched_off_gets_no_new_orders(house: Rehearsal) -> None:
    async def runflow(provider: str, call: Call) -> Reply:
        assert (provider, call.method) == ("runflow", "POST")
        return reply(201, {"id": "run-1", "status_code": "queued"})

    house.answers(runflow)
    video_id = await house.accept()
    del house.house.rules.accounts["fal"]
    await house.settle()
    refused, running = await house.attempts(video_id)
    assert (refused.state, refused.failure_kind, refused.cost_microusd) == ("refused", "account", 0)
    assert running.state == "running"


async def test_nothing_is_accepted_by_a_house_that_drains(house: Rehearsal) -> None:
    house.house.draining = True
    with pytest.raises(Overloaded):
        await house.accept()
    assert await house.house.store.read_now(videos.live_counts) == []


async def _at_once(_provider: str, _call: Call) -> Reply:
    return reply(429, {"detail": "slow down"}, **{"retry-after": "0"})


async def test_seller_that_says_to_come_back_at_once_is_not_asked_in_a_loop(house: Rehearsal) -> None:
    house.answers(_at_once)
    video_id = await house.accept()
    await house.run(60, step_s=0.5)
    assert len(await house.attempts(video_id)) < 20, "five sends to each of three sellers"


async def test_repeated_key_answers_its_video_whatever_the_rules_say_by_now(house: Rehearsal) -> None:
    ask = Ask(prompt="a paper boat", model="fal/seedance-2.0")
    first = await accept(house.house, CALLER, ask, fingerprint="f", idempotency_key="k")
    off = msgspec.structs.replace(house.house.rules.accounts["fal"], enabled=False)
    house.house.rules = msgspec.structs.replace(
        house.house.rules, accounts=house.house.rules.accounts | {"fal": off}, figures={}
    )
    again = await accept(house.house, CALLER, ask, fingerprint="f", idempotency_key="k")
    assert (again.fresh, again.video.id) == (False, first.video.id)
    with pytest.raises(InvalidValue):
        await accept(house.house, CALLER, ask, fingerprint="g", idempotency_key="k")


async def _echo_of_the_key(_provider: str, _call: Call) -> Reply:
    callback = "https://proxy.example/callbacks/video_1-2-abcdefgh"
    return reply(401, {"detail": f"no such key {PLAY_KEYS['FAL_KEY']}; called back at {callback}"})


async def test_what_a_seller_echoes_of_key_or_callback_is_not_kept(house: Rehearsal) -> None:
    house.answers(_echo_of_the_key)
    video_id = await house.accept()
    await house.run(3)
    kept = (await house.attempt(video_id)).message or ""
    assert "no such key" in kept
    assert PLAY_KEYS["FAL_KEY"] not in kept
    assert "abcdefgh" not in kept


async def _times_out_late(_provider: str, _call: Call) -> Reply:
    return reply(504, {"detail": [{"type": "generation_timeout", "msg": "the render took too long", "loc": []}]})


async def test_words_of_a_model_without_the_sellers_own_header_leave_a_submit_unknown(house: Rehearsal) -> None:
    house.answers(_times_out_late)
    video_id = await house.accept()
    await house.run(30)
    assert await house.states(video_id) == ["unknown"]


@pytest.mark.parametrize(
    ("status", "body", "state"),
    [
        (200, {"request_id": "fal\0-1"}, "running"),
        (422, {"detail": [{"type": "content_policy_violation", "msg": "no\0", "loc": ["body"]}]}, "refused"),
        (400, {"detail": "no\0", "error_type": "odd\0"}, "refused"),
    ],
)
async def test_nul_in_a_sellers_words_loses_no_order(
    house: Rehearsal, status: int, body: dict[str, Any], state: str
) -> None:
    async def odd(provider: str, call: Call) -> Reply:
        return reply(status, body) if call.method == "POST" else await FalOrder()(provider, call)

    house.answers(odd)
    video_id = await house.accept()
    await house.turn()
    attempt = await house.attempt(video_id)
    assert attempt.state == state
    assert "\ufffd" in f"{attempt.seller_id} {attempt.message} {attempt.seller_code}"


async def test_nul_in_a_callback_is_no_trouble(house: Rehearsal) -> None:
    house.answers(_no_answer)
    video_id = await house.accept()
    await house.turn()
    assert await house.call_back(video_id, 1, {"request_id": "fal\0-1", "status": "OK"})
    assert (await house.attempt(video_id)).seller_id == "fal\ufffd-1"


# Breakers


def _give_breaker(house: Rehearsal, *, breaker: bool = True) -> None:
    rules = house.house.rules
    fal = msgspec.structs.replace(rules.accounts["fal"], breaker=breaker)
    house.house.rules = msgspec.structs.replace(rules, accounts={**rules.accounts, "fal": fal})


def _fail_again_and_again(house: Rehearsal) -> None:
    offer = "fal/seedance-2.0/standard/text-to-video"
    for number in range(5):
        house.house.pulse.note(make_attempt(video_id=f"other_{number}", offer=offer, state="unknown"), make_spec())


@pytest.mark.parametrize("breaker", [True, False])
async def test_offer_that_failed_again_and_again_is_passed_over_where_its_account_has_a_breaker(
    house: Rehearsal, *, breaker: bool
) -> None:
    _give_breaker(house, breaker=breaker)
    _fail_again_and_again(house)

    async def takes_it(provider: str, call: Call) -> Reply:
        if call.method == "GET":
            return reply(200, {"status": "IN_PROGRESS"} if provider == "fal" else {"id": "r", "status_code": "running"})
        return (
            reply(200, {"request_id": "f"}) if provider == "fal" else reply(201, {"id": "r", "status_code": "queued"})
        )

    house.answers(takes_it)
    video_id = await house.accept()
    await house.settle()
    assert [one.provider for one in await house.attempts(video_id)] == ["runflow" if breaker else "fal"]


async def test_video_waits_where_all_its_offers_are_unwell(database: Database, film: bytes) -> None:
    async with rehearse(database, film, order=("fal",)) as house:
        _give_breaker(house)
        _fail_again_and_again(house)
        house.answers(FalOrder())
        video_id = await house.accept()
        await house.settle()
        assert (await house.video(video_id)).status == "queued"
        assert house.transport.calls == []
        await house.run(11)
        assert await house.states(video_id) == ["running"]
