"""What a request got wrong is named, and leaves no trace: no video, no money, no order at a seller."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.whole.company import Company, Team, answer_to, leaves_no_trace, open_company, refused, request_head
from tests.whole.stage import KEY

pytestmark = pytest.mark.asyncio(loop_scope="module")

PNG = b"\x89PNG\r\n\x1a\npixels"
JSON = {"content-type": "application/json"}
FORM = {"content-type": "multipart/form-data; boundary=X"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Company]:
    async with open_company(tmp_path_factory.mktemp("shop")) as company:
        yield company


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def team(shop: Company) -> Team:
    """A tenant without any right of its own."""
    return await shop.found("plain")


FIELDS: dict[str, tuple[dict[str, Any], str, str | None, tuple[str, ...]]] = {
    # name: fields beside a good prompt, code, param, words of the message
    "prompt missing": ({"prompt": None}, "missing_parameter", "prompt", ()),
    "prompt empty": ({"prompt": ""}, "invalid_value", "prompt", ("empty",)),
    "prompt blank": ({"prompt": " \n\t"}, "invalid_value", "prompt", ("empty",)),
    "prompt of 40,000 characters": ({"prompt": "x" * 40_000}, "invalid_value", "prompt", ("32000",)),
    "prompt no text": ({"prompt": 7}, "invalid_type", "prompt", ("string", "int")),
    "prompt with NUL": ({"prompt": "a\0b"}, "invalid_value", "prompt", ("NUL",)),
    "model no text": ({"model": ["seedance-2.0"]}, "invalid_type", "model", ()),
    "seconds a list": ({"seconds": [4]}, "invalid_type", "seconds", ()),
    "seconds a truth": ({"seconds": True}, "invalid_type", "seconds", ()),
    "seconds in words": ({"seconds": "four"}, "invalid_value", "seconds", ()),
    "seconds broken": ({"seconds": 4.5}, "invalid_value", "seconds", ("whole",)),
    "seconds 0": ({"seconds": 0}, "invalid_value", "seconds", ()),
    "seconds 3": ({"seconds": 3}, "invalid_value", "seconds", ("4", "15")),
    "seconds 16": ({"seconds": "16"}, "invalid_value", "seconds", ("4", "15")),
    "seconds 20": ({"seconds": "20"}, "invalid_value", "seconds", ("4", "15")),
    "duration 3": ({"duration": 3}, "invalid_value", None, ("4", "15")),
    "seconds and another duration": ({"seconds": 4, "duration": 5}, "invalid_value", "duration", ("seconds",)),
    "size against resolution": ({"size": "1280x720", "resolution": "480p"}, "invalid_value", "size", ("720p",)),
    "size against ratio": ({"size": "1280x720", "aspect_ratio": "1:1"}, "invalid_value", "size", ("16:9",)),
    "size no text": ({"size": 720}, "invalid_type", "size", ()),
    "size no size": ({"size": "1280*720"}, "invalid_value", "size", ("1280x720",)),
    "size of OpenAI's, sold by nobody": ({"size": "1792x1024"}, "invalid_value", "size", ("1920x1080", "720x1280")),
    "size of OpenAI's, upright": ({"size": "1024x1792"}, "invalid_value", "size", ("1080x1920",)),
    "resolution unknown": ({"resolution": "4k"}, "invalid_value", "resolution", ("480p, 720p, 1080p",)),
    "ratio unknown": ({"aspect_ratio": "2:1"}, "invalid_value", "aspect_ratio", ("16:9",)),
    "tier unknown": ({"tier": "turbo"}, "invalid_value", "tier", ("standard, fast, mini",)),
    "sound no truth": ({"generate_audio": "yes"}, "invalid_type", "generate_audio", ()),
    "filter no truth": ({"content_filter": 1}, "invalid_type", "content_filter", ()),
    "seed no number": ({"seed": "lucky"}, "invalid_type", "seed", ()),
    "seed below 0": ({"seed": -1}, "invalid_value", "seed", ()),
    "seed beyond all": ({"seed": 10**30}, "invalid_value", "seed", ("4294967295",)),
    "metadata a list": ({"metadata": ["a"]}, "invalid_type", "metadata", ()),
    "metadata nested": ({"metadata": {"a": {"b": "c"}}}, "invalid_type", "metadata.a", ()),
    "metadata of 17": ({"metadata": {str(no): "x" for no in range(17)}}, "invalid_value", "metadata", ("16",)),
    "metadata key of 65": ({"metadata": {"k" * 65: "x"}}, "invalid_value", "metadata", ("64",)),
    "metadata value of 513": ({"metadata": {"k": "x" * 513}}, "invalid_value", "metadata.k", ("512",)),
    "end user empty": ({"end_user_id": ""}, "invalid_value", "end_user_id", ()),
    "end user of 129": ({"end_user_id": "u" * 129}, "invalid_value", "end_user_id", ("128",)),
    "two end users": ({"end_user_id": "a", "user": "b"}, "invalid_value", "user", ()),
    "routing no object": ({"routing": "cheapest"}, "invalid_type", "routing", ()),
    "routing misspelt": ({"routing": {"max_price": "1"}}, "unknown_parameter", "routing.max_price", ("max_price_usd",)),
    "sort unknown": ({"routing": {"sort": "beauty"}}, "invalid_value", "routing.sort", ("price, latency, balanced",)),
    "price no price": ({"routing": {"max_price_usd": "much"}}, "invalid_value", "routing.max_price_usd", ()),
    "price 0": ({"routing": {"max_price_usd": 0}}, "invalid_value", "routing.max_price_usd", ()),
    "only nobody": ({"routing": {"only": ["nobody"]}}, "invalid_value", "routing.only", ("evolink",)),
    "ignore nobody": ({"routing": {"ignore": ["nobody"]}}, "invalid_value", "routing.ignore", ("evolink",)),
    "order nobody": ({"routing": {"order": ["nobody"]}}, "invalid_value", "routing.order", ("evolink",)),
    "suffix against sort": (
        {"model": "seedance-2.0:fastest", "routing": {"sort": "price"}}, "invalid_value", "routing.sort", ("model",),
    ),
    "price below all": (
        {"routing": {"max_price_usd": "0.01"}}, "unsupported_request", "routing.max_price_usd", ("0.010000",),
    ),
    "1080p in the fast tier": (
        {"resolution": "1080p", "tier": "fast"},
        "unsupported_request",
        "resolution",
        ("resolution 1080p", "tier fast", "resolution 480p, 720p", "tier standard"),
    ),
    "1080p by size in the fast tier": (
        {"size": "1920x1080", "tier": "fast"}, "unsupported_request", "size", ("resolution 1080p", "tier fast"),
    ),
    "720p in the mini tier, which has no price": (
        {"resolution": "720p", "tier": "mini"},
        "unsupported_request",
        "resolution",
        ("price", "resolution 480p", "tier standard, fast"),
    ),
    "a seller that lacks the tier": (
        {"model": "fal/seedance-2.0", "tier": "mini"}, "unsupported_request", "tier", ("tier mini", "standard, fast"),
    ),
    "a seller that lacks the size": (
        {"model": "shortapi/seedance-2.0", "resolution": "480p"},
        "unsupported_request",
        "resolution",
        ("resolution 480p", "resolution 720p"),
    ),
    "an image": (
        {"input_reference": {"image_url": "https://example.com/a.png"}},
        "unsupported_request",
        "input_reference",
        ("text-to-video",),
    ),
    "an image of no kind": ({"input_reference": {}}, "invalid_value", "input_reference", ("image_url", "file_id")),
    "an image twice over": (
        {"input_reference": {"image_url": "https://example.com/a.png", "file_id": "file_1"}},
        "invalid_value",
        "input_reference",
        ("exactly one",),
    ),
    "a callback": ({"callback_url": "https://example.com/hook"}, "unsupported_request", "callback_url", ()),
    "characters": ({"characters": [{"id": "char_1"}]}, "unsupported_request", "characters", ()),
    "a field nobody knows": ({"negative_prompt": "rain"}, "unknown_parameter", "negative_prompt", ()),
    "a field misspelt": ({"aspect_ration": "1:1"}, "unknown_parameter", "aspect_ration", ("aspect_ratio",)),
}  # fmt: skip


@pytest.mark.parametrize("name", FIELDS)
async def test_refused_field_is_named_and_leaves_no_trace(shop: Company, team: Team, name: str) -> None:
    fields, code, param, words = FIELDS[name]
    body = {"prompt": "a paper boat", **fields}
    if name == "prompt missing":
        del body["prompt"]
    answer = await leaves_no_trace(shop, team.client, json=body)
    message = refused(answer, 400, code)
    if param is not None:
        assert answer.json()["error"]["param"] == param
    assert [word for word in words if word not in message] == [], message
    assert len(message) < 600
    assert len(str(body)) < 30_000 or body["prompt"] not in message
    # The quote runs the same resolver.
    quoted = await team.client.post("/v1/videos/quote", json=body)
    assert quoted.json() == answer.json()


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("sora-2", ("seedance-2.0",)),
        ("seedance-3.0", ("seedance-2.0",)),
        ("evolink/sora-2", ()),
        ("nobody/seedance-2.0", ()),
        ("seedance-2.0:dearest", ()),
        ("seedance-2.0:", ()),
        ("m" * 128, ()),
    ],
)
async def test_unknown_model_is_not_found(shop: Company, team: Team, model: str, words: tuple[str, ...]) -> None:
    answer = await leaves_no_trace(shop, team.client, json={"prompt": "a paper boat", "model": model})
    message = refused(answer, 404, "model_not_found", "model")
    assert all(word in message for word in words)


async def test_filter_is_switched_off_by_those_alone_who_may(shop: Company, team: Team) -> None:
    body = {"prompt": "a paper boat", "content_filter": False}
    refused(await leaves_no_trace(shop, team.client, json=body), 403, "permission_denied", "content_filter")
    refused(await team.client.post("/v1/videos/quote", json=body), 403, "permission_denied", "content_filter")
    grown = await shop.found("grown-ups", allow_filter_off=True)
    quoted = (await grown.client.post("/v1/videos/quote", json=body)).raise_for_status().json()
    assert {candidate["provider"] for candidate in quoted["candidates"]} == {"evolink"}


async def test_tenant_that_must_name_its_end_users_does(shop: Company) -> None:
    strict = await shop.found("strict", require_end_user_id=True)
    answer = await leaves_no_trace(shop, strict.client, json={"prompt": "a paper boat"})
    refused(answer, 400, "missing_parameter", "end_user_id")
    body = {"prompt": "a paper boat", "user": "u-1"}
    assert (await strict.client.post("/v1/videos/quote", json=body)).status_code == 200


BODIES: dict[str, tuple[dict[str, str], bytes, int, str]] = {
    "truncated JSON": (JSON, b'{"prompt": "a', 400, "invalid_value"),
    "JSON with a comma too many": (JSON, b'{"prompt": "a",}', 400, "invalid_value"),
    "JSON array": (JSON, b'["a paper boat"]', 400, "invalid_type"),
    "JSON null": (JSON, b"null", 400, "invalid_type"),
    "empty JSON": (JSON, b"", 400, "invalid_value"),
    "JSON in Latin-1": (JSON, b'{"prompt": "caf\xe9"}', 400, "invalid_value"),
    "half a surrogate": (JSON, b'{"prompt": "\\ud800"}', 400, "invalid_value"),
    "a field of a thousand brackets": (JSON, b'{"prompt":"a","end_image":' + b"[" * 9_000, 400, "invalid_value"),
    "NaN": (JSON, b'{"prompt": "a", "seconds": NaN}', 400, "invalid_value"),
    "endless number": (JSON, b'{"prompt": "a", "seconds": 1e999}', 400, "invalid_value"),
    "form under JSON": (JSON, b"prompt=a", 400, "invalid_value"),
    "multipart without an end": (
        FORM, b'--X\r\nContent-Disposition: form-data; name="prompt"\r\n\r\na', 400, "invalid_value",
    ),
    "multipart without a head": (FORM, b"--X\r\na\r\n--X--\r\n", 400, "invalid_value"),
    "multipart of nothing": (FORM, b"", 400, "invalid_value"),
    "multipart of noise": (FORM, b"noise", 400, "invalid_value"),
    "multipart without a boundary": ({"content-type": "multipart/form-data"}, b"noise", 400, "invalid_value"),
    "multipart in Latin-1": (
        FORM, b'--X\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n\xe9\r\n--X--\r\n', 400, "invalid_value",
    ),
    "plain text": ({"content-type": "text/plain"}, b"a paper boat", 415, "unsupported_media_type"),
    "an image": ({"content-type": "image/png"}, PNG, 415, "unsupported_media_type"),
    "JSON in another alphabet": (
        {"content-type": "application/json; charset=latin-1"}, b'{"prompt": "a"}', 415, "unsupported_media_type",
    ),
    "no type at all": ({}, b"a paper boat", 415, "unsupported_media_type"),
    "no body at all": ({}, b"", 415, "unsupported_media_type"),
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
async def test_body_that_cannot_be_read_is_refused(shop: Company, team: Team, name: str) -> None:
    headers, content, status, code = BODIES[name]
    answer = await leaves_no_trace(shop, team.client, content=content, headers=headers)
    refused(answer, status, code)


async def test_form_with_a_file_for_a_video_nobody_makes_is_refused(shop: Company, team: Team) -> None:
    sent: dict[str, Any] = {"data": {"prompt": "a paper boat"}, "files": {"input_reference": ("a.png", PNG)}}
    refused(await leaves_no_trace(shop, team.client, **sent), 400, "unsupported_request", "input_reference")
    sent = {"data": {"prompt": "a paper boat"}, "files": {"seconds": ("a.png", PNG)}}
    refused(await leaves_no_trace(shop, team.client, **sent), 400, "invalid_type", "seconds")


@pytest.mark.parametrize("key", ["", "x" * 256])
async def test_idempotency_key_has_a_length(shop: Company, team: Team, key: str) -> None:
    answer = await leaves_no_trace(shop, team.client, json={"prompt": "a paper boat"}, headers={"idempotency-key": key})
    refused(answer, 400, "invalid_value", "Idempotency-Key")


async def test_body_that_says_it_is_too_large_is_refused_before_a_byte_of_it_is_read(shop: Company, team: Team) -> None:
    before = await shop.kept()
    said = await answer_to(shop, request_head(team.key, f"content-length: {64 * 1024 * 1024 + 1}"))
    assert said.startswith(b"HTTP/1.1 413 ")
    assert b"x-request-id: req_" in said
    assert json.loads(said.partition(b"\r\n\r\n")[2])["error"]["code"] == "payload_too_large"
    assert await shop.kept() == before


async def test_endless_body_is_refused_at_the_limit(shop: Company, team: Team) -> None:
    before = await shop.kept()
    chunk = b"%x\r\n%s\r\n" % (1 << 20, b"x" * (1 << 20))
    said = await answer_to(shop, request_head(team.key, "transfer-encoding: chunked"), chunk * 65)
    assert said.startswith(b"HTTP/1.1 413 ")
    assert json.loads(said.partition(b"\r\n\r\n")[2])["error"]["code"] == "payload_too_large"
    assert await shop.kept() == before


async def test_key_opens_what_its_scopes_say_and_nothing_else(shop: Company, team: Team) -> None:
    reporter = await shop.client_of(await shop.new_key(team.id, "reports"))
    admin = await shop.client_of(await shop.new_key(team.id, "admin"))
    body = {"prompt": "a paper boat"}
    refused(await leaves_no_trace(shop, reporter, json=body), 403, "permission_denied")
    refused(await leaves_no_trace(shop, admin, json=body), 403, "permission_denied")
    for client, paths in (
        (reporter, ("/v1/videos", "/v1/videos/video_1", "/v1/videos/video_1/content", "/v1/models", "/admin/tenants")),
        (team.client, ("/v1/spend", "/admin/tenants", "/admin/keys", "/admin/providers", "/admin/attempts")),
        (admin, ("/v1/spend", "/v1/models")),
    ):
        for path in paths:
            refused(await client.get(path), 403, "permission_denied")
    assert (await reporter.get("/v1/spend")).status_code == 200
    assert (await admin.get("/admin/tenants")).status_code == 200


async def test_without_a_good_key_nothing_opens(shop: Company, team: Team) -> None:
    revoked = (await shop.client.post("/admin/keys", json={"tenant": team.id})).json()
    (await shop.client.delete(f"/admin/keys/{revoked['id']}")).raise_for_status()
    expired = await shop.new_key(team.id, expires_at=1_700_000_000)
    bad = {
        "none": {},
        "empty": {"authorization": "Bearer"},
        "wrong scheme": {"authorization": "Basic " + team.key},
        "invented": {"authorization": "Bearer sk-1234567890"},
        "of the right shape": {"authorization": "Bearer " + team.key[:-1] + ("0" if team.key[-1] != "0" else "1")},
        "longer": {"authorization": f"Bearer {KEY}x"},
        "not ASCII": {"authorization": "Bearer clé"},
        "revoked": {"authorization": "Bearer " + revoked["key"]},
        "expired": {"authorization": "Bearer " + expired},
        "another header's": {"api-key": "sk-1234567890"},
    }
    stranger = await shop.client_of()
    for name, headers in bad.items():
        sent = {key: value.encode("latin-1") for key, value in headers.items()}
        answer = await leaves_no_trace(shop, stranger, json={"prompt": "a paper boat"}, headers=sent)
        message = refused(answer, 401, "invalid_api_key")
        assert answer.json()["error"]["type"] == "authentication_error", name
        assert team.key not in message
        for path in ("/v1/videos", "/v1/models", "/v1/spend", "/admin/tenants"):
            refused(await stranger.get(path, headers=sent), 401, "invalid_api_key")
    good = await stranger.get("/v1/models", headers={"api-key": team.key})
    assert good.status_code == 200


async def test_video_of_another_tenant_is_as_unknown_as_none(shop: Company, team: Team) -> None:
    video = await shop.create("of the default tenant", resolution="480p")
    await shop.ended(video["id"])
    for video_id in (video["id"], "video_0"):
        for method, path in (
            ("GET", ""), ("GET", "/content"), ("HEAD", "/content"), ("POST", "/cancel"), ("DELETE", ""),
        ):  # fmt: skip
            answer = await team.client.request(method, f"/v1/videos/{video_id}{path}")
            if method == "HEAD":
                assert answer.status_code == 404
                continue
            message = refused(answer, 404, "not_found", "video_id")
            assert message == f"No video found with id '{video_id}'."
        refused(await team.client.get("/v1/videos", params={"after": video_id}), 400, "invalid_value", "after")
    assert (await team.client.get("/v1/videos")).json()["data"] == []
    assert (await shop.video(video["id"]))["status"] == "completed"
    assert (await shop.client.get(f"/v1/videos/{video['id']}/content")).status_code == 200


@pytest.mark.parametrize(
    "path", ["/v1/videos/video_1/remix", "/v1/videos/edits", "/v1/videos/extensions", "/v1/videos/characters"]
)
async def test_operation_nobody_sells_is_refused_in_plain_words(shop: Company, team: Team, path: str) -> None:
    answer = await leaves_no_trace(shop, team.client, path, json={"prompt": "a paper boat"})
    assert "text" in refused(answer, 400, "unsupported_request")
