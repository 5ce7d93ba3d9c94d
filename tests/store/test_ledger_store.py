"""The books: every transaction sums to zero, none is written twice, and reports add up to them."""

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import update

from proxy.store import ledger, tenants, videos
from proxy.store.base import Statement, Store, Tx
from proxy.store.ledger import Entry, Postings, SpendRow
from proxy.store.tables import end_users
from tests.databases import BROKEN
from tests.store.rows import AT, DAY_US, add_attempts, add_videos, make_attempt, make_entry, make_video

MONEY = st.integers(0, 10**12)
GROUPINGS = [
    groups for width in range(len(ledger.GROUPS) + 1) for groups in itertools.combinations(ledger.GROUPS, width)
]


async def write(store: Store, *entries: tuple[Entry, Postings]) -> None:
    await store.write(lambda tx: ledger.write_many(tx, entries))


def charged(charge: int, seller: int, *, overrun: int = 0, **fields: Any) -> tuple[Entry, Postings]:
    entry = make_entry(**fields)
    postings = ledger.charge_postings(
        entry.tenant_id,
        entry.provider or "",
        charge_microusd=charge,
        seller_microusd=seller,
        overrun_microusd=overrun,
    )
    return entry, postings


def absorbed(reason: str, cost: int, **fields: Any) -> tuple[Entry, Postings]:
    entry = make_entry(**{"kind": "absorb"} | fields)
    return entry, ledger.absorb_postings(reason, entry.provider or "", cost)


async def spend(
    store: Store, *groups: str, tenant_id: str | None = None, start: int = 0, end: int = AT + 100 * DAY_US
) -> list[SpendRow]:
    return await store.read(lambda tx: ledger.spend(tx, groups, tenant_id=tenant_id, start=start, end=end))


# Postings


@given(MONEY, MONEY, MONEY)
def test_every_kind_of_postings_sums_to_zero(charge: int, seller: int, overrun: int) -> None:
    for postings in (
        ledger.hold_postings("acme", charge),
        ledger.void_postings("acme", charge),
        ledger.absorb_postings("absorbed:double", "p", seller),
        ledger.charge_postings("acme", "p", charge_microusd=charge, seller_microusd=seller, overrun_microusd=overrun),
    ):
        assert sum(postings.values()) == 0


@given(MONEY)
def test_hold_and_its_end_cancel_out(hold: int) -> None:
    held, void = ledger.hold_postings("acme", hold), ledger.void_postings("acme", hold)
    assert {account: held[account] + void[account] for account in held} == dict.fromkeys(void, 0)


def test_charge_shows_what_the_tenant_pays_and_who_gets_it() -> None:
    _, postings = charged(1_150_000, 1_000_000)
    assert postings == {
        "tenant:acme:spend": 1_150_000,
        "provider:p:payable": -1_000_000,
        "absorbed:overrun": 0,
        "tenant:acme:markup": -150_000,
    }


async def test_transaction_that_does_not_sum_to_zero_is_refused_with_all_beside_it(store: Store) -> None:
    crooked = (make_entry(video_id="video_2"), {"tenant:acme:spend": 5, "provider:p:payable": -4})
    with pytest.raises(ValueError, match="video_2/1/post does not sum to zero"):
        await write(store, charged(5, 5), crooked)
    assert await store.read(ledger.balances) == {}


async def test_transaction_is_written_once(store: Store) -> None:
    await write(store, charged(5, 5))
    for again in (charged(5, 5), charged(7, 7, at=AT + 1)):
        with pytest.raises(BROKEN):
            await write(store, again)
    assert await store.read(ledger.balances) == {"provider:p:payable": -5, "tenant:acme:spend": 5}


async def test_repeat_keeps_nothing_of_what_comes_with_it(store: Store) -> None:
    await write(store, charged(5, 5))
    with pytest.raises(BROKEN):
        await write(store, charged(9, 9, video_id="video_2"), charged(5, 5))
    assert await store.read(ledger.balances) == {"provider:p:payable": -5, "tenant:acme:spend": 5}


def test_name_of_a_transaction_says_what_it_is_for() -> None:
    assert ledger.entry_id("video_1", 0, "hold") == "video_1/0/hold"


