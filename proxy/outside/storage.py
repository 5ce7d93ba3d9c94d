"""
Where our copies of the films lie: a local folder, or a bucket of an object store.

A folder is written by the operating system's own calls and not through obstore, which does not wait
for the disk: after a power cut the ledger would have sold a film that is empty.
"""

import contextlib
import hashlib
import itertools
import os
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterator
from pathlib import Path
from typing import ParamSpec, TypeVar

from proxy.core.errors import ConfigError
from proxy.outside.base import (
    PAGE_FILES,
    PIECE_BYTES,
    PROBE_KEY,
    FileMissing,
    Listed,
    Room,
    Storage,
    StorageFailed,
    Stored,
    checked_key,
    in_thread,
    once,
)
from proxy.outside.disk import LocalDisk
from proxy.outside.film import Measured, NotAFilm, measure

__all__ = [
    "FileMissing",
    "Folder",
    "Measured",
    "NotAFilm",
    "Storage",
    "StorageFailed",
    "Stored",
    "open_storage",
    "probe",
]

P = ParamSpec("P")
T = TypeVar("T")

STALE_DRAFT_S = 24 * 3600
_DRAFTS = ".drafts"


def open_storage(url: str) -> Storage:
    """
    From REELAY_STORAGE_URL: `file:PATH`, relative or absolute, made if missing, or `s3://BUCKET/PREFIX`.

    A bucket is reached as the usual variables say: AWS_REGION; AWS_ENDPOINT_URL of a store that is not
    Amazon's, where the bucket is the first part of the path, or with AWS_VIRTUAL_HOSTED_STYLE_REQUEST=true
    a part of that address's host; AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN), or
    AWS_SHARED_CREDENTIALS_FILE and AWS_PROFILE, or what the machine or container is given. Raises ConfigError.
    """
    scheme, _, rest = url.partition(":")
    if scheme == "file" and rest.startswith("///"):
        rest = rest[2:]
    if scheme == "file" and rest and not rest.startswith("//"):
        return Folder(Path(rest))
    if scheme == "s3" and rest.startswith("//") and rest.strip("/"):
        # A folder needs nothing of obstore.
        from proxy.outside.bucket import open_bucket  # noqa: PLC0415

        bucket, _, prefix = rest.strip("/").partition("/")
        return open_bucket(bucket, prefix, os.environ)
    raise ConfigError(f"the storage {url!r} is neither file:PATH nor s3://BUCKET/PREFIX")


async def probe(storage: Storage, nonce: str) -> None:
    """Writes, reads and deletes a file of its own. Raises StorageFailed where something else comes back."""
    key, data = f"{PROBE_KEY}-{nonce}", nonce.encode()
    await storage.put(key, once(data))
    try:
        pieces = [piece async for piece in storage.read(key, 0, len(data))]
    finally:
        await storage.delete(key)
    if b"".join(pieces) != data:
        raise StorageFailed("what was read is not what was written")


