"""What a tenant, one of its keys or one of its end users may spend, and in which stretch of time."""

from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple

import msgspec

from proxy.core.clock import SECOND_US

BudgetScope = Literal["tenant", "key", "end_user", "each_end_user", "no_end_user"]
"""
Whose spending counts: all of the tenant's, one key's, one end user's, that of every end user who has no
budget of the same period to its own name, or that of the requests without an end user.
"""
Period = Literal["day", "month", "total"]
"""In UTC; a video counts in the period in which it was accepted."""

MAX_LIMIT_MICROUSD = 10**9 * 10**6


class Budget(msgspec.Struct, frozen=True):
    """A row of `budgets`; the columns are described in tables.py."""

    id: str
    tenant_id: str
    scope: BudgetScope
    subject: str
    """Id of the key, surrogate of the end user; else empty."""
    period: Period
    limit_microusd: int
    shadow: int
    """1: counts and tells, but refuses nothing."""
    warn_at: str
    """Shares of the limit, decimal strings separated by spaces, at which a warning is due."""
    created_at: int
    raise_microusd: int = 0
    raise_until: int | None = None

    def limit_at(self, now_us: int) -> int:
        """With the temporary raise, while it lasts."""
        raised = self.raise_until is not None and now_us < self.raise_until
        return self.limit_microusd + (self.raise_microusd if raised else 0)


class CounterKey(NamedTuple):
    """Whose spending in which period is counted; budgets of the same share a counter."""

    tenant_id: str
    whose: Literal["tenant", "key", "end_user"]
    subject: str
    """Id of the key; surrogate of the end user, empty where there is none."""
    period: Period
    begins_at: int
    """Microseconds, UTC; 0 for `total`."""


def period_begin(period: Period, at_us: int) -> int:
    """When the period began in which that moment lies; 0 for `total`."""
    if period == "total":
        return 0
    day = datetime.fromtimestamp(at_us // SECOND_US, UTC).replace(hour=0, minute=0, second=0)
    return int((day if period == "day" else day.replace(day=1)).timestamp()) * SECOND_US


def period_end(period: Period, begins_at: int) -> int | None:
    """When the period ends that begins then, exclusive; None for `total`."""
    if period == "total":
        return None
    day = datetime.fromtimestamp(begins_at // SECOND_US, UTC)
    later = day + timedelta(days=1 if period == "day" else 32)
    return period_begin(period, int(later.timestamp()) * SECOND_US)


def counters_of(tenant_id: str, key_id: str | None, end_user: str | None, accepted_at: int) -> list[CounterKey]:
    """Every counter in which a video may count, whatever budgets there are; `end_user` is a surrogate."""
    whose: list[tuple[Literal["tenant", "key", "end_user"], str]] = [
        ("end_user", end_user or ""),
        ("key", key_id or ""),
        ("tenant", ""),
    ]
    periods: tuple[Period, ...] = ("day", "month", "total")
    return [
        CounterKey(tenant_id, kind, subject, period, period_begin(period, accepted_at))
        for kind, subject in whose
        for period in periods
    ]
