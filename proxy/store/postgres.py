"""
Runs units of work on PostgreSQL, for any number of processes at once.

Each unit is a transaction on a connection of its own thread, at READ COMMITTED: what a unit is about to
change it locks first (`videos.take`). What comes in groups is one transaction for the group. A unit that
met another process's (a deadlock, a key written meanwhile) or a connection that broke is run again.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, TypeVar

import psycopg
from psycopg import errors
from psycopg.types.numeric import Int8BinaryDumper
from sqlalchemy import Dialect
from sqlalchemy.dialects.postgresql import psycopg as dialects

from proxy.core.clock import Clock, Flow, steady_clock
from proxy.core.errors import CommitUnknown, ConfigError, Overloaded
from proxy.store.base import Tx
from proxy.store.gathering import QUEUE_MAX, Gatherer, Job, Outcome, commit_failed

T = TypeVar("T")
A = TypeVar("A")
R = TypeVar("R")

DIALECT: Dialect = dialects.dialect(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]  # SQLAlchemy leaves this one untyped

WRITERS, READERS = 8, 4
"""Connections, each with a thread, that one process uses at the most, beside one for each kind of group."""

TRIES = 5
"""Of a unit that met another process, or a connection that broke."""

CONNECT_TIMEOUT_S = 5
UNKNOWN_END = "Nobody can say whether the database kept this request; ask what became of it before asking again."

SETTLE_TIMEOUT_S = 10.0
"""How long the end of a commit is asked for whose answer was lost."""

_SETTINGS = " ".join(
    f"-c {name}={value}"
    for name, value in {
        # A process that is stopped in the middle of a transaction may not keep others from its rows.
        "idle_in_transaction_session_timeout": "15s",
        # Nor may who is kept from them keep its connection from others, and its caller waiting.
        "lock_timeout": "5s",
        "statement_timeout": "60s",
    }.items()
)

_CLOCK = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
_SERVER = "(extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint"
_MARK = f", pg_current_xact_id()::text::bigint, {_SERVER}"
_ENDED = f"""
SELECT pg_xact_status($1::text::xid8),
    {_SERVER} = $2
    AND checkpoint_time < date_trunc('second', to_timestamp($3::bigint / 1000000))
FROM pg_control_checkpoint()
"""  # noqa: S608  # nothing in it is from outside
"""
How the transaction of a mark ended, and whether that is certain: after a crash, numbers of transactions that left no
trace are given to others, and a server that has crashed begins with a checkpoint.
"""

_WRITE = "BEGIN"
_READ = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
"""One snapshot for the whole unit."""

_MET_ANOTHER = (errors.DeadlockDetected, errors.SerializationFailure, errors.UniqueViolation)
_AWAY = (psycopg.OperationalError, psycopg.InternalError, psycopg.InterfaceError)
"""
The server, its disk or the way there, not what was asked. InternalError is in it for a server that is
read only for a moment, as one is that fails over, and for a transaction that stood still for too long.
"""


class _Mark(NamedTuple):
    """By what a transaction's end can be asked for."""

    begun_us: int
    number: int
    server_us: int
    """When the server was started, which tells it from one that took its place."""


