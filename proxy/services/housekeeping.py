"""
Removes what has outlived its time: films, prompts, idempotency keys, outcomes.

Every step may be repeated, broken off anywhere and done by two at once: rows are found by a read, and the
statements that change them change nothing a second time. A file goes before its row says so, because a
second delete of a file that is gone costs nothing, and a file that no row tells of would stay for ever.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec
import structlog

from proxy.core.clock import DAY_US, SECOND_US
from proxy.core.errors import Overloaded
from proxy.outside.base import Listed, Storage, StorageFailed
from proxy.policy.rules import Retention
from proxy.services.deliver import video_named_by
from proxy.services.folding import fold
from proxy.services.house import House
from proxy.services.intake import IDEMPOTENCY_US
from proxy.store import budgets, upkeep, videos
from proxy.store.base import Store, Tx
from proxy.store.upkeep import ExpiredFilm

_log = structlog.get_logger("reelay.upkeep")

Row = TypeVar("Row")

EVERY_S = 300.0
FILES_EACH, PROMPTS_EACH, ROWS_EACH = 50, 100, 500
"""A batch: what one transaction, or one wait for the storage, is long."""
PAUSE_S = 0.02
"""Between two batches, in which requests have the database to themselves."""
OUTCOMES_US = 3600 * SECOND_US
LEFT_BEHIND_US = DAY_US
"""So old is a file that no copy can be about to claim any more."""


class Kept(msgspec.Struct, kw_only=True):
    """What a pass removed, or would remove."""

    files: int = 0
    file_bytes: int = 0
    files_stuck: int = 0
    """Expired, but the storage did not delete them; tried again by the next pass."""
    prompts: int = 0
    idempotency_keys: int = 0
    outcomes: int = 0
    counters: int = 0
    """Of budgets, for days and months long over."""

    @property
    def anything(self) -> bool:
        return any(getattr(self, name) for name in self.__struct_fields__)


async def keep_house_forever(house: House, *, every_s: float = EVERY_S) -> None:
    """A pass now and then, at times of its own in each process, until it is cancelled."""
    while True:
        await asyncio.sleep(every_s * (0.5 + house.chance()))
        try:
            kept = await keep_house(house.store, house.storage, house.rules.retention)
        except Overloaded as exc:
            _log.warning("upkeep.postponed", why=str(exc))
        except Exception:  # noqa: BLE001 - the next pass may find the world in a better state
            _log.exception("upkeep.broke")
        else:
            if kept.anything:
                _log.info("upkeep.done", **msgspec.structs.asdict(kept))


async def keep_house(store: Store, storage: Storage, retention: Retention, *, dry_run: bool = False) -> Kept:
    """
    One pass over everything, and over the sums of days, which need no row that it removes.

    Raises Overloaded where the database takes nothing; what was done stays done.
    """
    kept = Kept()
    await _films(store, storage, kept, dry_run=dry_run)
    prompts_us = retention.prompts_days * DAY_US
    if dry_run:

        def count(tx: Tx) -> None:
            kept.prompts = upkeep.count_old_prompts(tx, before=tx.now_us - prompts_us)
            kept.idempotency_keys = upkeep.count_old_keys(tx, before=tx.now_us - IDEMPOTENCY_US)
            kept.outcomes = upkeep.count_old_outcomes(tx, before=tx.now_us - OUTCOMES_US)
            kept.counters = budgets.count_old_counters(tx)

        await store.read(count)
        return kept
    kept.prompts = await _in_batches(
        store,
        lambda tx: upkeep.old_prompts(tx, before=tx.now_us - prompts_us, most=PROMPTS_EACH),
        upkeep.erase_prompts,
    )
    kept.idempotency_keys = await _in_batches(
        store,
        lambda tx: upkeep.old_keys(tx, before=tx.now_us - IDEMPOTENCY_US, most=ROWS_EACH),
        lambda tx, keys: upkeep.drop_keys(tx, keys, before=tx.now_us - IDEMPOTENCY_US),
    )
    kept.outcomes = await _in_batches(
        store,
        lambda tx: upkeep.old_outcomes(tx, before=tx.now_us - OUTCOMES_US, most=ROWS_EACH),
        upkeep.drop_outcomes,
    )
    await fold(store)
    kept.counters = await _in_batches(store, lambda tx: budgets.old_counters(tx, most=ROWS_EACH), budgets.drop_counters)
    return kept


async def _in_batches(
    store: Store, find: Callable[[Tx], Sequence[Row]], remove: Callable[[Tx, Sequence[Row]], int]
) -> int:
    """How many rows were removed, until there is no more to find."""
    removed = 0
    while found := await store.read(find):
        removed += await store.write(lambda tx, found=found: remove(tx, found))  # type: ignore[misc]  # the default binds this turn's rows
        await asyncio.sleep(PAUSE_S)
    return removed


# Films


async def _films(store: Store, storage: Storage, kept: Kept, *, dry_run: bool) -> None:
    last: ExpiredFilm | None = None
    while films := await store.read(lambda tx, last=last: upkeep.expired_films(tx, after=last, most=FILES_EACH)):  # type: ignore[misc]  # the default binds this turn's mark
        last = films[-1]
        gone = films if dry_run else await remove_films(store, storage, films)
        known = [film.footage for film in gone if film.footage is not None]
        kept.files += len(known)
        kept.file_bytes += sum(footage.size_bytes for footage in known)
        kept.files_stuck += len(films) - len(gone)
        await asyncio.sleep(PAUSE_S)


async def remove_films(store: Store, storage: Storage, films: Sequence[ExpiredFilm]) -> list[ExpiredFilm]:
    """Deletes the files, then says so; those that are gone now. One that stays is found again by every pass."""
    gone = []
    for film in films:
        try:
            if film.footage is not None:
                await storage.delete(film.footage.key)
        except StorageFailed as exc:
            _log.error("file.not_removed", video=film.video_id, why=str(exc))
        else:
            gone.append(film)
    if gone:
        await store.write(lambda tx: upkeep.films_gone(tx, [film.video_id for film in gone]))
    return gone


# Files that no row tells of


class LeftBehind(msgspec.Struct, kw_only=True):
    """What a look through the whole storage found."""

    files: int = 0
    """Copies of videos that have ended without them; a process was killed before it could delete them."""
    file_bytes: int = 0
    not_ours: int = 0
    """Films of videos that this database does not know, which are left alone: they may be another's."""


async def remove_left_behind(store: Store, storage: Storage, *, dry_run: bool = False) -> LeftBehind:
    """Removes files, older than a day, that no video refers to. Raises StorageFailed."""
    found = LeftBehind()
    async for page in storage.listing():
        files = await store.read(lambda tx, page=page: _unclaimed(tx, page, found))  # type: ignore[misc]  # the default binds this turn's page
        for file in files:
            if not dry_run:
                await storage.delete(file.key)
            found.files += 1
            found.file_bytes += file.size_bytes
    return found


def _unclaimed(tx: Tx, page: Sequence[Listed], found: LeftBehind) -> list[Listed]:
    unclaimed = []
    for file in page:
        video_id = video_named_by(file.key)
        if video_id is None or file.changed_at > tx.now_us - LEFT_BEHIND_US:
            continue
        video = videos.by_id(tx, video_id)
        if video is None:
            found.not_ours += 1
        elif not video.live and not _claims(video, file.key):
            # A live video may yet write this very file anew, and be delivered with it.
            unclaimed.append(file)
    return unclaimed


def _claims(video: videos.Video, key: str) -> bool:
    footage = video.read_footage()
    return video.file_removed_at is None and footage is not None and footage.key == key
