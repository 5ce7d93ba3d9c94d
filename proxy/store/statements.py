"""Closed months, what tenants were told to pay for them, and the charges behind it."""

from typing import Any

import msgspec
from sqlalchemy import and_, bindparam, func, insert, or_, select

from proxy.store.base import Statement, Tx, as_structs
from proxy.store.tables import closings, ledger_transactions, settlements, statements


class Closing(msgspec.Struct, frozen=True):
    """A month in which nothing is written any more."""

    month: str
    """As in 2026-11, UTC."""
    ends_at: int
    closed_at: int
    actor: str


class Told(msgspec.Struct, frozen=True):
    """A statement as it was made when its month was closed."""

    number: str
    tenant_id: str
    month: str
    document: bytes


class Detail(msgspec.Struct, frozen=True):
    """A charge, or a refund, with what it was worked out from."""

    id: str
    kind: str
    at: int
    end_user: str
    key_id: str
    model: str
    tier: str
    operation: str
    resolution: str
    outcome: str
    seconds: int
    charged_microusd: int
    refunded_microusd: int
    price_id: str | None
    book_hash: str
    quantity: int | None
    unit_usd: str | None
    fixed_usd: str | None
    refers_to: str | None
    reason: str | None


_CLOSING = Closing.__struct_fields__
_TOLD = Told.__struct_fields__
_INSERT_CLOSING = Statement(insert(closings).values({name: bindparam(name) for name in _CLOSING}))
_INSERT = Statement(insert(statements).values({name: bindparam(name) for name in _TOLD}))
_CLOSINGS = Statement(select(*(closings.c[name] for name in _CLOSING)).order_by(closings.c.month))
_OF_MONTH = Statement(
    select(*(statements.c[name] for name in _TOLD)).where(
        statements.c.tenant_id == bindparam("tenant_id"), statements.c.month == bindparam("month")
    )
)
_NAMED = select(statements.c.number, statements.c.tenant_id, statements.c.month).order_by(
    statements.c.month.desc(), statements.c.number
)
_EVERY_NAME = Statement(_NAMED)
_NAMES_OF = Statement(_NAMED.where(statements.c.tenant_id == bindparam("tenant_id")))
_FIRST_CHARGE = Statement(select(func.min(settlements.c.at)))
_CHARGE_AT = Statement(select(settlements.c.at).where(settlements.c.id == bindparam("id")))
_FROM_SETTLEMENT = Detail.__struct_fields__[: Detail.__struct_fields__.index("price_id")]
_FROM_LEDGER = Detail.__struct_fields__[len(_FROM_SETTLEMENT) :]
_order = (settlements.c.end_user, settlements.c.at, settlements.c.id)
_DETAILS = Statement(
    select(*(settlements.c[name] for name in _FROM_SETTLEMENT), *(ledger_transactions.c[name] for name in _FROM_LEDGER))
    .join(ledger_transactions, ledger_transactions.c.id == settlements.c.id)
    .where(
        settlements.c.tenant_id == bindparam("tenant_id"),
        settlements.c.end_user >= bindparam("user"),
        or_(
            settlements.c.end_user > bindparam("user"),
            settlements.c.at > bindparam("at"),
            and_(settlements.c.at == bindparam("at"), settlements.c.id > bindparam("id")),
        ),
        settlements.c.at >= bindparam("start"),
        settlements.c.at < bindparam("end"),
        settlements.c.kind.in_(["post", "bill", "refund"]),
    )
    .order_by(*_order)
    .limit(bindparam("most"))
)


def insert_closing(tx: Tx, closing: Closing) -> None:
    """From then on nothing is written in that month or before it; a second closing breaks the unit."""
    tx.run(_INSERT_CLOSING, **msgspec.structs.asdict(closing))


def every_closing(tx: Tx) -> list[Closing]:
    """From the first month."""
    return as_structs(Closing, tx.rows(_CLOSINGS))


def insert_statement(tx: Tx, told: Told) -> None:
    """A tenant is told once for each month."""
    tx.run(_INSERT, **msgspec.structs.asdict(told))


def statement_of(tx: Tx, tenant_id: str, month: str) -> Told | None:
    """What a tenant was told for a closed month; None where it had spent nothing, or the month is open."""
    rows = as_structs(Told, tx.rows(_OF_MONTH, tenant_id=tenant_id, month=month))
    return rows[0] if rows else None


def numbers(tx: Tx, tenant_id: str | None = None) -> list[tuple[str, str, str]]:
    """Number, tenant and month of each statement, of one tenant or all; the newest month first."""
    found: list[Any] = tx.rows(_EVERY_NAME) if tenant_id is None else tx.rows(_NAMES_OF, tenant_id=tenant_id)
    return found


def first_cost_at(tx: Tx) -> int | None:
    """When the first cost was settled."""
    row = tx.one(_FIRST_CHARGE)
    return None if row is None else row[0]


def settled_at(tx: Tx, transaction_id: str) -> int | None:
    """When that cost was settled."""
    row = tx.one(_CHARGE_AT, id=transaction_id)
    return None if row is None else int(row[0])


def details(tx: Tx, tenant_id: str, *, start: int, end: int, after: Detail | None, most: int) -> list[Detail]:
    """So many charges and refunds of `[start, end)`, by end user and time, behind `after`."""
    mark: dict[str, Any] = {"user": "", "at": -1, "id": ""}
    if after is not None:
        mark = {"user": after.end_user, "at": after.at, "id": after.id}
    return as_structs(Detail, tx.rows(_DETAILS, tenant_id=tenant_id, start=start, end=end, most=most, **mark))
