"""The catalogue says what the sellers print: figures, dates and sources."""

from datetime import date
from decimal import Decimal

import pytest

from proxy.catalog import read_catalog
from proxy.core.offer import Offer
from proxy.policy.rules import load_rules

ADAPTERS = ("evolink", "fal", "runflow", "runflow-legacy", "shortapi")
PRICES: dict[tuple[str, str], dict[str, tuple[str, str]]] = {
    ("evolink", "standard"): {
        "480p": ("0.0919", "listed"),
        "720p": ("0.1985", "listed"),
        "1080p": ("0.495", "derived"),
    },
    ("evolink", "fast"): {"480p": ("0.0745", "listed"), "720p": ("0.1608", "listed")},
    ("evolink", "mini"): {"480p": ("0.0376", "derived")},
    ("fal", "standard"): {"480p": ("0.1406", "derived"), "720p": ("0.3034", "listed")},
    ("fal", "fast"): {"480p": ("0.1125", "derived"), "720p": ("0.2419", "listed")},
    ("runflow", "standard"): {
        "480p": ("0.1406", "derived"),
        "720p": ("0.3034", "listed"),
        "1080p": ("0.6804", "derived"),
    },
    ("runflow", "fast"): {"480p": ("0.1125", "derived"), "720p": ("0.2419", "listed")},
    ("runflow-legacy", "standard"): {"480p": ("0.1406", "derived"), "720p": ("0.3034", "listed")},
    ("shortapi", "standard"): {"720p": ("0.24", "listed")},
    ("shortapi", "fast"): {"720p": ("0.20", "listed")},
}
MADE = {key: tuple(prices) for key, prices in PRICES.items()} | {("evolink", "mini"): ("480p", "720p")}


@pytest.fixture(scope="module")
def offers() -> dict[tuple[str, str], Offer]:
    """Every offer by adapter and tier."""
    providers = "".join(f"  {name}: {{adapter: {name}, api_key: k}}\n" for name in ADAPTERS)
    text = f"version: 1\nproviders:\n{providers}rules: [{{name: default}}]\n"
    adapters = dict.fromkeys(ADAPTERS, "https://seller.example")
    rules = load_rules(text.encode(), file="rules.yaml", env={}, adapters=adapters, catalog=read_catalog())
    return {(offer.adapter, offer.tier): offer for offer in rules.offers.values()}


def test_one_file_for_each_adapter() -> None:
    assert sorted(read_catalog()) == sorted(ADAPTERS)


def test_offers_and_figures_are_the_printed_ones(offers: dict[tuple[str, str], Offer]) -> None:
    found = {
        key: {price.resolution: (price.usd_per_second, price.basis) for price in offer.prices}
        for key, offer in offers.items()
    }
    assert found == PRICES
    assert {key: offer.resolutions for key, offer in offers.items()} == MADE


def test_every_price_has_a_date_and_a_source(offers: dict[tuple[str, str], Offer]) -> None:
    for offer in offers.values():
        for price in offer.prices:
            assert date(2026, 1, 1) <= date.fromisoformat(price.starts) <= date(2026, 12, 31)
            assert len(price.source) > 10
            assert price.id == f"{offer.adapter}-{offer.tier}-{price.resolution}-{price.starts}"


def test_price_ids_are_unique(offers: dict[tuple[str, str], Offer]) -> None:
    ids = [price.id for offer in offers.values() for price in offer.prices]
    assert len(ids) == len(set(ids))


def test_only_computed_prices_say_that_they_are_computed(offers: dict[tuple[str, str], Offer]) -> None:
    for offer in offers.values():
        for price in offer.prices:
            assert ("computed" in price.source) == (price.basis == "derived")


def test_abilities_are_the_documented_ones(offers: dict[tuple[str, str], Offer]) -> None:
    for (adapter, tier), offer in offers.items():
        token_seller = adapter in {"fal", "runflow", "runflow-legacy"}
        assert offer.seed is token_seller
        assert offer.auto_seconds is token_seller
        assert ("auto" in offer.aspect_ratios) is (adapter != "shortapi")
        assert offer.audio == ("always" if adapter == "shortapi" else "switch")
        assert offer.filter_switch is (adapter == "evolink")
        assert Decimal(offer.filter_off_factor) == Decimal("1.1" if adapter == "evolink" else "1")
        assert offer.web_search is (adapter == "evolink" and tier != "mini")
        assert Decimal(offer.web_search_usd) == (Decimal("0.0006") if offer.web_search else 0)
        assert offer.cancel is (adapter == "fal")
        assert offer.callbacks == {"evolink": "https", "runflow-legacy": "none"}.get(adapter, "http")
        assert (offer.model, offer.operation) == ("seedance-2.0", "text-to-video")
        assert (offer.min_seconds, offer.max_seconds) == (4, 15)
        assert len(set(offer.aspect_ratios) - {"auto"}) == 6


def test_faster_tiers_are_expected_sooner(offers: dict[tuple[str, str], Offer]) -> None:
    for adapter in ("evolink", "fal", "runflow", "shortapi"):
        standard, fast = offers[adapter, "standard"], offers[adapter, "fast"]
        assert fast.expected_time_s("720p", 5) < standard.expected_time_s("720p", 5)
    assert offers["evolink", "standard"].expected_time_s("720p", 5) == 165
