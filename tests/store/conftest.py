"""A real database file for each test, migrated once and copied."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.store import tenants
from proxy.store.base import Tx
from proxy.store.sqlite import SqliteStore
from proxy.store.migrations import migrate
from tests.store.rows import MovedClock, make_tenant


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database of this version; to be copied, not written."""
    path = tmp_path_factory.mktemp("migrated") / "reelay.db"
    migrate(path)
    return path


@pytest.fixture
def path(tmp_path: Path, migrated: Path) -> Path:
    return Path(shutil.copy(migrated, tmp_path / "reelay.db"))


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture
async def store(path: Path, clock: MovedClock) -> AsyncIterator[SqliteStore]:
    """Open, with two tenants: acme and other."""
    store = SqliteStore(path, clock)
    await store.open()

    def two_tenants(tx: Tx) -> None:
        for name in ("acme", "other"):
            tenants.insert_tenant(tx, make_tenant(id=name, name=name.title()))

    await store.write(two_tenants)
    yield store
    await store.close()
