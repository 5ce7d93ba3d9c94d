"""What tenants, keys and end users may spend, and which key asked for a video."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

BIG_INT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "budgets",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("period", sa.Text(), nullable=False),
        sa.Column("limit_microusd", BIG_INT, nullable=False),
        sa.Column("shadow", BIG_INT, nullable=False),
        sa.Column("warn_at", sa.Text(), nullable=False),
        sa.Column("created_at", BIG_INT, nullable=False),
        sa.Column("raise_microusd", BIG_INT, nullable=False),
        sa.Column("raise_until", BIG_INT, nullable=True),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"]),
        sa.PrimaryKeyConstraint("id"),
        sqlite_strict=True,
    )
    op.create_index("budgets_by_tenant", "budgets", ["tenant_id", "created_at", "id"], unique=False)
    op.create_table(
        "budget_counters",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("whose", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("period", sa.Text(), nullable=False),
        sa.Column("begins_at", BIG_INT, nullable=False),
        sa.Column("used_microusd", BIG_INT, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "whose", "subject", "period", "begins_at"),
        sqlite_strict=True,
    )
    op.create_index("budget_counters_by_age", "budget_counters", ["period", "begins_at"], unique=False)
    op.add_column("videos", sa.Column("key_id", sa.Text(), nullable=True))
    where = sa.text("end_user IS NOT NULL")
    op.create_index(
        "videos_by_end_user",
        "videos",
        ["tenant_id", "end_user", "created_at"],
        unique=False,
        sqlite_where=where,
        postgresql_where=where,
    )
