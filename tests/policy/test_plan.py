"""The resolver: which rule, which offers, in which order, at which price."""

from typing import Any

import msgspec
import pytest

from proxy.core.errors import InvalidValue, PriceMissing, RequestError
from proxy.core.tenant import Tenant
from proxy.core.video import RoutingWish
from proxy.policy.budgets import Standing
from proxy.policy.pace import Histogram, Learned
from proxy.policy.plan import Decision
from proxy.policy.rules import Rules, with_offers
from tests.policy.policies import (
    AT_US,
    ENV,
    PROVIDERS,
    decided,
    load,
    make_rules,
    make_tenant,
    providers_of,
    rule,
)
from tests.policy.test_rules import EVERYTHING, TOP_FILE

RULES = make_rules()
POLICY = load(TOP_FILE.read_text())
FREE = make_tenant(allow_filter_off=True)
DAY_US = 86_400_000_000


def refused(rules: Rules, *, tenant: Tenant | None = None, **fields: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        decided(rules, tenant=tenant, **fields)
    return caught.value


def excluded(decision: Decision) -> dict[str, str]:
    """Reasons by provider, for the standard tier."""
    return {one.provider: one.reason for one in decision.plan.excluded if "/standard/" in one.offer}


def naming(field: str, provider: str) -> RoutingWish:
    lists: dict[str, Any] = {field: (provider,)}
    return RoutingWish(**lists)


# --- price and order


def test_default_rule_of_the_project_takes_the_cheapest_seller() -> None:
    plan = decided(POLICY).plan
    assert (plan.rule, plan.strategy) == ("default", "cheapest")
    assert [(one.provider, one.quote_microusd) for one in plan.candidates] == [
        ("evolink", 992_500),
        ("shortapi", 1_200_000),
        ("fal", 1_517_000),
        ("runflow", 1_517_000),
    ]


def test_other_rules_of_the_project_do_what_they_say() -> None:
    preview = decided(POLICY, metadata={"stage": "preview"})
    assert (preview.plan.rule, preview.spec.tier, providers_of(preview)[0]) == ("previews", "fast", "fal")
    full_hd = decided(POLICY, resolution="1080p")
    assert (full_hd.plan.rule, providers_of(full_hd)) == ("full-hd", ["evolink", "runflow"])
    relaxed = decided(POLICY, tenant=FREE, content_filter=False)
    assert (relaxed.plan.rule, providers_of(relaxed)) == ("relaxed-filter", ["evolink"])
    assert relaxed.plan.candidates[0].quote_microusd == 1_091_750


def test_candidate_carries_its_frozen_figures() -> None:
    plan = decided(RULES, tenant=make_tenant(markup="0.15"), resolution="1080p", web_search=True).plan
    first = plan.candidates[0]
    assert (first.offer, first.seller_model) == (
        "evolink/seedance-2.0/standard/text-to-video",
        "seedance-2.0-text-to-video",
    )
    assert (first.price_id, first.basis) == ("evolink-standard-1080p-2026-04-01", "derived")
    assert first.rates == {"480p": "0.0919", "720p": "0.1985", "1080p": "0.495"}
    assert (first.fixed_usd, first.seller_microusd) == ("0.0006", 2_475_600)
    assert (first.quote_microusd, first.hold_microusd) == (2_846_940, 3_558_675)
    assert (first.expected_s, first.link_lifetime_s, first.submit_timeout_s) == (310.0, 86_400, 60.0)
    assert first.reason.startswith("number 1 by price: $2.846940")
    assert (plan.markup, plan.rules_hash, plan.book_hash) == ("0.15", RULES.rules_hash, RULES.book_hash)


def test_discount_changes_the_order() -> None:
    rules = make_rules(providers=PROVIDERS.replace('"${FAL_KEY}"', '"${FAL_KEY}", discount: "0.5"'))
    assert providers_of(decided(rules))[:2] == ["fal", "evolink"]


def test_price_counts_from_its_first_day() -> None:
    price = "{model: seedance-2.0, tier: standard, resolution: 720p, usd_per_second: 0.01, starts: 2026-11-22}"
    rules = make_rules(providers=PROVIDERS.replace('"${FAL_KEY}"', f'"${{FAL_KEY}}", prices: [{price}]'))
    assert providers_of(decided(rules))[0] == "evolink"
    assert providers_of(decided(rules, at_us=AT_US + DAY_US))[0] == "fal"
    assert isinstance(refused(rules, at_us=0), RequestError)


def test_plan_keeps_how_seconds_of_reference_videos_are_billed() -> None:
    offers = {name: msgspec.structs.replace(offer, input_seconds="added") for name, offer in RULES.offers.items()}
    plans = decided(RULES).plan, decided(with_offers(RULES, offers)).plan
    assert [{one.input_seconds for one in plan.candidates} for plan in plans] == [{None}, {"added"}]


def test_what_is_explained_and_what_is_not_is_in_the_same_order() -> None:
    asks: list[dict[str, Any]] = [{}, {"tier": "fast"}, {"seconds": "auto"}, {"model": "fal/seedance-2.0"}]
    for fields in asks:
        long, short = decided(RULES, **fields), decided(RULES, explain=False, **fields)
        assert providers_of(long) == providers_of(short)
        assert short.plan.excluded == ()
        assert [one.quote_microusd for one in long.plan.candidates] == [
            one.quote_microusd for one in short.plan.candidates
        ]
        assert {one.reason for one in short.plan.candidates} == {"cheapest"}


def test_every_offer_of_the_model_is_kept_or_excluded_with_a_reason() -> None:
    plan = decided(RULES, tenant=FREE, content_filter=False).plan
    assert len(plan.candidates) + len(plan.excluded) == len(RULES.offers)
    assert all(one.detail for one in plan.excluded)


def test_provider_that_is_off_is_excluded() -> None:
    rules = make_rules(env={name: key for name, key in ENV.items() if name != "EVOLINK_API_KEY"})
    decision = decided(rules)
    assert excluded(decision) == {"evolink": "provider_off"}
    assert providers_of(decision)[0] == "shortapi"


# --- what the client states is a requirement


@pytest.mark.parametrize(
    ("fields", "out"),
    [
        ({}, {}),
        ({"generate_audio": True}, {}),
        ({"generate_audio": False}, {"shortapi": "generate_audio"}),
        ({"resolution": "480p"}, {"shortapi": "resolution"}),
        ({"resolution": "1080p"}, {"shortapi": "resolution", "fal": "resolution"}),
        ({"seconds": "auto"}, {"evolink": "seconds", "shortapi": "seconds"}),
        ({"aspect_ratio": "auto"}, {"shortapi": "aspect_ratio"}),
        ({"content_filter": True}, {}),
        ({"content_filter": False}, dict.fromkeys(("shortapi", "fal", "runflow"), "content_filter")),
        ({"web_search": True}, dict.fromkeys(("shortapi", "fal", "runflow"), "web_search")),
        ({"seed": 7}, {}),
        ({"model": "fal/sora-2"}, dict.fromkeys(("evolink", "shortapi", "runflow"), "not_pinned")),
    ],
)
def test_offer_that_cannot_honour_what_is_stated_is_excluded(fields: dict[str, Any], out: dict[str, str]) -> None:
    rules = make_rules(more="models: {seedance-2.0: {aliases: [sora-2]}}")
    assert excluded(decided(rules, tenant=FREE, **fields)) == out


def test_default_sound_excludes_nobody() -> None:
    rules = make_rules(more="defaults: {generate_audio: false}")
    decision = decided(rules)
    assert excluded(decision) == {}
    assert decision.spec.generate_audio is False


def test_rule_may_make_a_wish_a_requirement() -> None:
    rules = rule("require: [seed, generate_audio], generate_audio: false")
    assert excluded(decided(rules)) == {"shortapi": "generate_audio"}
    assert excluded(decided(rules, seed=7)) == {"evolink": "seed", "shortapi": "generate_audio"}


# --- the rule


def test_first_rule_that_matches_is_the_one() -> None:
    rules = load(EVERYTHING.replace("expose_providers: false", ""))
    assert decided(rules, resolution="1080p", budget=Standing(used=0.5)).plan.rule == "full-hd"
    assert decided(rules, resolution="1080p", budget=Standing(used=0.9)).plan.rule == "nearly-broke"
    assert decided(rules, tenant=make_tenant(id="t", name="T")).plan.rule == "default"
    assert decided(rules).plan.rule == "the-rest-of-the-language"
    night = AT_US - AT_US % DAY_US + 22 * DAY_US // 24
    assert decided(rules, tenant=make_tenant(id="t", name="T"), at_us=night).plan.rule == "the-rest-of-the-language"


def test_when_sees_the_defaults() -> None:
    rules = make_rules("rules: [{name: hd, when: {resolution: 720p}}, {name: rest}]")
    assert decided(rules).plan.rule == "hd"


def test_rule_fills_only_what_the_client_left_open() -> None:
    rules = rule('tier: fast, seconds: 8, resolution: 480p, aspect_ratio: "1:1", seed: 3')
    decision = decided(rules)
    assert (decision.spec.tier, decision.spec.seconds, decision.spec.size, decision.spec.seed) == (
        "fast",
        8,
        "640x640",
        3,
    )
    assert decision.plan.changed == {}
    stated = decided(rules, tier="standard", size="1280x720").spec
    assert (stated.tier, stated.seconds, stated.size) == ("standard", 8, "1280x720")


def test_rule_cannot_give_the_right_to_switch_the_filter_off() -> None:
    rules = rule("content_filter: false")
    assert decided(rules).spec.content_filter is True
    assert decided(rules, tenant=FREE).spec.content_filter is False


def test_limit_lowers_what_was_left_open() -> None:
    decision = decided(rule("resolution_at_most: 480p"))
    assert (decision.spec.resolution, decision.plan.changed) == ("480p", {})
    assert decided(rule("resolution_at_most: 1080p")).spec.resolution == "720p"
    assert decided(rule("resolution_at_most: 480p, resolution: 1080p")).spec.resolution == "480p"


@pytest.mark.parametrize(("fields", "param"), [({"resolution": "720p"}, "resolution"), ({"size": "1280x720"}, "size")])
def test_limit_against_what_was_stated_names_the_rule(fields: dict[str, Any], param: str) -> None:
    error = refused(rule("resolution_at_most: 480p"), **fields)
    assert isinstance(error, InvalidValue)
    assert error.param == param
    assert str(error) == 'the rule "only" allows 480p at most, not 720p'


def test_downgrade_may_change_what_was_stated_and_shows_it() -> None:
    rules = rule("resolution_at_most: 480p, downgrade: true, tier: fast, seconds: 4, generate_audio: false")
    decision = decided(rules, size="1280x720", tier="standard", seconds="auto", generate_audio=True)
    assert (decision.spec.resolution, decision.spec.tier, decision.spec.seconds) == ("480p", "fast", 4)
    assert decision.plan.changed == {
        "resolution": ("720p", "480p"),
        "tier": ("standard", "fast"),
        "seconds": ("auto", 4),
        "generate_audio": (True, False),
    }


def test_downgrade_never_makes_anything_dearer() -> None:
    rules = rule('downgrade: true, tier: fast, seconds: 8, resolution: 720p, aspect_ratio: "1:1", web_search: true')
    stated: dict[str, Any] = {
        "tier": "mini",
        "seconds": 5,
        "resolution": "480p",
        "aspect_ratio": "16:9",
        "web_search": False,
    }
    decision = decided(rules, **stated)
    assert decision.plan.changed == {}
    assert (decision.spec.tier, decision.spec.seconds, decision.spec.size) == ("mini", 5, "864x496")


def test_fastest_goes_by_what_was_learned() -> None:
    by_catalogue = decided(rule("strategy: fastest")).plan.candidates
    late = by_catalogue[0]
    slow = Histogram()
    for _ in range(8):
        slow = slow.add(2_000, AT_US)
    times = Learned({(late.offer, "720p", 5, "render"): slow}, AT_US)
    found = decided(rule("strategy: fastest"), times=times).plan.candidates
    assert [one.offer for one in found] == [*(one.offer for one in by_catalogue[1:]), late.offer]
    assert found[-1].expected_s == pytest.approx(2_000, rel=0.05)
    assert [one.quote_microusd for one in found] == [one.quote_microusd for one in (*by_catalogue[1:], late)]


def test_limits_of_rule_and_request_both_hold() -> None:
    rules = rule('max_price_usd: "1.20", max_wait_s: 170')
    assert providers_of(decided(rules)) == ["evolink", "shortapi"]
    assert providers_of(decided(rules, routing=RoutingWish(max_price_microusd=1_000_000))) == ["evolink"]
    assert providers_of(decided(rules, routing=RoutingWish(max_price_microusd=9_000_000))) == ["evolink", "shortapi"]
    assert providers_of(decided(rules, routing=RoutingWish(max_wait_s=165))) == ["evolink"]
    decision = decided(RULES, routing=RoutingWish(max_wait_s=165))
    assert excluded(decision) == {"shortapi": "too_slow"}


def test_price_limit_is_the_tenants_price() -> None:
    rules = rule('max_price_usd: "1.00"')
    assert providers_of(decided(rules)) == ["evolink"]
    assert refused(rules, tenant=make_tenant(markup="0.1")).code == "unsupported_request"


def test_fallback_and_failed_attempts_are_the_rules() -> None:
    plan = decided(rule("bill_failed_attempts: true, fallback: {max_attempts: 2}")).plan
    assert (len(plan.kept), len(plan.candidates), plan.bill_failed_attempts) == (2, 4, True)
    assert plan.hold_microusd == 992_500 + 1_200_000
    assert decided(RULES).plan.hold_microusd == 1_517_000


def test_without_fallbacks_one_offer_is_kept() -> None:
    plan = decided(RULES, routing=RoutingWish(allow_fallbacks=False)).plan
    assert (plan.fallback.max_attempts, len(plan.kept), plan.hold_microusd) == (1, 1, 992_500)
    assert decided(RULES, routing=RoutingWish(allow_fallbacks=True)).plan.fallback.max_attempts == 3


# --- the request's routing


@pytest.mark.parametrize(
    ("fields", "strategy"),
    [
        ({"routing": RoutingWish(sort="price")}, "cheapest"),
        ({"routing": RoutingWish(sort="latency")}, "fastest"),
        ({"routing": RoutingWish(sort="balanced")}, "balanced"),
        ({"model": "seedance-2.0:fastest"}, "fastest"),
        ({"model": "seedance-2.0:fastest", "routing": RoutingWish(sort="latency")}, "fastest"),
        ({"routing": RoutingWish(order=("runflow", "fal"))}, "ordered"),
    ],
)
def test_request_replaces_the_rules_strategy(fields: dict[str, Any], strategy: str) -> None:
    assert decided(rule("strategy: {ordered: [shortapi, evolink, fal, runflow]}"), **fields).plan.strategy == strategy


def test_sort_that_is_the_rules_own_keeps_its_weights() -> None:
    rules = rule("strategy: {balanced: {price: 1, latency: 0}}")
    assert providers_of(decided(rules, routing=RoutingWish(sort="balanced")))[0] == "evolink"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": "seedance-2.0:fastest", "routing": RoutingWish(sort="price")}, "routing.sort"),
        ({"model": "seedance-2.0:cheapest", "routing": RoutingWish(order=("fal",))}, "routing.order"),
        ({"routing": RoutingWish(sort="price", order=("fal",))}, "routing.order"),
    ],
)
def test_two_different_strategies_are_a_contradiction(fields: dict[str, Any], param: str) -> None:
    error = refused(RULES, **fields)
    assert isinstance(error, InvalidValue)
    assert error.param == param


