"""Accepts a video: plan, hold, first due work, in one transaction; or nothing at all."""

from collections.abc import Sequence
from operator import attrgetter

import msgspec
import structlog

from proxy.core.clock import SECOND_US
from proxy.core.errors import InsufficientQuota, InvalidValue, Overloaded, RateLimited
from proxy.core.offer import Passed, Plan
from proxy.core.tenant import Caller
from proxy.core.video import Ask, Spec
from proxy.policy.budgets import UNBOUND, Crossed, Standing
from proxy.policy.plan import Decision, decide
from proxy.services import budgets, settle
from proxy.services.budgets import Admission
from proxy.services.house import House
from proxy.services.limits import Full, Room
from proxy.services.told import tell_crossed, tell_full, tell_refused
from proxy.store import ledger, tenants, videos, work
from proxy.store.base import Tx
from proxy.store.videos import Bound, Video

_log = structlog.get_logger("reelay.video")

IDEMPOTENCY_US = 24 * 3600 * SECOND_US
_QUOTE = attrgetter("quote_microusd")
MOST_TRIES = 50
"""So often may others be faster at a budget; each time one of them was accepted, or something cheaper is tried."""


class Acceptance(msgspec.Struct, frozen=True, kw_only=True):
    """A video about to be written, and the key that the client gave for it."""

    video: Video
    plan: Plan
    end_user: str | None
    """By its own name; None where there is none."""
    idempotency_key: str | None
    fingerprint: str
    tenant_limited: bool
    """Whether its tenant had a limit on what is under way, seconds ago."""
    key_limited: bool
    """The same of the key that asked."""


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """The video that the request stands for; `fresh` False where the key had stood for it before."""

    video: Video
    fresh: bool
    decision: Decision | None = None
    """What was decided, where it is fresh."""
    crossed: tuple[Crossed, ...] = ()
    """Shares of budgets that it has reached."""


class Quote(msgspec.Struct, frozen=True, kw_only=True):
    """What create would do with a request."""

    decision: Decision
    budget: Standing
    """Before it."""


async def quote(house: House, caller: Caller, ask: Ask) -> Quote:
    """What create would do with this request, and why. Buys and keeps nothing."""
    at = house.clock()
    budget = await _standing(house, caller, ask, at)
    decision = _decide(house, caller, ask, budget, at, explain=True)
    return Quote(decision=decision, budget=budget)


def _decide(house: House, caller: Caller, ask: Ask, budget: Standing, at: int, *, explain: bool = False) -> Decision:
    """Raises the errors of the resolver."""
    return decide(
        ask,
        caller.tenant,
        house.rules,
        at_us=at,
        budget=budget,
        chance=house.chance(),
        times=house.pulse.times,
        explain=explain,
    )


async def _standing(house: House, caller: Caller, ask: Ask, at: int) -> Standing:
    """How the caller's budgets stand before anything is held."""
    if not caller.budgeted:
        return UNBOUND
    tenant_id, name = caller.tenant.id, ask.end_user_id

    def unit(tx: Tx) -> Standing:
        # Somebody who was never heard of is an end user all the same.
        end_user = None if name is None else tenants.surrogate_of(tx, tenant_id, name) or "new"
        return budgets.look(tx, tenant_id, key_id=caller.key_id, end_user=end_user, at_us=at)

    return await house.store.read_now(unit)


