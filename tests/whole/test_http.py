"""The manners of every answer, lists and their pages, models, callbacks and the API's own description."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from proxy.api.site import route_templates
from proxy.core.ids import Secrets
from tests.whole.company import Company, open_company, refused

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Company]:
    async with open_company(tmp_path_factory.mktemp("http"), SECRET=SECRET) as company:
        yield company


SECRET = "a-secret-for-callbacks"

# Manners


@pytest.mark.parametrize(
    "path",
    ["/", "/v1", "/v2/videos", "/v1/video", "/v1/videos/video_1/contents", "/v1/videos/characters/char_1", "/admin",
     "/console", "/v1/videos/a/b/c", "/v1/%ff", "/favicon.ico", "/callbacks", "/callbacks/a/b", "/v1/" + "x" * 3000],
)  # fmt: skip
async def test_address_of_nothing_is_answered_in_the_envelope(shop: Company, path: str) -> None:
    refused(await shop.client.get(path), 404, "not_found", None)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/videos", {"GET", "POST"}),
        ("POST", "/v1/videos/video_1", {"GET", "DELETE"}),
        ("GET", "/v1/videos/quote", {"POST"}),
        ("POST", "/v1/videos/video_1/content", {"GET", "HEAD"}),
        ("DELETE", "/v1/models", {"GET"}),
        ("GET", "/callbacks/a", {"POST"}),
        ("PUT", "/admin/tenants", {"GET", "POST"}),
    ],
)
async def test_wrong_method_is_answered_with_the_right_ones(
    shop: Company, method: str, path: str, allowed: set[str]
) -> None:
    answer = await shop.client.request(method, path)
    refused(answer, 405, "method_not_allowed", None)
    assert {word.strip() for word in answer.headers["allow"].split(",")} - {"OPTIONS"} == allowed


async def test_connection_that_idles_outlives_the_clients_own_patience(shop: Company) -> None:
    # Clients give one up after about five seconds, and send a request on it until then.
    reader, writer = await asyncio.open_connection("127.0.0.1", shop.port)
    for pause_s in (7, 0):
        writer.write(b"GET /healthz HTTP/1.1\r\nhost: reelay\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        length = re.search(rb"content-length: (\d+)", head)
        assert length is not None
        await reader.readexactly(int(length[1]))
        await asyncio.sleep(pause_s)
    writer.close()


async def test_every_answer_has_an_id_of_its_own(shop: Company) -> None:
    answers = [await shop.client.get(path) for path in ("/v1/videos", "/v1/models", "/nothing", "/healthz", "/readyz")]
    ids = [answer.headers["x-request-id"] for answer in answers]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch("req_[0-9a-f]{24}", one) for one in ids)


async def test_host_that_is_none_is_refused_in_the_envelope(shop: Company) -> None:
    refused(await shop.client.get("/v1/videos", headers={"host": "a b"}), 400, "invalid_value")


async def test_new_video_is_readable_at_once_and_says_when_to_ask_again(shop: Company) -> None:
    created = await shop.client.post("/v1/videos", json={"prompt": "a paper boat", "resolution": "480p"})
    assert created.status_code == 200
    assert list(created.json())[:13] == [
        "id", "object", "model", "status", "progress", "created_at", "completed_at", "expires_at", "prompt", "size",
        "seconds", "remixed_from_video_id", "error",
    ]  # fmt: skip
    assert int(created.headers["openai-poll-after-ms"]) > 0
    video = created.json()
    assert re.fullmatch("video_[0-9a-f]+", video["id"])
    assert (video["status"], video["progress"], video["seconds"], video["size"]) == ("queued", 0, "4", "864x496")
    read = await shop.client.get(f"/v1/videos/{video['id']}")
    assert read.status_code == 200
    ended = await shop.ended(video["id"])
    assert (ended["status"], ended["progress"]) == ("completed", 100)
    assert ended["completed_at"] >= ended["created_at"]
    assert "openai-poll-after-ms" not in (await shop.client.get(f"/v1/videos/{video['id']}")).headers


async def test_every_new_video_is_readable_by_whoever_got_its_id(shop: Company) -> None:
    team = await shop.found("hasty")

    async def make_and_read() -> int:
        body = {"prompt": "[fault:never_ends]", "resolution": "480p"}
        made = (await team.client.post("/v1/videos", json=body)).raise_for_status().json()
        read = await team.client.get(f"/v1/videos/{made['id']}")
        await team.client.delete(f"/v1/videos/{made['id']}")
        return read.status_code

    assert set(await asyncio.gather(*(make_and_read() for _ in range(60)))) == {200}


async def test_status_goes_forward_only(shop: Company) -> None:
    """Over a whole life, with a seller who says `queued` again in the midst of it."""
    await shop.arm("evolink", "backwards")
    seen = [await shop.create(resolution="480p")]
    while seen[-1]["status"] not in {"completed", "failed"}:
        seen.append(await shop.video(seen[0]["id"]))
    order = ["queued", "in_progress", "completed"]
    places = [order.index(video["status"]) for video in seen]
    assert places == sorted(places)
    progress = [video["progress"] for video in seen]
    assert progress == sorted(progress)
    assert progress[-1] == 100


async def test_cancelled_video_is_failed_readable_and_answers_the_same_twice(shop: Company) -> None:
    video = await shop.create("[fault:never_ends]", resolution="480p")
    answer = await shop.client.post(f"/v1/videos/{video['id']}/cancel")
    assert answer.status_code == 200
    assert (answer.json()["status"], answer.json()["error"]["code"]) == ("failed", "cancelled")
    again = await shop.client.post(f"/v1/videos/{video['id']}/cancel")
    assert again.json()["error"] == answer.json()["error"]
    assert (await shop.video(video["id"]))["error"]["message"]


# Lists


async def test_pages_together_are_the_list_in_both_directions(shop: Company) -> None:
    team = await shop.found("pages")
    bodies = [{"prompt": f"{no} [fault:never_ends]", "resolution": "480p", "user": f"u-{no % 2}"} for no in range(13)]
    made = await asyncio.gather(*(team.client.post("/v1/videos", json=body) for body in bodies))
    ids = {answer.raise_for_status().json()["id"] for answer in made}
    assert len(ids) == 13
    newest = await _walk(team.client, limit=5)
    assert set(newest) == ids
    assert len(newest) == 13
    assert await _walk(team.client, limit=4, order="asc") == newest[::-1]
    assert await _walk(team.client, limit=100) == newest

    mine = await _walk(team.client, limit=3, end_user_id="u-1")
    videos = [(await team.client.get(f"/v1/videos/{one}")).json() for one in mine]
    assert {video["end_user_id"] for video in videos} == {"u-1"}
    assert len(mine) == 6
    assert await _walk(team.client, limit=3, end_user_id="nobody") == []

    # A page behind a deleted video goes on where that video was.
    page = (await team.client.get("/v1/videos", params={"limit": 5})).json()
    for video in page["data"]:
        assert (await team.client.delete(f"/v1/videos/{video['id']}")).json() == {
            "id": video["id"], "object": "video.deleted", "deleted": True,
        }  # fmt: skip
    rest = (await team.client.get("/v1/videos", params={"limit": 5, "after": page["last_id"]})).json()
    assert [video["id"] for video in rest["data"]] == newest[5:10]
    assert await _walk(team.client, limit=5) == newest[5:]
    # New ones neither repeat nor hide old ones.
    await team.client.post("/v1/videos", json=bodies[0])
    rest = (await team.client.get("/v1/videos", params={"limit": 5, "after": newest[9]})).json()
    assert ([video["id"] for video in rest["data"]], rest["has_more"]) == (newest[10:], False)
    refused(await team.client.delete(f"/v1/videos/{newest[0]}"), 404, "not_found", "video_id")
    for video_id in await _walk(team.client, limit=20):
        await team.client.delete(f"/v1/videos/{video_id}")


async def _walk(client: httpx.AsyncClient, **query: Any) -> list[str]:
    """Ids of all pages, each page's envelope checked."""
    found: list[str] = []
    while True:
        page = (await client.get("/v1/videos", params=query)).raise_for_status().json()
        ids = [video["id"] for video in page["data"]]
        assert set(page) == {"object", "data", "first_id", "last_id", "has_more"}
        assert len(ids) <= query["limit"]
        assert (page["first_id"], page["last_id"]) == ((ids[0], ids[-1]) if ids else (None, None))
        found += ids
        if not page["has_more"]:
            return found
        query["after"] = page["last_id"]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"limit": "101"}, "limit"), ({"limit": "-1"}, "limit"), ({"limit": "ten"}, "limit"), ({"limit": ""}, "limit"),
        ({"limit": "1.5"}, "limit"), ({"order": "newest"}, "order"), ({"after": "video_0"}, "after"),
        ({"after": ""}, "after"), ({"after": "x" * 200}, "after"), ({"after": "a\0"}, "after"),
        ({"end_user_id": ""}, "end_user_id"), ({"end_user_id": "u" * 129}, "end_user_id"),
    ],
)  # fmt: skip
async def test_query_that_makes_no_sense_is_named(shop: Company, query: dict[str, str], param: str) -> None:
    refused(await shop.client.get("/v1/videos", params=query), 400, "invalid_value", param)


