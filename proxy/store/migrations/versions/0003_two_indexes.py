"""What is in flight at a provider is counted without reading a row; keys that have expired are found by their time."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.drop_index("attempts_in_flight", table_name="attempts")
    where = sa.text("state IN ('sending', 'running')")
    op.create_index(
        "attempts_in_flight",
        "attempts",
        ["provider", "state"],
        unique=False,
        sqlite_where=where,
        postgresql_where=where,
    )
    op.create_index("idempotency_by_time", "idempotency", ["created_at"], unique=False)
