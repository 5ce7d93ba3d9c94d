"""What is given back is written beside the charge that it corrects, and is never more than was charged."""

import asyncio
from typing import Any

import pytest

from proxy.core.errors import InvalidValue, MissingParameter, NotFound
from proxy.services.acts import Clerk
from proxy.services.audit import go_through
from proxy.services.refunds import Refund, RefundWish, refund
from proxy.services.report import SpendLine, SpendQuery, spend
from proxy.store import tenants
from tests.services.rehearsal import TENANT, FalOrder, Rehearsal

PRICE = 1_213_600
FOR_EVER = 10**5 * 86_400_000_000


async def delivered(house: Rehearsal, **ask: Any) -> str:
    order = FalOrder(f"fal-{house.clock()}")
    house.answers(order)
    video_id = await house.accept(**ask)
    await house.settle()
    order.status = "COMPLETED"
    await house.run(60, step_s=10)
    assert (await house.video(video_id)).charged_microusd == PRICE
    return video_id


async def give_back(house: Rehearsal, video_id: str, amount_usd: str, *, key: str | None = None, **wish: Any) -> Refund:
    clerk = Clerk(house.clock, house.house.new_id)
    wished = RefundWish(**{"amount_usd": amount_usd, "reason": "flickers", **wish})
    return await refund(house.house.store, clerk, actor="key_7", video_id=video_id, wish=wished, idempotency_key=key)


async def line(house: Rehearsal, *groups: str) -> SpendLine:
    query = SpendQuery(groups=groups, start=0, end=FOR_EVER, tenant_id=TENANT.id)
    [only] = (await spend(house.house.store, query)).lines
    return only


async def test_refund_names_its_charge_and_leaves_it_as_it_was(house: Rehearsal) -> None:
    video_id = await delivered(house, end_user_id="ann", metadata={"team": "ads"})
    made = await give_back(house, video_id, "0.2136")
    assert made == Refund(
        id=f"{video_id}/1/refund-1", charge=f"{video_id}/1/post", amount_microusd=213_600, left_microusd=1_000_000
    )
    balances = await house.balances()
    assert balances[f"tenant:{TENANT.id}:spend"] == 1_000_000
    assert balances["adjustments"] == 213_600
    assert (await house.video(video_id)).charged_microusd == PRICE
    told = await line(house, "end_user", "metadata.team", "provider")
    assert (told.end_user, told.metadata, told.provider) == ("ann", "ads", "fal")
    assert (told.videos, told.charged_usd, told.refunded_usd) == (1, "1.213600", "0.213600")
    assert (await go_through(house.house.store)).doubts == ()
    [act] = await house.house.store.read(lambda tx: tenants.acts(tx, most=1))
    assert (act.actor, act.action, act.subject, act.reason) == ("key_7", "charge.refund", made.id, "flickers")


async def test_no_more_is_given_back_than_was_charged_however_often_it_is_tried(house: Rehearsal) -> None:
    video_id = await delivered(house)
    tries = [give_back(house, video_id, "0.5") for _ in range(5)]
    made = await asyncio.gather(*tries, return_exceptions=True)
    assert sorted(type(one).__name__ for one in made) == ["InvalidValue"] * 3 + ["Refund"] * 2
    with pytest.raises(InvalidValue, match=r"No more than \$0\.213600"):
        await give_back(house, video_id, "0.213601")
    assert (await give_back(house, video_id, "0.213600")).left_microusd == 0
    assert f"tenant:{TENANT.id}:spend" not in await house.balances()
    assert (await go_through(house.house.store)).doubts == ()


async def test_refund_that_is_asked_for_again_is_made_once(house: Rehearsal) -> None:
    video_id = await delivered(house)
    made = await asyncio.gather(*(give_back(house, video_id, "0.5", key="again") for _ in range(5)))
    assert len({one.id for one in made}) == 1
    with pytest.raises(InvalidValue, match="another refund"):
        await give_back(house, video_id, "0.4", key="again")
    assert (await give_back(house, video_id, "0.5", key="more")).left_microusd == PRICE - 1_000_000
    assert (await house.video(video_id)).refunded_microusd == 1_000_000


@pytest.mark.parametrize(
    "amount",
    [
        "1e-1",
        "0.10000000000000000000000000000000000001",
        "+1",
        ".5",
        "1.",
        "0",
        "-1",
        "0.0000001",
        "1e-7",
        "nothing",
        "",
        "1_0",
        "NaN",
        "1e309",
        "\u0661",
    ],
)
async def test_amount_that_cannot_be_is_named_and_changes_nothing(house: Rehearsal, amount: str) -> None:
    video_id = await delivered(house)
    before = await house.balances()
    with pytest.raises(InvalidValue) as caught:
        await give_back(house, video_id, amount)
    assert caught.value.param == "amount_usd"
    assert await house.balances() == before


async def test_refund_says_why(house: Rehearsal) -> None:
    video_id = await delivered(house)
    with pytest.raises(MissingParameter):
        await give_back(house, video_id, "1", reason=" ")


async def test_what_was_not_charged_is_not_given_back(house: Rehearsal) -> None:
    for nobody in ("video_nobody", f"{await delivered(house)}/1"):
        with pytest.raises(NotFound):
            await give_back(house, nobody, "1")
    queued = await house.accept()
    with pytest.raises(NotFound):
        await give_back(house, queued, "1")
    await house.cancel(queued)
    video_id = await delivered(house)
    with pytest.raises(InvalidValue, match="charged were: 1"):
        await give_back(house, video_id, "1", attempt=2)
    assert (await give_back(house, video_id, "1", attempt=1)).amount_microusd == 1_000_000
