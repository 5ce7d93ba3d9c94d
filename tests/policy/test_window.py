"""A sliding minute lets through what is allowed, and not one more."""

from hypothesis import given
from hypothesis import strategies as st

from proxy.core.clock import SECOND_US
from proxy.policy.window import LENGTH_US, Window


def ask(window: Window, most: int, at_us: int) -> bool:
    """Whether it was let through."""
    well = window.wait_us(most, at_us) == 0
    if well:
        window.add(at_us)
    return well


GAPS = st.lists(st.one_of(st.integers(0, 40 * SECOND_US), st.sampled_from([0, 1, LENGTH_US - 1, LENGTH_US])))


@given(st.integers(1, 6), GAPS)
def test_no_minute_ever_holds_more_than_is_allowed_and_nobody_is_refused_before(most: int, gaps_us: list[int]) -> None:
    window, at_us = Window(), 0
    passed: list[int] = []
    for gap_us in gaps_us:
        at_us += gap_us
        before = sum(at_us - LENGTH_US < one <= at_us for one in passed)
        assert ask(window, most, at_us) == (before < most)
        if before < most:
            passed.append(at_us)
    for start in passed:
        assert sum(start <= one < start + LENGTH_US for one in passed) <= most


@given(st.integers(1, 6), st.integers(1, 6), GAPS)
def test_whoever_waits_as_long_as_told_is_let_through_and_not_a_moment_sooner(
    most: int, later: int, gaps_us: list[int]
) -> None:
    window, at_us = Window(), 0
    for gap_us in gaps_us:
        at_us += gap_us
        ask(window, most, at_us)
    wait_us = window.wait_us(later, at_us)
    assert 0 <= wait_us <= LENGTH_US
    if wait_us:
        assert window.wait_us(later, at_us + wait_us - 1) == 1
        assert window.wait_us(later, at_us + wait_us) == 0


def test_window_is_idle_once_the_last_has_left_it() -> None:
    window = Window()
    assert window.idle(0)
    for at_us in (5, 10):
        window.add(at_us)
    assert not window.idle(LENGTH_US + 9)
    assert window.idle(LENGTH_US + 10)


def test_limit_that_was_lowered_waits_for_all_that_are_beyond_it() -> None:
    window = Window()
    for second in range(10):
        assert ask(window, 10, second * SECOND_US)
    assert window.wait_us(3, 10 * SECOND_US) == 57 * SECOND_US
