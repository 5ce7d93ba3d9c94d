"""Limits on what tenants and keys have under way at once, kept exactly. Inside transactions."""

from collections.abc import Collection
from math import ceil

import msgspec

from proxy.store import limits
from proxy.store.base import Tx
from proxy.store.limits import Subject, Whose
from proxy.store.videos import Video


class Full(msgspec.Struct, frozen=True, kw_only=True):
    """A limit that leaves no room for one more video."""

    whose: Whose
    limit: int

    def retry_after_s(self, expected_s: float) -> int:
        """About when the next of so many ends that take `expected_s` each and began one after the other."""
        return ceil(expected_s / (self.limit + 1))


class Room:
    """
    What the limits of tenants and keys leave for videos that are accepted in one unit, one after the other.

    Made before anything else of the unit: nobody else finds room there until it is kept.
    """

    def __init__(self, tx: Tx, *, tenant_ids: Collection[str], key_ids: Collection[str]) -> None:
        self._tx = tx
        self._limits = limits.take(tx, "tenant", tenant_ids) | limits.take(tx, "key", key_ids)
        self._left: dict[Subject, int] = {}
        """Of those that were asked about."""

    def take(self, video: Video) -> Full | None:
        """Takes room for it; where a limit leaves none, that one."""
        if not self._limits:
            return None
        subjects: list[Subject] = [("tenant", video.tenant_id)]
        if video.key_id is not None:
            subjects.insert(0, ("key", video.key_id))
        bounds = [one for one in subjects if one in self._limits]
        for one in bounds:
            limit = self._limits[one]
            if one not in self._left:
                under_way = limits.under_way(self._tx, one[0], video.tenant_id, video.key_id, most=limit)
                self._left[one] = limit - under_way
            if not self._left[one]:
                return Full(whose=one[0], limit=limit)
        for one in bounds:
            self._left[one] -= 1
        return None
