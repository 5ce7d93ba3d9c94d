"""Who pays, and with which rights."""

from typing import Literal

import msgspec

Scope = Literal["videos", "reports", "admin"]
SCOPES: tuple[Scope, ...] = ("videos", "reports", "admin")


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """A team that is billed."""

    id: str
    name: str
    markup: str = "0"
    """Ratio added to the seller's price, a decimal string: "0.15" is 15 %."""
    allow_filter_off: bool = False
    require_end_user_id: bool = False
    created_at: int
    """Microseconds, UTC."""
    requests_per_minute: int | None = None
    """Of all its keys together, in each process that serves; None: no limit."""
    videos_in_flight: int | None = None
    """Videos that are queued or in progress at once; None: no limit."""


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """The tenant behind a key, and what the key may do."""

    tenant: Tenant
    key_id: str
    scopes: frozenset[str]
    budgeted: bool = False
    """Whether the tenant had budgets seconds ago."""
    requests_per_minute: int | None = None
    """Of this key alone, beside the tenant's; None: no limit."""
    videos_in_flight: int | None = None
    """The same."""
