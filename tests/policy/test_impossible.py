"""Where nothing fits, the error names the field at fault and what could be had instead."""

from typing import Any

import pytest

from proxy.core.errors import NoProviderAvailable, ReelayError, Unsupported
from proxy.core.tenant import Tenant
from proxy.core.video import RoutingWish
from proxy.policy.rules import Rules
from tests.policy.policies import DEFAULT_RULE, ENV, PROVIDERS, decided, make_rules, make_tenant, rule

RULES = make_rules()
FREE = make_tenant(allow_filter_off=True)


def refused(rules: Rules = RULES, *, tenant: Tenant | None = None, **fields: Any) -> Unsupported:
    with pytest.raises(ReelayError) as caught:
        decided(rules, tenant=tenant, **fields)
    assert isinstance(caught.value, Unsupported)
    return caught.value


def test_pair_that_does_not_go_together_names_both_ways_out() -> None:
    error = refused(resolution="1080p", tier="fast")
    assert error.param == "resolution"
    assert str(error) == (
        "no offer can do resolution 1080p with tier fast; possible instead: resolution 480p, 720p, or tier standard"
    )


def test_field_at_fault_is_one_that_was_stated() -> None:
    rules = rule("strategy: cheapest, resolution: 1080p")
    assert refused(rules, tier="fast").param == "tier"
    assert refused(rule("strategy: cheapest, tier: fast"), resolution="1080p").param == "resolution"


def test_size_is_at_fault_where_it_was_stated() -> None:
    assert refused(size="1920x1080", tier="fast").param == "size"
    assert refused(size="1920x1080", resolution="1080p", tier="fast").param == "resolution"


def test_offer_without_a_price_says_so() -> None:
    error = refused(tier="mini", resolution="720p")
    assert error.param == "resolution"
    assert str(error).startswith("no offer has a price for resolution 720p with tier mini;")
    assert refused(tier="mini").param == "tier"


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"seconds": "auto", "model": "evolink/seedance-2.0"}, "seconds", "seconds 4 to 15, or provider fal, runflow"),
        ({"aspect_ratio": "auto", "model": "shortapi/seedance-2.0"}, "aspect_ratio", "aspect_ratio 21:9, 16:9, 4:3"),
        ({"generate_audio": False, "model": "shortapi/seedance-2.0"}, "generate_audio", "generate_audio true"),
        ({"content_filter": False, "model": "fal/seedance-2.0"}, "content_filter", "content_filter true"),
        ({"web_search": True, "model": "fal/seedance-2.0"}, "web_search", "web_search false, or provider evolink"),
        ({"operation": "image-to-video", "operation_param": "input_reference"}, "input_reference", "text-to-video"),
        ({"routing": RoutingWish(max_price_microusd=5)}, "routing.max_price_usd", "a price of $0.992500"),
        ({"routing": RoutingWish(max_wait_s=5)}, "routing.max_wait_s", "an expected time of 75 s"),
        ({"resolution": "1080p", "routing": RoutingWish(only=("fal",))}, "resolution", "resolution 480p, 720p"),
    ],
)
def test_each_field_can_be_at_fault(fields: dict[str, Any], param: str, words: str) -> None:
    error = refused(tenant=FREE, **fields)
    assert error.param == param
    assert words in str(error)


@pytest.mark.parametrize(
    ("wish", "param"),
    [
        ({"only": ("fal",)}, "routing.only"),
        ({"order": ("fal",)}, "routing.order"),
        ({"ignore": ("evolink",)}, "routing.ignore"),
    ],
)
def test_routing_is_at_fault_where_nothing_else_would_do(wish: dict[str, Any], param: str) -> None:
    rules = rule("strategy: cheapest, tier: mini, resolution: 480p, providers: {only: [fal, evolink]}")
    error = refused(rules, routing=RoutingWish(**wish))
    assert "provider evolink" in str(error)
    assert error.param == param


def test_pin_to_a_provider_that_is_off_says_so() -> None:
    rules = make_rules(env={name: key for name, key in ENV.items() if name != "FAL_KEY"})
    error = refused(rules, model="fal/seedance-2.0")
    assert error.param == "model"
    assert str(error) == (
        "no offer can do provider fal, which is off; possible instead: provider evolink, runflow, shortapi"
    )


