"""However many want to ask again, a seller in trouble hears few of them; one that is well hears them all."""

from hypothesis import given
from hypothesis import strategies as st

from proxy.core.clock import SECOND_US
from proxy.policy.retries import FLOOR, LENGTH_US, PUT_OFF_US, SHARE, Retries, put_off_us


def ask_again(retries: Retries, at_us: int) -> bool:
    """Whether it was allowed."""
    well = retries.room(at_us) > 0
    if well:
        retries.again(at_us)
    return well


CALLS = st.lists(st.tuples(st.integers(0, 3 * SECOND_US), st.booleans(), st.integers(1, 30)), max_size=60)


@given(CALLS)
def test_no_ten_seconds_of_an_outage_hold_more_retries_than_a_share_of_the_traffic_and_a_few(
    calls: list[tuple[int, bool, int]],
) -> None:
    retries, at_us = Retries(), 0
    firsts: list[int] = []
    agains: list[int] = []
    for gap_us, is_first, times in calls:
        at_us += gap_us
        for _ in range(times):
            since = at_us - LENGTH_US
            recent = sum(since < one for one in firsts), sum(since < one for one in agains)
            if is_first:
                retries.first(at_us)
                firsts.append(at_us)
            else:
                allowed = ask_again(retries, at_us)
                assert allowed == (recent[1] < FLOOR + recent[0] // SHARE), "as much as may be, and not one more"
                agains += [at_us] * allowed


def test_seller_that_nobody_asked_lately_may_be_asked_again_a_few_times() -> None:
    retries = Retries()
    assert [ask_again(retries, 0) for _ in range(FLOOR + 2)] == [True] * FLOOR + [False] * 2
    assert not ask_again(retries, LENGTH_US - 1)
    assert ask_again(retries, LENGTH_US)


def test_retries_that_go_well_leave_room_for_as_many_more() -> None:
    retries = Retries()
    for at_us in range(1000):
        assert ask_again(retries, at_us)
        retries.went_well()
    assert retries.room(1000) == FLOOR


def test_answer_to_what_is_long_forgotten_makes_no_room() -> None:
    retries = Retries()
    assert ask_again(retries, 0)
    assert retries.room(LENGTH_US) == FLOOR
    retries.went_well()
    assert retries.room(LENGTH_US) == FLOOR


@given(st.floats(0, 1, exclude_max=True))
def test_what_is_put_off_comes_back_at_different_times(chance: float) -> None:
    assert PUT_OFF_US // 2 <= put_off_us(chance) <= PUT_OFF_US * 3 // 2
