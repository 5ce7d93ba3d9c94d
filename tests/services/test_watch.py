"""Attempts that are followed: what ends them, and what never does."""

from typing import Any

import pytest

from proxy.core.clock import SECOND_US
from proxy.core.errors import Interrupted, LeaseLost
from proxy.core.video import RoutingWish
from proxy.core.wire import Call, Reply
from proxy.services.watch import attend, called_back
from tests.databases import Database
from tests.services.rehearsal import TENANT, FalOrder, Rehearsal, rehearse, reply

FAL_720P_MICROUSD = 1_213_600
"""Four seconds at 0.3034 USD."""


async def _running(house: Rehearsal, order: FalOrder) -> str:
    house.answers(order)
    video_id = await house.accept(model="fal/seedance-2.0")
    await house.settle()
    assert await house.states(video_id) == ["running"]
    return video_id


@pytest.mark.parametrize(
    "answer",
    [
        reply(401, {"detail": "no such key"}),
        reply(403, {"detail": "locked"}),
        reply(429, {"detail": "slow down"}),
        reply(500, {"detail": "broken"}),
        reply(502, None),
        reply(200, {"status": "HIBERNATING"}),
        reply(200, ["nonsense"]),
    ],
    ids=["401", "403", "429", "500", "502", "unheard-of", "garbled"],
)
async def test_poll_that_says_nothing_of_the_order_ends_nothing(house: Rehearsal, answer: Reply) -> None:
    order = FalOrder()
    video_id = await _running(house, order)

    async def answers(provider: str, call: Call) -> Reply:
        return answer if call.path.endswith("/status") else await order(provider, call)

    house.answers(answers)
    await house.run(300, step_s=5)
    assert await house.states(video_id) == ["running"]
    order.status = "COMPLETED"
    house.answers(order)
    await house.run(30, step_s=5)
    assert (await house.video(video_id)).status == "completed"


async def test_poll_without_an_answer_is_asked_again(house: Rehearsal) -> None:
    order = FalOrder()
    video_id = await _running(house, order)

    async def dropped(provider: str, call: Call) -> Reply:
        raise Interrupted(f"{provider} {call.path}")

    house.answers(dropped)
    await house.run(100, step_s=5)
    assert await house.states(video_id) == ["running"]


async def test_one_provider_that_throttles_polls_is_left_in_peace(house: Rehearsal) -> None:
    order = FalOrder()
    await _running(house, order)

    async def throttle(provider: str, call: Call) -> Reply:
        del provider, call
        return reply(429, {"detail": "slow down"}, **{"retry-after": "40"})

    house.answers(throttle)
    before = len(house.transport.calls)
    await house.run(60, step_s=1)
    assert len(house.transport.calls) - before == 2


async def _denied(provider: str, call: Call) -> Reply:
    del provider, call
    return reply(404, {"detail": "Request not found"})


async def test_order_denied_five_times_over_two_minutes_is_lost_and_waits_for_the_deadline(house: Rehearsal) -> None:
    video_id = await _running(house, FalOrder())
    house.answers(_denied)
    await house.run(110, step_s=1)
    assert await house.states(video_id) == ["running"], "five times, but not over so long"
    await house.run(30, step_s=1)
    assert await house.states(video_id) == ["lost"]
    assert (await house.video(video_id)).status == "in_progress"
    await house.run(1200, step_s=20)
    video = await house.video(video_id)
    assert (video.error_code, video.hold) == ("outcome_unknown", "void")
    assert len(await house.attempts(video_id)) == 1


async def test_order_that_is_found_again_begins_to_be_missed_anew(house: Rehearsal) -> None:
    order = FalOrder()
    video_id = await _running(house, order)
    house.answers(_denied)
    await house.run(100, step_s=1)
    house.answers(order)
    await house.run(12, step_s=1)
    house.answers(_denied)
    await house.run(100, step_s=1)
    assert await house.states(video_id) == ["running"]


async def test_lost_order_moves_on_where_the_rule_says_so(bold: Rehearsal) -> None:
    video_id = await _running(bold, FalOrder())

    async def gone(provider: str, call: Call) -> Reply:
        if provider == "fal":
            return await _denied(provider, call)
        return reply(201, {"id": "run-1", "status_code": "queued"})

    bold.answers(gone)
    await bold.run(150, step_s=1)
    assert await bold.states(video_id) == ["lost"], "a pinned provider has no other"


