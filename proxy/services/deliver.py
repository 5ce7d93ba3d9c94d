"""Copies a finished film into our storage, measures it, and only then lets the customer see `completed`."""

import asyncio
import re
import time
from contextlib import suppress
from urllib.parse import urlsplit

import msgspec
import structlog

from proxy.core.attempt import Attempt
from proxy.core.clock import DAY_US, SECOND_US
from proxy.core.errors import CommitUnknown, LeaseLost, Overloaded, SellerError
from proxy.core.video import Footage
from proxy.outside.base import StorageFailed
from proxy.outside.film import NotAFilm
from proxy.services import settle
from proxy.services.asking import fresh_link
from proxy.services.dispatch import KEEP_AGAIN_S, give_up
from proxy.services.due import leave
from proxy.services.house import House
from proxy.services.settle import Moved
from proxy.services.told import tell
from proxy.store import videos, work
from proxy.store.base import Tx
from proxy.store.videos import Video
from proxy.store.work import Claim

_log = structlog.get_logger("reelay.video")

LONGEST_PAUSE_S = 300.0
DOUBLINGS_MAX = 9
"""Of the pause of two seconds; then it is at its longest."""


async def deliver(house: House, claim: Claim, video: Video, attempt: Attempt) -> None:
    """
    One try to bring a `done` attempt home; never renders again. Raises LeaseLost.

    A video that is over gets no copy, only its bill.
    """
    if not video.live:
        await _conclude(house, claim, attempt)
        return
    key = _key(video, attempt, claim)
    begun = time.perf_counter()
    try:
        footage = await _copy(house, attempt, key)
    except Exception as exc:  # noqa: BLE001 - whatever a link or a disk does, the copy has failed and has an end
        known = isinstance(exc, SellerError | StorageFailed)
        if isinstance(exc, StorageFailed):
            house.metrics.store_failed(store="files")
        else:
            _tell_fetch(house, attempt, "garbled", begun)
        _log.warning(
            "copy.failed",
            video=video.id,
            attempt=attempt.number,
            tries=attempt.fetches + 1,
            why=str(exc) if known else type(exc).__name__,
            exc_info=None if known else exc,
        )
        await _try_later(house, claim, video, attempt)
        return
    _tell_fetch(house, attempt, "ok", begun)
    await _complete(house, claim, attempt, footage)


def _key(video: Video, attempt: Attempt, claim: Claim) -> str:
    """Where the copy made under this claim lies, and no other: a copier that lost its lease spoils nobody's."""
    return f"{video.tenant_id}/{video.id}-{attempt.number}-{claim.fence}.mp4"


def video_named_by(key: str) -> str | None:
    """The id of the video whose copy lies there; None for a file that is none of ours."""
    named = re.fullmatch(r"[^/]+/(video_[0-9A-Za-z_]+)-[0-9]+-[0-9]+\.mp4", key)
    return None if named is None else named[1]


def _tell_fetch(house: House, attempt: Attempt, outcome: str, begun: float) -> None:
    house.metrics.exchange(
        provider=attempt.provider, operation="fetch", outcome=outcome, seconds=time.perf_counter() - begun
    )


async def _copy(house: House, attempt: Attempt, key: str) -> Footage:
    desk = house.desk(attempt.provider)
    assert attempt.link is not None, "done means that the seller has named its file"
    trusted = () if desk is None else (urlsplit(desk[0].base_url).hostname or "", *desk[0].asset_hosts)
    async with house.fetcher.open(attempt.link, trusted) as download:
        stored = await house.storage.put(key, download.chunks)
    try:
        measured = await house.storage.measure(key)
    except NotAFilm:
        await house.storage.delete(key)
        raise
    return Footage(
        key=key,
        size_bytes=stored.size_bytes,
        sha256=stored.sha256,
        duration_ms=measured.duration_ms,
        width_px=measured.width_px,
        height_px=measured.height_px,
        has_audio=measured.has_audio,
    )


