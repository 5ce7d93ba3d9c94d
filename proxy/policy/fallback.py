"""Which offer next: the plan, what became of the sends so far, and the clock decide; nothing else is asked."""

from collections.abc import Mapping, Sequence

import msgspec

from proxy.core.attempt import Attempt
from proxy.core.clock import SECOND_US
from proxy.core.offer import Candidate, FallbackPolicy
from proxy.core.video import VideoFailure
from proxy.policy.health import Health

ASK_AGAIN = frozenset({"throttled", "capacity"})
"""A refusal of these kinds leaves the offer in the plan."""

FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 2.0, 60.0
LONGEST_BACKOFF_US = int(LONGEST_BACKOFF_S) * SECOND_US

FIND_AT_S = (5, 30, 120)
"""When a submit of unknown end is looked for, counted from its start; 'no such order' is believed after the last."""


class Try(msgspec.Struct, frozen=True, kw_only=True):
    candidate: Candidate


class Wait(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing may be bought before `until_us`."""

    until_us: int


class GiveUp(msgspec.Struct, frozen=True, kw_only=True):
    code: VideoFailure
    message: str


def next_step(
    kept: Sequence[Candidate],
    policy: FallbackPolicy,
    attempts: Sequence[Attempt],
    *,
    now_us: int,
    deadline_us: int,
    health: Mapping[str, Health] | None = None,
) -> Try | Wait | GiveUp:
    """
    What to do for a video that is neither delivered nor over.

    `kept` may have been reordered since the plan was made, never added to. Never says Try while a
    send may still cost, unless the rule accepts that with `on_unknown: fallback`. An offer that is open
    by its `health` is passed over while another can be tried, and waited for where none can. One whose
    probe is due keeps its place: behind those that are well it would never be asked again. Whoever
    sends what Try says marks it with `Health.probing`.
    """
    states: set[str] = {attempt.state for attempt in attempts}
    if "done" in states:
        return Wait(until_us=max(deadline_us, now_us + LONGEST_BACKOFF_US))
    if now_us >= deadline_us:
        return _too_late(states)
    if states & {"sending", "running"} or (states & {"unknown", "lost"} and policy.on_unknown == "wait"):
        return Wait(until_us=deadline_us)
    step = _final_verdict(policy, attempts) or _next_offer(
        kept, attempts, health or {}, now_us=now_us, deadline_us=deadline_us
    )
    if isinstance(step, GiveUp) and step.code != "moderation_blocked" and states & {"unknown", "lost"}:
        # Nobody is left to try, but what nobody knows the end of may still deliver.
        return Wait(until_us=deadline_us)
    return step


def _too_late(states: set[str]) -> GiveUp:
    if states & {"unknown", "lost", "sending"}:
        return GiveUp(
            code="outcome_unknown",
            message="A provider may have taken the order, but never said so before the deadline.",
        )
    return GiveUp(code="deadline_exceeded", message="The video was not finished before its deadline.")


def _final_verdict(policy: FallbackPolicy, attempts: Sequence[Attempt]) -> GiveUp | None:
    """The end that the last failure alone decides, if it does."""
    kinds = [attempt.failure_kind for attempt in attempts if attempt.failure_kind]
    if "moderation" in kinds and policy.on_moderation == "stop":
        return GiveUp(code="moderation_blocked", message="The provider's content policy refused this video.")
    if any(_class_of(kind) not in policy.on for kind in kinds if kind != "moderation"):
        return _exhausted(attempts)
    return None


def _class_of(kind: str) -> str:
    """The word of the rules' `on` for a failure; a render that the seller's side stopped is its failure."""
    return "provider_error" if kind == "cancelled" else kind


def _next_offer(
    kept: Sequence[Candidate],
    attempts: Sequence[Attempt],
    health: Mapping[str, Health],
    *,
    now_us: int,
    deadline_us: int,
) -> Try | Wait | GiveUp:
    latest = {attempt.offer: attempt for attempt in attempts}
    waiting: list[tuple[int, Candidate]] = []
    for candidate in kept:
        last = latest.get(candidate.offer)
        if last is not None and not (last.state == "refused" and last.failure_kind in ASK_AGAIN):
            continue
        free_at = health[candidate.offer].standing(now_us).free_at if candidate.offer in health else 0
        if last is None and free_at <= now_us:
            return Try(candidate=candidate)
        retry_at = last.retry_at or now_us if last is not None else now_us
        waiting.append((max(free_at, retry_at), candidate))
    if not waiting:
        return _exhausted(attempts)
    ready_at, candidate = min(waiting, key=lambda pair: pair[0])
    if ready_at <= now_us:
        return Try(candidate=candidate)
    return Wait(until_us=min(ready_at, deadline_us))


def _exhausted(attempts: Sequence[Attempt]) -> GiveUp:
    if attempts and all(attempt.failure_kind == "moderation" for attempt in attempts):
        return GiveUp(code="moderation_blocked", message="Every provider's content policy refused this video.")
    if any(attempt.accepted_at is not None for attempt in attempts):
        return GiveUp(code="provider_error", message="No provider could finish this video.")
    return GiveUp(code="no_provider_available", message="No provider took this video.")


def backoff_s(sends: int, chance: float) -> float:
    """How long to leave an offer that refused without saying when; `sends` from 1, `chance` in [0, 1)."""
    ceiling = min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(sends - 1, 10))
    return ceiling * (0.5 + chance / 2)


def poll_interval_s(expected_s: float, chance: float) -> float:
    """A fifth of the expected time, 1 to 10 s, give or take a tenth."""
    return min(10.0, max(1.0, expected_s / 5)) * (0.9 + chance / 5)
