"""
Providers that take `max_in_flight` attempts at once: a video goes there if there is room, or waits for its turn.

The turn is the tenant's with the fewest there, so that one who asks for much keeps nobody out.
"""

from proxy.core.account import Account
from proxy.policy.fair import Waiting, next_in
from proxy.services.house import House
from proxy.store import lanes, work
from proxy.store.base import Tx
from proxy.store.lanes import Place
from proxy.store.videos import Video


def admitted(tx: Tx, account: Account, video: Video) -> bool:
    """Whether the video may be sent there in this unit; exact, also beside other processes."""
    if account.max_in_flight is None:
        return True
    lanes.lock(tx, account.name)
    return video.id in _next(tx, account, account.max_in_flight, _newcomer(tx, video))


def wait(tx: Tx, provider: str, video: Video) -> None:
    """The video waits there; `usher` wakes it."""
    lanes.wait(tx, Place(video_id=video.id, provider=provider, tenant_id=video.tenant_id, since=tx.now_us))


def leave(tx: Tx, house: House, video: Video) -> None:
    """It is on its way, and waits nowhere any more."""
    if any(account.max_in_flight is not None for account in house.rules.accounts.values()):
        lanes.leave(tx, video.id)


async def usher(house: House) -> None:
    """Wakes whoever may go now, at every provider that is limited."""
    limited = [account for account in house.rules.accounts.values() if account.max_in_flight is not None]
    for account in limited:
        most = account.max_in_flight or 0
        called = await house.store.read(lambda tx, account=account, most=most: _next(tx, account, most))  # type: ignore[misc]  # the defaults bind the loop's values
        if called:
            await house.store.write(lambda tx, called=called: _wake(tx, called))  # type: ignore[misc]  # the same
            house.due.set()


def _newcomer(tx: Tx, video: Video) -> Waiting:
    return Waiting(tenant=video.tenant_id, since=tx.now_us, video_id=video.id)


def _next(tx: Tx, account: Account, most: int, newcomer: Waiting | None = None) -> list[str]:
    free = most - lanes.count(tx, account.name)
    if free <= 0:
        return []
    waiting = {
        place.video_id: Waiting(tenant=place.tenant_id, since=place.since, video_id=place.video_id)
        for place in lanes.waiting(tx, account.name, of_each=free)
    }
    if newcomer is not None:
        waiting.setdefault(newcomer.video_id, newcomer)
    if len(waiting) <= free:
        return list(waiting)
    return [one.video_id for one in next_in(waiting.values(), lanes.in_flight(tx, account.name), free)]


def _wake(tx: Tx, called: list[str]) -> None:
    for video_id in sorted(called):
        work.nudge(tx, video_id, 0)
