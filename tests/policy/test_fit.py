"""Which offer can do what is needed, and the one reason why another cannot."""

from typing import Any

import pytest

from proxy.core.offer import ExclusionReason, Offer
from proxy.policy.fit import Figures, Need, detail, figures_of, fit
from proxy.policy.rules import Rules
from tests.policy.policies import PROVIDERS, make_offer, make_price, make_rules, make_spec

DAY = "2026-11-21"
RULES = make_rules(
    providers=PROVIDERS + "  off: {adapter: fal, api_key: k, enabled: false}\n",
)


def need(**fields: Any) -> Need:
    limits: dict[str, Any] = {"pin": None, "rule_allows": None, "wish_allows": None, "times": None}
    limits |= {"max_price_microusd": None, "max_wait_s": None, "required": frozenset(), "markup": "0", "day": DAY}
    limits |= {key: fields.pop(key) for key in list(fields) if key in limits}
    return Need(spec=make_spec(**fields), **limits)


def offer(**fields: Any) -> Offer:
    return make_offer(**{"provider": "fal"} | fields)


@pytest.fixture
def rules() -> Rules:
    """Fresh ones: what was worked out for another test's offer must not be found."""
    RULES.figures.clear()
    return RULES


def test_offer_that_fits_has_its_figures(rules: Rules) -> None:
    found = fit(offer(), need(markup="0.5"), rules)
    assert isinstance(found, Figures)
    assert (found.quote.seller_microusd, found.quote.tenant_microusd, found.expected_s) == (1_000_000, 1_500_000, 40.0)


def test_auto_length_is_counted_at_its_longest(rules: Rules) -> None:
    found = fit(offer(auto_seconds=True, max_seconds=12), need(seconds=None), rules)
    assert isinstance(found, Figures)
    assert (found.quote.tenant_microusd, found.expected_s) == (2_400_000, 68.0)


Case = tuple[ExclusionReason, dict[str, Any], dict[str, Any], str]
CASES: list[Case] = [
    ("operation", {}, {"operation": "image-to-video"}, "makes text-to-video, not image-to-video"),
    ("not_pinned", {}, {"pin": "evolink"}, "the request names another provider"),
    ("provider_off", {"provider": "off"}, {}, "the provider is switched off or has no key"),
    ("rule", {}, {"rule_allows": frozenset({"evolink"})}, "leaves this provider out"),
    ("rule", {}, {"wish_allows": frozenset({"evolink"})}, "leaves this provider out"),
    ("tier", {}, {"tier": "fast"}, "makes tier standard, not fast"),
    ("resolution", {}, {"resolution": "1080p"}, "makes 480p, 720p, not 1080p"),
    ("aspect_ratio", {}, {"aspect_ratio": "auto"}, "makes 16:9, not auto"),
    ("seconds", {}, {"seconds": None}, "makes 4 to 15 s, not auto"),
    ("seconds", {"auto_seconds": True, "min_seconds": 6}, {}, "makes 6 to 15 s or auto, not 5"),
    ("content_filter", {}, {"content_filter": False}, "content_filter cannot be false here"),
    (
        "generate_audio",
        {"audio": "always"},
        {"generate_audio": False, "required": frozenset({"generate_audio"})},
        "always makes sound; generate_audio cannot be false here",
    ),
    (
        "generate_audio",
        {"audio": "never"},
        {"required": frozenset({"generate_audio"})},
        "never makes sound; generate_audio cannot be true here",
    ),
    ("web_search", {}, {"web_search": True, "required": frozenset({"web_search"})}, "cannot search the web"),
    ("seed", {}, {"seed": 7, "required": frozenset({"seed"})}, "takes no seed, which the rule requires"),
    ("prompt", {"prompt_max_chars": 19}, {}, "takes prompts of up to 19 characters, not 20"),
    ("no_price", {"prices": ()}, {}, "has no price for 720p on 2026-11-21"),
    ("over_price", {}, {"max_price_microusd": 999_999}, "costs $1.000000; the limit is $0.999999"),
    ("too_slow", {}, {"max_wait_s": 39}, "is expected to take 40 s; the limit is 39 s"),
]


