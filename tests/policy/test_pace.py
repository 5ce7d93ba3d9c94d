"""What is learned of the times that offers take, and what is expected by it."""

import random
from statistics import median
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.attempt import Attempt, AttemptState
from proxy.core.clock import SECOND_US
from proxy.policy.pace import (
    AUTO,
    ENOUGH,
    HALF_LIFE_US,
    MOST_WEIGHT,
    Histogram,
    Learned,
    Part,
    read_histogram,
    times_of,
)
from tests.policy.policies import AT_US, make_offer

OFFER = make_offer(auto_seconds=True)
"""Expected at 720p: 20 s, and 4 s for each second of film."""


def filled(*seconds: float, at: int = AT_US, times: int = 1) -> Histogram:
    histogram = Histogram()
    for one in seconds * times:
        histogram = histogram.add(one, at)
    return histogram


def learned(times: dict[tuple[int, Part], Histogram], *, at: int = AT_US, resolution: str = "720p") -> Learned:
    """By seconds of film and part."""
    return Learned({(OFFER.id, resolution, seconds, part): one for (seconds, part), one in times.items()}, at)


# Histograms


def test_nothing_is_worth_nothing() -> None:
    assert Histogram().weight(AT_US) == 0
    assert Histogram().percentile(0.5) == 0


