"""A month of a tenant adds up to the ledger, and once it is closed nothing moves it any more."""

import asyncio
import hashlib
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.clock import iso
from proxy.core.errors import InvalidValue, NotFound
from proxy.core.tenant import Tenant
from proxy.services.acts import Clerk
from proxy.services.audit import go_through
from proxy.services.charges import charges_file, read_month
from proxy.services.refunds import RefundWish, refund
from proxy.services.statements import Closed, Statement, cents, close_month, end_user_names, statement_for
from proxy.store import ledger, statements, tenants
from tests.databases import BROKEN, Database
from tests.services.rehearsal import TENANT, FalOrder, Rehearsal
from tests.store.rows import make_entry

DAY_S = 86_400
PRICE = 1_213_600


async def delivered(house: Rehearsal, **ask: Any) -> str:
    order = FalOrder(f"fal-{house.clock()}")
    house.answers(order)
    video_id = await house.accept(**ask)
    await house.settle()
    order.status = "COMPLETED"
    await house.run(60, step_s=10)
    return video_id


async def give_back(house: Rehearsal, video_id: str, amount_usd: str) -> None:
    wish = RefundWish(amount_usd=amount_usd, reason="flickers")
    clerk = Clerk(house.clock, house.house.new_id)
    await refund(house.house.store, clerk, actor="key_7", video_id=video_id, wish=wish)


async def close(house: Rehearsal, month: str) -> Closed:
    clerk = Clerk(house.clock, house.house.new_id)
    return await close_month(
        house.house.store, clerk, actor="key_7", month=month, reason="end of month", software="Reelay 1"
    )


async def statement(house: Rehearsal, month: str) -> Statement:
    return await statement_for(house.house.store, TENANT.id, month, software="Reelay 1")


def until(house: Rehearsal, day: str) -> None:
    """Moves the clock to that midnight."""
    month, number = day[:7], int(day[8:])
    target = read_month(month).start + (number - 1) * DAY_S * 10**6
    house.clock.move((target - house.clock()) / 10**6)


@given(st.integers(-(10**12), 10**12))
def test_cents_are_rounded_half_up(microusd: int) -> None:
    exact = Decimal(microusd) / 10_000
    assert abs(exact - cents(microusd)) <= Decimal("0.5")
    assert cents(-microusd) == -cents(microusd)


def test_half_a_cent_is_one() -> None:
    assert [cents(value) for value in (4_999, 5_000, 14_999, 15_000, -5_000)] == [0, 1, 1, 2, -1]


async def test_draft_adds_up_lines_end_users_and_refunds(house: Rehearsal) -> None:
    first = await delivered(house, end_user_id="ann")
    await delivered(house, end_user_id="bob")
    await delivered(house)
    await give_back(house, first, "0.2")
    held = await house.accept()
    draft = await statement(house, "2026-11")
    assert (draft.number, draft.month, draft.tenant_id, draft.charges) == (None, "2026-11", TENANT.id, 4)
    [line] = draft.lines
    assert (line.model, line.resolution, line.outcome, line.unit_usd) == ("seedance-2.0", "720p", "delivered", "0.3034")
    assert (line.videos, line.seconds, line.microusd, line.cents) == (3, 12, 3 * PRICE, 364)
    [given] = draft.refunds
    assert (given.charge, given.microusd, given.cents, given.corrects, given.reason) == (
        f"{first}/1/post", -200_000, -20, None, "flickers",
    )  # fmt: skip
    assert (draft.total_microusd, draft.total_cents, draft.rounding_cents) == (3 * PRICE - 200_000, 344, 0)
    names = await end_user_names(house.house.store, draft)
    by_name = {names.get(line.end_user): line for line in draft.end_users}
    assert by_name.keys() == {"ann", "bob", None}
    assert (by_name["ann"].charged_microusd, by_name["ann"].refunded_microusd) == (PRICE, 200_000)
    assert sum(line.charged_microusd - line.refunded_microusd for line in draft.end_users) == draft.total_microusd
    assert draft.held_microusd == (await house.video(held)).hold_microusd
    assert draft.total_microusd == (await house.balances())[f"tenant:{TENANT.id}:spend"]


async def test_rounding_line_makes_rounded_lines_the_total(house: Rehearsal) -> None:
    for seconds in (4, 5, 7):
        await delivered(house, seconds=seconds)
    draft = await statement(house, "2026-11")
    assert sum(line.cents for line in draft.lines) + draft.rounding_cents == draft.total_cents
    assert draft.total_cents == cents(draft.total_microusd)


async def test_file_of_charges_is_what_the_statement_was_added_up_from(house: Rehearsal) -> None:
    video_id = await delivered(house, end_user_id="ann")
    await delivered(house)
    await give_back(house, video_id, "0.000001")
    text = "".join([part async for part in charges_file(house.house.store, TENANT.id, read_month("2026-11"))])
    draft = await statement(house, "2026-11")
    assert hashlib.sha256(text.encode()).hexdigest() == draft.charges_sha256
    head, *rows = (line.split(",") for line in text.splitlines())
    amounts = [Decimal(dict(zip(head, row, strict=True))["amount_usd"]) for row in rows]
    assert len(rows) == draft.charges == 3
    assert sum(amounts) == Decimal(draft.total_microusd) / 10**6
    assert "ann" not in text, "names may be erased, and the file stays the same"


