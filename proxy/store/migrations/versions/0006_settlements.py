"""What reports sum, by row and by day; statements of closed months; why a refund was made."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

BIG_INT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
DIMENSIONS = ("tenant_id", "key_id", "provider", "model", "tier", "operation", "resolution", "rule", "outcome")
SUMS = (
    "charged_microusd",
    "seller_microusd",
    "assumed_microusd",
    "markup_microusd",
    "absorbed_microusd",
    "refunded_microusd",
    "at_first_microusd",
    "at_dearest_microusd",
)
UNKNOWN_COST = (
    "state IN ('unknown', 'lost') OR cost_microusd IS NULL AND "
    "(state IN ('refused', 'failed') OR state = 'done' AND bearer IS NOT NULL)"
)


def upgrade() -> None:
    op.add_column("videos", sa.Column("refunded_microusd", BIG_INT, nullable=True))
    op.add_column("ledger_transactions", sa.Column("reason", sa.Text(), nullable=True))
    op.create_table(
        "settlements",
        sa.Column("id", KEY, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("at", BIG_INT, nullable=False),
        sa.Column("end_user", KEY, nullable=False),
        *(sa.Column(name, KEY, nullable=False) for name in DIMENSIONS),
        sa.Column("seconds", BIG_INT, nullable=False),
        *(sa.Column(name, BIG_INT, nullable=False) for name in SUMS),
        sa.Column("expected_microusd", BIG_INT, nullable=True),
        sa.Column("differs", BIG_INT, nullable=False),
        sa.Column("metadata", KEY, nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sqlite_strict=True,
    )
    op.create_index("settlements_by_time", "settlements", ["at"], unique=False)
    op.create_index("settlements_by_end_user", "settlements", ["tenant_id", "end_user", "at"], unique=False)
    where = sa.text("differs = 1")
    op.create_index(
        "settlements_that_differ", "settlements", ["at"], unique=False, sqlite_where=where, postgresql_where=where
    )
    op.create_table(
        "spend_days",
        sa.Column("day", BIG_INT, nullable=False, autoincrement=False),
        *(sa.Column(name, KEY, nullable=False) for name in DIMENSIONS),
        sa.Column("videos", BIG_INT, nullable=False),
        sa.Column("seconds", BIG_INT, nullable=False),
        *(sa.Column(name, BIG_INT, nullable=False) for name in SUMS),
        sa.PrimaryKeyConstraint("day", *DIMENSIONS),
        sqlite_strict=True,
    )
    where = sa.text(UNKNOWN_COST)
    op.create_index(
        "attempts_of_unknown_cost",
        "attempts",
        ["started_at"],
        unique=False,
        sqlite_where=where,
        postgresql_where=where,
    )
    op.create_table(
        "closings",
        sa.Column("month", sa.Text(), nullable=False),
        sa.Column("ends_at", BIG_INT, nullable=False),
        sa.Column("closed_at", BIG_INT, nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("month"),
        sqlite_strict=True,
    )
    op.create_table(
        "statements",
        sa.Column("number", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("month", sa.Text(), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"]),
        sa.ForeignKeyConstraint(["month"], ["closings.month"]),
        sa.PrimaryKeyConstraint("number"),
        sqlite_strict=True,
    )
    op.create_index("statements_by_tenant", "statements", ["tenant_id", "month"], unique=True)
    for table in ("closings", "statements"):
        for verb in ("UPDATE", "DELETE"):
            _refuse(f"{table}_no_{verb.lower()}", verb, table, f"{table} is append-only")
    _refuse("settlements_no_delete", "DELETE", "settlements", "settlements are not removed")
    fixed = ("id", "kind", "at", "end_user", *DIMENSIONS, "seconds", *SUMS, "expected_microusd", "differs")
    _refuse("settlements_no_update", f"UPDATE OF {', '.join(fixed)}", "settlements", "only metadata may be emptied")
    _refuse_what_is_closed()
    _take_over()


def _on_sqlite() -> bool:
    return op.get_bind().dialect.name == "sqlite"


def _refuse(name: str, verb: str, table: str, why: str) -> None:
    if _on_sqlite():
        op.execute(f"CREATE TRIGGER {name} BEFORE {verb} ON {table} BEGIN SELECT RAISE(ABORT, '{why}'); END")
        return
    op.execute(f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION '{why}'; END $$")
    op.execute(f"CREATE TRIGGER {name} BEFORE {verb} ON {table} FOR EACH STATEMENT EXECUTE FUNCTION {name}()")


def _refuse_what_is_closed() -> None:
    """A hold is on no bill, and every request would pay for the look."""
    name, table, why = "ledger_transactions_no_closed", "ledger_transactions", "the month is closed"
    closed = "NEW.at < (SELECT max(ends_at) FROM closings)"
    if _on_sqlite():
        op.execute(
            f"CREATE TRIGGER {name} BEFORE INSERT ON {table} WHEN NEW.kind <> 'hold' AND {closed} "
            f"BEGIN SELECT RAISE(ABORT, '{why}'); END"
        )
        return
    op.execute(
        f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN IF {closed} THEN RAISE EXCEPTION '{why}'; END IF; RETURN NEW; END $$"
    )
    op.execute(
        f"CREATE TRIGGER {name} BEFORE INSERT ON {table} FOR EACH ROW WHEN (NEW.kind <> 'hold') "
        f"EXECUTE FUNCTION {name}()"
    )


def _take_over() -> None:
    """
    The costs so far, by what their postings and their videos say.

    What a film would have cost elsewhere was not written down: nothing counts as saved.
    """
    if _on_sqlite():
        pairs = "CAST(v.metadata AS TEXT)"
        of_spec, of_plan = (f"json_extract(CAST(v.{column} AS TEXT), '$.{{}}')" for column in ("spec", "plan"))
    else:
        pairs = "convert_from(v.metadata, 'UTF8')"
        of_spec, of_plan = (f"convert_from(v.{column}, 'UTF8')\\:\\:json ->> '{{}}'" for column in ("spec", "plan"))
    delivered = "CASE WHEN v.delivered_no = t.attempt_no THEN s.charged ELSE 0 END"
    op.execute(
        f"""
        INSERT INTO settlements (id, kind, at, end_user, tenant_id, key_id, provider, model, tier, operation,
            resolution, rule, outcome, seconds, charged_microusd, seller_microusd, assumed_microusd, markup_microusd,
            absorbed_microusd, refunded_microusd, at_first_microusd, at_dearest_microusd, differs, metadata)
        SELECT t.id, t.kind, t.at, coalesce(t.end_user, ''), t.tenant_id, coalesce(v.key_id, ''),
            coalesce(t.provider, ''), t.model, coalesce({of_spec.format("tier")}, ''),
            coalesce({of_spec.format("operation")}, ''), coalesce({of_spec.format("resolution")}, ''),
            coalesce({of_plan.format("rule")}, ''),
            CASE WHEN t.kind = 'absorb' THEN coalesce(substr(a.bearer, 10), '')
                WHEN v.delivered_no = t.attempt_no THEN 'delivered' ELSE 'billed' END,
            coalesce(t.billed_seconds, 0), s.charged, s.seller,
            CASE WHEN a.cost_stated = 1 THEN 0 ELSE s.seller END, s.markup, s.absorbed, 0, {delivered}, {delivered},
            0, {pairs}
        FROM ledger_transactions t
        JOIN (SELECT transaction_id,
                sum(CASE WHEN account LIKE 'tenant:%\\:spend' THEN amount_microusd ELSE 0 END) AS charged,
                -sum(CASE WHEN account LIKE 'provider:%\\:payable' THEN amount_microusd ELSE 0 END) AS seller,
                -sum(CASE WHEN account LIKE 'tenant:%\\:markup' THEN amount_microusd ELSE 0 END) AS markup,
                sum(CASE WHEN account LIKE 'absorbed:%' THEN amount_microusd ELSE 0 END) AS absorbed
            FROM ledger_postings GROUP BY transaction_id) s ON s.transaction_id = t.id
        JOIN videos v ON v.id = t.video_id
        LEFT JOIN attempts a ON a.video_id = t.video_id AND a.number = t.attempt_no
        WHERE t.kind IN ('post', 'bill', 'absorb')
        """  # noqa: S608 - names of ours
    )
