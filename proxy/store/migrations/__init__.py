"""Brings a database to the schema of this version, and refuses one from a newer version."""

import contextlib
import sqlite3
from pathlib import Path

from proxy.core.errors import ConfigError

HEAD = "0002"
"""The revision that this version speaks."""

FOLDER = Path(__file__).parent


def revision_of(path: Path) -> str | None:
    """
    The revision of a SQLite database; None where it has none yet.

    Raises ConfigError for what is no database, or cannot be opened.
    """
    try:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            known = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone() if known else None
    except sqlite3.OperationalError as exc:
        raise ConfigError(f"{path} cannot be opened: {exc}") from exc
    except sqlite3.DatabaseError as exc:
        raise ConfigError(f"{path} is not a database: {exc}") from exc
    return None if row is None else str(row[0])


def migrate(path: Path) -> None:
    """
    All migrations that are missing, in one transaction.

    Raises ConfigError for a database that a newer version has written, or that cannot be migrated.
    """
    found = revision_of(path)
    if found == HEAD:
        return
    # Alembic takes a tenth of a second to import; a database that is up to date needs none of it.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415
    from sqlalchemy import URL, exc  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.attributes["url"] = URL.create("sqlite", database=str(path))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise ConfigError(f"{path} has schema {found}, which is newer than this version of Reelay ({HEAD}) knows")
    try:
        command.upgrade(config, "head")
    except exc.DBAPIError as error:
        raise ConfigError(f"{path} cannot be brought to schema {HEAD}: {error.orig}") from error
