"""
What an offer costs: the price in force, a quote rounded up, and the charge in the end.

The seller's price is list x (1 - discount) x surcharges, the tenant's is that x (1 + markup). Each
amount is worked out exactly in decimals and rounded once.
"""

from collections.abc import Mapping
from decimal import Decimal

import msgspec

from proxy.core.errors import PriceMissing
from proxy.core.money import MICRO, microusd_even, microusd_up
from proxy.core.offer import Candidate, InputSeconds, Offer, Passed, Price, PriceBasis
from proxy.core.video import ASPECT_RATIOS, MAX_SECONDS, MIN_SECONDS, PIXELS, RESOLUTIONS, Spec

_RESOLUTION_OF = {size: resolution for (resolution, _), size in PIXELS.items()}
_DERIVED_PERCENT = 125
"""A price that nobody printed may be too low: this much of it is held."""
_FRAMES_PER_SECOND, _PIXELS_PER_TOKEN = 24, 1024


class Rated(msgspec.Struct, frozen=True, kw_only=True):
    """An offer's price for one resolution, after discount and surcharges, before markup."""

    price_id: str
    basis: PriceBasis
    rates: dict[str, str]
    """Resolution to USD per second; the asked one, and those below it that have a price."""
    usd_per_second: Decimal
    fixed_usd: Decimal


class Quote(msgspec.Struct, frozen=True, kw_only=True):
    """What a video would cost, each figure rounded up."""

    seller_microusd: int
    tenant_microusd: int
    hold_microusd: int


class Tariff(msgspec.Struct, frozen=True, kw_only=True):
    """How a charge to a tenant comes about, markup included: enough to work it out again years later."""

    quantity: int
    """Seconds of film, and of reference video that is billed; 1 where the seller's stated price of all counts."""
    unit_usd: str
    """For each of these, a decimal string."""
    fixed_usd: str
    """On top, a decimal string."""

    def microusd(self) -> int:
        """Before it is bounded by the hold."""
        return microusd_even(Decimal(self.unit_usd) * self.quantity + Decimal(self.fixed_usd))


