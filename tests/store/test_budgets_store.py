"""Budgets and their counters: found by whom they bound, counted exactly, gone when nothing needs them."""

from typing import Any

from proxy.core.budget import Budget, CounterKey, period_begin
from proxy.store import budgets, tenants
from proxy.store.base import Store, Tx
from tests.store.rows import AT, add_videos, make_tenant, make_video


def make_budget(name: str, **fields: Any) -> Budget:
    row: dict[str, Any] = {"tenant_id": "acme", "scope": "tenant", "subject": "", "period": "month"}
    limits: dict[str, Any] = {"limit_microusd": 100, "shadow": 0, "warn_at": "", "created_at": AT}
    return Budget(**{"id": name} | row | limits | fields)


async def add(store: Store, *rows: Budget) -> None:
    def unit(tx: Tx) -> None:
        if tenants.find_tenant(tx, "other") is None:
            tenants.insert_tenant(tx, make_tenant(id="other", name="Other"))
        for row in rows:
            budgets.insert_budget(tx, row)

    await store.write(unit)


async def test_budgets_are_found_by_whom_they_bound(store: Store) -> None:
    users = [make_budget(f"u{n:02}", scope="end_user", subject=f"user_{n:02}") for n in range(80)]
    broad = [make_budget("all"), make_budget("each", scope="each_end_user"), make_budget("none", scope="no_end_user")]
    key = make_budget("key", scope="key", subject="key_1")
    await add(store, *users, *broad, key, make_budget("theirs", tenant_id="other"))

    async def found(tenant_ids: list[str], *subjects: str) -> dict[str, set[str]]:
        by_tenant = await store.read(lambda tx: budgets.bounding(tx, tenant_ids, set(subjects)))
        return {tenant: {one.id for one in those} for tenant, those in by_tenant.items()}

    everybodys = {"all", "each", "none"}
    assert await found(["acme"]) == {"acme": everybodys}
    assert await found(["acme"], "user_07", "key_1") == {"acme": everybodys | {"u07", "key"}}
    assert await found(["acme", "other", "nobody"]) == {"acme": everybodys, "other": {"theirs"}}
    many = {f"user_{n:02}" for n in range(70)}
    assert await found(["acme"], *many) == {"acme": everybodys | {f"u{n:02}" for n in range(70)}}
    assert await store.read(lambda tx: budgets.are_there(tx, "acme"))
    assert not await store.read(lambda tx: budgets.are_there(tx, "nobody"))


async def test_spent_is_what_videos_of_the_period_hold_or_were_charged(store: Store) -> None:
    day = AT - AT % 86_400_000_000
    await add_videos(
        store,
        make_video(id="video_1", created_at=day, hold_microusd=5, key_id="key_1", end_user="ann"),
        make_video(id="video_2", created_at=day + 1, hold="posted", hold_microusd=50, charged_microusd=30),
        make_video(
            id="video_3", created_at=day + 1, hold="void", hold_microusd=500, charged_microusd=0, end_user="ann"
        ),
        make_video(id="video_4", created_at=day - 1, hold_microusd=5000),
        make_video(id="video_5", created_at=day + 86_400_000_000, hold_microusd=50_000),
    )

    async def spent(whose: Any, subject: str = "", period: Any = "day", begins_at: int = day) -> int:
        key = CounterKey("acme", whose, subject, period, begins_at)
        return await store.write(lambda tx: budgets.spent(tx, key))

    assert await spent("tenant") == 35
    assert await spent("key", "key_1") == 5
    assert await spent("end_user", "ann") == 5
    assert await spent("end_user") == 30
    assert await spent("tenant", period="total", begins_at=0) == 55_035


async def test_counters_are_taken_moved_and_dropped(store: Store) -> None:
    ours = [CounterKey("acme", "tenant", "", "day", AT), CounterKey("acme", "end_user", "ann", "month", AT)]

    def unit(tx: Tx) -> dict[CounterKey, int]:
        for place, key in enumerate(ours):
            budgets.insert_counter(tx, key, 10 * place)
        budgets.add(tx, {ours[0]: 7, ours[1]: -3})
        return budgets.take_counters(tx, [*ours, CounterKey("acme", "key", "k", "day", AT)])

    assert await store.write(unit) == {ours[0]: 7, ours[1]: 7}
    assert await store.write(lambda tx: budgets.counters_of_tenant(tx, "acme", "month")) == [ours[1]]
    assert await store.write(lambda tx: budgets.drop_counters(tx, ours[:1])) == 1
    assert await store.read(budgets.every_counter) == [(ours[1], 7)]


async def test_budgets_of_whole_tenants_are_found_with_what_this_period_has_used(store: Store) -> None:
    day = AT - AT % 86_400_000_000
    rows = [
        make_budget("day", period="day"),
        make_budget("month"),
        make_budget("total", period="total", tenant_id="other"),
        make_budget("shadow", shadow=1),
        make_budget("of a key", scope="key", subject="key_1"),
    ]
    await add(store, *rows)

    def count(tx: Tx) -> None:
        budgets.insert_counter(tx, CounterKey("acme", "tenant", "", "day", day), 7)
        budgets.insert_counter(tx, CounterKey("acme", "tenant", "", "day", day - 86_400_000_000), 1000)
        budgets.insert_counter(tx, CounterKey("acme", "key", "key_1", "month", period_begin("month", AT)), 1000)
        budgets.insert_counter(tx, CounterKey("other", "tenant", "", "total", 0), 9)

    await store.write(count)
    found = await store.read(lambda tx: budgets.of_whole_tenants(tx, AT))
    assert {budget.id: used for budget, used in found} == {"day": 7, "month": 0, "total": 9}
