import io
from pathlib import Path

import av
import httpx
import pytest

from proxy.simulator.film import PIXELS, READY_MADE_BYTES, encode, shape_of
from tests.simulator.shopping import HEADERS, Shopper, opened


def measure(clip: bytes) -> tuple[int, int, int, str, int]:
    """Width, height, frames, the picture's codec and profile, and the number of sound tracks."""
    with av.open(io.BytesIO(clip), "r") as container:
        video = container.streams.video[0]
        frames = sum(1 for _ in container.decode(video))
        codec = f"{video.codec_context.name} {video.profile} {video.codec_context.pix_fmt}"
        return video.width, video.height, frames, codec, len(container.streams.audio)


async def make(shopper: Shopper, **changes: object) -> bytes:
    """Orders at EvoLink, waits for the end and downloads."""
    body = {"model": "seedance-2.0-text-to-video", "prompt": "x", **changes}
    reply = await shopper.client.post("/evolink/v1/videos/generations", json=body, headers=HEADERS["evolink"])
    await shopper.step(1000)
    file = await shopper.client.get(await shopper.link("evolink", reply.json()["id"]))
    assert file.headers["content-type"] == "video/mp4"
    return file.content


async def test_clip_is_as_ordered_to_the_pixel_and_frame(tmp_path: Path) -> None:
    async with opened(tmp_path) as shopper:
        await shopper.admin("clock", {"manual": True})
        small = await make(shopper, duration=4, quality="480p", aspect_ratio="9:16", generate_audio=False)
        wide = await make(shopper, duration=4, quality="720p", aspect_ratio="21:9")
        shorter = await make(shopper, prompt="[fault:shorter]", duration=5, quality="480p")
        longer = await make(shopper, prompt="[fault:longer]", duration=4, quality="480p")
        smaller = await make(shopper, prompt="[fault:smaller]", duration=4, quality="720p")
        smallest = await make(shopper, prompt="[fault:smaller]", duration=4, quality="480p")

    assert measure(small) == (496, 864, 97, "h264 High yuv420p", 0)
    assert measure(wide) == (1470, 630, 97, "h264 High yuv420p", 1)
    assert measure(shorter)[:3] == (864, 496, 97)
    assert measure(longer)[:3] == (864, 496, 121)
    assert measure(smaller)[:3] == (864, 496, 97)
    assert measure(smallest)[:3] == (432, 248, 97)
    assert wide.index(b"moov") < wide.index(b"mdat")


def test_dearest_clip_is_made_quickly(tmp_path: Path) -> None:
    shape = shape_of(resolution="1080p", aspect_ratio="16:9", seconds=15, has_audio=True)

    encode(shape, tmp_path / "clip.mp4")

    assert measure((tmp_path / "clip.mp4").read_bytes())[:3] == (1920, 1080, 361)


def test_all_sizes_are_even() -> None:
    sizes = [size for row in PIXELS.values() for size in row.values()]

    assert len(sizes) == 18
    assert all(width % 2 == 0 and height % 2 == 0 for width, height in sizes)


async def test_ready_made_clip_is_small_and_plays(shopper: Shopper) -> None:
    clip = (await shopper.client.get(await shopper.link("fal", await shopper.finished("fal")))).content

    assert len(clip) == READY_MADE_BYTES
    assert measure(clip)[:3] == (1280, 720, 121)


async def test_ranges_and_heads_are_served(shopper: Shopper) -> None:
    link = await shopper.link("fal", await shopper.finished("fal"))
    whole = (await shopper.client.get(link)).content
    head = await shopper.client.head(link)

    async def part(text: str) -> httpx.Response:
        return await shopper.client.get(link, headers={"Range": text})

    middle, tail, rest = await part("bytes=10-19"), await part("bytes=-5"), await part("bytes=100-")
    beyond, odd = await part(f"bytes={len(whole)}-"), await part("lines=1-2")

    assert (head.status_code, head.headers["content-length"]) == (200, str(len(whole)))
    assert (middle.status_code, middle.content) == (206, whole[10:20])
    assert middle.headers["content-range"] == f"bytes 10-19/{len(whole)}"
    assert (tail.content, rest.content) == (whole[-5:], whole[100:])
    assert (beyond.status_code, odd.status_code) == (416, 416)


