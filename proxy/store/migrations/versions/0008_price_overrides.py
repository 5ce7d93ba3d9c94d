"""Prices that operators set while the server works, over those of catalogue and rules."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

BIG_INT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "price_overrides",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("tier", sa.Text(), nullable=False),
        sa.Column("operation", sa.Text(), nullable=False),
        sa.Column("resolution", sa.Text(), nullable=False),
        sa.Column("with_video", BIG_INT, nullable=False),
        sa.Column("usd_per_second", sa.Text(), nullable=True),
        sa.Column("usd_per_million_tokens", sa.Text(), nullable=True),
        sa.Column("starts", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("basis", sa.Text(), nullable=False),
        sa.Column("created_at", BIG_INT, nullable=False),
        sa.Column("removed_at", BIG_INT, nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sqlite_strict=True,
    )
    where = sa.text("removed_at IS NULL")
    op.create_index(
        "price_overrides_live",
        "price_overrides",
        ["provider", "model", "tier", "operation", "resolution", "with_video", "starts"],
        unique=True,
        sqlite_where=where,
        postgresql_where=where,
    )
