"""
Runs units of work on SQLite: one writer thread that commits what waits as a group, readers beside it.

The group is the throughput: an fsync costs the same for one unit as for a hundred. Each unit fails
alone, under a savepoint; an answer leaves only after COMMIT.
"""

import asyncio
import fcntl
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy.dialects import sqlite

from proxy.core.clock import Clock
from proxy.core.errors import ConfigError, Overloaded
from proxy.store.base import Tx

T = TypeVar("T")
A = TypeVar("A")
R = TypeVar("R")

GROUP_MAX = 512
"""Units committed together at the most; bounds how long one waits for the others."""

QUEUE_MAX = 4096
"""Units waiting at the most; beyond it a write is refused, so that a slow disk does not become a long queue."""

DIALECT = sqlite.dialect()

_NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "glusterfs", "lustre", "afs", "gpfs", "beegfs"}
)
_NETWORK_FUSES = tuple(
    f"fuse.{name}" for name in ("sshfs", "glusterfs", "ceph", "s3fs", "rclone", "gcsfuse", "juicefs")
)

_NO_ROOM = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_READONLY})
"""What the disk does to a unit, as opposed to what the unit did."""


class _Job:
    """A unit that waits for the writer."""

    __slots__ = ("batch", "future", "item", "unit")

    def __init__(self, future: asyncio.Future[Any], unit: Any, batch: Any, item: Any) -> None:
        self.future, self.unit, self.batch, self.item = future, unit, batch, item


_Outcome = tuple[asyncio.Future[Any], bool, Any]


