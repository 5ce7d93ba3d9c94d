"""Budgets beside everything else that happens to a tenant, on both engines."""

import asyncio
from typing import Any

import pytest

from proxy.core.errors import InsufficientQuota
from proxy.core.tenant import SCOPES, Caller
from proxy.core.video import Ask
from proxy.services.allowances import Allowance, BudgetWish, Treasurer
from proxy.services.erasure import ErasureWish, erase_end_user
from proxy.services.housekeeping import keep_house
from proxy.services.intake import accept, quote
from proxy.store import budgets
from tests.services.rehearsal import TENANT, FalOrder, Rehearsal

PRICE_USD = "1.213600"
CALLER = Caller(tenant=TENANT, key_id="key_1", scopes=frozenset(SCOPES), budgeted=True)


def treasurer(house: Rehearsal) -> Treasurer:
    return Treasurer(house.house.store, house.clock, house.house.new_id)


async def allot(house: Rehearsal, **wish: Any) -> Allowance:
    body: dict[str, Any] = {"tenant": TENANT.id, "period": "month", "limit_usd": "50"}
    return await treasurer(house).create("key_7", BudgetWish(**body | wish))


async def ask(house: Rehearsal, end_user: str | None = None) -> str | None:
    """The video's id; None where a budget refused it."""
    wish = Ask(prompt="a paper boat", seconds=4, end_user_id=end_user)
    try:
        return (await accept(house.house, CALLER, wish, fingerprint="f")).video.id
    except InsufficientQuota:
        return None


async def test_budgets_made_while_videos_end_wait_for_nobody_in_a_circle(house: Rehearsal) -> None:
    order = FalOrder()
    house.answers(order)
    for number in range(12):
        order.seller_id = f"fal-{number}"
        assert await ask(house, f"user-{number}") is not None
        await house.settle()
    order.status = "COMPLETED"
    house.clock.move(60)
    claims = await house.claim()
    begun = asyncio.get_running_loop().time()
    await asyncio.gather(
        *(allot(house, scope="end_user", end_user_id=f"user-{number}") for number in range(12)),
        allot(house),
        allot(house, period="day"),
        *(house.do(claim) for claim in claims),
    )
    assert asyncio.get_running_loop().time() - begun < 2.5  # a circle is broken after a second, one by one
    for key, used in await house.house.store.read(budgets.every_counter):
        spent = await house.house.store.write(lambda tx, key=key: budgets.spent(tx, key))  # type: ignore[misc]  # the default binds the loop's value
        assert used == spent, key


async def test_quote_knows_what_was_spent_before_anything_was_counted(house: Rehearsal) -> None:
    for _ in range(2):
        await ask(house, "ann")
    await allot(house, scope="each_end_user", limit_usd="3")
    wish = Ask(prompt="a paper boat", seconds=4, end_user_id="ann")
    with pytest.raises(InsufficientQuota, match=r"leaves \$0\.572800"):
        await quote(house.house, CALLER, wish)
    assert await ask(house, "ann") is None


async def test_budget_of_an_erased_end_user_goes_with_the_name(house: Rehearsal) -> None:
    await allot(house, scope="end_user", end_user_id="ann", limit_usd=PRICE_USD)
    assert await ask(house, "ann") is not None
    assert await ask(house, "ann") is None
    await erase_end_user(
        house.house.store,
        house.house.storage,
        house.house.new_id,
        lambda *_: None,
        actor="key_7",
        tenant=TENANT.id,
        wish=ErasureWish(end_user_id="ann"),
    )
    assert await treasurer(house).list() == []
    assert await house.house.store.read(budgets.every_counter) == []
    assert await ask(house, "ann") is not None


async def test_counters_of_periods_long_over_are_forgotten(house: Rehearsal) -> None:
    for period in ("day", "month", "total"):
        await allot(house, period=period)
    await ask(house)
    house.clock.move(3 * 86_400)

    async def periods() -> set[str]:
        return {key.period for key, _ in await house.house.store.read(budgets.every_counter)}

    async def kept(*, dry_run: bool) -> int:
        inside = house.house
        return (await keep_house(inside.store, inside.storage, inside.rules.retention, dry_run=dry_run)).counters

    assert await kept(dry_run=True) == 1
    assert await kept(dry_run=False) == 1
    assert await periods() == {"month", "total"}
    house.clock.move(70 * 86_400)
    assert await kept(dry_run=False) == 1
    assert await periods() == {"total"}
    assert await ask(house) is not None
    assert await periods() == {"day", "month", "total"}
