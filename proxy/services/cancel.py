"""Cancels and deletes: the video is over at once, what follows concerns the attempt and the money."""

from collections.abc import Sequence

import structlog

from proxy.core.errors import Overloaded
from proxy.outside.base import Storage
from proxy.services.dispatch import give_up
from proxy.services.house import House
from proxy.services.housekeeping import remove_films
from proxy.services.settle import Moved, erased
from proxy.services.told import tell
from proxy.store import videos
from proxy.store.base import Store, Tx
from proxy.store.upkeep import ExpiredFilm
from proxy.store.videos import Video

_log = structlog.get_logger("reelay.video")


async def cancel(house: House, tenant_id: str, video_id: str) -> Video | None:
    """The video as it is afterwards; one that had ended is unchanged. None where the tenant has no such video."""

    def unit(tx: Tx) -> tuple[Video | None, Moved]:
        video = _own(tx, tenant_id, video_id)
        if video is None:
            return None, Moved()
        moved = _stop(tx, video)
        return videos.by_id(tx, video_id), moved

    video, moved = await house.store.write(unit)
    if video is not None:
        tell(house, video, moved)
        house.due.set()
    return video


async def delete(house: House, tenant_id: str, video_id: str) -> bool:
    """Cancels, hides and erases; False where the tenant has no such video. The ledger's rows stay."""

    def unit(tx: Tx) -> tuple[Video | None, Moved]:
        video = _own(tx, tenant_id, video_id)
        if video is None:
            return None, Moved()
        return video, remove(tx, video)

    video, moved = await house.store.write(unit)
    if video is None:
        return False
    tell(house, video, moved)
    house.due.set()
    await remove_films_of(house.store, house.storage, [video])
    return True


def remove(tx: Tx, video: Video) -> Moved:
    """Stops a video and erases it; its film goes after the commit."""
    moved = _stop(tx, video)
    videos.hide(tx, video.id, at=tx.now_us)
    for attempt in videos.attempts_of(tx, video.id):
        videos.save_attempt(tx, erased(attempt))
    return moved


async def remove_films_of(store: Store, storage: Storage, removed: Sequence[Video]) -> None:
    """Of videos as they were before; what cannot be deleted now is left to the housekeeping."""
    films = [
        ExpiredFilm(video_id=video.id, expires_at=0, footage=footage)
        for video in removed
        if (footage := video.read_footage()) is not None
    ]
    try:
        await remove_films(store, storage, films)
    except Overloaded as exc:
        _log.warning("films.not_marked", count=len(films), why=str(exc))


def _own(tx: Tx, tenant_id: str, video_id: str) -> Video | None:
    video = videos.take(tx, video_id)
    if video is None or video.tenant_id != tenant_id or video.deleted_at is not None:
        return None
    return video


def _stop(tx: Tx, video: Video) -> Moved:
    return give_up(tx, video, "cancelled", "The video was cancelled.", cancelled=True)
