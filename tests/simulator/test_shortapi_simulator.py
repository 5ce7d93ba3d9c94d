from typing import Any

import httpx

from tests.simulator.shopping import CREATES, HEADERS, Shopper

PATH, BODY_OF = CREATES["shortapi"]


async def order(shopper: Shopper, *, top: dict[str, Any] | None = None, **args: object) -> httpx.Response:
    body = BODY_OF("a boat")
    body["args"] = {name: value for name, value in {**body["args"], **args}.items() if value is not ...}
    return await shopper.client.post(PATH, json={**body, **(top or {})}, headers=HEADERS["shortapi"])


async def test_create_answers_id_and_amount_within_data(shopper: Shopper) -> None:
    reply = await shopper.create("shortapi")

    id_ = reply.json()["data"]["job_id"]
    assert reply.status_code == 200
    assert reply.json() == {"code": 0, "data": {"job_id": id_, "amount": "1.20"}}


async def test_job_counts_its_states_up(shopper: Shopper) -> None:
    id_ = await shopper.bought("shortapi")
    queued = (await shopper.poll("shortapi", id_)).json()
    await shopper.step(30)
    running = (await shopper.poll("shortapi", id_)).json()
    await shopper.step(1000)
    done = (await shopper.poll("shortapi", id_)).json()

    assert queued == {"code": 0, "data": {"id": id_, "status": 0}}
    assert running == {"code": 0, "data": {"id": id_, "status": 1}}
    link = done["data"]["result"]["videos"][0]["url"]
    assert done == {"code": 0, "data": {"id": id_, "status": 2, "result": {"videos": [{"url": link}]}}}


async def test_money_is_taken_at_once_and_comes_back_after_a_failure(shopper: Shopper) -> None:
    id_ = await shopper.bought("shortapi", "[fault:render_failed]")
    taken = (await shopper.job(id_))["charged_microusd"]
    await shopper.step(1000)
    failed = (await shopper.poll("shortapi", id_)).json()

    assert taken == 1_200_000
    assert failed["data"] == {
        "id": id_,
        "status": 3,
        "error": "generation failed",
        "refunded": True,
        "credit": "1.20",
    }
    assert (await shopper.job(id_))["refunded_microusd"] == 1_200_000


async def test_fast_mode_is_cheaper(shopper: Shopper) -> None:
    assert (await order(shopper, mode="fast")).json()["data"]["amount"] == "1.00"


async def test_no_comes_with_a_code_inside_a_200(shopper: Shopper) -> None:
    wrong: list[dict[str, Any]] = [
        {"prompt": ...},
        {"prompt": ""},
        {"duration": "5"},
        {"duration": "auto"},
        {"duration": 3},
        {"duration": 16},
        {"aspect_ratio": "auto"},
        {"mode": "mini"},
        {"mode": ["std"]},
    ]
    replies = [await order(shopper, **changes) for changes in wrong]
    replies.append(await order(shopper, top={"model": "bytedance/seedance-2.0/omni-reference"}))
    replies.append(await order(shopper, top={"args": None}))
    replies.append(await order(shopper, top={"callback_url": 5}))

    assert {reply.status_code for reply in replies} == {200}
    assert {reply.json()["code"] for reply in replies} == {1}
    assert all(reply.json()["info"] for reply in replies)
    assert (await shopper.books())["jobs"] == []


async def test_unknown_args_are_ignored_unless_switched(shopper: Shopper) -> None:
    ignored = await order(shopper, resolution="1080p")
    await shopper.admin("switches", {"shortapi_refuses_unknown": True})
    refused = await order(shopper, resolution="1080p")

    assert ignored.json()["code"] == 0
    assert refused.json()["code"] == 1


async def test_id_stands_on_top_by_switch(shopper: Shopper) -> None:
    await shopper.admin("switches", {"shortapi_id_on_top": True})

    body = (await order(shopper)).json()

    assert body["job_id"].startswith("job-")
    assert body["data"] == {"amount": "1.20"}


async def test_errors_have_statuses_by_switch(shopper: Shopper) -> None:
    await shopper.admin("switches", {"shortapi_http_errors": True, "shortapi_in_flight": 0})

    throttled = await order(shopper)
    bad_key = await shopper.client.post(PATH, json=BODY_OF("x"))

    assert throttled.status_code == 429
    assert bad_key.status_code == 401
    assert bad_key.json() == {"code": 1, "info": "invalid api key"}


async def test_unknown_job_is_a_code_too(shopper: Shopper) -> None:
    reply = await shopper.poll("shortapi", "job-none")

    assert (reply.status_code, reply.json()["code"]) == (200, 1)
    assert (await shopper.client.get("/shortapi/v1/other")).status_code == 404
