"""From our rows to OpenAI's Video object, and to the plan of a quote."""

import msgspec

from proxy.api.schemas import (
    AttemptObject,
    BudgetQuote,
    CandidateObject,
    ChangeObject,
    ExcludedObject,
    PassedOverObject,
    QuoteObject,
    RoutingObject,
    UsageObject,
    VideoError,
    VideoObject,
)
from proxy.core.attempt import Attempt
from proxy.core.clock import SECOND_US
from proxy.core.money import usd_text
from proxy.core.offer import Candidate, Exclusion, Plan
from proxy.core.video import Footage, Spec
from proxy.policy.budgets import UNBOUND, Standing
from proxy.policy.plan import Decision, PassedOver
from proxy.policy.prices import asked_seconds
from proxy.policy.rules import Rules
from proxy.services.house import House
from proxy.store import tenants, videos
from proxy.store.base import Tx
from proxy.store.videos import Video

encode = msgspec.json.encode


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What one answer about a video needs."""

    video: Video
    attempts: list[Attempt]
    end_user_id: str | None
    spec: Spec
    plan: Plan


def look_at_new(video: Video, decision: Decision) -> Look:
    """A video that was accepted just now, without reading it back."""
    spec = decision.spec
    return Look(video=video, attempts=[], end_user_id=spec.end_user_id, spec=spec, plan=decision.plan)


def look_at(tx: Tx, video: Video) -> Look:
    name = None if video.end_user is None else tenants.end_user_name(tx, video.tenant_id, video.end_user)
    attempts = videos.attempts_of(tx, video.id)
    return Look(video=video, attempts=attempts, end_user_id=name, spec=video.read_spec(), plan=video.read_plan())


def own_look(tx: Tx, tenant_id: str, video_id: str) -> Look | None:
    """None where the tenant has no such video, or has deleted it."""
    found = videos.whole(tx, video_id)
    if found is None or found[0].tenant_id != tenant_id or found[0].deleted_at is not None:
        return None
    video, name, attempts = found
    return Look(video=video, attempts=attempts, end_user_id=name, spec=video.read_spec(), plan=video.read_plan())


def show(house: House, look: Look, warnings: tuple[str, ...] = ()) -> VideoObject:
    """The public Video object."""
    video = look.video
    spec, footage = look.spec, video.read_footage()
    return VideoObject(
        id=video.id,
        model=video.model,
        status=video.status,
        progress=video.progress,
        created_at=video.created_at // SECOND_US,
        completed_at=None if video.status != "completed" else _seconds(video.ended_at),
        expires_at=_seconds(video.expires_at),
        prompt=video.prompt,
        size=_size(spec, footage),
        seconds=_length(spec, footage),
        error=_error(house, look),
        resolution=spec.resolution,
        aspect_ratio=spec.aspect_ratio,
        generate_audio=spec.generate_audio,
        seed=spec.seed,
        content_filter=spec.content_filter,
        tier=spec.tier,
        end_user_id=look.end_user_id,
        metadata=video.read_metadata(),
        usage=UsageObject(
            duration_seconds=None if footage is None else footage.duration_ms / 1000,
            cost_usd=None if video.charged_microusd is None else usd_text(video.charged_microusd),
            refunded_usd=usd_text(video.refunded_microusd) if video.refunded_microusd else msgspec.UNSET,
        ),
        routing=_routing(house, look, look.plan),
        warnings=warnings or msgspec.UNSET,
        sandbox=True if house.sandbox else msgspec.UNSET,
    )


def _seconds(at_us: int | None) -> int | None:
    return None if at_us is None else at_us // SECOND_US


def _size(spec: Spec, footage: Footage | None) -> str:
    if footage is not None and spec.size == "auto":
        return f"{footage.width_px}x{footage.height_px}"
    return spec.size


def _length(spec: Spec, footage: Footage | None) -> str:
    if spec.seconds is not None:
        return str(spec.seconds)
    return "auto" if footage is None else str(asked_seconds(spec, footage.duration_ms / 1000))


def _error(house: House, look: Look) -> VideoError | None:
    video = look.video
    if video.error_code is None:
        return None
    message = video.error_message or ""
    said = next((one for one in reversed(look.attempts) if one.message), None)
    if house.rules.expose_providers and said is not None and video.error_code != "cancelled":
        message = f"{message} ({said.provider}: {said.message})"
    return VideoError(code=video.error_code, message=message)


def _routing(house: House, look: Look, plan: Plan) -> RoutingObject:
    exposed = house.rules.expose_providers
    chosen = _chosen(look, plan)
    return RoutingObject(
        rule=plan.rule,
        strategy=plan.strategy,
        provider=chosen.provider if exposed and look.attempts else None,
        quoted_usd=usd_text(chosen.quote_microusd),
        changed=_changed(plan),
        attempts=tuple(_attempt(attempt, exposed=exposed) for attempt in look.attempts),
    )


def _chosen(look: Look, plan: Plan) -> Candidate:
    """The offer that delivered, else the one tried last, else the first of the plan."""
    number = look.video.delivered_no or len(look.attempts)
    if number == 0:
        return plan.candidates[0]
    offer = look.attempts[number - 1].offer
    return next(candidate for candidate in plan.candidates if candidate.offer == offer)


def _attempt(attempt: Attempt, *, exposed: bool) -> AttemptObject:
    cost = attempt.cost_microusd if exposed and attempt.state not in {"sending", "running", "unknown"} else None
    return AttemptObject(
        provider=attempt.provider if exposed else None,
        status=attempt.state,
        error_code=attempt.failure_kind,
        cost_usd=None if cost is None else usd_text(cost),
        started_at=attempt.started_at // SECOND_US,
        ended_at=_seconds(attempt.ended_at),
    )


def poll_after_ms(look: Look) -> int:
    """How long a client may wait before it asks again: a twentieth of the expected time, 1 to 10 s."""
    expected_s = look.plan.candidates[0].expected_s
    return int(min(10.0, max(1.0, expected_s / 20)) * 1000)


def show_quote(
    rules: Rules, decision: Decision, warnings: tuple[str, ...] = (), *, budget: Standing = UNBOUND
) -> QuoteObject:
    """The whole plan: by which rule, who would make it, at what price, why in this order, and why not the others."""
    spec, plan, exposed = decision.spec, decision.plan, rules.expose_providers
    return QuoteObject(
        model=spec.model,
        resolution=spec.resolution,
        aspect_ratio=spec.aspect_ratio,
        size=spec.size,
        seconds=_length(spec, None),
        generate_audio=spec.generate_audio,
        content_filter=spec.content_filter,
        tier=spec.tier,
        seed=spec.seed,
        rule=plan.rule,
        strategy=plan.strategy,
        max_attempts=plan.fallback.max_attempts,
        hold_usd=usd_text(plan.hold_microusd),
        changed=_changed(plan),
        candidates=tuple(_candidate(candidate, exposed=exposed) for candidate in plan.candidates),
        excluded=tuple(_excluded(one) for one in plan.excluded) if exposed else (),
        passed_over=tuple(_passed_over(one) for one in decision.passed_over) if exposed else (),
        budget=_budget(budget, plan.hold_microusd),
        warnings=warnings or msgspec.UNSET,
    )


def _budget(budget: Standing, hold_microusd: int) -> BudgetQuote | None:
    if budget.left_microusd is None:
        return None
    left = budget.left_microusd
    return BudgetQuote(left_usd=usd_text(left), left_after_usd=usd_text(left - hold_microusd))


def _changed(plan: Plan) -> dict[str, ChangeObject]:
    return {field: ChangeObject(asked=asked, given=given) for field, (asked, given) in plan.changed.items()}


def _candidate(candidate: Candidate, *, exposed: bool) -> CandidateObject:
    return CandidateObject(
        provider=candidate.provider if exposed else None,
        offer=candidate.offer if exposed else None,
        tier=candidate.tier,
        price_usd=usd_text(candidate.quote_microusd),
        price_basis=candidate.basis,
        expected_seconds=round(candidate.expected_s, 1),
        reason=candidate.reason if exposed else None,
    )


def _passed_over(one: PassedOver) -> PassedOverObject:
    return PassedOverObject(rule=one.rule, unmet=one.unmet)


def _excluded(one: Exclusion) -> ExcludedObject:
    return ExcludedObject(provider=one.provider, offer=one.offer, reason=one.reason, detail=one.detail)
