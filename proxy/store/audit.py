"""What the books say of themselves: questions whose answer should be nothing."""

from collections.abc import Iterator

import msgspec
from sqlalchemy import ColumnElement, and_, bindparam, case, func, or_, select

from proxy.store.base import Statement, Tx, as_structs
from proxy.store.tables import ledger_postings, ledger_transactions, settlements, videos

_span = and_(ledger_transactions.c.at >= bindparam("start"), ledger_transactions.c.at < bindparam("end"))
_UNBALANCED = Statement(
    select(ledger_postings.c.transaction_id, func.sum(ledger_postings.c.amount_microusd))
    .join(ledger_transactions, ledger_transactions.c.id == ledger_postings.c.transaction_id)
    .where(_span)
    .group_by(ledger_postings.c.transaction_id)
    .having(func.sum(ledger_postings.c.amount_microusd) != 0)
    .order_by(ledger_postings.c.transaction_id)
)


def _posted(accounts: str, sign: int = 1) -> ColumnElement[int]:
    """What the postings of a transaction sum to on such accounts."""
    amount = sign * ledger_postings.c.amount_microusd
    return func.coalesce(func.sum(case((ledger_postings.c.account.like(accounts), amount), else_=0)), 0)


_settled = settlements.c
_off = (
    func.abs(_posted("tenant:%:spend") - func.coalesce(_settled.charged_microusd - _settled.refunded_microusd, 0))
    + func.abs(_posted("provider:%:payable", -1) - func.coalesce(_settled.seller_microusd, 0))
    + func.abs(_posted("tenant:%:markup", -1) - func.coalesce(_settled.markup_microusd, 0))
    + func.abs(_posted("absorbed:%") - func.coalesce(_settled.absorbed_microusd, 0))
)
_told = (
    (_settled.at, ledger_transactions.c.at),
    (_settled.kind, ledger_transactions.c.kind),
    (_settled.tenant_id, ledger_transactions.c.tenant_id),
    (_settled.end_user, func.coalesce(ledger_transactions.c.end_user, "")),
    (_settled.provider, func.coalesce(ledger_transactions.c.provider, "")),
    (_settled.model, ledger_transactions.c.model),
    (_settled.seconds, func.coalesce(ledger_transactions.c.billed_seconds, 0)),
)
"""What a report tells of a cost, and the transaction too."""
_UNLIKE_SETTLED = Statement(
    select(ledger_transactions.c.id, _off)
    .outerjoin(settlements, _settled.id == ledger_transactions.c.id)
    .outerjoin(ledger_postings, ledger_postings.c.transaction_id == ledger_transactions.c.id)
    .where(_span, ledger_transactions.c.kind.in_(["post", "bill", "absorb", "refund"]))
    .group_by(*ledger_transactions.c, *(column for column in _settled if column.name != "metadata"))
    .having(or_(_off != 0, _settled.id.is_(None), *(theirs != ours for theirs, ours in _told)))
    .order_by(ledger_transactions.c.id)
)
_WITHOUT_POSTINGS = Statement(
    select(
        _settled.id,
        _settled.charged_microusd + _settled.seller_microusd + _settled.absorbed_microusd + _settled.refunded_microusd,
    )
    .outerjoin(ledger_transactions, ledger_transactions.c.id == _settled.id)
    .where(_settled.at >= bindparam("start"), _settled.at < bindparam("end"), ledger_transactions.c.id.is_(None))
    .order_by(_settled.id)
)
_spent = func.sum(case((ledger_postings.c.account.like("tenant:%:spend"), ledger_postings.c.amount_microusd), else_=0))
_CHARGES = Statement(
    select(
        ledger_transactions.c.id,
        ledger_transactions.c.kind,
        ledger_transactions.c.price_id,
        ledger_transactions.c.quantity,
        ledger_transactions.c.unit_usd,
        ledger_transactions.c.fixed_usd,
        func.coalesce(_spent, 0),
        videos.c.hold_microusd,
    )
    .outerjoin(ledger_postings, ledger_postings.c.transaction_id == ledger_transactions.c.id)
    .join(videos, videos.c.id == ledger_transactions.c.video_id)
    .where(ledger_transactions.c.kind.in_(["post", "bill"]), ledger_transactions.c.id > bindparam("after"))
    .group_by(
        ledger_transactions.c.id,
        ledger_transactions.c.kind,
        ledger_transactions.c.price_id,
        ledger_transactions.c.quantity,
        ledger_transactions.c.unit_usd,
        ledger_transactions.c.fixed_usd,
        videos.c.hold_microusd,
    )
    .order_by(ledger_transactions.c.id)
    .limit(bindparam("most"))
)
_ends = (
    select(ledger_transactions.c.video_id, func.min(ledger_transactions.c.kind).label("kind"), _spent.label("spent"))
    .outerjoin(ledger_postings, ledger_postings.c.transaction_id == ledger_transactions.c.id)
    .where(ledger_transactions.c.kind.in_(["post", "bill", "void"]))
    .group_by(ledger_transactions.c.video_id)
    .subquery("ends")
)
_UNLIKE = Statement(
    select(videos.c.id, videos.c.hold, videos.c.charged_microusd, _ends.c.kind, _ends.c.spent)
    .outerjoin(_ends, _ends.c.video_id == videos.c.id)
    .where(
        or_(
            and_(videos.c.hold == "held", _ends.c.kind.is_not(None)),
            and_(videos.c.hold != "held", _ends.c.kind.is_(None)),
            and_(videos.c.hold == "void", _ends.c.kind != "void"),
            and_(videos.c.hold == "posted", _ends.c.kind == "void"),
            and_(
                videos.c.hold != "held", func.coalesce(videos.c.charged_microusd, 0) != func.coalesce(_ends.c.spent, 0)
            ),
        )
    )
    .order_by(videos.c.id)
)


class ChargeRow(msgspec.Struct, frozen=True):
    """A charge as it was written."""

    id: str
    kind: str
    price_id: str | None
    quantity: int | None
    unit_usd: str | None
    fixed_usd: str | None
    spent_microusd: int
    hold_microusd: int


def unbalanced(tx: Tx, *, start: int, end: int) -> list[tuple[str, int]]:
    """Transactions of `[start, end)` whose postings do not sum to zero, and what they sum to."""
    return [(row[0], int(row[1])) for row in tx.rows(_UNBALANCED, start=start, end=end)]


def unlike_settled(tx: Tx, *, start: int, end: int) -> list[tuple[str, int]]:
    """Costs of `[start, end)` of which reports tell otherwise than the books: by how much, all sides together."""
    statements = (_UNLIKE_SETTLED, _WITHOUT_POSTINGS)
    return [(row[0], int(row[1])) for statement in statements for row in tx.rows(statement, start=start, end=end)]


def charges(tx: Tx, *, page: int = 1000) -> Iterator[ChargeRow]:
    """Every charge to a tenant, by id."""
    after = ""
    while True:
        found = tx.rows(_CHARGES, after=after, most=page)
        rows = as_structs(ChargeRow, [(*row[:6], int(row[6]), row[7]) for row in found])  # a sum may be a decimal
        yield from rows
        if len(rows) < page:
            return
        after = rows[-1].id


def unlike_their_ends(tx: Tx) -> list[tuple[str, str]]:
    """Videos whose hold and charge are not what the ledger says of them: the id, and a sentence."""
    return [
        (row[0], f"the video says {row[1]} and {row[2]}, the ledger {row[3]} and {row[4]}") for row in tx.rows(_UNLIKE)
    ]
