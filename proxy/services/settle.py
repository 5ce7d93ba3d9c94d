"""Turns a hold into a charge or releases it, and writes who bears what sellers took. Inside transactions."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Literal

import msgspec

from proxy.core.attempt import Attempt
from proxy.core.money import MICRO
from proxy.core.offer import Candidate, Passed, Plan
from proxy.core.video import Footage, Spec
from proxy.policy.lifecycle import bearer
from proxy.policy.prices import Tariff, charge, differs, would_cost
from proxy.services import budgets
from proxy.store import ledger, settlements, videos
from proxy.store.base import Tx
from proxy.store.settlements import Outcome, Settlement
from proxy.store.videos import Video

CostOutcome = Literal["delivered", "failed", "undelivered", "abandoned", "double"]


class SellerCost(msgspec.Struct, frozen=True):
    """What one seller took for one attempt, for the metrics."""

    provider: str
    outcome: CostOutcome
    microusd: int


class Delivered(msgspec.Struct, frozen=True, kw_only=True):
    """A film that its tenant pays for, in the sums by which it is compared, for the metrics."""

    provider: str
    film_s: int
    """Billed."""
    expected_microusd: int
    """What the seller's price at accept makes of it."""
    charged_microusd: int
    at_first_microusd: int
    at_dearest_microusd: int


class Moved(msgspec.Struct, kw_only=True):
    """What a transaction changed, told to metrics and logs once it is committed."""

    ended: str | None = None
    """`completed`, or the video's failure."""
    charged_microusd: int = 0
    absorbed: list[tuple[str, int]] = msgspec.field(default_factory=list)
    costs: list[SellerCost] = msgspec.field(default_factory=list)
    attempts: list[Attempt] = msgspec.field(default_factory=list)
    """Those that have reached another state, as they now are."""
    differing: list[str] = msgspec.field(default_factory=list)
    """Providers that say they took another amount than their price makes."""
    delivered: Delivered | None = None


def candidate_of(plan: Plan, attempt: Attempt) -> Candidate:
    """The plan's figures for an attempt, as they were frozen at accept."""
    return next(candidate for candidate in plan.candidates if candidate.offer == attempt.offer)


def hold(video: Video, plan: Plan) -> tuple[ledger.Entry, ledger.Postings]:
    """The first transaction of every video."""
    return _entry(video, plan, "hold", 0, video.created_at), ledger.hold_postings(video.tenant_id, video.hold_microusd)


def complete(
    tx: Tx, video: Video, spec: Spec, attempt: Attempt, footage: Footage, moved: Moved, *, tolerance: str
) -> Attempt:
    """
    Charges the delivered attempt and ends the hold; the attempt with its cost settled.

    The film was made by the price frozen at accept; what was delivered short lowers it. `tolerance`: the
    ratio by which what the seller says may be off that price before somebody should look at it.
    """
    plan = video.read_plan()
    mine = candidate_of(plan, attempt)
    stated = attempt.cost_microusd if attempt.cost_stated else None
    bill = charge(
        mine,
        plan.markup,
        spec,
        delivered_seconds=footage.duration_ms / 1000,
        delivered_px=(footage.width_px, footage.height_px),
        stated_cost_microusd=stated,
        hold_microusd=video.hold_microusd,
    )
    off = stated is not None and differs(stated, bill.expected_microusd, tolerance)
    if off:
        moved.differing.append(attempt.provider)

    def at(other: Candidate | Passed) -> int:
        if other is mine:
            return bill.tenant_microusd
        return would_cost(other, plan.markup, spec, seconds=bill.billed_seconds, resolution=bill.billed_resolution)

    attempt = msgspec.structs.replace(attempt, cost_microusd=bill.seller_microusd, bearer="tenant")
    videos.save_attempt(tx, attempt)
    at_first_microusd = at(plan.candidates[0])
    at_dearest_microusd = at(plan.dearest or max(plan.candidates, key=lambda one: one.quote_microusd))
    lines = [
        _Line(
            attempt,
            bill.tenant_microusd,
            bill.seller_microusd,
            bill.overrun_microusd,
            bill.tariff,
            bill.billed_seconds,
            bill.billed_resolution,
            at_first_microusd=at_first_microusd,
            at_dearest_microusd=at_dearest_microusd,
            expected_microusd=None if stated is None else bill.expected_microusd,
            differs=off,
        )
    ]
    others = [other for other in videos.attempts_of(tx, video.id) if other.number != attempt.number]
    lines += _tenant_lines(others, plan.markup, room_microusd=video.hold_microusd - bill.tenant_microusd)
    _post(tx, video, plan, lines, moved)
    moved.costs.append(SellerCost(attempt.provider, "delivered", bill.seller_microusd))
    moved.delivered = Delivered(
        provider=attempt.provider,
        film_s=bill.billed_seconds,
        expected_microusd=bill.expected_microusd,
        charged_microusd=bill.tenant_microusd,
        at_first_microusd=at_first_microusd,
        at_dearest_microusd=at_dearest_microusd,
    )
    return attempt


