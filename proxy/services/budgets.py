"""Budgets at work: what a request has left, and the counters that move with holds and charges. Inside transactions."""

from collections.abc import Sequence

import msgspec

from proxy.core.budget import Budget, CounterKey, counters_of
from proxy.policy.budgets import UNBOUND, Crossed, Standing, applying, counter_of, crossed, standing
from proxy.store import budgets
from proxy.store.base import Tx
from proxy.store.videos import Video


class Admission(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a video fits the budgets that apply to it; where it does, it is counted."""

    refused: Standing | None = None
    """How they stand, where one of them leaves too little."""
    crossed: tuple[Crossed, ...] = ()


ADMITTED = Admission()


def look(tx: Tx, tenant_id: str, *, key_id: str, end_user: str | None, at_us: int) -> Standing:
    """How those of a tenant's budgets stand that apply, without holding anything; `end_user` is a surrogate."""
    theirs = budgets.bounding(tx, [tenant_id], {key_id, end_user or ""}).get(tenant_id, [])
    those = applying(theirs, key_id=key_id, end_user=end_user)
    if not those:
        return UNBOUND
    keys = sorted({counter_of(one, end_user=end_user, at_us=at_us) for one in those})
    used = budgets.used(tx, keys)
    used |= {key: budgets.spent(tx, key, held_still=False) for key in keys if key not in used}
    return standing(those, used, end_user=end_user, at_us=at_us)


def admit_many(tx: Tx, rows: Sequence[Video]) -> list[Admission]:
    """
    Counts each of these in its budgets, in their order, or tells what is left for it.

    Nobody else counts at these counters until the unit is kept, so all that are admitted fit together.
    """
    subjects = {subject for video in rows for subject in (video.key_id, video.end_user) if subject is not None}
    of = budgets.share(tx, sorted({video.tenant_id for video in rows}), subjects)
    if not of:
        return [ADMITTED] * len(rows)
    applies = [applying(of.get(row.tenant_id, ()), key_id=row.key_id, end_user=row.end_user) for row in rows]
    asked = zip(rows, applies, strict=True)
    wanted = {counter_of(one, end_user=row.end_user, at_us=row.created_at) for row, those in asked for one in those}
    used = taken(tx, sorted(wanted))
    before = dict(used)
    admissions = [_admit(row, those, used) for row, those in zip(rows, applies, strict=True)]
    budgets.add(tx, {key: used[key] - before[key] for key in used})
    return admissions


def _admit(video: Video, those: Sequence[Budget], used: dict[CounterKey, int]) -> Admission:
    """Changes `used` where the video is admitted."""
    at_us, hold = video.created_at, video.hold_microusd
    now = standing(those, used, end_user=video.end_user, at_us=at_us)
    if now.left_microusd is not None and hold > now.left_microusd:
        return Admission(refused=now)
    told: list[Crossed] = []
    for one in those:
        before = used[counter_of(one, end_user=video.end_user, at_us=at_us)]
        told += crossed(one, before=before, after=before + hold, at_us=at_us)
    for key in {counter_of(one, end_user=video.end_user, at_us=at_us) for one in those}:
        used[key] += hold
    return Admission(crossed=tuple(told))


def taken(tx: Tx, keys: Sequence[CounterKey]) -> dict[CounterKey, int]:
    """What is counted there; a counter that was not there is made, and finds what was accepted before it."""
    found = budgets.take_counters(tx, keys)
    for key in keys:
        if key not in found:
            found[key] = budgets.spent(tx, key)
            budgets.insert_counter(tx, key, found[key])
    return found


def moved(tx: Tx, video: Video, by_microusd: int) -> None:
    """The hold of a video has become a charge, or nothing: its counters follow, those that are there."""
    if not by_microusd:
        return
    keys = counters_of(video.tenant_id, video.key_id, video.end_user, video.created_at)
    budgets.add(tx, dict.fromkeys(budgets.take_counters(tx, keys), by_microusd))
