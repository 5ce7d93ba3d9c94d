"""One Idempotency-Key, one video."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode

import pytest
import pytest_asyncio

from tests.whole.company import Company, Team, open_company, refused

pytestmark = pytest.mark.asyncio(loop_scope="module")

BODY = {
    "prompt": "a paper boat",
    "resolution": "480p",
    "metadata": {"a": "b"},
    "seed": 7,
    "routing": {"ignore": ["fal"]},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Company]:
    async with open_company(tmp_path_factory.mktemp("keys")) as company:
        yield company


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def team(shop: Company) -> Team:
    return await shop.found("team")


async def ask(team: Team, key: str, **sent: Any) -> dict[str, Any]:
    headers = {"idempotency-key": key, **sent.pop("headers", {})}
    answer = await team.client.post("/v1/videos", headers=headers, **(sent or {"json": BODY}))
    assert answer.status_code == 200, answer.text
    video: dict[str, Any] = answer.json()
    return video


async def test_same_key_and_body_is_the_same_video_as_it_stands_now(shop: Company, team: Team) -> None:
    first = await ask(team, "k-1")
    assert first["status"] == "queued"
    while (now := (await team.client.get(f"/v1/videos/{first['id']}")).json())["status"] != "completed":
        await asyncio.sleep(0.05)
    before = await shop.kept()
    again = await ask(team, "k-1")
    assert again == now
    assert await shop.kept() == before


async def test_encodings_of_one_request_are_one_request(shop: Company, team: Team) -> None:
    video = await ask(team, "k-2")
    before = (await shop.kept())["videos"]
    turned = dict(reversed(BODY.items()))
    flat = {
        "prompt": "a paper boat", "resolution": "480p", "metadata[a]": "b", "seed": "7", "routing[ignore][]": "fal",
    }  # fmt: skip
    as_parts = {name: (None, text) for name, text in flat.items()}
    in_words = {name: (None, text if isinstance(text, str) else json.dumps(text)) for name, text in BODY.items()}
    form = {"content-type": "application/x-www-form-urlencoded"}
    encodings: dict[str, dict[str, Any]] = {
        "JSON in another order": {"json": turned},
        "JSON with nulls": {"json": {**BODY, "size": None, "model": None}},
        "multipart": {"files": as_parts},
        "multipart with JSON inside": {"files": in_words},
        "urlencoded": {"content": urlencode(flat), "headers": form},
    }
    for name, sent in encodings.items():
        assert (await ask(team, "k-2", **sent))["id"] == video["id"], name
    assert (await shop.kept())["videos"] == before


@pytest.mark.parametrize(
    "change", [{"prompt": "a tin boat"}, {"seed": 8}, {"metadata": {"a": "c"}}, {"seconds": 4}, {"routing": None}]
)
async def test_same_key_for_another_body_is_refused(shop: Company, team: Team, change: dict[str, Any]) -> None:
    """Even for what the default would have filled in: it is the request that is compared, not the video."""
    await ask(team, "k-3")
    before = (await shop.kept())["videos"]
    answer = await team.client.post("/v1/videos", json={**BODY, **change}, headers={"idempotency-key": "k-3"})
    refused(answer, 400, "invalid_value", "Idempotency-Key")
    assert (await shop.kept())["videos"] == before


async def test_key_of_one_tenant_means_nothing_to_another(shop: Company, team: Team) -> None:
    other = await shop.found("other")
    mine, theirs = await ask(team, "k-4"), await ask(other, "k-4", json={**BODY, "prompt": "a tin boat"})
    assert mine["id"] != theirs["id"]
    assert (await ask(team, "k-4"))["id"] == mine["id"]


async def test_key_is_one_tenants_whichever_of_its_api_keys_is_used(shop: Company, team: Team) -> None:
    video = await ask(team, "k-5")
    colleague = await shop.client_of(await shop.new_key(team.id))
    answer = await colleague.post("/v1/videos", json=BODY, headers={"idempotency-key": "k-5"})
    assert answer.json()["id"] == video["id"]


async def test_at_the_same_moment_one_video_comes_of_it(shop: Company, team: Team) -> None:
    before = await shop.kept()
    videos = await asyncio.gather(*(ask(team, "k-6") for _ in range(24)))
    assert len({video["id"] for video in videos}) == 1
    after = await shop.kept()
    assert (after["videos"] - before["videos"], after["idempotency"] - before["idempotency"]) == (1, 1)


async def test_at_the_same_moment_only_one_of_two_requests_gets_the_key(team: Team) -> None:
    bodies = [{**BODY, "prompt": f"boat {no % 2}"} for no in range(12)]
    answers = await asyncio.gather(
        *(team.client.post("/v1/videos", json=body, headers={"idempotency-key": "k-7"}) for body in bodies)
    )
    assert len({answer.json()["id"] for answer in answers if answer.status_code == 200}) == 1
    losers = [answer for answer in answers if answer.status_code != 200]
    assert len(losers) == 6
    for answer in losers:
        refused(answer, 400, "invalid_value", "Idempotency-Key")


async def test_refused_request_does_not_use_its_key_up(team: Team) -> None:
    answer = await team.client.post("/v1/videos", json={**BODY, "seconds": 3}, headers={"idempotency-key": "k-8"})
    refused(answer, 400, "invalid_value", "seconds")
    assert (await ask(team, "k-8"))["status"] == "queued"


async def test_without_a_key_two_requests_are_two_videos(team: Team) -> None:
    one, other = [(await team.client.post("/v1/videos", json=BODY)).json()["id"] for _ in range(2)]
    assert one != other


async def test_key_of_a_deleted_video_makes_no_second_one(shop: Company, team: Team) -> None:
    video = await ask(team, "k-9")
    await team.client.delete(f"/v1/videos/{video['id']}")
    before = await shop.kept()
    answer = await team.client.post("/v1/videos", json=BODY, headers={"idempotency-key": "k-9"})
    refused(answer, 404, "not_found", "Idempotency-Key")
    assert (await shop.kept())["videos"] == before["videos"]


async def test_quote_ignores_the_key(shop: Company, team: Team) -> None:
    headers = {"idempotency-key": "k-10"}
    (await team.client.post("/v1/videos/quote", json=BODY, headers=headers)).raise_for_status()
    before = await shop.kept()
    assert (await ask(team, "k-10", json={**BODY, "prompt": "a tin boat"}))["status"] == "queued"
    assert (await shop.kept())["videos"] == before["videos"] + 1
