"""Time, handed in."""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], int]
"""Microseconds since the epoch, UTC."""

SECOND_US = 1_000_000
DAY_US = 86_400 * SECOND_US


def system_clock() -> int:
    return time.time_ns() // 1000


def steady_clock() -> int:
    """Microseconds by a clock that nobody sets, and that goes on while the machine sleeps, where there is one."""
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)) // 1000


class Flow:
    """
    Time that follows a clock, but does not jump where that is set.

    It goes at half speed until the clock has caught up, or at double speed until it has itself. So no lease,
    pause or deadline lasts less than half or more than double its length, and nothing is written before what
    was written before it. May be asked from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at_us = 0
        self._steady_us: int | None = None
        self.ahead_us = 0
        """By how much it was ahead of the clock when it was last asked; below zero: behind."""

    def not_before(self, at_us: int) -> None:
        """Somebody has seen that moment already."""
        with self._lock:
            self._at_us = max(self._at_us, at_us)

    def at(self, clock_us: int, steady_us: int) -> int:
        """The time when the clock and a steady one show this; the first clock is believed, unless it is behind."""
        with self._lock:
            if self._steady_us is None:
                self._at_us, self._steady_us = max(clock_us, self._at_us), steady_us
            passed_us = max(0, steady_us - self._steady_us)
            self._at_us = min(max(clock_us, self._at_us + passed_us // 2), self._at_us + 2 * passed_us)
            self._steady_us += passed_us
            self.ahead_us = self._at_us - clock_us
            return self._at_us


def as_datetime(at_us: int) -> datetime:
    return datetime.fromtimestamp(at_us / SECOND_US, UTC)


def iso(at_us: int) -> str:
    """RFC 3339 in whole seconds: 2026-11-21T05:30:00Z."""
    return as_datetime(at_us).strftime("%Y-%m-%dT%H:%M:%SZ")
