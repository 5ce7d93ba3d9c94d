"""What an operator says of an attempt of unknown end is believed once, and the money stays exact."""

from pathlib import Path
from typing import Any

import pytest

from proxy.core.errors import Interrupted, InvalidValue, NotFound
from proxy.core.wire import Call, Reply
from proxy.services.resolve import Finding, Resolved, resolve
from proxy.store import tenants
from tests.services.rehearsal import FalOrder, Rehearsal, nobody_answers, rehearse, reply

FAL_720P_MICROUSD = 1_213_600
"""Four seconds at fal's price, which Runflow has too."""
DAY_S = 86_400


async def lost_at_fal(provider: str, call: Call) -> Reply:
    """The order may have arrived."""
    raise Interrupted(f"{provider} {call.path}")


class Runflow:
    """Takes orders and is done at the second look."""

    def __init__(self) -> None:
        self.orders = 0

    async def __call__(self, provider: str, call: Call) -> Reply:
        if provider != "runflow":
            return await lost_at_fal(provider, call)
        if call.method == "POST":
            self.orders += 1
            return reply(201, {"id": f"run-{self.orders}", "status_code": "queued"})
        output = {"outputs": [{"url": "https://files.example/film.mp4", "type": "video"}]}
        return reply(200, {"id": "run-1", "status_code": "succeeded", "output": output})


async def unknown(house: Rehearsal, **ask: Any) -> str:
    """A live video whose only attempt is of unknown end at fal."""
    house.answers(lost_at_fal)
    video_id = await house.accept(**ask)
    await house.settle()
    assert await house.states(video_id) == ["unknown"]
    return video_id


async def say(house: Rehearsal, video_id: str, number: int = 1, **found: Any) -> Resolved:
    finding = Finding(**{"reason": "the seller's books", **found})
    return await resolve(
        house.house.store, house.house.new_id, actor="key_7", video_id=video_id, number=number, finding=finding
    )


async def acts(house: Rehearsal) -> int:
    return len(await house.house.store.read_now(lambda tx: tenants.acts(tx, most=10)))


# Not bought


async def test_order_that_was_not_bought_counts_as_refused_and_the_video_goes_on(house: Rehearsal) -> None:
    video_id = await unknown(house)
    resolved = await say(house, video_id, bought=False)
    assert (resolved.attempt.state, resolved.attempt.cost_microusd) == ("refused", 0)
    runflow = Runflow()
    house.answers(runflow)
    await house.run(20)
    assert await house.states(video_id) == ["refused", "done"]
    assert (await house.video(video_id)).status == "completed"
    assert runflow.orders == 1
    assert (await house.balances())["provider:runflow:payable"] == -FAL_720P_MICROUSD


async def test_order_that_was_not_bought_ends_the_hold_of_a_cancelled_video(house: Rehearsal) -> None:
    video_id = await unknown(house)
    await house.cancel(video_id)
    assert (await house.video(video_id)).hold == "held"
    await say(house, video_id, bought=False)
    assert (await house.video(video_id)).hold == "void"
    await house.settle()
    assert await house.balances() == {}
    assert await house.rows_of_work(video_id) == []


async def test_order_that_was_not_bought_does_not_reopen_a_video(house: Rehearsal) -> None:
    video_id = await unknown(house)
    await house.run(1300, step_s=100)
    assert (await house.video(video_id)).error_code == "outcome_unknown"
    await say(house, video_id, bought=False)
    await house.run(100, step_s=10)
    video = await house.video(video_id)
    assert (video.status, video.error_code, video.hold) == ("failed", "outcome_unknown", "void")
    assert await house.balances() == {}
    assert await house.rows_of_work(video_id) == []


async def test_seller_that_calls_back_after_all_is_heard(house: Rehearsal) -> None:
    """The operator was wrong; what the seller takes is written once."""
    video_id = await unknown(house)
    await house.run(1300, step_s=100)
    await say(house, video_id, bought=False)
    order = FalOrder()
    order.status = "COMPLETED"
    house.answers(order)
    assert await house.call_back(video_id, 1, {"request_id": "fal-1", "status": "OK"})
    await house.run(20)
    assert await house.states(video_id) == ["done"]
    assert (await house.balances())["absorbed:unknown"] == FAL_720P_MICROUSD


