"""The books are gone through as an auditor would: every rule that the money keeps is worked out again."""

from collections.abc import Iterator

import msgspec

from proxy.core.money import usd_text
from proxy.policy.prices import Tariff
from proxy.store import audit, budgets, ledger
from proxy.store.base import Store, Tx


class Doubt(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is not as it has to be."""

    what: str
    """unbalanced, held, charge, end or counter."""
    subject: str
    detail: str


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """What was gone through, and what was found."""

    charges: int
    charged_usd: str
    doubts: tuple[Doubt, ...]


async def go_through(store: Store) -> Audit:
    """All of it, at one moment."""

    def unit(tx: Tx) -> Audit:
        every = list(audit.charges(tx))
        doubts = [*_unbalanced(tx), *_held(tx), *_ends(tx), *_counters(tx)]
        doubts += [doubt for one in every if (doubt := _recomputed(one)) is not None]
        charged = sum(one.spent_microusd for one in every)
        return Audit(charges=len(every), charged_usd=usd_text(charged), doubts=tuple(doubts))

    return await store.read(unit)


def _unbalanced(tx: Tx) -> Iterator[Doubt]:
    for subject, microusd in audit.unbalanced(tx):
        yield Doubt(what="unbalanced", subject=subject, detail=f"the postings sum to ${usd_text(microusd)}")


def _held(tx: Tx) -> Iterator[Doubt]:
    balances = ledger.balances(tx)
    for tenant_id, held in ledger.held_by_videos(tx).items():
        booked = balances.get(f"tenant:{tenant_id}:held", 0)
        if booked != held:
            detail = f"the ledger holds ${usd_text(booked)}, the videos ${usd_text(held)}"
            yield Doubt(what="held", subject=tenant_id, detail=detail)


def _ends(tx: Tx) -> Iterator[Doubt]:
    for subject, detail in audit.unlike_their_ends(tx):
        yield Doubt(what="end", subject=subject, detail=detail)


def _counters(tx: Tx) -> Iterator[Doubt]:
    for key, used in budgets.every_counter(tx):
        spent = budgets.spent(tx, key, held_still=False)
        if used != spent:
            subject = "/".join(part for part in (key.tenant_id, key.whose, key.subject, key.period) if part)
            detail = f"the counter says ${usd_text(used)}, the videos ${usd_text(spent)}"
            yield Doubt(what="counter", subject=subject, detail=detail)


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
