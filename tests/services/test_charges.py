"""A month is read from its name, to the microsecond, and nothing else is one."""

import pytest

from proxy.core.clock import DAY_US, iso
from proxy.core.errors import InvalidValue
from proxy.services.charges import read_month


@pytest.mark.parametrize(
    ("month", "start", "end"),
    [
        ("2026-11", "2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z"),
        ("2026-12", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        ("2028-02", "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z"),
    ],
)
def test_month_ends_where_the_next_begins(month: str, start: str, end: str) -> None:
    span = read_month(month)
    assert (iso(span.start), iso(span.end)) == (start, end)
    assert (span.end - span.start) % DAY_US == 0


@pytest.mark.parametrize(
    "month", ["", "2026", "2026-13", "2026-00", "2026-1", "26-11", "2026-11-01", "9999-12", "\uff12026-11", "2026-11\n"]
)
def test_what_is_no_month_is_refused(month: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        read_month(month)
    assert caught.value.param == "month"
