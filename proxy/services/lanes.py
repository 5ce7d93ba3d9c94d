"""
Where videos wait for a provider: for one of its `max_in_flight` places, or for leave to ask it again.

The turn is the tenant's with the fewest there, so that one who asks for much keeps nobody out.
"""

from collections.abc import Collection, Iterable

from proxy.core.account import Account
from proxy.policy.fair import Waiting, next_in
from proxy.services.house import House
from proxy.store import lanes, work
from proxy.store.base import Tx
from proxy.store.lanes import Place
from proxy.store.videos import Video


def lock(tx: Tx, house: House, providers: Iterable[str]) -> None:
    """Nobody else counts at those of these that are limited until this unit is kept; in one order for everybody."""
    for provider in sorted(set(providers)):
        account = house.rules.accounts.get(provider)
        if account is not None and account.max_in_flight is not None:
            lanes.lock(tx, provider)


def admitted(tx: Tx, account: Account, video: Video) -> bool:
    """Whether the video may be sent there in this unit; exact, also beside other processes, where it is locked."""
    if account.max_in_flight is None:
        return True
    free = account.max_in_flight - lanes.count(tx, account.name)
    return video.id in _next(tx, account.name, free, _newcomer(tx, video))


def wait_at(tx: Tx, video: Video, providers: Collection[str]) -> None:
    """The video waits at these from now on, and nowhere else; `usher` wakes it."""
    there = lanes.places_of(tx, video.id)
    for provider in there.difference(providers):
        lanes.leave(tx, video.id, provider)
    for provider in sorted(set(providers) - there):
        lanes.wait(tx, Place(video_id=video.id, provider=provider, tenant_id=video.tenant_id, since=tx.now_us))


async def usher(house: House) -> None:
    """Wakes whoever may go now: as many as there are places for, and no more than may ask again."""
    waited_for = await house.store.read(lanes.waited_for)
    for provider in waited_for:
        account = house.rules.accounts.get(provider)
        most = None if account is None else account.max_in_flight
        room = house.retrying.room(provider, "submit")
        called = await house.store.read(
            lambda tx, provider=provider, most=most, room=room: _called(tx, provider, most, room)  # type: ignore[misc]  # the defaults bind the loop's values
        )
        if called:
            await house.store.write(lambda tx, called=called: _wake(tx, called))  # type: ignore[misc]  # the same
            house.due.set()


def _called(tx: Tx, provider: str, most: int | None, room: int) -> list[str]:
    free = room if most is None else min(room, most - lanes.count(tx, provider))
    return _next(tx, provider, free)


def _newcomer(tx: Tx, video: Video) -> Waiting:
    return Waiting(tenant=video.tenant_id, since=tx.now_us, video_id=video.id)


def _next(tx: Tx, provider: str, free: int, newcomer: Waiting | None = None) -> list[str]:
    if free <= 0:
        return []
    waiting = {
        place.video_id: Waiting(tenant=place.tenant_id, since=place.since, video_id=place.video_id)
        for place in lanes.waiting(tx, provider, of_each=free)
    }
    if newcomer is not None:
        waiting.setdefault(newcomer.video_id, newcomer)
    if len(waiting) <= free:
        return list(waiting)
    return [one.video_id for one in next_in(waiting.values(), lanes.in_flight(tx, provider), free)]


def _wake(tx: Tx, called: list[str]) -> None:
    for video_id in sorted(called):
        work.nudge(tx, video_id, 0)