def test_order_is_the_order_and_leaves_the_others_out() -> None:
    decision = decided(RULES, routing=RoutingWish(order=("runflow", "evolink")))
    assert providers_of(decision) == ["runflow", "evolink"]
    assert excluded(decision) == {"fal": "rule", "shortapi": "rule"}


@pytest.mark.parametrize(
    ("wish", "left"),
    [
        ({"only": ("fal", "runflow")}, ["fal"]),
        ({"ignore": ("fal",)}, ["evolink", "shortapi"]),
        ({"only": ("fal", "evolink"), "ignore": ("fal",)}, ["evolink"]),
        ({"order": ("fal", "runflow", "evolink"), "only": ("evolink", "fal")}, ["fal", "evolink"]),
        ({"only": (), "ignore": (), "order": ()}, ["evolink", "shortapi", "fal"]),
    ],
)
def test_only_and_ignore_narrow_the_rules_and_never_widen_them(wish: dict[str, Any], left: list[str]) -> None:
    rules = rule("providers: {ignore: [runflow]}")
    assert providers_of(decided(rules, routing=RoutingWish(**wish))) == left


@pytest.mark.parametrize("field", ["only", "ignore", "order"])
def test_unknown_provider_is_named(field: str) -> None:
    error = refused(RULES, routing=naming(field, "fall"))
    assert isinstance(error, InvalidValue)
    assert error.param == f"routing.{field}"
    assert str(error) == f"routing.{field}: no provider 'fall'; there are: evolink, shortapi, fal, runflow"


