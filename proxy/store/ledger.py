"""
The double-entry ledger: every transaction's postings sum to zero, and none is ever changed.

A video's money goes through `hold` and then exactly one of `post` and `void`. What a tenant pays for
further attempts of the same video is a `bill` each, what no tenant pays an `absorb` each. A hold moves
money from the tenant's credits to its held account; a post gives the hold back and writes what is
spent against what the seller takes and our markup.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
from sqlalchemy import Text, and_, bindparam, case, func, insert, or_, select

from proxy.store.base import Statement, Tx
from proxy.store.tables import attempts, end_users, ledger_postings, ledger_transactions, tenants, videos

Kind = Literal["hold", "post", "bill", "void", "absorb"]


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A transaction without its postings; the columns are described in tables.py."""

    id: str
    kind: Kind
    video_id: str
    attempt_no: int
    at: int
    tenant_id: str
    end_user: str | None
    provider: str | None
    model: str
    price_id: str | None
    book_hash: str
    rules_hash: str
    billed_seconds: int | None = None
    refers_to: str | None = None
    quantity: int | None = None
    unit_usd: str | None = None
    fixed_usd: str | None = None


Postings = Mapping[str, int]
"""Account to micro-dollars; the values sum to zero."""

_ENTRY = Entry.__struct_fields__
_INSERT = Statement(insert(ledger_transactions).values({name: bindparam(name) for name in _ENTRY}))
_POST = Statement(
    insert(ledger_postings).values(
        transaction_id=bindparam("transaction_id"),
        account=bindparam("account"),
        amount_microusd=bindparam("amount_microusd"),
    )
)


def entry_id(video_id: str, attempt_no: int, kind: Kind) -> str:
    return f"{video_id}/{attempt_no}/{kind}"


def hold_postings(tenant_id: str, hold_microusd: int) -> Postings:
    return {f"tenant:{tenant_id}:held": hold_microusd, f"credits:{tenant_id}": -hold_microusd}


def void_postings(tenant_id: str, hold_microusd: int) -> Postings:
    return {f"tenant:{tenant_id}:held": -hold_microusd, f"credits:{tenant_id}": hold_microusd}


def charge_postings(
    tenant_id: str, provider: str, *, charge_microusd: int, seller_microusd: int, overrun_microusd: int
) -> Postings:
    """What the tenant spends against what the seller takes; the rest is markup, and may be negative."""
    return {
        f"tenant:{tenant_id}:spend": charge_microusd,
        f"provider:{provider}:payable": -seller_microusd,
        "absorbed:overrun": overrun_microusd,
        f"tenant:{tenant_id}:markup": seller_microusd - charge_microusd - overrun_microusd,
    }


def absorb_postings(reason: str, provider: str, cost_microusd: int) -> Postings:
    """`reason` with its prefix: `absorbed:double`."""
    return {reason: cost_microusd, f"provider:{provider}:payable": -cost_microusd}


def write_many(tx: Tx, entries: Sequence[tuple[Entry, Postings]]) -> None:
    """
    New transactions with their postings; those of zero are left out.

    Raises ValueError where one does not sum to zero; a repeat breaks the unit.
    """
    for entry, postings in entries:
        if sum(postings.values()):
            raise ValueError(f"{entry.id} does not sum to zero")
    tx.run_many(_INSERT, [entry for entry, _ in entries])
    tx.run_many(
        _POST,
        [
            {"transaction_id": entry.id, "account": account, "amount_microusd": amount}
            for entry, postings in entries
            for account, amount in postings.items()
            if amount
        ],
    )


# Reports

GROUPS = ("tenant", "end_user", "provider", "model", "day")
"""What spend can be told by."""

_DAY_US = 86_400_000_000
_SIDES = ledger_postings.c.account
_AMOUNT = ledger_postings.c.amount_microusd


def _sum_where(condition: Any, sign: int = 1) -> Any:
    return func.coalesce(func.sum(case((condition, sign * _AMOUNT), else_=0)), 0)


_GROUP_COLUMNS: dict[str, Any] = {
    "tenant": ledger_transactions.c.tenant_id,
    "end_user": end_users.c.name,
    "provider": ledger_transactions.c.provider,
    "model": ledger_transactions.c.model,
    "day": ledger_transactions.c.at // _DAY_US,
}

SUMS = ("charged_microusd", "seller_microusd", "assumed_microusd", "markup_microusd", "absorbed_microusd")


