"""What a loop asks for at once goes as a group, and every asker is answered, whatever the group does."""

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from proxy.core.errors import Overloaded
from proxy.store.gathering import GROUP_MAX, QUEUE_MAX, Gatherer, Job, Outcome


class Bench:
    """A thread that answers groups when it is let."""

    def __init__(self) -> None:
        self.groups: list[list[Any]] = []
        self.may = threading.Event()
        self.may.set()
        self.breaks: Exception | None = None

    def run(self, group: list[Job]) -> list[Outcome]:
        assert self.may.wait(10)
        self.groups.append([job.item for job in group])
        if self.breaks is not None:
            raise self.breaks
        return [(job.future, True, job.item) for job in group]


@pytest.fixture
async def bench() -> AsyncIterator[tuple[Bench, Gatherer]]:
    threads, bench = ThreadPoolExecutor(1), Bench()
    gatherer = Gatherer(threads, bench.run)
    yield bench, gatherer
    bench.may.set()
    await gatherer.close()
    threads.shutdown()


async def test_what_one_turn_of_the_loop_asks_for_is_one_group(bench: tuple[Bench, Gatherer]) -> None:
    thread, gatherer = bench
    assert await asyncio.gather(*(gatherer.submit(item=number) for number in range(9))) == list(range(9))
    assert thread.groups == [list(range(9))]


async def test_next_group_gathers_while_the_last_is_away(bench: tuple[Bench, Gatherer]) -> None:
    thread, gatherer = bench
    thread.may.clear()
    first = gatherer.submit(item="first")
    await asyncio.sleep(0.05)
    later = [gatherer.submit(item=number) for number in range(GROUP_MAX + 3)]
    thread.may.set()
    await asyncio.gather(first, *later)
    assert [len(group) for group in thread.groups] == [1, GROUP_MAX, 3]


async def test_too_many_that_wait_are_refused(bench: tuple[Bench, Gatherer]) -> None:
    thread, gatherer = bench
    thread.may.clear()
    waiting = [gatherer.submit(item=number) for number in range(QUEUE_MAX)]
    with pytest.raises(Overloaded):
        gatherer.submit(item="one too many")
    thread.may.set()
    assert await asyncio.gather(*waiting) == list(range(QUEUE_MAX))


@pytest.mark.parametrize("error", [ValueError("odd"), StopIteration("stop")])
async def test_group_that_breaks_answers_everybody_and_the_next_one_goes_on(
    bench: tuple[Bench, Gatherer], error: Exception
) -> None:
    thread, gatherer = bench
    thread.breaks = error
    told = await asyncio.gather(*(gatherer.submit(item=number) for number in range(2)), return_exceptions=True)
    assert all(isinstance(one, ValueError | RuntimeError) for one in told)
    thread.breaks = None
    assert await gatherer.submit(item="next") == "next"


async def test_asker_that_went_away_harms_nobody(bench: tuple[Bench, Gatherer]) -> None:
    thread, gatherer = bench
    thread.may.clear()
    gone, here = gatherer.submit(item="gone"), gatherer.submit(item="here")
    gone.cancel()
    thread.may.set()
    assert await here == "here"
    assert thread.groups == [["gone", "here"]]


async def test_close_waits_for_what_was_asked_and_takes_nothing_more(bench: tuple[Bench, Gatherer]) -> None:
    _, gatherer = bench
    asked = gatherer.submit(item="last")
    await gatherer.close()
    assert await asked == "last"
    with pytest.raises(Overloaded):
        gatherer.submit(item="later")
