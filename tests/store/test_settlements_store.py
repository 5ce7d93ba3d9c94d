"""Sums by day, by end user and by metadata are those of the rows, wherever the days' sums end and pages are cut."""

import itertools
import random
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import text

from proxy.core.clock import DAY_US
from proxy.store import settlements
from proxy.store.base import Statement, Store, Tx
from proxy.store.settlements import Key, Settlement, Sums
from proxy.store.tables import DIMENSIONS, SUMS
from tests.store.rows import AT, add_settlements, make_settlement

FIRST = AT // DAY_US * DAY_US
END = FIRST + 40 * DAY_US
TEAMS = [None, "{}", '{"team":"ads"}', '{"team":"web","x":"1"}', '{"team":"Zoë"}', '{"team":"a b","o\'x":"%"}']


def some(count: int, seed: int = 7) -> list[Settlement]:
    """Over forty days, of every kind."""
    chance = random.Random(seed)
    kinds: list[Any] = [("post", "delivered"), ("bill", "billed"), ("absorb", "double"), ("refund", "refunded")]
    rows = []
    for number in range(count):
        kind, outcome = chance.choices(kinds, [8, 1, 1, 1])[0]
        rows.append(
            make_settlement(
                id=f"video_{number:04}/1/{kind}",
                kind=kind,
                outcome=outcome,
                at=FIRST + chance.randrange(40 * DAY_US),
                tenant_id=chance.choice(["acme", "other"]),
                end_user=chance.choice(["", "eu_1", "eu_2", "eu_3", "EU_4"]),
                key_id=chance.choice(["", "key_1"]),
                provider=chance.choice(["p", "q"]),
                tier=chance.choice(["standard", "fast"]),
                rule=chance.choice(["default", "hd"]),
                metadata=chance.choice(TEAMS),
                seconds=chance.randrange(16),
                **{name: chance.randrange(10**7) for name in SUMS},
            )
        )
    return rows


def value(row: Settlement, group: str) -> str | int:
    """As a reader of the rows would tell it."""
    if group == "day":
        return row.at // DAY_US
    if group == "month":
        return "2026-11" if row.at < FIRST + 10 * DAY_US else "2026-12"
    if group == "metadata":
        return next((name for name in ("ads", "web", "Zoë", "a b") if f'"{name}"' in (row.metadata or "")), "")
    return str(getattr(row, group))


def by_hand(rows: Sequence[Settlement], groups: Sequence[str], **only: Any) -> dict[Key, Sums]:
    found: dict[Key, Sums] = {}
    for row in rows:
        if all(getattr(row, name) == wanted for name, wanted in only.items()):
            key = tuple(value(row, group) for group in groups)
            one = Sums(int(row.kind == "post"), row.seconds, *(getattr(row, name) for name in SUMS))
            found[key] = found.get(key, Sums()).plus(one)
    return found


async def fold(store: Store, until: int) -> None:
    def unit(tx: Tx) -> None:
        settlements.take_folded_until(tx)
        settlements.fold(tx, until=until)

    await store.write(unit)


GROUPINGS = [
    (),
    *((name,) for name in ("day", "month", *DIMENSIONS)),
    ("provider", "day"),
    ("month", "tenant_id", "rule"),
    ("tenant_id", "provider", "outcome", "month"),
]


async def test_days_and_what_came_after_them_are_the_rows(store: Store) -> None:
    rows = some(300)
    await add_settlements(store, *rows)
    for until in (0, FIRST + 1, FIRST + 3 * DAY_US, FIRST + 17 * DAY_US + 12345, END):
        await fold(store, until)
        assert await store.read(settlements.folded_until) == until
        for groups, tenant_id in itertools.product(GROUPINGS, (None, "acme")):
            found = await store.read(
                lambda tx, groups=groups, tenant_id=tenant_id: settlements.by_days(  # type: ignore[misc]  # the default binds the loop's value
                    tx, groups, tenant_id=tenant_id, start=FIRST, end=END
                )
            )
            assert found == by_hand(rows, groups, **({"tenant_id": tenant_id} if tenant_id else {})), (groups, until)


