"""
Every table, each column with its unit.

Times are whole microseconds since the epoch, UTC; money is whole micro-dollars; structures are JSON
as msgspec writes it. One text for SQLite and PostgreSQL.
"""

from typing import Any

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, LargeBinary, MetaData, Table, Text, and_, or_

metadata = MetaData()

BigInt = BigInteger().with_variant(Integer, "sqlite")
"""64 bits on both; STRICT tables of SQLite know no BIGINT."""


Key = Text().with_variant(Text(collation="C"), "postgresql")
"""Text in the order of its code points, on both: pages go on where the last one ended."""


def _table(name: str, *columns: Column[Any] | Index) -> Table:
    return Table(name, metadata, *columns, sqlite_strict=True)


facts = _table(
    "facts",
    # `sandbox`: "1" or "0", set once. `backup_at`: in a copy that nobody has restored. `restored_at`: then.
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

tenants = _table(
    "tenants",
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("markup", Text, nullable=False),  # ratio, a decimal string
    Column("allow_filter_off", BigInt, nullable=False),  # 0 or 1
    Column("require_end_user_id", BigInt, nullable=False),  # 0 or 1
    Column("created_at", BigInt, nullable=False),
    Column("requests_per_minute", BigInt),  # null: no limit; so the next one
    Column("videos_in_flight", BigInt),
)

api_keys = _table(
    "api_keys",
    Column("id", Text, primary_key=True),
    Column("tenant_id", Text, ForeignKey("tenants.id"), nullable=False),
    Column("digest", Text, nullable=False, unique=True),  # HMAC-SHA256 under the pepper, hex
    Column("last4", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("scopes", Text, nullable=False),  # words separated by a space
    Column("created_at", BigInt, nullable=False),
    Column("expires_at", BigInt),
    Column("revoked_at", BigInt),
    Column("last_used_at", BigInt),  # written at most once a minute
    Column("requests_per_minute", BigInt),  # of this key alone; null: no limit; so the next one
    Column("videos_in_flight", BigInt),
)

end_users = _table(
    "end_users",
    Column("tenant_id", Text, ForeignKey("tenants.id"), primary_key=True),
    Column("surrogate", Text, primary_key=True),  # what the ledger holds
    Column("name", Text),  # the `end_user_id`; null once erased
    Index("end_users_name", "tenant_id", "name", unique=True),
)

budgets = _table(
    "budgets",
    Column("id", Text, primary_key=True),
    Column("tenant_id", Text, ForeignKey("tenants.id"), nullable=False),
    Column("scope", Text, nullable=False),  # core.budget.BudgetScope
    Column("subject", Text, nullable=False),  # id of the key or surrogate of the end user; else empty
    Column("period", Text, nullable=False),  # day, month or total, in UTC
    Column("limit_microusd", BigInt, nullable=False),
    Column("shadow", BigInt, nullable=False),  # 1: refuses nothing
    Column("warn_at", Text, nullable=False),  # shares of the limit, decimal strings separated by spaces
    Column("created_at", BigInt, nullable=False),
    Column("raise_microusd", BigInt, nullable=False),
    Column("raise_until", BigInt),
    Index("budgets_by_tenant", "tenant_id", "created_at", "id"),
)

budget_counters = _table(
    "budget_counters",  # what videos accepted in a period hold or were charged: the sum over these, kept at hand
    Column("tenant_id", Text, primary_key=True),
    Column("whose", Text, primary_key=True),  # tenant, key or end_user
    Column("subject", Text, primary_key=True),  # id of the key; surrogate of the end user, empty for nobody's
    Column("period", Text, primary_key=True),
    Column("begins_at", BigInt, primary_key=True),  # 0: total
    Column("used_microusd", BigInt, nullable=False),
    Index("budget_counters_by_age", "period", "begins_at"),
)

price_overrides = _table(
    "price_overrides",  # what operators set over the prices of catalogue and rules
    Column("id", Text, primary_key=True),  # of the price too, as postings name it
    Column("provider", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("tier", Text, nullable=False),
    Column("operation", Text, nullable=False),
    Column("resolution", Text, nullable=False),
    Column("with_video", BigInt, nullable=False),  # 1: where a video is among the references
    Column("usd_per_second", Text),  # a decimal string; this or the next
    Column("usd_per_million_tokens", Text),
    Column("starts", Text, nullable=False),  # ISO date, UTC
    Column("source", Text, nullable=False),
    Column("basis", Text, nullable=False),  # core.offer.PriceBasis
    Column("created_at", BigInt, nullable=False),
    Column("removed_at", BigInt),  # it holds no more from then on
)
_is_live = price_overrides.c.removed_at.is_(None)
Index(
    "price_overrides_live",
    price_overrides.c.provider,
    price_overrides.c.model,
    price_overrides.c.tier,
    price_overrides.c.operation,
    price_overrides.c.resolution,
    price_overrides.c.with_video,
    price_overrides.c.starts,
    unique=True,
    sqlite_where=_is_live,
    postgresql_where=_is_live,
)

videos = _table(
    "videos",
    Column("id", Text, primary_key=True),
    Column("tenant_id", Text, ForeignKey("tenants.id"), nullable=False),
    Column("key_id", Text),  # of the API key that asked; null for those before it was noted
    Column("request_id", Text),  # of the request that asked, for the log; null for those before it was noted
    Column("end_user", Text),  # end_users.surrogate
    Column("status", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("prompt", Text),  # null once erased
    Column("spec", LargeBinary, nullable=False),  # core.video.Spec without prompt, end user and metadata
    Column("metadata", LargeBinary),  # the client's pairs; null once erased
    Column("plan", LargeBinary, nullable=False),  # core.offer.Plan with the kept offers alone
    Column("progress", BigInt, nullable=False),  # percent, never less than before
    Column("error_code", Text),
    Column("error_message", Text),
    Column("created_at", BigInt, nullable=False),
    Column("ended_at", BigInt),
    Column("deadline_at", BigInt, nullable=False),
    Column("cancelled_at", BigInt),
    Column("deleted_at", BigInt),  # hidden from then on
    Column("expires_at", BigInt),  # when the file goes away
    Column("hold", Text, nullable=False),  # held, posted or void
    Column("hold_microusd", BigInt, nullable=False),
    Column("charged_microusd", BigInt),  # null until settled
    Column("refunded_microusd", BigInt),  # of it; null: nothing
    Column("delivered_no", BigInt),  # number of the attempt whose film it is
    Column("footage", LargeBinary),  # core.video.Footage, once our copy is in place
    Column("file_removed_at", BigInt),  # when the expired file was deleted; what was measured stays
    Index("videos_by_tenant", "tenant_id", "created_at", "id"),
    Index("videos_live", "status", "created_at"),
)
Index(
    "videos_held",
    videos.c.tenant_id,
    videos.c.hold_microusd,
    sqlite_where=videos.c.hold == "held",
    postgresql_where=videos.c.hold == "held",
)
_is_live = videos.c.status.in_(["queued", "in_progress"])
Index(
    "videos_in_flight",
    videos.c.tenant_id,
    videos.c.key_id,
    videos.c.status,
    sqlite_where=_is_live,
    postgresql_where=_is_live,
)
_has_user = videos.c.end_user.is_not(None)
Index(
    "videos_by_end_user",
    videos.c.tenant_id,
    videos.c.end_user,
    videos.c.created_at,
    sqlite_where=_has_user,
    postgresql_where=_has_user,
)
_has_file = and_(videos.c.expires_at.is_not(None), videos.c.file_removed_at.is_(None))
Index("videos_by_expiry", videos.c.expires_at, sqlite_where=_has_file, postgresql_where=_has_file)
_has_prompt = and_(videos.c.ended_at.is_not(None), videos.c.prompt.is_not(None))
Index("videos_by_end", videos.c.ended_at, sqlite_where=_has_prompt, postgresql_where=_has_prompt)

attempts = _table(
    "attempts",
    Column("video_id", Text, ForeignKey("videos.id"), primary_key=True),
    Column("number", BigInt, primary_key=True),
    Column("offer", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("seller_model", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("client_ref", Text, nullable=False),
    Column("seller_id", Text),
    Column("failure_kind", Text),
    Column("seller_code", Text),
    Column("message", Text),
    Column("started_at", BigInt, nullable=False),
    Column("accepted_at", BigInt),
    Column("rendering_at", BigInt),  # when a poll first found that the seller had begun
    Column("ended_at", BigInt),
    Column("retry_at", BigInt),
    Column("possible_microusd", BigInt, nullable=False),
    Column("cost_microusd", BigInt),  # what the seller took; null is unknown
    Column("cost_stated", BigInt, nullable=False),  # 1: the seller named it
    Column("bearer", Text),  # tenant, or the account that absorbs it
    Column("asks", BigInt, nullable=False),
    Column("missing_since", BigInt),
    Column("missing", BigInt, nullable=False),
    Column("cancel_asked_at", BigInt),
    Column("link", Text),
    Column("fetches", BigInt, nullable=False),
    Index("attempts_by_seller_id", "provider", "seller_id", unique=True),
    Index("attempts_by_state", "state", "started_at"),
    Index("attempts_by_start", "started_at"),
)

cost_is_unknown = or_(
    attempts.c.state.in_(["unknown", "lost"]),  # whatever the seller said at accept
    and_(
        attempts.c.cost_microusd.is_(None),
        or_(
            attempts.c.state.in_(["refused", "failed"]),
            and_(attempts.c.state == "done", attempts.c.bearer.is_not(None)),  # one being copied has its price to come
        ),
    ),
)
Index(
    "attempts_of_unknown_cost",
    attempts.c.started_at,
    sqlite_where=cost_is_unknown,
    postgresql_where=cost_is_unknown,
)
_in_flight = attempts.c.state.in_(["sending", "running"])
Index(
    "attempts_in_flight",
    attempts.c.provider,
    attempts.c.state,
    sqlite_where=_in_flight,
    postgresql_where=_in_flight,
)

outcomes = _table(
    "outcomes",  # how submits and renders ended lately, for the breakers of every replica
    Column("video_id", Text, primary_key=True),
    Column("attempt_no", BigInt, primary_key=True),
    Column("part", Text, primary_key=True),  # submit or render
    Column("offer", Text, nullable=False),
    Column("good", BigInt, nullable=False),  # 0 or 1
    Column("at", BigInt, nullable=False),
    Index("outcomes_by_time", "at"),
)

learned_times = _table(
    "learned_times",
    Column("offer", Text, primary_key=True),
    Column("resolution", Text, primary_key=True),
    Column("seconds", BigInt, primary_key=True),  # of film asked for; 0: auto
    Column("part", Text, primary_key=True),  # queue or render
    Column("histogram", LargeBinary, nullable=False),  # policy.pace.Histogram
    Column("updated_at", BigInt, nullable=False),
)

lanes = _table(
    "lanes",  # providers with `max_in_flight`: whoever sends there locks the row while it counts
    Column("provider", Text, primary_key=True),
)

places = _table(
    "places",  # videos that wait until a provider has room
    Column("video_id", Text, ForeignKey("videos.id"), primary_key=True),
    Column("provider", Text, primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("since", BigInt, nullable=False),
    Index("places_by_provider", "provider", "since"),
)

work = _table(
    "work",
    Column("video_id", Text, ForeignKey("videos.id"), primary_key=True),
    Column("attempt_no", BigInt, primary_key=True),  # 0: the video itself, what to buy next
    Column("due_at", BigInt, nullable=False),
    Column("lease_until", BigInt, nullable=False),  # 0: free
    Column("owner", Text),
    Column("fence", BigInt, nullable=False),  # grows with each claim
    Column("nudged", BigInt, nullable=False),  # 1: due at once when its holder lets go
    Index("work_due", "due_at"),
)

idempotency = _table(
    "idempotency",
    Column("tenant_id", Text, ForeignKey("tenants.id"), primary_key=True),
    Column("key", Text, primary_key=True),
    Column("fingerprint", Text, nullable=False),
    Column("video_id", Text, ForeignKey("videos.id"), nullable=False),
    Column("created_at", BigInt, nullable=False),
    Index("idempotency_by_time", "created_at"),
)

ledger_transactions = _table(
    "ledger_transactions",
    Column("id", Text, primary_key=True),  # `<video>/<attempt>/<kind>`: a repeat cannot be written
    Column("kind", Text, nullable=False),  # hold, post, bill, void, absorb or refund
    Column("video_id", Text, nullable=False),
    Column("attempt_no", BigInt, nullable=False),
    Column("at", BigInt, nullable=False),
    Column("tenant_id", Text, nullable=False),
    Column("end_user", Text),
    Column("provider", Text),
    Column("model", Text, nullable=False),
    Column("price_id", Text),
    Column("book_hash", Text, nullable=False),
    Column("rules_hash", Text, nullable=False),
    Column("billed_seconds", BigInt),
    Column("refers_to", Text),  # the transaction that this one ends or corrects
    Column("quantity", BigInt),  # of a charge: policy.prices.Tariff, by which it can be worked out again
    Column("unit_usd", Text),
    Column("fixed_usd", Text),
    Column("reason", Text),  # of a refund: why
    Index("ledger_by_time", "at"),
    Index("ledger_by_tenant", "tenant_id", "at"),
)

ledger_postings = _table(
    "ledger_postings",
    Column("transaction_id", Text, ForeignKey("ledger_transactions.id"), primary_key=True),
    Column("account", Text, primary_key=True),
    Column("amount_microusd", BigInt, nullable=False),
)

DIMENSIONS = (
    "tenant_id",
    "key_id",
    "provider",
    "model",
    "tier",
    "operation",
    "resolution",
    "rule",  # of the YAML, by which the offers were chosen
    "outcome",  # store.settlements.Outcome
)
"""What days are summed by; empty where there is none."""
SUMS = (
    "charged_microusd",  # to the tenant
    "seller_microusd",  # what the seller took
    "assumed_microusd",  # the part of it that no seller has stated
    "markup_microusd",
    "absorbed_microusd",
    "refunded_microusd",
    "at_first_microusd",  # what the same film would have cost the tenant at the plan's first offer
    "at_dearest_microusd",  # and at the dearest that could have made it
)

settlements = _table(
    "settlements",  # what reports sum: one row for each transaction that is a cost, beside its postings
    Column("id", Key, primary_key=True),  # the transaction's
    Column("kind", Text, nullable=False),  # post, bill, absorb or refund
    Column("at", BigInt, nullable=False),
    Column("end_user", Key, nullable=False),  # end_users.surrogate; empty: none, as with all that follows
    *(Column(name, Key, nullable=False) for name in DIMENSIONS),
    Column("seconds", BigInt, nullable=False),  # of delivered film that are billed
    *(Column(name, BigInt, nullable=False) for name in SUMS),
    Column("expected_microusd", BigInt),  # what the seller's price makes, where the seller stated a cost of its own
    Column("differs", BigInt, nullable=False),  # 1: by more than the tolerance
    Column("metadata", Key),  # the client's pairs as JSON; emptied when the end user is erased
    Index("settlements_by_time", "at"),
    Index("settlements_by_end_user", "tenant_id", "end_user", "at"),
)
Index(
    "settlements_that_differ",
    settlements.c.at,
    sqlite_where=settlements.c.differs == 1,
    postgresql_where=settlements.c.differs == 1,
)

spend_days = _table(
    "spend_days",  # the sums of settlements by day, up to the fact `folded_until`
    Column("day", BigInt, primary_key=True, autoincrement=False),  # since the epoch, UTC
    *(Column(name, Key, primary_key=True) for name in DIMENSIONS),
    Column("videos", BigInt, nullable=False),
    Column("seconds", BigInt, nullable=False),
    *(Column(name, BigInt, nullable=False) for name in SUMS),
)

closings = _table(
    "closings",  # months in which nothing is written any more; a trigger on the ledger sees to it
    Column("month", Text, primary_key=True),  # as in 2026-11, UTC
    Column("ends_at", BigInt, nullable=False),
    Column("closed_at", BigInt, nullable=False),
    Column("actor", Text, nullable=False),
)

statements = _table(
    "statements",  # what a tenant was told to pay for a closed month
    Column("number", Text, primary_key=True),
    Column("tenant_id", Text, ForeignKey("tenants.id"), nullable=False),
    Column("month", Text, ForeignKey("closings.month"), nullable=False),
    Column("document", LargeBinary, nullable=False),  # services.statements.Statement
    Index("statements_by_tenant", "tenant_id", "month", unique=True),
)

admin_log = _table(
    "admin_log",
    Column("id", Text, primary_key=True),
    Column("at", BigInt, nullable=False),
    Column("actor", Text, nullable=False),  # id of the key, or `cli`
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("before", Text),
    Column("after", Text),
    Column("reason", Text),
)

APPEND_ONLY = ("ledger_transactions", "ledger_postings", "admin_log", "closings", "statements")
"""Tables whose rows are never changed; triggers see to it."""
