"""Brings a database to the schema of this version, and refuses one from a newer version."""

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

from proxy.core.errors import ConfigError

HEAD = "0008"
"""The revision that this version speaks."""

FOLDER = Path(__file__).parent

_VERSION = "SELECT version_num FROM alembic_version"


def revision_of(place: Path | str) -> str | None:
    """
    The revision of a SQLite file, or of the database at an address; None where it has none yet.

    Raises ConfigError for what is no database, or cannot be opened.
    """
    row = _row_of_file(place) if isinstance(place, Path) else _row_of_server(place)
    return None if row is None else str(row[0])


def _row_of_file(path: Path) -> Any:
    try:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            known = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
            return connection.execute(_VERSION).fetchone() if known else None
    except sqlite3.OperationalError as exc:
        raise ConfigError(f"{path} cannot be opened: {exc}") from exc
    except sqlite3.DatabaseError as exc:
        raise ConfigError(f"{path} is not a database: {exc}") from exc


def _row_of_server(url: str) -> Any:
    import psycopg  # noqa: PLC0415 - SQLite needs none of it

    from proxy.store.postgres import connect, one_line  # noqa: PLC0415

    try:
        with contextlib.closing(connect(url)) as connection:
            known = connection.execute("SELECT to_regclass('alembic_version')").fetchone()
            return connection.execute(_VERSION).fetchone() if known and known[0] else None
    except psycopg.Error as exc:
        raise ConfigError(f"the database cannot be opened: {one_line(exc)}") from exc


def migrate(place: Path | str) -> None:
    """
    All migrations that are missing, in one transaction; whoever else migrates waits.

    Raises ConfigError for a database that a newer version has written, or that cannot be migrated.
    """
    found = revision_of(place)
    if found == HEAD:
        return
    # Alembic takes a tenth of a second to import; a database that is up to date needs none of it.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415
    from sqlalchemy import exc  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.attributes["place"] = place
    name = place if isinstance(place, Path) else "the database"
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise ConfigError(f"{name} has schema {found}, which is newer than this version of Reelay ({HEAD}) knows")
    try:
        command.upgrade(config, "head")
    except exc.DBAPIError as error:
        why = " ".join(str(error.orig).split())
        raise ConfigError(f"{name} cannot be brought to schema {HEAD}: {why}") from error
