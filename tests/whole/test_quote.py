"""The quote: the very plan that a create would make, without the create; and what tenants may not see of it."""

import json
import re
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
import pytest_asyncio

from tests.databases import whole_in
from tests.whole.company import Company, open_company, refused

pytestmark = pytest.mark.asyncio(loop_scope="module")

SELLERS = {"evolink", "shortapi", "fal", "runflow"}


def with_rules(rules: dict[str, Any]) -> None:
    rules["rules"] = [
        {"name": "previews", "when": {"metadata.stage": "preview"}, "tier": "fast", "strategy": "fastest"},
        {"name": "small", "when": {"end_user_id": "frugal"}, "resolution_at_most": "480p", "downgrade": True,
         "strategy": "cheapest"},
        {"name": "favourites", "when": {"aspect_ratio": "1:1"}, "strategy": {"ordered": ["fal", "evolink"]},
         "fallback": {"max_attempts": 1}},
        {"name": "billed", "when": {"aspect_ratio": "3:4"}, "strategy": "cheapest", "bill_failed_attempts": True},
        {"name": "default", "strategy": {"balanced": {"price": 0.7, "latency": 0.3}}},
    ]  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Company]:
    async with open_company(tmp_path_factory.mktemp("quotes"), with_rules) as company:
        yield company


async def quote(shop: Company, **fields: Any) -> dict[str, Any]:
    answer = await shop.client.post("/v1/videos/quote", json={"prompt": "a paper boat", **fields})
    assert answer.status_code == 200, answer.text
    quoted: dict[str, Any] = answer.json()
    return quoted


async def test_quote_names_every_offer_once_with_price_or_reason(shop: Company) -> None:
    quoted = await quote(shop, seconds=4, content_filter=True)
    assert quoted["object"] == "video.quote"
    assert quoted["rule"] == "default"
    prices = {one["provider"]: (one["price_usd"], one["price_basis"]) for one in quoted["candidates"]}
    assert prices == {
        "evolink": ("0.794000", "listed"), "shortapi": ("0.960000", "listed"),
        "fal": ("1.213600", "listed"), "runflow": ("1.213600", "listed"),
    }  # fmt: skip
    assert all(one["reason"] and one["expected_seconds"] >= 0 for one in quoted["candidates"])
    assert {(one["offer"], one["reason"]) for one in quoted["excluded"]} == {
        (f"{provider}/seedance-2.0/{tier}/text-to-video", "tier")
        for provider, tier in (
            ("evolink", "fast"), ("evolink", "mini"), ("shortapi", "fast"), ("fal", "fast"), ("runflow", "fast"),
        )
    }  # fmt: skip
    assert all(one["detail"] for one in quoted["excluded"])
    assert quoted["max_attempts"] == 3
    assert quoted["hold_usd"] == max(one["price_usd"] for one in quoted["candidates"][:3])


@pytest.mark.parametrize(
    ("fields", "kept", "reasons"),
    [
        ({"resolution": "480p"}, {"evolink", "fal", "runflow"}, {"shortapi": "resolution"}),
        ({"resolution": "1080p"}, {"evolink", "runflow"}, {"shortapi": "resolution", "fal": "resolution"}),
        ({"content_filter": False}, {"evolink"}, dict.fromkeys(SELLERS - {"evolink"}, "content_filter")),
        ({"generate_audio": False}, SELLERS - {"shortapi"}, {"shortapi": "generate_audio"}),
        ({"seconds": "auto"}, {"fal", "runflow"}, {"shortapi": "seconds", "evolink": "seconds"}),
        ({"aspect_ratio": "auto"}, SELLERS - {"shortapi"}, {"shortapi": "aspect_ratio"}),
        ({"web_search": True}, {"evolink"}, dict.fromkeys(SELLERS - {"evolink"}, "web_search")),
        ({"seed": 7}, SELLERS, {}),
        ({"tier": "mini", "resolution": "480p"}, {"evolink"}, dict.fromkeys(SELLERS - {"evolink"}, "tier")),
        ({"model": "fal/seedance-2.0"}, {"fal"}, dict.fromkeys(SELLERS - {"fal"}, "not_pinned")),
        ({"routing": {"only": ["fal", "runflow"]}}, {"fal", "runflow"}, {"evolink": "rule", "shortapi": "rule"}),
        ({"routing": {"ignore": ["evolink"]}}, SELLERS - {"evolink"}, {"evolink": "rule"}),
        ({"routing": {"max_price_usd": "1"}}, {"evolink", "shortapi"}, {"fal": "over_price", "runflow": "over_price"}),
    ],
)
async def test_excluded_offer_says_which_part_it_cannot_meet(
    shop: Company, fields: dict[str, Any], kept: set[str], reasons: dict[str, str]
) -> None:
    quoted = await quote(shop, **fields)
    assert {one["provider"] for one in quoted["candidates"]} == kept
    own = quoted["tier"]
    found = {one["provider"]: one["reason"] for one in quoted["excluded"] if f"/{own}/" in one["offer"]}
    others = {one["provider"]: one["reason"] for one in quoted["excluded"]}
    assert {name: found.get(name, others[name]) for name in reasons} == reasons
    assert set(found) <= set(reasons)