async def _complete(house: House, claim: Claim, attempt: Attempt, footage: Footage) -> None:
    def unit(tx: Tx) -> tuple[Video, Moved]:
        moved = Moved()
        video, now_is = videos.take_attempt(tx, attempt.video_id, attempt.number)
        work.check(tx, claim)
        if not video.live:
            settle.conclude(tx, video, _billed(video, now_is), moved, finished=True)
        elif _completed(tx, house, video, attempt, footage):
            tolerance = house.rules.cost_tolerance
            settle.complete(tx, video, video.read_spec(), now_is, footage, moved, tolerance=tolerance)
            moved.ended = "completed"
            leave(tx, video.id)
        work.done(tx, video.id, attempt.number)
        return video, moved

    while True:
        try:
            video, moved = await house.store.write(unit)
            break
        except LeaseLost:
            await discard(house, footage.key)
            raise
        except CommitUnknown:
            # It may be delivered: then the work is gone, which would look like a lease that was lost.
            raise
        except Overloaded as exc:
            # The film is in its place: another try would copy it once more, and fill a full disk further.
            _log.error("delivery.not_kept", video=attempt.video_id, attempt=attempt.number, why=str(exc))
            await asyncio.sleep(KEEP_AGAIN_S)
    tell(house, video, moved)
    if moved.ended != "completed":
        await discard(house, footage.key)


def _completed(tx: Tx, house: House, video: Video, attempt: Attempt, footage: Footage) -> bool:
    expires_at = tx.now_us + house.rules.retention.files_days * DAY_US
    return videos.complete(tx, video.id, attempt.number, footage, at=tx.now_us, expires_at=expires_at)


async def discard(house: House, key: str) -> None:
    """Removes a file that nothing refers to any more; one that stays is told to the operators."""
    try:
        await house.storage.delete(key)
    except StorageFailed as exc:
        house.metrics.store_failed(store="files")
        _log.error("file.left_behind", file=key, why=str(exc))


def _billed(video: Video, attempt: Attempt) -> Attempt:
    """
    A film that nobody fetched was made all the same: where the seller names no cost, its price counts.

    Where the seller chose the length too, nobody knows how much that is.
    """
    if attempt.cost_microusd is not None or video.read_spec().seconds is None:
        return attempt
    candidate = settle.candidate_of(video.read_plan(), attempt)
    return msgspec.structs.replace(attempt, cost_microusd=candidate.seller_microusd)


async def _conclude(house: House, claim: Claim, attempt: Attempt) -> None:
    def unit(tx: Tx) -> tuple[Video, Moved]:
        moved = Moved()
        video, now_is = videos.take_attempt(tx, attempt.video_id, attempt.number)
        work.check(tx, claim)
        if now_is.bearer is None:
            settle.conclude(tx, video, _billed(video, now_is), moved, finished=True)
        work.done(tx, video.id, attempt.number)
        return video, moved

    video, moved = await house.store.write(unit)
    tell(house, video, moved)
    # A copy that was finished just before the video ended, perhaps by a process that died then, is nobody's.
    for fence in range(max(1, claim.fence - 2), claim.fence + 1):
        await discard(house, _key(video, attempt, msgspec.structs.replace(claim, fence=fence)))


async def _try_later(house: House, claim: Claim, video: Video, attempt: Attempt) -> None:
    """With a fresh link where the seller gives one; at the end of the link's lifetime the copy has failed."""
    candidate = settle.candidate_of(video.read_plan(), attempt)
    link = None
    with suppress(SellerError):
        link = await fresh_link(house, attempt)
    tries = attempt.fetches + 1
    pause_s = min(LONGEST_PAUSE_S, 2.0 ** min(tries, DOUBLINGS_MAX))
    pause_us = int(pause_s * (0.5 + house.chance() / 2) * SECOND_US)

    def unit(tx: Tx) -> tuple[Video, Moved]:
        now, now_is = videos.take_attempt(tx, attempt.video_id, attempt.number)
        work.check(tx, claim)
        if not now.live:
            work.again(tx, claim, tx.now_us)
            return now, Moved()
        videos.save_attempt(tx, msgspec.structs.replace(now_is, fetches=tries, link=link or now_is.link))
        done_at = now_is.ended_at or tx.now_us
        if tx.now_us + pause_us < done_at + candidate.link_lifetime_s * SECOND_US:
            work.again(tx, claim, tx.now_us + pause_us)
            return now, Moved()
        moved = give_up(tx, now, "storage_error", "The finished video could not be copied before its link expired.")
        work.again(tx, claim, tx.now_us)
        return now, moved

    now, moved = await house.store.write(unit)
    tell(house, now, moved)
