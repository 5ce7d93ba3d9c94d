"""Indexes on tables that have rows and traffic."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op


def build_index(name: str, table: str, columns: Sequence[str], *, where: str | None = None) -> None:
    """
    One that nobody waits for while it is built.

    Stands alone in its revision, for it is built outside of any transaction; one that was broken off, or is there
    already, is built anew.
    """
    condition = None if where is None else sa.text(where)
    if op.get_bind().dialect.name == "sqlite":
        op.create_index(name, table, list(columns), sqlite_where=condition)
        return
    with op.get_context().autocommit_block():
        # It waits until older transactions have ended, and keeps nobody waiting meanwhile.
        op.execute("SET lock_timeout = 0")
        op.drop_index(name, table, if_exists=True, postgresql_concurrently=True)
        op.create_index(name, table, list(columns), postgresql_where=condition, postgresql_concurrently=True)
        op.execute("RESET lock_timeout")
