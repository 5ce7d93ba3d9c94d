"""The catalogue's offers, and what the operator's YAML adds to them or says otherwise."""

import pytest

from proxy.core.account import Account
from proxy.core.errors import ConfigError
from proxy.core.offer import Offer
from proxy.policy.book import Book
from proxy.policy.marked import items
from tests.policy.policies import parse

ACCOUNT = Account(name="mine", adapter="seller", base_url="https://seller.example", api_key="k")
OTHER = Account(name="other", adapter="seller", base_url="https://seller.example", api_key="k")
ABILITIES = """\
seller_model: s/m, resolutions: [480p, 720p], aspect_ratios: ["16:9", auto], min_seconds: 4, max_seconds: 15,
auto_seconds: true, audio: switch, seed: true, filter_switch: false, web_search: false, prompt_max_chars: null,
cancel: false, callbacks: http, link_lifetime_s: 3600, expected_s: {480p: [5, 1], 720p: [10, 2.5]},
submit_timeout_s: 60"""
PRICE = '{id: a, resolution: 720p, usd_per_second: "0.20", starts: 2026-04-01, source: a page, basis: listed}'
LATER = '{id: b, resolution: 720p, usd_per_second: "0.30", starts: 2026-08-01, source: a page, basis: listed}'
OFFER = f"operation: text-to-video, tier: fast, {ABILITIES}, prices: [{PRICE}, {LATER}]"
ID = "mine/m/fast/text-to-video"


def catalogue(offer: str = f"model: m, {OFFER}") -> bytes:
    return f"offers: [{{{offer}}}]".encode()


def make_book() -> Book:
    book = Book()
    book.take_catalogue(ACCOUNT, catalogue())
    return book


def priced(prices: str) -> Offer:
    book = make_book()
    book.reprice(ACCOUNT, items(parse(f"[{prices}]")))
    return book.offers[ID]


def mistake(offer: str) -> str:
    with pytest.raises(ConfigError) as caught:
        Book().take_catalogue(ACCOUNT, catalogue(offer))
    return str(caught.value)


def test_offer_belongs_to_its_account() -> None:
    offer = make_book().offers[ID]
    assert (offer.id, offer.provider, offer.adapter, offer.model) == (ID, "mine", "seller", "m")
    assert offer.expected_time_s("720p", 4) == 20.0
    assert (offer.prompt_max_chars, offer.filter_off_factor, offer.web_search_usd) == (None, "1", "0")
    assert [price.usd_per_second for price in offer.prices] == ["0.20", "0.30"]


def test_two_accounts_at_one_seller_share_its_prices() -> None:
    book = make_book()
    book.take_catalogue(OTHER, catalogue())
    book.check_price_ids(parse("{}"))
    assert sorted(book.offers) == [ID, "other/m/fast/text-to-video"]


def test_price_of_the_catalogue_may_be_written_down_again() -> None:
    book = make_book()
    book.add_to_provider(OTHER, items(parse(f"[{{model: n, {OFFER}}}]")))
    book.check_price_ids(parse("{}"))
    assert {one.id: {price.origin for price in one.prices} for one in book.offers.values()} == {
        ID: {"catalogue"},
        "other/n/fast/text-to-video": {"rules"},
    }


def test_offer_may_be_added_to_a_provider_or_a_model() -> None:
    book = make_book()
    book.add_to_provider(ACCOUNT, items(parse(f"[{{model: n, {OFFER}}}]")))
    book.add_to_model("o", {"mine": ACCOUNT}, items(parse(f"[{{provider: mine, {OFFER}}}]")))
    assert sorted(book.offers) == [ID, "mine/n/fast/text-to-video", "mine/o/fast/text-to-video"]


def test_added_offer_replaces_that_of_the_catalogue() -> None:
    book = make_book()
    book.add_to_provider(ACCOUNT, items(parse(f"[{{model: m, {OFFER}}}]".replace("s/m", "s/new"))))
    assert book.offers[ID].seller_model == "s/new"


def test_offer_cannot_be_added_twice() -> None:
    with pytest.raises(ConfigError, match=f"the offer {ID} is here twice"):
        Book().add_to_provider(ACCOUNT, items(parse(f"[{{model: m, {OFFER}}}, {{model: m, {OFFER}}}]")))
    with pytest.raises(ConfigError, match=rf"catalog/seller\.yaml:4:238: the offer {ID} is here twice"):
        Book().take_catalogue(ACCOUNT, f"offers: [{{model: m, {OFFER}}}, {{model: m, {OFFER}}}]".encode())


def test_price_of_ones_own_holds_always_unless_it_has_a_start() -> None:
    offer = priced('{model: m, tier: fast, resolution: 720p, usd_per_second: "0.15"}')
    assert [(price.usd_per_second, price.starts) for price in offer.prices] == [("0.15", "0001-01-01")]
    assert offer.prices[0].id == f"{ID}/720p@0001-01-01"
    assert (offer.prices[0].source, offer.prices[0].basis) == ("some.yaml", "listed")


def test_price_may_be_stated_by_tokens() -> None:
    offer = priced('{model: m, tier: fast, resolution: 720p, usd_per_million_tokens: "14"}')
    assert [(one.usd_per_second, one.usd_per_million_tokens) for one in offer.prices] == [(None, "14")]
    by_tokens = OFFER.replace('usd_per_second: "0.20"', 'usd_per_million_tokens: "11.2"')
    book = Book()
    book.take_catalogue(ACCOUNT, catalogue(f"model: m, {by_tokens}"))
    assert [one.usd_per_million_tokens for one in book.offers[ID].prices] == ["11.2", None]