# Bought, with an id


async def test_order_with_an_id_is_adopted_polled_and_delivered(house: Rehearsal) -> None:
    video_id = await unknown(house)
    resolved = await say(house, video_id, bought=True, seller_id="fal-1")
    assert (resolved.attempt.state, resolved.video.status) == ("running", "in_progress")
    order = FalOrder()
    order.status = "COMPLETED"
    house.answers(order)
    await house.run(20)
    video = await house.video(video_id)
    assert (video.status, video.charged_microusd) == ("completed", FAL_720P_MICROUSD)
    assert [method for _, method, _ in house.transport.calls].count("POST") == 1


async def test_cost_that_is_given_with_an_id_counts_as_stated(house: Rehearsal) -> None:
    video_id = await unknown(house)
    await say(house, video_id, bought=True, seller_id="fal-1", cost_usd="1.1")
    order = FalOrder()
    order.status = "COMPLETED"
    house.answers(order)
    await house.run(20)
    attempt = await house.attempt(video_id)
    assert (attempt.cost_microusd, attempt.cost_stated) == (1_100_000, 1)
    assert (await house.balances())["provider:fal:payable"] == -1_100_000


async def test_wrong_id_is_put_right_by_another_finding(house: Rehearsal) -> None:
    video_id = await unknown(house)
    await say(house, video_id, bought=True, seller_id="wrong")
    await say(house, video_id, bought=True, seller_id="wrong-again", cost_usd="0.96")
    resolved = await say(house, video_id, bought=True, seller_id="req-1")
    assert (resolved.attempt.state, resolved.attempt.seller_id) == ("running", "req-1")
    assert resolved.attempt.cost_microusd is None
    resolved = await say(house, video_id, bought=False)
    assert resolved.attempt.state == "refused"
    assert await acts(house) == 4
    runflow = Runflow()
    house.answers(runflow)
    await house.run(20)
    assert await house.states(video_id) == ["refused", "done"]
    with pytest.raises(InvalidValue, match="This attempt is refused"):
        await say(house, video_id, bought=True, seller_id="req-1")


@pytest.mark.parametrize("status", [200, 404, 422])
async def test_answer_about_a_wrong_id_that_was_put_right_meanwhile_is_nobodys(house: Rehearsal, status: int) -> None:
    video_id = await unknown(house)
    await say(house, video_id, bought=True, seller_id="wrong")
    asked: list[str] = []

    async def meanwhile(_: str, call: Call) -> Reply:
        asked.append(call.path)
        if "wrong" not in call.path:
            return await nobody_answers(_, call)
        await say(house, video_id, bought=True, seller_id="right")
        if status != 200:
            return reply(status, {"detail": "no such thing"})
        return reply(200, {"status": "COMPLETED", "video": {"url": "https://files.example/of-another.mp4"}})

    house.answers(meanwhile)
    await house.run(10)
    assert [path for path in asked if "right" in path]
    attempts = await house.attempts(video_id)
    assert [(one.state, one.seller_id, one.link, one.missing) for one in attempts] == [("running", "right", None, 0)]


async def test_id_that_another_attempt_holds_is_refused(house: Rehearsal) -> None:
    video_id = await unknown(house)
    house.answers(FalOrder("fal-9"))
    await house.accept()
    await house.settle()
    with pytest.raises(InvalidValue, match="Another attempt holds this id"):
        await say(house, video_id, bought=True, seller_id="fal-9")
    assert await house.states(video_id) == ["unknown"]
    assert await acts(house) == 0


async def test_id_that_nobody_would_ask_for_any_more_is_refused(house: Rehearsal) -> None:
    video_id = await unknown(house)
    await house.run(1300, step_s=100)
    house.clock.move(3 * DAY_S + 1)
    with pytest.raises(InvalidValue, match="ended more than 72 hours ago"):
        await say(house, video_id, bought=True, seller_id="fal-1")
    assert (await say(house, video_id, bought=True, cost_usd="1")).attempt.state == "failed"


# Bought, without an id


