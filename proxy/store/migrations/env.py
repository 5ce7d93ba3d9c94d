"""Alembic's entry: one connection, and one transaction for all that is missing."""

import sqlite3
from pathlib import Path

from alembic import context
from sqlalchemy import URL, Connection, create_engine, event

from proxy.store.tables import metadata

OUR_LOCK = 0x5EE1A7
"""Any number that is ours: PostgreSQL's advisory locks are numbers."""

place = context.config.attributes["place"]
if isinstance(place, Path):
    engine = create_engine(URL.create("sqlite", database=str(place)))

    # Python's driver begins no transaction before DDL; it is told to leave that to us. Whoever else migrates waits.
    @event.listens_for(engine, "connect")
    def leave_transactions_to_us(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

else:
    import psycopg

    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(place))

    @event.listens_for(engine, "begin")
    def wait_for_others(connection: Connection) -> None:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({OUR_LOCK})")


with engine.begin() as connection:
    context.configure(connection=connection, target_metadata=metadata)
    context.run_migrations()
engine.dispose()
