"""Prices that operators set at work go before those of catalogue and file, from their start on."""

from typing import Any

from proxy.core.offer import PriceOverride
from proxy.policy.overrides import lay_over
from proxy.policy.prices import price_in_force
from proxy.policy.rules import Rules
from tests.policy.policies import PROVIDERS, decided, make_rules

OFFER = "fal/seedance-2.0/standard/text-to-video"
OWN = '[{model: seedance-2.0, tier: standard, resolution: 720p, usd_per_second: "0.28", starts: 2026-09-01}]'
PLAIN = make_rules()
WITH_OWN = make_rules(
    providers=PROVIDERS.replace('api_key: "${FAL_KEY}"', f'api_key: "${{FAL_KEY}}", discount: "0.5", prices: {OWN}')
)


def make_override(usd: str = "0.25", name: str = "price_a", **fields: Any) -> PriceOverride:
    row: dict[str, Any] = {
        "provider": "fal",
        "model": "seedance-2.0",
        "tier": "standard",
        "operation": "text-to-video",
        "resolution": "720p",
        "with_video": 0,
        "usd_per_second": usd,
        "usd_per_million_tokens": None,
        "starts": "2026-10-01",
        "source": "a contract",
        "basis": "listed",
        "created_at": 1,
    }
    return PriceOverride(**{"id": name} | row | fields)


def in_force(rules: Rules, day: str, resolution: str = "720p") -> tuple[str, str]:
    price = price_in_force(rules.offers[OFFER], resolution, day)
    return price.id, price.origin


def test_without_overrides_the_rules_are_the_very_same() -> None:
    assert lay_over(PLAIN, ()) is PLAIN


def test_override_holds_from_its_start_on_and_what_was_before_does_before() -> None:
    laid = lay_over(WITH_OWN, (make_override(),))
    assert in_force(laid, "2026-08-31") == ("fal-standard-720p-2026-04-01", "catalogue")
    assert in_force(laid, "2026-09-30") == (f"{OFFER}/720p@2026-09-01", "rules")
    assert in_force(laid, "2026-10-01") == ("price_a", "override")
    assert in_force(laid, "2026-11-21", "480p") == ("fal-standard-480p-2026-04-01", "catalogue")


def test_override_that_began_earlier_overrules_whatever_begins_later() -> None:
    laid = lay_over(WITH_OWN, (make_override(starts="2026-01-01"),))
    assert [one.id for one in laid.offers[OFFER].prices if one.resolution == "720p"] == ["price_a"]
    assert in_force(laid, "2026-11-21") == ("price_a", "override")


def test_overrides_do_not_overrule_each_other() -> None:
    both = (make_override("0.1", "price_b", starts="2026-11-01"), make_override())
    for laid in (lay_over(PLAIN, both), lay_over(PLAIN, both[::-1])):
        assert in_force(laid, "2026-10-31") == ("price_a", "override")
        assert in_force(laid, "2026-11-01") == ("price_b", "override")


def test_override_is_what_is_quoted_after_the_providers_discount() -> None:
    # What was quoted before is forgotten.
    assert decided(WITH_OWN, model="fal/seedance-2.0").plan.candidates[0].quote_microusd == 700_000
    laid = lay_over(WITH_OWN, (make_override(),))
    (candidate,) = decided(laid, model="fal/seedance-2.0").plan.candidates
    assert (candidate.price_id, candidate.quote_microusd) == ("price_a", 625_000)
    assert decided(WITH_OWN, model="fal/seedance-2.0").plan.candidates[0].quote_microusd == 700_000


def test_override_may_be_stated_by_tokens() -> None:
    laid = lay_over(PLAIN, (make_override(usd_per_second=None, usd_per_million_tokens="10"),))
    (candidate,) = decided(laid, model="fal/seedance-2.0").plan.candidates
    assert candidate.quote_microusd == 1_080_000


def test_override_of_reference_videos_leaves_the_plain_price() -> None:
    laid = lay_over(PLAIN, (make_override(with_video=1),))
    assert in_force(laid, "2026-11-21") == ("fal-standard-720p-2026-04-01", "catalogue")
    assert price_in_force(laid.offers[OFFER], "720p", "2026-11-21", with_video=True).id == "price_a"


def test_hash_of_the_book_is_that_of_the_prices_in_force() -> None:
    one, other = make_override(), make_override("0.26")
    hashes = {
        lay_over(PLAIN, overrides).book_hash
        for overrides in ((), (one,), (other,), (one, make_override(name="price_b", starts="2026-11-01")))
    }
    assert len(hashes) == 4
    two = (one, make_override(name="price_b", resolution="480p"))
    assert lay_over(PLAIN, two).book_hash == lay_over(PLAIN, two[::-1]).book_hash
    assert lay_over(PLAIN, (one,)).rules_hash == PLAIN.rules_hash


def test_override_of_nothing_that_is_offered_holds_nothing_and_says_so() -> None:
    gone = (make_override(provider="nobody"), make_override(name="price_b", resolution="1080p"))
    laid = lay_over(PLAIN, gone)
    assert (laid.offers, laid.book_hash) == (PLAIN.offers, PLAIN.book_hash)
    assert laid.warnings[len(PLAIN.warnings) :] == (
        "the price price_a is of nobody/seedance-2.0/standard/text-to-video at 720p, which nobody offers any more",
        f"the price price_b is of {OFFER} at 1080p, which nobody offers any more",
    )
    beside = lay_over(PLAIN, (*gone, make_override(name="price_c")))
    assert in_force(beside, "2026-11-21") == ("price_c", "override")
    assert len(beside.warnings) == len(PLAIN.warnings) + 2