def conclude(tx: Tx, video: Video, attempt: Attempt, moved: Moved, *, finished: bool) -> None:
    """
    Writes who bears an attempt that has ended and was not delivered, then ends the hold if it can.

    `finished`: the seller made the film, or counts as having made it. `video` is as it now is.
    """
    plan = video.read_plan()
    who = bearer(video.status, video.error_code, finished=finished, bill_failed_attempts=plan.bill_failed_attempts)
    if who == "tenant" and video.hold != "held":
        who = "absorbed:unknown"
    attempt = msgspec.structs.replace(attempt, bearer=who)
    videos.save_attempt(tx, erased(attempt) if video.erased else attempt)
    cost = attempt.cost_microusd
    if cost is not None:
        moved.costs.append(SellerCost(attempt.provider, _outcome(who, finished=finished), cost))
    if who != "tenant" and cost:
        entry = _entry(video, plan, "absorb", attempt.number, tx.now_us, attempt)
        ledger.write_many(tx, [(entry, ledger.absorb_postings(who, attempt.provider, cost))])
        reason: Any = who.removeprefix("absorbed:")
        row = _settlement(entry, video, plan, attempt, reason, seller_microusd=cost, absorbed_microusd=cost)
        settlements.insert_many(tx, [row])
        moved.absorbed.append((reason, cost))
    if not video.live and video.hold == "held":
        close(tx, video, moved)


def erased(attempt: Attempt) -> Attempt:
    """Without the seller's own words and link, which tell of what was erased."""
    return msgspec.structs.replace(attempt, message=None, link=None)


def _outcome(who: str, *, finished: bool) -> CostOutcome:
    if not finished:
        return "failed"
    by_bearer: dict[str, CostOutcome] = {"absorbed:double": "double", "absorbed:undelivered": "undelivered"}
    return by_bearer.get(who, "abandoned")


def close(tx: Tx, video: Video, moved: Moved) -> bool:
    """
    Ends the hold of a video that failed, once nothing can be billed for it any more.

    False while an attempt may still be billed to the tenant: until then the hold stays. A purchase of
    unknown end keeps it no longer than to the deadline.
    """
    plan, attempts = video.read_plan(), videos.attempts_of(tx, video.id)
    if video.error_code == "cancelled" and _may_be_billed(attempts, late=tx.now_us >= video.deadline_at):
        return False
    lines = _tenant_lines(attempts, plan.markup, room_microusd=video.hold_microusd)
    if lines:
        _post(tx, video, plan, lines, moved)
    else:
        refers_to = ledger.entry_id(video.id, 0, "hold")
        entry = msgspec.structs.replace(_entry(video, plan, "void", 0, tx.now_us), refers_to=refers_to)
        _end_hold(tx, video, "void", 0)
        ledger.write_many(tx, [(entry, ledger.void_postings(video.tenant_id, video.hold_microusd))])
    return True


def _end_hold(tx: Tx, video: Video, end: Literal["posted", "void"], charged_microusd: int) -> None:
    """Raises RuntimeError for a hold that has ended: it undoes the unit, and so the second charge."""
    if not videos.settle(tx, video.id, end, charged_microusd):
        raise RuntimeError(f"the hold of {video.id} has ended before")
    budgets.moved(tx, video, charged_microusd - video.hold_microusd)


def _may_be_billed(attempts: Sequence[Attempt], *, late: bool) -> bool:
    waiting = {"sending", "running"} if late else {"sending", "running", "unknown", "lost"}
    return any(attempt.state in waiting or (attempt.state == "done" and attempt.bearer is None) for attempt in attempts)


class _Line(msgspec.Struct, frozen=True):
    """One charge to a tenant."""

    attempt: Attempt
    charge_microusd: int
    seller_microusd: int
    overrun_microusd: int
    tariff: Tariff
    billed_seconds: int | None = None
    """None: nothing was delivered for it."""
    billed_resolution: str | None = None
    at_first_microusd: int = 0
    at_dearest_microusd: int = 0
    expected_microusd: int | None = None
    differs: bool = False

    @property
    def markup_microusd(self) -> int:
        """Ours; below zero where a seller takes more than is charged and absorbed."""
        return self.charge_microusd + self.overrun_microusd - self.seller_microusd


