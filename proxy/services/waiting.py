"""
Holds answers until videos end: one watcher for all that are waited for, which sleeps while nobody waits.

An end that this process brings about is told here and wakes its waiters at once; one that another
process brings about is seen at the next look.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from proxy.store import videos
from proxy.store.base import Store

_log = structlog.get_logger("reelay.waiting")

LONGEST_S = 600
"""How long an answer is held at the most."""
LOOK_EVERY_S = 0.5
MOST, MOST_OF_A_TENANT = 1000, 100
"""Each keeps a connection open; whoever comes beyond them is answered at once."""


class Waiting:
    """Everybody in this process who waits for a video to end."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiters: dict[str, set[asyncio.Future[bool]]] = {}
        """By video."""
        self._by_tenant: Counter[str] = Counter()
        self._watcher: asyncio.Task[None] | None = None
        self._closed = False

    async def for_end(
        self, tenant_id: str, video_id: str, *, most_s: float, gone: Callable[[], Coroutine[Any, Any, None]]
    ) -> bool:
        """
        Returns once the video has ended or `most_s` have passed; `gone` returns when the client goes away.

        False where that was not waited for: too many wait already, the server drains, the client went.
        """
        full = self._by_tenant.total() >= MOST or self._by_tenant[tenant_id] >= MOST_OF_A_TENANT
        if full or self._closed:
            return False
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        leaving: asyncio.Future[None] = asyncio.create_task(gone())
        self._waiters.setdefault(video_id, set()).add(waiter)
        self._by_tenant[tenant_id] += 1
        if self._watcher is None or self._watcher.done():
            self._watcher = asyncio.create_task(self._watch())
        try:
            either: set[asyncio.Future[Any]] = {waiter, leaving}
            await asyncio.wait(either, timeout=most_s, return_when=asyncio.FIRST_COMPLETED)
            return waiter.result() if waiter.done() else not leaving.done()
        finally:
            leaving.cancel()
            self._by_tenant -= Counter((tenant_id,))
            self._forget(video_id, waiter)

    def _forget(self, video_id: str, waiter: asyncio.Future[bool]) -> None:
        others = self._waiters.get(video_id, set())
        others.discard(waiter)
        if not others:
            self._waiters.pop(video_id, None)

    def ended(self, video_id: str) -> None:
        """Wakes whoever waits for this video."""
        self._wake(video_id, well=True)

    def close(self) -> None:
        """Wakes everybody, and lets nobody wait from now on."""
        self._closed = True
        if self._watcher is not None:
            self._watcher.cancel()
        for video_id in list(self._waiters):
            self._wake(video_id, well=False)

    def _wake(self, video_id: str, *, well: bool) -> None:
        for waiter in self._waiters.pop(video_id, ()):
            if not waiter.done():
                waiter.set_result(well)

    async def _watch(self) -> None:
        """As long as somebody waits."""
        while self._waiters:
            await asyncio.sleep(LOOK_EVERY_S)
            awaited = list(self._waiters)
            try:
                over = await self._store.read(lambda tx, awaited=awaited: videos.over_among(tx, awaited))  # type: ignore[misc]  # the default binds this turn's list
            except Exception:  # noqa: BLE001 - the next look may succeed, and no wait is longer than asked for
                _log.exception("look.failed")
                continue
            for video_id in over:
                self.ended(video_id)
