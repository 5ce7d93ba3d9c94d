"""
Erases an end user: afterwards no row holds the name or the person's words, no file is theirs, and every bill stands.

The name behind the surrogate goes, and each of that user's videos is deleted as its tenant would delete it:
cancelled where it still runs, its prompt, metadata and film erased, hidden. The film too, because it shows
what the person asked for, and often the person. Ledger rows stay under the surrogate, which says nothing
by itself; so do videos as rows without words, for sellers may still bill them.

Broken off half-way, it is simply asked for again: the name goes last, with the row in the admins' log, so
until all is done the user can be found.
"""

import re
from collections.abc import Callable

import msgspec

from proxy.core.errors import InvalidValue, NotFound
from proxy.core.ids import NewId
from proxy.outside.base import Storage
from proxy.services import acts
from proxy.services.accounts import known_tenant
from proxy.services.cancel import remove, remove_films_of
from proxy.services.settle import Moved
from proxy.store import budgets, tenants, videos
from proxy.store.base import Store, Tx
from proxy.store.videos import Video

VIDEOS_EACH = 50
"""Erased in one transaction."""


class ErasureWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who is to be erased, and why."""

    end_user_id: str
    reason: str | None = None
    """Kept in the admins' log; may not hold the name."""


class Erased(msgspec.Struct, frozen=True, kw_only=True):
    """What is left of an end user."""

    tenant: str
    end_user: str
    """The surrogate, under which the ledger's rows stay."""
    videos: int
    """Deleted just now."""


async def erase_end_user(
    store: Store,
    storage: Storage,
    new_id: NewId,
    told: Callable[[Video, Moved], object],
    *,
    actor: str,
    tenant: str,
    wish: ErasureWish,
) -> Erased:
    """
    `told` hears of each video once its erasure is committed. From the end on the same name is a new end user.

    Raises NotFound for no such tenant or end user, InvalidValue for a reason that names the person.
    """
    _check_reason(wish)

    def find(tx: Tx) -> tuple[str, str]:
        known = known_tenant(tx, tenant)
        surrogate = tenants.surrogate_of(tx, known.id, wish.end_user_id)
        if surrogate is None:
            raise NotFound("This tenant has no end user of that name.", param="end_user_id")
        return known.id, surrogate

    tenant_id, surrogate = await store.read(find)
    count = await _delete_all(store, storage, tenant_id, surrogate, told)

    def forget(tx: Tx) -> None:
        budgets.drop_end_user(tx, tenant_id, surrogate)
        videos.forget_metadata(tx, tenant_id, surrogate)
        if tenants.forget_name(tx, tenant_id, surrogate):
            acts.record(
                tx,
                new_id,
                at=tx.now_us,
                actor=actor,
                action="end_user.erase",
                subject=f"{tenant_id}/{surrogate}",
                reason=wish.reason,
            )

    await store.write(forget)
    # What was accepted in this person's name while the others were being deleted.
    count += await _delete_all(store, storage, tenant_id, surrogate, told)
    await store.write(lambda tx: videos.forget_metadata(tx, tenant_id, surrogate))
    return Erased(tenant=tenant_id, end_user=surrogate, videos=count)


def _check_reason(wish: ErasureWish) -> None:
    acts.check_text("reason", wish.reason, acts.REASON_MAX_CHARS)
    if re.search(rf"(?<!\w){re.escape(wish.end_user_id)}(?!\w)", wish.reason or "", re.IGNORECASE):
        raise InvalidValue("'reason' is kept for ever and may not hold the name.", param="reason")


async def _delete_all(
    store: Store, storage: Storage, tenant_id: str, surrogate: str, told: Callable[[Video, Moved], object]
) -> int:
    count = 0
    last: Video | None = None
    while page := await store.read(
        lambda tx, last=last: videos.page(  # type: ignore[misc]  # the default binds this turn's mark
            tx, tenant_id, end_user=surrogate, after=last, newest_first=False, most=VIDEOS_EACH
        )
    ):
        last = page[-1]
        removed = await store.write(lambda tx, page=page: _remove(tx, page))  # type: ignore[misc]  # the same
        for video, moved in removed:
            told(video, moved)
        await remove_films_of(store, storage, [video for video, _ in removed])
        count += len(removed)
    return count


def _remove(tx: Tx, page: list[Video]) -> list[tuple[Video, Moved]]:
    removed = []
    for video_id in sorted(one.id for one in page):
        video = videos.take(tx, video_id)
        if video is not None and video.deleted_at is None:
            removed.append((video, remove(tx, video)))
    return removed
