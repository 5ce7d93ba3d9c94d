"""Gives a tenant back what it was charged, or a part of it: a new transaction, which names the charge."""

import msgspec

from proxy.core.errors import InvalidValue, MissingParameter, NotFound
from proxy.core.ids import sha256_hex
from proxy.core.money import ABSURD_USD, MICRO, exact_microusd, usd_text
from proxy.services.acts import REASON_MAX_CHARS, Clerk, check_text
from proxy.store import ledger, settlements, videos
from proxy.store.base import Store, Tx
from proxy.store.settlements import Settlement


class RefundWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is given back of one charge."""

    amount_usd: str
    attempt: int | None = None
    """Number of the attempt that was charged; None: the video's only one."""
    reason: str
    """Stands on the tenant's statement."""


class Refund(msgspec.Struct, frozen=True, kw_only=True):
    """What was given back."""

    id: str
    charge: str
    """The transaction that it corrects."""
    amount_microusd: int
    left_microusd: int
    """What may still be given back of that charge."""


async def refund(
    store: Store, clerk: Clerk, *, actor: str, video_id: str, wish: RefundWish, idempotency_key: str | None = None
) -> Refund:
    """
    It stands in the month in which it is made, whatever month the charge stands in.

    No budget gets it back. The same key stands for the same refund of a video, for ever. Raises NotFound,
    InvalidValue, MissingParameter.
    """
    check_text("reason", wish.reason, REASON_MAX_CHARS)
    if not wish.reason.strip():
        raise MissingParameter("A refund says why: 'reason'.", param="reason")
    amount = _amount(wish.amount_usd)

    def unit(tx: Tx) -> Refund:
        video = videos.take(tx, video_id)
        costs = [] if video is None else settlements.of_video(tx, video_id)
        charge = _charge(video_id, costs, wish.attempt)
        before = [one for one in costs if one.kind == "refund" and _attempt_of(one) == _attempt_of(charge)]
        left = charge.charged_microusd - sum(one.refunded_microusd for one in before)
        number = _attempt_of(charge)
        name = str(len(before) + 1) if idempotency_key is None else f"key-{sha256_hex(idempotency_key.encode())[:16]}"
        refund_id = f"{video_id}/{number}/refund-{name}"
        known = next((one for one in before if one.id == refund_id), None)
        if known is not None:
            if known.refunded_microusd != amount:
                raise InvalidValue("This Idempotency-Key stands for another refund.", param="Idempotency-Key")
            return Refund(id=known.id, charge=charge.id, amount_microusd=amount, left_microusd=left)
        if amount > left:
            raise InvalidValue(f"No more than ${usd_text(left)} is left to give back.", param="amount_usd")
        assert video is not None, "it was charged"
        origin = ledger.entry_of(tx, charge.id)
        entry = ledger.Entry(
            id=refund_id,
            kind="refund",
            video_id=video_id,
            attempt_no=number,
            at=tx.now_us,
            tenant_id=video.tenant_id,
            end_user=video.end_user,
            provider=charge.provider,
            model=charge.model,
            price_id=origin.price_id,
            book_hash=origin.book_hash,
            rules_hash=origin.rules_hash,
            refers_to=charge.id,
            reason=wish.reason,
        )
        ledger.write_many(tx, [(entry, ledger.refund_postings(video.tenant_id, amount))])
        settlements.insert_many(tx, [_settlement(entry, charge, amount)])
        videos.give_back(tx, video_id, (video.refunded_microusd or 0) + amount)
        after = {"charge": charge.id, "amount_usd": usd_text(amount)}
        clerk.record(tx, actor, "charge.refund", entry.id, None, after, wish.reason)
        return Refund(id=entry.id, charge=charge.id, amount_microusd=amount, left_microusd=left - amount)

    return await store.write(unit)


def _amount(text: str) -> int:
    """Exact: a part of a micro-dollar is refused, not rounded."""
    exact = exact_microusd(text, most=int(ABSURD_USD * MICRO))
    if not exact:
        raise InvalidValue("'amount_usd' is USD above 0 with six decimals at most.", param="amount_usd")
    return exact


def _attempt_of(cost: Settlement) -> int:
    return int(cost.id.split("/")[1])


def _charge(video_id: str, costs: list[Settlement], attempt: int | None) -> Settlement:
    charges = [one for one in costs if one.kind in {"post", "bill"}]
    if not charges:
        raise NotFound(f"Nothing was charged for a video {video_id[:80]!r}.")
    those = [one for one in charges if attempt is None or _attempt_of(one) == attempt]
    if not those:
        numbers = ", ".join(str(_attempt_of(one)) for one in charges)
        raise InvalidValue(f"That attempt was not charged; charged were: {numbers}.", param="attempt")
    if len(those) > 1:
        numbers = ", ".join(str(_attempt_of(one)) for one in those)
        raise MissingParameter(f"Several attempts were charged; 'attempt' says which: {numbers}.", param="attempt")
    return those[0]


def _settlement(entry: ledger.Entry, charge: Settlement, amount_microusd: int) -> Settlement:
    return Settlement(
        id=entry.id,
        kind="refund",
        at=entry.at,
        end_user=charge.end_user,
        tenant_id=charge.tenant_id,
        key_id=charge.key_id,
        provider=charge.provider,
        model=charge.model,
        tier=charge.tier,
        operation=charge.operation,
        resolution=charge.resolution,
        rule=charge.rule,
        outcome="refunded",
        refunded_microusd=amount_microusd,
        metadata=charge.metadata,
    )