async def test_rules_that_were_passed_over_say_why(shop: Company) -> None:
    quoted = await quote(shop, aspect_ratio="3:4")
    assert quoted["rule"] == "billed"
    assert quoted["passed_over"] == [
        {"rule": "previews", "unmet": ["metadata.stage"]},
        {"rule": "small", "unmet": ["end_user_id"]},
        {"rule": "favourites", "unmet": ["aspect_ratio"]},
    ]


async def test_quote_keeps_nothing_and_asks_nobody(shop: Company) -> None:
    before = await shop.kept()
    for _ in range(3):
        await quote(shop, end_user_id="somebody new", metadata={"stage": "preview"})
    assert await shop.kept() == before


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"seconds": "12", "resolution": "480p"},
        {"metadata": {"stage": "preview"}},
        {"end_user_id": "frugal", "resolution": "1080p"},
        {"aspect_ratio": "1:1"},
        {"aspect_ratio": "3:4", "resolution": "480p"},
        {"size": "1920x1080", "seconds": 5},
        {"seconds": "auto", "aspect_ratio": "auto"},
        {"model": "seedance:fastest"},
        {"routing": {"sort": "price", "allow_fallbacks": False}},
        {"routing": {"order": ["runflow", "shortapi"]}},
        {"content_filter": False, "web_search": True},
    ],
)
@pytest.mark.parametrize("markup", ["0", "0.155"])
async def test_create_does_what_the_quote_said(shop: Company, fields: dict[str, Any], markup: str) -> None:
    name = f"markup {markup} {fields}"
    team = await shop.found(name, markup=markup, allow_filter_off=True)
    body = {"prompt": "[fault:never_ends]", **fields}
    quoted = (await team.client.post("/v1/videos/quote", json=body)).raise_for_status().json()
    video = (await team.client.post("/v1/videos", json=body)).raise_for_status().json()
    await team.client.delete(f"/v1/videos/{video['id']}")
    shared = ("model", "resolution", "aspect_ratio", "size", "seconds", "generate_audio", "content_filter", "tier")
    assert {key: video[key] for key in shared} == {key: quoted[key] for key in shared}
    routing = video["routing"]
    assert (routing["rule"], routing["strategy"], routing["changed"]) == (
        quoted["rule"], quoted["strategy"], quoted["changed"],
    )  # fmt: skip
    assert routing["quoted_usd"] == quoted["candidates"][0]["price_usd"]
    [(plan, hold)] = whole_in(shop.folder).rows("select plan, hold_microusd from videos where id = ?", video["id"])
    kept = [(one["offer"], one["quote_microusd"]) for one in json.loads(plan)["candidates"]]
    said = quoted["candidates"][: quoted["max_attempts"]]
    assert kept == [(one["offer"], Decimal(one["price_usd"]) * 1_000_000) for one in said]
    assert Decimal(quoted["hold_usd"]) * 1_000_000 == hold


async def test_price_in_the_quote_is_the_tenants_own(shop: Company) -> None:
    team = await shop.found("dear", markup="0.1")
    quoted = (await team.client.post("/v1/videos/quote", json={"prompt": "x", "seconds": 4})).json()
    assert {one["provider"]: one["price_usd"] for one in quoted["candidates"]}["evolink"] == "0.873400"


async def test_downgrade_is_told(shop: Company) -> None:
    quoted = await quote(shop, end_user_id="frugal", resolution="1080p")
    assert quoted["changed"] == {"resolution": {"asked": "1080p", "given": "480p"}}
    assert quoted["resolution"] == "480p"
    assert quoted["size"] == "864x496"


# Where sellers are not shown


def discreet(rules: dict[str, Any]) -> None:
    rules["expose_providers"] = False
    rules["unknown_fields"] = "report"
    rules["models"]["kino-1"] = {}
    offer = dict(rules["providers"]["fal"]["offers"][0], model="kino-1")
    rules["providers"]["closed"] = dict(rules["providers"]["fal"], enabled=False, offers=[offer])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def quiet(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Company]:
    async with open_company(tmp_path_factory.mktemp("quiet"), discreet) as company:
        yield company


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": "evolink/seedance-2.0"}, "model"),
        ({"routing": {"only": ["evolink"]}}, "routing.only"),
        ({"routing": {"ignore": ["evolink"]}}, "routing.ignore"),
        ({"routing": {"order": ["evolink"]}}, "routing.order"),
    ],
)
async def test_discreet_house_lets_nobody_name_a_seller(quiet: Company, fields: dict[str, Any], param: str) -> None:
    body = {"prompt": "a paper boat", "model": "seedance-2.0", **fields}
    before = await quiet.kept()
    for path in ("/v1/videos", "/v1/videos/quote"):
        message = refused(await quiet.client.post(path, json=body), 400, "invalid_value", param)
        assert not any(name in message for name in SELLERS)
    assert await quiet.kept() == before
    assert (await quiet.client.get("/v1/models/evolink/seedance-2.0")).status_code in {400, 404}


