"""How much tenants and keys may ask for at once."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

BIG_INT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    for table in ("tenants", "api_keys"):
        op.add_column(table, sa.Column("requests_per_minute", BIG_INT, nullable=True))
        op.add_column(table, sa.Column("videos_in_flight", BIG_INT, nullable=True))
    where = sa.text("status IN ('queued', 'in_progress')")
    op.create_index(
        "videos_in_flight",
        "videos",
        ["tenant_id", "key_id", "status"],
        unique=False,
        sqlite_where=where,
        postgresql_where=where,
    )
