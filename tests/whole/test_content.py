"""The download: the whole film, parts of it, conditions, and films that are not there."""

import hashlib
import io
from collections.abc import AsyncIterator
from typing import Any

import av
import httpx
import msgspec
import pytest
import pytest_asyncio

from tests.whole.company import Company, open_company, refused

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Film(msgspec.Struct, frozen=True):
    """A completed video, as it is stored."""

    id: str
    url: str
    data: bytes
    etag: str


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Company]:
    async with open_company(tmp_path_factory.mktemp("content")) as company:
        yield company


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def film(shop: Company) -> Film:
    video = await shop.ended((await shop.create(resolution="480p"))["id"])
    assert video["status"] == "completed", video
    stored = list((shop.folder / "data" / "videos").rglob("*.mp4"))
    data = next(path.read_bytes() for path in stored if video["id"] in str(path))
    return Film(video["id"], f"/v1/videos/{video['id']}/content", data, f'"{hashlib.sha256(data).hexdigest()}"')


async def get(shop: Company, film: Film, method: str = "GET", **headers: str) -> httpx.Response:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return await shop.client.request(method, film.url, headers=sent)


async def test_whole_film_is_what_is_stored_and_plays(shop: Company, film: Film) -> None:
    answer = await get(shop, film, accept="application/binary", accept_encoding="gzip, deflate")
    assert answer.status_code == 200
    assert answer.content == film.data
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.headers["content-length"] == str(len(film.data))
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["etag"] == film.etag
    assert answer.headers["content-disposition"].endswith('.mp4"')
    assert "content-encoding" not in answer.headers
    assert "content-range" not in answer.headers
    with av.open(io.BytesIO(answer.content), mode="r") as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height) == (864, 496)
        assert (container.duration or 0) / av.time_base == pytest.approx(4, abs=0.1)
        assert len(list(container.decode(stream))) == 97


@pytest.mark.parametrize(
    ("wanted", "first", "last"),
    [
        ("bytes=0-99", 0, 99),
        ("bytes=100-", 100, -1),
        ("bytes=-100", -100, -1),
        ("bytes=0-0", 0, 0),
        ("bytes=5-99999999999", 5, -1),
        ("bytes=-99999999999", 0, -1),
    ],
)
async def test_part_is_the_part_asked_for(shop: Company, film: Film, wanted: str, first: int, last: int) -> None:
    size = len(film.data)
    start, end = first % size, last % size
    answer = await get(shop, film, range=wanted)
    assert answer.status_code == 206
    assert answer.headers["content-range"] == f"bytes {start}-{end}/{size}"
    assert answer.headers["content-length"] == str(end - start + 1)
    assert answer.headers["etag"] == film.etag
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.content == film.data[start : end + 1]


async def test_parts_together_are_the_film(shop: Company, film: Film) -> None:
    middle = len(film.data) // 2
    head = await get(shop, film, range=f"bytes=0-{middle - 1}")
    rest = await get(shop, film, range=f"bytes={middle}-", if_range=film.etag)
    assert (head.status_code, rest.status_code) == (206, 206)
    assert head.content + rest.content == film.data


@pytest.mark.parametrize("if_range", ['"another"', 'W/"weak"', "Sat, 21 Nov 2026 06:00:00 GMT"])
async def test_part_of_another_film_is_the_whole_of_this_one(shop: Company, film: Film, if_range: str) -> None:
    answer = await get(shop, film, range="bytes=100-", if_range=if_range)
    assert answer.status_code == 200
    assert answer.content == film.data


@pytest.mark.parametrize("wanted", ["bytes=0-1,5-6", "bytes=9-5", "lines=0-1", "bytes=", "bytes=a-b", "bytes 0-1"])
async def test_range_that_we_do_not_know_is_the_whole(shop: Company, film: Film, wanted: str) -> None:
    answer = await get(shop, film, range=wanted)
    assert answer.status_code == 200
    assert answer.content == film.data


@pytest.mark.parametrize("wanted", ["bytes=99999999999-", "bytes=-0"])
async def test_part_beyond_the_end_cannot_be_had(shop: Company, film: Film, wanted: str) -> None:
    answer = await get(shop, film, range=wanted)
    refused(answer, 416, "invalid_value", "Range")
    assert answer.headers["content-range"] == f"bytes */{len(film.data)}"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("prefix", ["", "W/", '"other", '])