def _names_no_seller(text: str) -> None:
    assert not [name for name in SELLERS if re.search(rf"\b{name}\b", text)], text


async def test_discreet_house_shows_no_seller_anywhere(quiet: Company) -> None:
    client, model = quiet.client, {"model": "seedance-2.0"}
    _names_no_seller((await client.get("/v1/models")).text)
    _names_no_seller((await client.get("/v1/models/seedance-2.0")).text)
    _names_no_seller((await client.post("/v1/videos/quote", json={"prompt": "x", **model})).text)
    for prompt in ("a paper boat", "[fault:moderation]", "[fault:render_failed] [fault:invalid@fal]"):
        video = await quiet.ended((await quiet.create(prompt, **model))["id"])
        shown = await client.get(f"/v1/videos/{video['id']}")
        _names_no_seller(shown.text.replace("@fal", ""))
        assert shown.json()["routing"]["provider"] is None
        assert all(one["provider"] is one["cost_usd"] is None for one in shown.json()["routing"]["attempts"])
    _names_no_seller((await client.get("/v1/videos")).text.replace("@fal", ""))
    impossible = await client.post("/v1/videos", json={"prompt": "x", "resolution": "1080p", "tier": "fast", **model})
    _names_no_seller(refused(impossible, 400, "unsupported_request"))


async def test_discreet_house_keeps_sellers_prices_out_of_a_tenants_spend(quiet: Company) -> None:
    team = await quiet.found("spender", "videos", "reports", markup="0.5")
    video = (await team.client.post("/v1/videos", json={"prompt": "x", "model": "seedance-2.0"})).json()
    own = await team.client.get(f"/v1/videos/{video['id']}")
    while own.json()["status"] != "completed":
        own = await team.client.get(f"/v1/videos/{video['id']}")
    refused(await team.client.get("/v1/spend", params={"group_by": "provider"}), 400, "invalid_value", "group_by")
    [line] = (await team.client.get("/v1/spend")).json()["data"]
    assert line["charged_usd"] == own.json()["usage"]["cost_usd"] == "1.191000"
    assert {line[name] for name in ("seller_usd", "assumed_usd", "markup_usd", "absorbed_usd")} == {None}
    text = (await team.client.get("/v1/spend", params={"format": "csv"})).text
    figures = dict(zip(*(row.split(",") for row in text.splitlines()), strict=True))
    hidden = ("seller_usd", "assumed_usd", "markup_usd", "absorbed_usd", "at_first_usd", "at_dearest_usd")
    assert {figures[name] for name in hidden} == {""}
    assert (figures["videos"], figures["charged_usd"], figures["unknown_costs"]) == ("1", "1.191000", "0")
    # The operator sees it all.
    by_provider = await quiet.client.get("/admin/reports/spend", params={"group_by": "provider", "tenant": team.id})
    assert [(one["provider"], one["seller_usd"]) for one in by_provider.json()["data"]] == [("evolink", "0.794000")]


async def test_unknown_field_is_reported_where_the_operator_wants_that(quiet: Company) -> None:
    body = {"prompt": "[fault:never_ends]", "model": "seedance-2.0", "negative_prompt": "rain", "promt": "x"}
    video = (await quiet.client.post("/v1/videos", json=body)).raise_for_status().json()
    assert len(video["warnings"]) == 2
    assert "negative_prompt" in video["warnings"][0]
    assert "Did you mean 'prompt'?" in video["warnings"][1]
    quoted = (await quiet.client.post("/v1/videos/quote", json=body)).raise_for_status().json()
    assert quoted["warnings"] == video["warnings"]
    misspelt = await quiet.client.post("/v1/videos", json={**body, "routing": {"max_price": 1}})
    refused(misspelt, 400, "unknown_parameter", "routing.max_price")
    await quiet.client.delete(f"/v1/videos/{video['id']}")


async def test_model_whose_sellers_are_all_off_is_unavailable(quiet: Company) -> None:
    answer = await quiet.client.post("/v1/videos", json={"prompt": "x", "model": "kino-1"})
    refused(answer, 503, "no_provider_available", None)
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    refused(await quiet.client.post("/v1/videos", json={"prompt": "x"}), 400, "missing_parameter", "model")
    described = (await quiet.client.get("/v1/models/kino-1")).json()
    assert (described["abilities"], described["prices"]) == (None, [])
