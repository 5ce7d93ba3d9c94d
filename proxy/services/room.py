"""Looks again and again whether there is room for more videos: on the disks, and in the line of those that wait."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import structlog

from proxy.core.errors import Overloaded
from proxy.services.disks import look_at_disks
from proxy.services.house import House
from proxy.store import videos

_log = structlog.get_logger("reelay.room")

EVERY_S = 5.0
WAITING_MOST = 100_000
"""
Videos that no seller has taken yet: about what one process sends within the usual deadline.

Whoever came behind them would be told in twenty minutes that it was in vain; it is better told at once.
"""


@contextlib.asynccontextmanager
async def watched_room(house: House, *, every_s: float = EVERY_S) -> AsyncIterator[None]:
    """Looked at now, and again and again until the block is left."""
    await _look(house)
    watching = asyncio.create_task(_watch(house, every_s))
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.wait([watching])


async def _watch(house: House, every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        try:
            await _look(house)
        except Exception:  # noqa: BLE001 - without it a full disk would go unseen, or an empty one
            _log.exception("look.broke")


async def _look(house: House) -> None:
    await look_at_disks(house)
    await look_at_the_line(house)


async def look_at_the_line(house: House, *, most: int = WAITING_MOST) -> None:
    """Notes in `house.full` whether as many wait as may; where the database cannot be asked, it stays as it was."""
    try:
        waiting = await house.store.read(lambda tx: videos.count_waiting(tx, most=most))
    except Overloaded as exc:
        _log.warning("line.not_seen", why=str(exc))
        return
    if waiting >= most and "line" not in house.full:
        house.full.add("line")
        _log.error("line.full", videos=waiting)
    elif waiting < most and "line" in house.full:
        house.full.remove("line")
        _log.info("line.has_room", videos=waiting)
