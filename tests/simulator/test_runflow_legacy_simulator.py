import asyncio
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from proxy.simulator.faults import BLOCKING, CATALOGUE, POLLED
from tests.simulator.shopping import CREATES, END_S, HEADERS, Shopper, opened
from tests.simulator.test_files_simulator import measure

SELLER = "runflow-legacy"
PATH, BODY_OF = CREATES[SELLER]
AUTH = HEADERS[SELLER]
GONE = (httpx.ReadError, httpx.RemoteProtocolError)

PRICE = 1_517_000
"""Five seconds of 720p, in micro-dollars."""


async def post(shopper: Shopper, *, timeout_s: float = 20, **changes: object) -> httpx.Response:
    """The usual order with other fields; one that is `...` is left out."""
    body = {name: value for name, value in {**BODY_OF("a boat"), **changes}.items() if value is not ...}
    return await shopper.client.post(PATH, json=body, headers=AUTH, timeout=timeout_s)


async def taken(shopper: Shopper, count: int = 1) -> list[dict[str, Any]]:
    """The seller's rows in the books, once so many orders are in them."""
    async with asyncio.timeout(5):
        while True:
            rows: list[dict[str, Any]] = (await shopper.books(SELLER))["jobs"]
            if len(rows) >= count:
                return rows
            await asyncio.sleep(0.005)


async def after(shopper: Shopper, order: Awaitable[httpx.Response], *, seconds: float = END_S) -> httpx.Response:
    """The answer to an order when so many sellers' seconds have passed."""
    before = len((await shopper.books(SELLER))["jobs"])
    waiting = asyncio.ensure_future(order)
    await taken(shopper, before + 1)
    assert not waiting.done()
    await shopper.step(seconds)
    return await asyncio.wait_for(waiting, 5)


async def test_answer_comes_when_the_clip_is_made(shopper: Shopper) -> None:
    waiting = asyncio.create_task(post(shopper))
    (row,) = await taken(shopper)
    await shopper.step(60)
    early, running = waiting.done(), (await shopper.job(row["id"]))["state"]
    await shopper.step(END_S)
    reply = await waiting
    link = reply.json()["video"]["url"]
    file = await shopper.client.get(link)

    assert (row["state"], early, running) == ("queued", False, "running")
    assert (reply.status_code, reply.headers["content-type"]) == (200, "application/json")
    assert reply.json() == {
        "video": {
            "url": link,
            "content_type": "video/mp4",
            "file_name": "video.mp4",
            "file_size": len(file.content),
        },
        "seed": 42,
    }
    assert link.startswith(f"{shopper.origin}/files/runflow-legacy/")
    assert (file.status_code, file.headers["content-type"]) == (200, "video/mp4")
    assert (await shopper.books(SELLER))["totals"] == {
        "ordered": 1,
        "accepted": 1,
        "reserved_microusd": 0,
        "charged_microusd": PRICE,
        "refunded_microusd": 0,
        "delivered": 1,
        "paid_microusd": PRICE,
    }


async def test_clip_is_as_ordered_to_the_pixel_and_frame(tmp_path: Path) -> None:
    async with opened(tmp_path, clock_factor=0.001) as shopper:
        silent = await post(shopper, duration="4", resolution="480p", aspect_ratio="9:16", generate_audio=False)
        usual = await post(shopper, resolution=..., duration="4")
        clips = [(await shopper.client.get(reply.json()["video"]["url"])).content for reply in (silent, usual)]

    assert measure(clips[0]) == (496, 864, 97, "h264 High yuv420p", 0)
    assert measure(clips[1]) == (1280, 720, 97, "h264 High yuv420p", 1)


async def test_clock_factor_scales_the_wait(folder: Path) -> None:
    async with opened(folder, ready_made_clip=True, clock_factor=0.002) as shopper:
        began = time.monotonic()
        await post(shopper)

        assert 0.13 < time.monotonic() - began < 1.5