# Balances


async def test_held_accounts_equal_what_the_videos_say(store: Store) -> None:
    holds = [("a", "acme", 5), ("b", "acme", 7), ("c", "other", 11)]
    await add_videos(
        store, *(make_video(id=f"video_{name}", tenant_id=who, hold_microusd=amount) for name, who, amount in holds)
    )
    for name, who, amount in holds:
        entry = make_entry(video_id=f"video_{name}", tenant_id=who, kind="hold", attempt_no=0, provider=None)
        await write(store, (entry, ledger.hold_postings(who, amount)))
    assert await held(store) == await store.read(ledger.held_by_videos) == {"acme": 12, "other": 11}

    void = make_entry(video_id="video_a", kind="void", attempt_no=0, provider=None)
    post, postings = charged(6, 6, video_id="video_b")

    def end(tx: Tx) -> None:
        ledger.write_many(tx, [(void, ledger.void_postings("acme", 5))])
        videos.settle(tx, "video_a", "void", 0)
        ledger.write_many(tx, [(post, {**postings, **ledger.void_postings("acme", 7)})])
        videos.settle(tx, "video_b", "posted", 6)

    await store.write(end)
    assert await held(store) == await store.read(ledger.held_by_videos) == {"acme": 0, "other": 11}
    balances = await store.read(ledger.balances)
    assert sum(balances.values()) == 0
    assert balances["credits:acme"] == 0
    assert list(balances) == sorted(balances)


async def held(store: Store) -> dict[str, int]:
    """What the books say is held."""
    balances = await store.read(ledger.balances)
    return {name.split(":")[1]: amount for name, amount in balances.items() if name.endswith(":held")}


async def test_tenant_without_videos_holds_nothing(store: Store) -> None:
    assert await store.read(ledger.held_by_videos) == {"acme": 0, "other": 0}
    assert await store.read(ledger.balances) == {}


# Spend


@pytest.fixture
async def month(store: Store) -> Store:
    """Two tenants, three people, two sellers, two models, three days; a double and an overrun absorbed."""

    def people(tx: Tx) -> None:
        tenants.insert_end_user(tx, "acme", "ann", "eu_1")
        tenants.insert_end_user(tx, "acme", "bob", "eu_2")
        tenants.insert_end_user(tx, "other", "ann", "eu_3")

    await store.write(people)
    hold = make_entry(kind="hold", attempt_no=0, provider=None)
    await write(
        store,
        (hold, ledger.hold_postings("acme", 1000)),
        charged(115, 100, video_id="video_1", end_user="eu_1"),
        charged(23, 20, video_id="video_1", attempt_no=2, kind="bill", provider="q", end_user="eu_1"),
        charged(50, 60, video_id="video_2", end_user="eu_2", overrun=10, at=AT + DAY_US),
        charged(7, 7, video_id="video_3", provider="q", model="seedance-lite", at=AT + DAY_US),
        absorbed(
            "absorbed:double", 40, video_id="video_2", attempt_no=2, provider="q", end_user="eu_2", at=AT + DAY_US
        ),
        charged(3, 2, video_id="video_4", tenant_id="other", end_user="eu_3", at=AT + 2 * DAY_US),
    )
    return store


def sums(rows: Sequence[SpendRow]) -> tuple[int, ...]:
    return tuple(
        sum(getattr(row, name) for row in rows)
        for name in ("videos", "charged_microusd", "seller_microusd", "markup_microusd", "absorbed_microusd")
    )


async def test_spend_of_all_is_what_the_books_say(month: Store) -> None:
    (row,) = await spend(month)
    assert row == SpendRow(
        keys={},
        videos=4,
        charged_microusd=115 + 23 + 50 + 7 + 3,
        seller_microusd=100 + 20 + 60 + 7 + 40 + 2,
        assumed_microusd=100 + 20 + 60 + 7 + 40 + 2,
        markup_microusd=15 + 3 + 1,
        absorbed_microusd=10 + 40,
    )
    assert row.charged_microusd + row.absorbed_microusd == row.seller_microusd + row.markup_microusd


