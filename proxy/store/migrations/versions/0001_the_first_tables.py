"""The first tables, and triggers that keep the ledger and the admins' log append-only."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

BIG_INT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

APPEND_ONLY = ("ledger_transactions", "ledger_postings", "admin_log")


def upgrade() -> None:
    op.create_table(
        "admin_log",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("at", BIG_INT, nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("before", sa.Text(), nullable=True),
        sa.Column("after", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sqlite_strict=True,
    )
    op.create_table(
        "facts",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
        sqlite_strict=True,
    )
    op.create_table(
        "ledger_transactions",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("video_id", sa.Text(), nullable=False),
        sa.Column("attempt_no", BIG_INT, nullable=False),
        sa.Column("at", BIG_INT, nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("end_user", sa.Text(), nullable=True),
        sa.Column("provider", sa.Text(), nullable=True),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("price_id", sa.Text(), nullable=True),
        sa.Column("book_hash", sa.Text(), nullable=False),
        sa.Column("rules_hash", sa.Text(), nullable=False),
        sa.Column("billed_seconds", BIG_INT, nullable=True),
        sa.Column("refers_to", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sqlite_strict=True,
    )
    op.create_index("ledger_by_tenant", "ledger_transactions", ["tenant_id", "at"], unique=False)
    op.create_index("ledger_by_time", "ledger_transactions", ["at"], unique=False)
    op.create_table(
        "tenants",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("markup", sa.Text(), nullable=False),
        sa.Column("allow_filter_off", BIG_INT, nullable=False),
        sa.Column("require_end_user_id", BIG_INT, nullable=False),
        sa.Column("created_at", BIG_INT, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
        sqlite_strict=True,
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("last4", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("created_at", BIG_INT, nullable=False),
        sa.Column("expires_at", BIG_INT, nullable=True),
        sa.Column("revoked_at", BIG_INT, nullable=True),
        sa.Column("last_used_at", BIG_INT, nullable=True),
        sa.ForeignKeyConstraint(
            ["tenant_id"],
            ["tenants.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("digest"),
        sqlite_strict=True,
    )
    op.create_table(
        "end_users",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("surrogate", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["tenant_id"],
            ["tenants.id"],
        ),
        sa.PrimaryKeyConstraint("tenant_id", "surrogate"),
        sqlite_strict=True,
    )
    op.create_index("end_users_name", "end_users", ["tenant_id", "name"], unique=True)
    op.create_table(
        "ledger_postings",
        sa.Column("transaction_id", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("amount_microusd", BIG_INT, nullable=False),
        sa.ForeignKeyConstraint(
            ["transaction_id"],
            ["ledger_transactions.id"],
        ),
        sa.PrimaryKeyConstraint("transaction_id", "account"),
        sqlite_strict=True,
    )
    op.create_table(
        "videos",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("end_user", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("prompt", sa.Text(), nullable=True),
        sa.Column("spec", sa.LargeBinary(), nullable=False),
        sa.Column("metadata", sa.LargeBinary(), nullable=True),
        sa.Column("plan", sa.LargeBinary(), nullable=False),
        sa.Column("progress", BIG_INT, nullable=False),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("created_at", BIG_INT, nullable=False),
        sa.Column("ended_at", BIG_INT, nullable=True),
        sa.Column("deadline_at", BIG_INT, nullable=False),
        sa.Column("cancelled_at", BIG_INT, nullable=True),
        sa.Column("deleted_at", BIG_INT, nullable=True),
        sa.Column("expires_at", BIG_INT, nullable=True),
        sa.Column("hold", sa.Text(), nullable=False),
        sa.Column("hold_microusd", BIG_INT, nullable=False),
        sa.Column("charged_microusd", BIG_INT, nullable=True),
        sa.Column("delivered_no", BIG_INT, nullable=True),
        sa.Column("footage", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(
            ["tenant_id"],
            ["tenants.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sqlite_strict=True,
    )
    op.create_index("videos_by_tenant", "videos", ["tenant_id", "created_at", "id"], unique=False)
    op.create_index(
        "videos_held",
        "videos",
        ["tenant_id", "hold_microusd"],
        unique=False,
        sqlite_where=sa.text("hold = 'held'"),
        postgresql_where=sa.text("hold = 'held'"),
    )
    op.create_index("videos_live", "videos", ["status", "created_at"], unique=False)
    op.create_table(
        "attempts",
        sa.Column("video_id", sa.Text(), nullable=False),
        sa.Column("number", BIG_INT, nullable=False),
        sa.Column("offer", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("seller_model", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("client_ref", sa.Text(), nullable=False),
        sa.Column("seller_id", sa.Text(), nullable=True),
        sa.Column("failure_kind", sa.Text(), nullable=True),
        sa.Column("seller_code", sa.Text(), nullable=True),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("started_at", BIG_INT, nullable=False),
        sa.Column("accepted_at", BIG_INT, nullable=True),
        sa.Column("ended_at", BIG_INT, nullable=True),
        sa.Column("retry_at", BIG_INT, nullable=True),
        sa.Column("possible_microusd", BIG_INT, nullable=False),
        sa.Column("cost_microusd", BIG_INT, nullable=True),
        sa.Column("cost_stated", BIG_INT, nullable=False),
        sa.Column("bearer", sa.Text(), nullable=True),
        sa.Column("asks", BIG_INT, nullable=False),
        sa.Column("missing_since", BIG_INT, nullable=True),
        sa.Column("missing", BIG_INT, nullable=False),
        sa.Column("cancel_asked_at", BIG_INT, nullable=True),
        sa.Column("link", sa.Text(), nullable=True),
        sa.Column("fetches", BIG_INT, nullable=False),
        sa.ForeignKeyConstraint(
            ["video_id"],
            ["videos.id"],
        ),
        sa.PrimaryKeyConstraint("video_id", "number"),
        sqlite_strict=True,
    )
    op.create_index("attempts_by_seller_id", "attempts", ["provider", "seller_id"], unique=True)
    op.create_index("attempts_by_start", "attempts", ["started_at"], unique=False)
    op.create_index("attempts_by_state", "attempts", ["state", "started_at"], unique=False)
    op.create_table(
        "idempotency",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("video_id", sa.Text(), nullable=False),
        sa.Column("created_at", BIG_INT, nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"],
            ["tenants.id"],
        ),
        sa.ForeignKeyConstraint(
            ["video_id"],
            ["videos.id"],
        ),
        sa.PrimaryKeyConstraint("tenant_id", "key"),
        sqlite_strict=True,
    )
    op.create_table(
        "work",
        sa.Column("video_id", sa.Text(), nullable=False),
        sa.Column("attempt_no", BIG_INT, nullable=False),
        sa.Column("due_at", BIG_INT, nullable=False),
        sa.Column("lease_until", BIG_INT, nullable=False),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("fence", BIG_INT, nullable=False),
        sa.Column("nudged", BIG_INT, nullable=False),
        sa.ForeignKeyConstraint(
            ["video_id"],
            ["videos.id"],
        ),
        sa.PrimaryKeyConstraint("video_id", "attempt_no"),
        sqlite_strict=True,
    )
    op.create_index("work_due", "work", ["due_at"], unique=False)
    for table in APPEND_ONLY:
        for verb in ("UPDATE", "DELETE"):
            _refuse(table, verb)


def _refuse(table: str, verb: str) -> None:
    name = f"{table}_no_{verb.lower()}"
    if op.get_bind().dialect.name == "sqlite":
        op.execute(
            f"CREATE TRIGGER {name} BEFORE {verb} ON {table} BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
        )
        return
    op.execute(
        f"CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{table} is append-only'; END $$"
    )
    op.execute(f"CREATE TRIGGER {name} BEFORE {verb} ON {table} FOR EACH STATEMENT EXECUTE FUNCTION {name}()")
