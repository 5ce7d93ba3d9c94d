"""
Runs units of work on SQLite: one writer thread that commits what waits as a group, readers beside it.

Each unit fails alone, under a savepoint; an answer leaves only after COMMIT.
"""

import asyncio
import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy.dialects import sqlite

from proxy.core.clock import Clock, Flow, steady_clock, system_clock
from proxy.core.errors import ConfigError
from proxy.store.base import Tx
from proxy.store.gathering import Gatherer, Job, Outcome, commit_failed

T = TypeVar("T")
A = TypeVar("A")
R = TypeVar("R")

DIALECT = sqlite.dialect()

_NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "glusterfs", "lustre", "afs", "gpfs", "beegfs"}
)
_NETWORK_FUSES = tuple(
    f"fuse.{name}" for name in ("sshfs", "glusterfs", "ceph", "s3fs", "rclone", "gcsfuse", "juicefs")
)

LOG_KEPT_BYTES = 16 * 1024 * 1024
"""Of the write-ahead log on the disk: several times what it grows to between two foldings into the file."""

_NO_ROOM = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_READONLY})
"""What the disk does to a unit, as opposed to what the unit did."""


class SqliteStore:
    """
    The embedded engine; one process serves it at a time.

    `clock` is for tests that move the time; without one, the machine's counts.
    """

    alone = True

    def __init__(self, path: Path, clock: Clock | None = None) -> None:
        self.clock: Clock = clock or self._machine_clock
        self._flow = Flow()
        self._path = path
        self._writing = ThreadPoolExecutor(1, thread_name_prefix="store-write")
        self._reading = ThreadPoolExecutor(2, thread_name_prefix="store-read")
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._writer: Gatherer
        self._now_cursor: sqlite3.Cursor

    async def open(self) -> None:
        self._now_cursor = self._connect(query_only=True).cursor()
        cursor = self._connect(query_only=False).cursor()
        self._writer = Gatherer(self._writing, lambda group: self._commit_group(cursor, group))

    async def close(self) -> None:
        """Commits what waits, then lets go of the file."""
        await self._writer.close()
        self._writing.shutdown()
        self._reading.shutdown()
        for connection in self._connections:
            connection.close()

    @property
    def ahead_us(self) -> int:
        return self._flow.ahead_us

    def not_before(self, at_us: int) -> None:
        self._flow.not_before(at_us)

    def _machine_clock(self) -> int:
        return self._flow.at(system_clock(), steady_clock())

    def _connect(self, *, query_only: bool) -> sqlite3.Connection:
        connection = connect(self._path, query_only=query_only)
        self._connections.append(connection)
        return connection

    # Reading

    async def read_now(self, unit: Callable[[Tx], T]) -> T:
        # Beginning and ending a transaction would let go of the interpreter's lock twice more, and a busy
        # writer keeps it for milliseconds.
        return unit(Tx(self._now_cursor, DIALECT, self.clock()))

    async def read(self, unit: Callable[[Tx], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._reading, self._read_aside, unit)

    def _read_aside(self, unit: Callable[[Tx], T]) -> T:
        cursor = getattr(self._local, "cursor", None)
        if cursor is None:
            cursor = self._local.cursor = self._connect(query_only=True).cursor()
        cursor.execute("BEGIN")
        try:
            return unit(Tx(cursor, DIALECT, self.clock()))
        finally:
            cursor.execute("COMMIT")

    # Writing

    async def write(self, unit: Callable[[Tx], T]) -> T:
        return await self._writer.submit(unit=unit)  # type: ignore[no-any-return]  # the future carries T

    async def write_grouped(self, batch: Callable[[Tx, Sequence[A]], Sequence[R]], item: A) -> R:
        return await self._writer.submit(batch=batch, item=item)  # type: ignore[no-any-return]  # the future carries R

    def _commit_group(self, cursor: sqlite3.Cursor, group: list[Job]) -> list[Outcome]:
        try:
            cursor.execute("BEGIN IMMEDIATE")
            outcomes = _run_group(cursor, self.clock(), group)
            cursor.execute("COMMIT")
        except sqlite3.Error as exc:
            # A commit that failed, a full disk, a broken file.
            if cursor.connection.in_transaction:
                cursor.execute("ROLLBACK")
            return [(job.future, False, commit_failed(exc)) for job in group]
        return outcomes


def _run_group(cursor: sqlite3.Cursor, now_us: int, group: list[Job]) -> list[Outcome]:
    batches: dict[Any, list[Job]] = {}
    outcomes: list[Outcome] = []
    for job in group:
        if job.batch is not None:
            batches.setdefault(job.batch, []).append(job)
        else:
            outcomes.append(_run_unit(cursor, now_us, job))
    for batch, jobs in batches.items():
        outcomes += _run_batch(cursor, now_us, batch, jobs)
    return outcomes


def _run_unit(cursor: sqlite3.Cursor, now_us: int, job: Job) -> Outcome:
    # With a view of its own: what a unit saw and was undone is nothing to those after it.
    return _guarded(cursor, job.future, lambda: job.unit(Tx(cursor, DIALECT, now_us)))


def _run_batch(cursor: sqlite3.Cursor, now_us: int, batch: Any, jobs: list[Job]) -> list[Outcome]:
    items = [job.item for job in jobs]

    def run(items: list[Any]) -> Any:
        return batch(Tx(cursor, DIALECT, now_us), items)

    whole = _guarded(cursor, jobs[0].future, lambda: list(zip(jobs, run(items), strict=True)))
    if whole[1]:
        return [(job.future, True, value) for job, value in whole[2]]
    if len(jobs) == 1:
        return [whole]
    return [_guarded(cursor, job.future, lambda item=job.item: run([item])[0]) for job in jobs]  # type: ignore[misc]  # the default binds the loop's value


def _guarded(cursor: sqlite3.Cursor, future: asyncio.Future[Any], body: Callable[[], Any]) -> Outcome:
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
        return future, False, commit_failed(exc) if no_room else exc
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
    # Who reads one state for long makes the log grow; without it the disk would never get that room back.
    connection.execute(f"PRAGMA journal_size_limit={LOG_KEPT_BYTES}")
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
