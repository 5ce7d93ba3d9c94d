"""A turnstile lets as many through in a minute as a key and its tenant may make, and remembers only what it needs."""

import pytest

from proxy.api.limits import Turnstile
from proxy.core.clock import SECOND_US
from proxy.core.errors import RateLimited
from proxy.core.tenant import SCOPES, Caller, Tenant
from proxy.telemetry.metrics import Metrics


class Door:
    """A turnstile whose clock is moved by hand."""

    def __init__(self) -> None:
        self.now_us = 7 * SECOND_US
        self.metrics = Metrics("0", providers=[], models=[], offers=[], rules=[])
        self.metrics.set_tenants(["acme", "other"])
        self.turnstile = Turnstile(self.metrics, lambda: self.now_us)

    def asks(self, caller: Caller) -> RateLimited | None:
        """The refusal; None where it was let through."""
        try:
            self.turnstile.enter(caller)
        except RateLimited as exc:
            return exc
        return None

    def passes(self, caller: Caller, times: int) -> int:
        """How many of so many were let through."""
        return sum(self.asks(caller) is None for _ in range(times))

    def refused(self, reason: str) -> float:
        labels = {"tenant": "acme", "reason": reason}
        return self.metrics.registry.get_sample_value("reelay_rate_limited_total", labels) or 0.0


def make_caller(
    key: str = "key_1", *, key_most: int | None = None, tenant_most: int | None = None, tenant: str = "acme"
) -> Caller:
    team = Tenant(id=tenant, name=tenant, created_at=0, requests_per_minute=tenant_most)
    return Caller(tenant=team, key_id=key, scopes=frozenset(SCOPES), requests_per_minute=key_most)


@pytest.fixture
def door() -> Door:
    return Door()


def test_whoever_has_no_limit_is_let_through_and_not_remembered(door: Door) -> None:
    assert door.passes(make_caller(), 1000) == 1000
    assert len(door.turnstile) == 0


def test_refusal_tells_when_the_oldest_leaves_in_whole_seconds(door: Door) -> None:
    caller = make_caller(key_most=2)
    assert door.passes(caller, 2) == 2
    door.now_us += 500_000
    for waited_s, told_s in ((0, 60), (1, 59), (59, 1)):
        at_us = door.now_us
        door.now_us += waited_s * SECOND_US
        refusal = door.asks(caller)
        assert refusal is not None
        assert (refusal.retry_after_s, refusal.limit, str(refusal)) == (
            told_s,
            2,
            "This key may make 2 requests a minute.",
        )
        door.now_us = at_us
    door.now_us += 59_500_000
    assert door.passes(caller, 3) == 2


def test_refused_request_counts_for_nobody(door: Door) -> None:
    first, second = make_caller("key_1", key_most=1, tenant_most=3), make_caller("key_2", tenant_most=3)
    assert door.passes(first, 9) == 1
    assert door.passes(second, 9) == 2
    assert (door.refused("key_requests"), door.refused("tenant_requests")) == (8, 7)
    door.now_us += 60 * SECOND_US
    assert door.passes(second, 9) == 3
    assert door.passes(first, 9) == 0
    door.now_us += 60 * SECOND_US
    assert door.passes(first, 1) == 1


def test_each_key_and_each_tenant_has_its_own_minute(door: Door) -> None:
    assert door.passes(make_caller("key_1", key_most=2), 5) == 2
    assert door.passes(make_caller("key_2", key_most=3), 5) == 3
    assert door.passes(make_caller("key_3", tenant="other", tenant_most=4), 5) == 4
    assert door.passes(make_caller("key_4"), 5) == 5


def test_limit_that_is_changed_or_gone_holds_as_it_is_now(door: Door) -> None:
    assert door.passes(make_caller(key_most=2), 5) == 2
    assert door.passes(make_caller(key_most=4), 5) == 2
    assert door.passes(make_caller(key_most=3), 5) == 0
    assert door.passes(make_caller(), 5) == 5


def test_idle_ones_are_forgotten(door: Door) -> None:
    for number in range(500):
        door.passes(make_caller(f"key_{number}", key_most=5), 1)
    assert len(door.turnstile) == 500
    door.now_us += 60 * SECOND_US
    door.passes(make_caller("key_0", key_most=5), 1)
    assert len(door.turnstile) == 1
