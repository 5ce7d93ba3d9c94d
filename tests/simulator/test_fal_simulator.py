from typing import Any

import httpx

from tests.simulator.shopping import CREATES, HEADERS, Letterbox, Shopper

PATH, BODY_OF = CREATES["fal"]
AUTH = HEADERS["fal"]
REQUESTS = "/fal/bytedance/seedance-2.0/requests"


async def order(
    shopper: Shopper, *, headers: dict[str, str] | None = None, query: str = "", **changes: object
) -> httpx.Response:
    body = {name: value for name, value in {**BODY_OF("a boat"), **changes}.items() if value is not ...}
    return await shopper.client.post(PATH + query, json=body, headers={**AUTH, **(headers or {})})


async def test_submit_answers_two_segment_links(shopper: Shopper) -> None:
    reply = await shopper.create("fal")

    body = reply.json()
    url = f"{shopper.origin}{REQUESTS}/{body['request_id']}"
    assert reply.status_code == 200
    assert reply.headers["x-fal-request-id"] == body["request_id"]
    assert body == {
        "status": "IN_QUEUE",
        "request_id": body["request_id"],
        "response_url": url,
        "status_url": f"{url}/status",
        "cancel_url": f"{url}/cancel",
        "queue_position": body["queue_position"],
    }


async def test_webhook_adds_the_gateway_id(shopper: Shopper, letterbox: Letterbox) -> None:
    body = (await shopper.create("fal", callback_url=letterbox.url)).json()

    assert body["gateway_request_id"] == body["request_id"]


async def test_status_is_202_until_it_is_200(shopper: Shopper) -> None:
    id_ = await shopper.bought("fal")
    early = await shopper.result("fal", id_)
    queued = await shopper.poll("fal", id_)
    await shopper.step(30)
    running = await shopper.poll("fal", id_)
    with_logs = await shopper.client.get(f"{REQUESTS}/{id_}/status?logs=1", headers=AUTH)
    await shopper.step(1000)
    done = await shopper.poll("fal", id_)
    result = await shopper.result("fal", id_)

    links = {"response_url", "status_url", "cancel_url"}
    assert early.status_code == 400
    assert early.json() == {"detail": "Request is still in progress"}
    assert queued.status_code == 202
    assert set(queued.json()) == {"status", "request_id", "queue_position", *links}
    assert running.status_code == 202
    assert (running.json()["status"], running.json()["logs"]) == ("IN_PROGRESS", None)
    assert with_logs.json()["logs"][0]["level"] == "INFO"
    assert done.status_code == 200
    assert set(done.json()) == {"status", "request_id", "logs", "metrics", *links}
    assert done.json()["status"] == "COMPLETED"
    video = result.json()["video"]
    assert result.json() == {
        "video": {
            "url": video["url"],
            "content_type": "video/mp4",
            "file_name": "video.mp4",
            "file_size": int((await shopper.client.get(video["url"])).headers["content-length"]),
        },
        "seed": 7,
    }
    assert result.headers["x-fal-billable-units"] == "5"
    assert (await shopper.job(id_))["charged_microusd"] == 1_517_000


async def test_longer_path_is_a_405(shopper: Shopper) -> None:
    id_ = await shopper.bought("fal")

    long = await shopper.client.get(f"{PATH}/requests/{id_}/status", headers=AUTH)
    verb = await shopper.client.post(f"{REQUESTS}/{id_}/status", headers=AUTH)
    unknown = await shopper.client.post("/fal/some/other/model", json={}, headers=AUTH)

    assert [long.status_code, verb.status_code, unknown.status_code] == [405, 405, 404]


async def test_bearer_is_not_key(shopper: Shopper) -> None:
    reply = await shopper.client.post(PATH, json=BODY_OF("x"), headers={"Authorization": "Bearer id:secret"})

    assert reply.status_code == 401
    assert isinstance(reply.json()["detail"], str)