class Folder:
    """Files on a local disk, or on one that is mounted like one."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._disk = LocalDisk(self.root)
        self._found = False
        """Whether anything was put here: from then on a folder that is not there is not made."""

    async def check(self) -> None:
        try:
            await self.put(PROBE_KEY, once(b"reelay"))
            await self.delete(PROBE_KEY)
            await in_thread(self._sweep)
        except (StorageFailed, OSError) as exc:
            raise ConfigError(f"the storage folder {self.root} cannot be written: {_strerror(exc)}") from exc

    async def put(self, key: str, chunks: AsyncIterable[bytes]) -> Stored:
        draft = _Draft(self._path(key), self.root / _DRAFTS)
        try:
            if not self._found:
                await _door(draft.make_folder)
            # Where another disk was mounted, what is written now would lie hidden once it is back.
            await _door(draft.open)
            self._found = True
            async for chunk in chunks:
                await _door(draft.write, chunk)
            return await _door(draft.place)
        except BaseException:
            # In this thread, for a cancelled task may not get to wait again.
            draft.discard()
            raise

    async def measure(self, key: str) -> Measured:
        return await _door(measure, str(self._path(key)))

    async def read(self, key: str, start: int, end: int) -> AsyncGenerator[bytes]:
        file = _OpenFile(self._path(key))
        try:
            while start < end:
                piece = await _door(file.read, min(PIECE_BYTES, end - start), start)
                if not piece:
                    raise StorageFailed(f"{key} is shorter than {end} bytes")
                start += len(piece)
                yield piece
        finally:
            file.close()

    async def delete(self, key: str) -> None:
        await _door(self._unlink, self._path(key))

    async def size(self, key: str) -> int:
        return (await _door(os.stat, self._path(key))).st_size

    async def listing(self) -> AsyncGenerator[list[Listed]]:
        files = self._files()
        while page := await _door(_page, files):
            yield page

    async def room(self) -> Room | None:
        return await self._disk.room()

    def _path(self, key: str) -> Path:
        return self.root / checked_key(key)

    def _unlink(self, path: Path) -> None:
        try:
            path.unlink()
        except FileNotFoundError:
            if self._found and not (self.root / _DRAFTS).is_dir():
                raise  # it is not the file that is gone

    def _files(self) -> Iterator[Listed]:
        for folder, folders, names in os.walk(self.root):
            if _DRAFTS in folders:
                folders.remove(_DRAFTS)
            for name in names:
                path = Path(folder, name)
                with contextlib.suppress(FileNotFoundError):
                    found = path.stat()
                    key = path.relative_to(self.root).as_posix()
                    yield Listed(key=key, size_bytes=found.st_size, changed_at=found.st_mtime_ns // 1000)

    def _sweep(self) -> None:
        """Removes what a process that was killed left half written; a younger draft may be another's at work."""
        oldest = time.time() - STALE_DRAFT_S
        for draft in (self.root / _DRAFTS).iterdir():
            with contextlib.suppress(FileNotFoundError):
                if draft.stat().st_mtime < oldest:
                    draft.unlink()


class _Draft:
    """A file being written beside its place, on the same disk; all methods block."""

    def __init__(self, target: Path, folder: Path) -> None:
        self._target = target
        self._path = folder / uuid.uuid4().hex
        self._descriptor: int | None = None
        self._placed = False
        self._hash = hashlib.sha256()
        self._size_bytes = 0

    def make_folder(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)

    def open(self) -> None:
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)

    def write(self, chunk: bytes) -> None:
        assert self._descriptor is not None
        self._hash.update(chunk)
        self._size_bytes += len(chunk)
        rest = memoryview(chunk)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]

    def place(self) -> Stored:
        """To the disk first and then to its name, so that the name never stands for less than the file."""
        assert self._descriptor is not None
        os.fsync(self._descriptor)
        self._close()
        self._target.parent.mkdir(parents=True, exist_ok=True)
        self._path.replace(self._target)
        self._placed = True
        _fsync_folder(self._target.parent)
        return Stored(size_bytes=self._size_bytes, sha256=self._hash.hexdigest())

    def discard(self) -> None:
        """Raises nothing, so that what went wrong before is what is told; a draft that stays is swept by `check`."""
        with contextlib.suppress(OSError):
            self._close()
            _unlink(self._target if self._placed else self._path)

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class _OpenFile:
    """A file opened by its first read, so that a cancelled opening still leaves something to close."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def read(self, size_bytes: int, at: int) -> bytes:
        if self._descriptor is None:
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        return os.pread(self._descriptor, size_bytes, at)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


async def _door(work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Blocking work on the folder in a thread; what the system says is translated here."""
    try:
        return await in_thread(work, *args, **kwargs)
    except FileNotFoundError as exc:
        raise FileMissing("there is no such file") from exc
    except OSError as exc:
        raise StorageFailed(_strerror(exc)) from exc


def _page(files: Iterator[Listed]) -> list[Listed]:
    return list(itertools.islice(files, PAGE_FILES))


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _strerror(exc: BaseException) -> str:
    code = exc.errno if isinstance(exc, OSError) else None
    return str(exc) if code is None else os.strerror(code)
