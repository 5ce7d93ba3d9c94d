"""Looks after the disks: while one is nearly full nothing new is accepted, and all that was goes on."""

import structlog

from proxy.outside.base import StorageFailed
from proxy.services.house import House

_log = structlog.get_logger("reelay.disks")

FULL_RATIO = 0.9
"""Used by whomever; the rest is for videos that were accepted before."""
UNSEEN_MOST = 12
"""Looks in a row, five seconds from each other, after which a disk that cannot be asked is away."""


async def look_at_disks(house: House) -> None:
    """
    Notes in `house.full` which are nearly full; one that cannot be asked stays as it was for a while.

    Then it counts as full: what is bought while films cannot be kept is lost once the sellers' links end.

    None is in the sandbox: play films are small, and whoever tries this out may have a disk fuller than a
    server's should be.
    """
    if house.sandbox:
        return
    for store, disk in house.disks.items():
        try:
            room = await disk.room()
        except StorageFailed as exc:
            house.unseen[store] += 1
            _log.warning("disk.not_seen", store=store, why=str(exc))
            if house.unseen[store] == UNSEEN_MOST:
                house.full.add(store)
                _log.error("disk.away", store=store, why="nothing new is accepted")
            continue
        house.unseen[store] = 0
        ratio = 0.0 if room is None else room.used_ratio
        full = ratio > FULL_RATIO
        if full and store not in house.full:
            house.full.add(store)
            _log.error("disk.full", store=store, used_ratio=ratio)
        elif not full and store in house.full:
            house.full.remove(store)
            _log.info("disk.has_room", store=store, used_ratio=ratio)