async def accept(
    house: House,
    caller: Caller,
    ask: Ask,
    *,
    fingerprint: str,
    idempotency_key: str | None = None,
    request_id: str | None = None,
) -> Accepted:
    """
    The accepted video, committed; for a key that is known, its video, before anything is decided anew.

    `request_id` is noted with the video, for every line of the log about it.

    Raises the errors of the resolver, InsufficientQuota where a budget leaves too little, RateLimited where
    as many are under way as may be, InvalidValue for an idempotency key that stands for another request,
    Overloaded while draining, while a disk is nearly full or while too many videos wait for a seller.
    """
    if house.draining:
        raise Overloaded("The server is shutting down.", retry_after_s=2)
    known = await _known(house, caller, idempotency_key, fingerprint)
    if known is not None:
        return known
    if house.full:
        raise Overloaded("The server is short of room for more videos.", retry_after_s=60)
    budget = await _standing(house, caller, ask, house.clock())
    for _ in range(MOST_TRIES):
        at = house.clock()
        try:
            decision = _decide(house, caller, ask, budget, at)
        except InsufficientQuota:
            tell_refused(house, caller.tenant, budget)
            raise
        acceptance = _acceptance(
            house, caller, decision, at, fingerprint=fingerprint, key=idempotency_key, request_id=request_id
        )
        outcome = await house.store.write_grouped(accept_many, acceptance)
        if isinstance(outcome, Accepted):
            return _told(house, caller, outcome, decision)
        if isinstance(outcome, Full):
            # What left no room may have been this very request, sent twice at once.
            known = await _known(house, caller, idempotency_key, fingerprint)
            if known is not None:
                return known
            tell_full(house, caller.tenant, outcome)
            raise RateLimited(
                f"This {outcome.whose} may have {outcome.limit} videos under way at once.",
                retry_after_s=outcome.retry_after_s(decision.plan.candidates[0].expected_s),
            )
        # Others were faster, or a budget is new: what is left now decides anew who can be asked.
        budget = outcome
    raise Overloaded("Too many requests share this budget just now; nothing was bought.", retry_after_s=1)


async def _known(house: House, caller: Caller, key: str | None, fingerprint: str) -> Accepted | None:
    """What the key stands for already."""
    if key is None:
        return None
    since = house.clock() - IDEMPOTENCY_US
    return await house.store.read_now(lambda tx: repeated(tx, caller.tenant.id, key, fingerprint, since=since))


def _told(house: House, caller: Caller, accepted: Accepted, decision: Decision) -> Accepted:
    if not accepted.fresh:
        return accepted
    first = decision.plan.candidates[0]
    house.metrics.decision(rule=decision.plan.rule, provider=first.provider, reason=decision.plan.strategy)
    video = accepted.video
    _log.info(
        "video.accepted",
        video=video.id,
        tenant=caller.tenant.id,
        provider=first.provider,
        hold_microusd=video.hold_microusd,
    )
    tell_crossed(house, caller.tenant, accepted.crossed)
    house.due.set()
    return msgspec.structs.replace(accepted, decision=decision)


def _acceptance(
    house: House,
    caller: Caller,
    decision: Decision,
    at: int,
    *,
    fingerprint: str,
    key: str | None,
    request_id: str | None,
) -> Acceptance:
    spec, plan = decision.spec, decision.plan
    kept = msgspec.structs.replace(plan, candidates=plan.kept, excluded=(), dearest=_passed(plan))
    video = Video(
        id=f"video_{house.new_id(at)}",
        tenant_id=caller.tenant.id,
        key_id=caller.key_id,
        request_id=request_id,
        end_user=None if spec.end_user_id is None else house.new_id(at),
        status="queued",
        model=spec.model,
        prompt=spec.prompt,
        spec=videos.encode(_bare(spec)),
        metadata=videos.encode(spec.metadata) if spec.metadata else None,
        plan=videos.encode(kept),
        progress=0,
        created_at=at,
        deadline_at=at + plan.fallback.deadline_s * SECOND_US,
        hold="held",
        hold_microusd=plan.hold_microusd,
    )
    return Acceptance(
        video=video,
        plan=kept,
        end_user=spec.end_user_id,
        idempotency_key=key,
        fingerprint=fingerprint,
        tenant_limited=caller.tenant.videos_in_flight is not None,
        key_limited=caller.videos_in_flight is not None,
    )


