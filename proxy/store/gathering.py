"""
Gathers what the event loop asks of a database, and hands it to a thread as a group.

The group is the throughput: a commit costs the same for one unit of work as for a hundred. While one
group is away, the next gathers.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

from proxy.core.errors import Overloaded

GROUP_MAX = 512
"""Units of one group at the most; bounds how long one waits for the others."""

QUEUE_MAX = 4096
"""Units waiting at the most; beyond it they are refused, so that a slow disk does not become a long queue."""


class Job:
    """A unit of work that waits: `unit` alone, or `batch` with the item that is this caller's."""

    __slots__ = ("batch", "future", "item", "unit")

    def __init__(self, future: asyncio.Future[Any], unit: Any, batch: Any, item: Any) -> None:
        self.future, self.unit, self.batch, self.item = future, unit, batch, item


Outcome = tuple[asyncio.Future[Any], bool, Any]
"""Whose it is, whether it went well, and the value or the error."""


class Gatherer:
    """Has one group away at a time; made on the loop that asks, where `run` gets a thread of `threads`."""

    def __init__(self, threads: Executor, run: Callable[[list[Job]], list[Outcome]]) -> None:
        self._loop = asyncio.get_running_loop()
        self._threads = threads
        self._run = run
        self._waiting: list[Job] = []
        self._closed = False
        self._idle = asyncio.Event()
        """Set while no group is away, or about to be."""
        self._idle.set()

    def submit(self, *, unit: Any = None, batch: Any = None, item: Any = None) -> asyncio.Future[Any]:
        """Raises Overloaded where too many wait, or after `close`."""
        if self._closed or len(self._waiting) >= QUEUE_MAX:
            raise Overloaded("The database is busy.", retry_after_s=1)
        future: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.append(Job(future, unit, batch, item))
        if self._idle.is_set():
            self._idle.clear()
            # Whatever else this turn of the loop asks for goes into the same group.
            self._loop.call_soon(self._hand_over)
        return future

    async def close(self) -> None:
        """Takes nothing more, and waits for what it has."""
        self._closed = True
        await self._idle.wait()

    def _hand_over(self) -> None:
        group, self._waiting = self._waiting[:GROUP_MAX], self._waiting[GROUP_MAX:]
        if group:
            self._threads.submit(self._work, group)
        else:
            self._idle.set()

    def _work(self, group: list[Job]) -> None:
        try:
            outcomes = self._run(group)
        except Exception as exc:  # noqa: BLE001 - a group without an answer would be waited for for ever
            outcomes = [(job.future, False, exc) for job in group]
        self._loop.call_soon_threadsafe(self._delivered, outcomes)

    def _delivered(self, outcomes: list[Outcome]) -> None:
        for future, well, value in outcomes:
            if future.done():
                continue  # its caller went away; the unit stands all the same
            if well:
                future.set_result(value)
            else:
                # A future takes no StopIteration; were it given one, every caller behind would wait for ever.
                future.set_exception(RuntimeError(repr(value)) if isinstance(value, StopIteration) else value)
        self._hand_over()


def commit_failed(cause: Exception) -> Overloaded:
    """What the caller hears of a unit that the database did not keep."""
    error = Overloaded("The database could not keep this request; nothing was bought.", retry_after_s=5)
    error.__cause__ = cause
    return error
