"""The prices that operators set while the server works, over those of the rules' file."""

from collections.abc import Sequence

import msgspec

from proxy.core.ids import sha256_hex
from proxy.core.offer import Offer, Price, PriceOverride
from proxy.policy.book import overruled
from proxy.policy.rules import Rules, with_offers


def lay_over(rules: Rules, overrides: Sequence[PriceOverride]) -> Rules:
    """
    The rules of the file with these prices over theirs; without any, the very same.

    Of one whose offer is gone, or no longer makes its resolution, nothing holds but a warning.
    """
    laid = [one for one in overrides if has_place(one, rules)]
    warnings = tuple(
        f"the price {one.id} is of {one.offer} at {one.resolution}, which nobody offers any more"
        for one in overrides
        if not has_place(one, rules)
    )
    if laid:
        by_offer: dict[str, list[Price]] = {}
        for one in laid:
            by_offer.setdefault(one.offer, []).append(one.price)
        repriced = {name: _repriced(rules.offers[name], prices) for name, prices in by_offer.items()}
        book_hash = sha256_hex(msgspec.json.encode([rules.book_hash, sorted(laid, key=lambda one: one.id)]))
        rules = msgspec.structs.replace(with_offers(rules, rules.offers | repriced), book_hash=book_hash)
    return msgspec.structs.replace(rules, warnings=(*rules.warnings, *warnings)) if warnings else rules


def has_place(override: PriceOverride, rules: Rules) -> bool:
    """Whether it is the price of something that is offered."""
    offer = rules.offers.get(override.offer)
    return offer is not None and override.resolution in offer.resolutions


def _repriced(offer: Offer, prices: Sequence[Price]) -> Offer:
    kept = (old for old in offer.prices if not any(overruled(old, new) for new in prices))
    return msgspec.structs.replace(offer, prices=(*kept, *prices))
