"""Tells metrics and logs what a committed transaction has changed."""

import logging
from collections.abc import Iterable

import msgspec
import structlog

from proxy.core.attempt import Attempt
from proxy.core.budget import Budget
from proxy.core.tenant import Tenant
from proxy.policy.budgets import WHOLE, Crossed, Standing
from proxy.policy.pace import times_of
from proxy.services.house import House
from proxy.services.limits import Full
from proxy.services.settle import Moved
from proxy.store.base import Change
from proxy.store.videos import Video

_log = structlog.get_logger("reelay.video")

_LEVELS = {("attempt", "unknown"): logging.WARNING, ("attempt", "lost"): logging.ERROR}
"""An operator has to look at those."""


def tell(house: House, video: Video, moved: Moved) -> None:
    """Once, after the commit."""
    note(house, video, *moved.attempts)
    metrics = house.metrics
    tenant = metrics.tenant_label(video.tenant_id)
    for cost in moved.costs:
        metrics.seller_cost(provider=cost.provider, model=video.model, outcome=cost.outcome, microusd=cost.microusd)
    for reason, microusd in moved.absorbed:
        metrics.absorbed(reason=reason, microusd=microusd)
        _log.warning("cost.absorbed", video=video.id, reason=reason, microusd=microusd)
    if moved.delivered is not None:
        metrics.delivered(model=video.model, **msgspec.structs.asdict(moved.delivered))
    for provider in moved.differing:
        metrics.cost_differs(provider=provider)
        _log.warning("cost.differs", video=video.id, provider=provider)
    if moved.charged_microusd:
        metrics.charged(tenant=tenant, model=video.model, microusd=moved.charged_microusd)
    if moved.ended is not None:
        house.waiting.ended(video.id)
        seconds = (house.clock() - video.created_at) / 1_000_000
        metrics.video_ended(
            model=video.model,
            outcome=moved.ended,
            tenant=tenant,
            seconds=seconds if moved.ended == "completed" else None,
        )


def tell_changes(changes: Iterable[Change]) -> None:
    """
    A line for each, once, after the commit: `attempt.unknown`, `video.completed`, `hold.posted`.

    `request` is the one at hand that changed it; where none did, the one that had asked for the video.
    """
    at_hand = structlog.contextvars.get_contextvars().get("request")
    for one in changes:
        attempt = {"attempt": one.attempt_no} if one.attempt_no else {}
        _log.log(
            _LEVELS.get((one.what, one.state), logging.INFO),
            f"{one.what}.{one.state}",
            video=one.video_id,
            **attempt,
            tenant=one.tenant_id,
            request=at_hand or one.request_id,
            was=one.was,
            **one.facts,
        )


def tell_refused(house: House, tenant: Tenant, budget: Standing) -> None:
    """A request found too little left."""
    tightest = budget.tightest
    if tightest is None:
        return
    house.metrics.budget_rejected(tenant=tenant.id, reason=_bound(tightest))
    _log.info("budget.refused", tenant=tenant.id, budget=tightest.id, left_microusd=budget.left_microusd)


def tell_full(house: House, tenant: Tenant, full: Full) -> None:
    """A request found as much under way as may be."""
    house.metrics.rate_limited(tenant=tenant.id, reason=f"{full.whose}_in_flight")
    _log.info("limit.refused", tenant=tenant.id, whose=full.whose, videos=full.limit)


def tell_crossed(house: House, tenant: Tenant, shares: Iterable[Crossed]) -> None:
    """Once, after the commit of the video that reached them."""
    for one in shares:
        if one.share == WHOLE:
            house.metrics.budget_shadow_rejected(tenant=tenant.id, reason=_bound(one.budget))
            _log.warning("budget.shadow_exceeded", tenant=tenant.id, budget=one.budget.id)
        else:
            house.metrics.budget_warned(tenant=tenant.id, reason=_bound(one.budget))
            _log.warning("budget.share_reached", tenant=tenant.id, budget=one.budget.id, share=one.share)


def _bound(budget: Budget) -> str:
    return f"{budget.scope}_{budget.period}"


def note(house: House, video: Video, *attempts: Attempt) -> None:
    """Tells the breakers and the clocks how attempts went; once each, after the commit."""
    for attempt in attempts:
        house.pulse.note(attempt, video.read_spec())
        times = times_of(attempt)
        if times is not None:
            house.metrics.film_made(provider=attempt.provider, seconds=sum(times.values()))