async def test_lost_order_that_calls_back_is_polled_again(house: Rehearsal) -> None:
    order = FalOrder()
    video_id = await _running(house, order)
    house.answers(_denied)
    await house.run(150, step_s=1)
    assert await house.states(video_id) == ["lost"]
    order.status = "COMPLETED"
    house.answers(order)
    assert await house.call_back(video_id, 1, {"request_id": order.seller_id})
    await house.settle()
    assert (await house.video(video_id)).status == "completed"


async def test_hold_of_a_cancelled_video_ends_though_its_order_gets_lost(house: Rehearsal) -> None:
    video_id = await _running(house, FalOrder())
    await house.cancel(video_id)
    house.answers(_denied)
    await house.run(1500, step_s=20)
    assert await house.states(video_id) == ["lost"]
    assert (await house.video(video_id)).hold == "void"
    assert await house.balances() == {}


async def test_order_lost_after_the_deadline_of_a_cancelled_video_ends_its_hold(house: Rehearsal) -> None:
    order = FalOrder()
    video_id = await _running(house, order)
    await house.cancel(video_id)
    await house.run(1300, step_s=20)
    assert (await house.video(video_id)).hold == "held", "fal may still bill it"
    house.answers(_denied)
    await house.run(600, step_s=20)
    assert await house.states(video_id) == ["lost"]
    assert (await house.video(video_id)).hold == "void"
    assert await house.rows_of_work(video_id) == []


async def test_deadline_ends_the_video_and_asks_the_seller_to_stop(house: Rehearsal) -> None:
    order = FalOrder()
    video_id = await _running(house, order)
    await house.run(1210, step_s=10)
    video = await house.video(video_id)
    assert (video.status, video.error_code, video.hold) == ("failed", "deadline_exceeded", "void")
    assert [method for _, method, _ in house.transport.calls].count("PUT") == 1
    order.status = "COMPLETED"
    await house.run(120, step_s=10)
    assert (await house.video(video_id)).status == "failed"
    attempt = await house.attempt(video_id)
    assert (attempt.state, attempt.bearer, attempt.cost_microusd) == ("done", "absorbed:abandoned", FAL_720P_MICROUSD)
    assert await house.balances() == {
        "absorbed:abandoned": FAL_720P_MICROUSD,
        "provider:fal:payable": -FAL_720P_MICROUSD,
    }
    assert house.fetcher.opened == 0


async def test_nobody_asks_any_more_three_days_after_the_end(house: Rehearsal) -> None:
    video_id = await _running(house, FalOrder())
    await house.cancel(video_id)
    await house.run(73 * 3600, step_s=600)
    attempt = await house.attempt(video_id)
    assert (attempt.state, attempt.cost_microusd) == ("failed", None)
    assert (await house.video(video_id)).hold == "void"
    assert await house.rows_of_work(video_id) == []


async def test_film_that_turns_up_as_the_last_ask_is_given_up_is_still_owed(house: Rehearsal) -> None:
    order = FalOrder()
    video_id = await _running(house, order)
    await house.cancel(video_id)
    (slow,) = await house.claim()
    before = await house.attempt(video_id)
    later = []

    async def three_days(provider: str, call: Call) -> Reply:
        if call.path.endswith("/status"):
            house.clock.move(73 * 3600)
            later.extend(await house.claim())
            order.status = "COMPLETED"
        return await order(provider, call)

    house.answers(three_days)
    with pytest.raises(LeaseLost):
        await attend(house.house, slow, await house.video(video_id), before)
    assert await house.states(video_id) == ["done"]
    house.answers(order)
    await attend(house.house, later[0], await house.video(video_id), before)
    await house.run(60, step_s=10)
    attempt = await house.attempt(video_id)
    assert (attempt.state, attempt.bearer, attempt.cost_microusd) == ("done", "tenant", FAL_720P_MICROUSD)
    assert (await house.video(video_id)).hold == "posted"


async def test_nobody_waits_for_ever_for_a_provider_whose_key_is_gone(house: Rehearsal) -> None:
    video_id = await _running(house, FalOrder())
    await house.cancel(video_id)
    del house.house.rules.accounts["fal"]
    await house.run(73 * 3600, step_s=600)
    assert await house.states(video_id) == ["failed"]
    assert await house.rows_of_work(video_id) == []


