"""Periods in UTC, and the limit of a moment."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.budget import Budget, Period, counters_of, period_begin, period_end


def us(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000


@pytest.mark.parametrize(
    ("period", "at", "begin", "end"),
    [
        ("day", "2026-11-21T05:30:00", "2026-11-21", "2026-11-22"),
        ("day", "2026-12-31T23:59:59", "2026-12-31", "2027-01-01"),
        ("month", "2026-11-21T05:30:00", "2026-11-01", "2026-12-01"),
        ("month", "2028-02-29T00:00:00", "2028-02-01", "2028-03-01"),
        ("month", "2026-12-31T23:59:59", "2026-12-01", "2027-01-01"),
    ],
)
def test_period_is_a_day_or_a_month_in_utc(period: Period, at: str, begin: str, end: str) -> None:
    assert period_begin(period, us(at)) == us(begin)
    assert period_end(period, us(begin)) == us(end)


def test_total_begins_with_the_first_video_and_never_ends() -> None:
    assert period_begin("total", us("2026-11-21T05:30:00")) == 0
    assert period_end("total", 0) is None


@given(st.integers(0, 2**52), st.sampled_from(["day", "month"]))
def test_every_moment_lies_in_its_period_and_the_next_begins_where_it_ends(at_us: int, period: Period) -> None:
    begin = period_begin(period, at_us)
    end = period_end(period, begin)
    assert end is not None
    assert begin <= at_us < end
    assert period_begin(period, end) == end
    assert period_begin(period, end - 1) == begin


def test_video_counts_at_most_in_nine_counters_and_nobodys_in_the_empty_one() -> None:
    keys = counters_of("acme", None, None, us("2026-11-01T00:00:00"))
    assert len(set(keys)) == 9
    assert {(key.whose, key.subject) for key in keys} == {("tenant", ""), ("key", ""), ("end_user", "")}


def test_raise_holds_until_it_ends() -> None:
    budget = Budget("b", "acme", "tenant", "", "day", 100, 0, "", 0, raise_microusd=50, raise_until=10)
    assert [budget.limit_at(now) for now in (0, 9, 10)] == [150, 150, 100]