async def test_empty_page_never_says_there_is_more(shop: Company) -> None:
    nothing: dict[str, Any] = {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}
    team = await shop.found("empty")
    assert (await team.client.get("/v1/videos")).json() == nothing
    assert (await shop.client.get("/v1/videos", params={"limit": 0})).json() == nothing


# Models


async def test_model_is_found_by_every_name_that_a_request_may_use(shop: Company) -> None:
    listed = (await shop.client.get("/v1/models")).raise_for_status().json()
    assert listed["object"] == "list"
    [model] = listed["data"]
    assert list(model)[:4] == ["id", "object", "created", "owned_by"]
    assert (model["id"], model["object"]) == ("seedance-2.0", "model")
    for path in ("seedance-2.0", "seedance"):
        assert (await shop.client.get(f"/v1/models/{path}")).json() == model
    for path in ("seedance-2.0:cheapest", "seedance:fastest"):
        assert (await shop.client.get(f"/v1/models/{path}")).json() == model | {"id": path}
    for path in ("evolink/seedance-2.0", "evolink%2Fseedance-2.0"):
        pinned = (await shop.client.get(f"/v1/models/{path}")).raise_for_status().json()
        assert pinned["id"] == "evolink/seedance-2.0"
        assert {price["provider"] for price in pinned["prices"]} == {"evolink"}
        assert pinned["abilities"]["seconds"]["auto"] is False
    assert model["abilities"]["seconds"] == {"min": 4, "max": 15, "auto": True}