def _passed(plan: Plan) -> Passed | None:
    """The dearest offer, where it is not among those that may be tried."""
    dearest = max(plan.candidates, key=_QUOTE)
    if any(dearest is one for one in plan.kept):
        return None
    return Passed(
        offer=dearest.offer,
        rates=dearest.rates,
        fixed_usd=dearest.fixed_usd,
        input_seconds=dearest.input_seconds,
    )


def _bare(spec: Spec) -> Spec:
    """What may be kept after its customer deleted the video."""
    return msgspec.structs.replace(spec, prompt="", end_user_id=None, metadata={})


def accept_many(tx: Tx, items: Sequence[Acceptance]) -> list[Accepted | Full | Standing]:
    """
    One statement a table for all that were asked for at this moment.

    For one that a limit refuses, that limit; for one that its budgets refuse, how they stand.
    """
    room = Room(
        tx,
        tenant_ids={item.video.tenant_id for item in items if item.tenant_limited},
        key_ids={item.video.key_id for item in items if item.key_limited and item.video.key_id is not None},
    )
    answers = [_repeated(tx, item) or room.take(item.video) for item in items]
    asked = [_with_end_user(tx, item) for item, answer in zip(items, answers, strict=True) if answer is None]
    admissions = budgets.admit_many(tx, [item.video for item in asked])
    fresh = [item for item, admission in zip(asked, admissions, strict=True) if admission.refused is None]
    rows = [item.video for item in fresh]
    videos.insert_many(tx, rows)
    work.add(tx, [(video.id, 0, video.created_at) for video in rows])
    ledger.write_many(tx, [settle.hold(item.video, item.plan) for item in fresh])
    videos.bind(tx, [bound for item in fresh if (bound := _binding(item)) is not None])
    written = iter(zip(asked, admissions, strict=True))
    return [answer or _outcome(*next(written)) for answer in answers]


def _outcome(item: Acceptance, admission: Admission) -> Accepted | Standing:
    return admission.refused or Accepted(video=item.video, fresh=True, crossed=admission.crossed)


def _repeated(tx: Tx, item: Acceptance) -> Accepted | None:
    if item.idempotency_key is None:
        return None
    tenant_id, key, since = item.video.tenant_id, item.idempotency_key, item.video.created_at - IDEMPOTENCY_US
    videos.unbind_older(tx, tenant_id, key, before=since)
    return repeated(tx, tenant_id, key, item.fingerprint, since=since)


def repeated(tx: Tx, tenant_id: str, key: str, fingerprint: str, *, since: int) -> Accepted | None:
    """What a key has stood for since then, whatever would be decided now. Raises InvalidValue for another request."""
    bound = videos.bound_to(tx, tenant_id, key)
    if bound is None or bound.created_at < since:
        return None
    if bound.fingerprint != fingerprint:
        raise InvalidValue("This Idempotency-Key stands for another request.", param="Idempotency-Key")
    video = videos.by_id(tx, bound.video_id)
    assert video is not None, "a bound video is never removed"
    return Accepted(video=video, fresh=False)


def _with_end_user(tx: Tx, item: Acceptance) -> Acceptance:
    """The acceptance with the end user's surrogate: the known one, or the new one that it brought."""
    if item.end_user is None or item.video.end_user is None:
        return item
    known = tenants.take_surrogate(tx, item.video.tenant_id, item.end_user)
    if known is None:
        tenants.insert_end_user(tx, item.video.tenant_id, item.end_user, item.video.end_user)
        return item
    return msgspec.structs.replace(item, video=msgspec.structs.replace(item.video, end_user=known))


def _binding(item: Acceptance) -> Bound | None:
    if item.idempotency_key is None:
        return None
    return Bound(
        tenant_id=item.video.tenant_id,
        key=item.idempotency_key,
        fingerprint=item.fingerprint,
        video_id=item.video.id,
        created_at=item.video.created_at,
    )
