"""`Prefer: wait`: the answer comes when the video has ended, or when it was waited for long enough."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest
import pytest_asyncio

from proxy.services.waiting import LONGEST_S, MOST_OF_A_TENANT
from tests.databases import whole_in
from tests.whole.company import Company, Team, open_company, refused
from tests.whole.scenes import eventually
from tests.whole.stage import Stage

pytestmark = pytest.mark.asyncio(loop_scope="module")

ENDLESS = "[fault:never_ends] a paper boat"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Company]:
    async with open_company(tmp_path_factory.mktemp("waiting")) as company:
        yield company


async def create(team: Team | Stage, prefer: str, prompt: str = "a paper boat", **headers: str) -> httpx.Response:
    """Headers as keywords, dashes as underscores."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await team.client.post(
        "/v1/videos", json={"prompt": prompt}, headers={"prefer": prefer, **named}, timeout=60
    )


async def oldest(team: Team | Stage) -> str:
    """The id of the only video, once it is there."""
    async with asyncio.timeout(20):
        while not (found := (await team.client.get("/v1/videos")).json()["data"]):
            await asyncio.sleep(0.05)
    video_id: str = found[0]["id"]
    return video_id


async def test_answer_comes_with_the_end_of_the_video(shop: Company) -> None:
    answer = await create(shop, "respond-async, wait=50")
    video = answer.json()
    assert (answer.status_code, video["status"], video["progress"]) == (200, "completed", 100)
    assert video["usage"]["cost_usd"] == "0.794000"
    assert answer.headers["preference-applied"] == "wait=50"
    assert "openai-poll-after-ms" not in answer.headers
    assert answer.elapsed.total_seconds() < 30
    failed = await create(shop, "wait=50", "[fault:moderation] a paper boat")
    assert (failed.status_code, failed.json()["error"]["code"]) == (200, "moderation_blocked")


async def test_video_that_takes_longer_is_answered_as_it_is_by_then(shop: Company) -> None:
    begun = time.monotonic()
    answer = await create(shop, "wait=2", ENDLESS)
    assert 2 <= time.monotonic() - begun < 10
    assert answer.json()["status"] == "in_progress"
    assert answer.headers["preference-applied"] == "wait=2"
    assert int(answer.headers["openai-poll-after-ms"]) >= 1000
    await shop.client.delete(f"/v1/videos/{answer.json()['id']}")


@pytest.mark.parametrize("prefer", ["wait=soon", "return=minimal", "wait=-1"])
async def test_other_preferences_hold_nothing(shop: Company, prefer: str) -> None:
    answer = await create(shop, prefer, ENDLESS)
    assert answer.json()["status"] == "queued"
    assert "preference-applied" not in answer.headers
    await shop.client.delete(f"/v1/videos/{answer.json()['id']}")


async def test_nobody_waits_for_what_is_refused(shop: Company) -> None:
    answer = await shop.client.post("/v1/videos", json={"prompt": ""}, headers={"prefer": "wait=50"})
    refused(answer, 400, "invalid_value", "prompt")
    assert "preference-applied" not in answer.headers


async def test_longer_than_anybody_may_wait_is_cut_and_told(shop: Company) -> None:
    answer = await create(shop, "wait=100000")
    assert answer.headers["preference-applied"] == f"wait={LONGEST_S}"


async def test_repeat_of_a_request_waits_too(shop: Company) -> None:
    first = await create(shop, "wait=0", ENDLESS, idempotency_key="once")
    assert first.headers["preference-applied"] == "wait=0"
    again = asyncio.create_task(create(shop, "wait=50", ENDLESS, idempotency_key="once"))
    await asyncio.sleep(0.5)
    assert not again.done()
    await shop.client.post(f"/v1/videos/{first.json()['id']}/cancel")
    video = (await again).json()
    assert (video["id"], video["error"]["code"]) == (first.json()["id"], "cancelled")
    over = await create(shop, "wait=50", ENDLESS, idempotency_key="once")
    assert (over.json(), over.headers["preference-applied"]) == (video, "wait=50")


