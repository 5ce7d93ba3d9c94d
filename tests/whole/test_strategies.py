"""Every strategy, every key of a rule and every wish of a request, through HTTP; films bought as planned."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.databases import whole_in
from tests.whole.company import Company, open_company, refused
from tests.whole.scenes import rule

pytestmark = pytest.mark.asyncio(loop_scope="module")

PRICES = {"evolink": "0.794000", "shortapi": "0.960000", "fal": "1.213600", "runflow": "1.213600"}
"""USD for the 4 seconds of 720p that a request gets here that says nothing."""
TIMES_S = {"evolink": 8, "shortapi": 6, "fal": 4, "runflow": 2}
"""Who is dear is quick here."""
CHEAPEST = ["evolink", "shortapi", "runflow", "fal"]
"""At the same price the quicker one goes first."""
FASTEST = ["runflow", "fal", "shortapi", "evolink"]

RULES: dict[str, dict[str, Any]] = {
    "cheapest": {"strategy": "cheapest"},
    "fastest": {"strategy": "fastest"},
    "balanced": {"strategy": "balanced"},
    "balanced, dear": {"strategy": {"balanced": {"price": 0.2, "latency": 0.8}}},
    "balanced, thrifty": {"strategy": {"balanced": {"price": 1, "latency": 0.05}}},
    "ordered": {"strategy": {"ordered": ["fal", "evolink"]}},
    "ordered, quick": {"strategy": {"ordered": ["runflow", "shortapi"]}},
    "weighted": {"strategy": {"weighted": {"fal": 3, "evolink": 1, "runflow": 0}}},
    "small": {"strategy": "cheapest", "resolution_at_most": "480p"},
    "smaller": {"strategy": "cheapest", "resolution_at_most": "480p", "downgrade": True},
    "lesser": {"strategy": "cheapest", "downgrade": True, "tier": "fast", "seconds": 5, "generate_audio": False},
    "filled": {"strategy": "cheapest", "tier": "fast", "seconds": 6, "resolution": "480p", "aspect_ratio": "1:1",
               "generate_audio": False, "seed": 7},
    "seeded": {"strategy": "cheapest", "require": ["seed"]},
    "heard": {"strategy": "cheapest", "generate_audio": False, "require": ["generate_audio"]},
    "two": {"strategy": "cheapest", "providers": {"only": ["evolink", "fal"]}},
    "not two": {"strategy": "cheapest", "providers": {"ignore": ["evolink", "fal"]}},
    "one": {"strategy": "cheapest", "providers": {"only": ["evolink", "fal"], "ignore": ["fal"]}},
    "priced": {"strategy": "cheapest", "max_price_usd": "0.96"},
    "timed": {"strategy": "cheapest", "max_wait_s": 4},
    "once": {"strategy": "cheapest", "fallback": {"max_attempts": 1}},
    "billed": {"strategy": "cheapest", "bill_failed_attempts": True, "fallback": {"max_attempts": 2}},
}  # fmt: skip


def with_rules(rules: dict[str, Any]) -> None:
    for name, provider in rules["providers"].items():
        for offer in provider["offers"]:
            offer["expected_s"] = {size: [TIMES_S[name], 0] for size in offer["expected_s"]}
    rules["rules"] = [
        *(rule(name, {"metadata.rule": name}, **keys) for name, keys in RULES.items()),
        rule("default", strategy="cheapest"),
    ]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Company]:
    async with open_company(tmp_path_factory.mktemp("strategies"), with_rules) as company:
        yield company


@pytest.fixture(autouse=True)
def nothing_is_learned(shop: Company) -> None:
    """What the sellers really take here, once it is known well enough, would count for more than what is written."""
    whole_in(shop.folder).write("delete from learned_times")


def under(name: str, **fields: Any) -> dict[str, Any]:
    """A request that this rule is for."""
    return {"prompt": "a paper boat", "metadata": {"rule": name}, **fields}


async def quote(shop: Company, body: dict[str, Any]) -> dict[str, Any]:
    answer = await shop.client.post("/v1/videos/quote", json=body)
    assert answer.status_code == 200, answer.text
    quoted: dict[str, Any] = answer.json()
    return quoted


async def order(shop: Company, name: str, **fields: Any) -> list[str]:
    quoted = await quote(shop, under(name, **fields))
    assert quoted["rule"] == name
    return [one["provider"] for one in quoted["candidates"]]


async def refusal(shop: Company, body: dict[str, Any], code: str, param: str | None, status: int = 400) -> str:
    """The message, the same from quote and create; nothing is kept."""
    before = await shop.kept()
    messages = {
        refused(await shop.client.post(path, json=body), status, code, param)
        for path in ("/v1/videos", "/v1/videos/quote")
    }
    assert await shop.kept() == before
    [message] = messages
    return message


# The strategies of rules


@pytest.mark.parametrize(
    ("name", "strategy", "providers"),
    [
        ("cheapest", "cheapest", CHEAPEST),
        ("fastest", "fastest", FASTEST),
        ("balanced", "balanced", FASTEST),
        ("balanced, dear", "balanced", FASTEST),
        ("balanced, thrifty", "balanced", CHEAPEST),
        ("ordered", "ordered", ["fal", "evolink"]),
        ("ordered, quick", "ordered", ["runflow", "shortapi"]),
    ],
)
async def test_strategy_orders_the_offers(shop: Company, name: str, strategy: str, providers: list[str]) -> None:
    quoted = await quote(shop, under(name))
    assert quoted["strategy"] == strategy
    assert [one["provider"] for one in quoted["candidates"]] == providers
    assert [one["price_usd"] for one in quoted["candidates"]] == [PRICES[one] for one in providers]
    assert [one["expected_seconds"] for one in quoted["candidates"]] == [TIMES_S[one] for one in providers]


async def test_weighted_draws_by_weight_and_leaves_the_others_out(shop: Company) -> None:
    draws = [await order(shop, "weighted") for _ in range(300)]
    assert {tuple(sorted(one)) for one in draws} == {("evolink", "fal")}
    firsts = Counter(one[0] for one in draws)
    # Five standard deviations on either side of three in four.
    assert 187 <= firsts["fal"] <= 263


async def test_every_video_is_drawn_anew(shop: Company) -> None:
    created = [await shop.create(**under("weighted")) for _ in range(12)]
    videos = await asyncio.gather(*(shop.ended(one["id"]) for one in created))
    firsts = Counter(one["routing"]["provider"] for one in videos)
    assert firsts.keys() <= {"fal", "evolink"}
    assert firsts["fal"] > 2, "less than that once in twenty thousand times"
    assert all(one["routing"]["quoted_usd"] == PRICES[one["routing"]["provider"]] for one in videos)


@pytest.mark.parametrize(
    ("name", "fields", "seller"),
    [
        ("cheapest", {}, "evolink"),
        ("fastest", {}, "runflow"),
        ("balanced", {}, "runflow"),
        ("balanced, thrifty", {}, "evolink"),
        ("ordered", {}, "fal"),
        ("cheapest", {"routing": {"sort": "latency"}}, "runflow"),
        ("cheapest", {"routing": {"order": ["shortapi", "fal"]}}, "shortapi"),
        ("cheapest", {"routing": {"only": ["fal"]}}, "fal"),
        ("cheapest", {"model": "shortapi/seedance-2.0"}, "shortapi"),
        ("cheapest", {"model": "seedance:fastest"}, "runflow"),
    ],
)
async def test_film_is_bought_from_the_first_of_the_plan(
    shop: Company, name: str, fields: dict[str, Any], seller: str
) -> None:
    created = await shop.create(**under(name, **fields))
    video = await shop.ended(created["id"])
    assert video["status"] == "completed"
    assert [(one["provider"], one["status"]) for one in video["routing"]["attempts"]] == [(seller, "done")]
    assert video["routing"]["provider"] == seller
    assert video["usage"]["cost_usd"] == video["routing"]["quoted_usd"] == PRICES[seller]


@pytest.mark.parametrize(
    ("name", "fields", "sellers"),
    [
        ("ordered", {}, ["fal", "evolink"]),
        ("ordered, quick", {}, ["runflow", "shortapi"]),
        ("fastest", {}, ["runflow", "fal"]),
        ("cheapest", {"routing": {"order": ["shortapi", "fal"]}}, ["shortapi", "fal"]),
    ],
)
async def test_film_that_breaks_is_bought_from_the_second_of_the_plan(
    shop: Company, name: str, fields: dict[str, Any], sellers: list[str]
) -> None:
    created = await shop.create(**under(name, prompt=f"[fault:render_failed@{sellers[0]}]", **fields))
    video = await shop.ended(created["id"])
    attempts = [(one["provider"], one["status"]) for one in video["routing"]["attempts"]]
    assert attempts == [(sellers[0], "failed"), (sellers[1], "done")]
    assert video["usage"]["cost_usd"] == PRICES[sellers[1]]


# The request's own routing


@pytest.mark.parametrize("name", ["ordered", "fastest", "weighted", "cheapest"])
@pytest.mark.parametrize(
    ("sort", "strategy", "providers"),
    [("price", "cheapest", CHEAPEST), ("latency", "fastest", FASTEST), ("balanced", "balanced", FASTEST)],
)
async def test_sort_replaces_the_strategy_of_the_rule(
    shop: Company, name: str, sort: str, strategy: str, providers: list[str]
) -> None:
    quoted = await quote(shop, under(name, routing={"sort": sort}))
    assert (quoted["rule"], quoted["strategy"]) == (name, strategy)
    assert [one["provider"] for one in quoted["candidates"]] == providers


async def test_sort_that_is_the_rules_own_keeps_its_weights(shop: Company) -> None:
    assert await order(shop, "balanced, thrifty", routing={"sort": "balanced"}) == CHEAPEST


@pytest.mark.parametrize(
    ("model", "strategy", "providers"),
    [
        ("seedance-2.0:cheapest", "cheapest", CHEAPEST),
        ("seedance-2.0:fastest", "fastest", FASTEST),
        ("seedance:fastest", "fastest", FASTEST),
        ("fal/seedance-2.0", "ordered", ["fal"]),
        ("fal/seedance:cheapest", "cheapest", ["fal"]),
        ("runflow/seedance-2.0:fastest", "fastest", ["runflow"]),
    ],
)
async def test_models_name_may_carry_a_wish_and_a_pin(
    shop: Company, model: str, strategy: str, providers: list[str]
) -> None:
    quoted = await quote(shop, under("ordered", model=model))
    assert (quoted["model"], quoted["strategy"]) == ("seedance-2.0", strategy)
    assert [one["provider"] for one in quoted["candidates"]] == providers


@pytest.mark.parametrize(
    "model", ["seedance-2.0:quickest", "seedance-2.0:", "nobody/seedance-2.0", "fal/kino", "fal/", "/seedance-2.0"]
)
async def test_models_name_that_says_what_there_is_not_is_not_found(shop: Company, model: str) -> None:
    message = await refusal(shop, under("cheapest", model=model), "model_not_found", "model", 404)
    assert "seedance-2.0" in message


async def test_pin_does_not_widen_what_rule_and_request_leave(shop: Company) -> None:
    for name, model in (("two", "runflow/seedance-2.0"), ("ordered", "shortapi/seedance-2.0")):
        await refusal(shop, under(name, model=model), "unsupported_request", "model")
    pinned = under("cheapest", model="fal/seedance-2.0", routing={"only": ["evolink"]})
    await refusal(shop, pinned, "unsupported_request", "model")


@pytest.mark.parametrize(
    ("name", "routing", "providers"),
    [
        ("cheapest", {"only": ["fal", "runflow"]}, ["runflow", "fal"]),
        ("cheapest", {"ignore": ["evolink"]}, ["shortapi", "runflow", "fal"]),
        ("cheapest", {"only": ["fal", "evolink"], "ignore": ["evolink"]}, ["fal"]),
        ("cheapest", {"only": [], "ignore": [], "order": []}, CHEAPEST),
        ("two", {"only": ["fal", "runflow"]}, ["fal"]),
        ("two", {"ignore": ["runflow"]}, ["evolink", "fal"]),
        ("two", {"ignore": ["evolink"]}, ["fal"]),
        ("two", {"order": ["runflow", "fal", "evolink"]}, ["fal", "evolink"]),
        ("not two", {"ignore": ["shortapi"]}, ["runflow"]),
        ("ordered", {"only": ["evolink", "runflow"]}, ["evolink"]),
        ("ordered", {"order": ["runflow", "fal"]}, ["runflow", "fal"]),
        ("weighted", {"ignore": ["fal"]}, ["evolink"]),
        ("cheapest", {"order": ["runflow", "shortapi", "evolink"], "ignore": ["shortapi"]}, ["runflow", "evolink"]),
        ("cheapest", {"order": ["runflow", "shortapi", "evolink"], "only": ["evolink", "fal"]}, ["evolink"]),
        ("ordered", {"sort": "latency", "only": ["shortapi", "evolink"]}, ["shortapi", "evolink"]),
    ],
)
async def test_request_narrows_who_comes_into_question_and_never_widens_it(
    shop: Company, name: str, routing: dict[str, Any], providers: list[str]
) -> None:
    quoted = await quote(shop, under(name, routing=routing))
    assert [one["provider"] for one in quoted["candidates"]] == providers
    left_out = {one["provider"]: one["reason"] for one in quoted["excluded"] if "/standard/" in one["offer"]}
    assert left_out == dict.fromkeys(PRICES.keys() - set(providers), "rule")


@pytest.mark.parametrize(
    ("name", "routing", "param"),
    [
        ("two", {"only": ["runflow"]}, "routing.only"),
        ("two", {"ignore": ["evolink", "fal"]}, "routing.ignore"),
        ("two", {"order": ["shortapi"]}, "routing.order"),
        ("cheapest", {"only": ["fal"], "ignore": ["fal"]}, "routing.only"),
    ],
)
async def test_wish_that_leaves_nobody_is_refused_and_says_who_there_is(
    shop: Company, name: str, routing: dict[str, Any], param: str
) -> None:
    message = await refusal(shop, under(name, routing=routing), "unsupported_request", param)
    assert "evolink" in message


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": "seedance-2.0:fastest", "routing": {"sort": "price"}}, "routing.sort"),
        ({"model": "seedance-2.0:cheapest", "routing": {"sort": "balanced"}}, "routing.sort"),
        ({"model": "seedance-2.0:cheapest", "routing": {"order": ["fal"]}}, "routing.order"),
        ({"routing": {"sort": "latency", "order": ["fal"]}}, "routing.order"),
    ],
)
async def test_two_different_orders_contradict_each_other(shop: Company, fields: dict[str, Any], param: str) -> None:
    assert "contradict" in await refusal(shop, under("cheapest", **fields), "invalid_value", param)


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "seedance-2.0:fastest", "routing": {"sort": "latency"}},
        {"model": "seedance-2.0:fastest", "routing": {"sort": "latency", "allow_fallbacks": True}},
    ],
)
async def test_the_same_order_said_twice_is_no_contradiction(shop: Company, fields: dict[str, Any]) -> None:
    assert await order(shop, "cheapest", **fields) == FASTEST


@pytest.mark.parametrize("key", ["only", "ignore", "order"])
async def test_provider_that_there_is_not_is_named(shop: Company, key: str) -> None:
    body = under("cheapest", routing={key: ["fal", "nobody"]})
    message = await refusal(shop, body, "invalid_value", f"routing.{key}")
    assert "'nobody'" in message
    assert "evolink, shortapi, fal, runflow" in message


@pytest.mark.parametrize(
    ("routing", "param"),
    [
        ({"sort": "quality"}, "routing.sort"),
        ({"max_price_usd": 0}, "routing.max_price_usd"),
        ({"max_price_usd": "-1"}, "routing.max_price_usd"),
        ({"max_wait_s": 0}, "routing.max_wait_s"),
    ],
)
async def test_wish_that_cannot_be_is_refused(shop: Company, routing: dict[str, Any], param: str) -> None:
    await refusal(shop, under("cheapest", routing=routing), "invalid_value", param)


@pytest.mark.parametrize(
    ("name", "routing", "providers"),
    [
        ("priced", {}, ["evolink", "shortapi"]),
        ("priced", {"max_price_usd": "0.8"}, ["evolink"]),
        ("priced", {"max_price_usd": 0.794}, ["evolink"]),
        ("priced", {"max_price_usd": "100"}, ["evolink", "shortapi"]),
        ("cheapest", {"max_price_usd": "1.2135"}, ["evolink", "shortapi"]),
        ("cheapest", {"max_price_usd": "1.2136"}, CHEAPEST),
        ("timed", {}, ["runflow", "fal"]),
        ("timed", {"max_wait_s": 2}, ["runflow"]),
        ("timed", {"max_wait_s": 1000}, ["runflow", "fal"]),
        ("cheapest", {"max_wait_s": 6}, ["shortapi", "runflow", "fal"]),
        ("cheapest", {"max_wait_s": 6, "max_price_usd": "1"}, ["shortapi"]),
        ("ordered", {"max_price_usd": "1"}, ["evolink"]),
    ],
)
async def test_lower_limit_holds(shop: Company, name: str, routing: dict[str, Any], providers: list[str]) -> None:
    assert await order(shop, name, routing=routing) == providers


async def test_limit_that_leaves_nobody_says_what_it_takes(shop: Company) -> None:
    asked = under("cheapest", routing={"max_price_usd": "0.7"})
    assert "$0.794000" in await refusal(shop, asked, "unsupported_request", "routing.max_price_usd")
    asked = under("cheapest", routing={"max_wait_s": 1})
    assert "2 s" in await refusal(shop, asked, "unsupported_request", "routing.max_wait_s")
    message = await refusal(shop, under("priced", seconds=9), "unsupported_request", "seconds")
    assert 'in the rule "priced"' in message
    assert "$1.786500" in message


async def test_limit_of_price_is_the_tenants_price(shop: Company) -> None:
    team = await shop.found("with a margin", markup="0.25")
    quoted = (await team.client.post("/v1/videos/quote", json=under("priced"))).json()
    assert quoted["error"]["code"] == "unsupported_request"
    body = under("cheapest", routing={"max_price_usd": "0.9925"})
    quoted = (await team.client.post("/v1/videos/quote", json=body)).json()
    assert [one["price_usd"] for one in quoted["candidates"]] == ["0.992500"]


async def test_without_fallbacks_the_first_is_the_only_one(shop: Company) -> None:
    wish = {"allow_fallbacks": False}
    quoted = await quote(shop, under("cheapest", routing=wish))
    assert (quoted["max_attempts"], quoted["hold_usd"]) == (1, PRICES["evolink"])
    broken = under("cheapest", prompt="[fault:render_failed@evolink]", routing=wish)
    video = await shop.ended((await shop.create(**broken))["id"])
    assert (video["status"], video["error"]["code"]) == ("failed", "provider_error")
    assert [one["provider"] for one in video["routing"]["attempts"]] == ["evolink"]


async def test_allowed_fallbacks_are_no_more_than_the_rules(shop: Company) -> None:
    assert (await quote(shop, under("once", routing={"allow_fallbacks": True})))["max_attempts"] == 1
    assert (await quote(shop, under("cheapest", routing={"allow_fallbacks": True})))["max_attempts"] == 3


async def test_rule_that_bills_failed_attempts_holds_for_all_of_them(shop: Company) -> None:
    quoted = await quote(shop, under("billed"))
    assert (quoted["max_attempts"], quoted["hold_usd"]) == (2, "1.754000")


async def test_form_carries_the_same_wishes(shop: Company) -> None:
    form = {"prompt": "x", "routing[sort]": "latency", "routing[ignore][]": "runflow", "metadata[rule]": "cheapest"}
    quoted = (await shop.client.post("/v1/videos/quote", data=form)).json()
    assert [one["provider"] for one in quoted["candidates"]] == ["fal", "shortapi", "evolink"]


# What else a rule says


async def test_rule_fills_only_what_the_client_left_open(shop: Company) -> None:
    quoted = await quote(shop, under("filled"))
    shown = ("tier", "seconds", "resolution", "aspect_ratio", "generate_audio")
    assert [quoted[key] for key in shown] == ["fast", "6", "480p", "1:1", False]
    assert quoted["changed"] == {}
    stated = {"tier": "standard", "seconds": "9", "size": "1280x720", "generate_audio": True}
    quoted = await quote(shop, under("filled", **stated))
    assert [quoted[key] for key in shown] == ["standard", "9", "720p", "16:9", True]
    assert quoted["changed"] == {}
    for fields, seed in (({"seed": 8}, 8), ({}, 7)):
        video = await shop.ended((await shop.create(**under("filled", **fields)))["id"])
        assert (video["status"], video["seed"]) == ("completed", seed)


async def test_limit_of_resolution_lowers_what_was_left_open(shop: Company) -> None:
    quoted = await quote(shop, under("small"))
    assert (quoted["resolution"], quoted["size"], quoted["changed"]) == ("480p", "864x496", {})
    assert (await quote(shop, under("small", resolution="480p")))["resolution"] == "480p"


@pytest.mark.parametrize(("fields", "param"), [({"resolution": "720p"}, "resolution"), ({"size": "1920x1080"}, "size")])
async def test_limit_against_what_was_stated_is_refused_and_names_the_rule(
    shop: Company, fields: dict[str, Any], param: str
) -> None:
    message = await refusal(shop, under("small", **fields), "invalid_value", param)
    assert '"small" allows 480p at most' in message


async def test_downgrade_changes_what_was_stated_and_the_video_says_so(shop: Company) -> None:
    changed = {"resolution": {"asked": "1080p", "given": "480p"}}
    body = under("smaller", size="1920x1080")
    assert (await quote(shop, body))["changed"] == changed
    video = await shop.ended((await shop.create(**body))["id"])
    assert video["status"] == "completed"
    assert (video["routing"]["changed"], video["resolution"], video["size"]) == (changed, "480p", "864x496")
    assert (await quote(shop, under("smaller")))["changed"] == {}, "nothing was stated"


async def test_downgrade_lowers_every_field_that_is_above_and_none_below(shop: Company) -> None:
    quoted = await quote(shop, under("lesser", tier="standard", seconds=8, generate_audio=True))
    assert quoted["changed"] == {
        "tier": {"asked": "standard", "given": "fast"},
        "seconds": {"asked": 8, "given": 5},
        "generate_audio": {"asked": True, "given": False},
    }
    quoted = await quote(shop, under("lesser", tier="mini", resolution="480p", seconds=4, generate_audio=False))
    assert quoted["changed"] == {}
    assert (quoted["tier"], quoted["seconds"]) == ("mini", "4")
    assert (await quote(shop, under("lesser", seconds="auto")))["changed"]["seconds"] == {"asked": "auto", "given": 5}


async def test_rule_makes_a_wish_a_requirement(shop: Company) -> None:
    assert await order(shop, "cheapest", seed=7) == CHEAPEST
    seeded = await order(shop, "seeded", seed=7)
    assert set(seeded) < set(CHEAPEST)
    quoted = await quote(shop, under("seeded", seed=7))
    reasons = {one["reason"] for one in quoted["excluded"] if "/standard/" in one["offer"]}
    assert reasons == {"seed"}
    assert await order(shop, "seeded") == CHEAPEST, "nothing is asked of the seed of a request that names none"
    assert "shortapi" not in await order(shop, "heard"), "it always makes sound"


async def test_rule_leaves_providers_out(shop: Company) -> None:
    assert await order(shop, "two") == ["evolink", "fal"]
    assert await order(shop, "not two") == ["shortapi", "runflow"]
    assert await order(shop, "one") == ["evolink"]


async def test_no_rule_here_is_in_doubt(shop: Company) -> None:
    code, out, _ = await shop.cli("check")
    assert (code, "warning" in out) == (0, False), out