async def test_closed_month_stays_as_it_was_told(house: Rehearsal) -> None:
    video_id = await delivered(house, end_user_id="ann")
    until(house, "2026-12-02")
    closed = await close(house, "2026-11")
    assert [one.number for one in closed.statements] == ["2026-11-0001"]
    told = await statement(house, "2026-11")
    assert msgspec.structs.replace(told, made_at=0) == msgspec.structs.replace(closed.statements[0], made_at=0)
    await give_back(house, video_id, "1.2136")
    assert await statement(house, "2026-11") == told
    december = await statement(house, "2026-12")
    assert (december.lines, december.total_microusd, december.number) == ((), -PRICE, None)
    [given] = december.refunds
    assert (given.corrects, iso(given.charged_at)[:7]) == ("2026-11-0001", "2026-11")
    until(house, "2027-01-03")
    [credit] = (await close(house, "2026-12")).statements
    assert (credit.number, credit.total_cents) == ("2026-12-0001", -121)
    assert (await go_through(house.house.store)).doubts == ()


async def test_nothing_is_written_into_a_closed_month(house: Rehearsal) -> None:
    await delivered(house)
    until(house, "2026-12-02")
    await close(house, "2026-11")
    end = read_month("2026-11").end
    for kind, at, refused in (
        ("absorb", end - 1, True),
        ("post", 1, True),
        ("hold", end - 1, False),
        ("bill", end, False),
    ):
        entry = make_entry(video_id=f"video_{kind}", kind=kind, at=at, tenant_id=TENANT.id)
        write = house.house.store.write(lambda tx, entry=entry: ledger.write_many(tx, [(entry, {})]))  # type: ignore[misc]  # the default binds the loop's value
        if refused:
            with pytest.raises((*BROKEN, Exception), match="the month is closed"):
                await write
        else:
            await write


async def test_month_is_closed_once_and_in_its_order(house: Rehearsal) -> None:
    await delivered(house)
    for month in ("2026-11", "2026-12", "2030-01"):
        with pytest.raises(InvalidValue, match="ten minutes after its end"):
            await close(house, month)
    until(house, "2026-12-01")
    house.clock.move(599)
    with pytest.raises(InvalidValue, match="ten minutes after its end"):
        await close(house, "2026-11")
    await delivered(house)
    until(house, "2027-02-01")
    with pytest.raises(InvalidValue, match="2026-11 is open"):
        await close(house, "2026-12")
    made = await asyncio.gather(*(close(house, "2026-11") for _ in range(3)), return_exceptions=True)
    assert sorted(type(one).__name__ for one in made) == ["Closed", "InvalidValue", "InvalidValue"]
    with pytest.raises(InvalidValue, match="closed already"):
        await close(house, "2026-11")
    with pytest.raises(InvalidValue, match="all that was before"):
        await close(house, "2026-10")
    await close(house, "2026-12")
    acts = await house.house.store.read(lambda tx: tenants.acts(tx, most=9))
    assert {(act.action, act.subject, act.reason) for act in acts} == {
        ("month.close", month, "end of month") for month in ("2026-11", "2026-12")
    }


async def test_tenant_without_spending_gets_no_statement(house: Rehearsal) -> None:
    await delivered(house)
    other = Tenant(id="tenant_b", name="b", created_at=house.clock())
    await house.house.store.write(lambda tx: tenants.insert_tenant(tx, other))
    until(house, "2026-12-02")
    assert len((await close(house, "2026-11")).statements) == 1
    with pytest.raises(NotFound):
        await statement_for(house.house.store, other.id, "2026-11", software="Reelay 1")
    with pytest.raises(NotFound):
        await statement_for(house.house.store, "tenant_c", "2026-12", software="Reelay 1")
    numbers = await house.house.store.read(lambda tx: statements.numbers(tx, TENANT.id))
    assert numbers == [("2026-11-0001", TENANT.id, "2026-11")]
    assert await house.house.store.read(lambda tx: statements.numbers(tx, other.id)) == []


async def test_name_that_is_erased_later_is_gone_from_closed_statements(house: Rehearsal) -> None:
    await delivered(house, end_user_id="ann")
    until(house, "2026-12-02")
    [told] = (await close(house, "2026-11")).statements
    [surrogate] = [line.end_user for line in told.end_users]
    assert await end_user_names(house.house.store, told) == {surrogate: "ann"}
    await house.house.store.write(lambda tx: tenants.forget_name(tx, TENANT.id, surrogate))
    assert await end_user_names(house.house.store, told) == {surrogate: None}
    [row] = await house.house.store.read(lambda tx: [statements.statement_of(tx, TENANT.id, "2026-11")])
    assert row is not None
    assert b"ann" not in row.document


async def test_audit_names_a_statement_that_is_not_what_was_settled(house: Rehearsal, database: Database) -> None:
    await delivered(house)
    until(house, "2026-12-02")
    await close(house, "2026-11")
    assert (await go_through(house.house.store)).doubts == ()
    database.tamper("update settlements set charged_microusd = charged_microusd + 5")
    found = (await go_through(house.house.store)).doubts
    assert [(doubt.subject, doubt.microusd) for doubt in found if doubt.what == "statement"] == [("2026-11-0001", 5)]
    database.tamper("update settlements set charged_microusd = charged_microusd - 5")
    database.tamper("update settlements set key_id = 'key_9'")
    found = (await go_through(house.house.store)).doubts
    assert [doubt.subject for doubt in found if doubt.what == "statement"] == ["2026-11-0001"], "by its file alone"