async def test_live_video_moves_on_and_what_was_bought_is_ours(house: Rehearsal) -> None:
    video_id = await unknown(house)
    resolved = await say(house, video_id, bought=True, cost_usd="0.96")
    attempt = resolved.attempt
    assert (attempt.state, attempt.cost_microusd, attempt.cost_stated, attempt.bearer) == (
        "failed", 960_000, 1, "absorbed:double",
    )  # fmt: skip
    assert resolved.video.status == "in_progress"
    house.answers(Runflow())
    await house.run(20)
    video = await house.video(video_id)
    assert (video.status, video.charged_microusd) == ("completed", FAL_720P_MICROUSD)
    balances = await house.balances()
    assert (balances["absorbed:double"], balances["provider:fal:payable"]) == (960_000, -960_000)


async def test_cost_that_nobody_knows_is_the_dearest_possible(house: Rehearsal) -> None:
    video_id = await unknown(house)
    attempt = (await say(house, video_id, bought=True)).attempt
    assert attempt.cost_microusd == attempt.possible_microusd == FAL_720P_MICROUSD
    assert attempt.cost_stated == 0


async def test_video_with_nobody_else_to_ask_fails_and_never_waits(tmp_path: Path, film: bytes) -> None:
    async with rehearse(tmp_path, film, order=("fal",)) as house:
        video_id = await unknown(house)
        await say(house, video_id, bought=True, cost_usd="1")
        await house.settle()
        video = await house.video(video_id)
        assert (video.status, video.error_code, video.hold) == ("failed", "provider_error", "void")
        assert (await house.balances())["absorbed:double"] == 1_000_000


async def test_rule_that_bills_failed_attempts_bills_no_order_that_went_astray(tmp_path: Path, film: bytes) -> None:
    async with rehearse(tmp_path, film, rule={"bill_failed_attempts": True}) as house:
        video_id = await unknown(house)
        await say(house, video_id, bought=True, cost_usd="1")
        house.answers(Runflow())
        await house.run(20)
        assert (await house.video(video_id)).charged_microusd == FAL_720P_MICROUSD
        assert (await house.balances())["absorbed:double"] == 1_000_000


async def test_cancelled_video_is_billed_at_most_its_hold(house: Rehearsal) -> None:
    video_id = await unknown(house)
    await house.cancel(video_id)
    await say(house, video_id, bought=True, cost_usd="5")
    await house.settle()
    video = await house.video(video_id)
    assert (video.hold, video.charged_microusd) == ("posted", video.hold_microusd)
    balances = await house.balances()
    assert balances["provider:fal:payable"] == -5_000_000
    assert balances["absorbed:overrun"] == 5_000_000 - video.hold_microusd


async def test_cancelled_video_whose_hold_is_over_is_billed_nothing(house: Rehearsal) -> None:
    video_id = await unknown(house)
    await house.cancel(video_id)
    await house.run(1300, step_s=100)
    await say(house, video_id, bought=True, cost_usd="1")
    assert (await house.video(video_id)).charged_microusd == 0
    assert (await house.balances())["absorbed:unknown"] == 1_000_000


async def test_video_that_another_has_delivered_is_unchanged(bold: Rehearsal) -> None:
    runflow = Runflow()
    bold.answers(runflow)
    video_id = await bold.accept()
    await bold.run(20)
    before = await bold.video(video_id)
    assert (before.status, await bold.states(video_id)) == ("completed", ["unknown", "done"])
    await say(bold, video_id, bought=True, cost_usd="1")
    await bold.settle()
    assert await bold.video(video_id) == before
    balances = await bold.balances()
    assert (balances["absorbed:double"], balances["provider:fal:payable"]) == (1_000_000, -1_000_000)
    assert bold.metric("reelay_absorbed_usd_total", reason="double") == 0, "told by whoever asked for it"


async def test_nothing_is_billed_for_a_failed_video(house: Rehearsal) -> None:
    video_id = await unknown(house)
    await house.run(1300, step_s=100)
    resolved = await say(house, video_id, bought=True, cost_usd="1")
    assert resolved.moved.absorbed == [("unknown", 1_000_000)]
    assert resolved.attempt.bearer == "absorbed:unknown"
    assert await house.balances() == {"absorbed:unknown": 1_000_000, "provider:fal:payable": -1_000_000}


