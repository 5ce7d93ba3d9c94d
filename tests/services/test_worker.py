"""The worker: claims, survives what breaks, and ends cleanly."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from structlog.testing import capture_logs

from proxy.core.errors import Overloaded
from proxy.core.wire import Call, Reply
from proxy.services.worker import Worker
from proxy.store import work
from proxy.store.base import Tx
from proxy.store.sqlite import SqliteStore
from tests.services.rehearsal import FalOrder, Rehearsal, rehearse

T = TypeVar("T")


@asynccontextmanager
async def at_work(house: Rehearsal) -> AsyncIterator[Worker]:
    worker = Worker(house.house, owner="test")
    running = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        await worker.stop(grace_s=5)
        await running


def _leases(tx: Tx) -> int:
    return len(work.claim(tx, "probe", most=100, lease_us=1))


async def test_worker_carries_a_video_from_submit_to_file(house: Rehearsal) -> None:
    order = FalOrder()
    order.status = "COMPLETED"
    house.answers(order)
    async with at_work(house):
        video_id = await house.accept()
        async with asyncio.timeout(20):
            while (await house.video(video_id)).status != "completed":
                house.clock.move(1)
                await asyncio.sleep(0.05)


class Hiccup(SqliteStore):
    """Breaks a read, as a disk may."""

    breaks = 0

    async def read_now(self, unit: Callable[[Tx], T]) -> T:
        if unit is work.any_due and self.breaks:
            self.breaks -= 1
            raise sqlite3.OperationalError("disk I/O error")
        return await super().read_now(unit)


async def test_worker_outlives_a_read_that_breaks(tmp_path: Path, film: bytes) -> None:
    async with rehearse(tmp_path, film, store=Hiccup) as house:
        store = house.house.store
        assert isinstance(store, Hiccup)
        store.breaks = 1
        house.answers(FalOrder())
        async with at_work(house):
            video_id = await house.accept()
            async with asyncio.timeout(20):
                while await house.states(video_id) != ["running"]:
                    await asyncio.sleep(0.05)
        assert store.breaks == 0


class Locked(SqliteStore):
    """Does not answer when the worker asks how long it may sleep."""

    asked = 0

    async def read_now(self, unit: Callable[[Tx], T]) -> T:
        if unit is work.next_due:
            self.asked += 1
            raise Overloaded("The database is locked.")
        return await super().read_now(unit)


async def test_database_that_does_not_answer_for_a_while_is_no_fault_of_the_workers(
    tmp_path: Path, film: bytes
) -> None:
    async with rehearse(tmp_path, film, store=Locked) as house:
        store = house.house.store
        assert isinstance(store, Locked)
        with capture_logs() as lines:
            async with at_work(house):
                await asyncio.sleep(1.3)
    assert 1 <= store.asked <= 3, "once a second, and not as fast as it can"
    assert {line["event"] for line in lines} == {"turn.postponed"}


async def test_end_waits_for_the_answer_of_a_submit(house: Rehearsal) -> None:
    sent, answer = asyncio.Event(), asyncio.Event()

    async def slow(provider: str, call: Call) -> Reply:
        sent.set()
        await answer.wait()
        return await FalOrder()(provider, call)

    house.answers(slow)
    worker = Worker(house.house, owner="test")
    running = asyncio.create_task(worker.run())
    video_id = await house.accept()
    await sent.wait()
    stopping = asyncio.create_task(worker.stop(grace_s=20))
    await asyncio.sleep(0.1)
    assert not stopping.done()
    answer.set()
    await stopping
    await running
    assert await house.states(video_id) == ["running"]


async def test_end_leaves_what_takes_too_long_to_others_at_once(house: Rehearsal) -> None:
    sent, never = asyncio.Event(), asyncio.Event()

    async def hang(provider: str, call: Call) -> Reply:
        del provider, call
        sent.set()
        await never.wait()
        raise AssertionError

    house.answers(hang)
    worker = Worker(house.house, owner="test")
    running = asyncio.create_task(worker.run())
    video_id = await house.accept()
    await sent.wait()
    await worker.stop(grace_s=0.1)
    await running
    await house.turn()
    assert await house.states(video_id) == ["unknown"]
    assert len(house.transport.calls) == 1


class SlowClaim(SqliteStore):
    """Holds a write back until it is let through."""

    def hold_back(self) -> None:
        self.waiting, self.through = asyncio.Event(), asyncio.Event()

    async def write(self, unit: Callable[[Tx], T]) -> T:
        if hasattr(self, "through"):
            self.waiting.set()
            await self.through.wait()
        return await super().write(unit)


async def test_nothing_is_begun_by_a_claim_that_comes_back_after_the_end_was_asked_for(
    tmp_path: Path, film: bytes
) -> None:
    """Else its submit would run on while the database is closed, and its answer would be lost."""
    async with rehearse(tmp_path, film, store=SlowClaim) as house:
        store = house.house.store
        assert isinstance(store, SlowClaim)
        video_id = await house.accept()
        store.hold_back()
        worker = Worker(house.house, owner="test")
        running = asyncio.create_task(worker.run())
        await store.waiting.wait()
        stopping = asyncio.create_task(worker.stop(grace_s=5))
        await asyncio.sleep(0)
        store.through.set()
        await stopping
        await running
        assert house.transport.calls == []
        assert await house.attempts(video_id) == []
        assert await store.write(_leases) == 1, "nobody holds it"


async def test_one_piece_of_work_that_breaks_does_not_stop_the_others(house: Rehearsal) -> None:
    async def broken(provider: str, call: Call) -> Reply:
        if len(house.transport.calls) == 1:
            raise ZeroDivisionError
        return await FalOrder()(provider, call)

    house.answers(broken)
    first, second = await house.accept(), await house.accept()
    async with at_work(house):
        async with asyncio.timeout(20):
            while sorted([await house.states(first), await house.states(second)]) != [["running"], ["sending"]]:
                await asyncio.sleep(0.05)
