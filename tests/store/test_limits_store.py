"""What is under way is counted from the videos themselves, no further than asked, and by one unit at a time."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from proxy.store import limits, tenants
from proxy.store.base import Store, Tx
from proxy.store.limits import Whose
from proxy.store.sqlite import DIALECT
from proxy.store.videos import insert_many
from tests.store.rows import add_videos, make_key, make_tenant, make_video


async def limit(store: Store, *, tenant: int | None = None, key: int | None = None) -> None:
    def unit(tx: Tx) -> None:
        tenants.save_tenant(tx, make_tenant(id="acme", name="Acme", videos_in_flight=tenant))
        row = make_key(id="key_1", videos_in_flight=key)
        if tenants.take_key(tx, "key_1") is None:
            tenants.insert_key(tx, row)
        tenants.limit_key(tx, row)

    await store.write(unit)


async def under_way(store: Store, whose: Whose, *, most: int = 99, tenant: str = "acme", key: str | None = None) -> int:
    return await store.read(lambda tx: limits.under_way(tx, whose, tenant, key, most=most))


async def test_videos_that_may_still_become_something_are_under_way(store: Store) -> None:
    await add_videos(
        store,
        make_video(id="video_1", key_id="key_1"),
        make_video(id="video_2", key_id="key_1", status="in_progress"),
        make_video(id="video_3", key_id="key_2", status="in_progress"),
        make_video(id="video_4"),
        make_video(id="video_5", key_id="key_1", status="completed"),
        make_video(id="video_6", key_id="key_1", status="failed"),
        make_video(id="video_7", tenant_id="other", key_id="key_1"),
    )
    assert await under_way(store, "tenant") == 4
    assert await under_way(store, "key", key="key_1") == 2
    assert await under_way(store, "tenant", tenant="other") == 1
    assert await under_way(store, "tenant", tenant="nobody") == 0
    assert [await under_way(store, "tenant", most=most) for most in (0, 1, 4, 5)] == [0, 1, 4, 4]


async def test_limits_are_taken_as_they_are_now(store: Store) -> None:
    await limit(store, tenant=5, key=2)
    every = ["acme", "other", "nobody", *(f"more_{number}" for number in range(70))]
    assert await store.write(lambda tx: limits.take(tx, "tenant", every)) == {("tenant", "acme"): 5}
    assert await store.write(lambda tx: limits.take(tx, "key", ["key_1", "key_2"])) == {("key", "key_1"): 2}
    await limit(store)
    assert await store.write(lambda tx: limits.take(tx, "tenant", every)) == {}
    assert await store.write(lambda tx: limits.take(tx, "tenant", [])) == {}


@pytest.mark.parametrize("whose", ["tenant", "key"])
async def test_of_two_who_count_at_once_the_second_sees_what_the_first_has_written(store: Store, whose: Whose) -> None:
    await limit(store, tenant=5, key=5)

    def unit(tx: Tx, name: str) -> int:
        limits.take(tx, whose, ["acme" if whose == "tenant" else "key_1"])
        count = limits.under_way(tx, whose, "acme", "key_1", most=99)
        insert_many(tx, [make_video(id=name, key_id="key_1")])
        return count

    counts = await asyncio.gather(*(store.write(lambda tx, n=n: unit(tx, f"video_{n}")) for n in range(20)))  # type: ignore[misc]  # the default binds the loop's value
    assert sorted(counts) == list(range(20))


@pytest.mark.parametrize(("whose", "terms"), [("tenant", "tenant_id=?"), ("key", "tenant_id=? AND key_id=?")])
def test_what_is_under_way_is_counted_without_reading_a_row(path: Path, whose: Whose, terms: str) -> None:
    sql = vars(limits)["_UNDER_WAY"][whose].text(DIALECT).sql
    with closing(sqlite3.connect(path)) as database:
        plan = [row[3] for row in database.execute(f"explain query plan {sql}", [None] * sql.count("?"))]
    assert any(step.startswith(f"SEARCH videos USING COVERING INDEX videos_in_flight ({terms}") for step in plan), plan
