"""A provider: an account at a seller, as the operator named it."""

from typing import Literal

import msgspec


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """One entry under `providers` in the rules, with its key read and its defaults filled in."""

    name: str
    adapter: str
    base_url: str
    """Without a trailing slash."""
    api_key: str | None
    """None: the key is not set, so the provider is off."""
    enabled: bool = True
    required: bool = False
    max_in_flight: int | None = None
    """Attempts there at once, over all processes; None: no limit of ours."""
    breaker: bool = True
    """Whether its offers are passed over for a while after they failed again and again."""
    discount: str = "0"
    """Ratio from 0 to 1 off the list price, a decimal string."""
    end_user_id: Literal["raw", "hashed", "none"] = "hashed"
    asset_hosts: tuple[str, ...] = ()
    """Hosts whose files may be fetched even from private addresses."""

    @property
    def on(self) -> bool:
        """Whether new submits may go there."""
        return self.enabled and self.api_key is not None

    def __repr__(self) -> str:
        return f"Account({self.name!r}, {self.adapter!r}, {self.base_url!r}, on={self.on})"