@pytest.mark.parametrize("name", ["sora-2", "evolink/sora-2", "nobody/seedance-2.0", "seedance-2.0:dearest", "a/b/c"])
async def test_unknown_model_is_not_found(shop: Company, name: str) -> None:
    for path in (name, name.replace("/", "%2F")):
        refused(await shop.client.get(f"/v1/models/{path}"), 404, "model_not_found", "model")


# Callbacks


async def test_callback_to_an_address_we_did_not_make_is_none(shop: Company) -> None:
    video = await shop.create("[fault:never_ends]", resolution="480p")
    forged = ["x", "a-b-c", f"{video['id']}-1", f"{video['id']}-1-" + "a" * 32, f"{video['id']}-x-{'a' * 32}", "-", "é"]
    stranger = await shop.client_of()
    for token in forged:
        answer = await stranger.post(f"/callbacks/{token}", json={"id": "1", "status": "completed"})
        refused(answer, 404, "not_found", None)
    assert (await shop.video(video["id"]))["status"] != "completed"
    await shop.client.delete(f"/v1/videos/{video['id']}")


async def test_callback_of_ours_has_a_bound_of_its_own(shop: Company) -> None:
    video = await shop.create("[fault:never_ends]", resolution="480p")
    address = f"/callbacks/{Secrets(masters=(SECRET,)).callback_token(video['id'], 1)}"
    seller = await shop.client_of()
    refused(await seller.post(address, content=b"x" * (1024 * 1024 + 1)), 413, "payload_too_large")
    assert (await seller.post(address, content=b"x" * 1024)).status_code == 200
    await shop.client.delete(f"/v1/videos/{video['id']}")