class PostgresStore:
    """
    The engine for more than one process.

    `clock` is for tests that move the time; without one, the database's counts.
    """

    alone = False

    def __init__(self, url: str, clock: Clock | None = None) -> None:
        self.clock: Clock = clock or self._database_clock
        self._url = url
        self._given_clock = clock
        self._flow = Flow()
        self._off_us: int | None = None
        """How far the database's clock is ahead of this process's steady one; None: not asked yet."""
        self._writing = ThreadPoolExecutor(WRITERS, thread_name_prefix="store-write")
        self._reading = ThreadPoolExecutor(READERS, thread_name_prefix="store-read")
        self._grouping = ThreadPoolExecutor(thread_name_prefix="store-group")
        self._local = threading.local()
        self._connections: dict[int, psycopg.Connection[Any]] = {}
        """By thread."""
        self._batches: dict[Any, Gatherer] = {}
        self._looks: Gatherer
        self._under_way = 0
        self._closed = False

    async def open(self) -> None:
        """Raises ConfigError where the server does not answer."""
        self._looks = Gatherer(self._grouping, self._read_group)
        try:
            await asyncio.get_running_loop().run_in_executor(self._reading, self._transact, _never, _READ)
        except Overloaded as exc:
            raise ConfigError(f"the database does not answer: {one_line(exc.__cause__ or exc)}") from exc

    async def close(self) -> None:
        """Commits what waits, then lets go of the server."""
        self._closed = True
        for gatherer in (*self._batches.values(), self._looks):
            await gatherer.close()
        for threads in (self._writing, self._reading, self._grouping):
            await asyncio.to_thread(threads.shutdown)
        for connection in self._connections.values():
            connection.close()

    @property
    def ahead_us(self) -> int:
        return self._flow.ahead_us

    def not_before(self, at_us: int) -> None:
        self._flow.not_before(at_us)

    def _database_clock(self) -> int:
        assert self._off_us is not None, "nobody asks before the store is open"
        steady_us = steady_clock()
        return self._flow.at(steady_us + self._off_us, steady_us)

    # Reading

    async def read_now(self, unit: Callable[[Tx], T]) -> T:
        return await self._looks.submit(unit=unit)  # type: ignore[no-any-return]  # the future carries T

    async def read(self, unit: Callable[[Tx], T]) -> T:
        return await self._in_thread(self._reading, unit, _READ)

    def _read_group(self, group: list[Job]) -> list[Outcome]:
        """All in one snapshot; should the database refuse one, each by itself."""

        def together(tx: Tx) -> list[Outcome]:
            return [_looked(job, tx) for job in group]

        try:
            return self._transact(together, _READ)
        except Overloaded as exc:
            # Asked one by one, each would try as long as this one did.
            return [(job.future, False, exc) for job in group]
        except psycopg.Error:
            return [self._outcome(job.future, job.unit, _READ) for job in group]

    # Writing

    async def write(self, unit: Callable[[Tx], T]) -> T:
        return await self._in_thread(self._writing, unit, _WRITE)

    async def write_grouped(self, batch: Callable[[Tx, Sequence[A]], Sequence[R]], item: A) -> R:
        gatherer = self._batches.get(batch)
        if gatherer is None:
            gatherer = self._batches[batch] = Gatherer(self._grouping, partial(self._write_group, batch))
        return await gatherer.submit(item=item)  # type: ignore[no-any-return]  # the future carries R

    def _write_group(self, batch: Callable[[Tx, Sequence[Any]], Sequence[Any]], group: list[Job]) -> list[Outcome]:
        items = [job.item for job in group]
        try:
            values = self._transact(lambda tx: batch(tx, items), _WRITE, alone=len(group) == 1)
        except Overloaded as exc:
            return [(job.future, False, exc) for job in group]
        except Exception as exc:  # noqa: BLE001 - whatever one item raises is that item's alone
            if len(group) == 1:
                return [(group[0].future, False, exc)]
            return [
                self._outcome(job.future, lambda tx, item=job.item: batch(tx, [item])[0], _WRITE)  # type: ignore[misc]  # the default binds the loop's value
                for job in group
            ]
        return [(job.future, True, value) for job, value in zip(group, values, strict=True)]

    def _outcome(self, future: asyncio.Future[Any], unit: Callable[[Tx], Any], begin: str) -> Outcome:
        try:
            return future, True, self._transact(unit, begin)
        except Exception as exc:  # noqa: BLE001 - whatever a unit raises goes to its caller
            return future, False, exc

    async def _in_thread(self, threads: ThreadPoolExecutor, unit: Callable[[Tx], T], begin: str) -> T:
        if self._closed or self._under_way >= QUEUE_MAX:
            raise Overloaded("The database is busy.", retry_after_s=1)
        self._under_way += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(threads, self._transact, unit, begin)
        finally:
            self._under_way -= 1

    # One transaction, in a thread

    def _transact(self, unit: Callable[[Tx], T], begin: str, *, alone: bool = True) -> T:
        """
        Raises whatever the unit raises, and Overloaded where the database could not be asked or kept nothing.

        A group that is not `alone` in meeting another process is not tried again: its items are, one by one.
        """
        last_try = time.monotonic() + SETTLE_TIMEOUT_S
        for tried in range(1, TRIES + 1):
            last = tried == TRIES or time.monotonic() > last_try
            try:
                return self._once(unit, begin)
            except _MET_ANOTHER as exc:
                if not alone or (last and isinstance(exc, errors.UniqueViolation)):
                    raise
                if last:
                    raise commit_failed(exc) from exc
            except _AWAY as exc:
                if isinstance(exc, errors.ReadOnlySqlTransaction) and begin == _READ:
                    raise  # a look that writes is a mistake of ours
                if last or not _may_pass(exc):
                    raise commit_failed(exc) from exc
            time.sleep(0.02 * tried * tried)
        raise AssertionError("the last try returns or raises")

    def _once(self, unit: Callable[[Tx], T], begin: str) -> T:
        cursor = self._cursor()
        try:
            now_us, mark = self._begin(cursor, begin)
            value = unit(Tx(cursor, DIALECT, now_us))
        except BaseException as exc:
            self._undo(cursor)
            if isinstance(exc, errors.ReadOnlySqlTransaction) and begin == _WRITE:
                # Another server may be the one that takes writes by now.
                cursor.connection.close()
            raise
        try:
            cursor.execute("COMMIT")
        except psycopg.Error as exc:
            self._undo(cursor)
            if mark is None or not self._was_kept(mark):
                raise commit_failed(exc) from exc
        return value

    def _begin(self, cursor: psycopg.RawCursor[Any], begin: str) -> tuple[int, _Mark | None]:
        """The time, and by what the transaction's end can be asked for, where there is something to keep."""
        asked_us = steady_clock()
        cursor.execute(f"{begin}; {_CLOCK}{_MARK if begin == _WRITE else ''}")
        cursor.nextset()
        now_us, *mark = cursor.fetchone()  # type: ignore[misc]  # one row, always
        # Half of the round trip lies behind the answer.
        steady_us = (asked_us + steady_clock()) // 2
        self._off_us = now_us - steady_us
        time_us = self._flow.at(now_us, steady_us) if self._given_clock is None else self._given_clock()
        return time_us, _Mark(now_us, *mark) if mark else None

    def _was_kept(self, mark: _Mark) -> bool:
        """What became of a commit whose answer was lost. Raises CommitUnknown where nobody can say."""
        last_try = time.monotonic() + SETTLE_TIMEOUT_S
        while True:
            try:
                row = self._cursor().execute(_ENDED, [str(mark.number), mark.server_us, mark.begun_us]).fetchone()
            except errors.InvalidParameterValue:
                return False  # so high a number was never given to anybody: a crash took it back
            except psycopg.Error as exc:
                if time.monotonic() > last_try:
                    raise CommitUnknown(UNKNOWN_END) from exc
                time.sleep(0.1)
                continue
            match row:
                case ("aborted", _):
                    return False
                case ("committed", True):
                    return True
                case ("in progress", True) if time.monotonic() <= last_try:
                    time.sleep(0.02)
                case _:
                    raise CommitUnknown(UNKNOWN_END)

    def _cursor(self) -> psycopg.RawCursor[Any]:
        """This thread's own; connects where there is none, or the last one broke."""
        cursor: psycopg.RawCursor[Any] | None = getattr(self._local, "cursor", None)
        if cursor is None or cursor.connection.closed:
            connection = self._connections[threading.get_ident()] = connect(self._url)
            cursor = self._local.cursor = psycopg.RawCursor(connection)
        return cursor

    def _undo(self, cursor: psycopg.RawCursor[Any]) -> None:
        try:
            cursor.execute("ROLLBACK")
        except psycopg.Error:
            # What cannot even be undone is broken; the server undoes it itself.
            cursor.connection.close()


