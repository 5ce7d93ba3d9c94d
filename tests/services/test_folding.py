"""Days are summed behind what may still be written, once each, and the books are compared on the way."""

import asyncio

from proxy.core.clock import SECOND_US
from proxy.services.audit import DRIFT, go_through
from proxy.services.folding import fold
from proxy.store import settlements
from proxy.store.settlements import SETTLED_US, Sums
from proxy.store.tenants import fact
from tests.databases import Database
from tests.services.rehearsal import FalOrder, Rehearsal


async def deliver(house: Rehearsal) -> None:
    order = FalOrder(f"fal-{house.clock()}")
    house.answers(order)
    await house.accept()
    await house.settle()
    order.status = "COMPLETED"
    await house.run(60, step_s=10)


async def all_time(house: Rehearsal) -> Sums:
    [sums] = (
        await house.house.store.read(lambda tx: settlements.by_days(tx, (), tenant_id=None, start=0, end=2**62))
    ).values()
    return sums


async def drift(house: Rehearsal) -> int:
    return int(await house.house.store.read(lambda tx: fact(tx, DRIFT)) or 0)


async def test_what_is_young_is_left_for_later(house: Rehearsal) -> None:
    await deliver(house)
    whole = await all_time(house)
    await fold(house.house.store)
    assert await house.house.store.read(settlements.folded_until) == house.clock() - SETTLED_US
    assert await all_time(house) == whole
    house.clock.move(SETTLED_US / SECOND_US)
    await fold(house.house.store)
    assert await all_time(house) == whole
    assert (await go_through(house.house.store)).doubts == ()
    await fold(house.house.store)
    assert await all_time(house) == whole, "a second time adds nothing"


async def test_batches_end_between_rows_and_come_to_the_same(house: Rehearsal) -> None:
    for _ in range(5):
        await deliver(house)
    whole = await all_time(house)
    assert whole.videos == 5
    house.clock.move(3600)
    await fold(house.house.store, rows_each=1)
    assert await all_time(house) == whole
    assert (await go_through(house.house.store)).doubts == ()


async def test_two_at_once_sum_nothing_twice(house: Rehearsal) -> None:
    for _ in range(4):
        await deliver(house)
    whole = await all_time(house)
    house.clock.move(3600)
    await asyncio.gather(*(fold(house.house.store, rows_each=1) for _ in range(4)))
    assert await all_time(house) == whole
    assert (await go_through(house.house.store)).doubts == ()


async def test_books_that_differ_are_found_on_the_way(house: Rehearsal, database: Database) -> None:
    await deliver(house)
    await fold(house.house.store)
    assert await drift(house) == 0
    database.tamper("update settlements set seller_microusd = seller_microusd - 3")
    house.clock.move(3600)
    await fold(house.house.store)
    assert await drift(house) == 3
    await deliver(house)
    house.clock.move(3600)
    await fold(house.house.store)
    assert await drift(house) == 3, "what follows is right, and hides nothing"