async def test_nothing_is_read_of_what_a_stranger_calls_back_with(shop: Company) -> None:
    """Whether the address is ours is known before the body; this one never comes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", shop.port)
    writer.write(b"POST /callbacks/x HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n{")
    assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 404 ")
    writer.close()


# The API's own description


async def test_description_lists_every_route_with_its_methods(shop: Company) -> None:
    stranger = await shop.client_of()
    answer = await stranger.get("/openapi.json")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    described = answer.json()
    assert described["openapi"].startswith("3.1")
    listed = {path: {method.upper() for method in item} for path, item in described["paths"].items()}
    assert listed == {path: set(methods) for path, methods in route_templates().items()}
    for path, item in described["paths"].items():
        for method, operation in item.items():
            assert operation["summary"], (method, path)
            assert operation["responses"], (method, path)
            named = {parameter["name"] for parameter in operation.get("parameters", []) if parameter["in"] == "path"}
            assert named == set(re.findall(r"\{(\w+)\}", path)), (method, path)


async def test_description_is_true_of_the_answers(shop: Company) -> None:
    described = (await shop.client.get("/openapi.json")).json()
    schemas = described["components"]["schemas"]
    video = await shop.ended((await shop.create(resolution="480p", metadata={"a": "b"}))["id"])
    team = await shop.found("described")
    for path, place in {
        "/v1/videos": "/v1/videos",
        "/v1/videos/{video_id}": f"/v1/videos/{video['id']}",
        "/v1/models": "/v1/models",
        "/v1/models/{model_id}": "/v1/models/seedance",
        "/v1/spend": "/v1/spend?group_by=tenant,end_user,provider,model,day",
        "/admin/tenants": "/admin/tenants",
        "/admin/keys": f"/admin/keys?tenant={team.id}",
        "/admin/providers": "/admin/providers",
        "/admin/attempts": "/admin/attempts?state=done",
    }.items():
        answer = (await shop.client.get(place)).raise_for_status().json()
        schema = described["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        assert _is_described(answer, schema, schemas), (path, answer)
        assert answer.get("data") != [], path
    body = {"prompt": "a paper boat"}
    quoted = (await shop.client.post("/v1/videos/quote", json=body)).json()
    assert _is_described(quoted, {"$ref": "#/components/schemas/QuoteObject"}, schemas)
    error = (await shop.client.post("/v1/videos", json={})).json()
    assert _is_described(error, {"$ref": "#/components/schemas/ErrorEnvelope"}, schemas)
    assert {"prompt", "seconds", "routing", "content_filter"} < set(schemas["CreateBody"]["properties"])


def _is_described(value: Any, schema: dict[str, Any], schemas: dict[str, Any]) -> bool:
    """Whether an answer holds no key that its description lacks, and lacks none that it calls required."""
    if "$ref" in schema:
        schema = schemas[schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        return any(_is_described(value, one, schemas) for one in schema["anyOf"])
    if isinstance(value, dict) and "properties" in schema:
        known = schema["properties"]
        assert set(schema.get("required", ())) <= set(value)
        return all(_is_described(value[key], known[key], schemas) for key in value if key in known or "title" in schema)
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        return all(_is_described(one, schema["items"], schemas) for one in value)
    return True


async def test_page_of_the_description_needs_nothing_from_elsewhere(shop: Company) -> None:
    stranger = await shop.client_of()
    answer = await stranger.get("/docs")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert not re.search(r"https?://|//cdn|<script", answer.text)
    for path in route_templates():
        assert path in answer.text