async def test_finished_film_is_known_though_the_lease_was_lost(house: Rehearsal) -> None:
    order = FalOrder()
    video_id = await _running(house, order)
    order.status = "COMPLETED"

    async def overtaken(provider: str, call: Call) -> Reply:
        if call.path.endswith("/status"):
            house.clock.move(100)
            assert [claim.attempt_no for claim in await house.claim()] == [1]
        return await order(provider, call)

    house.clock.move(11)
    (claim,) = await house.claim()
    house.answers(overtaken)
    with pytest.raises(LeaseLost):
        await attend(house.house, claim, await house.video(video_id), await house.attempt(video_id))
    assert await house.states(video_id) == ["done"]


async def test_stale_worker_takes_nothing_back(house: Rehearsal) -> None:
    """One that was slow to ask the seller to stop must not make a finished attempt run again."""
    order = FalOrder()
    video_id = await _running(house, order)
    await house.cancel(video_id)

    async def overtaken(provider: str, call: Call) -> Reply:
        if call.method == "PUT":
            house.clock.move(100)
            order.status = "COMPLETED"
            house.answers(order)
            await house.settle()
            assert await house.states(video_id) == ["done"]
        return await order(provider, call)

    (claim,) = await house.claim()
    house.answers(overtaken)
    with pytest.raises(LeaseLost):
        await attend(house.house, claim, await house.video(video_id), await house.attempt(video_id))
    assert await house.states(video_id) == ["done"]


async def test_progress_never_goes_back(database: Database, film: bytes) -> None:
    percents: list[int | None] = [10, 40, 20, None, 120, 100]

    async def evolink(provider: str, call: Call) -> Reply:
        assert provider == "evolink"
        if call.method == "POST":
            return reply(200, {"id": "task-1"})
        return reply(200, {"status": "processing", "progress": percents.pop(0) if percents else 50})

    async with rehearse(database, film, order=("evolink",)) as house:
        house.answers(evolink)
        video_id = await house.accept()
        seen: list[int] = []
        for _ in range(8):
            await house.run(11)
            seen.append((await house.video(video_id)).progress)
    assert seen == [10, 40, 40, 40, 40, 99, 99, 99], "a seller's 100 % without a file is not the customer's"


async def test_callback_body_is_not_believed(house: Rehearsal) -> None:
    order = FalOrder()
    video_id = await _running(house, order)
    body = {"request_id": "other", "status": "OK", "payload": {"video": {"url": "https://evil.example/x.mp4"}}}
    assert await house.call_back(video_id, 1, body)
    await house.settle()
    attempt = await house.attempt(video_id)
    assert (attempt.state, attempt.seller_id, attempt.link) == ("running", "fal-1", None)


async def test_callback_with_a_token_that_is_not_ours_is_refused(house: Rehearsal) -> None:
    video_id = await _running(house, FalOrder())
    token = house.house.secrets.callback_token(video_id, 1)
    assert not await called_back(house.house, token[:-1] + ("a" if token[-1] != "a" else "b"), b"{}")
    assert not await called_back(house.house, "", b"{}")


async def test_callback_cannot_hand_an_order_to_two_attempts(house: Rehearsal) -> None:
    async def script(provider: str, call: Call) -> Reply:
        if call.method == "POST" and len(house.transport.calls) > 1:
            raise Interrupted("reset")
        return await FalOrder("fal-1")(provider, call)

    house.answers(script)
    first = await house.accept(model="fal/seedance-2.0")
    await house.settle()
    second = await house.accept(model="fal/seedance-2.0")
    await house.settle()
    await house.call_back(second, 1, {"request_id": "fal-1"})
    assert (await house.states(first), await house.states(second)) == (["running"], ["unknown"])


# A submit of unknown end at a seller that can be asked


class RunflowOrder:
    """Takes the order and says nothing; `runs` is what a search finds."""

    def __init__(self, runs: list[dict[str, Any]]) -> None:
        self.runs = runs
        self.asked_at_s: list[float] = []
        self.house: Rehearsal

    async def __call__(self, provider: str, call: Call) -> Reply:
        if call.method == "POST" and provider == "runflow":
            raise Interrupted("reset")
        if call.method == "POST":
            return await FalOrder()(provider, call)
        if call.path == "/v1/runs":
            return await self.search(call)
        return reply(200, {"id": "run-1", "status_code": "running"})

    async def search(self, call: Call) -> Reply:
        del call
        self.asked_at_s.append((self.house.clock.now_us - self.start_us) / SECOND_US)
        return reply(200, {"items": self.runs})

    def begin(self, house: Rehearsal) -> None:
        self.house, self.start_us = house, house.clock.now_us
        house.answers(self)


