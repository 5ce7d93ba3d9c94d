"""Every form of `when` through HTTP: which rule a request meets."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio

from tests.whole.company import Company, Team, open_company
from tests.whole.scenes import rule

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOUR = datetime.now(UTC).hour
"""The tests may begin in one hour and end in the next."""
LATER = (HOUR + 12) % 24

PHOTO = {"image_url": "https://example.com/boat.png"}

CASES: dict[str, tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]] = {
    # One value of each field, what has it and what has not; the defaults count as said.
    "model": ({"model": "kino-1"}, [{"model": "kino-1"}, {"model": "kino"}], [{"model": "seedance-2.0"}]),
    "model by its alias": ({"model": "kino"}, [{"model": "kino-1"}], [{"model": "seedance"}]),
    "operation": ({"operation": "image-to-video"}, [{"input_reference": PHOTO}], [{}]),
    "operation of any request": ({"operation": "text-to-video"}, [{}], [{"input_reference": PHOTO}]),
    "prompt": ({"prompt": "a red boat"}, [{"prompt": "a red boat"}], [{"prompt": "a red boat "}]),
    "seconds": ({"seconds": 6}, [{"seconds": 6}, {"seconds": "6"}, {"duration": 6}], [{}, {"seconds": "auto"}]),
    "seconds by default": ({"seconds": 4}, [{}, {"seconds": 4}], [{"seconds": 5}]),
    "seconds auto": ({"seconds": "auto"}, [{"seconds": "auto"}], [{}, {"seconds": 15}]),
    "resolution": ({"resolution": "1080p"}, [{"resolution": "1080p"}, {"size": "1920x1080"}], [{}]),
    "resolution by default": ({"resolution": "720p"}, [{}, {"size": "1280x720"}], [{"resolution": "480p"}]),
    "aspect_ratio": ({"aspect_ratio": "9:16"}, [{"aspect_ratio": "9:16"}, {"size": "720x1280"}], [{}]),
    "aspect_ratio auto": ({"aspect_ratio": "auto"}, [{"aspect_ratio": "auto"}], [{}]),
    "generate_audio": ({"generate_audio": False}, [{"generate_audio": False}], [{}, {"generate_audio": True}]),
    "content_filter": ({"content_filter": False}, [{"content_filter": False}], [{}, {"content_filter": True}]),
    "tier": ({"tier": "fast"}, [{"tier": "fast"}], [{}, {"tier": "standard"}]),
    "seed": ({"seed": 7}, [{"seed": 7}], [{}, {"seed": 8}]),
    "web_search": ({"web_search": True}, [{"web_search": True}], [{}, {"web_search": False}]),
    "end_user_id": ({"end_user_id": "u-1"}, [{"end_user_id": "u-1"}, {"user": "u-1"}], [{}, {"end_user_id": "u-2"}]),
    "metadata": (
        {"metadata.stage": "preview"},
        [{"metadata": {"stage": "preview", "more": "x"}}],
        [{}, {"metadata": {"stage": "Preview"}}, {"metadata": {"other": "preview"}}],
    ),
    "metadata with a dot": ({"metadata.a.b": "x"}, [{"metadata": {"a.b": "x"}}], [{"metadata": {"b": "x"}}]),
    # A list is any of.
    "list of seconds": ({"seconds": [5, "auto"]}, [{"seconds": 5}, {"seconds": "auto"}], [{"seconds": 6}]),
    "list of resolutions": ({"resolution": ["480p", "1080p"]}, [{"resolution": "480p"}, {"resolution": "1080p"}], [{}]),
    "list of models": ({"model": ["kino"]}, [{"model": "kino-1"}], [{"model": "seedance-2.0"}]),
    "list of tiers": ({"tier": ["fast", "mini"]}, [{"tier": "fast"}, {"tier": "mini", "resolution": "480p"}], [{}]),
    "list of seeds": ({"seed": [0, 7]}, [{"seed": 0}, {"seed": 7}], [{"seed": 1}, {}]),
    "list of both": ({"generate_audio": [True, False]}, [{}, {"generate_audio": False}], []),
    "list of end users": ({"end_user_id": ["u-1", "u-2"]}, [{"end_user_id": "u-2"}], [{"end_user_id": "u-3"}, {}]),
    "list of metadata": (
        {"metadata.stage": ["draft", "preview"]},
        [{"metadata": {"stage": "draft"}}],
        [{"metadata": {"stage": "final"}}],
    ),
    # Ranges hold their ends.
    "seconds from": ({"seconds": {"min": 6}}, [{"seconds": 6}, {"seconds": 15}], [{"seconds": 5}, {"seconds": "auto"}]),
    "seconds to": ({"seconds": {"max": 6}}, [{}, {"seconds": 6}], [{"seconds": 7}, {"seconds": "auto"}]),
    "seconds from to": (
        {"seconds": {"min": 5, "max": 6}},
        [{"seconds": 5}, {"seconds": 6}],
        [{"seconds": 4}, {"seconds": 7}],
    ),
    "resolution from": ({"resolution": {"min": "720p"}}, [{}, {"resolution": "1080p"}], [{"resolution": "480p"}]),
    "resolution to": ({"resolution": {"max": "720p"}}, [{}, {"resolution": "480p"}], [{"resolution": "1080p"}]),
    "seed from": ({"seed": {"min": 5}}, [{"seed": 5}], [{"seed": 4}, {}]),
    "metadata from to": (
        {"metadata.shots": {"min": "2.5", "max": 10}},
        [{"metadata": {"shots": "2.5"}}, {"metadata": {"shots": "10.0"}}],
        [{"metadata": {"shots": "2.4"}}, {"metadata": {"shots": "11"}}, {"metadata": {"shots": "many"}}, {}],
    ),
    "metadata below nothing": (
        {"metadata.shift": {"max": -1}},
        [{"metadata": {"shift": "-1.5"}}],
        [{"metadata": {"shift": "0"}}],
    ),
    # The hour of the day, UTC.
    "hour": ({"hour": [HOUR, (HOUR + 1) % 24]}, [{}], []),
    "another hour": ({"hour": LATER}, [], [{}]),
    "hour from to": ({"hour": {"min": 0, "max": 23}}, [{}], []),
    # Several at once, and any, all, not.
    "several fields": (
        {"tier": "fast", "seconds": {"max": 6}},
        [{"tier": "fast", "seconds": 6}],
        [{"tier": "fast", "seconds": 7}, {"seconds": 6}],
    ),
    "any": (
        {"any": [{"tier": "fast"}, {"seconds": 9, "seed": 1}]},
        [{"tier": "fast"}, {"seconds": 9, "seed": 1}],
        [{"seconds": 9}, {}],
    ),
    "all": (
        {"all": [{"seconds": {"min": 6}}, {"seconds": {"max": 8}}]},
        [{"seconds": 7}],
        [{"seconds": 5}, {"seconds": 9}],
    ),
    "not": ({"not": {"resolution": "720p"}}, [{"resolution": "480p"}], [{}]),
    "not all of": (
        {"not": {"resolution": "720p", "seconds": 4}},
        [{"seconds": 5}, {"resolution": "480p"}],
        [{}, {"size": "1280x720", "seconds": 4}],
    ),
    "not of the unknown": ({"not": {"seed": {"min": 0}}}, [{}], [{"seed": 0}]),
    "nested": (
        {"any": [{"not": {"any": [{"tier": "standard"}, {"seconds": 9}]}}, {"all": [{"seed": 1}, {"seconds": 5}]}]},
        [{"tier": "fast"}, {"seed": 1, "seconds": 5}],
        [{}, {"tier": "fast", "seconds": 9}, {"seed": 1}],
    ),
    # Who asks; the tests ask as the tenant that the bootstrap key belongs to.
    "tenant": ({"tenant": "default"}, [{}], []),
    "list of tenants": ({"tenant": ["nobody", "default"]}, [{}], []),
    "another tenant": ({"tenant": "painters"}, [], [{}]),
    # Without a budget nothing is known of it, and unknown matches nothing.
    "budget_used": ({"budget_used": {"min": 0}}, [], [{}]),
    "budget_used to": ({"budget_used": {"max": 1}}, [], [{}]),
    "budget_used is": ({"budget_used": 0}, [], [{}]),
    "not budget_used": ({"not": {"budget_used": {"min": "0.9"}}}, [{}], []),
}


def with_rules(rules: dict[str, Any]) -> None:
    """Each case is a rule for the requests that name it; one provider makes another model, and films of pictures."""
    [offer, *_] = rules["providers"]["fal"]["offers"]
    prices = [price | {"id": f"{price['id']}-kino"} for price in offer["prices"]]
    kino = offer | {"model": "kino-1", "prices": prices}
    photo = [one | {"operation": "image-to-video"} for one in (offer, kino)]
    rules["providers"]["fal"]["offers"] += [kino, *photo]
    rules["models"]["kino-1"] = {"aliases": ["kino"]}
    rules["rules"] = [
        rule("painters at night", {"tenant": "painters", "metadata.case": "who"}),
        *(rule(name, {"metadata.case": name} | when) for name, (when, _, _) in CASES.items()),
        rule("first of two", {"metadata.case": "twice", "tier": "fast"}),
        rule("second of two", {"metadata.case": "twice"}),
        rule("default"),
    ]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Company]:
    async with open_company(tmp_path_factory.mktemp("when"), with_rules) as company:
        yield company


async def rule_for(shop: Company, case: str, asked: dict[str, Any], team: Team | None = None) -> str:
    """By name, as the quote tells it."""
    metadata = {"case": case} | asked.get("metadata", {})
    body = {"prompt": "a paper boat", "model": "seedance-2.0"} | asked | {"metadata": metadata}
    answer = await (team or shop).client.post("/v1/videos/quote", json=body)
    assert answer.status_code == 200, answer.text
    name: str = answer.json()["rule"]
    return name


@pytest.mark.parametrize("case", CASES)
async def test_rule_is_for_those_who_meet_its_when(shop: Company, case: str) -> None:
    _, meets, misses = CASES[case]
    assert [await rule_for(shop, case, asked) for asked in meets] == [case] * len(meets)
    assert [await rule_for(shop, case, asked) for asked in misses] == ["default"] * len(misses)


async def test_first_rule_that_matches_is_the_one(shop: Company) -> None:
    assert await rule_for(shop, "twice", {"tier": "fast"}) == "first of two"
    assert await rule_for(shop, "twice", {}) == "second of two"


async def test_tenant_is_known_by_its_name(shop: Company) -> None:
    painters, others = await shop.found("painters"), await shop.found("sculptors")
    assert await rule_for(shop, "who", {}, painters) == "painters at night"
    assert await rule_for(shop, "another tenant", {}, painters) == "another tenant"
    assert await rule_for(shop, "who", {}, others) == await rule_for(shop, "tenant", {}, others) == "default"


async def test_tenant_without_the_right_is_seen_with_its_filter_on(shop: Company) -> None:
    team = await shop.found("filtered")
    assert await rule_for(shop, "content_filter", {}, team) == "default"
    refused = await team.client.post("/v1/videos/quote", json={"prompt": "x", "content_filter": False, "model": "kino"})
    assert refused.status_code == 403


async def test_create_meets_the_rule_of_its_quote(shop: Company) -> None:
    video = await shop.create(model="seedance", tier="fast", seconds=6, metadata={"case": "several fields"})
    assert video["routing"]["rule"] == "several fields"
    assert (await shop.ended(video["id"]))["routing"]["rule"] == "several fields"


async def test_no_rule_here_is_in_doubt_but_those_that_are_never_met_on_purpose(shop: Company) -> None:
    code, out, err = await shop.cli("check")
    assert (code, err) == (0, "")
    assert [line for line in out.splitlines() if line.startswith("warning: the rule")] == []


async def test_tenant_is_known_by_its_id(shop: Company) -> None:
    """The last test: the server is started anew, with a rule that names what it did not know before."""
    team = await shop.found("nameless in rules")

    def change(rules: dict[str, Any]) -> None:
        rules["rules"] = [rule("by id", {"tenant": ["nobody", team.id]}), rule("default")]

    await shop.server.stop()
    shop.write_rules(change)
    await shop.start_server()
    assert await rule_for(shop, "", {}, team) == "by id"
    assert await rule_for(shop, "", {}) == "default"
