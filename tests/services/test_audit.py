"""The audit finds nothing in good books, and names whatever was changed behind their back."""

import pytest

from proxy.core.clock import DAY_US
from proxy.services.allowances import BudgetWish, Treasurer
from proxy.services.audit import CHECKED_AT, DRIFT, Audit, Glance, glance, go_through
from proxy.services.folding import fold
from proxy.store.tenants import fact
from tests.databases import Database
from tests.services.rehearsal import TENANT, FalOrder, Rehearsal


async def delivered(house: Rehearsal) -> str:
    """A video that was charged, in a tenant with a budget."""
    treasurer = Treasurer(house.house.store, house.clock, house.house.new_id)
    await treasurer.create("key_7", BudgetWish(tenant=TENANT.id, period="month", limit_usd="5"))
    order = FalOrder()
    house.answers(order)
    video_id = await house.accept()
    await house.settle()
    order.status = "COMPLETED"
    await house.run(60, step_s=10)
    assert (await house.video(video_id)).status == "completed"
    return video_id


async def audited(house: Rehearsal) -> Audit:
    return await go_through(house.house.store)


async def test_good_books_leave_no_doubt(house: Rehearsal) -> None:
    assert await audited(house) == Audit(charges=0, charged_usd="0.000000", doubts=())
    await delivered(house)
    await house.accept()
    assert await audited(house) == Audit(charges=1, charged_usd="1.213600", doubts=())


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("update budget_counters set used_microusd = used_microusd - 1", {"counter"}),
        ("update videos set charged_microusd = charged_microusd + 1", {"end", "counter"}),
        ("update videos set hold_microusd = 5", {"charge"}),
        ("update videos set hold = 'void'", {"end"}),
        ("update videos set hold = 'held'", {"end", "held"}),
        ("update settlements set charged_microusd = charged_microusd + 5", {"settlement", "day"}),
        ("delete from settlements", {"settlement", "day"}),
        ("update settlements set id = 'video_0/1/post'", {"settlement"}),
        ("update settlements set end_user = 'eu_9'", {"settlement"}),
        ("update settlements set seconds = seconds + 1", {"settlement", "day"}),
        ("update settlements set tenant_id = 'tenant_z'", {"settlement", "day"}),
        ("update spend_days set seconds = seconds + 1", {"day"}),
        ("update spend_days set day = day + 1", {"day"}),
        (
            "insert into ledger_postings select id, 'adjustments', 7 from ledger_transactions where kind = 'post'",
            {"unbalanced"},
        ),
    ],
)
async def test_whatever_was_changed_is_named(
    house: Rehearsal, database: Database, change: str, found: set[str]
) -> None:
    await delivered(house)
    house.clock.move(3600)
    await fold(house.house.store)
    database.tamper(change)
    assert {doubt.what for doubt in (await audited(house)).doubts} == found


async def test_charge_that_does_not_follow_from_its_price_is_named(house: Rehearsal, database: Database) -> None:
    video_id = await delivered(house)
    database.tamper(
        "insert into ledger_transactions (id, kind, video_id, attempt_no, at, tenant_id, model, book_hash, rules_hash,"
        " price_id, quantity, unit_usd, fixed_usd)"
        " select id || '/again', 'post', video_id, attempt_no, at, tenant_id, model, book_hash, rules_hash,"
        " price_id, quantity, '0.4', fixed_usd from ledger_transactions where kind = 'post'"
    )
    [charge] = [doubt for doubt in (await audited(house)).doubts if doubt.what == "charge"]
    assert charge.subject == f"{video_id}/1/post/again"
    assert charge.detail == "$0.000000 was charged; quantity and unit price make $1.213600"


async def test_drift_is_what_an_audit_found_until_the_next(house: Rehearsal, database: Database) -> None:
    async def told(name: str) -> int:
        return int(await house.house.store.read(lambda tx: fact(tx, name)) or 0)

    await delivered(house)
    database.tamper("update settlements set charged_microusd = charged_microusd + 5")
    await audited(house)
    assert (await told(DRIFT), await told(CHECKED_AT)) == (5, house.clock())
    database.tamper("update settlements set charged_microusd = charged_microusd - 5")
    house.clock.move(60)
    await audited(house)
    assert (await told(DRIFT), await told(CHECKED_AT)) == (0, house.clock())


async def test_glance_sees_the_last_day_and_what_was_found_before_it(house: Rehearsal, database: Database) -> None:
    store = house.house.store
    assert await glance(store, now_us=house.clock()) == Glance(drift_microusd=0, checked_at=None, doubts=())
    await delivered(house)
    database.tamper("update settlements set charged_microusd = charged_microusd + 5")
    before = database.rows("select * from facts order by name")
    seen = await glance(store, now_us=house.clock())
    assert [doubt.what for doubt in seen.doubts] == ["settlement"]
    assert (await glance(store, now_us=house.clock() + 2 * DAY_US)).doubts == ()
    assert database.rows("select * from facts order by name") == before, "it only looks"
    await audited(house)
    assert (await glance(store, now_us=house.clock())).drift_microusd > 0