def _tenant_lines(attempts: Sequence[Attempt], markup: str, *, room_microusd: int) -> list[_Line]:
    """What attempts that were not delivered cost their tenant, together at most what the hold has room for."""
    lines = []
    factor = 1 + Decimal(markup)
    for attempt in attempts:
        cost = attempt.cost_microusd
        if attempt.bearer != "tenant" or not cost:
            continue
        tariff = Tariff(quantity=1, unit_usd=f"{Decimal(cost) / MICRO * factor:f}", fixed_usd="0")
        full = tariff.microusd()
        charged = min(full, room_microusd)
        room_microusd -= charged
        # What does not fit is the seller's part first: our markup is not worth absorbing.
        overrun = max(0, cost - charged)
        lines.append(_Line(attempt, charged, cost, overrun, tariff))
    return lines


def _post(tx: Tx, video: Video, plan: Plan, lines: Sequence[_Line], moved: Moved) -> None:
    entries: list[tuple[ledger.Entry, ledger.Postings]] = []
    rows: list[Settlement] = []
    for place, line in enumerate(lines):
        postings = ledger.charge_postings(
            video.tenant_id,
            line.attempt.provider,
            charge_microusd=line.charge_microusd,
            seller_microusd=line.seller_microusd,
            overrun_microusd=line.overrun_microusd,
        )
        if place == 0:
            postings = {**postings, **ledger.void_postings(video.tenant_id, video.hold_microusd)}
        entry = _entry(video, plan, "bill" if place else "post", line.attempt.number, tx.now_us, line.attempt)
        refers_to = ledger.entry_id(video.id, 0, "hold")
        entry = msgspec.structs.replace(
            entry,
            billed_seconds=line.billed_seconds,
            quantity=line.tariff.quantity,
            unit_usd=line.tariff.unit_usd,
            fixed_usd=line.tariff.fixed_usd,
            refers_to=refers_to,
        )
        entries.append((entry, postings))
        rows.append(_charged(entry, video, plan, line))
        moved.charged_microusd += line.charge_microusd
        if line.overrun_microusd:
            moved.absorbed.append(("overrun", line.overrun_microusd))
    _end_hold(tx, video, "posted", sum(line.charge_microusd for line in lines))
    ledger.write_many(tx, entries)
    settlements.insert_many(tx, rows)


def _charged(entry: ledger.Entry, video: Video, plan: Plan, line: _Line) -> Settlement:
    return _settlement(
        entry,
        video,
        plan,
        line.attempt,
        "billed" if line.billed_seconds is None else "delivered",
        line.billed_resolution,
        seconds=line.billed_seconds or 0,
        charged_microusd=line.charge_microusd,
        seller_microusd=line.seller_microusd,
        markup_microusd=line.markup_microusd,
        absorbed_microusd=line.overrun_microusd,
        at_first_microusd=line.at_first_microusd,
        at_dearest_microusd=line.at_dearest_microusd,
        expected_microusd=line.expected_microusd,
        differs=int(line.differs),
    )


def _settlement(
    entry: ledger.Entry,
    video: Video,
    plan: Plan,
    attempt: Attempt,
    outcome: Outcome,
    resolution: str | None = None,
    *,
    seller_microusd: int,
    **sums: Any,
) -> Settlement:
    """`resolution`: what is billed; None: what was asked."""
    spec = video.read_spec()
    return Settlement(
        id=entry.id,
        kind=entry.kind,  # type: ignore[arg-type]  # a hold and its void cost nothing
        at=entry.at,
        end_user=video.end_user or "",
        tenant_id=video.tenant_id,
        key_id=video.key_id or "",
        provider=attempt.provider,
        model=video.model,
        tier=candidate_of(plan, attempt).tier,
        operation=spec.operation,
        resolution=resolution or spec.resolution,
        rule=plan.rule,
        outcome=outcome,
        seller_microusd=seller_microusd,
        assumed_microusd=0 if attempt.cost_stated else seller_microusd,
        metadata=None if video.metadata is None else video.metadata.decode(),
        **sums,
    )


def _entry(
    video: Video, plan: Plan, kind: ledger.Kind, attempt_no: int, at: int, attempt: Attempt | None = None
) -> ledger.Entry:
    return ledger.Entry(
        id=ledger.entry_id(video.id, attempt_no, kind),
        kind=kind,
        video_id=video.id,
        attempt_no=attempt_no,
        at=at,
        tenant_id=video.tenant_id,
        end_user=video.end_user,
        provider=None if attempt is None else attempt.provider,
        model=video.model,
        price_id=None if attempt is None else candidate_of(plan, attempt).price_id,
        book_hash=plan.book_hash,
        rules_hash=plan.rules_hash,
    )
