"""Who goes next where a provider has room for fewer videos than wait for it."""

from collections.abc import Iterable, Mapping
from heapq import heapify, heappop, heapreplace

import msgspec


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """A video that waits for a place at a provider."""

    tenant: str
    since: int
    """Microseconds, UTC."""
    video_id: str


def next_in(waiting: Iterable[Waiting], in_flight: Mapping[str, int], free: int) -> list[Waiting]:
    """
    Those who may go now, first first, at most `free`.

    Each place is for the tenant with the fewest in flight, those just let in counted; among equals, and
    within a tenant, for whoever has waited longest. `in_flight` takes a tenant to its number; one that
    is not there has none.
    """
    queues: dict[str, list[Waiting]] = {}
    for one in sorted(waiting, key=_by_wait, reverse=True):
        queues.setdefault(one.tenant, []).append(one)
    heads = [(in_flight.get(tenant, 0), _by_wait(queue[-1]), tenant) for tenant, queue in queues.items()]
    heapify(heads)
    let_in: list[Waiting] = []
    while heads and len(let_in) < free:
        count, _, tenant = heads[0]
        queue = queues[tenant]
        let_in.append(queue.pop())
        if queue:
            heapreplace(heads, (count + 1, _by_wait(queue[-1]), tenant))
        else:
            heappop(heads)
    return let_in


def _by_wait(one: Waiting) -> tuple[int, str]:
    return one.since, one.video_id
