"""Who is let in first, and that nobody waits behind a crowd."""

from hypothesis import given
from hypothesis import strategies as st

from proxy.policy.fair import Waiting, next_in


def queue(*names: str) -> list[Waiting]:
    """One each of `tenant` + number, in the order of waiting."""
    return [Waiting(tenant=name[0], since=place, video_id=name) for place, name in enumerate(names)]


def let_in(waiting: list[Waiting], free: int, **in_flight: int) -> list[str]:
    return [one.video_id for one in next_in(waiting, in_flight, free)]


def test_whoever_waits_longest_goes_first_within_a_tenant() -> None:
    assert let_in(queue("a1", "a2", "a3"), 2) == ["a1", "a2"]
    assert let_in(queue("a1", "a2", "a3")[::-1], 2) == ["a1", "a2"], "whatever order they are told in"


def test_tenant_with_the_fewest_in_flight_goes_first() -> None:
    assert let_in(queue("a1", "b1"), 1, a=1) == ["b1"]
    assert let_in(queue("a1", "a2", "a3", "b1"), 2, a=5, b=3) == ["b1", "a1"]


def test_those_just_let_in_count() -> None:
    assert let_in(queue("a1", "a2", "a3", "b1", "b2"), 4) == ["a1", "b1", "a2", "b2"]


def test_equals_go_by_their_wait() -> None:
    assert let_in(queue("b1", "a1", "c1"), 3) == ["b1", "a1", "c1"]
    same = [Waiting(tenant=name[0], since=7, video_id=name) for name in ("b2", "a1", "b1")]
    assert let_in(same, 3) == ["a1", "b1", "b2"]


def test_without_room_nobody_goes() -> None:
    assert let_in(queue("a1"), 0) == []
    assert let_in(queue("a1"), -1) == [], "where the limit was lowered"
    assert let_in([], 5, a=1) == []


@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 5)), max_size=30),
    st.dictionaries(st.sampled_from("abcd"), st.integers(0, 9)),
    st.integers(0, 40),
)
def test_each_place_goes_to_the_one_who_has_the_best_claim(
    made: list[tuple[str, int]], in_flight: dict[str, int], free: int
) -> None:
    waiting = [Waiting(tenant=who, since=since, video_id=str(n)) for n, (who, since) in enumerate(made)]
    counts, left = dict(in_flight), list(waiting)
    chosen = next_in(waiting, in_flight, free)
    assert len(chosen) == min(free, len(waiting))
    for one in chosen:
        best = min(left, key=lambda other: (counts.get(other.tenant, 0), other.since, other.video_id))
        assert one == best
        left.remove(one)
        counts[one.tenant] = counts.get(one.tenant, 0) + 1