async def test_film_that_the_client_has_is_not_sent_again(shop: Company, film: Film, method: str, prefix: str) -> None:
    answer = await get(shop, film, method, if_none_match=prefix + film.etag, range="bytes=0-9")
    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["etag"] == film.etag
    assert "content-length" not in answer.headers or answer.headers["content-length"] == str(len(film.data))
    assert (await get(shop, film, method, if_none_match='"another"')).status_code == 200


async def test_head_tells_what_get_would(shop: Company, film: Film) -> None:
    """A range changes nothing: RFC 9110 defines it for GET alone."""
    told, sent = await get(shop, film, "HEAD", range="bytes=0-9"), await get(shop, film)
    assert told.status_code == 200
    assert told.content == b""
    own = {"date", "x-request-id"}
    assert {name: value for name, value in told.headers.items() if name not in own} == {
        name: value for name, value in sent.headers.items() if name not in own
    }


@pytest.mark.parametrize(
    ("variant", "code"),
    [("thumbnail", "unsupported_request"), ("spritesheet", "unsupported_request"), ("gif", "invalid_value")],
)
async def test_variant_that_is_not_made_is_named(shop: Company, film: Film, variant: str, code: str) -> None:
    refused(await shop.client.get(film.url, params={"variant": variant}), 400, code, "variant")
    assert (await shop.client.get(film.url, params={"variant": "video"})).status_code == 200


async def _content(shop: Company, video_id: str) -> httpx.Response:
    return await shop.client.get(f"/v1/videos/{video_id}/content")


async def test_film_that_is_not_there_is_not_found_and_says_why(shop: Company) -> None:
    running = await shop.create("[fault:never_ends]", resolution="480p")
    await shop.until(running["id"], lambda video: video["status"] == "in_progress")
    assert "not ready" in refused(await _content(shop, running["id"]), 404, "not_found", "video_id")
    await shop.client.post(f"/v1/videos/{running['id']}/cancel")
    assert "cancelled" in refused(await _content(shop, running["id"]), 404, "not_found", "video_id")

    failed = await shop.ended((await shop.create("[fault:moderation]", resolution="480p"))["id"])
    assert failed["status"] == "failed"
    assert "moderation_blocked" in refused(await _content(shop, failed["id"]), 404, "not_found", "video_id")
    refused(await _content(shop, "video_0"), 404, "not_found", "video_id")


@pytest.mark.parametrize("wanted", [{}, {"range": "bytes=0-9"}])
async def test_film_that_its_storage_does_not_give_now_is_asked_for_again_later(
    shop: Company, film: Film, wanted: dict[str, str]
) -> None:
    """The folder is not mounted, say: told before the answer begins, and not by breaking it off."""
    folder, away = shop.folder / "data" / "videos", shop.folder / "data" / "away"
    folder.rename(away)
    try:
        answer = await get(shop, film, **wanted)
        refused(answer, 503, "server_is_overloaded", None)
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert "content-range" not in answer.headers
    finally:
        away.rename(folder)
    assert (await get(shop, film, **wanted)).is_success


async def test_deleted_film_is_gone_from_the_disk_too(shop: Company) -> None:
    video = await shop.ended((await shop.create(resolution="480p"))["id"])
    assert (await _content(shop, video["id"])).status_code == 200

    def on_disk() -> list[Any]:
        return [path for path in (shop.folder / "data" / "videos").rglob("*") if video["id"] in path.name]

    assert on_disk()
    await shop.client.delete(f"/v1/videos/{video['id']}")
    refused(await _content(shop, video["id"]), 404, "not_found", "video_id")
    assert not on_disk()
    refused(await shop.client.get(f"/v1/videos/{video['id']}"), 404, "not_found", "video_id")


async def test_no_key_no_film(shop: Company, film: Film) -> None:
    stranger = await shop.client_of()
    for method in ("GET", "HEAD"):
        answer = await stranger.request(method, film.url)
        assert answer.status_code == 401
        assert film.data[:100] not in answer.content
