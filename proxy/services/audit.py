"""The books are gone through as an auditor would: every rule that the money keeps is worked out again."""

from collections.abc import Iterator

import msgspec

from proxy.core.clock import DAY_US, iso
from proxy.core.money import usd_text
from proxy.policy.prices import Tariff
from proxy.services.statements import told_wrongly
from proxy.store import audit, budgets, ledger, settlements, tenants
from proxy.store.base import Store, Tx

DRIFT = "ledger_drift_microusd"
"""The fact that tells by how much the books differ in themselves, as far as they were compared."""
CHECKED_AT = "ledger_checked_at"
"""And when they were; microseconds."""


_EVER = 2**62
_COSTS_EACH = 50_000


class Doubt(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is not as it has to be."""

    what: str
    """unbalanced, settlement, day, statement, held, charge, end or counter."""
    subject: str
    detail: str
    microusd: int = 0
    """By how much the books differ in themselves."""


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """What was gone through, and what was found."""

    charges: int
    charged_usd: str
    doubts: tuple[Doubt, ...]


async def go_through(store: Store) -> Audit:
    """
    All of it, at one moment, and then the statements of closed months.

    What a scrape shows of the books is right again after that.
    """

    def unit(tx: Tx) -> Audit:
        doubts = [doubt for start, end in _spans(tx) for doubt in _unlike(tx, start, end)]
        doubts += [*_days(tx), *_held(tx), *_ends(tx), *_counters(tx)]
        count = charged = 0
        for one in audit.charges(tx):
            count, charged = count + 1, charged + one.spent_microusd
            doubts += [doubt] if (doubt := _recomputed(one)) is not None else []
        return Audit(charges=count, charged_usd=usd_text(charged), doubts=tuple(doubts))

    found = await store.read(unit)
    told = [
        Doubt(what="statement", subject=number, detail="its charges come to something else", microusd=microusd)
        async for number, microusd in told_wrongly(store)
    ]
    found = msgspec.structs.replace(found, doubts=(*found.doubts, *told))
    drift = sum(doubt.microusd for doubt in found.doubts)
    await store.write(lambda tx: _note(tx, drift))
    return found


class Glance(msgspec.Struct, frozen=True, kw_only=True):
    """As much of an audit as takes no time: the last day, and what was found the last time."""

    drift_microusd: int
    checked_at: int | None
    """Microseconds; None: never."""
    doubts: tuple[Doubt, ...]


async def glance(store: Store, *, now_us: int) -> Glance:
    """Changes nothing."""

    def unit(tx: Tx) -> Glance:
        checked_at = tenants.fact(tx, CHECKED_AT)
        return Glance(
            drift_microusd=int(tenants.fact(tx, DRIFT) or 0),
            checked_at=None if checked_at is None else int(checked_at),
            doubts=tuple(_unlike(tx, now_us - DAY_US, _EVER)),
        )

    return await store.read(unit)


def _spans(tx: Tx) -> Iterator[tuple[int, int]]:
    """All of time, cut so that one statement goes through so many costs."""
    start = 0
    while start < _EVER:
        end = settlements.cut(tx, start=start, end=_EVER, rows=_COSTS_EACH)
        yield start, end
        start = end


def compare(tx: Tx, *, start: int, end: int) -> None:
    """Whether the postings of a span sum to zero, and reports tell the same; what differs adds to the drift."""
    drift = sum(doubt.microusd for doubt in _unlike(tx, start, end))
    _note(tx, int(tenants.fact(tx, DRIFT) or 0) + drift)


def _note(tx: Tx, drift_microusd: int) -> None:
    tenants.put_fact(tx, DRIFT, str(drift_microusd))
    tenants.put_fact(tx, CHECKED_AT, str(tx.now_us))


def _unlike(tx: Tx, start: int, end: int) -> Iterator[Doubt]:
    for subject, microusd in audit.unbalanced(tx, start=start, end=end):
        detail = f"the postings sum to ${usd_text(microusd)}"
        yield Doubt(what="unbalanced", subject=subject, detail=detail, microusd=abs(microusd))
    for subject, microusd in audit.unlike_settled(tx, start=start, end=end):
        detail = f"reports and postings differ by ${usd_text(microusd)}"
        yield Doubt(what="settlement", subject=subject, detail=detail, microusd=microusd)


def _days(tx: Tx) -> Iterator[Doubt]:
    for day, microusd in settlements.unlike_days(tx):
        detail = f"its sums and its settlements differ by ${usd_text(microusd)}"
        yield Doubt(what="day", subject=iso(day * DAY_US)[:10], detail=detail, microusd=microusd)


def _held(tx: Tx) -> Iterator[Doubt]:
    balances = ledger.balances(tx)
    for tenant_id, held in ledger.held_by_videos(tx).items():
        booked = balances.get(f"tenant:{tenant_id}:held", 0)
        if booked != held:
            detail = f"the ledger holds ${usd_text(booked)}, the videos ${usd_text(held)}"
            yield Doubt(what="held", subject=tenant_id, detail=detail, microusd=abs(booked - held))


def _ends(tx: Tx) -> Iterator[Doubt]:
    for subject, detail in audit.unlike_their_ends(tx):
        yield Doubt(what="end", subject=subject, detail=detail)


def _counters(tx: Tx) -> Iterator[Doubt]:
    for key, used in budgets.every_counter(tx):
        spent = budgets.spent(tx, key, held_still=False)
        if used != spent:
            subject = "/".join(part for part in (key.tenant_id, key.whose, key.subject, key.period) if part)
            detail = f"the counter says ${usd_text(used)}, the videos ${usd_text(spent)}"
            yield Doubt(what="counter", subject=subject, detail=detail, microusd=abs(used - spent))


def _recomputed(charge: audit.ChargeRow) -> Doubt | None:
    if charge.price_id is None or charge.quantity is None or charge.unit_usd is None or charge.fixed_usd is None:
        return Doubt(what="charge", subject=charge.id, detail="it does not say how it came about")
    tariff = Tariff(quantity=charge.quantity, unit_usd=charge.unit_usd, fixed_usd=charge.fixed_usd)
    full = min(tariff.microusd(), charge.hold_microusd)
    # What else is billed for a video has what is left of its hold.
    right = charge.spent_microusd == full if charge.kind == "post" else 0 <= charge.spent_microusd <= full
    if right:
        return None
    detail = f"${usd_text(charge.spent_microusd)} was charged; quantity and unit price make ${usd_text(full)}"
    return Doubt(what="charge", subject=charge.id, detail=detail)
