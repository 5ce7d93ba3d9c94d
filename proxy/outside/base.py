"""What a storage of films is, and what the kinds of storage share."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import Final, ParamSpec, Protocol, TypeVar

import msgspec

from proxy.core.errors import ReelayError
from proxy.outside.film import Measured

P = ParamSpec("P")
T = TypeVar("T")

PIECE_BYTES = 1024 * 1024
PROBE_KEY = ".probe"
PAGE_FILES = 1000
"""Of a listing."""


class StorageFailed(ReelayError):
    """The storage did not take or give a file: full, unreachable, forbidden, or shorter than recorded."""

    code = "storage_error"


class FileMissing(StorageFailed):
    """There is no such file."""


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """A file that is in place."""

    size_bytes: int
    sha256: str
    """Hex."""


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """A file as a listing shows it."""

    key: str
    size_bytes: int
    changed_at: int
    """Microseconds UTC."""


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """How full a disk is, whoever uses it."""

    free_bytes: int
    """What is ours to fill."""
    used_bytes: int
    """All the rest: what is kept back for root too."""

    @property
    def used_ratio(self) -> float:
        """0 to 1; a disk without any room is full."""
        size_bytes = self.free_bytes + self.used_bytes
        return self.used_bytes / size_bytes if size_bytes else 1.0


class Disk(Protocol):
    """What can be filled up."""

    async def room(self) -> Room | None:
        """None: this kind has no limit that could be known. Raises StorageFailed."""
        ...


class Storage(Disk, Protocol):
    """
    Files by key; a key is a relative path with slashes.

    Every method but `close` may raise StorageFailed.
    """

    async def check(self) -> None:
        """Writes and deletes a probe. Raises ConfigError with one line."""
        ...

    async def put(self, key: str, chunks: AsyncIterable[bytes]) -> Stored:
        """
        Stores a whole file or nothing.

        Whatever `chunks` raises comes through; then, and when cancelled, no part of the file stays.
        """
        ...

    async def measure(self, key: str) -> Measured:
        """Raises NotAFilm where the file cannot be played, FileMissing where there is none."""
        ...

    def read(self, key: str, start: int, end: int) -> AsyncGenerator[bytes]:
        """
        The bytes from `start` up to, not including, `end`, in pieces of 1 MiB read when asked for.

        Who may stop early closes it (`contextlib.aclosing`). Raises FileMissing at the first piece.
        """
        ...

    async def delete(self, key: str) -> None:
        """A file that is not there is fine."""
        ...

    async def size(self, key: str) -> int:
        """In bytes. Raises FileMissing."""
        ...

    def listing(self) -> AsyncGenerator[list[Listed]]:
        """Every file, a page at a time; one that comes or goes meanwhile may be among them or not."""
        ...


def checked_key(key: str) -> str:
    parts = PurePosixPath(key).parts
    if not parts or key.startswith("/") or ".." in parts:
        raise StorageFailed(f"{key!r} is no key of a file")
    return key


_THREADS: Final = ThreadPoolExecutor(32, thread_name_prefix="storage")
"""Their own: a storage that hangs keeps its threads, and nobody else's."""


async def in_thread(work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """
    As `asyncio.to_thread`, but when cancelled it waits for the thread.

    Else the caller would close and delete under the thread's hands.
    """
    job = asyncio.get_running_loop().run_in_executor(_THREADS, functools.partial(work, *args, **kwargs))
    try:
        return await asyncio.shield(job)
    except asyncio.CancelledError:
        while not job.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([job])
        # Its own failure matters no more, but must not be reported as never looked at.
        job.cancelled() or job.exception()
        raise


async def once(data: bytes) -> AsyncIterator[bytes]:
    yield data
