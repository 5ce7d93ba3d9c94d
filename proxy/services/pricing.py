"""Prices as operators set and remove them over those of the rules, and the book that comes of it."""

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Literal

import msgspec

from proxy.core.clock import Clock, as_datetime
from proxy.core.errors import InvalidValue, MissingParameter, NotFound, PriceMissing
from proxy.core.ids import NewId
from proxy.core.offer import Offer, Price, PriceBasis, PriceOrigin, PriceOverride
from proxy.core.video import Operation
from proxy.policy.book import iso_date, plain
from proxy.policy.overrides import has_place
from proxy.policy.prices import price_in_force
from proxy.policy.rules import Rules
from proxy.services.acts import REASON_MAX_CHARS, Clerk, check_text
from proxy.store import prices
from proxy.store.base import Store, Tx

SOURCE_MAX_CHARS = 200
_MOST_USD = {"usd_per_second": 1000, "usd_per_million_tokens": 20_000}
_USD = re.compile(r"[0-9]{1,5}(\.[0-9]{1,12})?")
_SHOWN_CHARS = 80


class PriceWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A price to be set."""

    provider: str
    model: str
    """By its own name."""
    tier: str = "standard"
    operation: Operation = "text-to-video"
    resolution: str
    with_video: bool = False
    """Whether it is the price where a video is among the references."""
    usd_per_second: str | None = None
    """List price, before the provider's discount; this or the next."""
    usd_per_million_tokens: str | None = None
    starts: str | None = None
    """First day, UTC; without it today."""
    source: str
    """Where the figure stands."""
    basis: PriceBasis = "listed"
    reason: str | None = None


class Appraiser:
    """Every change goes through here, from HTTP and from the command line."""

    def __init__(self, store: Store, clock: Clock, new_id: NewId) -> None:
        self._store = store
        self._clock = clock
        self._new_id = new_id
        self._clerk = Clerk(clock, new_id)

    async def set(self, actor: str, wish: PriceWish, rules: Rules) -> PriceOverride:
        """
        Holds for what is accepted once the servers know of it, whatever its first day.

        Raises NotFound for what nobody offers under these rules, InvalidValue, MissingParameter.
        """
        at = self._clock()
        override = PriceOverride(
            id=f"price_{self._new_id(at)}",
            provider=wish.provider,
            model=wish.model,
            tier=wish.tier,
            operation=wish.operation,
            resolution=wish.resolution,
            with_video=int(wish.with_video),
            usd_per_second=_usd("usd_per_second", wish.usd_per_second),
            usd_per_million_tokens=_usd("usd_per_million_tokens", wish.usd_per_million_tokens),
            starts=_start(wish.starts, today(at)),
            source=wish.source,
            basis=wish.basis,
            created_at=at,
        )
        _check_words(wish)
        _check_offer(override, rules)

        def unit(tx: Tx) -> None:
            for other in prices.live_overrides(tx):
                if _same_price(other, override):
                    raise InvalidValue(
                        f"{other.id} is such a price from {other.starts} on; remove it first.", param="starts"
                    )
            prices.insert_override(tx, override)
            self._clerk.record(tx, actor, "price.set", override.id, None, override, wish.reason)

        await self._store.write(unit)
        return override

    async def remove(self, actor: str, override_id: str, reason: str | None = None) -> None:
        """What it overruled holds again. Raises NotFound."""
        check_text("reason", reason, REASON_MAX_CHARS)

        def unit(tx: Tx) -> None:
            before = prices.take_override(tx, override_id)
            if before is None:
                raise NotFound(f"No price {override_id[:_SHOWN_CHARS]!r} was set that holds.")
            prices.remove_override(tx, override_id, self._clock())
            self._clerk.record(tx, actor, "price.remove", override_id, before, None, reason)

        await self._store.write(unit)


def today(at_us: int) -> str:
    """ISO date, UTC."""
    return as_datetime(at_us).date().isoformat()


def _usd(param: str, text: str | None) -> str | None:
    """Plain digits: what an exponent means is too easily misread."""
    if text is None:
        return None
    most = _MOST_USD[param]
    if not _USD.fullmatch(text) or Decimal(text) > most:
        raise InvalidValue(
            f"'{param}' is USD from 0 to {most}, such as \"0.25\", with twelve decimals at most.", param=param
        )
    return plain(Decimal(text))


def _start(text: str | None, default: str) -> str:
    found = default if text is None else iso_date(text)
    if found is None:
        raise InvalidValue("'starts' is a date such as 2026-04-01.", param="starts")
    return found