class SqliteStore:
    """The embedded engine; one process serves it at a time."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._waiting: list[_Job] = []
        self._idle = asyncio.Event()
        """Set while no group is with the writer, or about to be."""
        self._idle.set()
        self._groups: queue.SimpleQueue[list[_Job] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._readers = ThreadPoolExecutor(2, thread_name_prefix="store-read")
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._now: Tx | None = None
        self._now_cursor: sqlite3.Cursor | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._now_cursor = self._connect(query_only=True).cursor()
        self._thread = threading.Thread(target=self._write_forever, name="store-write", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """Commits what waits, then lets go of the file."""
        self._closed = True
        await self._idle.wait()
        self._groups.put(None)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
        self._readers.shutdown()
        for connection in self._connections:
            connection.close()

    def _connect(self, *, query_only: bool) -> sqlite3.Connection:
        connection = connect(self._path, query_only=query_only)
        self._connections.append(connection)
        return connection

    # Reading

    async def read_now(self, unit: Callable[[Tx], T]) -> T:
        assert self._now_cursor is not None, "the store is not open"
        return self._read_with(self._now_cursor, unit)

    async def read(self, unit: Callable[[Tx], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read_aside, unit)

    def _read_aside(self, unit: Callable[[Tx], T]) -> T:
        cursor = getattr(self._local, "cursor", None)
        if cursor is None:
            cursor = self._local.cursor = self._connect(query_only=True).cursor()
        return self._read_with(cursor, unit)

    def _read_with(self, cursor: sqlite3.Cursor, unit: Callable[[Tx], T]) -> T:
        cursor.execute("BEGIN")
        try:
            return unit(Tx(cursor, DIALECT, self._clock()))
        finally:
            cursor.execute("COMMIT")

    # Writing

    async def write(self, unit: Callable[[Tx], T]) -> T:
        return await self._submit(unit, None, None)  # type: ignore[no-any-return]  # the future carries T

    async def write_grouped(self, batch: Callable[[Tx, Sequence[A]], Sequence[R]], item: A) -> R:
        return await self._submit(None, batch, item)  # type: ignore[no-any-return]  # the future carries R

    def _submit(self, unit: Any, batch: Any, item: Any) -> asyncio.Future[Any]:
        assert self._loop is not None, "the store is not open"
        if self._closed or len(self._waiting) >= QUEUE_MAX:
            raise Overloaded("The database is busy.", retry_after_s=1)
        future: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.append(_Job(future, unit, batch, item))
        if self._idle.is_set():
            self._idle.clear()
            # Whatever else this turn of the loop asks for goes into the same group.
            self._loop.call_soon(self._hand_over)
        return future

    def _hand_over(self) -> None:
        """Gives the writer all that waits; while it commits, the next group gathers."""
        group, self._waiting = self._waiting[:GROUP_MAX], self._waiting[GROUP_MAX:]
        if group:
            self._groups.put(group)
        else:
            self._idle.set()

    def _delivered(self, outcomes: list[_Outcome]) -> None:
        _deliver(outcomes)
        self._hand_over()

    def _write_forever(self) -> None:
        cursor = self._connect(query_only=False).cursor()
        while (group := self._groups.get()) is not None:
            outcomes = self._commit_group(cursor, group)
            assert self._loop is not None, "the writer runs only while the store is open"
            self._loop.call_soon_threadsafe(self._delivered, outcomes)

    def _commit_group(self, cursor: sqlite3.Cursor, group: list[_Job]) -> list[_Outcome]:
        try:
            cursor.execute("BEGIN IMMEDIATE")
            tx = Tx(cursor, DIALECT, self._clock())
            outcomes = _run_group(cursor, tx, group)
            cursor.execute("COMMIT")
        except sqlite3.Error as exc:
            # A commit that failed, a full disk, a broken file.
            if cursor.connection.in_transaction:
                cursor.execute("ROLLBACK")
            return [(job.future, False, _commit_failed(exc)) for job in group]
        return outcomes


def _commit_failed(cause: Exception) -> Overloaded:
    error = Overloaded("The database could not keep this request; nothing was bought.", retry_after_s=5)
    error.__cause__ = cause
    return error


def _deliver(outcomes: list[_Outcome]) -> None:
    for future, well, value in outcomes:
        if future.done():
            continue  # its caller went away; the unit stands all the same
        if well:
            future.set_result(value)
        else:
            # A future takes no StopIteration; were it given one, every caller behind would wait for ever.
            future.set_exception(RuntimeError(repr(value)) if isinstance(value, StopIteration) else value)


def _run_group(cursor: sqlite3.Cursor, tx: Tx, group: list[_Job]) -> list[_Outcome]:
    batches: dict[Any, list[_Job]] = {}
    outcomes: list[_Outcome] = []
    for job in group:
        if job.batch is not None:
            batches.setdefault(job.batch, []).append(job)
        else:
            outcomes.append(_run_unit(cursor, tx, job))
    for batch, jobs in batches.items():
        outcomes += _run_batch(cursor, tx, batch, jobs)
    return outcomes


def _run_unit(cursor: sqlite3.Cursor, tx: Tx, job: _Job) -> _Outcome:
    return _guarded(cursor, job.future, lambda: job.unit(tx))


def _run_batch(cursor: sqlite3.Cursor, tx: Tx, batch: Any, jobs: list[_Job]) -> list[_Outcome]:
    items = [job.item for job in jobs]
    whole = _guarded(cursor, jobs[0].future, lambda: list(zip(jobs, batch(tx, items), strict=True)))
    if whole[1]:
        return [(job.future, True, value) for job, value in whole[2]]
    if len(jobs) == 1:
        return [whole]
    return [_guarded(cursor, job.future, lambda item=job.item: batch(tx, [item])[0]) for job in jobs]  # type: ignore[misc]  # the default binds the loop's value


def _guarded(cursor: sqlite3.Cursor, future: asyncio.Future[Any], body: Callable[[], Any]) -> _Outcome:
    cursor.execute("SAVEPOINT unit")
    try:
        value = body()
    except Exception as exc:
        # Whatever a unit raises undoes it and goes to its caller.
        if not cursor.connection.in_transaction:
            raise  # the disk is full or the file is broken: SQLite rolled the whole group back
        cursor.execute("ROLLBACK TO unit")
        cursor.execute("RELEASE unit")
        no_room = isinstance(exc, sqlite3.OperationalError) and exc.sqlite_errorcode & 0xFF in _NO_ROOM
        return future, False, _commit_failed(exc) if no_room else exc
    cursor.execute("RELEASE unit")
    return future, True, value


def connect(path: Path, *, query_only: bool = False) -> sqlite3.Connection:
    """A connection with the settings that all of ours share; transactions are begun by hand."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10, cached_statements=512)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    # Without it INSERT OR REPLACE would get past the triggers that keep the ledger append-only.
    connection.execute("PRAGMA recursive_triggers=ON")
    connection.execute("PRAGMA temp_store=MEMORY")
    connection.execute("PRAGMA cache_size=-16000")
    if query_only:
        connection.execute("PRAGMA query_only=ON")
    return connection


class FileLock:
    """One serving process at a time, as long as it lives; the kernel lets go when it dies."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def take(self) -> None:
        """Raises ConfigError where another process holds it."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise ConfigError(
                f"another process serves this database already (lock {self._path}); SQLite takes one, PostgreSQL many"
            ) from None
        os.truncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        self._descriptor = descriptor

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def file_system_of(path: Path, mounts: str) -> str:
    """The type of the file system under `path`, by the text of /proc/mounts; empty where it does not say."""
    best, kind = "", ""
    for line in mounts.splitlines():
        _, point, kind_here, *_ = line.split(" ")
        point = point.replace("\\040", " ")
        inside = str(path) == point or str(path).startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, kind_here
    return kind


def refuse_network_file_system(path: Path, mounts: str) -> None:
    """Raises ConfigError where SQLite's locks and its write-ahead log cannot be relied on."""
    kind = file_system_of(path, mounts)
    if kind in _NETWORK_FILE_SYSTEMS or kind.startswith(_NETWORK_FUSES):
        raise ConfigError(f"{path} lies on a network file system ({kind}); SQLite needs a local disk")
