"""Which request asked for each video."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
beside = "0008"


def upgrade() -> None:
    op.add_column("videos", sa.Column("request_id", sa.Text(), nullable=True))
