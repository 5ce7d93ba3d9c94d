import hashlib
import hmac
import uuid
from typing import Any

import httpx

from tests.simulator.shopping import CREATES, HEADERS, Letterbox, Shopper

PATH, BODY_OF = CREATES["runflow"]
FAST = "/runflow/v1/models/bytedance/seedance/2.0/fast/text-to-video/runs"
AUTH = HEADERS["runflow"]


async def order(
    shopper: Shopper, *, path: str = PATH, top: dict[str, Any] | None = None, **given: object
) -> httpx.Response:
    body = BODY_OF("a boat")
    body["input"] = {name: value for name, value in {**body["input"], **given}.items() if value is not ...}
    return await shopper.client.post(path, json={**body, **(top or {})}, headers=AUTH)


async def test_create_answers_the_whole_run_with_nulls(shopper: Shopper) -> None:
    reply = await order(shopper, top={"client_ref": "j-17-1", "metadata": {"job": "j-17"}, "callback_url": None})

    body = reply.json()
    assert reply.status_code == 201
    assert uuid.UUID(body["id"]).version == 7
    assert body["created_at"].endswith("+00:00")
    told = {name: value for name, value in body.items() if value is not None}
    assert told == {
        "id": body["id"],
        "model_id": "bytedance/seedance/2.0/text-to-video",
        "target_type": "model",
        "org_id": "org_sandbox",
        "status_code": "queued",
        "source_code": "api",
        "input": {**BODY_OF("a boat")["input"]},
        "client_ref": "j-17-1",
        "metadata": {"job": "j-17"},
        "request_id": body["request_id"],
        "created_at": body["created_at"],
        "has_logs": False,
        "has_node_runs": False,
    }
    nulls = {"flow_id", "output", "cost", "duration_ms", "started_at", "completed_at", "failure_code", "links"}
    assert nulls < set(body)


async def test_run_goes_over_dispatching_to_succeeded(shopper: Shopper) -> None:
    id_ = await shopper.bought("runflow")
    row = await shopper.job(id_)
    seen = []
    for _ in range(200):
        run = (await shopper.poll("runflow", id_)).json()
        if run["status_code"] not in seen:
            seen.append(run["status_code"])
        await shopper.step(1)

    assert seen == ["queued", "dispatching", "running", "succeeded"]
    assert run["cost"] == "1.517000"
    assert run["output"] == {
        "outputs": [
            {
                "url": run["output"]["outputs"][0]["url"],
                "type": "video",
                "width": 1280,
                "height": 720,
                "duration": 5.04,
            }
        ],
        "seed": 42,
        "nsfw_detected": None,
        "timing": {"inference_ms": run["output"]["timing"]["inference_ms"]},
    }
    assert 65_000 < run["duration_ms"] < 165_000
    assert run["started_at"].endswith("+00:00")
    assert row["price_microusd"] == 1_517_000
    assert (await shopper.job(id_))["charged_microusd"] == 1_517_000


async def test_failed_run_names_code_message_and_stage_and_costs_nothing(shopper: Shopper) -> None:
    run = (await shopper.poll("runflow", await shopper.finished("runflow", "[fault:moderation_late]"))).json()

    assert (run["status_code"], run["output"], run["cost"]) == ("failed", None, "0")
    assert run["failure_code"] == "CONTENT_POLICY_VIOLATION"
    assert run["failure_message"]
    assert run["failure_stage_code"] == "inference"


async def test_run_is_found_by_its_own_tag(shopper: Shopper) -> None:
    id_ = (await order(shopper, top={"client_ref": "a-1"})).json()["id"]
    await order(shopper, top={"client_ref": "a-2"})

    found = await shopper.client.get("/runflow/v1/runs", params={"q": "client_ref.EQ:'a-1'"}, headers=AUTH)
    other = await shopper.client.get(
        "/runflow/v1/runs", params={"q": "client_ref.EQ:'a-1'"}, headers={"Authorization": "Bearer rf_live_other"}
    )
    odd = await shopper.client.get("/runflow/v1/runs", params={"q": "status.EQ:'queued'"}, headers=AUTH)

    assert [run["id"] for run in found.json()["items"]] == [id_]
    assert other.json()["items"] == []
    assert odd.status_code == 422


async def test_wrong_input_is_a_422_with_the_field(shopper: Shopper) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"prompt": ...}, "input.prompt"),
        ({"prompt": ""}, "input.prompt"),
        ({"duration": 5}, "input.duration"),
        ({"duration": "3"}, "input.duration"),
        ({"duration": "16"}, "input.duration"),
        ({"resolution": "4k"}, "input.resolution"),
        ({"aspect_ratio": "adaptive"}, "input.aspect_ratio"),
        ({"seed": "42"}, "input.seed"),
        ({"generate_audio": "true"}, "input.generate_audio"),
        ({"end_user_id": 5}, "input.end_user_id"),
        ({"quality": "720p"}, "input.quality"),
        ({"path": FAST, "resolution": "1080p"}, "input.resolution"),
        ({"top": {"prompt": "flat"}}, "prompt"),
        ({"top": {"input": None}}, "input"),
        ({"top": {"metadata": "x"}}, "metadata"),
        ({"top": {"client_ref": 1}}, "client_ref"),
    ]
    for changes, field in wrong:
        reply = await order(shopper, **changes)

        assert reply.status_code == 422, changes
        assert (reply.json()["code"], reply.json()["errors"][0]["field"]) == ("VALIDATION_ERROR", field), changes
    assert (await shopper.books())["jobs"] == []


