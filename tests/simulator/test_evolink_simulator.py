import re
from pathlib import Path
from typing import Any

import httpx

from tests.simulator.shopping import CREATES, HEADERS, Shopper, opened

PATH, BODY_OF = CREATES["evolink"]


async def order(shopper: Shopper, **changes: object) -> httpx.Response:
    body = {name: value for name, value in {**BODY_OF("a boat"), **changes}.items() if value is not ...}
    return await shopper.client.post(PATH, json=body, headers=HEADERS["evolink"])


async def test_create_answers_the_task_with_its_reserve(shopper: Shopper) -> None:
    reply = await shopper.create("evolink")

    body = reply.json()
    assert reply.status_code == 200
    assert re.fullmatch(r"task-unified-\d{10}-[0-9a-f]{8}", body.pop("id"))
    assert isinstance(body.pop("created"), int)
    assert body == {
        "model": "seedance-2.0-text-to-video",
        "object": "video.generation.task",
        "progress": 0,
        "status": "pending",
        "task_info": {"can_cancel": True, "estimated_time": 165, "video_duration": 5},
        "type": "video",
        "usage": {"billing_rule": "per_second", "credits_reserved": 67.5, "user_group": "default"},
    }


async def test_task_goes_from_pending_over_processing_to_completed(shopper: Shopper) -> None:
    id_ = await shopper.bought("evolink")
    pending = (await shopper.poll("evolink", id_)).json()
    await shopper.step(30)
    processing = (await shopper.poll("evolink", id_)).json()
    await shopper.step(1000)
    completed = (await shopper.poll("evolink", id_)).json()

    assert (pending["status"], pending["progress"]) == ("pending", 0)
    assert processing["status"] == "processing"
    assert 0 < processing["progress"] < 100
    assert completed == {
        "created": pending["created"],
        "id": id_,
        "model": "seedance-2.0-text-to-video",
        "object": "video.generation.task",
        "progress": 100,
        "status": "completed",
        "results": [completed["results"][0]],
        "task_info": {"can_cancel": False},
        "type": "video",
    }


async def test_money_is_reserved_then_taken(shopper: Shopper) -> None:
    id_ = await shopper.bought("evolink")
    reserved = (await shopper.books("evolink"))["totals"]
    await shopper.step(1000)
    taken = (await shopper.books("evolink"))["totals"]

    assert (reserved["reserved_microusd"], reserved["charged_microusd"]) == (992_500, 0)
    assert (taken["reserved_microusd"], taken["charged_microusd"]) == (0, 992_500)
    assert (await shopper.job(id_))["charged_microusd"] == 992_500


async def test_filter_off_costs_a_tenth_more(shopper: Shopper) -> None:
    reply = await order(shopper, content_filter=False)

    assert reply.json()["usage"]["credits_reserved"] == 74.25
    assert (await shopper.job(reply.json()["id"]))["price_microusd"] == 1_091_750


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"model": "seedance-3"}, "model"),
    ({"model": ...}, "model"),
    ({"prompt": ...}, "prompt"),
    ({"prompt": " "}, "prompt"),
    ({"prompt": 7}, "prompt"),
    ({"duration": "5"}, "duration"),
    ({"duration": 3}, "duration"),
    ({"duration": 16}, "duration"),
    ({"duration": 5.0}, "duration"),
    ({"duration": True}, "duration"),
    ({"quality": "4k"}, "quality"),
    ({"model": "seedance-2.0-fast-text-to-video", "quality": "1080p"}, "quality"),
    ({"model": "seedance-2.0-mini-text-to-video", "quality": "1080p"}, "quality"),
    ({"aspect_ratio": "auto"}, "aspect_ratio"),
    ({"generate_audio": "yes"}, "generate_audio"),
    ({"content_filter": 0}, "content_filter"),
    ({"image_urls": []}, "image_urls"),
    ({"resolution": "720p"}, "resolution"),
    ({"seed": 1}, "seed"),
    ({"model_params": {"x": 1}}, "model_params"),
    ({"model_params": {"web_search": 1}}, "model_params"),
    ({"model": "seedance-2.0-mini-text-to-video", "model_params": {"web_search": True}}, "model_params"),
    ({"callback_url": "ftp://app.example/h"}, "callback_url"),
    ({"callback_url": "https://app.example/" + "x" * 2048}, "callback_url"),
]


async def test_wrong_input_is_named(shopper: Shopper) -> None:
    for changes, param in WRONG:
        reply = await order(shopper, **changes)

        assert reply.status_code == 400, changes
        error = reply.json()["error"]
        assert (error["type"], error["param"]) == ("invalid_request_error", param), changes
    assert (await shopper.books())["jobs"] == []


async def test_what_the_page_allows_passes(shopper: Shopper) -> None:
    full_hd = await order(shopper, quality="1080p", aspect_ratio="adaptive", generate_audio=False)
    mini = await order(shopper, model="seedance-2.0-mini-text-to-video", quality="480p")
    searching = await order(shopper, model_params={"web_search": True})

    assert [full_hd.status_code, mini.status_code, searching.status_code] == [200, 200, 200]
    assert (await shopper.job(full_hd.json()["id"]))["aspect_ratio"] != "16:9"


async def test_models_of_other_operations_are_not_sold_here(shopper: Shopper) -> None:
    reply = await order(shopper, model="seedance-2.0-image-to-video")

    assert reply.status_code == 403
    assert reply.json()["error"]["code"] == "model_access_denied"


async def test_ids_are_told_apart(shopper: Shopper) -> None:
    odd = await shopper.poll("evolink", "job-1")
    unknown = await shopper.poll("evolink", "task-unified-1774857405-abc123")

    assert odd.status_code == 400
    assert (odd.json()["error"]["code"], odd.json()["error"]["param"]) == ("invalid_task_id", "task_id")
    assert unknown.status_code == 404


async def test_private_callbacks_are_refused_where_they_are_not_allowed(folder: Path) -> None:
    async with opened(folder, ready_made_clip=True, allow_private_callbacks=False) as shopper:
        for url in ("http://app.example/h", "https://127.0.0.1/h", "https://localhost/h", "https://10.1.2.3/h"):
            assert (await order(shopper, callback_url=url)).status_code == 400
        assert (await order(shopper, callback_url="https://app.example/h")).status_code == 200


async def test_unknown_fields_pass_by_switch(shopper: Shopper) -> None:
    await shopper.admin("switches", {"evolink_ignores_unknown": True})

    assert (await order(shopper, seed=1)).status_code == 200


async def test_too_many_at_once_are_throttled_by_switch(shopper: Shopper) -> None:
    await shopper.admin("switches", {"evolink_in_flight": 1})

    assert (await order(shopper)).status_code == 200
    assert (await order(shopper)).status_code == 429


async def test_credits_are_shown(shopper: Shopper) -> None:
    reply = await shopper.client.get("/evolink/v1/credits", headers=HEADERS["evolink"])

    assert reply.status_code == 200
