"""A real database for each test, migrated once and copied."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.store import tenants
from proxy.store.base import Store, Tx
from proxy.store.postgres import PostgresStore
from proxy.store.sqlite import SqliteStore
from tests.databases import Database, file_in
from tests.store.rows import MovedClock, make_tenant


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A SQLite file at this version's schema; that of `store`, where it runs on SQLite."""
    place = tmp_path / "reelay.db"
    if not place.exists():
        file_in(tmp_path)
    return place


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture
async def store(database: Database, clock: MovedClock) -> AsyncIterator[SqliteStore | PostgresStore]:
    """On each engine; open, with two tenants: acme and other."""
    store = database.store(clock)
    await store.open()
    await with_two_tenants(store)
    yield store
    await store.close()


async def with_two_tenants(store: Store) -> None:
    def two_tenants(tx: Tx) -> None:
        for name in ("acme", "other"):
            tenants.insert_tenant(tx, make_tenant(id=name, name=name.title()))

    await store.write(two_tenants)
