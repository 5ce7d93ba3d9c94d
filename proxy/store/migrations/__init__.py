"""
Brings a database to the schema of this version, and refuses one that this version cannot work on.

Where several processes share a database, those of the version before go on working while a new one migrates,
and beside it afterwards: a deployment replaces one after the other. So a revision keeps this:

- It expands first; what is contracted waits for a later release, when nobody is left who knows it. It adds tables
  that are new, columns that may be null or have a default, and indexes that are not unique. It neither renames nor
  drops, nor changes a type, nor adds a constraint or a trigger to what was there before. A column that will be
  required is added as nullable, written by a release, filled, and required by the next.
- `beside` names the oldest revision whose version may work on the schema that it leaves: HEAD of the release before
  for one that expands, its own for one that contracts, and never an older one than its predecessor does.
- On PostgreSQL it is a transaction of its own, and holds what it locks until it ends: it looks through no large
  table, and fills none, which is for the housekeeper, in portions. It gives up a lock that it does not get at once
  and is begun again, for behind one who waits for a table everybody else waits too.
- An index on a table that was there before is built by `indexes.build_index`, and stands alone in its revision.

`tests/store/test_migrations_store.py` holds every revision to what of this can be seen.
"""

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from proxy.core.errors import ConfigError
from proxy.store.base import Tx
from proxy.store.tenants import fact

HEAD = "0009"
"""The revision that this version speaks."""

FOLDER = Path(__file__).parent

BESIDE = "schema_beside"
"""The fact that names the oldest revision whose version may work on this schema; None: only the schema's own."""

PATIENCE_S = 600.0
"""How long locks are tried for that others hold; one who dumps the database holds some to the end."""
PAUSE_S = 1.0
"""Between two tries, for those who waited meanwhile."""

_VERSION = "SELECT version_num FROM alembic_version"
_BESIDE = f"SELECT value FROM facts WHERE name = '{BESIDE}'"  # noqa: S608 - a name of ours
_OUR_LOCK = 0x5EE1A7
"""Any number that is ours: PostgreSQL's advisory locks are numbers."""
_HELD_BY_OTHERS = ("55P03", "40P01")
"""Locks that were not got in time, and a deadlock."""


def revision_of(place: Path | str) -> str | None:
    """
    The revision of a SQLite file, or of the database at an address; None where it has none yet.

    Raises ConfigError for what is no database, or cannot be opened.
    """
    return _asked(place, "alembic_version", _VERSION)


def works_beside(place: Path | str) -> bool:
    """Whether a newer version, whose schema the database has, leaves this one at work. Raises ConfigError."""
    revision = revision_of(place)
    return revision is not None and revision > HEAD and _speaks(_asked(place, "facts", _BESIDE))


def is_spoken(tx: Tx) -> bool:
    """Whether this version may still work on the database; a newer one may have migrated it meanwhile."""
    beside = fact(tx, BESIDE)
    return beside is None or _speaks(beside)


def _speaks(beside: str | None) -> bool:
    return beside is not None and beside <= HEAD


def _asked(place: Path | str, table: str, query: str) -> str | None:
    row = _row_of_file(place, table, query) if isinstance(place, Path) else _row_of_server(place, table, query)
    return None if row is None else str(row[0])


def _row_of_file(path: Path, table: str, query: str) -> Any:
    try:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            known = connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", [table]).fetchone()
            return connection.execute(query).fetchone() if known else None
    except sqlite3.OperationalError as exc:
        raise ConfigError(f"{path} cannot be opened: {exc}") from exc
    except sqlite3.DatabaseError as exc:
        raise ConfigError(f"{path} is not a database: {exc}") from exc


def _row_of_server(url: str, table: str, query: str) -> Any:
    with _connected(url) as connection:
        known = connection.execute("SELECT to_regclass(%s)", [table]).fetchone()
        return connection.execute(query).fetchone() if known and known[0] else None


@contextlib.contextmanager
def _connected(url: str) -> Iterator[Any]:
    import psycopg  # noqa: PLC0415 - SQLite needs none of it

    from proxy.store.postgres import connect, one_line  # noqa: PLC0415

    try:
        with contextlib.closing(connect(url)) as connection:
            yield connection
    except psycopg.Error as exc:
        raise ConfigError(f"the database cannot be opened: {one_line(exc)}") from exc


def migrate(place: Path | str) -> None:
    """
    All migrations that are missing; whoever else migrates waits.

    On SQLite all or none; on PostgreSQL one by one, while others work. A database of a newer version that leaves
    this one at work is left as it is. Raises ConfigError for one that does not, or that cannot be migrated.
    """
    if revision_of(place) == HEAD:
        return
    last_try = time.monotonic() + PATIENCE_S
    with _alone(place):
        while not _upgraded(place, last=time.monotonic() > last_try):
            time.sleep(PAUSE_S)


@contextlib.contextmanager
def _alone(place: Path | str) -> Iterator[None]:
    """Nobody else migrates meanwhile; a file is locked as a whole where it is migrated."""
    if isinstance(place, Path):
        yield
        return
    with _connected(place) as connection:
        # Waited for inside a statement, an index that is built beside the traffic would wait for this one.
        while not connection.execute("SELECT pg_try_advisory_lock(%s)", [_OUR_LOCK]).fetchone()[0]:
            time.sleep(0.1)
        yield


def _upgraded(place: Path | str, *, last: bool) -> bool:
    """Whether it is at this version's schema, or at one beside it; not yet, where others hold what is needed."""
    found = revision_of(place)
    if found == HEAD:
        return True
    # Alembic takes a tenth of a second to import; a database that is up to date needs none of it.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415
    from alembic.util import CommandError  # noqa: PLC0415
    from sqlalchemy import exc  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.attributes["place"] = place
    name = place if isinstance(place, Path) else "the database"
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        if works_beside(place):
            return True
        raise ConfigError(f"{name} has schema {found}, which is newer than this version of Reelay ({HEAD}) knows")
    try:
        command.upgrade(config, "head")
    except CommandError:
        if revision_of(place) == found:
            raise
        return False  # a newer version was quicker
    except exc.DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) in _HELD_BY_OTHERS and not last:
            return False
        why = " ".join(str(error.orig).split())
        raise ConfigError(f"{name} cannot be brought to schema {HEAD}: {why}") from error
    return True
