"""Alembic's entry: one connection; on SQLite one transaction for all that is missing, on PostgreSQL one for each."""

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import context
from alembic.runtime.migration import MigrationContext, MigrationInfo

from proxy.store.migrations import BESIDE
from proxy.store.tables import metadata

LOCK_TIMEOUT = "1s"
"""Whoever comes after one who waits for a table waits too."""

place = context.config.attributes["place"]
if isinstance(place, Path):
    engine = sa.create_engine(sa.URL.create("sqlite", database=str(place)))

    # Python's driver begins no transaction before DDL; it is told to leave that to us. Whoever else migrates waits.
    @sa.event.listens_for(engine, "connect")
    def leave_transactions_to_us(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

else:
    import psycopg

    engine = sa.create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(place, options=f"-c lock_timeout={LOCK_TIMEOUT}")
    )


def keep_beside(*, ctx: MigrationContext, step: MigrationInfo, **_: Any) -> None:
    """Whom a revision leaves at work; those from before there was such a thing leave nobody."""
    beside = getattr(getattr(step.up_revision, "module", None), "beside", None)
    if beside is not None:
        assert ctx.connection is not None, "migrations are run, not printed"
        ctx.connection.execute(sa.text("DELETE FROM facts WHERE name = :name"), {"name": BESIDE})
        row = {"name": BESIDE, "value": beside}
        ctx.connection.execute(sa.text("INSERT INTO facts (name, value) VALUES (:name, :value)"), row)


with engine.connect() as connection, connection.begin() if isinstance(place, Path) else contextlib.nullcontext():
    context.configure(
        connection=connection,
        target_metadata=metadata,
        transaction_per_migration=not isinstance(place, Path),
        on_version_apply=keep_beside,  # type: ignore[arg-type]  # it is called by these names
    )
    context.run_migrations()
engine.dispose()
