"""Alembic's entry: one connection, and one transaction for all that is missing."""

import sqlite3

from alembic import context
from sqlalchemy import Connection, create_engine, event

from proxy.store.tables import metadata

engine = create_engine(context.config.attributes["url"])

if engine.dialect.name == "sqlite":
    # Python's driver begins no transaction before DDL; it is told to leave that to us. Whoever else migrates waits.
    @event.listens_for(engine, "connect")
    def leave_transactions_to_us(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


with engine.begin() as connection:
    context.configure(connection=connection, target_metadata=metadata)
    context.run_migrations()
engine.dispose()
