import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from proxy.simulator.faults import CATALOGUE, Armed, Faults, marked
from tests.simulator.shopping import SELLERS, Shopper, id_of

REFUSED: dict[str, dict[str, int]] = {
    "unauthorized": {"runflow": 401, "fal": 401, "shortapi": 200, "evolink": 401},
    "no_credit": {"runflow": 402, "fal": 403, "shortapi": 200, "evolink": 402},
    "invalid": {"runflow": 422, "fal": 422, "shortapi": 200, "evolink": 400},
    "moderation": {"runflow": 422, "fal": 422, "shortapi": 200, "evolink": 400},
    "throttled": dict.fromkeys(SELLERS, 429),
    "throttled_seconds": dict.fromkeys(SELLERS, 429),
    "throttled_date": dict.fromkeys(SELLERS, 429),
    "error_500": dict.fromkeys(SELLERS, 500),
    "error_502_html": dict.fromkeys(SELLERS, 502),
    "error_503": dict.fromkeys(SELLERS, 503),
    "error_503_html": dict.fromkeys(SELLERS, 503),
    "error_504": dict.fromkeys(SELLERS, 504),
}


async def test_refused_creates_store_and_charge_nothing(shopper: Shopper) -> None:
    for fault, statuses in REFUSED.items():
        for seller, status in statuses.items():
            reply = await shopper.create(seller, f"a boat [fault:{fault}]")

            assert reply.status_code == status, (fault, seller)
            is_page = fault.endswith("_html")
            assert reply.headers["content-type"].startswith("text/html" if is_page else "application/json")
            if not is_page:
                assert shape_of_no(seller, reply.json()), (fault, seller, reply.text)
            assert ("retry-after" in reply.headers) == fault.startswith("throttled_"), (fault, seller)
    books = await shopper.books()
    assert books["jobs"] == []
    assert books["totals"]["ordered"] == len(REFUSED) * len(SELLERS)
    assert (books["totals"]["accepted"], books["totals"]["charged_microusd"]) == (0, 0)


def shape_of_no(seller: str, body: dict[str, Any]) -> bool:
    checks: dict[str, Callable[[], bool]] = {
        "runflow": lambda: set(body) == {"code", "message", "errors"},
        "fal": lambda: "detail" in body,
        "shortapi": lambda: body["code"] != 0 and set(body) == {"code", "info"},
        "evolink": lambda: {"code", "message", "type"} <= set(body["error"]),
    }
    return checks[seller]()


async def test_retry_after_comes_in_both_forms(shopper: Shopper) -> None:
    seconds = await shopper.create("evolink", "[fault:throttled_seconds]")
    date = await shopper.create("evolink", "[fault:throttled_date]")

    assert seconds.headers["retry-after"] == "20"
    wait = parsedate_to_datetime(date.headers["retry-after"]) - datetime.now(UTC)
    assert 10 < wait.total_seconds() < 25


async def test_fal_names_its_own_errors_and_says_exhausted_balance(shopper: Shopper) -> None:
    broken = await shopper.create("fal", "[fault:error_500]")
    poor = await shopper.create("fal", "[fault:no_credit]")

    assert broken.headers["x-fal-error-type"] == "internal_error"
    assert "Exhausted balance" in poor.json()["detail"]


async def test_reset_before_leaves_nothing_behind(shopper: Shopper) -> None:
    for seller in SELLERS:
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
            await shopper.create(seller, "[fault:reset_before]")
    assert (await shopper.books())["jobs"] == []


async def test_reset_after_leaves_a_job_that_is_charged(shopper: Shopper) -> None:
    for seller in SELLERS:
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
            await shopper.create(seller, "[fault:reset_after]")
    await shopper.step(1000)
    rows = (await shopper.books())["jobs"]

    assert sorted(row["seller"] for row in rows) == sorted(SELLERS)
    assert all(row["charged_microusd"] == row["price_microusd"] > 0 for row in rows)


async def test_slow_reply_stores_and_lets_the_client_wait(shopper: Shopper) -> None:
    with pytest.raises(httpx.ReadTimeout):
        await shopper.create("fal", "[fault:slow_reply]", timeout_s=0.2)
    await shopper.admin("faults", {"fault": "slow_reply", "seller": "fal", "delay_s": 0.3, "count": 1})
    began = time.monotonic()
    late = await shopper.create("fal")

    assert late.status_code == 200
    assert time.monotonic() - began >= 0.3
    assert len((await shopper.books())["jobs"]) == 2


