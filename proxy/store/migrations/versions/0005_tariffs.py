"""How each charge comes about, beside the price that it names."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

BIG_INT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("ledger_transactions", sa.Column("quantity", BIG_INT, nullable=True))
    op.add_column("ledger_transactions", sa.Column("unit_usd", sa.Text(), nullable=True))
    op.add_column("ledger_transactions", sa.Column("fixed_usd", sa.Text(), nullable=True))
