"""
Two servers and three workers share one PostgreSQL database and the work.

One worker is killed and one is stopped past its leases and wakes again; in the end every video is settled
once, and our books are the sellers'.
"""

import asyncio
import itertools
import json
import os
import signal
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from tests.databases import choose, whole_in
from tests.whole.compare_books import compare
from tests.whole.scenes import check_the_ledger, check_the_log
from tests.whole.stage import KEY, Process, Stage

VIDEOS = 240
SUBMIT_TIMEOUT_S = 8
LEASE_S = SUBMIT_TIMEOUT_S + 60
"""The longest: of a submit that is under way."""
DEADLINE_S = 150

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


async def _create(servers: list[httpx.AsyncClient], number: int) -> str:
    body = {"prompt": f"case-{number} a paper boat", "end_user_id": f"user-{number % 7}"}
    # A client that is not answered asks again, with the same key, whichever server it then meets.
    for client in itertools.islice(itertools.cycle(servers[number % 2 :] + servers[: number % 2]), 20):
        try:
            answer = await client.post("/v1/videos", json=body, headers={"idempotency-key": f"k-{number}"})
        except httpx.TransportError:
            await asyncio.sleep(0.2)
            continue
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])
    raise AssertionError("nobody answered")


def _stop(process: Process, number: signal.Signals) -> None:
    os.kill(process.process.pid, number)


async def _leased_by(stage: Stage, process: Process) -> int:
    owner = f"%:{process.process.pid}"
    query = "select count(*) from work where lease_until > 0 and owner like ?"
    [(count,)] = whole_in(stage.folder).rows(query, owner)
    return int(count)


async def _until_it_holds_something(stage: Stage, process: Process) -> None:
    async with asyncio.timeout(30):
        while not await _leased_by(stage, process):
            await asyncio.sleep(0.01)


async def _put_to_sleep(stage: Stage, worker: Process) -> None:
    """While it holds something; what it had sent before may still give that back a moment later."""
    async with asyncio.timeout(30):
        while True:
            await _until_it_holds_something(stage, worker)
            _stop(worker, signal.SIGSTOP)
            await asyncio.sleep(0.2)
            if await _leased_by(stage, worker):
                return
            _stop(worker, signal.SIGCONT)


async def test_every_video_is_settled_once_whatever_befalls_the_workers(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        stage = Stage(tmp_path, stack)
        choose("postgresql", tmp_path)
        await stage.start_sellers(speed=15)
        stage.write_rules(deadline_s=DEADLINE_S, submit_timeout_s=SUBMIT_TIMEOUT_S)
        for seller, fault, probability in (
            ("evolink", "error_503", 0.1),
            ("evolink", "render_failed", 0.1),
            ("shortapi", "render_failed", 0.1),
        ):
            await stage.arm(seller, fault, probability=probability)
        await stage.start_server()
        other = await stage.start_beside("serve")
        doomed, sleeper, _ = [await stage.start_beside("work") for _ in range(3)]
        servers = [
            await stack.enter_async_context(
                httpx.AsyncClient(
                    base_url=one.origin, headers={"authorization": f"Bearer {KEY}"}, trust_env=False, timeout=30
                )
            )
            for one in (stage.server, other)
        ]

        ids: list[str] = []
        for number in range(VIDEOS):
            ids.append(await _create(servers, number))
            if number == VIDEOS // 3:
                await _until_it_holds_something(stage, doomed)
                await doomed.kill()
            if number == VIDEOS // 2:
                await _put_to_sleep(stage, sleeper)
        async with asyncio.timeout(LEASE_S + 30):
            while await _leased_by(stage, sleeper):  # until others have taken over what it held
                await asyncio.sleep(0.5)
        _stop(sleeper, signal.SIGCONT)
        ends = [await stage.ended(video_id, within_s=DEADLINE_S) for video_id in ids]
        await asyncio.sleep(5)

        assert len(set(ids)) == VIDEOS
        outcomes = Counter((video["status"], (video["error"] or {}).get("code")) for video in ends)
        assert set(outcomes) <= {("completed", None), ("failed", "outcome_unknown")}, outcomes
        assert outcomes["completed", None] > VIDEOS * 0.8
        assert (await _metrics(sleeper)).status_code == 200, "it goes on"
        await _compare(stage)


async def _metrics(process: Process) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.get(f"{process.origin}/metrics")


async def _compare(stage: Stage) -> None:
    check_the_ledger(stage.folder)
    check_the_log(stage.folder)
    books = (await stage.admin.get("/admin/books")).json()
    taken = Counter(job["prompt"].split(" ")[0] for job in books["jobs"] if job["state"] == "succeeded")
    assert max(taken.values()) == 1, "no film was made twice"
    code, report, err = await stage.cli("report", "spend", "--by", "provider", "--format", "json")
    assert code == 0, err
    code, unknown, err = await stage.cli("attempts", "list", "--json")
    assert code == 0, err
    assert compare(books, json.loads(report)["data"], json.loads(unknown)) == []
