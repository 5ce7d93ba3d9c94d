"""Closed months and statements are written once; the charges behind one are read page by page."""

import pytest

from proxy.store import ledger, statements
from proxy.store.base import Store, Tx
from proxy.store.statements import Closing, Detail, Told
from tests.databases import BROKEN
from tests.store.rows import AT, add_settlements, make_entry, make_settlement


async def charged(store: Store, *places: tuple[str, int]) -> None:
    """A charge for each end user and moment."""
    for number, (user, at) in enumerate(places):
        entry = make_entry(video_id=f"video_{number}", at=at, quantity=5, unit_usd="0.2", fixed_usd="0")
        await store.write(lambda tx, entry=entry: ledger.write_many(tx, [(entry, {})]))  # type: ignore[misc]  # the default binds the loop's value
        await add_settlements(store, make_settlement(id=entry.id, end_user=user, at=at, charged_microusd=number))


@pytest.mark.parametrize("most", [1, 2, 100])
async def test_charges_come_by_end_user_and_time_whatever_the_page(store: Store, most: int) -> None:
    await charged(store, ("eu_2", AT), ("", AT + 5), ("eu_1", AT + 1), ("eu_1", AT), ("eu_1", AT), ("", AT - 1))
    found: list[Detail] = []
    last: Detail | None = None
    while page := await store.read(
        lambda tx, last=last: statements.details(tx, "acme", start=AT, end=AT + 10, after=last, most=most)  # type: ignore[misc]  # the same
    ):
        found += page
        last = page[-1]
    assert [(one.end_user, one.at, one.id.split("/")[0]) for one in found] == [
        ("", AT + 5, "video_1"),
        ("eu_1", AT, "video_3"),
        ("eu_1", AT, "video_4"),
        ("eu_1", AT + 1, "video_2"),
        ("eu_2", AT, "video_0"),
    ]
    assert {(one.quantity, one.unit_usd, one.price_id) for one in found} == {(5, "0.2", "720p@2026-04-01")}


async def test_what_no_tenant_pays_is_no_charge(store: Store) -> None:
    for kind in ("post", "bill", "absorb", "refund"):
        entry = make_entry(video_id=f"video_{kind}", kind=kind)
        await store.write(lambda tx, entry=entry: ledger.write_many(tx, [(entry, {})]))  # type: ignore[misc]  # the same
        await add_settlements(store, make_settlement(id=entry.id, kind=kind))
    found = await store.read(lambda tx: statements.details(tx, "acme", start=0, end=AT + 1, after=None, most=9))
    assert {one.kind for one in found} == {"post", "bill", "refund"}
    assert await store.read(lambda tx: statements.details(tx, "other", start=0, end=AT + 1, after=None, most=9)) == []


async def test_first_cost_and_the_time_of_each_are_known(store: Store) -> None:
    assert await store.read(statements.first_cost_at) is None
    await charged(store, ("", AT + 5), ("", AT))
    assert await store.read(statements.first_cost_at) == AT
    assert await store.read(lambda tx: statements.settled_at(tx, "video_0/1/post")) == AT + 5
    assert await store.read(lambda tx: statements.settled_at(tx, "nothing")) is None


async def test_month_is_closed_once_and_a_tenant_told_once(store: Store) -> None:
    closing = Closing(month="2026-10", ends_at=AT - 1, closed_at=AT, actor="cli")
    told = Told(number="2026-10-0001", tenant_id="acme", month="2026-10", document=b"{}")

    def unit(tx: Tx) -> None:
        statements.insert_closing(tx, closing)
        statements.insert_statement(tx, told)

    await store.write(unit)
    with pytest.raises(BROKEN):
        await store.write(lambda tx: statements.insert_closing(tx, closing))
    again = Told(number="2026-10-0002", tenant_id="acme", month="2026-10", document=b"{}")
    with pytest.raises(BROKEN):
        await store.write(lambda tx: statements.insert_statement(tx, again))
    assert await store.read(statements.every_closing) == [closing]
    assert await store.read(lambda tx: statements.statement_of(tx, "acme", "2026-10")) == told
    assert await store.read(lambda tx: statements.statement_of(tx, "other", "2026-10")) is None
    assert await store.read(statements.numbers) == [("2026-10-0001", "acme", "2026-10")]
    assert await store.read(lambda tx: statements.numbers(tx, "other")) == []
