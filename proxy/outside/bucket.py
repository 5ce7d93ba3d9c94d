"""Films in an object store that speaks S3, through obstore."""

import asyncio
import configparser
import contextlib
import hashlib
import os
import re
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Self

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
from proxy.outside.film import Measured, NotAFilm, measure

_PART_BYTES = 5 * 1024 * 1024
"""The least that S3 takes as a part of an upload."""

_TIMEOUT = timedelta(seconds=30)
"""Of one request; and after so long it is not sent again: a store that has fallen silent has failed after a minute."""
_RETRIES_MAX = 5
"""Of a request, within some three seconds; whoever asks for a film waits for them, and a delivery is tried again."""
_TAKE_BACK_S = 10.0
_CREDENTIALS_LIVE = timedelta(minutes=5)
"""How long a file of credentials is believed before it is read anew."""


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
        As for every storage, but for a process that dies, and for a store that is away when it is to forget.

        Then parts stay which no listing shows, until the bucket's own rule for incomplete uploads removes them.
        """
        feed = _Feed(chunks)
        # Two parts fill a line and take little memory for each film.
        sending = obstore.put_async(
            self._store, checked_key(key), feed, chunk_size=_PART_BYTES, max_concurrency=2, use_multipart=True
        )
        upload = asyncio.ensure_future(sending)
        try:
            with _bucket_errors(but=feed):
                # Cancelled itself, it would forget its parts where they are.
                await asyncio.shield(upload)
        except asyncio.CancelledError:
            feed.end()
            await self._take_back(key, upload)
            raise
        return Stored(size_bytes=feed.size_bytes, sha256=feed.sha256.hexdigest())

    async def _take_back(self, key: str, upload: "asyncio.Future[Any]") -> None:
        """Waits until an upload whose feed has ended took back its parts; one that was through already is deleted."""
        await asyncio.wait([upload], timeout=_TAKE_BACK_S)
        if not upload.done():
            upload.add_done_callback(_looked_at)
        elif not _looked_at(upload):
            with contextlib.suppress(StorageFailed):
                await self.delete(key)

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
            file = _BucketFile(self._store, key)
        try:
            return measure(file)
        except NotAFilm:
            # FFmpeg may take a piece that did not come for the file's end.
            if file.failure is not None:
                raise file.failure from None
            raise


def open_bucket(bucket: str, prefix: str, env: Mapping[str, str]) -> Bucket:
    """
    Beside what obstore itself reads of AWS_*: a file of credentials, and the endpoint by plain HTTP if it says so.

    Raises ConfigError for what these variables lack.
    """
    name = f"s3://{bucket}/{prefix}"
    credentials = _credentials_file(env)
    try:
        store = S3Store(
            bucket,
            prefix=prefix or None,
            client_options={"allow_http": True, "timeout": _TIMEOUT},
            retry_config={"max_retries": _RETRIES_MAX, "retry_timeout": _TIMEOUT},
            credential_provider=credentials,
        )
        if credentials is not None:
            credentials()
    except (BaseError, ValueError, OSError, configparser.Error, KeyError) as exc:
        raise ConfigError(f"the storage {name} cannot be opened: {_first_line(exc)}") from exc
    return Bucket(store, name=name)


def _credentials_file(env: Mapping[str, str]) -> Callable[[], Any] | None:
    """
    What reads AWS_SHARED_CREDENTIALS_FILE, the part that AWS_PROFILE names, each time that obstore wants to know.

    None: the keys stand in variables, or are given by the machine. The file in a home is not looked at.
    """
    path = env.get("AWS_SHARED_CREDENTIALS_FILE")
    if env.get("AWS_ACCESS_KEY_ID") or not path:
        return None
    profile = env.get("AWS_PROFILE") or "default"

    def read() -> Any:
        file = configparser.RawConfigParser()
        with open(path, encoding="utf-8") as text:  # noqa: PTH123  # as the operator wrote it
            file.read_file(text)
        if profile not in file or not {"aws_access_key_id", "aws_secret_access_key"} <= file[profile].keys():
            raise ValueError(f"{path} has no [{profile}] with aws_access_key_id and aws_secret_access_key")
        return {
            "access_key_id": file[profile]["aws_access_key_id"],
            "secret_access_key": file[profile]["aws_secret_access_key"],
            "token": file[profile].get("aws_session_token"),
            "expires_at": datetime.now(UTC) + _CREDENTIALS_LIVE,
        }

    return read


class _Feed:
    """The chunks of one upload as obstore asks for them, counted on the way, until it is told to stop."""

    def __init__(self, chunks: AsyncIterable[bytes]) -> None:
        self._chunks = aiter(chunks)
        self._asked: asyncio.Task[bytes] | None = None
        self._ended = False
        self.failure: BaseException | None = None
        """What the chunks themselves raised."""
        self.sha256 = hashlib.sha256()
        self.size_bytes = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._ended:
            raise asyncio.CancelledError
        self._asked = asyncio.ensure_future(self._next())
        try:
            return await self._asked
        except StopAsyncIteration:
            raise
        except BaseException as exc:
            self.failure = exc
            raise

    def end(self) -> None:
        """An upload that asks for more fails, and takes back what it has sent."""
        self._ended = True
        if self._asked is not None:
            self._asked.cancel()

    async def _next(self) -> bytes:
        chunk = await anext(self._chunks)
        await in_thread(self.sha256.update, chunk)
        self.size_bytes += len(chunk)
        return chunk


def _looked_at(upload: "asyncio.Future[Any]") -> bool:
    """Whether it has failed; asyncio reports a failure that nobody looked at."""
    return upload.cancelled() or upload.exception() is not None


class _BucketFile:
    """
    An object as FFmpeg reads a file, a piece in memory at a time; all methods block.

    obstore's own reader panics where it is asked once more after a failure, as FFmpeg does.
    """

    def __init__(self, store: Any, key: str) -> None:
        self._store = store
        self._key = key
        self._size_bytes = int(store.head(key)["size"])
        self._at = 0
        self._piece = b""
        self._piece_at = 0
        self.failure: StorageFailed | None = None
        """Raised again by every further read."""

    def read(self, size: int, /) -> bytes:
        size = min(size, self._size_bytes - self._at)
        if size <= 0:
            return b""
        if not self._piece_at <= self._at < self._piece_at + len(self._piece):
            self._fetch()
        start = self._at - self._piece_at
        got = self._piece[start : start + size]
        self._at += len(got)
        return got

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size_bytes}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def _fetch(self) -> None:
        if self.failure is not None:
            raise self.failure
        try:
            with _bucket_errors():
                end = min(self._at + PIECE_BYTES, self._size_bytes)
                self._piece = bytes(self._store.get_range(self._key, start=self._at, end=end))
        except StorageFailed as exc:
            self.failure = exc
            raise
        self._piece_at = self._at


@contextlib.contextmanager
def _bucket_errors(but: _Feed | None = None) -> Iterator[None]:
    """What obstore says, in our words; what the chunks of `but` raised comes through."""
    try:
        yield
    except (BaseError, OSError) as exc:
        if but is not None and exc is but.failure:
            raise
        if isinstance(exc, FileNotFoundError) and "<Code>NoSuchBucket</Code>" not in str(exc):
            raise FileMissing("there is no such file") from exc
        raise StorageFailed(_first_line(exc)) from exc


def _first_line(exc: BaseException) -> str:
    """
    Of obstore's texts, which go on with the insides of its own errors, and the store's code for what is wrong.

    The rest of what a store answers is left out: it may name keys and what was signed with them.
    """
    first, code = str(exc).partition("\n")[0].partition(": <")[0], re.search(r"<Code>(\w+)</Code>", str(exc))
    return first if code is None else f"{first}: {code[1]}"
