"""
The book: which offers there are, and their dated prices. The catalogue first, then the operator's YAML.

An `offers` entry of the YAML with the id of a catalogue offer replaces it. A `prices` entry holds from
its `starts` on and leaves the earlier prices of the catalogue as they are; without `starts` it has
always held.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import date
from decimal import Decimal
from typing import Any, get_args

import msgspec

from proxy.core.account import Account
from proxy.core.ids import sha256_hex
from proxy.core.offer import InputSeconds, Offer, Price, PriceOrigin
from proxy.core.video import ASPECT_RATIOS, MAX_SECONDS, MIN_SECONDS, RESOLUTIONS, TIERS
from proxy.policy.marked import (
    Item,
    Reader,
    Section,
    Source,
    choice,
    compose,
    decimal,
    flag,
    items,
    or_nothing,
    section,
    several,
    text,
    whole,
)
from proxy.policy.when import OPERATIONS

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_ALWAYS = "0001-01-01"
_UNITS = {"usd_per_second": decimal("0", "1000"), "usd_per_million_tokens": decimal("0", "20000")}
_PRICE_KEYS = ("id", "resolution", "with_video", *_UNITS, "starts", "source", "basis")
_ABILITIES: dict[str, Reader[Any]] = {
    "seller_model": text,
    "resolutions": several(choice(RESOLUTIONS)),
    "aspect_ratios": several(choice((*ASPECT_RATIOS, "auto"))),
    "min_seconds": whole(MIN_SECONDS, MAX_SECONDS),
    "max_seconds": whole(MIN_SECONDS, MAX_SECONDS),
    "auto_seconds": flag,
    "audio": choice(("switch", "always", "never")),
    "seed": flag,
    "filter_switch": flag,
    "web_search": flag,
    "prompt_max_chars": or_nothing(whole(1, 1_000_000)),
    "cancel": flag,
    "callbacks": choice(("none", "http", "https")),
    "link_lifetime_s": whole(60, 10**9),
    "submit_timeout_s": lambda item: float(decimal("1", "3600")(item)),
}
_OFFER_KEYS = (
    "model",
    "operation",
    "tier",
    *_ABILITIES,
    "filter_off_factor",
    "web_search_usd",
    "input_seconds",
    "expected_s",
    "prices",
)


def plain(value: Decimal) -> str:
    """A decimal string without an exponent."""
    return f"{value:f}"


def _iso_date(item: Item) -> str:
    found = iso_date(text(item))
    if found is None:
        raise item.wrong("a date such as 2026-04-01")
    return found


def _amount(fields: Section) -> dict[str, Any]:
    """By unit; there is one."""
    stated = {unit: plain(how(fields.entries[unit])) for unit, how in _UNITS.items() if unit in fields.entries}
    if len(stated) != 1:
        raise fields.item.fault(f"a price needs one of the keys {' and '.join(_UNITS)}, not {len(stated) or 'none'}")
    return stated


def _price(fields: Section, origin: PriceOrigin) -> Price:
    return Price(
        id=fields.need("id", text),
        resolution=fields.need("resolution", choice(RESOLUTIONS)),
        with_video=fields.read("with_video", flag, default=False),
        **_amount(fields),
        starts=fields.need("starts", _iso_date),
        source=fields.need("source", text),
        basis=fields.need("basis", choice(("listed", "derived"))),
        origin=origin,
    )


def _expected(resolutions: Iterable[str], item: Item) -> dict[str, tuple[float, float]]:
    figure = decimal("0", "86400")
    found: dict[str, tuple[float, float]] = {}
    for resolution, pair in section(item, resolutions).entries.items():
        parts = [float(figure(one)) for one in items(pair)]
        if len(parts) != 2:
            raise pair.wrong("two numbers: fixed seconds, and seconds per second of film")
        found[resolution] = (parts[0], parts[1])
    missing = [resolution for resolution in resolutions if resolution not in found]
    if missing:
        raise item.fault(f"expected_s says nothing of {missing[0]}")
    return found


def _offer(fields: Section, account: Account, model: str, origin: PriceOrigin = "rules") -> Offer:
    abilities = {key: fields.need(key, how) for key, how in _ABILITIES.items()}
    if abilities["min_seconds"] > abilities["max_seconds"]:
        raise fields.item.fault("min_seconds is above max_seconds")
    resolutions = abilities["resolutions"]
    operation, tier = fields.need("operation", choice(OPERATIONS)), fields.need("tier", choice(TIERS))
    prices = fields.read("prices", items, [])
    offer = Offer(
        id=f"{account.name}/{model}/{tier}/{operation}",
        provider=account.name,
        adapter=account.adapter,
        model=model,
        operation=operation,
        tier=tier,
        **abilities,
        filter_off_factor=plain(fields.read("filter_off_factor", decimal("1", "10"), Decimal(1))),
        web_search_usd=plain(fields.read("web_search_usd", decimal("0", "1000"), Decimal(0))),
        input_seconds=fields.read("input_seconds", choice(get_args(InputSeconds)), None),
        expected_s=fields.need("expected_s", lambda item: _expected(resolutions, item)),
        prices=tuple(_price(section(item, _PRICE_KEYS), origin) for item in prices),
    )
    for price in offer.prices:
        _check_price(fields.item, offer, price)
    return offer


def _begins_with(one: Price, other: Price) -> bool:
    return (one.resolution, one.with_video, one.starts) == (other.resolution, other.with_video, other.starts)


def overruled(old: Price, new: Price) -> bool:
    """Whether an entry of an earlier list holds no more beside one of a later list; those that began before do."""
    return old.resolution == new.resolution and old.with_video == new.with_video and old.starts >= new.starts


def iso_date(value: str) -> str | None:
    """As prices hold it; None for what is no date."""
    try:
        return date.fromisoformat(value).isoformat() if _DATE.fullmatch(value) else None
    except ValueError:
        return None


def _check_price(item: Item, offer: Offer, price: Price) -> None:
    if price.resolution not in offer.resolutions:
        raise item.fault(f"a price for {price.resolution}, which {offer.id} does not make")
    if sum(_begins_with(other, price) for other in offer.prices) > 1:
        raise item.fault(f"two prices of {offer.id} for {price.resolution} start on {price.starts}")


def _without(*left_out: str) -> tuple[str, ...]:
    return tuple(key for key in _OFFER_KEYS if key not in left_out)


class Book:
    """Offers by id, while they are being read."""

    def __init__(self) -> None:
        self.offers: dict[str, Offer] = {}
        self._added: set[str] = set()
        self._own_prices: set[tuple[str, str]] = set()

    def take_catalogue(self, account: Account, file: bytes) -> None:
        """Every offer of the account's seller."""
        source = Source(file=f"catalog/{account.adapter}.yaml", env={})
        for item in section(compose(file, source), ("offers",)).need("offers", items):
            fields = section(item, _OFFER_KEYS)
            offer = _offer(fields, account, fields.need("model", text), "catalogue")
            if offer.id in self.offers:
                raise item.fault(f"the offer {offer.id} is here twice")
            self.offers[offer.id] = offer

    def add_to_provider(self, account: Account, offers: list[Item]) -> None:
        """The `offers` of a provider: all the fields of an offer, its model among them."""
        for item in offers:
            fields = section(item, _OFFER_KEYS)
            self._add(item, _offer(fields, account, fields.need("model", text)))

    def add_to_model(self, model: str, accounts: Mapping[str, Account], offers: list[Item]) -> None:
        """The `offers` of a model: `provider` instead of `model`."""
        for item in offers:
            fields = section(item, ("provider", *_without("model")))
            provider = fields.need("provider", choice(accounts))
            self._add(item, _offer(fields, accounts[provider], model))

    def _add(self, item: Item, offer: Offer) -> None:
        if offer.id in self._added:
            raise item.fault(f"the offer {offer.id} is here twice")
        self._added.add(offer.id)
        self.offers[offer.id] = offer

    def reprice(self, account: Account, prices: list[Item]) -> None:
        """The `prices` of a provider: which offer and resolution, and what they cost from when on."""
        for item in prices:
            fields = section(item, ("model", "operation", "tier", *_PRICE_KEYS))
            model, tier = fields.need("model", text), fields.need("tier", choice(TIERS))
            operation = fields.read("operation", choice(OPERATIONS), "text-to-video")
            offer_id = f"{account.name}/{model}/{tier}/{operation}"
            if offer_id not in self.offers:
                mine = ", ".join(sorted(known for known in self.offers if known.startswith(f"{account.name}/")))
                raise item.fault(f"a price for {offer_id}, which is no offer; there are: {mine or 'none'}")
            self._reprice(item, self.offers[offer_id], fields)

    def _reprice(self, item: Item, offer: Offer, fields: Section) -> None:
        resolution = fields.need("resolution", choice(RESOLUTIONS))
        with_video = fields.read("with_video", flag, default=False)
        starts = fields.read("starts", _iso_date, _ALWAYS)
        price = Price(
            id=fields.read("id", text, f"{offer.id}/{resolution}{'+video' if with_video else ''}@{starts}"),
            resolution=resolution,
            with_video=with_video,
            **_amount(fields),
            starts=starts,
            source=fields.read("source", text, item.source.file),
            basis=fields.read("basis", choice(("listed", "derived")), "listed"),
            origin="rules",
        )
        kept = tuple(old for old in offer.prices if not self._overruled(offer, old, price))
        repriced = msgspec.structs.replace(offer, prices=(*kept, price))
        _check_price(item, repriced, price)
        self.offers[offer.id] = repriced
        self._own_prices.add((offer.id, price.id))

    def _overruled(self, offer: Offer, old: Price, new: Price) -> bool:
        from_catalogue = (offer.id, old.id) not in self._own_prices
        return from_catalogue and overruled(old, new)

    def check_price_ids(self, item: Item) -> None:
        """Two different prices under one id would make a posting name the wrong one."""
        prices: dict[str, Price] = {}
        for offer in self.offers.values():
            for price in offer.prices:
                # Who has written it down, the seller's catalogue or an operator beside it, makes no other price.
                same = msgspec.structs.replace(price, origin="catalogue")
                if prices.setdefault(price.id, same) != same:
                    raise item.fault(f'two different prices have the id "{price.id}"')

    def fingerprint(self, discounts: Mapping[str, str]) -> str:
        """SHA-256 of everything that a price depends on."""
        content = [sorted(self.offers.items()), sorted(discounts.items())]
        return sha256_hex(msgspec.json.encode(content, order="deterministic"))
