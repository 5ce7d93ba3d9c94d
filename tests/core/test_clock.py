"""Time is whole microseconds, and reads as UTC."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from proxy.core.clock import SECOND_US, as_datetime, iso, system_clock

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
