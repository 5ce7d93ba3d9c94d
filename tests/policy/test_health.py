"""When an offer is passed over, when it is probed, and when it is in use again."""

from collections.abc import Iterable
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.attempt import Attempt, AttemptState, Outcome, Part
from proxy.core.clock import SECOND_US
from proxy.core.errors import FailureKind
from proxy.policy.health import COUNTED, FIRST_PAUSE_US, IN_A_ROW, LATE_US, LONGEST_PAUSE_US, WINDOW, Health, outcome_of

NOW = 1_000_000_000


def outcome(good: bool, at: int, *, video: str | None = None, part: Part = "submit") -> Outcome:
    return Outcome(video_id=video or f"video_{at}", attempt_no=1, part=part, offer="A", good=good, at=at)


def after(outcomes: Iterable[Outcome], health: Health | None = None) -> Health:
    health = health or Health()
    for one in outcomes:
        health = health.heard(one)
    return health


def told(flags: str, *, part: Part = "submit", start: int = NOW, every_us: int = SECOND_US) -> list[Outcome]:
    """`+` for good and `-` for bad, one after the other; the last one at `start`."""
    first = start - (len(flags) - 1) * every_us
    return [outcome(flag == "+", first + place * every_us, part=part) for place, flag in enumerate(flags)]


def state(health: Health, now_us: int = NOW) -> str:
    return health.standing(now_us).state


def test_offer_of_which_nothing_is_known_is_closed() -> None:
    assert state(Health()) == "closed"
    assert Health().standing(NOW).free_at == 0


@pytest.mark.parametrize("part", ["submit", "render"])
def test_failures_in_a_row_open_either_stream(part: Part) -> None:
    assert state(after(told("+" + "-" * (IN_A_ROW - 1), part=part))) == "closed"
    assert state(after(told("+" + "-" * IN_A_ROW, part=part))) == "open"


def test_streams_do_not_add_up() -> None:
    health = after([*told("----"), *told("----", part="render")])
    assert state(health) == "closed"
    assert state(health.heard(outcome(good=False, at=NOW + 1))) == "open"


def test_orders_taken_are_no_sign_that_films_are_made() -> None:
    health = after([*told("-----", part="render"), *told("+++++++", start=NOW + FIRST_PAUSE_US)])
    assert state(health, NOW + FIRST_PAUSE_US) == "half_open"