async def test_spoilt_answers_stand_for_stored_jobs(shopper: Shopper) -> None:
    for number, seller in enumerate(SELLERS, start=1):
        broken = await shopper.create(seller, "[fault:invalid_json]")
        odd = await shopper.create(seller, "[fault:wrong_type]")
        nameless = await shopper.create(seller, "[fault:no_id]")

        with pytest.raises(msgspec.DecodeError):
            msgspec.json.decode(broken.content)
        assert (odd.status_code, odd.headers["content-type"][:9]) == (200, "text/html")
        assert nameless.is_success
        ids = [job["id"] for job in (await shopper.books(seller))["jobs"]]
        assert not any(id_ in nameless.text for id_ in ids)
        with pytest.raises(KeyError):
            id_of(seller, nameless.json())
        assert len((await shopper.books())["jobs"]) == 3 * number


async def test_late_refusals_and_broken_renders_end_as_failed(shopper: Shopper) -> None:
    for fault in ("moderation_late", "render_failed"):
        for seller in SELLERS:
            row = await shopper.job(await shopper.finished(seller, f"[fault:{fault}]"))

            assert row["state"] == "failed"
            assert row["charged_microusd"] == row["refunded_microusd"]
    task = await shopper.poll("evolink", await shopper.finished("evolink", "[fault:moderation_late]"))
    assert task.json()["error"]["code"] == "content_policy_violation"


def status_of(seller: str, reply: httpx.Response) -> Any:
    body = reply.json()
    return {
        "runflow": lambda: body["status_code"],
        "fal": lambda: body["status"],
        "shortapi": lambda: body["data"]["status"],
        "evolink": lambda: body["status"],
    }[seller]()


async def test_unknown_status_passes_and_the_job_ends_well(shopper: Shopper) -> None:
    strange = {}
    for seller in SELLERS:
        id_ = await shopper.bought(seller, "[fault:unknown_status]")
        await shopper.step(30)
        strange[seller] = status_of(seller, await shopper.poll(seller, id_))
        await shopper.step(1000)
        assert (await shopper.job(id_))["state"] == "succeeded"

    assert strange == {"runflow": "hibernating", "fal": "HIBERNATING", "shortapi": -1, "evolink": "hibernating"}


async def test_status_goes_backwards_for_a_while(shopper: Shopper) -> None:
    id_ = await shopper.bought("evolink", "[fault:backwards]")
    seen: list[str] = []
    for _ in range(170):
        status = status_of("evolink", await shopper.poll("evolink", id_))
        if seen[-1:] != [status]:
            seen.append(status)
        await shopper.step(1)

    assert seen == ["pending", "processing", "pending", "processing", "completed"]


async def test_success_may_come_without_a_link(shopper: Shopper) -> None:
    for seller in SELLERS:
        id_ = await shopper.finished(seller, "[fault:no_url]")

        with pytest.raises((KeyError, IndexError)):
            await shopper.link(seller, id_)


async def test_some_jobs_never_end(shopper: Shopper) -> None:
    id_ = await shopper.finished("evolink", "[fault:never_ends]")
    await shopper.step(1_000_000)

    assert status_of("evolink", await shopper.poll("evolink", id_)) == "processing"


async def test_lost_jobs_are_nowhere_to_be_found(shopper: Shopper) -> None:
    statuses = {}
    for seller in SELLERS:
        id_ = await shopper.bought(seller, "[fault:lost]")
        statuses[seller] = (await shopper.poll(seller, id_)).status_code

    assert statuses == {"runflow": 404, "fal": 404, "shortapi": 200, "evolink": 404}


async def test_key_is_revoked_half_way(shopper: Shopper) -> None:
    for seller in SELLERS:
        id_ = await shopper.bought(seller, "[fault:revoked]")
        before = await shopper.poll(seller, id_)
        await shopper.step(30)
        after = await shopper.poll(seller, id_)

        assert before.is_success
        assert after.status_code == 401


async def test_polls_stumble_three_times_or_as_often_as_armed(shopper: Shopper) -> None:
    for fault, status in (("poll_500", 500), ("poll_throttled", 429)):
        marked_id = await shopper.bought("runflow", f"[fault:{fault}]")
        stumbling = [(await shopper.poll("runflow", marked_id)).status_code for _ in range(4)]
        plain_id = await shopper.bought("runflow")
        await shopper.admin("faults", {"fault": fault, "seller": "runflow", "count": 1})
        armed = [(await shopper.poll("runflow", plain_id)).status_code for _ in range(2)]

        assert stumbling == [status] * 3 + [200]
        assert armed == [status, 200]


