"""How a database is: looked at from beside it, whoever has it open, without changing anything of it."""

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import msgspec

from proxy.core.clock import Clock
from proxy.core.errors import ConfigError

LOCK_TIMEOUT_S = 3.0
"""A server holds the lock for milliseconds."""

_WEAK = ("fsync", "full_page_writes", "synchronous_commit")
"""Settings of a server that may not be off: what it has promised to keep would be gone after a crash."""


class FileCondition(msgspec.Struct, frozen=True, kw_only=True):
    """Of a SQLite file."""

    size_bytes: int
    log_bytes: int
    """Of its write-ahead log, which is folded into it now and then."""
    journal_mode: str
    locked: str | None
    """Why nobody can write to it just now; None: it can be written."""


class ServerCondition(msgspec.Struct, frozen=True, kw_only=True):
    """Of a database on a PostgreSQL server."""

    version: str
    version_number: int
    """As 160004 for 16.4."""
    size_bytes: int
    writable: bool
    """A standby, and one that was set so, only reads."""
    weak: tuple[str, ...]
    """Settings that let a crash lose what was committed."""
    connections_left: int
    """For whoever is no superuser."""
    connections_most: int
    waiting: int
    """Connections that wait for a lock."""
    idle_s: int
    """How long the transaction stands still already that has done so longest; 0: none does."""
    ahead_us: int
    """By how much its clock is ahead of this machine's."""


def look_at_file(path: Path) -> FileCondition:
    """Takes the lock that writers take, for a moment. Raises ConfigError for a file that cannot be opened."""
    locked = None
    try:
        uri = f"{path.absolute().as_uri()}?mode=rw"
        with contextlib.closing(sqlite3.connect(uri, uri=True, isolation_level=None, timeout=LOCK_TIMEOUT_S)) as file:
            (mode,) = file.execute("PRAGMA journal_mode").fetchone()
            try:
                file.execute("BEGIN IMMEDIATE")
                file.execute("ROLLBACK")
            except sqlite3.OperationalError as exc:
                locked = str(exc)
            log = path.with_name(f"{path.name}-wal")
            return FileCondition(
                size_bytes=path.stat().st_size,
                log_bytes=log.stat().st_size if log.exists() else 0,
                journal_mode=mode,
                locked=locked,
            )
    except (OSError, sqlite3.Error) as exc:
        raise ConfigError(f"{path} cannot be opened: {exc}") from exc


_SEEN = """
SELECT current_setting('server_version'), current_setting('server_version_num')::int,
    pg_database_size(current_database()),
    NOT pg_is_in_recovery() AND current_setting('default_transaction_read_only') = 'off',
    current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
        - coalesce(current_setting('reserved_connections', true), '0')::int,
    (SELECT sum(numbackends)::int FROM pg_stat_database),
    (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'),
    (SELECT coalesce(max(extract(epoch FROM clock_timestamp() - state_change)), 0)::bigint FROM pg_stat_activity
        WHERE datname = current_database() AND state LIKE 'idle in transaction%')
"""
_CLOCK = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"


def look_at_server(url: str, clock: Clock) -> ServerCondition:
    """`clock` is this machine's. Raises ConfigError where it does not answer."""
    import psycopg  # noqa: PLC0415 - SQLite needs none of it

    from proxy.store.postgres import connect, one_line  # noqa: PLC0415

    try:
        with contextlib.closing(connect(url)) as server:
            server.execute("SET statement_timeout = '10s'")
            seen: Any = server.execute(_SEEN).fetchone()
            weak = [
                name for name in _WEAK if server.execute("SELECT current_setting(%s)", [name]).fetchone() == ("off",)
            ]
            asked_us = clock()
            (told_us,) = server.execute(_CLOCK).fetchone() or (0,)
            # Half of the round trip lies behind the answer.
            ahead_us = told_us - (asked_us + clock()) // 2
    except psycopg.Error as exc:
        raise ConfigError(f"the database cannot be opened: {one_line(exc)}") from exc
    version, number, size_bytes, writable, most, used, waiting, idle_s = seen
    return ServerCondition(
        version=version,
        version_number=number,
        size_bytes=size_bytes,
        writable=writable,
        weak=tuple(weak),
        connections_left=most - used + 1,  # this one is given back
        connections_most=most,
        waiting=waiting,
        idle_s=idle_s,
        ahead_us=ahead_us,
    )
