"""A request is checked against what is possible at all, and filled with the defaults."""

from typing import Any

import pytest

from proxy.core.errors import (
    InvalidValue,
    MissingParameter,
    ModelNotFound,
    PermissionDenied,
    RequestError,
)
from proxy.core.tenant import Tenant
from proxy.core.video import SIZES, Spec
from proxy.policy.rules import Rules
from proxy.policy.spec import Settled, possible_sizes, settle
from tests.policy.policies import make_ask, make_rules, make_tenant

RULES = make_rules(
    more="""
models: {seedance-2.0: {aliases: [seedance, sora-2]}}
sizes: {"1792x1024": {resolution: 1080p, aspect_ratio: "16:9"}}
"""
)
HIDDEN = make_rules(more="expose_providers: false")
FREE = make_tenant(allow_filter_off=True)


def settled(rules: Rules = RULES, *, tenant: Tenant | None = None, **fields: Any) -> Settled:
    return settle(make_ask(**fields), rules, tenant or make_tenant())


def spec(rules: Rules = RULES, *, tenant: Tenant | None = None, **fields: Any) -> Spec:
    return settled(rules, tenant=tenant, **fields).spec


def refused(rules: Rules = RULES, *, tenant: Tenant | None = None, **fields: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        settled(rules, tenant=tenant, **fields)
    return caught.value


def test_what_is_left_open_gets_the_defaults() -> None:
    found = spec()
    assert (found.model, found.operation, found.seconds) == ("seedance-2.0", "text-to-video", 5)
    assert (found.resolution, found.aspect_ratio, found.size) == ("720p", "16:9", "1280x720")
    assert (found.generate_audio, found.content_filter, found.tier) == (True, True, "standard")
    assert (found.seed, found.web_search, found.stated) == (None, False, frozenset())


def test_what_is_stated_is_kept_and_remembered() -> None:
    found = spec(
        seconds=7,
        resolution="480p",
        aspect_ratio="1:1",
        generate_audio=False,
        content_filter=True,
        tier="fast",
        seed=0,
        web_search=False,
        end_user_id="u-1",
        metadata={"a": "b"},
    )
    assert (found.seconds, found.size, found.generate_audio, found.tier) == (7, "640x640", False, "fast")
    assert (found.seed, found.end_user_id, found.metadata) == (0, "u-1", {"a": "b"})
    assert found.stated == {
        "seconds",
        "resolution",
        "aspect_ratio",
        "generate_audio",
        "content_filter",
        "tier",
        "seed",
        "web_search",
    }


def test_auto_length_is_none() -> None:
    assert spec(seconds="auto").seconds is None
    assert spec(make_rules(more="defaults: {seconds: auto}")).seconds is None
    assert spec(aspect_ratio="auto").size == "auto"


@pytest.mark.parametrize(("size", "key"), list(SIZES.items()))
def test_size_is_resolution_and_ratio(size: str, key: tuple[str, str]) -> None:
    found = spec(size=size)
    assert (found.resolution, found.aspect_ratio) == key
    assert found.stated == {"resolution", "aspect_ratio"}


def test_size_may_be_aliased() -> None:
    assert spec(size="1792x1024").size == "1920x1080"


def test_size_may_agree_with_resolution_and_ratio() -> None:
    assert spec(size="720x1280", resolution="720p", aspect_ratio="9:16").size == "720x1280"


@pytest.mark.parametrize("other", [{"resolution": "480p"}, {"aspect_ratio": "9:16"}, {"aspect_ratio": "auto"}])
def test_size_that_contradicts_is_refused(other: dict[str, Any]) -> None:
    error = refused(size="1280x720", **other)
    assert isinstance(error, InvalidValue)
    assert error.param == "size"
    assert "contradicts" in str(error)


def test_size_that_nobody_sells_lists_the_possible_ones() -> None:
    error = refused(HIDDEN, size="1792x1024")
    assert isinstance(error, InvalidValue)
    assert error.param == "size"
    assert "1280x720" in str(error)
    assert "1792x1024" not in str(error)
    assert possible_sizes(RULES, "seedance-2.0") == [*SIZES, "1792x1024"]


@pytest.mark.parametrize("seconds", [3, 16, 0, -5])
def test_length_that_nobody_makes_lists_the_range(seconds: int) -> None:
    error = refused(seconds=seconds)
    assert isinstance(error, InvalidValue)
    assert error.param == "seconds"
    assert "from 4 to 15" in str(error)


@pytest.mark.parametrize("seconds", [4, 15])
def test_ends_of_the_range_are_allowed(seconds: int) -> None:
    assert spec(seconds=seconds).seconds == seconds


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"prompt": ""}, "prompt", "must not be empty"),
        ({"prompt": " \n\t"}, "prompt", "must not be empty"),
        ({"prompt": "x" * 32_001}, "prompt", "32000 are the most"),
        ({"resolution": "4k"}, "resolution", "480p, 720p, 1080p"),
        ({"aspect_ratio": "2:1"}, "aspect_ratio", "21:9, 16:9"),
        ({"tier": "pro"}, "tier", "standard, fast, mini"),
        ({"seed": -1}, "seed", "from 0 to 4294967295"),
        ({"seed": 2**32}, "seed", "from 0 to 4294967295"),
        ({"end_user_id": ""}, "end_user_id", "1 to 128"),
        ({"end_user_id": "u" * 129}, "end_user_id", "1 to 128"),
        ({"metadata": {str(number): "" for number in range(17)}}, "metadata", "16 pairs, not 17"),
        ({"metadata": {"": "x"}}, "metadata", "keys of 1 to 64"),
        ({"metadata": {"k" * 65: "x"}}, "metadata", "keys of 1 to 64"),
        ({"metadata": {"k": "x" * 513}}, "metadata", "up to 512"),
    ],
)
def test_value_out_of_bounds_is_refused(fields: dict[str, Any], param: str, words: str) -> None:
    error = refused(**fields)
    assert isinstance(error, InvalidValue)
    assert error.param == param
    assert words in str(error)


