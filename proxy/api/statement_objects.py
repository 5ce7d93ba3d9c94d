"""Statements as programs read them: JSON and CSV."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgspec
from msgspec.structs import asdict

from proxy.core import sheets
from proxy.core.clock import iso
from proxy.core.money import usd_text
from proxy.core.sheets import safe
from proxy.services.statements import RefundLine, SkuLine, Statement

COLUMNS = (
    "statement",
    "kind",
    "model",
    "tier",
    "operation",
    "resolution",
    "outcome",
    "unit_usd",
    "end_user",
    "end_user_ref",
    "videos",
    "seconds",
    "exact_usd",
    "amount_usd",
    "corrects",
    "reason",
)
"""Of the CSV. The kinds sku, refund and rounding add up to the total; end_user tells the exact total once more."""

Names = Mapping[str, str | None]
"""End users' surrogates to names; None once erased."""


def cents_text(cents: int) -> str:
    """As in 1234.50 or -0.07."""
    sign = "-" if cents < 0 else ""
    return f"{sign}{abs(cents) // 100}.{abs(cents) % 100:02}"


def name_of(end_user: str, names: Names) -> str | None:
    """Of an end user; a surrogate says that it was erased, None that there was none."""
    if not end_user:
        return None
    return names.get(end_user) or f"erased-{end_user}"


class SkuObject(msgspec.Struct, frozen=True, kw_only=True):
    """What was bought of one kind at one price."""

    model: str
    tier: str
    operation: str
    resolution: str
    outcome: str
    """delivered; billed: cancelled, or a failed attempt that the rules bill."""
    unit_usd: str | None
    """For a second; null where that times the seconds is not what was charged."""
    videos: int
    seconds: int
    exact_usd: str
    amount_usd: str


class RefundedObject(msgspec.Struct, frozen=True, kw_only=True):
    """What was given back."""

    id: str
    at: str
    charge: str
    charged_at: str
    corrects: str | None
    """Number of the statement on which the charge stands; null: this one, or that of a month still open."""
    reason: str
    exact_usd: str
    amount_usd: str


class EndUserObject(msgspec.Struct, frozen=True, kw_only=True):
    """What one end user cost."""

    end_user: str | None
    end_user_ref: str | None
    """Stays when the name is erased."""
    videos: int
    charged_usd: str
    refunded_usd: str


class StatementObject(msgspec.Struct, frozen=True, kw_only=True):
    """What a tenant pays for a month; amounts are decimal strings in USD."""

    object: Literal["statement"] = "statement"
    number: str | None
    """Null: a draft."""
    final: bool
    tenant: str
    tenant_name: str
    month: str
    start: str
    end: str
    """Without it."""
    currency: Literal["USD"] = "USD"
    made_at: str
    software: str
    price_books: tuple[str, ...]
    lines: tuple[SkuObject, ...]
    refunds: tuple[RefundedObject, ...]
    rounding_usd: str
    total_usd: str
    """To be paid; rounded once, from the exact sum."""
    exact_usd: str
    end_users: tuple[EndUserObject, ...]
    held_usd: str
    """Still held, when this was made, for videos accepted before the month's end."""
    charges: int
    """Rows of the file of charges."""
    charges_sha256: str


def as_object(statement: Statement, names: Names) -> StatementObject:
    """The statement as JSON tells it."""
    return StatementObject(
        number=statement.number,
        final=statement.number is not None,
        tenant=statement.tenant_id,
        tenant_name=statement.tenant_name,
        month=statement.month,
        start=iso(statement.start),
        end=iso(statement.end),
        made_at=iso(statement.made_at),
        software=statement.software,
        price_books=statement.books,
        lines=tuple(map(_sku, statement.lines)),
        refunds=tuple(map(_refund, statement.refunds)),
        rounding_usd=cents_text(statement.rounding_cents),
        total_usd=cents_text(statement.total_cents),
        exact_usd=usd_text(statement.total_microusd),
        end_users=tuple(
            EndUserObject(
                end_user=name_of(line.end_user, names),
                end_user_ref=line.end_user or None,
                videos=line.videos,
                charged_usd=usd_text(line.charged_microusd),
                refunded_usd=usd_text(line.refunded_microusd),
            )
            for line in statement.end_users
        ),
        held_usd=usd_text(statement.held_microusd),
        charges=statement.charges,
        charges_sha256=statement.charges_sha256,
    )


def _sku(line: SkuLine) -> SkuObject:
    return SkuObject(
        model=line.model,
        tier=line.tier,
        operation=line.operation,
        resolution=line.resolution,
        outcome=line.outcome,
        unit_usd=line.unit_usd,
        videos=line.videos,
        seconds=line.seconds,
        exact_usd=usd_text(line.microusd),
        amount_usd=cents_text(line.cents),
    )


def _refund(line: RefundLine) -> RefundedObject:
    return RefundedObject(
        id=line.id,
        at=iso(line.at),
        charge=line.charge,
        charged_at=iso(line.charged_at),
        corrects=line.corrects,
        reason=line.reason,
        exact_usd=usd_text(line.microusd),
        amount_usd=cents_text(line.cents),
    )


def as_csv(statement: Statement, names: Names) -> str:
    """A row a line; see COLUMNS."""
    rows = [{"statement": statement.number or "draft", **row} for row in _csv_rows(statement, names)]
    return sheets.as_csv([COLUMNS, *([row.get(name) for name in COLUMNS] for row in rows)])


def _csv_rows(statement: Statement, names: Names) -> Iterable[dict[str, Any]]:
    for line in statement.lines:
        yield {"kind": "sku", **asdict(_sku(line))}
    for refund in statement.refunds:
        yield {"kind": "refund", **asdict(_refund(refund)), "reason": safe(refund.reason)}
    yield {"kind": "rounding", "amount_usd": cents_text(statement.rounding_cents)}
    exact = usd_text(statement.total_microusd)
    yield {"kind": "total", "exact_usd": exact, "amount_usd": cents_text(statement.total_cents)}
    for user in statement.end_users:
        yield {
            "kind": "end_user",
            "end_user": safe(name_of(user.end_user, names)),
            "end_user_ref": user.end_user,
            "videos": user.videos,
            "exact_usd": usd_text(user.charged_microusd - user.refunded_microusd),
        }