@pytest.mark.parametrize(("reason", "of_offer", "of_need", "sentence"), CASES)
def test_reason_and_sentence_name_what_cannot_be_met(
    reason: ExclusionReason, of_offer: dict[str, Any], of_need: dict[str, Any], sentence: str, rules: Rules
) -> None:
    one, wanted = offer(**of_offer), need(**of_need)
    assert fit(one, wanted, rules) == reason
    said = detail(reason, one, wanted, rules)
    assert sentence in said
    assert not set(rules.accounts) - {"off"} & set(said.replace(",", "").split())


@pytest.mark.parametrize(
    ("of_offer", "of_need"),
    [
        ({"audio": "always"}, {"generate_audio": False}),
        ({"audio": "never"}, {}),
        ({"audio": "always"}, {"required": frozenset({"generate_audio"})}),
        ({}, {"web_search": True}),
        ({}, {"required": frozenset({"web_search"})}),
        ({}, {"seed": 7}),
        ({}, {"required": frozenset({"seed"})}),
        ({"filter_switch": True}, {"content_filter": False}),
        ({"prompt_max_chars": 20}, {}),
        ({}, {"max_price_microusd": 1_000_000, "max_wait_s": 40}),
        ({}, {"pin": "fal", "rule_allows": frozenset({"fal"}), "wish_allows": frozenset({"fal"})}),
    ],
)
def test_what_is_only_wished_excludes_nobody(of_offer: dict[str, Any], of_need: dict[str, Any], rules: Rules) -> None:
    assert isinstance(fit(offer(**of_offer), need(**of_need), rules), Figures)


def test_figures_are_worked_out_once(rules: Rules) -> None:
    first = figures_of(offer(), need(), rules)
    assert figures_of(offer(), need(), rules) is first
    later = figures_of(offer(prices=(make_price("0.5"),)), need(day="2026-11-22"), rules)
    assert later is not None
    assert later.quote.tenant_microusd == 2_500_000


def test_figures_of_another_frame_are_others(rules: Rules) -> None:
    by_tokens = offer(aspect_ratios=("16:9", "1:1"), prices=(make_price("10", unit="usd_per_million_tokens"),))
    found = [figures_of(by_tokens, need(aspect_ratio=ratio), rules) for ratio in ("16:9", "1:1", "21:9")]
    assert [one and one.quote.tenant_microusd for one in found] == [1_080_000, 1_080_000, 1_085_274]


def test_seconds_of_reference_videos_count_in_price_and_not_in_time(rules: Rules) -> None:
    one = offer(input_seconds="added", prices=(make_price("0.20"), make_price("0.10", with_video=True, id="v")))
    plain, videos = figures_of(one, need(), rules), figures_of(one, need(input_video_s=9), rules)
    assert plain is not None
    assert videos is not None
    assert (plain.quote.tenant_microusd, videos.quote.tenant_microusd) == (1_000_000, 1_400_000)
    assert plain.expected_s == videos.expected_s


class Clockwork:
    """Has learned one time of every offer."""

    def __init__(self, expected_s: float | None) -> None:
        self.expected = expected_s

    def expected_s(self, offer: Offer, resolution: str, seconds: int | None) -> float | None:
        del offer, resolution, seconds
        return self.expected


def test_learned_time_goes_before_the_catalogues_and_is_never_kept(rules: Rules) -> None:
    for expected_s, stated in ((7.0, 7.0), (8.0, 8.0), (None, 40.0)):
        found = fit(offer(), need(times=Clockwork(expected_s)), rules)
        assert isinstance(found, Figures)
        assert (found.expected_s, found.quote.tenant_microusd) == (stated, 1_000_000)
    found = fit(offer(), need(), rules)
    assert isinstance(found, Figures)
    assert found.expected_s == 40.0


def test_learned_time_decides_who_is_too_slow(rules: Rules) -> None:
    wanted = need(times=Clockwork(41.5), max_wait_s=41)
    assert fit(offer(), wanted, rules) == "too_slow"
    assert detail("too_slow", offer(), wanted, rules) == "is expected to take 42 s; the limit is 41 s"


def test_short_cut_does_not_grow_without_end(rules: Rules) -> None:
    rules.figures.update(dict.fromkeys(range(10_000)))
    assert figures_of(offer(), need(), rules) is not None
    assert len(rules.figures) == 1