async def test_finished_downloads_are_counted(shopper: Shopper) -> None:
    id_ = await shopper.finished("fal")
    link = await shopper.link("fal", id_)
    await shopper.client.get(link)
    await shopper.client.get(link, headers={"Range": "bytes=0-9"})
    await shopper.client.head(link)

    assert (await shopper.job(id_))["downloads"] == 1
    assert (await shopper.books())["totals"]["delivered"] == 1


async def test_key_at_the_file_host_is_noticed(shopper: Shopper) -> None:
    link = await shopper.link("fal", await shopper.finished("fal"))
    await shopper.client.get(link)
    before = (await shopper.client.get("/admin/requests")).json()["files_saw_key"]
    await shopper.client.get(link, headers=HEADERS["fal"])
    after = (await shopper.client.get("/admin/requests")).json()["files_saw_key"]

    assert (before, after) == (0, 1)


async def test_links_die_after_each_sellers_time(shopper: Shopper) -> None:
    alive = {}
    for seller, life_s in (("evolink", 86_400), ("shortapi", 3_600), ("fal", 604_800)):
        link = await shopper.link(seller, await shopper.finished(seller))
        await shopper.step(life_s - 2000)
        before = (await shopper.client.get(link)).status_code
        await shopper.step(2000)
        alive[seller] = (before, (await shopper.client.get(link)).status_code)

    assert set(alive.values()) == {(200, 403)}


async def test_spoilt_downloads(shopper: Shopper) -> None:
    async def fetch(fault: str) -> httpx.Response:
        return await shopper.client.get(await shopper.link("evolink", await shopper.finished("evolink", fault)))

    assert (await fetch("[fault:url_404]")).status_code == 404
    page = await fetch("[fault:html_file]")
    assert (page.status_code, page.headers["content-type"][:9]) == (200, "text/html")
    assert (await fetch("[fault:expired]")).status_code == 403
    with pytest.raises(httpx.RemoteProtocolError):
        await fetch("[fault:truncated]")
    assert (await shopper.books())["totals"]["delivered"] == 0


async def test_armed_file_fault_strikes_one_download(shopper: Shopper) -> None:
    link = await shopper.link("evolink", await shopper.finished("evolink"))
    await shopper.admin("faults", {"fault": "truncated", "seller": "evolink", "count": 1})
    with pytest.raises(httpx.RemoteProtocolError):
        await shopper.client.get(link)

    assert len((await shopper.client.get(link)).content) == READY_MADE_BYTES


async def test_slow_file_dribbles(shopper: Shopper) -> None:
    link = await shopper.link("evolink", await shopper.finished("evolink"))
    await shopper.admin("faults", {"fault": "slow_file", "delay_s": 0.01, "count": 1})
    reply = await shopper.client.get(link)

    assert reply.elapsed.total_seconds() >= 0.2
    assert len(reply.content) == READY_MADE_BYTES


async def test_slow_file_stops_when_the_client_leaves(shopper: Shopper) -> None:
    link = await shopper.link("evolink", await shopper.finished("evolink", "[fault:slow_file]"))
    with pytest.raises(httpx.ReadTimeout):
        await shopper.client.get(link, timeout=0.2)

    assert (await shopper.books())["totals"]["delivered"] == 0


async def test_expired_runflow_link_is_renewed_by_reading_the_run_again(shopper: Shopper) -> None:
    id_ = await shopper.finished("runflow", "[fault:expired]")
    dead = await shopper.client.get(await shopper.link("runflow", id_))
    alive = await shopper.client.get(await shopper.link("runflow", id_))

    assert (dead.status_code, alive.status_code) == (403, 200)


async def test_unfinished_and_unknown_files_are_404(shopper: Shopper) -> None:
    unknown = await shopper.client.get("/files/fal/none/video.mp4")
    odd = await shopper.client.post("/files/fal/none/video.mp4")

    assert (unknown.status_code, odd.status_code) == (404, 405)