def test_half_of_the_last_outcomes_open_it_once_there_are_enough() -> None:
    mixed = "+-" * (WINDOW // 2)
    assert state(after(told(mixed[1:]))) == "closed", "one outcome short"
    assert state(after(told(mixed))) == "open"
    assert state(after(told("+" * WINDOW + "+-+" * 30))) == "closed", "a third is not half"
    assert state(after(told("+" * WINDOW + "--+-" * 5))) == "open"


def test_pause_doubles_up_to_its_longest_with_each_probe_that_fails() -> None:
    health, at, pauses = after(told("-----")), NOW, []
    for _ in range(5):
        free_at = health.standing(at).free_at
        pauses.append((free_at - at) // SECOND_US)
        assert state(health, free_at - 1) == "open"
        assert state(health, free_at) == "half_open"
        at = free_at
        health = health.probing(at).heard(outcome(good=False, at=at))
    assert pauses == [10, 20, 30, 30, 30]


def test_probe_that_goes_well_closes_it_and_starts_afresh() -> None:
    health = after(told("-----"))
    back_at = health.standing(NOW).free_at
    health = health.probing(back_at).heard(outcome(good=True, at=back_at + 1))
    assert state(health, back_at + 1) == "closed"
    at = back_at + 10 * SECOND_US
    health = after(told("----", start=at), health)
    assert state(health, at) == "closed", "the failures before do not count again"
    health = health.heard(outcome(good=False, at=at + 1))
    assert health.standing(at + 1).free_at == at + 1 + FIRST_PAUSE_US, "nor does the longer pause"


def test_one_probe_at_a_time() -> None:
    health = after(told("-----"))
    due_at = health.standing(NOW).free_at
    assert health.standing(due_at).free_at <= due_at
    sent = health.probing(due_at)
    assert state(sent, due_at + 1) == "half_open"
    assert sent.standing(due_at + 1).free_at == due_at + FIRST_PAUSE_US
    assert sent.standing(due_at + FIRST_PAUSE_US).free_at <= due_at + FIRST_PAUSE_US, "a render takes minutes"


def test_probe_is_marked_only_where_there_is_something_to_find_out() -> None:
    assert Health().probing(NOW) == Health()


def test_what_was_sent_before_it_opened_neither_closes_nor_prolongs_it() -> None:
    opened = after(told("-----"))
    for good in (True, False):
        health = opened.heard(outcome(good=good, at=NOW + FIRST_PAUSE_US - 1))
        assert health.standing(NOW + FIRST_PAUSE_US) == opened.standing(NOW + FIRST_PAUSE_US)


def test_offer_stays_open_until_both_streams_are_well() -> None:
    health = after([*told("-----"), *told("-----", part="render", start=NOW + SECOND_US)])
    both_at = NOW + SECOND_US + FIRST_PAUSE_US
    assert state(health, NOW + FIRST_PAUSE_US) == "open"
    assert health.standing(NOW).free_at == both_at
    health = health.heard(outcome(good=True, at=both_at))
    assert state(health, both_at) == "half_open"
    assert state(health.heard(outcome(good=True, at=both_at, part="render")), both_at) == "closed"


def test_outcome_told_twice_counts_once() -> None:
    outcomes = told("----")
    assert state(after(outcomes * 3)) == "closed"
    assert after(outcomes * 2) == after(outcomes)


def test_first_word_about_a_submit_holds() -> None:
    bad = outcome(good=False, at=NOW, video="video_1")
    assert after([bad, outcome(good=True, at=NOW + 1, video="video_1")]) == after([bad])


def test_outcome_that_is_far_too_late_is_left_out() -> None:
    health = after(told("----+", every_us=LATE_US))
    assert health.heard(outcome(good=False, at=NOW - 2 * LATE_US - 1)) == health
    assert health.heard(outcome(good=False, at=NOW - 2 * LATE_US)) == health, "heard and settled already"


@given(st.lists(st.tuples(st.integers(0, 200), st.booleans(), st.integers(0, 20)), max_size=60), st.integers(0, 500))
def test_order_of_hearing_makes_no_difference(made: list[tuple[int, bool, int]], later: int) -> None:
    """Each outcome heard up to two seconds late, and some of them twice."""
    outcomes = [
        (outcome(good, NOW + tenths * 100_000, video=f"video_{number}"), late)
        for number, (tenths, good, late) in enumerate(made)
    ]
    in_order = [one for one, _ in sorted(outcomes, key=lambda each: (each[0].at, each[0].key))]
    as_heard = [one for one, _ in sorted(outcomes, key=lambda each: each[0].at + each[1] * 100_000)]
    standing = after(in_order).standing(NOW + later * 100_000)
    assert after(as_heard).standing(NOW + later * 100_000) == standing
    assert after([*as_heard, *as_heard[-10:]]).standing(NOW + later * 100_000) == standing


@given(st.lists(st.tuples(st.integers(1, 40), st.booleans(), st.sampled_from(get_args(Part))), max_size=80))
def test_seller_that_comes_back_may_be_asked_again_within_half_a_minute(made: list[tuple[int, bool, Part]]) -> None:
    health, now_us = Health(), NOW
    for seconds, good, part in made:
        now_us += seconds * SECOND_US
        standing = health.standing(now_us)
        assert standing.free_at <= now_us + LONGEST_PAUSE_US
        if standing.free_at <= now_us:
            health = health.probing(now_us)
            assert state(health, now_us) == "closed" or health.standing(now_us).free_at > now_us
        health = health.heard(outcome(good, now_us, part=part))


# What an attempt's end says


def make_attempt(state: AttemptState, kind: FailureKind | None = None) -> Attempt:
    fields: dict[str, Any] = {"provider": "A", "seller_model": "m", "client_ref": "r", "possible_microusd": 1}
    return Attempt(video_id="video_1", number=2, offer="A", state=state, failure_kind=kind, started_at=NOW, **fields)


@pytest.mark.parametrize(
    ("state", "part", "good"),
    [
        ("running", "submit", True),
        ("unknown", "submit", False),
        ("done", "render", True),
        ("lost", "render", False),
    ],
)
def test_state_of_an_attempt_tells_how_its_part_ended(state: AttemptState, part: Part, good: bool) -> None:
    said = outcome_of(make_attempt(state), at=NOW + 5)
    assert said == Outcome(video_id="video_1", attempt_no=2, part=part, offer="A", good=good, at=NOW + 5)


@pytest.mark.parametrize(("state", "part"), [("refused", "submit"), ("failed", "render")])
@pytest.mark.parametrize("kind", get_args(FailureKind))
def test_only_what_speaks_against_the_seller_counts(state: AttemptState, part: Part, kind: FailureKind) -> None:
    said = outcome_of(make_attempt(state, kind), at=NOW)
    if kind in {"throttled", "moderation", "invalid_input", "cancelled"}:
        assert said is None
    else:
        assert kind in COUNTED
        assert said is not None
        assert (said.part, said.good) == (part, False)


def test_submit_under_way_says_nothing_yet() -> None:
    assert outcome_of(make_attempt("sending"), at=NOW) is None
