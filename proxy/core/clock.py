"""Time, handed in."""

import time
from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], int]
"""Microseconds since the epoch, UTC."""

SECOND_US = 1_000_000
DAY_US = 86_400 * SECOND_US


def system_clock() -> int:
    return time.time_ns() // 1000


def as_datetime(at_us: int) -> datetime:
    return datetime.fromtimestamp(at_us / SECOND_US, UTC)


def iso(at_us: int) -> str:
    """RFC 3339 in whole seconds: 2026-11-21T05:30:00Z."""
    return as_datetime(at_us).strftime("%Y-%m-%dT%H:%M:%SZ")