async def test_bad_input_is_taken_and_told_in_the_result(shopper: Shopper) -> None:
    wrong: list[tuple[dict[str, Any], str, str]] = [
        ({"prompt": ...}, "prompt", "missing"),
        ({"prompt": 5}, "prompt", "value_error"),
        ({"prompt": ""}, "prompt", "sequence_too_short"),
        ({"duration": 5}, "duration", "one_of"),
        ({"duration": "3"}, "duration", "one_of"),
        ({"duration": "16"}, "duration", "one_of"),
        ({"resolution": "1080p"}, "resolution", "one_of"),
        ({"aspect_ratio": "2:1"}, "aspect_ratio", "one_of"),
        ({"seed": "7"}, "seed", "value_error"),
        ({"generate_audio": 1}, "generate_audio", "value_error"),
        ({"content_filter": False}, "content_filter", "value_error"),
    ]
    for changes, field, kind in wrong:
        accepted = await order(shopper, **changes)
        await shopper.step(60)
        id_ = accepted.json()["request_id"]
        status = await shopper.poll("fal", id_)
        result = await shopper.result("fal", id_)

        assert accepted.status_code == 200, changes
        assert (status.status_code, status.json()["status"]) == (200, "COMPLETED"), changes
        assert "error" not in status.json()
        assert result.status_code == 422, changes
        assert (result.json()["detail"][0]["loc"], result.json()["detail"][0]["type"]) == (["body", field], kind)
    assert (await shopper.books())["totals"]["charged_microusd"] == 0


async def test_broken_body_is_refused_at_once(shopper: Shopper) -> None:
    reply = await shopper.client.post(PATH, content=b"[]", headers=AUTH)

    assert (reply.status_code, reply.json()["error_type"]) == (400, "bad_request")
    assert reply.headers["x-fal-error-type"] == "bad_request"


async def test_policy_refusal_comes_as_completed_and_422(shopper: Shopper) -> None:
    id_ = await shopper.finished("fal", "[fault:moderation_late]")

    status, result = await shopper.poll("fal", id_), await shopper.result("fal", id_)

    assert status.json()["status"] == "COMPLETED"
    assert result.status_code == 422
    detail = result.json()["detail"][0]
    assert detail["type"] == "content_policy_violation"
    assert detail["ctx"] == {"extra_info": {"reason": "partner_validation_failed"}}


async def test_broken_runner_shows_in_status_and_result(shopper: Shopper) -> None:
    id_ = await shopper.finished("fal", "[fault:render_failed]")

    status, result = await shopper.poll("fal", id_), await shopper.result("fal", id_)

    assert (status.json()["error"], status.json()["error_type"]) == ("Runner disconnected", "runner_disconnected")
    assert result.status_code == 503
    assert result.headers["x-fal-error-type"] == "runner_disconnected"


async def test_cancel_in_the_queue_takes_effect(shopper: Shopper) -> None:
    id_ = await shopper.bought("fal")
    cancel = f"{REQUESTS}/{id_}/cancel"
    first = await shopper.client.put(cancel, headers=AUTH)
    second = await shopper.client.put(cancel, headers=AUTH)
    unknown = await shopper.client.put(f"{REQUESTS}/none/cancel", headers=AUTH)
    status, result = await shopper.poll("fal", id_), await shopper.result("fal", id_)

    assert (first.status_code, first.json()) == (202, {"status": "CANCELLATION_REQUESTED"})
    assert (second.status_code, second.json()) == (400, {"status": "ALREADY_COMPLETED"})
    assert (unknown.status_code, unknown.json()) == (404, {"status": "NOT_FOUND"})
    assert status.json()["error_type"] == "client_cancelled"
    assert result.status_code == 499
    assert (await shopper.job(id_))["state"] == "cancelled"