async def test_lost_order_is_resolved_like_one_of_unknown_end(house: Rehearsal) -> None:
    order = FalOrder()
    house.answers(order)
    video_id = await house.accept()
    await house.settle()

    async def denies(provider: str, call: Call) -> Reply:
        del provider, call
        return reply(404, {"detail": "Request not found"})

    house.answers(denies)
    await house.run(300, step_s=10)
    assert await house.states(video_id) == ["lost"]
    assert (await say(house, video_id, bought=True, seller_id="fal-1")).attempt.state == "running"
    order.status = "COMPLETED"
    house.answers(order)
    await house.run(20)
    assert (await house.video(video_id)).status == "completed"


# What is refused


@pytest.mark.parametrize(
    ("found", "param"),
    [
        ({"bought": True, "cost_usd": "-1"}, "cost_usd"),
        ({"bought": True, "cost_usd": "0.0000001"}, "cost_usd"),
        ({"bought": True, "cost_usd": "1000001"}, "cost_usd"),
        ({"bought": True, "cost_usd": "much"}, "cost_usd"),
        ({"bought": True, "cost_usd": "NaN"}, "cost_usd"),
        ({"bought": False, "cost_usd": "1"}, "cost_usd"),
        ({"bought": False, "seller_id": "fal-1"}, "seller_id"),
        ({"bought": True, "seller_id": ""}, "seller_id"),
        ({"bought": True, "seller_id": "fal 1"}, "seller_id"),
        ({"bought": True, "reason": " "}, "reason"),
        ({"bought": True, "reason": "x" * 1001}, "reason"),
    ],
    ids=str,
)
async def test_finding_that_cannot_be_is_refused_and_leaves_no_row(
    house: Rehearsal, found: dict[str, Any], param: str
) -> None:
    video_id = await unknown(house)
    with pytest.raises(InvalidValue) as caught:
        await say(house, video_id, **found)
    assert caught.value.param == param
    assert await house.states(video_id) == ["unknown"]
    assert await acts(house) == 0


async def test_attempt_whose_end_is_known_cannot_be_resolved(house: Rehearsal) -> None:
    house.answers(FalOrder())
    video_id = await house.accept()
    await house.settle()
    with pytest.raises(InvalidValue, match="This attempt is running"):
        await say(house, video_id, bought=False)
    resolved = await unknown(house)
    await say(house, resolved, bought=False)
    with pytest.raises(InvalidValue, match="This attempt is refused"):
        await say(house, resolved, bought=True)


async def test_attempt_that_does_not_exist_is_not_found(house: Rehearsal) -> None:
    video_id = await unknown(house)
    for name, number in ((video_id, 2), (video_id, 0), ("video_0", 1)):
        with pytest.raises(NotFound):
            await say(house, name, number, bought=False)


async def test_row_in_the_log_tells_before_and_after(house: Rehearsal) -> None:
    video_id = await unknown(house)
    await say(house, video_id, bought=True, cost_usd="0.96", reason="invoice 17")
    (act,) = await house.house.store.read_now(lambda tx: tenants.acts(tx, most=10))
    assert (act.actor, act.action, act.subject, act.reason) == (
        "key_7", "attempt.resolve", f"{video_id}/1", "invoice 17",
    )  # fmt: skip
    assert act.before == '{"state":"unknown","seller_id":null,"cost_usd":null,"bearer":null}'
    assert act.after == '{"state":"failed","seller_id":null,"cost_usd":"0.960000","bearer":"absorbed:double"}'


async def test_order_that_is_being_looked_for_just_then_is_resolved_all_the_same(tmp_path: Path, film: bytes) -> None:
    """The worker that asks the seller has lost its lease when it comes back, and changes nothing."""
    async with rehearse(tmp_path, film, order=("runflow", "fal")) as house:
        house.answers(lost_at_fal)
        video_id = await house.accept()
        await house.settle()

        async def meanwhile(provider: str, call: Call) -> Reply:
            if provider == "runflow" and call.method == "GET":
                await say(house, video_id, bought=True, cost_usd="1")
                return reply(200, {"runs": []})
            return await nobody_answers(provider, call)

        house.answers(meanwhile)
        await house.run(10)
        assert (await house.states(video_id))[0] == "failed"
        assert (await house.balances())["absorbed:double"] == 1_000_000