async def test_full_hd_and_auto_are_sold(shopper: Shopper) -> None:
    full_hd = await order(shopper, resolution="1080p")
    auto = await order(shopper, duration=..., aspect_ratio="auto", resolution=...)
    fast = await order(shopper, path=FAST)

    rows = {job["id"]: job for job in (await shopper.books())["jobs"]}
    assert rows[full_hd.json()["id"]]["price_microusd"] == 3_402_000
    chosen = rows[auto.json()["id"]]
    assert chosen["seconds"] != 5
    assert chosen["aspect_ratio"] not in {"auto", "16:9"}
    assert rows[fast.json()["id"]]["tier"] == "fast"


async def test_duration_may_be_a_number_by_switch(shopper: Shopper) -> None:
    await shopper.admin("switches", {"runflow_takes_numbers": True})

    assert (await order(shopper, duration=5)).status_code == 201


async def test_unknown_model_and_broken_body_are_refused(shopper: Shopper) -> None:
    unknown = await order(shopper, path="/runflow/v1/models/bytedance/seedance/3.0/text-to-video/runs")
    broken = await shopper.client.post(PATH, content=b"{", headers=AUTH)
    no_route = await shopper.client.get("/runflow/v2/x", headers=AUTH)

    assert (unknown.status_code, unknown.json()["code"]) == (404, "RUN_NOT_FOUND")
    assert broken.status_code == 400
    assert no_route.status_code == 404


async def test_links_are_signed_anew_and_die(shopper: Shopper) -> None:
    id_ = await shopper.finished("runflow")
    first = await shopper.link("runflow", id_)
    unsigned = first.partition("?")[0]
    alive = await shopper.client.get(first)
    naked = await shopper.client.get(unsigned)
    await shopper.step(3700)
    dead = await shopper.client.get(first)
    again = await shopper.client.get(await shopper.link("runflow", id_))

    assert "sig=" in first
    assert [alive.status_code, naked.status_code, dead.status_code, again.status_code] == [200, 403, 403, 200]


async def test_callback_is_signed_once_a_secret_exists(shopper: Shopper, letterbox: Letterbox) -> None:
    await shopper.bought("runflow", callback_url=letterbox.url)
    await shopper.step(1000)
    await letterbox.wait(1)
    made = await shopper.client.post("/runflow/v1/callback-secrets", json={"label": "prod"}, headers=AUTH)
    listed = await shopper.client.get("/runflow/v1/callback-secrets", headers=AUTH)
    id_ = await shopper.bought("runflow", callback_url=letterbox.url)
    await shopper.step(1000)
    bodies = await letterbox.wait(2)

    (plain_headers, _), (headers, body) = letterbox.letters
    secret = made.json()["plain_secret"]
    assert "runflow-signature" not in plain_headers
    assert plain_headers["runflow-request-id"]
    assert headers["runflow-signature"] == hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    assert secret.startswith("whsec_")
    assert "plain_secret" not in listed.json()["items"][0]
    told = bodies[1]
    assert (told["event"], told["run_id"], told["status"]) == ("run.completed", id_, "succeeded")
    assert set(told) == {
        "event",
        "run_id",
        "status",
        "output",
        "duration_ms",
        "created_at",
        "completed_at",
        "metadata",
    }


async def test_callback_history_and_redelivery(shopper: Shopper, letterbox: Letterbox) -> None:
    id_ = await shopper.bought("runflow", callback_url=letterbox.url)
    early = await shopper.client.post(f"/runflow/v1/runs/{id_}/callback-redeliveries", headers=AUTH)
    await shopper.step(1000)
    await letterbox.wait(1)
    again = await shopper.client.post(f"/runflow/v1/runs/{id_}/callback-redeliveries", headers=AUTH)
    await letterbox.wait(2)
    history = await shopper.client.get(f"/runflow/v1/runs/{id_}/callback", headers=AUTH)

    assert [early.status_code, again.status_code] == [409, 201]
    assert history.json()["attempt_count"] >= 1


async def test_cancel_is_for_admin_keys(shopper: Shopper) -> None:
    id_ = await shopper.bought("runflow")
    path = f"/runflow/v1/admin/runs/{id_}/cancellation"
    admin = {"Authorization": "Bearer rf_svc_root"}
    refused = await shopper.client.post(path, json={"reason": None}, headers=AUTH)
    done = await shopper.client.post(path, json={"reason": None}, headers=admin)
    again = await shopper.client.post(path, json={"reason": None}, headers=admin)
    unknown = await shopper.client.post("/runflow/v1/admin/runs/x/cancellation", headers=admin)

    assert [refused.status_code, done.status_code, again.status_code, unknown.status_code] == [403, 201, 200, 404]
    assert done.json()["status_code"] == "canceled"


async def test_small_routes_answer(shopper: Shopper) -> None:
    statuses = await shopper.client.get("/runflow/v1/runs/statuses", headers=AUTH)
    balance = await shopper.client.get("/runflow/v1/billing/balance", headers=AUTH)
    health = await shopper.client.get("/runflow/v1/health")
    label = await shopper.client.post("/runflow/v1/callback-secrets", json={"label": 5}, headers=AUTH)

    assert "canceled" in statuses.json()
    assert balance.json()["currency"] == "USD"
    assert health.json() == {"status": "ok"}
    assert label.status_code == 422
