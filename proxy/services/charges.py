"""The charges and refunds of a tenant's month, one by one: what a statement is added up from."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

import msgspec

from proxy.core import sheets
from proxy.core.clock import SECOND_US, iso
from proxy.core.errors import InvalidValue
from proxy.core.ids import sha256_hex
from proxy.core.money import usd_text
from proxy.core.sheets import safe
from proxy.store import statements
from proxy.store.base import Store
from proxy.store.statements import Detail

PAGE = 2000


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """A month in UTC, from its first microsecond to that of the next."""

    month: str
    start: int
    end: int


def read_month(text: str) -> Span:
    """From text such as 2026-11. Raises InvalidValue."""
    try:
        begin = datetime.strptime(text, "%Y-%m").replace(tzinfo=UTC)
        after = begin.replace(year=begin.year + begin.month // 12, month=begin.month % 12 + 1)
    except ValueError:
        begin = after = datetime.min.replace(tzinfo=UTC)
    if f"{begin:%Y-%m}" != text:
        raise InvalidValue("'month' must be a month such as 2026-11.", param="month")
    start, end = (int(moment.timestamp()) * SECOND_US for moment in (begin, after))
    return Span(month=text, start=start, end=end)


COLUMNS = (
    "transaction",
    "at",
    "video",
    "end_user_ref",
    "key",
    "model",
    "tier",
    "operation",
    "resolution",
    "outcome",
    "seconds",
    "price_ref",
    "quantity",
    "unit_usd",
    "fixed_usd",
    "amount_usd",
    "corrects",
    "reason",
)


def net(row: Detail) -> int:
    """Micro-dollars that the tenant owes for it; below zero for a refund."""
    return row.charged_microusd - row.refunded_microusd


def _row(row: Detail) -> tuple[object, ...]:
    return (
        row.id,
        iso(row.at),
        row.id.split("/")[0],
        row.end_user,
        row.key_id,
        row.model,
        row.tier,
        row.operation,
        row.resolution,
        row.outcome,
        row.seconds,
        None if row.price_id is None else sha256_hex(row.price_id.encode())[:12],
        row.quantity,
        row.unit_usd,
        row.fixed_usd,
        usd_text(net(row)),
        row.refers_to if row.kind == "refund" else None,
        safe(row.reason),
    )


async def pages(store: Store, tenant_id: str, span: Span) -> AsyncIterator[list[Detail]]:
    """By end user and time."""
    last: Detail | None = None
    while True:
        page = await store.read(
            lambda tx, last=last: statements.details(  # type: ignore[misc]  # the default binds this turn's mark
                tx, tenant_id, start=span.start, end=span.end, after=last, most=PAGE
            )
        )
        yield page
        if len(page) < PAGE:
            return
        last = page[-1]


HEAD = sheets.as_csv([COLUMNS])
"""The first line of the file of charges."""


def as_csv(rows: Sequence[Detail]) -> str:
    """Further lines of it."""
    return sheets.as_csv([_row(row) for row in rows])


async def charges_file(store: Store, tenant_id: str, span: Span) -> AsyncIterator[str]:
    """
    CSV of every charge and refund of a month, by end user and time; of a closed month always the same bytes.

    It names no seller, for not every tenant may know them: `price_ref` tells one price from another, and
    the ledger has the price's id under the transaction.
    """
    yield HEAD
    async for page in pages(store, tenant_id, span):
        yield as_csv(page)