async def test_day_to_which_more_came_is_summed_on(store: Store) -> None:
    first, second = make_settlement(charged_microusd=5), make_settlement(at=AT + 1, charged_microusd=7)
    await add_settlements(store, first)
    await fold(store, AT + 1)
    await add_settlements(store, second)
    await fold(store, AT + 2)
    found = await store.read(lambda tx: settlements.by_days(tx, ("day",), tenant_id=None, start=FIRST, end=END))
    assert found == {(AT // DAY_US,): Sums(videos=2, charged_microusd=12)}


async def test_span_is_cut_at_its_midnights(store: Store) -> None:
    rows = some(200)
    await add_settlements(store, *rows)
    await fold(store, FIRST + 20 * DAY_US)
    for first, last in ((3, 4), (10, 25), (20, 21), (30, 40), (50, 60)):
        start, end = FIRST + first * DAY_US, FIRST + last * DAY_US
        where: dict[str, Any] = {"tenant_id": None, "start": start, "end": end}
        found = await store.read(lambda tx, where=where: settlements.by_days(tx, ("provider",), **where))  # type: ignore[misc]  # the same
        assert found == by_hand([row for row in rows if start <= row.at < end], ("provider",))


@pytest.mark.parametrize("groups", [("tenant_id", "end_user"), ("tenant_id", "end_user", "provider", "day")])
@pytest.mark.parametrize("tenant_id", [None, "acme"])
@pytest.mark.parametrize("most", [1, 3, 100])
async def test_pages_of_end_users_are_whole_and_together_all(
    store: Store, groups: tuple[str, ...], tenant_id: str | None, most: int
) -> None:
    rows = some(200)
    await add_settlements(store, *rows)
    found: dict[Key, Sums] = {}
    after: tuple[str, str] | None = None
    for _ in range(11):
        page, after = await store.read(
            lambda tx, after=after: settlements.by_end_users(  # type: ignore[misc]  # the same
                tx, groups, tenant_id=tenant_id, start=FIRST, end=END, after=after, most=most
            )
        )
        assert len({key[:2] for key in page}) <= most
        assert not page.keys() & found.keys()
        found |= page
        if after is None:
            break
    assert after is None
    assert found == by_hand(rows, groups, **({"tenant_id": tenant_id} if tenant_id else {}))


@pytest.mark.parametrize("groups", [("metadata",), ("metadata", "day"), ("tenant_id", "metadata", "end_user")])
@pytest.mark.parametrize("tenant_id", [None, "acme"])
async def test_first_groups_by_metadata_are_whole_and_go_on_behind_the_mark(
    store: Store, groups: tuple[str, ...], tenant_id: str | None
) -> None:
    rows = some(200)
    await add_settlements(store, *rows)
    expected = by_hand(rows, groups, **({"tenant_id": tenant_id} if tenant_id else {}))
    order = sorted(expected)
    for after, most in ((None, 2), (None, 10**4), (order[0], 3), (order[-1], 5)):
        found = await store.read(
            lambda tx, after=after, most=most: settlements.by_pair(  # type: ignore[misc]  # the same
                tx, groups, "team", tenant_id=tenant_id, start=FIRST, end=END, after=after, most=most
            )
        )
        left = order if after is None else order[order.index(after) + 1 :]
        assert found == {key: expected[key] for key in left[:most]}


async def test_rows_are_cut_into_spans_of_so_many(store: Store) -> None:
    await add_settlements(store, *(make_settlement(id=f"v{n}/1/post", at=AT + n // 3) for n in range(30)))

    def cut(tx: Tx, start: int = 0, rows: int = 6) -> int:
        return settlements.cut(tx, start=start, end=END, rows=rows)

    assert await store.read(cut) == AT + 2
    assert await store.read(lambda tx: cut(tx, AT + 2)) == AT + 4
    assert await store.read(lambda tx: cut(tx, AT, rows=1)) == AT + 1, "those of one moment stay together"
    assert await store.read(lambda tx: cut(tx, AT + 9)) == END


@pytest.mark.parametrize(
    "change",
    ["UPDATE settlements SET charged_microusd = 0", "UPDATE settlements SET rule = 'x'", "DELETE FROM settlements"],
)
async def test_settlement_is_never_changed_nor_removed(store: Store, change: str) -> None:
    await add_settlements(store, make_settlement(metadata='{"team":"ads"}'))
    with pytest.raises(Exception, match=r"settlements are not removed|only metadata may be emptied"):
        await store.write(lambda tx: tx.run(Statement(text(change))))
    await store.write(lambda tx: tx.run(Statement(text("UPDATE settlements SET metadata = NULL"))))