@pytest.mark.parametrize(("leaves_after_s", "state"), [(0, "queued"), (60, "running")])
async def test_clip_is_made_and_charged_though_its_client_has_left(
    shopper: Shopper, leaves_after_s: float, state: str
) -> None:
    waiting = asyncio.create_task(post(shopper))
    await taken(shopper)
    await shopper.step(leaves_after_s)
    waiting.cancel()
    await nobody_waits(shopper)
    left = (await taken(shopper))[0]["state"]
    await shopper.step(END_S)
    (row,) = await taken(shopper)
    seen = (await shopper.client.get("/admin/requests", params={"seller": SELLER})).json()

    assert (left, row["state"]) == (state, "succeeded")
    assert (row["charged_microusd"], row["refunded_microusd"], row["downloads"]) == (PRICE, 0, 0)
    assert [request["status"] for request in seen["requests"]] == [0]


async def nobody_waits(shopper: Shopper) -> None:
    """Returns when the seller holds no connection any more, long before any clip is made."""
    async with asyncio.timeout(5):
        while (await shopper.client.get("/admin/requests")).json()["concurrent"][SELLER]:
            await asyncio.sleep(0.01)


async def test_nobody_waits_any_more_once_the_client_has_left(shopper: Shopper) -> None:
    with pytest.raises(httpx.ReadTimeout):
        await post(shopper, prompt="[fault:never_ends]", timeout_s=0.1)
    await nobody_waits(shopper)

    assert [row["state"] for row in await taken(shopper)] == ["queued"]


async def test_order_outlives_the_process_and_is_charged_unseen(folder: Path) -> None:
    async with opened(folder, ready_made_clip=True) as shopper:
        await shopper.admin("clock", {"manual": True})
        waiting = asyncio.create_task(post(shopper))
        await taken(shopper)
    answered = (await asyncio.gather(waiting, return_exceptions=True))[0]
    async with opened(folder, ready_made_clip=True) as shopper:
        await shopper.step(END_S)
        (row,) = await taken(shopper)

    assert not isinstance(answered, httpx.Response) or answered.status_code == 500
    assert (row["state"], row["charged_microusd"]) == ("succeeded", PRICE)


async def test_forgotten_order_is_answered_by_a_reset(shopper: Shopper) -> None:
    waiting = asyncio.create_task(post(shopper))
    await taken(shopper)
    await shopper.client.delete("/admin/books")

    with pytest.raises(GONE):
        await waiting


async def test_wrong_input_is_a_422_with_the_field_and_at_once(shopper: Shopper) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"prompt": ...}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": ["a boat"]}, "prompt"),
        ({"duration": 5}, "duration"),
        ({"duration": "3"}, "duration"),
        ({"duration": "16"}, "duration"),
        ({"resolution": "1080p"}, "resolution"),
        ({"aspect_ratio": "adaptive"}, "aspect_ratio"),
        ({"seed": 42}, "seed"),
        ({"seed": "lucky"}, "seed"),
        ({"generate_audio": "true"}, "generate_audio"),
        ({"end_user_id": 5}, "end_user_id"),
        ({"quality": "720p"}, "quality"),
        ({"input": {"prompt": "as in the newer API"}}, "input"),
        ({"callback_url": "https://app.example/hook"}, "callback_url"),
        ({"client_ref": "j-1"}, "client_ref"),
    ]
    for changes, field in wrong:
        reply = await post(shopper, **changes)

        assert reply.status_code == 422, changes
        assert set(reply.json()) == {"code", "message", "errors"}
        assert (reply.json()["code"], reply.json()["errors"][0]["field"]) == ("VALIDATION_ERROR", field), changes
    assert (await shopper.books())["jobs"] == []


async def test_what_is_left_open_the_seller_chooses(shopper: Shopper) -> None:
    reply = await after(
        shopper, post(shopper, duration=..., aspect_ratio=..., resolution=..., seed=..., end_user_id="u")
    )
    (row,) = await taken(shopper)

    assert row["seconds"] != 5
    assert row["aspect_ratio"] not in {"auto", "16:9"}
    assert (row["resolution"], row["tier"], row["audio"]) == ("720p", "standard", True)
    assert reply.json()["seed"] == row["seed"]