@pytest.mark.parametrize("field", ["only", "ignore", "order"])
def test_hidden_providers_cannot_be_named(field: str) -> None:
    hidden = make_rules(more="expose_providers: false")
    error = refused(hidden, routing=naming(field, "fal"))
    assert isinstance(error, InvalidValue)
    assert error.param == f"routing.{field}"
    assert "fal" not in str(error)


def test_weights_leave_out_who_is_not_named() -> None:
    rules = rule("strategy: {weighted: {fal: 1, runflow: 1}}")
    assert providers_of(decided(rules, chance=0.1)) == ["fal", "runflow"]
    assert providers_of(decided(rules, chance=0.9)) == ["runflow", "fal"]
    assert excluded(decided(rules)) == {"evolink": "rule", "shortapi": "rule"}


def test_missing_price_is_not_an_error_of_ours() -> None:
    assert not issubclass(PriceMissing, RequestError)
    assert refused(RULES, tier="mini").code == "unsupported_request"


def test_rules_before_the_one_that_matches_say_which_of_their_conditions_do_not_hold() -> None:
    rules = make_rules(
        """
rules:
  - {name: long, when: {seconds: {min: 10}, tier: standard}, strategy: cheapest}
  - {name: odd, when: {any: [{hour: 23}, {tenant: other}], not: {tier: standard}}, strategy: cheapest}
  - {name: fits, when: {tier: standard}, strategy: cheapest}
  - {name: default, strategy: cheapest}
"""
    )
    passed = decided(rules, seconds=5).passed_over
    assert [(one.rule, one.unmet) for one in passed] == [("long", ("seconds",)), ("odd", ("any", "not"))]
    assert decided(rules, seconds=12).passed_over == ()
    assert decided(rules, seconds=5, explain=False).passed_over == ()