def test_price_with_reference_videos_stands_beside_the_plain_one() -> None:
    price = '{model: m, tier: fast, resolution: 720p, usd_per_second: "0.15", with_video: true}'
    offer = priced(price)
    assert [(one.usd_per_second, one.with_video) for one in offer.prices] == [
        ("0.20", False),
        ("0.30", False),
        ("0.15", True),
    ]
    assert offer.prices[-1].id == f"{ID}/720p+video@0001-01-01"
    with pytest.raises(ConfigError, match="two prices of"):
        priced(f"{price}, {price}")


def test_offer_says_how_seconds_of_reference_videos_are_billed() -> None:
    assert make_book().offers[ID].input_seconds is None
    book = Book()
    book.take_catalogue(ACCOUNT, catalogue(f"model: m, input_seconds: longest_added, {OFFER}"))
    assert book.offers[ID].input_seconds == "longest_added"
    assert "input_seconds must be one of added, longest_added" in mistake(f"model: m, input_seconds: all, {OFFER}")


def test_price_with_a_start_leaves_the_earlier_ones() -> None:
    offer = priced(
        '{model: m, tier: fast, resolution: 720p, usd_per_second: "0.15", starts: 2026-05-01, id: own, source: deal,'
        " basis: derived}, {model: m, operation: text-to-video, tier: fast, resolution: 720p, usd_per_second: 0.14,"
        " starts: 2026-04-15}"
    )
    assert [(price.usd_per_second, price.starts) for price in offer.prices] == [
        ("0.20", "2026-04-01"),
        ("0.15", "2026-05-01"),
        ("0.14", "2026-04-15"),
    ]
    assert offer.prices[1].basis == "derived"


@pytest.mark.parametrize(
    ("prices", "message"),
    [
        ('{model: m, tier: mini, resolution: 720p, usd_per_second: "1"}', f"which is no offer; there are: {ID}"),
        ('{model: m, tier: fast, resolution: 1080p, usd_per_second: "1"}', "a price for 1080p, which"),
        ('{model: m, tier: fast, resolution: 720p, usd_per_second: "-1"}', "usd_per_second must be a decimal number"),
        ('{model: m, tier: fast, resolution: 720p, usd_per_second: "1", starts: soon}', "starts must be a date"),
        ('{model: m, tier: fast, resolution: 720p, usd_per_second: "1", starts: 2026-02-30}', "starts must be a date"),
        ("{model: m, tier: fast, resolution: 720p}", "usd_per_second and usd_per_million_tokens, not none"),
        (
            '{model: m, tier: fast, resolution: 720p, usd_per_second: "1", usd_per_million_tokens: "14"}',
            "usd_per_second and usd_per_million_tokens, not 2",
        ),
        (
            '{model: m, tier: fast, resolution: 720p, usd_per_million_tokens: "20000.1"}',
            "usd_per_million_tokens must be a decimal number from 0 to 20000",
        ),
    ],
)
def test_price_that_fits_no_offer_is_refused(prices: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        priced(prices)
    assert message in str(caught.value)


def test_two_prices_cannot_start_together() -> None:
    price = '{model: m, tier: fast, resolution: 720p, usd_per_second: "1"}'
    with pytest.raises(ConfigError, match=r"two prices of .* for 720p start on 0001-01-01"):
        priced(f"{price}, {price}")


def test_one_id_cannot_mean_two_prices() -> None:
    book = make_book()
    book.reprice(ACCOUNT, items(parse('[{model: m, tier: fast, resolution: 480p, usd_per_second: "1", id: a}]')))
    with pytest.raises(ConfigError, match='two different prices have the id "a"'):
        book.check_price_ids(parse("{}"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("model: m, ", "", 'needs the key "model"'),
        ("seed: true", "seeds: true", 'did you mean "seed"?'),
        ("min_seconds: 4", "min_seconds: 16", "min_seconds must be a whole number from 4 to 15"),
        ("max_seconds: 15", "max_seconds: 5, min_seconds: 6", "the key"),
        ("min_seconds: 4, max_seconds: 15", "min_seconds: 6, max_seconds: 5", "min_seconds is above max_seconds"),
        ("480p: [5, 1], ", "", "expected_s says nothing of 480p"),
        ("480p: [5, 1]", "480p: [5]", "480p must be two numbers"),
        ("720p: [10, 2.5]", "720p: [10, 2.5], 1080p: [1, 1]", 'unknown key "1080p" in expected_s'),
        ("resolution: 720p", "resolution: 1080p", "a price for 1080p, which mine/m/fast/text-to-video does not make"),
        ("starts: 2026-08-01", "starts: 2026-04-01", "start on 2026-04-01"),
        ("audio: switch", "audio: sometimes", "audio must be one of switch, always, never"),
    ],
)
def test_mistake_in_an_offer_is_named(old: str, new: str, message: str) -> None:
    assert message in mistake(f"model: m, {OFFER}".replace(old, new))


def test_offer_without_prices_is_possible() -> None:
    book = Book()
    book.take_catalogue(ACCOUNT, catalogue(f"model: m, operation: text-to-video, tier: fast, {ABILITIES}"))
    assert book.offers[ID].prices == ()


def test_fingerprint_changes_with_any_figure() -> None:
    plain = make_book().fingerprint({"mine": "0"})
    assert plain == make_book().fingerprint({"mine": "0"})
    assert plain != make_book().fingerprint({"mine": "0.1"})
    book = make_book()
    book.reprice(ACCOUNT, items(parse('[{model: m, tier: fast, resolution: 720p, usd_per_second: "0.21"}]')))
    assert plain != book.fingerprint({"mine": "0"})