async def test_half_the_size_costs_less(shopper: Shopper) -> None:
    await after(shopper, post(shopper, resolution="480p", duration="10"))

    assert (await shopper.books(SELLER))["totals"]["charged_microusd"] == 1_406_000


async def test_two_readings_of_the_page_are_switches(shopper: Shopper) -> None:
    await shopper.admin("switches", {"runflow_takes_numbers": True, "runflow_legacy_link_only": True})

    reply = await after(shopper, post(shopper, duration=5))

    assert reply.json() == {"video": {"url": reply.json()["video"]["url"]}}


async def test_only_the_one_route_is_there_and_only_with_a_key(shopper: Shopper) -> None:
    base = "/runflow-legacy/v1"
    fast = await shopper.client.post(
        f"{base}/run/bytedance/seedance/2.0/fast/text-to-video", json=BODY_OF("x"), headers=AUTH
    )
    poll = await shopper.client.get(f"{base}/runs/0198a000-0000-7000-8000-000000000001", headers=AUTH)
    broken = await shopper.client.post(PATH, content=b"{", headers=AUTH)
    bad_keys = [
        await shopper.client.post(PATH, json=BODY_OF("x"), headers={"Authorization": "Key rf_live_abc"}),
        await shopper.client.post(PATH, json=BODY_OF("x")),
        await shopper.client.get(f"{base}/runs/x"),
    ]

    assert [(no.status_code, no.json()["code"]) for no in (fast, poll, broken)] == [
        (404, "RUN_NOT_FOUND"),
        (404, "NOT_FOUND"),
        (400, "MALFORMED_BODY"),
    ]
    assert [(no.status_code, no.json()["code"]) for no in bad_keys] == [(401, "UNAUTHORIZED")] * 3
    assert (await shopper.books(SELLER))["jobs"] == []


async def test_books_are_kept_apart_from_the_newer_api_under_the_same_key(shopper: Shopper) -> None:
    await shopper.finished("runflow")
    await after(shopper, post(shopper))
    accounts = (await shopper.books())["accounts"]

    assert {account["seller"]: account["accepted"] for account in accounts} == {"runflow": 1, SELLER: 1}
    assert len({account["key"] for account in accounts}) == 1
    assert len((await shopper.client.get("/runflow/v1/nothing", headers=AUTH)).json()) == 3


async def test_many_clients_wait_at_once(folder: Path) -> None:
    async with opened(folder, ready_made_clip=True, clock_factor=0.005) as shopper:
        replies = await asyncio.gather(*(post(shopper) for _ in range(50)))
        seen = (await shopper.client.get("/admin/requests", params={"last": 0})).json()

    assert len({reply.json()["video"]["url"] for reply in replies}) == 50
    assert seen["peak_concurrent"][SELLER] == 50


# Faults

REFUSED = {
    "unauthorized": (401, "UNAUTHORIZED"),
    "no_credit": (402, "INSUFFICIENT_CREDIT"),
    "invalid": (422, "VALIDATION_ERROR"),
    "moderation": (422, "CONTENT_POLICY_VIOLATION"),
    "throttled": (429, "RATE_LIMITED"),
    "throttled_seconds": (429, "RATE_LIMITED"),
    "throttled_date": (429, "RATE_LIMITED"),
    "error_500": (500, "INTERNAL_ERROR"),
    "error_502_html": (502, None),
    "error_503": (503, "MODEL_UNAVAILABLE"),
    "error_503_html": (503, None),
    "error_504": (504, "GATEWAY_TIMEOUT"),
}