async def test_runflow_is_asked_by_our_own_tag(house: Rehearsal) -> None:
    order = RunflowOrder([])
    order.begin(house)
    video_id = await house.accept(model="runflow/seedance-2.0")
    await house.settle()
    order.runs = [{"id": "run-1", "client_ref": f"{video_id}-1", "status_code": "running"}]
    await house.run(6)
    attempt = await house.attempt(video_id)
    assert (attempt.state, attempt.seller_id) == ("running", "run-1")


async def test_no_such_run_is_believed_the_third_time(house: Rehearsal) -> None:
    order = RunflowOrder([])
    order.begin(house)
    video_id = await house.accept(routing=RoutingWish(order=("runflow", "fal")))
    await house.run(119)
    assert await house.states(video_id) == ["unknown"]
    await house.run(3)
    assert order.asked_at_s == [5, 30, 120]
    assert await house.states(video_id) == ["refused", "running"]
    assert (await house.attempt(video_id)).cost_microusd == 0


async def test_ask_that_failed_does_not_count(house: Rehearsal) -> None:
    order = RunflowOrder([])
    order.begin(house)
    video_id = await house.accept(model="runflow/seedance-2.0")

    async def broken(provider: str, call: Call) -> Reply:
        if call.path == "/v1/runs":
            return reply(500, {})
        return await order(provider, call)

    house.answers(broken)
    await house.run(400, step_s=5)
    assert (await house.states(video_id), (await house.attempt(video_id)).asks) == (["unknown"], 0)


async def test_run_that_another_attempt_holds_is_not_adopted_and_asked_again(house: Rehearsal) -> None:
    order = RunflowOrder([])
    order.begin(house)
    first, second = await house.accept(model="runflow/seedance-2.0"), await house.accept(model="runflow/seedance-2.0")
    await house.settle()
    await house.call_back(first, 1, {"run_id": "run-1"})
    order.runs = [{"id": "run-1"}]
    await house.run(60)
    assert await house.states(second) == ["unknown"]
    assert (await house.attempt(second)).asks == 0
    assert await house.rows_of_work(second) == [0, 1]


async def test_unknown_order_of_a_cancelled_video_voids_the_hold_once_it_is_denied(house: Rehearsal) -> None:
    RunflowOrder([]).begin(house)
    video_id = await house.accept(model="runflow/seedance-2.0")
    await house.settle()
    await house.cancel(video_id)
    assert (await house.video(video_id)).hold == "held"
    await house.run(125)
    assert (await house.video(video_id)).hold == "void"
    assert await house.rows_of_work(video_id) == []


async def test_double_is_borne_by_us_and_counted(bold: Rehearsal) -> None:
    """The rule bought elsewhere while the first end was unknown; then both were made."""
    order = FalOrder()
    order.status = "COMPLETED"

    async def script(provider: str, call: Call) -> Reply:
        if provider == "fal":
            if call.method == "POST":
                raise Interrupted("reset")
            return await order(provider, call)
        if call.method == "POST":
            return reply(201, {"id": "run-1", "status_code": "queued"})
        film = {"outputs": [{"url": "https://files.example/film.mp4", "type": "video"}]}
        return reply(200, {"id": "run-1", "status_code": "succeeded", "cost": "1.2136", "output": film})

    bold.answers(script)
    video_id = await bold.accept()
    await bold.run(20)
    assert (await bold.video(video_id)).delivered_no == 2
    assert await bold.call_back(video_id, 1, {"request_id": "fal-1"})
    await bold.run(5)
    balances = await bold.balances()
    assert balances["absorbed:double"] == FAL_720P_MICROUSD
    assert balances[f"tenant:{TENANT.id}:spend"] == FAL_720P_MICROUSD
    assert bold.metric("reelay_possible_double_total", provider="fal") == 1
    assert bold.metric("reelay_absorbed_usd_total", reason="double") == pytest.approx(FAL_720P_MICROUSD / 1e6)


async def test_order_whose_provider_has_an_adapter_that_cannot_ask_waits_until_it_can_again(house: Rehearsal) -> None:
    order = FalOrder()
    video_id = await _running(house, order)
    order.status = "COMPLETED"
    poller = house.house.pollers.pop("fal")
    asked = len(house.transport.calls)
    await house.run(130, step_s=10)
    assert (await house.states(video_id), len(house.transport.calls)) == (["running"], asked)
    house.house.pollers["fal"] = poller
    await house.run(70, step_s=10)
    assert (await house.video(video_id)).status == "completed"
