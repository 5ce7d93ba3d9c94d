"""A database goes on only with the secret and the storage that it was used with, unless an operator says otherwise."""

import asyncio
import shutil
from collections.abc import AsyncIterable, AsyncIterator
from pathlib import Path

import pytest

from proxy.core.errors import ConfigError
from proxy.core.ids import Secrets, time_hex
from proxy.outside.base import StorageFailed, Stored, once
from proxy.outside.storage import Folder
from proxy.services.belonging import MARKER_KEY, claim_secret, claim_storage
from proxy.store.base import Store
from tests.databases import Database

OLD, NEW = "an-old-secret-of-tests", "a-new-secret-of-tests"


@pytest.fixture
async def store(database: Database) -> AsyncIterator[Store]:
    store = database.store(lambda: 1_000_000)
    await store.open()
    yield store
    await store.close()


async def secret(store: Store, *masters: str, anew: bool = False) -> None:
    await store.write(lambda tx: claim_secret(tx, Secrets(masters=masters), anew=anew))


async def storage(store: Store, folder: Path, *, anew: bool = False) -> None:
    await claim_storage(store, Folder(folder), time_hex, place=f"file:{folder}", anew=anew)


async def test_secret_is_the_databases_from_its_first_use(store: Store) -> None:
    await secret(store, OLD)
    await secret(store, OLD)
    with pytest.raises(ConfigError, match="was used with another secret"):
        await secret(store, NEW)


async def test_secret_rotates_with_the_old_one_beside_it(store: Store) -> None:
    await secret(store, OLD)
    await secret(store, NEW, OLD)
    await secret(store, NEW)
    with pytest.raises(ConfigError):
        await secret(store, OLD)


async def test_servers_may_be_given_a_new_secret_in_turn(store: Store) -> None:
    await secret(store, OLD)
    await secret(store, NEW, OLD)
    await secret(store, OLD)
    await secret(store, NEW, OLD)
    await secret(store, NEW)
    await secret(store, NEW, OLD)


async def test_lost_secret_is_given_up_by_a_word(store: Store) -> None:
    await secret(store, OLD)
    await secret(store, NEW, anew=True)
    await secret(store, NEW)


def test_fingerprint_of_a_secret_says_nothing_of_it() -> None:
    (shown,) = Secrets(masters=(OLD,)).fingerprints
    assert OLD not in shown
    assert shown != Secrets(masters=(NEW,)).fingerprints[0]


async def test_storage_that_is_not_there_is_not_taken_for_an_empty_one(store: Store, tmp_path: Path) -> None:
    await storage(store, tmp_path / "films")
    await storage(store, tmp_path / "films")
    (tmp_path / "films").rename(tmp_path / "away")
    with pytest.raises(ConfigError, match=r"is it mounted\?"):
        await storage(store, tmp_path / "films")
    shutil.copytree(tmp_path / "away", tmp_path / "copy")
    await storage(store, tmp_path / "copy")


async def test_lost_storage_is_given_up_by_a_word(store: Store, tmp_path: Path) -> None:
    await storage(store, tmp_path / "lost")
    for folder in ("empty", "of-another"):
        if folder == "of-another":
            await Folder(tmp_path / folder).put(MARKER_KEY, once(b"another"))
        with pytest.raises(ConfigError):
            await storage(store, tmp_path / folder)
        await storage(store, tmp_path / folder, anew=True)
        await storage(store, tmp_path / folder)
        with pytest.raises(ConfigError):
            await storage(store, tmp_path / "lost")


async def test_servers_that_start_together_agree_on_the_storage(store: Store, tmp_path: Path) -> None:
    await asyncio.gather(*(storage(store, tmp_path / "films") for _ in range(16)))
    await storage(store, tmp_path / "films")


class Full(Folder):
    """Takes nothing."""

    async def put(self, key: str, chunks: AsyncIterable[bytes]) -> Stored:  # noqa: ARG002 - none of it fits
        raise StorageFailed(f"no room for {key}")


async def test_start_that_broke_off_has_claimed_nothing(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no room"):
        await claim_storage(store, Full(tmp_path), time_hex, place="file:x", anew=False)
    await storage(store, tmp_path)
    (tmp_path / MARKER_KEY).unlink()
    with pytest.raises(ConfigError, match="is it mounted"):
        await storage(store, tmp_path)


async def test_two_databases_may_share_a_storage(store: Store, tmp_path: Path) -> None:
    await Folder(tmp_path).put(MARKER_KEY, once(b"of-another"))
    await storage(store, tmp_path)
    await storage(store, tmp_path)
    assert (tmp_path / MARKER_KEY).read_bytes() == b"of-another"