def _check_words(wish: PriceWish) -> None:
    check_text("source", wish.source, SOURCE_MAX_CHARS)
    check_text("reason", wish.reason, REASON_MAX_CHARS)
    if not wish.source.strip():
        raise MissingParameter("'source' says where the figure stands.", param="source")
    if wish.usd_per_second is None and wish.usd_per_million_tokens is None:
        raise MissingParameter("A price needs 'usd_per_second' or 'usd_per_million_tokens'.", param="usd_per_second")
    if wish.usd_per_second is not None and wish.usd_per_million_tokens is not None:
        raise InvalidValue("A price is by second or by tokens, not by both at once.", param="usd_per_million_tokens")


def _check_offer(override: PriceOverride, rules: Rules) -> None:
    if override.provider not in rules.accounts:
        shown, known = override.provider[:_SHOWN_CHARS], ", ".join(sorted(rules.accounts))
        raise NotFound(f"There is no provider {shown!r}; there are: {known}.", param="provider")
    offer = rules.offers.get(override.offer)
    if offer is None:
        mine = ", ".join(sorted(name for name, one in rules.offers.items() if one.provider == override.provider))
        shown = override.offer[: 2 * _SHOWN_CHARS]
        raise NotFound(f"There is no offer {shown!r}; there are: {mine or 'none'}.", param="model")
    if override.resolution not in offer.resolutions:
        made = ", ".join(offer.resolutions)
        raise InvalidValue(f"{offer.id} makes {made}.", param="resolution")


def _same_price(one: PriceOverride, other: PriceOverride) -> bool:
    return all(getattr(one, name) == getattr(other, name) for name in ("offer", "resolution", "with_video", "starts"))


# The book


class PriceLine(msgspec.Struct, frozen=True, kw_only=True):
    """One dated price of the book in force."""

    object: Literal["price"] = "price"
    id: str
    provider: str
    model: str
    tier: str
    operation: str
    resolution: str
    with_video: bool
    """Whether it counts where a video is among the references, and only there."""
    usd_per_second: str | None
    """List price; null where it is by tokens."""
    usd_per_million_tokens: str | None
    discount: str
    """The provider's, a ratio."""
    discounted_usd: str
    """The list price less the discount, in the same unit."""
    starts: str
    """First day, UTC; it holds until the next of the same offer and resolution starts."""
    in_force: bool
    """Whether it is what counts today."""
    basis: PriceBasis
    source: str
    origin: PriceOrigin
    override: str | None
    """Id to remove it by; null where it is of catalogue or rules."""
    warning: str | None
    """Why a price that was set holds nothing."""


def book(
    rules: Rules, overrides: Sequence[PriceOverride], day: str, *, provider: str | None = None, model: str | None = None
) -> list[PriceLine]:
    """
    Every price of `rules`, over which the overrides lie already, by offer, resolution and start.

    Those overrides follow that have no place in it. `model` is any name of it.
    """
    found = [
        _line(rules, offer, price, in_force=price is _in_force(offer, price, day))
        for _, offer in sorted(rules.offers.items())
        for price in sorted(offer.prices, key=lambda one: _place(offer, one))
    ]
    found += [
        _line(rules, one, one.price, warning="Nobody offers this any more.")
        for one in overrides
        if not has_place(one, rules)
    ]
    model = None if model is None else rules.names.get(model, model)
    return [line for line in found if provider in {None, line.provider} and model in {None, line.model}]


def _place(offer: Offer, price: Price) -> tuple[int, bool, str]:
    return offer.resolutions.index(price.resolution), price.with_video, price.starts


def _in_force(offer: Offer, like: Price, day: str) -> Price | None:
    try:
        return price_in_force(offer, like.resolution, day, with_video=like.with_video)
    except PriceMissing:
        return None


def _line(
    rules: Rules, of: Offer | PriceOverride, price: Price, *, in_force: bool = False, warning: str | None = None
) -> PriceLine:
    account = rules.accounts.get(of.provider)
    discount = "0" if account is None else account.discount
    usd = Decimal(price.usd_per_second or price.usd_per_million_tokens or 0)
    return PriceLine(
        id=price.id,
        provider=of.provider,
        model=of.model,
        tier=of.tier,
        operation=of.operation,
        resolution=price.resolution,
        with_video=price.with_video,
        usd_per_second=price.usd_per_second,
        usd_per_million_tokens=price.usd_per_million_tokens,
        discount=discount,
        discounted_usd=plain(usd * (1 - Decimal(discount))),
        starts=price.starts,
        in_force=in_force,
        basis=price.basis,
        source=price.source,
        origin=price.origin,
        override=price.id if price.origin == "override" else None,
        warning=warning,
    )
