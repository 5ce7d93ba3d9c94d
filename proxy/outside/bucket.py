"""Films in an object store, through obstore; tried here on its own stores in memory and on disk."""

import contextlib
import hashlib
import os
from collections.abc import AsyncGenerator, AsyncIterable, Iterator
from typing import Any

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from proxy.core.clock import SECOND_US
from proxy.core.errors import ConfigError
from proxy.outside.base import (
    PAGE_FILES,
    PIECE_BYTES,
    PROBE_KEY,
    FileMissing,
    Listed,
    Room,
    StorageFailed,
    Stored,
    checked_key,
    in_thread,
    once,
)
from proxy.outside.film import Measured, measure

_PART_BYTES = 5 * 1024 * 1024
"""The least that S3 takes as a part of an upload."""


class Bucket:
    """Files in an object store, under an obstore store that already knows bucket and prefix."""

    def __init__(self, store: Any, *, name: str) -> None:
        self._store = store
        self._name = name

    async def check(self) -> None:
        try:
            await self.put(PROBE_KEY, once(b"reelay"))
            await self.delete(PROBE_KEY)
        except StorageFailed as exc:
            raise ConfigError(f"the storage {self._name} cannot be written: {exc}") from exc

    async def put(self, key: str, chunks: AsyncIterable[bytes]) -> Stored:
        """
        As for every storage, but for what is hidden, and for a cancellation during the very last step.

        Parts of a broken upload stay until the bucket's own rule for incomplete uploads removes them.
        """
        sha256 = hashlib.sha256()
        size_bytes = 0
        # A writer of ours and not `put` with the chunks: that one would go on asking for chunks after
        # it was cancelled. Two parts fill a line and take little memory for each film.
        writer = obstore.open_writer_async(self._store, checked_key(key), buffer_size=_PART_BYTES, max_concurrency=2)
        async for chunk in chunks:
            await in_thread(sha256.update, chunk)
            size_bytes += len(chunk)
            with _bucket_errors():
                await writer.write(chunk)
        with _bucket_errors():
            await writer.close()
        return Stored(size_bytes=size_bytes, sha256=sha256.hexdigest())

    async def measure(self, key: str) -> Measured:
        return await in_thread(self._measure, checked_key(key))

    async def read(self, key: str, start: int, end: int) -> AsyncGenerator[bytes]:
        # One request for each piece: a stream left waiting by a slow reader would be cut by the store.
        while start < end:
            with _bucket_errors():
                got = await self._store.get_range_async(
                    checked_key(key), start=start, end=min(start + PIECE_BYTES, end)
                )
            piece = got.to_bytes()
            if not piece:
                raise StorageFailed(f"{key} is shorter than {end} bytes")
            start += len(piece)
            yield piece

    async def delete(self, key: str) -> None:
        with contextlib.suppress(FileMissing), _bucket_errors():
            await self._store.delete_async(checked_key(key))

    async def size(self, key: str) -> int:
        with _bucket_errors():
            return int((await self._store.head_async(checked_key(key)))["size"])

    async def listing(self) -> AsyncGenerator[list[Listed]]:
        pages = obstore.list(self._store, chunk_size=PAGE_FILES)
        while True:
            with _bucket_errors():
                found = await anext(pages, None)
            if found is None:
                return
            yield [
                Listed(
                    key=one["path"],
                    size_bytes=one["size"],
                    changed_at=int(one["last_modified"].timestamp() * SECOND_US),
                )
                for one in found
            ]

    async def room(self) -> Room | None:
        return None

    def _measure(self, key: str) -> Measured:
        with _bucket_errors():
            return measure(_BucketFile(obstore.open_reader(self._store, key)))


def open_bucket(bucket: str, prefix: str) -> Bucket:
    """Raises ConfigError for what the AWS_* variables lack."""
    try:
        return Bucket(S3Store(bucket, prefix=prefix or None), name=f"s3://{bucket}/{prefix}")
    except (BaseError, ValueError) as exc:
        raise ConfigError(f"the storage s3://{bucket} cannot be opened: {_first_line(exc)}") from exc


class _BucketFile:
    """An object as FFmpeg reads a file: obstore's reader gives buffers where bytes are wanted."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader

    def read(self, size: int, /) -> bytes:
        got: bytes = self._reader.read(size).to_bytes()
        return got

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        at: int = self._reader.seek(offset, whence)
        return at

    def tell(self) -> int:
        at: int = self._reader.tell()
        return at


@contextlib.contextmanager
def _bucket_errors() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as exc:
        raise FileMissing("there is no such file") from exc
    except (BaseError, OSError) as exc:
        raise StorageFailed(_first_line(exc)) from exc


def _first_line(exc: BaseException) -> str:
    """Of obstore's texts, which go on with the insides of its own errors."""
    return str(exc).partition("\n")[0]