class Charge(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a delivered video costs whom.

    `tenant_microusd` is never above the hold. `seller_microusd` is what the seller said it took; where
    it said nothing, the frozen rate of the asked resolution for the asked seconds (the measured ones
    where the seller chose the length). `overrun_microusd` is what it took beyond the hold. What is left,
    tenant + overrun - seller, is our margin; it is below zero where the seller bills in full for less
    than was asked.
    """

    tenant_microusd: int
    seller_microusd: int
    overrun_microusd: int
    billed_seconds: int
    """Of film."""
    billed_resolution: str
    tariff: Tariff
    expected_microusd: int
    """What the seller's own price makes for what was asked."""


def price_in_force(offer: Offer, resolution: str, day: str, *, with_video: bool = False) -> Price:
    """
    The latest entry that had started on `day`, an ISO date; `with_video` that of reference videos, if there is one.

    Raises PriceMissing; never guesses.
    """
    started = [
        price
        for price in offer.prices
        if price.resolution == resolution and price.starts <= day and (with_video or not price.with_video)
    ]
    if not started:
        raise PriceMissing(f"{offer.id} has no price for {resolution} on {day}")
    return max(started, key=lambda price: (price.with_video, price.starts))


def list_usd_per_second(offer: Offer, price: Price, aspect_ratio: str) -> Decimal:
    """
    Of a price of the offer; by tokens it depends on the frame, and `auto` is the dearest that the offer makes.

    Raises PriceMissing where it states neither.
    """
    if price.usd_per_second is not None:
        return Decimal(price.usd_per_second)
    if price.usd_per_million_tokens is None:
        raise PriceMissing(f"the price {price.id} of {offer.id} states no amount")
    ratios = [one for one in offer.aspect_ratios if one != "auto"] or ASPECT_RATIOS
    sizes = [PIXELS[price.resolution, one] for one in (ratios if aspect_ratio == "auto" else (aspect_ratio,))]
    pixels = max(width * height for width, height in sizes)
    tokens = Decimal(pixels * _FRAMES_PER_SECOND) / _PIXELS_PER_TOKEN
    return Decimal(price.usd_per_million_tokens) * tokens / 1_000_000


def rate(offer: Offer, spec: Spec, day: str, *, discount: str) -> Rated:
    """Raises PriceMissing where the asked resolution has no price; a smaller one may lack it."""
    with_video = spec.input_video_s > 0
    price = price_in_force(offer, spec.resolution, day, with_video=with_video)
    factor = 1 - Decimal(discount)
    surcharge = factor if spec.content_filter else factor * Decimal(offer.filter_off_factor)
    rates: dict[str, str] = {}
    for resolution in RESOLUTIONS[: RESOLUTIONS.index(spec.resolution) + 1]:
        try:
            listed = price_in_force(offer, resolution, day, with_video=with_video)
        except PriceMissing:
            continue
        rates[resolution] = f"{list_usd_per_second(offer, listed, spec.aspect_ratio) * surcharge:f}"
    searched = spec.web_search and offer.web_search
    return Rated(
        price_id=price.id,
        basis=price.basis,
        rates=rates,
        usd_per_second=Decimal(rates[spec.resolution]),
        fixed_usd=Decimal(offer.web_search_usd) * factor if searched else Decimal(0),
    )


def billed_seconds(how: InputSeconds | None, film_s: int, input_s: int) -> int:
    """What a seller counts for so many seconds of film made after so many of reference video."""
    if how is None or not input_s:
        return film_s
    return film_s + (input_s if how == "added" else max(film_s, input_s))


def quote(rated: Rated, seconds: int, markup: str) -> Quote:
    """Of so many billed seconds; for `auto` length the caller names the longest."""
    usd = rated.usd_per_second * seconds + rated.fixed_usd
    tenant = microusd_up(usd * (1 + Decimal(markup)))
    hold = -(-tenant * _DERIVED_PERCENT // 100) if rated.basis == "derived" else tenant
    return Quote(seller_microusd=microusd_up(usd), tenant_microusd=tenant, hold_microusd=hold)


def resolution_of(size_px: tuple[int, int]) -> str:
    """The resolution whose frame this is; for a size that nobody names, the one nearest in area."""
    if size_px in _RESOLUTION_OF:
        return _RESOLUTION_OF[size_px]
    area = size_px[0] * size_px[1]
    nearest = min(PIXELS.values(), key=lambda size: abs(size[0] * size[1] - area))
    return _RESOLUTION_OF[nearest]


def asked_seconds(asked: Spec, delivered_seconds: float) -> int:
    """
    The whole seconds that were asked; for `auto` the measured ones, within what can be asked.

    A clip is one frame longer than its seconds, so whole seconds are the nearest ones.
    """
    return min(max(int(delivered_seconds + 0.5), MIN_SECONDS), MAX_SECONDS) if asked.seconds is None else asked.seconds


def charge(
    candidate: Candidate,
    markup: str,
    asked: Spec,
    *,
    delivered_seconds: float,
    delivered_px: tuple[int, int],
    stated_cost_microusd: int | None,
    hold_microusd: int,
) -> Charge:
    """
    Settle a delivered video from the figures frozen at accept.

    The tenant pays for what was asked; for less length or size, the lower price; for `auto`, the
    measured seconds. A derived price gives way to what the seller says it took, but never for more
    than was asked. Rounded half to even, once.
    """
    measured = int(delivered_seconds + 0.5)
    wanted = asked_seconds(asked, delivered_seconds)
    seconds = wanted if asked.seconds is None else min(asked.seconds, measured)
    delivered = resolution_of(delivered_px)
    resolution = min(asked.resolution, delivered, key=RESOLUTIONS.index)
    fixed = Decimal(candidate.fixed_usd)
    factor = 1 + Decimal(markup)
    rate_usd = _lowest_rate(candidate.rates, resolution)
    billed = billed_seconds(candidate.input_seconds, seconds, asked.input_video_s)
    billed_in_full = billed_seconds(candidate.input_seconds, wanted, asked.input_video_s)
    full_usd = Decimal(candidate.rates[asked.resolution]) * billed_in_full + fixed
    tariff = Tariff(quantity=billed, unit_usd=f"{rate_usd * factor:f}", fixed_usd=f"{fixed * factor:f}")
    if candidate.basis == "derived" and stated_cost_microusd is not None:
        stated_usd = stated_cost_microusd / MICRO
        as_asked = measured == wanted and delivered == asked.resolution
        if as_asked or stated_usd < rate_usd * billed + fixed:
            tariff = Tariff(quantity=1, unit_usd=f"{stated_usd * factor:f}", fixed_usd="0")
    expected = microusd_even(full_usd)
    seller = expected if stated_cost_microusd is None else stated_cost_microusd
    return Charge(
        tenant_microusd=min(tariff.microusd(), hold_microusd),
        seller_microusd=seller,
        overrun_microusd=max(0, seller - hold_microusd),
        billed_seconds=seconds,
        billed_resolution=resolution,
        tariff=tariff,
        expected_microusd=expected,
    )


def would_cost(other: Candidate | Passed, markup: str, asked: Spec, *, seconds: int, resolution: str) -> int:
    """Micro-dollars that a tenant would have paid for such a film from another offer, by its price at accept."""
    billed = billed_seconds(other.input_seconds, seconds, asked.input_video_s)
    usd = _lowest_rate(other.rates, resolution) * billed + Decimal(other.fixed_usd)
    return microusd_even(usd * (1 + Decimal(markup)))


def differs(stated_microusd: int, expected_microusd: int, tolerance: str) -> bool:
    """Whether what a seller says it took is off its price by more than that ratio."""
    return abs(stated_microusd - expected_microusd) > expected_microusd * Decimal(tolerance)


def _lowest_rate(rates: Mapping[str, str], resolution: str) -> Decimal:
    """The cheapest from `resolution` up to the asked one; a size without a price of its own costs the next larger."""
    smallest = RESOLUTIONS.index(resolution)
    return min(Decimal(usd) for name, usd in rates.items() if RESOLUTIONS.index(name) >= smallest)