def test_length_between_others_is_listed_as_it_is() -> None:
    offer = """{model: m, operation: text-to-video, tier: standard, seller_model: k, resolutions: [720p],
      aspect_ratios: ["16:9"], min_seconds: 5, max_seconds: 6, auto_seconds: true, audio: never, seed: false,
      filter_switch: false, web_search: false, prompt_max_chars: 10, cancel: true, callbacks: http,
      link_lifetime_s: 3600, expected_s: {720p: [30, 9]}, submit_timeout_s: 60,
      prices: [{id: a, resolution: 720p, usd_per_second: "1", starts: 2026-01-01, source: s, basis: listed}]}"""
    rules = make_rules(
        providers=f"providers: {{fal: {{adapter: fal, api_key: k, offers: [{offer}]}}}}",
        more="models: {m: {}}",
    )
    assert str(refused(rules, prompt="x", seconds=7)).endswith("possible instead: seconds 5, 6, auto")
    error = refused(rules, prompt="x" * 11)
    assert error.param == "prompt"
    assert str(error) == (
        "no offer can do a prompt of 11 characters; possible instead: a prompt of up to 10 characters"
    )
    assert refused(rules, prompt="x" * 11, seconds=7).param == "seconds"


def test_tiers_of_providers_that_are_off_are_not_offered() -> None:
    rules = make_rules(env={name: key for name, key in ENV.items() if name != "EVOLINK_API_KEY"})
    error = refused(rules, tenant=FREE, resolution="1080p", tier="fast", content_filter=False)
    assert str(error).endswith("; tier standard makes 480p, 720p, 1080p; tier fast makes 480p, 720p")


def test_run_of_lengths_keeps_auto_beside_it() -> None:
    rules = make_rules(providers="providers: {fal: {adapter: fal, api_key: k}}")
    error = refused(rules, seconds=5, resolution="1080p")
    assert error.param == "resolution"


def test_limit_of_the_rule_names_the_rule() -> None:
    assert str(refused(rule('max_price_usd: "0.50"'))) == (
        'no offer can do resolution 720p with at most $0.500000 in the rule "only";'
        " possible instead: resolution 480p, or a price of $0.992500"
    )
    error = refused(rule('max_price_usd: "0.10"'))
    assert error.param is None
    assert str(error) == (
        'no offer can do at most $0.100000 in the rule "only"; possible instead: a price of $0.992500'
    )
    assert 'at most 10 s to wait in the rule "only"' in str(refused(rule("max_wait_s: 10")))


def test_lower_limit_of_request_and_rule_is_named() -> None:
    rules = rule('max_price_usd: "0.50", max_wait_s: 10, strategy: cheapest')
    assert "no single change would do" in str(refused(rules))
    both = refused(rule('max_price_usd: "0.50"'), routing=RoutingWish(max_price_microusd=400_000))
    assert both.param == "routing.max_price_usd"


def test_providers_of_the_rule_can_be_at_fault() -> None:
    error = refused(rule("providers: {only: [fal]}"), resolution="1080p")
    assert error.param == "resolution"
    assert 'another choice of providers in that rule in the rule "only"' not in str(error)
    assert 'the providers it leaves in the rule "only"' in str(error)


def test_required_seed_can_be_at_fault() -> None:
    error = refused(rule("require: [seed]"), seed=7, model="evolink/seedance-2.0")
    assert error.param == "seed"
    assert "seed none" in str(error)


def test_too_much_at_once_says_what_each_tier_makes() -> None:
    error = refused(tenant=FREE, resolution="1080p", tier="mini", seconds="auto", content_filter=False)
    assert error.param == "resolution"
    assert str(error).endswith(
        "no single change would do; tier standard makes 480p, 720p, 1080p; tier fast makes 480p, 720p;"
        " tier mini makes 480p, 720p"
    )


def test_too_much_routing_at_once_blames_no_field() -> None:
    rules = rule("providers: {only: [fal]}")
    error = refused(rules, model="evolink/seedance-2.0", routing=RoutingWish(only=("shortapi",)))
    assert error.param is None
    assert str(error).startswith("no offer can do all of this together")


def test_nobody_switched_on_is_not_the_clients_fault() -> None:
    with pytest.raises(NoProviderAvailable) as caught:
        decided(make_rules(DEFAULT_RULE, providers=PROVIDERS, env={}))
    assert str(caught.value) == "no provider of seedance-2.0 is switched on"
