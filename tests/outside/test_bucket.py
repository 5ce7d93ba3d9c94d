"""
Films in an object store.

Tried on obstore's stores in memory and on disk, which share all code above the wire with its S3 store; the
S3 wire itself is not spoken here.
"""

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from obstore.store import LocalStore, MemoryStore

from proxy.core.errors import ConfigError
from proxy.outside.bucket import Bucket
from proxy.outside.film import NotAFilm
from proxy.outside.storage import FileMissing, StorageFailed
from tests.outside.films import make_film


@pytest.fixture
def bucket() -> Bucket:
    return Bucket(MemoryStore(), name="memory")


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def files_in(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob("*") if path.is_file())


async def test_stored_file_reads_back_with_size_and_hash(bucket: Bucket) -> None:
    content = os.urandom(12 * 1024 * 1024 + 5)
    stored = await bucket.put("v/a.mp4", pieces(content[:100], content[100:]))
    assert (stored.size_bytes, stored.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert await bucket.size("v/a.mp4") == len(content)
    got = [piece async for piece in bucket.read("v/a.mp4", 1, len(content))]
    assert b"".join(got) == content[1:]
    assert max(len(piece) for piece in got) == 1024 * 1024


async def test_failed_put_leaves_nothing(bucket: Bucket) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * 1000
        raise ConnectionError("the seller hung up")

    with pytest.raises(ConnectionError, match="hung up"):
        await bucket.put("a.mp4", broken())
    with pytest.raises(FileMissing):
        await bucket.size("a.mp4")


async def test_cancelled_put_leaves_nothing(tmp_path: Path) -> None:
    bucket = Bucket(LocalStore(tmp_path), name="disk")
    waiting = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b"x" * 6 * 1024 * 1024
        waiting.set()
        await asyncio.sleep(60)

    chunks = endless()
    task = asyncio.create_task(bucket.put("a.mp4", chunks))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await anext(chunks, None) is None
    # obstore removes its draft in a thread of its own, a moment later.
    for _ in range(100):
        await asyncio.sleep(0.01)
        if not files_in(tmp_path):
            break
    assert files_in(tmp_path) == []


async def test_missing_file_has_a_name_of_its_own(bucket: Bucket) -> None:
    with pytest.raises(FileMissing):
        await bucket.size("a")
    with pytest.raises(FileMissing):
        await bucket.measure("a")
    with pytest.raises(FileMissing):
        await anext(bucket.read("a", 0, 1))
    await bucket.delete("a")


async def test_file_shorter_than_asked_is_an_error(bucket: Bucket) -> None:
    await bucket.put("a", pieces(b"abc"))
    with pytest.raises(StorageFailed):
        _ = [piece async for piece in bucket.read("a", 0, 4)]


async def test_film_is_measured_where_it_lies(bucket: Bucket) -> None:
    await bucket.put("a.mp4", pieces(make_film(seconds=2)))
    measured = await bucket.measure("a.mp4")
    assert (measured.duration_ms, measured.width_px, measured.height_px) == (2042, 64, 48)
    await bucket.put("b.mp4", pieces(b"<html>"))
    with pytest.raises(NotAFilm):
        await bucket.measure("b.mp4")


async def test_listing_shows_every_file_with_size_and_time(bucket: Bucket) -> None:
    assert [page async for page in bucket.listing()] == []
    for number in range(1001):
        await bucket.put(f"v/{number}.mp4", pieces(b"abc"))
    pages = [page async for page in bucket.listing()]
    assert sum(len(page) for page in pages) == 1001
    assert len(pages) > 1
    file = next(file for page in pages for file in page if file.key == "v/7.mp4")
    assert file.size_bytes == 3
    assert abs(file.changed_at / 1e6 - time.time()) < 60


async def test_check_leaves_no_file(tmp_path: Path) -> None:
    await Bucket(LocalStore(tmp_path), name="disk").check()
    assert files_in(tmp_path) == []


async def test_bucket_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    store = LocalStore(root)
    root.rmdir()
    root.write_text("a file lies where the folder is due")
    with pytest.raises(ConfigError, match="the storage disk cannot be written") as caught:
        await Bucket(store, name="disk").check()
    assert "\n" not in str(caught.value)


async def test_bucket_has_no_known_limit(bucket: Bucket) -> None:
    assert await bucket.room() is None
