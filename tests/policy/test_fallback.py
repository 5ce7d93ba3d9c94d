"""What comes after each end of a send: every state under every policy, by small exhaustive tables."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.attempt import Attempt, AttemptState, Outcome
from proxy.core.clock import SECOND_US
from proxy.core.errors import FailureKind
from proxy.core.offer import Candidate, FallbackPolicy
from proxy.policy.fallback import (
    ASK_AGAIN,
    FIND_AT_S,
    LONGEST_BACKOFF_US,
    GiveUp,
    Try,
    Wait,
    backoff_s,
    next_step,
    poll_interval_s,
)
from proxy.policy.health import FIRST_PAUSE_US, Health
from tests.policy.policies import make_candidate

NOW, DEADLINE = 1_000_000_000, 1_600_000_000
ALL_CLASSES = frozenset({"throttled", "capacity", "provider_error", "seller_timeout", "account", "invalid_input"})
A, B, C = (make_candidate(offer=name, provider=name) for name in "ABC")
UNDER_WAY, MAYBE_BOUGHT = {"sending", "running"}, {"unknown", "lost"}


def make_policy(**fields: Any) -> FallbackPolicy:
    defaults: dict[str, Any] = {
        "max_attempts": 3,
        "on": ALL_CLASSES,
        "deadline_s": 600,
        "on_unknown": "wait",
        "on_moderation": "stop",
    }
    return FallbackPolicy(**defaults | fields)


def make_attempt(state: AttemptState, kind: FailureKind | None = None, *, offer: str = "A", **fields: Any) -> Attempt:
    defaults: dict[str, Any] = {
        "video_id": "video_1",
        "number": 1,
        "offer": offer,
        "provider": offer,
        "seller_model": "m",
        "state": state,
        "client_ref": "video_1-1",
        "failure_kind": kind,
        "started_at": NOW - 1,
        "accepted_at": NOW - 1 if state in {"running", "done", "failed", "lost"} else None,
        "possible_microusd": 1,
    }
    return Attempt(**defaults | fields)


def step(
    *attempts: Attempt, policy: FallbackPolicy | None = None, kept: Sequence[Candidate] = (A, B), now_us: int = NOW
) -> Try | Wait | GiveUp:
    return next_step(kept, policy or make_policy(), attempts, now_us=now_us, deadline_us=DEADLINE)


def code(answer: Try | Wait | GiveUp) -> str:
    assert isinstance(answer, GiveUp), answer
    assert answer.message.endswith(".")
    return answer.code


# One promise at a time


def test_first_offer_is_tried_first() -> None:
    assert step() == Try(candidate=A)
    assert step(kept=(B, A)) == Try(candidate=B), "whatever order it has by now"


@pytest.mark.parametrize("kind", sorted(ALL_CLASSES | {"cancelled"}))
@pytest.mark.parametrize("state", ["refused", "failed"])
def test_next_offer_follows_a_failure_that_the_rule_lists(state: AttemptState, kind: FailureKind) -> None:
    assert step(make_attempt(state, kind)) == Try(candidate=B)


@pytest.mark.parametrize("kind", sorted(ALL_CLASSES))
def test_failure_that_the_rule_does_not_list_ends_the_video(kind: FailureKind) -> None:
    policy = make_policy(on=ALL_CLASSES - {kind})
    assert code(step(make_attempt("refused", kind), policy=policy)) == "no_provider_available"
    assert code(step(make_attempt("failed", kind), policy=policy)) == "provider_error"


def test_render_stopped_at_the_seller_counts_as_its_failure() -> None:
    policy = make_policy(on=frozenset({"provider_error"}))
    assert step(make_attempt("failed", "cancelled"), policy=policy) == Try(candidate=B)
    policy = make_policy(on=ALL_CLASSES - {"provider_error"})
    assert code(step(make_attempt("failed", "cancelled"), policy=policy)) == "provider_error"


@pytest.mark.parametrize("state", ["refused", "failed"])
def test_refused_prompt_is_not_tried_elsewhere(state: AttemptState) -> None:
    assert code(step(make_attempt(state, "moderation"))) == "moderation_blocked"


def test_refused_prompt_is_tried_elsewhere_where_the_rule_says_so() -> None:
    policy = make_policy(on_moderation="next", on=frozenset())
    assert step(make_attempt("refused", "moderation"), policy=policy) == Try(candidate=B)


def test_prompt_that_everyone_refused_is_blocked() -> None:
    policy = make_policy(on_moderation="next")
    first, second = make_attempt("refused", "moderation"), make_attempt("failed", "moderation", offer="B")
    assert code(step(first, second, policy=policy)) == "moderation_blocked"
    assert code(step(first, make_attempt("refused", "account", offer="B"), policy=policy)) == "no_provider_available"
    assert code(step(first, make_attempt("failed", "provider_error", offer="B"), policy=policy)) == "provider_error"


@pytest.mark.parametrize("kind", sorted(ASK_AGAIN))
def test_busy_offer_stays_in_the_plan_and_is_asked_when_it_said(kind: FailureKind) -> None:
    busy, broken = make_attempt("refused", kind, retry_at=NOW + 7), make_attempt("refused", "account", offer="B")
    assert step(busy, broken) == Wait(until_us=NOW + 7)
    assert step(busy, broken, now_us=NOW + 7) == Try(candidate=A)


def test_untried_offer_goes_before_a_busy_one() -> None:
    assert step(make_attempt("refused", "throttled", retry_at=NOW)) == Try(candidate=B)


def test_busy_offer_that_named_no_time_is_asked_now() -> None:
    assert step(make_attempt("refused", "capacity"), kept=(A,)) == Try(candidate=A)


def test_of_two_busy_offers_the_sooner_is_awaited() -> None:
    late = make_attempt("refused", "throttled", retry_at=NOW + 9)
    soon = make_attempt("refused", "capacity", offer="B", retry_at=NOW + 5)
    assert step(late, soon) == Wait(until_us=NOW + 5)
    assert step(late, soon, now_us=NOW + 5) == Try(candidate=B)


@pytest.mark.parametrize("kind", sorted(ASK_AGAIN))
def test_failure_after_acceptance_is_no_reason_to_ask_again(kind: FailureKind) -> None:
    assert code(step(make_attempt("failed", kind), kept=(A,))) == "provider_error"


def test_last_word_of_an_offer_counts() -> None:
    busy, broken = make_attempt("refused", "throttled"), make_attempt("failed", "provider_error")
    assert code(step(busy, broken, kept=(A,))) == "provider_error"


def test_offer_that_left_the_plan_is_not_asked_again() -> None:
    assert step(make_attempt("refused", "throttled", offer="gone"), kept=(B,)) == Try(candidate=B)


def test_plan_without_offers_ends_at_once() -> None:
    assert code(step(kept=())) == "no_provider_available"


@pytest.mark.parametrize("on_unknown", ["wait", "fallback"])
@pytest.mark.parametrize("state", ["sending", "running"])
def test_nothing_is_bought_beside_what_is_under_way(state: AttemptState, on_unknown: str) -> None:
    assert step(make_attempt(state), policy=make_policy(on_unknown=on_unknown)) == Wait(until_us=DEADLINE)


@pytest.mark.parametrize("state", sorted(MAYBE_BOUGHT))
def test_what_may_have_bought_is_waited_for(state: AttemptState) -> None:
    assert step(make_attempt(state)) == Wait(until_us=DEADLINE)
    assert step(make_attempt(state), policy=make_policy(on_unknown="fallback")) == Try(candidate=B)


@pytest.mark.parametrize("state", sorted(MAYBE_BOUGHT))
def test_with_nobody_left_to_try_what_may_have_bought_is_waited_for_after_all(state: AttemptState) -> None:
    policy = make_policy(on_unknown="fallback", on=ALL_CLASSES - {"account"})
    unknown, refused = make_attempt(state), make_attempt("refused", "invalid_input", offer="B")
    assert step(unknown, refused, policy=policy) == Wait(until_us=DEADLINE)
    assert step(unknown, kept=(A,), policy=policy) == Wait(until_us=DEADLINE)
    ends_it = make_attempt("refused", "account", offer="B")
    assert step(unknown, ends_it, kept=(A, B, C), policy=policy) == Wait(until_us=DEADLINE)
    assert code(step(unknown, refused, policy=policy, now_us=DEADLINE)) == "outcome_unknown"


def test_refused_prompt_ends_the_video_even_beside_what_may_have_bought() -> None:
    policy = make_policy(on_unknown="fallback")
    refused = make_attempt("refused", "moderation", offer="B")
    assert code(step(make_attempt("unknown"), refused, policy=policy)) == "moderation_blocked"


@pytest.mark.parametrize("now_us", [NOW, DEADLINE - 1, DEADLINE, DEADLINE + 10**9])
def test_finished_film_is_fetched_however_late(now_us: int) -> None:
    answer = step(make_attempt("failed", "provider_error"), make_attempt("done", offer="B"), now_us=now_us)
    assert answer == Wait(until_us=max(DEADLINE, now_us + LONGEST_BACKOFF_US))


@pytest.mark.parametrize(
    ("state", "end"),
    [
        ("sending", "outcome_unknown"),
        ("unknown", "outcome_unknown"),
        ("lost", "outcome_unknown"),
        ("running", "deadline_exceeded"),
        ("refused", "deadline_exceeded"),
        ("failed", "deadline_exceeded"),
    ],
)
def test_deadline_ends_the_video_by_what_is_known(state: AttemptState, end: str) -> None:
    kind: FailureKind | None = "throttled" if state in {"refused", "failed"} else None
    assert code(step(make_attempt(state, kind), now_us=DEADLINE)) == end
    assert not isinstance(step(make_attempt(state, kind), now_us=DEADLINE - 1), GiveUp)


def test_deadline_before_anything_was_sent() -> None:
    assert code(step(now_us=DEADLINE)) == "deadline_exceeded"


# Offers whose breakers are open


def opened(offer: str, at: int = NOW) -> Health:
    """One that opened at `at`."""
    health = Health()
    for number in range(5):
        video_id = f"video_{number}"
        bad = Outcome(video_id=video_id, attempt_no=1, part="submit", offer=offer, good=False, at=at)
        health = health.heard(bad)
    return health


def under(health: dict[str, Health], *attempts: Attempt, now_us: int = NOW, **fields: Any) -> Try | Wait | GiveUp:
    kept, policy = fields.pop("kept", (A, B)), make_policy(**fields)
    return next_step(kept, policy, attempts, now_us=now_us, deadline_us=DEADLINE, health=health)


def test_open_offer_is_passed_over() -> None:
    assert under({"A": opened("A")}) == Try(candidate=B)
    assert under({"A": Health(), "B": opened("B")}) == Try(candidate=A)


def test_open_offer_is_passed_over_for_a_busy_one_whose_time_has_come() -> None:
    busy = make_attempt("refused", "throttled", offer="B", retry_at=NOW)
    assert under({"A": opened("A")}, busy) == Try(candidate=B)


def test_with_all_open_the_least_bad_is_waited_for() -> None:
    health = {"A": opened("A"), "B": opened("B", NOW - SECOND_US)}
    assert under(health) == Wait(until_us=NOW - SECOND_US + FIRST_PAUSE_US)
    assert under(health, now_us=NOW - SECOND_US + FIRST_PAUSE_US) == Try(candidate=B)


def test_video_never_fails_because_of_breakers_before_its_deadline() -> None:
    health = {"A": opened("A", DEADLINE - 1), "B": opened("B", DEADLINE - 1)}
    assert under(health, now_us=DEADLINE - 1) == Wait(until_us=DEADLINE)
    assert code(under(health, now_us=DEADLINE)) == "deadline_exceeded"


def test_offer_whose_probe_is_due_keeps_its_place() -> None:
    due_at = NOW + FIRST_PAUSE_US
    health = {"A": opened("A")}
    assert under(health, now_us=due_at) == Try(candidate=A), "or a seller that came back would never be used again"
    health["A"] = health["A"].probing(due_at)
    assert under(health, now_us=due_at) == Try(candidate=B), "one probe at a time"


def test_busy_offer_that_is_open_too_is_asked_when_both_allow() -> None:
    health = {"A": opened("A")}
    soon, late = NOW + 1, NOW + 2 * FIRST_PAUSE_US
    assert under(health, make_attempt("refused", "capacity", retry_at=soon), kept=(A,)) == Wait(
        until_us=NOW + FIRST_PAUSE_US
    )
    assert under(health, make_attempt("refused", "capacity", retry_at=late), kept=(A,)) == Wait(until_us=late)


def test_breaker_keeps_no_offer_in_the_plan_that_has_ended_for_this_video() -> None:
    ended = make_attempt("failed", "provider_error")
    assert code(under({"A": opened("A")}, ended, kept=(A,))) == "provider_error"


# Every state under every policy

KINDS: tuple[FailureKind, ...] = get_args(FailureKind)
RETRIES = (None, NOW - 1, NOW + 1, DEADLINE + 1)
POLICIES = [
    make_policy(on=on, on_unknown=unknown, on_moderation=moderation)
    for on in (ALL_CLASSES, frozenset[str](), frozenset({"throttled", "provider_error"}))
    for unknown in ("wait", "fallback")
    for moderation in ("stop", "next")
]


def every_end(offer: str) -> Iterator[Attempt]:
    for state in get_args(AttemptState):
        if state not in {"refused", "failed"}:
            yield make_attempt(state, offer=offer)
            continue
        for kind in KINDS:
            asked_again = state == "refused" and kind in ASK_AGAIN
            for retry_at in RETRIES if asked_again else (None,):
                yield make_attempt(state, kind, offer=offer, retry_at=retry_at)


ENDS = [*every_end("A"), *every_end("B")]
HISTORIES: list[tuple[Attempt, ...]] = [(), *itertools.product(ENDS), *itertools.product(ENDS, ENDS)]


def test_step_keeps_its_promises_in_every_history_of_two_sends() -> None:
    for attempts, policy, now_us in itertools.product(HISTORIES, POLICIES, (NOW, DEADLINE)):
        answer = step(*attempts, policy=policy, now_us=now_us)
        check_promises(answer, attempts, policy, (A, B), now_us)


@given(
    st.lists(st.sampled_from([*ENDS, *every_end("C"), *every_end("gone")]), max_size=6),
    st.sampled_from(POLICIES),
    st.permutations([A, B, C]),
    st.integers(0, 3),
    st.integers(NOW, DEADLINE + 10),
)
def test_step_keeps_its_promises_in_longer_histories(
    attempts: list[Attempt], policy: FallbackPolicy, order: list[Candidate], count: int, now_us: int
) -> None:
    kept = order[:count]
    answer = step(*attempts, policy=policy, kept=kept, now_us=now_us)
    check_promises(answer, attempts, policy, kept, now_us)


def check_promises(
    answer: Try | Wait | GiveUp,
    attempts: Sequence[Attempt],
    policy: FallbackPolicy,
    kept: Sequence[Candidate],
    now_us: int,
) -> None:
    states = {attempt.state for attempt in attempts}
    if isinstance(answer, Try):
        assert not states & (UNDER_WAY | {"done"}), "never beside a purchase"
        assert policy.on_unknown == "fallback" or not states & MAYBE_BOUGHT
        assert now_us < DEADLINE
        check_choice(answer.candidate, attempts, kept, now_us)
    elif isinstance(answer, Wait):
        assert answer.until_us > now_us, "a wait that is over would be asked for again at once"
        assert answer.until_us <= DEADLINE or "done" in states
    else:
        assert "done" not in states
        check_end(answer.code, attempts, policy, now_us)


def check_choice(candidate: Candidate, attempts: Sequence[Attempt], kept: Sequence[Candidate], now_us: int) -> None:
    assert candidate in kept
    sent = [attempt for attempt in attempts if attempt.offer == candidate.offer]
    if sent:
        assert sent[-1].state == "refused"
        assert sent[-1].failure_kind in ASK_AGAIN
        assert (sent[-1].retry_at or 0) <= now_us
    untried = [each for each in kept if each.offer not in {attempt.offer for attempt in attempts}]
    if untried:
        assert candidate == untried[0]


def check_end(code: str, attempts: Sequence[Attempt], policy: FallbackPolicy, now_us: int) -> None:
    states, kinds = {attempt.state for attempt in attempts}, {attempt.failure_kind for attempt in attempts}
    if now_us >= DEADLINE:
        assert code == ("outcome_unknown" if states & (MAYBE_BOUGHT | {"sending"}) else "deadline_exceeded")
        return
    assert not states & UNDER_WAY
    if code == "moderation_blocked":
        assert kinds == {"moderation"} or ("moderation" in kinds and policy.on_moderation == "stop")
        return
    assert not states & MAYBE_BOUGHT, "what may still deliver is not given up before the deadline"
    accepted = any(attempt.accepted_at is not None for attempt in attempts)
    assert code == ("provider_error" if accepted else "no_provider_available")


@given(
    st.lists(st.sampled_from([*ENDS, *every_end("C")]), max_size=4),
    st.sampled_from(POLICIES),
    st.dictionaries(st.sampled_from("ABC"), st.tuples(st.integers(-60, 0), st.booleans())),
    st.integers(NOW, DEADLINE + 10),
)
def test_breakers_put_off_and_reorder_and_decide_nothing_else(
    attempts: list[Attempt], policy: FallbackPolicy, ago: dict[str, tuple[int, bool]], now_us: int
) -> None:
    kept, health = (A, B, C), dict[str, Health]()
    for offer, (seconds, probed) in ago.items():
        one = opened(offer, now_us + seconds * SECOND_US)
        health[offer] = one.probing(now_us) if probed else one
    calm = step(*attempts, policy=policy, kept=kept, now_us=now_us)
    answer = next_step(kept, policy, attempts, now_us=now_us, deadline_us=DEADLINE, health=health)
    if not isinstance(calm, Try):
        assert isinstance(answer, type(calm)), "nobody is tried sooner, and no video fails or is saved by them"
    elif isinstance(answer, Try):
        one = health.get(answer.candidate.offer, Health())
        assert one.standing(now_us).free_at <= now_us
        assert answer == calm or health[calm.candidate.offer].standing(now_us).free_at >= now_us
    else:
        assert isinstance(answer, Wait)
        assert now_us < answer.until_us <= DEADLINE


@given(st.data(), st.sampled_from(POLICIES), st.integers(1, 3))
def test_video_never_goes_to_more_offers_than_its_plan_keeps(
    data: st.DataObject, policy: FallbackPolicy, offers: int
) -> None:
    kept = [A, B, C][:offers]
    attempts: list[Attempt] = []
    now_us = NOW
    for number in range(1, 40):
        answer = step(*attempts, policy=policy, kept=kept, now_us=now_us)
        if isinstance(answer, GiveUp):
            break
        if isinstance(answer, Wait):
            now_us = answer.until_us
            continue
        end = data.draw(st.sampled_from([each for each in every_end(answer.candidate.offer) if each.state != "done"]))
        attempts.append(msgspec.structs.replace(end, number=number, retry_at=now_us + 60_000_000))
    else:
        pytest.fail("the video never ended")
    assert len({attempt.offer for attempt in attempts}) <= offers


# Times


@given(st.integers(1, 10**6), st.floats(0, 1, exclude_max=True))
def test_backoff_grows_from_one_second_to_a_minute(sends: int, chance: float) -> None:
    pause_s = backoff_s(sends, chance)
    assert 1.0 <= pause_s <= 60.0
    assert backoff_s(sends + 1, chance) >= pause_s
    assert backoff_s(sends, 0.0) <= pause_s


def test_backoff_doubles() -> None:
    assert [backoff_s(sends, 0.0) for sends in range(1, 9)] == [1, 2, 4, 8, 16, 30, 30, 30]
    assert backoff_s(1, 0.999) == pytest.approx(2.0, abs=0.01)


@given(st.floats(0, 10**6), st.floats(0, 1, exclude_max=True))
def test_poll_interval_is_about_a_fifth_of_the_expected_time(expected_s: float, chance: float) -> None:
    interval_s = poll_interval_s(expected_s, chance)
    assert 0.9 <= interval_s <= 11.0
    if 5 <= expected_s <= 50:
        assert expected_s * 0.18 <= interval_s <= expected_s * 0.22 + 1e-9


def test_lost_submit_is_looked_for_ever_more_rarely() -> None:
    assert FIND_AT_S == (5, 30, 120)