async def test_seller_may_be_dear_or_silent_about_money(shopper: Shopper) -> None:
    dear = await shopper.finished("runflow", "[fault:dear]")
    silent = await shopper.finished("runflow", "[fault:no_cost]")
    dear_task = await shopper.create("evolink", "[fault:dear]")
    silent_task = await shopper.create("evolink", "[fault:no_cost]")
    dear_job = await shopper.create("shortapi", "[fault:dear]")
    silent_job = await shopper.create("shortapi", "[fault:no_cost]")
    dear_units = (await shopper.result("fal", await shopper.finished("fal", "[fault:dear]"))).headers
    silent_units = (await shopper.result("fal", await shopper.finished("fal", "[fault:no_cost]"))).headers

    assert (await shopper.poll("runflow", dear)).json()["cost"] == "3.034000"
    assert (await shopper.job(dear))["charged_microusd"] == 3_034_000
    assert (await shopper.poll("runflow", silent)).json()["cost"] is None
    assert (await shopper.job(silent))["charged_microusd"] == 1_517_000
    assert dear_task.json()["usage"]["credits_reserved"] == 135.0
    assert "usage" not in silent_task.json()
    assert dear_job.json()["data"]["amount"] == "2.40"
    assert "amount" not in silent_job.json()["data"]
    assert dear_units["x-fal-billable-units"] == "10"
    assert "x-fal-billable-units" not in silent_units


async def test_marker_may_name_one_seller(shopper: Shopper) -> None:
    prompt = "[fault:no_credit@evolink] [fault:render_failed@fal]"

    assert (await shopper.create("evolink", prompt)).status_code == 402
    id_ = await shopper.finished("fal", prompt)
    assert (await shopper.job(id_))["faults"] == ["render_failed"]
    assert (await shopper.job(await shopper.finished("runflow", prompt)))["state"] == "succeeded"


async def test_unknown_marker_is_refused_rather_than_ignored(shopper: Shopper) -> None:
    reply = await shopper.create("evolink", "[fault:no_such_thing]")

    assert reply.status_code == 400
    assert "no_such_thing" in reply.json()["error"]["message"]


async def test_armed_faults_strike_so_many_times_and_are_listed(shopper: Shopper) -> None:
    await shopper.admin("faults", {"fault": "error_503", "seller": "*", "count": 2})
    listed = (await shopper.client.get("/admin/faults")).json()
    statuses = [(await shopper.create(seller)).status_code for seller in ("evolink", "shortapi", "evolink")]
    await shopper.admin("faults", {"fault": "error_503"})
    await shopper.client.delete("/admin/faults")
    after = (await shopper.client.get("/admin/faults")).json()

    assert {fault["id"] for fault in listed["catalogue"]} == set(CATALOGUE)
    assert listed["armed"][0]["count"] == 2
    assert statuses == [503, 503, 200]
    assert after["armed"] == []
    assert (listed["struck"], after["struck"]) == ({}, {"evolink": {"error_503": 1}, "shortapi": {"error_503": 1}})


async def test_mistakes_in_arming_are_refused(shopper: Shopper) -> None:
    for body in ({"fault": "nonsense"}, {"fault": "lost", "seller": "x"}, {"fault": "lost", "often": 1}):
        assert (await shopper.client.post("/admin/faults", json=body)).status_code == 400


def test_probability_is_repeatable_by_seed() -> None:
    def strikes() -> list[bool]:
        faults = Faults(seed=3)
        faults.arm(Armed(fault="lost", probability=0.5))
        return [bool(faults.draw("fal", "life")) for _ in range(50)]

    assert strikes() == strikes()
    assert 10 < sum(strikes()) < 40


def test_markers_are_read_for_the_seller_they_name() -> None:
    prompt = "x [fault:lost] y [fault:no_url@fal][fault:dear@runflow]"

    assert marked(prompt, "fal") == ["lost", "no_url"]
    assert marked("no fault: at all", "fal") == []


def test_every_fault_is_tried_here() -> None:
    tried = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*_simulator.py"))

    assert [id_ for id_ in CATALOGUE if f"fault:{id_}]" not in tried and f'"{id_}"' not in tried] == []
