"""OpenAI's own Python SDK against this server, unchanged, over a socket: the newest release and one of the JSON era."""

from pathlib import Path
from typing import Any

import av
import pytest

from tests.whole.company import open_company
from tests.whole.era import ERAS, NEWEST, Era, run

CLASSES = {
    # name: class, status, code, param
    "length": ("BadRequestError", 400, "invalid_value", "seconds"),
    "size": ("BadRequestError", 400, "invalid_value", "size"),
    "unknown field": ("BadRequestError", 400, "unknown_parameter", "fps"),
    "contradiction": ("BadRequestError", 400, "invalid_value", "size"),
    "not sold": ("BadRequestError", 400, "unsupported_request", "resolution"),
    "model": ("NotFoundError", 404, "model_not_found", "model"),
    "prompt": ("BadRequestError", 400, "invalid_value", "prompt"),
    "limit": ("BadRequestError", 400, "invalid_value", "limit"),
    "after": ("BadRequestError", 400, "invalid_value", "after"),
    "variant": ("BadRequestError", 400, "unsupported_request", "variant"),
    "remix": ("BadRequestError", 400, "unsupported_request", None),
    "video": ("NotFoundError", 404, "not_found", "video_id"),
    "model by id": ("NotFoundError", 404, "model_not_found", "model"),
    "address": ("NotFoundError", 404, "not_found", None),
    "method": ("APIStatusError", 405, "method_not_allowed", None),
    "content type": ("APIStatusError", 415, "unsupported_media_type", None),
    "too large": ("APIStatusError", 413, "payload_too_large", None),
    "picture": ("BadRequestError", 400, "unsupported_request", "input_reference"),
    "picture by link": ("BadRequestError", 400, "unsupported_request", "input_reference"),
    "mislabelled": ("BadRequestError", 400, "missing_parameter", "prompt"),
    "no key": ("AuthenticationError", 401, "invalid_api_key", None),
    "scope": ("PermissionDeniedError", 403, "permission_denied", None),
    "filter": ("PermissionDeniedError", 403, "permission_denied", "content_filter"),
    "sellers off": ("InternalServerError", 503, "no_provider_available", None),
    "not ready": ("NotFoundError", 404, "not_found", "video_id"),
    "deleted": ("NotFoundError", 404, "not_found", "video_id"),
}


def film(path: Path) -> tuple[int, int, int, bool]:
    """Width, height, frames at 24 a second, and whether there is sound; every frame is decoded."""
    with av.open(str(path), mode="r") as container:
        stream = container.streams.video[0]
        assert stream.average_rate == 24
        frames = len(list(container.decode(stream)))
        return stream.width, stream.height, frames, bool(container.streams.audio)


