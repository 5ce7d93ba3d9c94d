"""Prices that operators set: found while they hold, kept when they do no more."""

from typing import Any

import pytest

from proxy.core.offer import PriceOverride
from proxy.store import prices
from proxy.store.base import Store
from tests.store.rows import AT


def make_override(name: str, **fields: Any) -> PriceOverride:
    row: dict[str, Any] = {
        "provider": "fal",
        "model": "seedance-2.0",
        "tier": "standard",
        "operation": "text-to-video",
        "resolution": "720p",
        "with_video": 0,
        "usd_per_second": "0.25",
        "usd_per_million_tokens": None,
        "starts": "2026-11-01",
        "source": "a contract",
        "basis": "listed",
        "created_at": AT,
    }
    return PriceOverride(**{"id": name} | row | fields)


async def add(store: Store, *overrides: PriceOverride) -> None:
    for one in overrides:
        await store.write(lambda tx, one=one: prices.insert_override(tx, one))  # type: ignore[misc]  # the default binds the loop's value


async def test_overrides_are_found_from_the_oldest_until_they_are_removed(store: Store) -> None:
    late = make_override("price_a", created_at=AT + 1, usd_per_second=None, usd_per_million_tokens="14")
    early = make_override("price_b", starts="2026-12-01")
    await add(store, late, early)
    assert await store.read(prices.live_overrides) == [early, late]
    assert await store.write(lambda tx: prices.take_override(tx, "price_a")) == late
    await store.write(lambda tx: prices.remove_override(tx, "price_a", AT + 2))
    assert await store.read(prices.live_overrides) == [early]
    assert await store.write(lambda tx: prices.take_override(tx, "price_a")) is None


async def test_two_overrides_of_one_price_start_together_only_where_one_is_removed(store: Store) -> None:
    await add(store, make_override("price_a"), make_override("price_b", with_video=1))
    with pytest.raises(Exception, match=r"(?i)unique"):
        await add(store, make_override("price_c"))
    await store.write(lambda tx: prices.remove_override(tx, "price_a", AT))
    await add(store, make_override("price_c"))
    assert {one.id for one in await store.read(prices.live_overrides)} == {"price_b", "price_c"}