@pytest.mark.parametrize("groups", GROUPINGS, ids=",".join)
async def test_groups_of_every_kind_add_up_to_the_whole(month: Store, groups: tuple[str, ...]) -> None:
    rows = await spend(month, *groups)
    assert {tuple(row.keys) for row in rows} == {groups}
    assert len({tuple(row.keys.values()) for row in rows}) == len(rows), "a group is told once"
    whole = sums(await spend(month))
    videos_of_groups, *money = sums(rows)
    assert tuple(money) == whole[1:]
    assert videos_of_groups == whole[0], "a video is charged in one group"
    for row in rows:
        assert row.charged_microusd + row.absorbed_microusd == row.seller_microusd + row.markup_microusd


async def test_spend_is_told_by_tenant_person_seller_model_and_day(month: Store) -> None:
    async def charges(group: str, **where: Any) -> dict[str | None, int]:
        return {row.keys[group]: row.charged_microusd for row in await spend(month, group, **where)}

    day = AT // DAY_US
    assert await charges("tenant") == {"acme": 195, "other": 3}
    assert await charges("end_user", tenant_id="acme") == {"ann": 138, "bob": 50, None: 7}
    assert await charges("end_user", tenant_id="other") == {"ann": 3}
    assert await charges("provider") == {"p": 168, "q": 30}
    assert await charges("model") == {"seedance-2.0": 191, "seedance-lite": 7}
    assert await charges("day") == {str(day): 138, str(day + 1): 57, str(day + 2): 3}


async def test_span_takes_its_start_and_leaves_its_end(month: Store) -> None:
    (row,) = await spend(month, start=AT, end=AT + DAY_US)
    assert row.charged_microusd == 138
    (row,) = await spend(month, start=AT + 1, end=AT + DAY_US + 1)
    assert row.charged_microusd == 57
    assert await spend(month, "tenant", start=0, end=AT) == []
    (empty,) = await spend(month, start=0, end=AT)
    assert sums([empty]) == (0, 0, 0, 0, 0)


async def test_erased_person_leaves_the_money_without_a_name(month: Store) -> None:
    erase = Statement(update(end_users).where(end_users.c.surrogate.in_(["eu_1"])).values(name=None))
    await month.write(lambda tx: tx.run(erase))
    rows = await spend(month, "end_user", tenant_id="acme")
    assert {row.keys["end_user"]: row.charged_microusd for row in rows} == {"bob": 50, None: 145}


# Costs that nobody knows


async def test_unknown_costs_are_counted_by_every_grouping(store: Store) -> None:
    await store.write(lambda tx: tenants.insert_end_user(tx, "acme", "ann", "eu_1"))
    await add_videos(
        store, make_video(end_user="eu_1"), make_video(id="video_2", tenant_id="other", model="seedance-lite")
    )
    attempts = [
        make_attempt(state="failed", ended_at=AT),
        make_attempt(number=2, state="failed", ended_at=AT + DAY_US, provider="q"),
        make_attempt(number=3, state="failed", ended_at=AT, cost_microusd=0),
        make_attempt(number=4, state="running"),
        make_attempt(video_id="video_2", state="failed", ended_at=AT),
    ]
    await add_attempts(store, *attempts)

    async def unknown(*groups: str, tenant_id: str | None = None, end: int = AT + 2 * DAY_US) -> dict[Any, int]:
        return await store.read(lambda tx: ledger.unknown_costs(tx, groups, tenant_id=tenant_id, start=AT, end=end))

    day = AT // DAY_US
    assert await unknown() == {(): 3}
    assert await unknown("tenant") == {("acme",): 2, ("other",): 1}
    assert await unknown("end_user") == {("ann",): 2, (None,): 1}
    assert await unknown("provider", "model") == {
        ("p", "seedance-2.0"): 1,
        ("q", "seedance-2.0"): 1,
        ("p", "seedance-lite"): 1,
    }
    assert await unknown("day", tenant_id="acme") == {(str(day),): 1, (str(day + 1),): 1}
    assert await unknown("tenant", end=AT) == {}
    for groups in GROUPINGS:
        found = await unknown(*groups)
        assert sum(found.values()) == 3
        assert {len(key) for key in found} == {len(groups)}