@pytest.mark.parametrize("fault", REFUSED)
async def test_refused_create_is_answered_at_once_and_stores_nothing(shopper: Shopper, fault: str) -> None:
    status, code = REFUSED[fault]
    reply = await post(shopper, prompt=f"a boat [fault:{fault}]")

    assert reply.status_code == status
    if code is None:
        assert reply.headers["content-type"].startswith("text/html")
    else:
        assert (set(reply.json()), reply.json()["code"]) == ({"code", "message", "errors"}, code)
    assert ("retry-after" in reply.headers) == fault.startswith("throttled_")
    assert (await shopper.books(SELLER))["totals"]["accepted"] == 0


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [("moderation_late", 422, "CONTENT_POLICY_VIOLATION"), ("render_failed", 500, "PROVIDER_ERROR")],
)
async def test_render_without_a_clip_is_refused_late_and_costs_nothing(
    shopper: Shopper, fault: str, status: int, code: str
) -> None:
    reply = await after(shopper, post(shopper, prompt=f"[fault:{fault}]"))
    (row,) = await taken(shopper)

    assert (reply.status_code, reply.json()["code"], reply.json()["errors"]) == (status, code, None)
    assert (row["state"], row["charged_microusd"]) == ("failed", 0)


async def test_reset_before_leaves_nothing_behind(shopper: Shopper) -> None:
    with pytest.raises(GONE):
        await post(shopper, prompt="[fault:reset_before]")
    assert (await shopper.books(SELLER))["totals"]["accepted"] == 0


async def test_reset_after_comes_when_the_clip_is_made_and_charged(shopper: Shopper) -> None:
    with pytest.raises(GONE):
        await after(shopper, post(shopper, prompt="[fault:reset_after]"))
    (row,) = await taken(shopper)

    assert (row["state"], row["charged_microusd"]) == ("succeeded", PRICE)


@pytest.mark.parametrize("fault", ["reset_midway", "timeout_midway"])
async def test_connection_lost_half_way_leaves_a_render_that_is_charged(shopper: Shopper, fault: str) -> None:
    order = post(shopper, prompt=f"[fault:{fault}]")
    if fault == "reset_midway":
        with pytest.raises(GONE):
            await half_way(shopper, order)
    else:
        reply = await half_way(shopper, order)
        assert (reply.status_code, reply.headers["content-type"]) == (504, "text/html; charset=utf-8")
        assert "nginx" in reply.text
    (running,) = await taken(shopper)
    await shopper.step(END_S)
    (row,) = await taken(shopper)

    assert (running["state"], running["charged_microusd"]) == ("running", 0)
    assert (row["state"], row["charged_microusd"]) == ("succeeded", PRICE)


async def half_way(shopper: Shopper, order: Awaitable[httpx.Response]) -> httpx.Response:
    """Moves the time by single seconds until there is an answer."""
    waiting = asyncio.ensure_future(order)
    await taken(shopper)
    async with asyncio.timeout(5):
        while not waiting.done():
            await shopper.step(1)
            await asyncio.sleep(0.002)
    return waiting.result()


async def test_spoilt_answers_stand_for_clips_that_are_charged(shopper: Shopper) -> None:
    broken = await after(shopper, post(shopper, prompt="[fault:invalid_json]"))
    odd = await after(shopper, post(shopper, prompt="[fault:wrong_type]"))
    without = await after(shopper, post(shopper, prompt="[fault:no_url]"))

    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(broken.content)
    assert (odd.status_code, odd.headers["content-type"][:9]) == (200, "text/html")
    assert without.json() == {"video": {}, "seed": 42}
    assert [row["charged_microusd"] for row in await taken(shopper, 3)] == [PRICE] * 3


async def test_slow_reply_comes_long_after_the_clip_is_charged(shopper: Shopper) -> None:
    await shopper.admin("faults", {"fault": "slow_reply", "seller": SELLER, "delay_s": 0.3, "count": 1})
    waiting = asyncio.create_task(post(shopper))
    await taken(shopper)
    await shopper.step(END_S)
    began = time.monotonic()
    (row,) = await taken(shopper)
    reply = await waiting

    assert row["charged_microusd"] == PRICE
    assert (reply.status_code, time.monotonic() - began > 0.2) == (200, True)
    with pytest.raises(httpx.ReadTimeout):
        await after(shopper, post(shopper, prompt="[fault:slow_reply]", timeout_s=0.5))


