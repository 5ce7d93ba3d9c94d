"""
The double-entry ledger: every transaction's postings sum to zero, and none is ever changed.

A video's money goes through `hold` and then exactly one of `post` and `void`. What a tenant pays for
further attempts of the same video is a `bill` each, what no tenant pays an `absorb` each, and what is
given back of a charge a `refund` each. A hold moves
money from the tenant's credits to its held account; a post gives the hold back and writes what is
spent against what the seller takes and our markup.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
from sqlalchemy import bindparam, case, func, insert, select

from proxy.store.base import Statement, Tx
from proxy.store.tables import ledger_postings, ledger_transactions, tenants, videos

Kind = Literal["hold", "post", "bill", "void", "absorb", "refund"]


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
    reason: str | None = None


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


def refund_postings(tenant_id: str, amount_microusd: int) -> Postings:
    """What we give back, at our own cost."""
    return {f"tenant:{tenant_id}:spend": -amount_microusd, "adjustments": amount_microusd}


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


_BY_ID = Statement(
    select(*(ledger_transactions.c[name] for name in _ENTRY)).where(ledger_transactions.c.id == bindparam("id"))
)


def entry_of(tx: Tx, transaction_id: str) -> Entry:
    """A transaction that was written."""
    row = tx.one(_BY_ID, id=transaction_id)
    assert row is not None, "it was written"
    return Entry(**dict(zip(_ENTRY, row, strict=True)))


# Balances

_AMOUNT = ledger_postings.c.amount_microusd
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