@pytest.mark.parametrize("era", ERAS, ids=str)
async def test_whole_life_of_a_video(tmp_path: Path, era: Era) -> None:
    async with open_company(tmp_path) as shop:
        seen = await run(era, "whole_life.py", shop, folder=tmp_path)
        jobs = await shop.books()
    assert seen["version"] == era.version
    assert seen["create_type"] == ("multipart/form-data" if era is NEWEST else "application/json")
    assert seen["models"] == ["seedance-2.0"]
    assert seen["pinned"] == "evolink/seedance-2.0"
    assert seen["abilities"] == ["standard", "fast", "mini"]

    video = seen["video"]
    assert (video["status"], video["progress"], video["size"], video["seconds"]) == ("completed", 100, "496x864", "4")
    assert (video["prompt"], video["end_user_id"], video["seed"]) == ('{"not": "decoded"}', "u-1", 42)
    assert video["metadata"] == {"order": "0017", "json": '{"a": 1}'}
    assert (video["generate_audio"], video["content_filter"], video["tier"]) == (False, True, "standard")
    assert seen["attributes"] == ["480p", "0.367600", "evolink"]
    assert seen["poll_headers"] == ["true", "50"]
    assert seen["raw"]["status"] == 200
    assert seen["raw"]["request_id"].startswith("req_")
    assert int(seen["raw"]["poll_after_ms"]) > 0
    assert seen["raw"]["retries"] == 0
    assert seen["request_id"].startswith("req_")
    assert (seen["second"]["status"], seen["second"]["size"]) == ("completed", "864x496")

    assert seen["content_type"] == "video/mp4"
    assert seen["part_statuses"] == [206, 206]
    assert film(tmp_path / "whole.mp4") == (496, 864, 97, False)
    assert film(tmp_path / "second.mp4") == (864, 496, 97, True)
    data = (tmp_path / "whole.mp4").read_bytes()
    assert (tmp_path / "streamed.mp4").read_bytes() == (tmp_path / "joined.mp4").read_bytes() == data

    assert (seen["failed"]["status"], seen["failed"]["code"]) == ("failed", "moderation_blocked")
    assert seen["failed"]["message"]
    assert seen["by_post"] == "4"
    assert seen["lived"] is True
    assert seen["patient"] == ["completed", 7]
    assert all(gap >= 0.95 for gap in seen["gaps_s"]), "the SDK waits as long as openai-poll-after-ms says"
    assert seen["deleted"] == [True, "video.deleted", True]
    assert seen["gone"] == ["not_found"] * 3
    ordered = [(job["prompt"], job["seed"], job["audio"]) for job in jobs if job["prompt"].startswith("{")]
    assert [(prompt, audio) for prompt, _, audio in ordered] == [('{"not": "decoded"}', False)]


@pytest.mark.parametrize("era", ERAS, ids=str)
async def test_lists_are_walked_and_emptied(tmp_path: Path, era: Era) -> None:
    async with open_company(tmp_path) as shop:
        seen = await run(era, "pages.py", shop, folder=tmp_path)
    assert seen == {
        "requests": 5, "newest_first": True, "oldest_first": True, "first_page": [40, True, True],
        "second_page": [5, False], "zero": [], "undisturbed": True, "deleted_each_once": True, "left": 0,
    }  # fmt: skip


def _with_another_model(rules: dict[str, Any]) -> None:
    rules["models"]["kino-1"] = {}
    offer = dict(rules["providers"]["fal"]["offers"][0], model="kino-1")
    rules["providers"]["closed"] = dict(rules["providers"]["fal"], enabled=False, offers=[offer])


@pytest.mark.parametrize("era", ERAS, ids=str)
async def test_every_refusal_has_its_class_and_is_asked_once(tmp_path: Path, era: Era) -> None:
    async with open_company(tmp_path, _with_another_model) as shop:
        plain = await shop.found("plain")
        keys = {"none": "sk-nothing", "plain": plain.key, "reports": await shop.new_key(plain.id, "reports")}
        seen = await run(era, "errors.py", shop, told={"keys": keys}, folder=tmp_path)
    found = {
        name: None if one is None else (one["class"], one["status"], one["code"], one["param"])
        for name, one in seen.items()
    }
    assert found == CLASSES
    for name, one in seen.items():
        assert one["requests"] == 1, name
        assert one["request_id"].startswith("req_"), name
        assert one["type"], name
        assert "rly_" not in one["message"], name
    assert "1280x720" in seen["size"]["message"]


async def test_async_client_lives_the_same_life(tmp_path: Path) -> None:
    async with open_company(tmp_path) as shop:
        seen = await run(NEWEST, "whole_life_async.py", shop, folder=tmp_path)
    assert seen == {
        "version": NEWEST.version, "statuses": ["completed"] * 6, "listed": [6, True],
        "failed": ["failed", "moderation_blocked"], "left": [],
        "refused": ["invalid_value", "prompt", "invalid_request_error", "req_"],
    }  # fmt: skip
    for name in ("whole.mp4", "streamed.mp4"):
        assert film(tmp_path / name) == (864, 496, 97, True)
