"""What the database does not do is counted, and nothing else is changed by that."""

from collections.abc import Sequence

import pytest

from proxy.core.errors import NotFound, Overloaded
from proxy.store import tenants
from proxy.store.base import Store, Tx
from proxy.store.counted import Counted


def full(_: object) -> None:
    raise Overloaded("The disk is full.")


def full_for_all(_: Tx, items: Sequence[int]) -> list[int]:
    raise Overloaded(f"The disk is full for {items}.")


def doubled(_: Tx, items: Sequence[int]) -> list[int]:
    return [2 * item for item in items]


async def test_unit_that_the_database_does_not_do_is_counted_and_raises_as_ever(store: Store) -> None:
    failures: list[None] = []
    counted = Counted(store, lambda: failures.append(None))
    for run in (counted.write, counted.read, counted.read_now):
        with pytest.raises(Overloaded):
            await run(full)
    with pytest.raises(Overloaded):
        await counted.write_grouped(full_for_all, 1)
    assert len(failures) == 4


async def test_what_a_unit_raises_by_itself_counts_for_nothing(store: Store) -> None:
    failures: list[None] = []
    counted = Counted(store, lambda: failures.append(None))

    def mistaken(_: Tx) -> None:
        raise NotFound("There is none.")

    with pytest.raises(NotFound):
        await counted.write(mistaken)
    await counted.write(lambda tx: tenants.set_fact(tx, "colour", "blue"))
    assert await counted.read(lambda tx: tenants.fact(tx, "colour")) == "blue"
    assert await counted.read_now(lambda tx: tenants.fact(tx, "colour")) == "blue"
    assert await counted.write_grouped(doubled, 21) == 42
    assert (counted.clock, counted.alone, counted.ahead_us) == (store.clock, store.alone, store.ahead_us)
    assert failures == []