async def test_video_cancelled_or_deleted_meanwhile_is_answered_at_once(shop: Company) -> None:
    team = await shop.found("impatient")
    for path, status in (("/cancel", 200), ("", 404)):
        waiting = asyncio.create_task(create(team, "wait=60", ENDLESS))
        video_id = await oldest(team)
        begun = time.monotonic()
        method = "POST" if path else "DELETE"
        assert (await team.client.request(method, f"/v1/videos/{video_id}{path}")).status_code == 200
        answer = await waiting
        assert time.monotonic() - begun < 2
        assert answer.status_code == status
        if path:
            assert answer.json()["error"]["code"] == "cancelled"
            await team.client.delete(f"/v1/videos/{video_id}")
        else:
            assert "was deleted while it was waited for" in refused(answer, 404, "not_found")


async def test_who_comes_beyond_the_cap_gets_the_video_without_waiting(shop: Company) -> None:
    team, other = await shop.found("crowd"), await shop.found("bystander")
    lines = msgspec.structs.replace(team, client=await shop.client_of(team.key))
    crowd = [asyncio.create_task(create(lines, "wait=60", ENDLESS)) for _ in range(MOST_OF_A_TENANT)]
    await eventually(lambda: _counted(team, MOST_OF_A_TENANT))
    beyond = await create(team, "wait=60", ENDLESS)
    assert (beyond.status_code, beyond.json()["status"]) == (200, "queued")
    assert "preference-applied" not in beyond.headers
    assert (await create(other, "wait=60")).json()["status"] == "completed"

    # Those whose clients go away make room.
    for one in crowd:
        one.cancel()
    await asyncio.gather(*crowd, return_exceptions=True)
    await eventually(lambda: _waits(team))
    await _delete_all(team)


async def _counted(team: Team, number: int) -> bool:
    return len((await team.client.get("/v1/videos", params={"limit": 100})).json()["data"]) >= number


async def _waits(team: Team) -> bool:
    answer = await create(team, "wait=1", ENDLESS)
    return "preference-applied" in answer.headers


async def _delete_all(team: Team) -> None:
    while found := (await team.client.get("/v1/videos", params={"limit": 100})).json()["data"]:
        await asyncio.gather(*(team.client.delete(f"/v1/videos/{video['id']}") for video in found))


async def test_held_time_is_not_counted_as_ours(shop: Company) -> None:
    def seconds(text: str) -> float:
        wanted = 'reelay_http_request_duration_seconds_sum{method="POST",route="/v1/videos"}'
        return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(wanted))

    before = seconds((await shop.client.get("/metrics")).text)
    answer = await create(shop, "wait=3", ENDLESS)
    assert seconds((await shop.client.get("/metrics")).text) - before < 1.5
    await shop.client.delete(f"/v1/videos/{answer.json()['id']}")


async def test_end_that_another_process_brought_about_is_seen(shop: Company) -> None:
    team = await shop.found("patient")
    waiting = asyncio.create_task(create(team, "wait=60", ENDLESS))
    video_id = await oldest(team)
    _fail_behind_its_back(shop, video_id)
    answer = await waiting
    assert (answer.json()["status"], answer.headers["preference-applied"]) == ("failed", "wait=60")


def _fail_behind_its_back(shop: Company, video_id: str) -> None:
    change = "update videos set status = 'failed', error_code = 'provider_error' where id = ?"
    whole_in(shop.folder).write(change, video_id)


async def test_drain_answers_everybody_at_once(shop: Company) -> None:
    waiting: list[asyncio.Task[Any]] = [asyncio.create_task(create(shop, "wait=60", ENDLESS)) for _ in range(3)]
    await asyncio.sleep(1)
    begun = time.monotonic()
    assert await shop.server.stop() == 0
    answers = await asyncio.gather(*waiting)
    assert time.monotonic() - begun < 20
    assert [answer.status_code for answer in answers] == [200] * 3
    assert {answer.json()["status"] for answer in answers} <= {"queued", "in_progress"}
    assert not [answer for answer in answers if "preference-applied" in answer.headers]
