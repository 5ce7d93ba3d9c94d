"""Time is whole microseconds, and reads as UTC."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from proxy.core.clock import DAY_US, SECOND_US, Flow, as_datetime, iso, steady_clock, system_clock

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CENTURY_US = 100 * 366 * 24 * 3600 * SECOND_US


@given(st.integers(0, CENTURY_US))
def test_moment_loses_no_microsecond(at_us: int) -> None:
    moment = as_datetime(at_us)
    assert moment.tzinfo is UTC
    assert (moment - EPOCH) // timedelta(microseconds=1) == at_us


@given(st.integers(0, CENTURY_US))
def test_printed_moment_is_the_whole_second_before(at_us: int) -> None:
    read = datetime.fromisoformat(iso(at_us))
    assert (read - EPOCH).total_seconds() == at_us // SECOND_US


def test_moment_is_printed_as_rfc_3339() -> None:
    assert iso(1_795_239_000_999_999) == "2026-11-21T05:30:00Z"


def test_system_clock_counts_microseconds() -> None:
    before = datetime.now(UTC)
    at_us = system_clock()
    after = datetime.now(UTC)
    assert isinstance(at_us, int)
    assert before - timedelta(milliseconds=1) <= as_datetime(at_us) <= after + timedelta(milliseconds=1)


def test_steady_clock_counts_microseconds_and_never_goes_back() -> None:
    seen = [steady_clock() for _ in range(1000)]
    assert seen == sorted(seen)
    assert seen[-1] - seen[0] < 5 * SECOND_US


# Time that does not jump

NOW_US = 1_795_000_000 * SECOND_US
HOUR_US = 3600 * SECOND_US


def flowing(ahead_us: int = 0) -> Flow:
    """One that has begun, with a steady clock at 0; its clock was right then, and is now set by so much."""
    flow = Flow()
    assert flow.at(NOW_US, 0) == NOW_US
    flow.at(NOW_US + ahead_us, 0)
    return flow


def test_time_is_the_clocks_while_nobody_sets_it() -> None:
    flow = flowing()
    for second in range(100):
        assert flow.at(NOW_US + second * SECOND_US, second * SECOND_US) == NOW_US + second * SECOND_US
    assert flow.ahead_us == 0


def test_clock_that_drifts_is_followed_to_the_microsecond() -> None:
    flow = flowing()
    for second in range(100):
        assert flow.at(NOW_US + second * 1_000_300, second * SECOND_US) == NOW_US + second * 1_000_300


def test_clock_set_back_is_waited_for_at_half_speed() -> None:
    flow = flowing(-HOUR_US)
    assert flow.ahead_us == HOUR_US
    assert flow.at(NOW_US - HOUR_US + 60 * SECOND_US, 60 * SECOND_US) == NOW_US + 30 * SECOND_US
    assert flow.at(NOW_US + HOUR_US, 2 * HOUR_US) == NOW_US + HOUR_US
    assert flow.ahead_us == 0
    assert flow.at(NOW_US + 2 * HOUR_US, 3 * HOUR_US) == NOW_US + 2 * HOUR_US


def test_clock_set_forward_is_caught_up_with_at_double_speed() -> None:
    flow = flowing(30 * DAY_US)
    assert flow.ahead_us == -30 * DAY_US
    assert flow.at(NOW_US + 30 * DAY_US + 60 * SECOND_US, 60 * SECOND_US) == NOW_US + 120 * SECOND_US
    assert flow.at(NOW_US + 60 * DAY_US, 30 * DAY_US) == NOW_US + 60 * DAY_US


def test_clock_that_was_wrong_for_a_minute_leaves_no_trace() -> None:
    flow = flowing(30 * DAY_US)
    flow.at(NOW_US + 30 * DAY_US, 30 * SECOND_US)
    assert flow.at(NOW_US + 60 * SECOND_US, 60 * SECOND_US) == NOW_US + 75 * SECOND_US
    assert flow.at(NOW_US + 90 * SECOND_US, 90 * SECOND_US) == NOW_US + 90 * SECOND_US


def test_first_clock_is_believed_unless_somebody_has_seen_later() -> None:
    behind, right = Flow(), Flow()
    for flow in (behind, right):
        flow.not_before(NOW_US)
    assert behind.at(NOW_US - DAY_US, 7) == NOW_US
    assert behind.ahead_us == DAY_US
    assert right.at(NOW_US + DAY_US, 7) == NOW_US + DAY_US


@given(st.lists(st.tuples(st.integers(-CENTURY_US, CENTURY_US), st.integers(-5, CENTURY_US)), max_size=50))
def test_time_never_stands_still_goes_back_or_runs_away(steps: list[tuple[int, int]]) -> None:
    flow = flowing()
    before, steady = NOW_US, 0
    for clock, passed in steps:
        after = flow.at(clock, steady + passed)
        assert passed // 2 <= after - before <= 2 * max(0, passed) or passed < 0
        assert after >= before
        before, steady = after, steady + max(0, passed)
