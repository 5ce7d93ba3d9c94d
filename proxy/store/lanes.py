"""Providers that take so many at once and no more: who is there, and who waits."""

import msgspec
from sqlalchemy import bindparam, delete, func, insert, select

from proxy.store.base import Statement, Tx
from proxy.store.tables import attempts, lanes, places, videos


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `places`; the columns are described in tables.py."""

    video_id: str
    provider: str
    tenant_id: str
    since: int


_LOCK = Statement(select(lanes.c.provider).where(lanes.c.provider == bindparam("provider")).with_for_update())
_OPEN = Statement(insert(lanes).values(provider=bindparam("provider")))
_IN_FLIGHT = Statement(
    select(videos.c.tenant_id, func.count())
    .join(videos, videos.c.id == attempts.c.video_id)
    .where(attempts.c.provider == bindparam("provider"), attempts.c.state.in_(["sending", "running"]))
    .group_by(videos.c.tenant_id)
)
_COUNT = Statement(
    select(func.count())
    .select_from(attempts)
    .where(attempts.c.provider == bindparam("provider"), attempts.c.state.in_(["sending", "running"]))
)
_NAMES = Place.__struct_fields__
_turn = (
    select(
        *[places.c[name] for name in _NAMES],
        func.row_number()
        .over(partition_by=places.c.tenant_id, order_by=[places.c.since, places.c.video_id])
        .label("turn"),
    )
    .join(videos, videos.c.id == places.c.video_id)
    .where(places.c.provider == bindparam("provider"), videos.c.status.in_(["queued", "in_progress"]))
    .subquery("turns")
)
_WAITING = Statement(select(*[_turn.c[name] for name in _NAMES]).where(_turn.c.turn <= bindparam("of_each")))
_PLACES_OF = Statement(select(places.c.provider).where(places.c.video_id == bindparam("video_id")))
_WAITED_FOR = Statement(select(places.c.provider).distinct().order_by(places.c.provider))
_TAKE_PLACE = Statement(insert(places).values({name: bindparam(name) for name in _NAMES}))
_LEAVE = Statement(
    delete(places).where(places.c.video_id == bindparam("video_id"), places.c.provider == bindparam("provider"))
)


def lock(tx: Tx, provider: str) -> None:
    """Whoever counts there after this waits until this unit is kept."""
    if tx.one(_LOCK, provider=provider) is None:
        tx.run(_OPEN, provider=provider)


def in_flight(tx: Tx, provider: str) -> dict[str, int]:
    """Tenant to its attempts that are at the provider, or on their way there."""
    return {row[0]: int(row[1]) for row in tx.rows(_IN_FLIGHT, provider=provider)}


def count(tx: Tx, provider: str) -> int:
    """The sum of these."""
    row = tx.one(_COUNT, provider=provider)
    return 0 if row is None else int(row[0])


def waiting(tx: Tx, provider: str, *, of_each: int) -> list[Place]:
    """The longest waiting of each tenant, so many at the most."""
    return [
        Place(**dict(zip(_NAMES, row, strict=True))) for row in tx.rows(_WAITING, provider=provider, of_each=of_each)
    ]


def waited_for(tx: Tx) -> list[str]:
    """Providers at which somebody waits."""
    return [row[0] for row in tx.rows(_WAITED_FOR)]


def places_of(tx: Tx, video_id: str) -> set[str]:
    """Providers at which this video waits."""
    return {row[0] for row in tx.rows(_PLACES_OF, video_id=video_id)}


def wait(tx: Tx, place: Place) -> None:
    """A place in the queue; one that is there already breaks the unit."""
    tx.run(_TAKE_PLACE, **{name: getattr(place, name) for name in _NAMES})


def leave(tx: Tx, video_id: str, provider: str) -> None:
    """The video waits there no more."""
    tx.run(_LEAVE, video_id=video_id, provider=provider)