def _never(_: Tx) -> None:
    """Nothing, which an answering database does too."""


def _looked(job: Job, tx: Tx) -> Outcome:
    try:
        return job.future, True, job.unit(tx)
    except psycopg.Error:
        raise
    except Exception as exc:  # noqa: BLE001 - whatever a look raises goes to its caller
        return job.future, False, exc


def _may_pass(exc: psycopg.Error) -> bool:
    """Whether another try may go better: a server that restarts does, a full disk or a forgotten lock does not."""
    return not isinstance(exc, errors.DiskFull | errors.OutOfMemory | errors.QueryCanceled | errors.LockNotAvailable)


def one_line(exc: BaseException) -> str:
    """An error of the driver for people; it never holds the password."""
    return " ".join(str(exc).split())


def connect(url: str) -> psycopg.Connection[Any]:
    """A connection with the settings that all of ours share; transactions are begun by hand."""
    connection = psycopg.connect(
        url,
        autocommit=True,
        prepare_threshold=2,
        connect_timeout=CONNECT_TIMEOUT_S,
        application_name="reelay",
        options=_SETTINGS,
        keepalives_idle=30,
        keepalives_interval=10,
        keepalives_count=3,
        # For what was sent to a host that is gone: keepalives do not look after that.
        tcp_user_timeout=20_000,
    )
    connection.prepared_max = 1000
    # Else a small number and a large one would be two statements to prepare.
    connection.adapters.register_dumper(int, Int8BinaryDumper)
    return connection