@given(st.lists(st.floats(0.01, 86_400), min_size=1, max_size=150), st.floats(0.01, 1))
def test_percentile_is_within_five_percent(samples: list[float], ratio: float) -> None:
    histogram = filled(*samples)
    rank = max(1, -int(-ratio * len(samples) // 1))
    near = [sorted(samples)[max(0, min(place, len(samples)) - 1)] for place in (rank - 1, rank, rank + 1)]
    found = histogram.percentile(ratio)
    assert any(abs(found - exact) <= 0.05 * exact for exact in near)


def test_median_of_many_is_theirs() -> None:
    chance = random.Random(7)
    samples = [chance.lognormvariate(4, 0.5) for _ in range(200)]
    assert filled(*samples).percentile(0.5) == pytest.approx(median(samples), rel=0.05)


@pytest.mark.parametrize("seconds", [0.0, -1.0, 0.001])
def test_hardly_any_time_counts_as_hardly_any(seconds: float) -> None:
    assert 0 < filled(seconds).percentile(0.5) < 0.011


def test_sample_weighs_half_after_six_hours() -> None:
    histogram = filled(10, times=8)
    assert histogram.weight(AT_US) == 8
    assert histogram.weight(AT_US + HALF_LIFE_US) == pytest.approx(4)
    later = histogram.add(100, AT_US + HALF_LIFE_US)
    assert later.weight(AT_US + HALF_LIFE_US) == pytest.approx(5)
    assert later.percentile(0.79) < 11, "four fifths of the weight is old"
    assert later.percentile(0.81) > 95


def test_clock_that_is_behind_makes_nothing_heavier() -> None:
    assert filled(10).weight(AT_US - HALF_LIFE_US) == 1


def test_sample_that_comes_late_weighs_what_it_would_by_then() -> None:
    on_time = filled(10).add(20, AT_US + HALF_LIFE_US)
    late = filled(20, at=AT_US + HALF_LIFE_US).add(10, AT_US)
    assert late == on_time


def test_old_samples_go_sooner_where_many_come() -> None:
    slow_now = filled(10, times=1_000).merge(Histogram())
    assert slow_now.weight(AT_US) == pytest.approx(MOST_WEIGHT)
    for _ in range(int(MOST_WEIGHT)):
        slow_now = slow_now.add(100, AT_US)
    assert slow_now.weight(AT_US) == pytest.approx(MOST_WEIGHT)
    assert slow_now.percentile(0.5) > 95


def test_sample_is_forgotten_in_the_end() -> None:
    assert list(filled(10).add(100, AT_US + 20 * HALF_LIFE_US).buckets.values()) == [1.0]


@given(st.lists(st.tuples(st.floats(0.01, 1000), st.integers(0, 10)), max_size=40), st.integers(0, 40))
def test_merged_halves_are_the_whole(samples: list[tuple[float, int]], cut: int) -> None:
    parts = [Histogram(), Histogram()]
    whole = Histogram()
    for place, (seconds, hours) in enumerate(samples):
        at = AT_US + hours * HALF_LIFE_US // 6
        parts[place >= cut] = parts[place >= cut].add(seconds, at)
        whole = whole.add(seconds, at)
    merged = parts[0].merge(parts[1])
    assert merged.at == whole.at
    assert merged.buckets == pytest.approx(whole.buckets)


def test_histogram_survives_its_column_and_is_small() -> None:
    chance = random.Random(7)
    histogram = filled(*(chance.lognormvariate(4, 0.5) for _ in range(500)))
    content = histogram.encoded()
    assert read_histogram(content) == histogram
    assert len(content) < 500
    assert read_histogram(Histogram().encoded()) == Histogram()


# Samples


def make_attempt(state: AttemptState = "done", **times: int | None) -> Attempt:
    fields: dict[str, Any] = {"provider": "p", "seller_model": "m", "client_ref": "r", "possible_microusd": 1}
    fields |= {name: None if seconds is None else AT_US + seconds * SECOND_US for name, seconds in times.items()}
    return Attempt(video_id="video_1", number=1, offer=OFFER.id, state=state, started_at=AT_US, **fields)


def test_finished_film_tells_its_queue_and_its_render() -> None:
    assert times_of(make_attempt(accepted_at=1, rendering_at=30, ended_at=90)) == {"queue": 30.0, "render": 60.0}


def test_render_that_nobody_saw_begin_is_all_of_it() -> None:
    assert times_of(make_attempt(accepted_at=1, ended_at=90)) == {"queue": 0.0, "render": 90.0}


def test_what_made_no_film_tells_no_time() -> None:
    assert times_of(make_attempt("failed", accepted_at=1, ended_at=90)) is None
    assert times_of(make_attempt("running", accepted_at=1)) is None


# What is expected


def test_enough_samples_of_the_very_length_are_believed() -> None:
    times = learned({(5, "queue"): filled(10, times=8), (5, "render"): filled(100, times=8)})
    assert times.expected_s(OFFER, "720p", 5) == pytest.approx(110, rel=0.05)


def test_answer_stays_the_same() -> None:
    times = learned({(5, "render"): filled(100, times=8)})
    assert times.expected_s(OFFER, "720p", 5) == times.expected_s(OFFER, "720p", 5)


def test_a_slow_tail_moves_the_expectation_little() -> None:
    times = learned({(5, "render"): filled(100, 100, 100, 100, 100, 100, 1000, 1000)})
    assert times.expected_s(OFFER, "720p", 5) == pytest.approx(100, rel=0.05)


def test_too_few_or_too_old_samples_say_nothing() -> None:
    few, enough = filled(100, times=7), filled(100, times=int(ENOUGH))
    assert learned({(5, "render"): few}).expected_s(OFFER, "720p", 5) is None
    assert learned({(5, "render"): enough}).expected_s(OFFER, "720p", 5) is not None
    assert learned({(5, "render"): enough}, at=AT_US + HALF_LIFE_US).expected_s(OFFER, "720p", 5) is None


def test_nothing_is_learned_of_another_offer_or_resolution() -> None:
    times = learned({(5, "render"): filled(100, times=8)})
    assert times.expected_s(OFFER, "480p", 5) is None
    assert times.expected_s(make_offer(id="other"), "720p", 5) is None


def test_other_lengths_are_scaled_as_the_catalogue_has_it() -> None:
    times = learned({(5, "render"): filled(80, times=8), (5, "queue"): filled(10, times=8)})
    # 5 s of film are expected in 40 s, 15 s in 80 s; no queue is longer for a longer film.
    assert times.expected_s(OFFER, "720p", 15) == pytest.approx(10 + 160, rel=0.05)
    assert times.expected_s(OFFER, "720p", None) == pytest.approx(10 + 160, rel=0.05), "auto is counted at its longest"


def test_other_lengths_count_by_their_weight() -> None:
    times = learned({(5, "render"): filled(40, times=6), (15, "render"): filled(160, times=2)})
    assert times.expected_s(OFFER, "720p", 5) == pytest.approx((6 * 40 + 2 * 80) / 8, rel=0.05)


def test_films_whose_length_the_seller_chose_tell_of_no_other_length() -> None:
    times = learned({(AUTO, "render"): filled(100, times=8)})
    assert times.expected_s(OFFER, "720p", None) == pytest.approx(100, rel=0.05)
    assert times.expected_s(OFFER, "720p", 5) is None


def test_catalogue_without_any_time_scales_nothing() -> None:
    instant = make_offer(expected_s={"720p": (0.0, 0.0)})
    times = learned({(5, "render"): filled(100, times=8)})
    assert times.expected_s(instant, "720p", 6) == pytest.approx(100, rel=0.05)


def test_queue_alone_is_no_time() -> None:
    times = learned({(5, "queue"): filled(100, times=8)})
    assert times.expected_s(OFFER, "720p", 5) is None
