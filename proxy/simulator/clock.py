"""The sellers' own time: wall clock divided by a factor, or moved by hand."""

import asyncio
import contextlib
import time
from collections.abc import Callable

import msgspec

MIN_FACTOR = 1e-6


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How the sellers' time went at one wall instant; enough to continue after a restart."""

    factor: float
    manual: bool
    wall_s: float
    seller_s: float


class Clock:
    """
    The sellers' seconds.

    They begin at the wall's epoch seconds and run 1/factor times as fast, so a factor of 0.01 makes
    a render of 100 s last one. In manual mode they stand still but for `step`.
    """

    def __init__(self, *, factor: float = 1.0, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        now = wall()
        self._pace = Pace(factor=max(factor, MIN_FACTOR), manual=False, wall_s=now, seller_s=now)
        self._changed = asyncio.Event()

    @property
    def pace(self) -> Pace:
        return self._pace

    @property
    def factor(self) -> float:
        return self._pace.factor

    @property
    def manual(self) -> bool:
        return self._pace.manual

    def now_s(self) -> float:
        """Now in sellers' seconds."""
        pace = self._pace
        return pace.seller_s if pace.manual else pace.seller_s + (self._wall() - pace.wall_s) / pace.factor

    def wall_s(self, seller_s: float) -> float:
        """The wall's epoch seconds at a sellers' instant; one before the last change of pace counts as that change."""
        if self.manual:
            return self._wall()
        return self._pace.wall_s + max(0.0, seller_s - self._pace.seller_s) * self.factor

    def real_s(self, seller_s: float) -> float:
        """How long so many sellers' seconds last."""
        return seller_s * self.factor

    def resume(self, pace: Pace) -> None:
        """Continues an earlier sandbox's time, the pause included, at this one's factor."""
        factor = self.factor
        self._pace = pace
        self.set(factor=factor)

    def set(self, *, factor: float | None = None, manual: bool | None = None) -> None:
        """Changes the pace from now on; what has passed stays passed."""
        self._rebase(
            self.now_s(),
            factor=self.factor if factor is None else max(factor, MIN_FACTOR),
            manual=self.manual if manual is None else manual,
        )

    def step(self, seconds: float) -> None:
        """Moves the sellers' time forward by hand."""
        self._rebase(self.now_s() + seconds, factor=self.factor, manual=self.manual)

    def _rebase(self, seller_s: float, *, factor: float, manual: bool) -> None:
        self._pace = Pace(factor=factor, manual=manual, wall_s=self._wall(), seller_s=seller_s)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def sleep(self, seconds: float) -> None:
        """Returns when so many sellers' seconds have passed, whatever the pace does meanwhile."""
        until_s = self.now_s() + seconds
        while (left_s := until_s - self.now_s()) > 0:
            await self.nap(left_s)

    async def nap(self, seconds: float | None, *also: asyncio.Event) -> None:
        """Returns after so many sellers' seconds, or earlier when the pace changes or one of `also` is set."""
        timeout_s = None if seconds is None or self.manual else self.real_s(seconds)
        waits = [asyncio.ensure_future(event.wait()) for event in (self._changed, *also)]
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
