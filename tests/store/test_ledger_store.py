"""The books: every transaction sums to zero, and none is written twice."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.store import ledger, videos
from proxy.store.base import Store, Tx
from proxy.store.ledger import Entry, Postings
from tests.databases import BROKEN
from tests.store.rows import AT, add_videos, make_entry, make_video

MONEY = st.integers(0, 10**12)


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


# Postings


@given(MONEY, MONEY, MONEY)
def test_every_kind_of_postings_sums_to_zero(charge: int, seller: int, overrun: int) -> None:
    for postings in (
        ledger.hold_postings("acme", charge),
        ledger.void_postings("acme", charge),
        ledger.absorb_postings("absorbed:double", "p", seller),
        ledger.refund_postings("acme", charge),
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