async def test_some_orders_are_never_answered(shopper: Shopper) -> None:
    with pytest.raises(httpx.ReadTimeout):
        await after(shopper, post(shopper, prompt="[fault:never_ends]", timeout_s=0.5))
    assert [row["state"] for row in await taken(shopper)] == ["running"]


async def test_file_goes_wrong_in_every_way(shopper: Shopper) -> None:
    statuses = {}
    for fault in ("url_404", "html_file", "expired", "truncated"):
        link = (await after(shopper, post(shopper, prompt=f"[fault:{fault}]"))).json()["video"]["url"]
        try:
            file = await shopper.client.get(link)
        except httpx.RemoteProtocolError:
            statuses[fault] = "cut"
        else:
            statuses[fault] = f"{file.status_code} {file.headers['content-type'][:9]}"

    assert statuses == {
        "url_404": "404 applicati",
        "html_file": "200 text/html",
        "expired": "403 applicati",
        "truncated": "cut",
    }


async def test_link_dies_after_an_hour(shopper: Shopper) -> None:
    link = (await after(shopper, post(shopper), seconds=200)).json()["video"]["url"]
    alive = await shopper.client.get(link)
    await shopper.step(3700)

    assert [alive.status_code, (await shopper.client.get(link)).status_code] == [200, 403]


async def test_clip_may_be_another_than_ordered_and_dear(tmp_path: Path) -> None:
    async with opened(tmp_path, clock_factor=0.001) as shopper:
        clips = []
        for fault in ("smaller", "shorter", "longer"):
            reply = await post(shopper, prompt=f"[fault:{fault}]", duration="5", resolution="480p")
            clips.append((await shopper.client.get(reply.json()["video"]["url"])).content)
        await post(shopper, prompt="[fault:dear]", duration="4", resolution="480p")
        rows = await taken(shopper, 4)

    assert [measure(clip)[:3] for clip in clips] == [(432, 248, 121), (864, 496, 97), (864, 496, 145)]
    assert rows[3]["charged_microusd"] == 2 * 4 * 140_600


def test_only_what_a_blocking_seller_can_do_is_offered_for_it() -> None:
    others = {id_ for id_, fault in CATALOGUE.items() if SELLER not in fault.sellers}

    assert BLOCKING == (SELLER,)
    assert others == {
        id_
        for id_, fault in CATALOGUE.items()
        if fault.stage in {"poll", "callback"} or id_ in {"no_id", "unknown_status", "backwards", "lost", "no_cost"}
    }
    assert {id_ for id_, fault in CATALOGUE.items() if not set(POLLED) & set(fault.sellers)} == {
        "reset_midway",
        "timeout_midway",
    }


async def test_marks_of_others_pass_by_and_own_ones_that_cannot_be_are_refused(shopper: Shopper) -> None:
    passed = await after(shopper, post(shopper, prompt="[fault:poll_500] [fault:error_500@runflow]"))
    meant = await post(shopper, prompt="[fault:poll_500@runflow-legacy]")
    unknown = await post(shopper, prompt="[fault:no_such_thing]")
    polled = await shopper.create("fal", "[fault:reset_midway]")
    armed = [
        await shopper.client.post("/admin/faults", json={"fault": fault, "seller": seller})
        for fault, seller in (("cb_lost", SELLER), ("reset_midway", "fal"), ("reset_midway", SELLER))
    ]
    own = await shopper.create("runflow", "[fault:error_503@runflow-legacy]")

    assert passed.status_code == 200
    assert [no.status_code for no in (meant, unknown)] == [422, 422]
    assert "poll_500" in meant.json()["message"]
    assert polled.status_code == 200
    assert [one.status_code for one in armed] == [400, 400, 201]
    assert own.status_code == 201


async def test_fault_armed_for_all_passes_those_by_who_cannot_fail_so(shopper: Shopper) -> None:
    await shopper.admin("faults", {"fault": "no_cost", "count": 1})
    await after(shopper, post(shopper))
    left = (await shopper.client.get("/admin/faults")).json()["armed"]
    silent = await shopper.create("shortapi")

    assert [one["count"] for one in left] == [1]
    assert "amount" not in silent.json()["data"]