def _spend(groups: tuple[str, ...]) -> Statement:
    keys = [_GROUP_COLUMNS[name].label(name) for name in groups]
    entry = ledger_transactions
    query = (
        select(
            *keys,
            func.count(func.distinct(case((entry.c.kind == "post", entry.c.video_id)))).label("videos"),
            _sum_where(_SIDES.like("tenant:%:spend")).label("charged_microusd"),
            _sum_where(_SIDES.like("provider:%:payable"), -1).label("seller_microusd"),
            _sum_where(
                and_(_SIDES.like("provider:%:payable"), func.coalesce(attempts.c.cost_stated, 0) == 0), -1
            ).label("assumed_microusd"),
            _sum_where(_SIDES.like("tenant:%:markup"), -1).label("markup_microusd"),
            _sum_where(_SIDES.like("absorbed:%")).label("absorbed_microusd"),
        )
        .select_from(entry)
        .join(ledger_postings, ledger_postings.c.transaction_id == entry.c.id)
        .outerjoin(attempts, and_(attempts.c.video_id == entry.c.video_id, attempts.c.number == entry.c.attempt_no))
        .outerjoin(
            end_users,
            and_(end_users.c.tenant_id == entry.c.tenant_id, end_users.c.surrogate == entry.c.end_user),
        )
        .where(
            entry.c.kind.in_(["post", "bill", "absorb"]),
            entry.c.at >= bindparam("start"),
            entry.c.at < bindparam("end"),
            or_(bindparam("tenant_id", type_=Text).is_(None), entry.c.tenant_id == bindparam("tenant_id")),
        )
    )
    if groups:
        query = query.group_by(*keys).order_by(*keys)
    return Statement(query)


_spend_by: dict[tuple[str, ...], Statement] = {}


class SpendRow(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over one group, exact; a group key that was not asked for is absent from `keys`."""

    keys: dict[str, str | None]
    videos: int
    """Videos charged."""
    charged_microusd: int
    """What tenants pay."""
    seller_microusd: int
    """What sellers take, as far as it is known."""
    assumed_microusd: int
    """The part of it that no seller has stated: by the price list, for what was made."""
    markup_microusd: int
    absorbed_microusd: int
    """What sellers take and nobody pays."""
    unknown_costs: int = 0
    """Attempts that have ended and whose cost nobody knows."""

    @property
    def anything(self) -> bool:
        """Whether there is a video or a micro-dollar in it."""
        return bool(self.videos) or any(getattr(self, name) for name in SUMS)


def spend(tx: Tx, groups: tuple[str, ...], *, tenant_id: str | None, start: int, end: int) -> list[SpendRow]:
    """Spend in `[start, end)` by time of settlement; `day` is the number of days since the epoch."""
    statement = _spend_by.get(groups) or _spend_by.setdefault(groups, _spend(groups))
    rows = tx.rows(statement, tenant_id=tenant_id, start=start, end=end)
    width = len(groups)
    return [
        SpendRow(
            keys={name: None if value is None else str(value) for name, value in zip(groups, row[:width], strict=True)},
            videos=int(row[width]),
            **{name: int(value) for name, value in zip(SUMS, row[width + 1 :], strict=True)},
        )
        for row in rows
    ]


_went_at = func.coalesce(attempts.c.ended_at, attempts.c.started_at)
_unclear = or_(
    attempts.c.state.in_(["unknown", "lost"]),  # whatever the seller said at accept
    and_(
        attempts.c.cost_microusd.is_(None),
        or_(
            attempts.c.state.in_(["refused", "failed"]),
            and_(attempts.c.state == "done", attempts.c.bearer.is_not(None)),  # one being copied has its price to come
        ),
    ),
)
_UNKNOWN_COSTS = Statement(
    select(
        videos.c.tenant_id,
        end_users.c.name,
        attempts.c.provider,
        videos.c.model,
        _went_at // _DAY_US,
    )
    .join(videos, videos.c.id == attempts.c.video_id)
    .outerjoin(end_users, and_(end_users.c.tenant_id == videos.c.tenant_id, end_users.c.surrogate == videos.c.end_user))
    .where(
        _unclear,
        _went_at >= bindparam("start"),
        _went_at < bindparam("end"),
        or_(bindparam("tenant_id", type_=Text).is_(None), videos.c.tenant_id == bindparam("tenant_id")),
    )
)


def unknown_costs(
    tx: Tx, groups: tuple[str, ...], *, tenant_id: str | None, start: int, end: int
) -> dict[tuple[str | None, ...], int]:
    """How many attempts that ended, or of which nobody knows, have an unknown cost, by the same groups."""
    counts: dict[tuple[str | None, ...], int] = {}
    for row in tx.rows(_UNKNOWN_COSTS, tenant_id=tenant_id, start=start, end=end):
        named = dict(zip(GROUPS, row, strict=True))
        key = tuple(None if named[name] is None else str(named[name]) for name in groups)
        counts[key] = counts.get(key, 0) + 1
    return counts


_BALANCES = Statement(
    select(ledger_postings.c.account, func.sum(_AMOUNT))
    .group_by(ledger_postings.c.account)
    .order_by(ledger_postings.c.account)
)
_TENANTS_HELD = Statement(
    select(tenants.c.id, func.coalesce(func.sum(case((videos.c.hold == "held", videos.c.hold_microusd), else_=0)), 0))
    .outerjoin(videos, videos.c.tenant_id == tenants.c.id)
    .group_by(tenants.c.id)
)


def balances(tx: Tx) -> dict[str, int]:
    """Account to micro-dollars; together they sum to zero."""
    return {row[0]: int(row[1]) for row in tx.rows(_BALANCES)}


def held_by_videos(tx: Tx) -> dict[str, int]:
    """Tenant to micro-dollars held, as the videos say; must equal the held accounts."""
    return {row[0]: int(row[1]) for row in tx.rows(_TENANTS_HELD)}
