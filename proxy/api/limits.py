"""How many requests a key and a tenant may make in a minute, as this process counts them."""

import time
from collections.abc import Callable

from proxy.core.clock import SECOND_US
from proxy.core.errors import RateLimited
from proxy.core.tenant import Caller
from proxy.policy.window import LENGTH_US, Window
from proxy.telemetry.metrics import Metrics


def _steady_us() -> int:
    return time.monotonic_ns() // 1000


class Turnstile:
    """Lets requests through, and counts those of whom a limit holds."""

    def __init__(self, metrics: Metrics, clock: Callable[[], int] = _steady_us) -> None:
        self._metrics = metrics
        self._clock = clock
        """Microseconds that never go back."""
        self._windows: dict[tuple[str, str], Window] = {}
        """By whose it is, `key` or `tenant`, and the id."""
        self._swept_us = clock()

    def __len__(self) -> int:
        """How many keys and tenants are remembered."""
        return len(self._windows)

    def enter(self, caller: Caller) -> None:
        """Counts a request for its key and its tenant. Raises RateLimited, and counts it for neither."""
        key_most, tenant_most = caller.requests_per_minute, caller.tenant.requests_per_minute
        if key_most is None and tenant_most is None:
            return
        at_us = self._clock()
        self._forget_idle(at_us)
        windows = []
        for whose, name, most in (("key", caller.key_id, key_most), ("tenant", caller.tenant.id, tenant_most)):
            if most is None:
                continue
            window = self._windows.setdefault((whose, name), Window())
            if wait_us := window.wait_us(most, at_us):
                self._metrics.rate_limited(tenant=caller.tenant.id, reason=f"{whose}_requests")
                raise RateLimited(
                    f"This {whose} may make {most} requests a minute.",
                    retry_after_s=-(-wait_us // SECOND_US),
                    limit=most,
                )
            windows.append(window)
        for window in windows:
            window.add(at_us)

    def _forget_idle(self, at_us: int) -> None:
        """Once a minute; nothing is asked of windows that stand still."""
        if at_us - self._swept_us >= LENGTH_US:
            self._windows = {whose: window for whose, window in self._windows.items() if not window.idle(at_us)}
            self._swept_us = at_us