def test_bounds_themselves_are_allowed() -> None:
    pairs = {f"{number:064}": "x" * 512 for number in range(16)}
    found = spec(prompt="x" * 32_000, end_user_id="u" * 128, seed=2**32 - 1, metadata=pairs)
    assert found.metadata == pairs


def test_end_user_must_be_named_where_the_tenant_says_so() -> None:
    tenant = make_tenant(require_end_user_id=True)
    error = refused(tenant=tenant)
    assert isinstance(error, MissingParameter)
    assert error.param == "end_user_id"
    assert spec(tenant=tenant, end_user_id="u-1").end_user_id == "u-1"


def test_filter_off_needs_the_right_to_it() -> None:
    error = refused(content_filter=False)
    assert isinstance(error, PermissionDenied)
    assert error.param == "content_filter"
    assert spec(tenant=FREE, content_filter=False).content_filter is False


def test_default_cannot_give_the_right_to_switch_the_filter_off() -> None:
    rules = make_rules(more="defaults: {content_filter: false}")
    assert spec(rules).content_filter is True
    assert spec(rules, tenant=FREE).content_filter is False
    assert spec(rules, tenant=FREE, content_filter=True).content_filter is True


@pytest.mark.parametrize(
    ("model", "pin", "suffix"),
    [
        (None, None, None),
        ("seedance-2.0", None, None),
        ("sora-2", None, None),
        ("seedance:cheapest", None, "cheapest"),
        ("evolink/seedance-2.0", "evolink", None),
        ("fal/seedance:fastest", "fal", "fastest"),
    ],
)
def test_model_may_carry_provider_and_wish(model: str | None, pin: str | None, suffix: str | None) -> None:
    found = settled(model=model)
    assert (found.spec.model, found.pin, found.suffix) == ("seedance-2.0", pin, suffix)


@pytest.mark.parametrize(
    "model", ["kling", "", "seedance:best", "seedance:", "nobody/seedance", "/seedance", "fal/", "fal/kling:fastest"]
)
def test_unknown_model_lists_the_known(model: str) -> None:
    error = refused(model=model)
    assert isinstance(error, ModelNotFound)
    assert error.param == "model"
    assert str(error).endswith("there are: seedance-2.0")


@pytest.mark.parametrize("model", ["fal/seedance-2.0", "nobody/seedance-2.0"])
def test_hidden_providers_cannot_be_pinned_nor_guessed(model: str) -> None:
    error = refused(HIDDEN, model=model)
    assert isinstance(error, InvalidValue)
    assert error.param == "model"
    assert str(error) == "model may not name a provider here"


def test_model_must_be_named_where_there_are_several() -> None:
    offer = """{model: kling, operation: text-to-video, tier: standard, seller_model: k, resolutions: [720p],
      aspect_ratios: ["16:9"], min_seconds: 5, max_seconds: 10, auto_seconds: false, audio: never, seed: false,
      filter_switch: false, web_search: false, prompt_max_chars: null, cancel: true, callbacks: http,
      link_lifetime_s: 3600, expected_s: {720p: [30, 9]}, submit_timeout_s: 60}"""
    rules = make_rules(providers=f"providers: {{fal: {{adapter: fal, api_key: k, offers: [{offer}]}}}}")
    error = refused(rules)
    assert isinstance(error, MissingParameter)
    assert error.param == "model"
    assert str(error) == "model is missing; there are: kling, seedance-2.0"