async def test_cancel_of_a_running_job_obeys_the_switch(shopper: Shopper) -> None:
    ends = {}
    for completes in (True, False):
        await shopper.admin("switches", {"fal_cancel_completes": completes})
        id_ = await shopper.bought("fal")
        await shopper.step(30)
        await shopper.client.put(f"{REQUESTS}/{id_}/cancel", headers=AUTH)
        await shopper.step(1000)
        ends[completes] = (await shopper.job(id_))["state"]

    assert ends == {True: "succeeded", False: "cancelled"}


async def test_only_so_many_run_at_once(shopper: Shopper) -> None:
    await shopper.admin("switches", {"fal_running_at_once": 2})
    ids = [await shopper.bought("fal") for _ in range(3)]
    await shopper.step(20)
    first = [(await shopper.poll("fal", id_)).json()["status"] for id_ in ids]
    too_long = await order(shopper, query="?fal_max_queue_length=0")
    await shopper.step(1000)
    last = [(await shopper.job(id_))["state"] for id_ in ids]

    assert sorted(first) == ["IN_PROGRESS", "IN_PROGRESS", "IN_QUEUE"]
    assert too_long.status_code == 429
    assert last == ["succeeded"] * 3


async def test_start_that_takes_too_long_is_a_504_of_the_user(shopper: Shopper) -> None:
    id_ = (await order(shopper, headers={"X-Fal-Request-Timeout": "2"})).json()["request_id"]
    await shopper.step(10)
    result = await shopper.result("fal", id_)

    assert result.status_code == 504
    assert result.headers["x-fal-request-timeout-type"] == "user"
    for text in ("1", "soon"):
        assert (await order(shopper, headers={"X-Fal-Request-Timeout": text})).status_code == 400


async def test_link_lives_as_long_as_asked(shopper: Shopper) -> None:
    wish = {"X-Fal-Object-Lifecycle-Preference": '{"expiration_duration_seconds":3600}'}
    id_ = (await order(shopper, headers=wish)).json()["request_id"]
    usual = await shopper.finished("fal")
    link, usual_link = await shopper.link("fal", id_), await shopper.link("fal", usual)
    await shopper.step(4000)

    assert (await shopper.client.get(link)).status_code == 403
    assert (await shopper.client.get(usual_link)).status_code == 200
    odd = await order(shopper, headers={"X-Fal-Object-Lifecycle-Preference": "soon"})
    assert odd.status_code == 400


async def test_webhook_tells_ok_or_error(shopper: Shopper, letterbox: Letterbox) -> None:
    good = await shopper.bought("fal", callback_url=letterbox.url)
    await shopper.step(1000)
    await letterbox.wait(1)
    await shopper.bought("fal", "[fault:moderation_late]", callback_url=letterbox.url)
    await shopper.step(1000)
    await letterbox.wait(2)
    await shopper.bought("fal", "[fault:render_failed]", callback_url=letterbox.url)
    await shopper.step(1000)
    ok, refused, broken = await letterbox.wait(3)

    headers = letterbox.letters[0][0]
    assert (ok["request_id"], ok["status"]) == (good, "OK")
    assert ok["payload"]["video"]["url"]
    assert headers["x-fal-webhook-request-id"] == good
    assert headers["x-fal-webhook-timestamp"].isdecimal()
    assert (refused["status"], refused["error"]) == ("ERROR", "Invalid status code: 422")
    assert refused["payload"]["detail"][0]["type"] == "content_policy_violation"
    assert broken["error"] == "Invalid status code: 503"


async def test_webhook_keys_are_public(shopper: Shopper) -> None:
    keys = (await shopper.client.get("/fal/.well-known/jwks.json")).json()["keys"]

    assert (keys[0]["kty"], keys[0]["crv"]) == ("OKP", "Ed25519")


async def test_number_for_duration_passes_by_switch(shopper: Shopper) -> None:
    await shopper.admin("switches", {"fal_takes_numbers": True})
    id_ = (await order(shopper, duration=6)).json()["request_id"]
    await shopper.step(1000)

    assert (await shopper.job(id_))["seconds"] == 6
    assert (await shopper.result("fal", id_)).status_code == 200
