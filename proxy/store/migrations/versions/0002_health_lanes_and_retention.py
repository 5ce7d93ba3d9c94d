"""What sellers' health and times are learned from, who waits for room at a seller, and when files went away."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

BIG_INT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("videos", sa.Column("file_removed_at", BIG_INT, nullable=True))
    _partial_index("videos_by_expiry", "videos", "expires_at", "expires_at IS NOT NULL AND file_removed_at IS NULL")
    _partial_index("videos_by_end", "videos", "ended_at", "ended_at IS NOT NULL AND prompt IS NOT NULL")
    op.add_column("attempts", sa.Column("rendering_at", BIG_INT, nullable=True))
    _partial_index("attempts_in_flight", "attempts", "provider", "state IN ('sending', 'running')")
    op.create_table(
        "outcomes",
        sa.Column("video_id", sa.Text(), nullable=False),
        sa.Column("attempt_no", BIG_INT, nullable=False),
        sa.Column("part", sa.Text(), nullable=False),
        sa.Column("offer", sa.Text(), nullable=False),
        sa.Column("good", BIG_INT, nullable=False),
        sa.Column("at", BIG_INT, nullable=False),
        sa.PrimaryKeyConstraint("video_id", "attempt_no", "part"),
        sqlite_strict=True,
    )
    op.create_index("outcomes_by_time", "outcomes", ["at"], unique=False)
    op.create_table(
        "learned_times",
        sa.Column("offer", sa.Text(), nullable=False),
        sa.Column("resolution", sa.Text(), nullable=False),
        sa.Column("seconds", BIG_INT, nullable=False),
        sa.Column("part", sa.Text(), nullable=False),
        sa.Column("histogram", sa.LargeBinary(), nullable=False),
        sa.Column("updated_at", BIG_INT, nullable=False),
        sa.PrimaryKeyConstraint("offer", "resolution", "seconds", "part"),
        sqlite_strict=True,
    )
    op.create_table(
        "lanes",
        sa.Column("provider", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("provider"),
        sqlite_strict=True,
    )
    op.create_table(
        "places",
        sa.Column("video_id", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("since", BIG_INT, nullable=False),
        sa.ForeignKeyConstraint(
            ["video_id"],
            ["videos.id"],
        ),
        sa.PrimaryKeyConstraint("video_id", "provider"),
        sqlite_strict=True,
    )
    op.create_index("places_by_provider", "places", ["provider", "since"], unique=False)


def _partial_index(name: str, table: str, column: str, condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, table, [column], unique=False, sqlite_where=where, postgresql_where=where)
