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


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """The tenant behind a key, and what the key may do."""

    tenant: Tenant
    key_id: str
    scopes: frozenset[str]
    budgeted: bool = False
    """Whether the tenant had budgets seconds ago."""
