"""Who is at a provider and who waits for it, also while several processes count."""

import asyncio

from proxy.store import lanes, videos
from proxy.store.base import Store, Tx
from proxy.store.lanes import Place
from tests.databases import Database
from tests.store.rows import AT, MovedClock, add_attempts, add_videos, make_attempt, make_video


async def test_sending_and_running_attempts_are_there(store: Store) -> None:
    states = ["sending", "running", "done", "refused", "failed", "unknown", "lost"]
    for number, state in enumerate(states):
        await add_videos(store, make_video(id=f"video_{number}", tenant_id="acme" if number else "other"))
        await add_attempts(store, make_attempt(video_id=f"video_{number}", state=state))
    assert await store.read(lambda tx: lanes.in_flight(tx, "p")) == {"other": 1, "acme": 1}
    assert await store.read(lambda tx: lanes.in_flight(tx, "q")) == {}


def place(video_id: str, tenant: str, since: int, provider: str = "p") -> Place:
    return Place(video_id=video_id, provider=provider, tenant_id=tenant, since=since)


async def test_longest_waiting_of_each_tenant_are_told(store: Store) -> None:
    waiting = [place(f"video_{number}", "acme", AT + number) for number in range(5)]
    waiting.append(place("video_9", "other", AT + 9))
    await add_videos(store, *(make_video(id=one.video_id, tenant_id=one.tenant_id) for one in waiting))

    def all_wait(tx: Tx) -> None:
        for one in waiting:
            lanes.wait(tx, one)

    await store.write(all_wait)
    told = await store.read(lambda tx: lanes.waiting(tx, "p", of_each=2))
    assert sorted(told, key=lambda one: one.since) == [*waiting[:2], waiting[-1]]
    await store.write(lambda tx: lanes.leave(tx, "video_0", "p"))
    assert await store.read(lambda tx: lanes.places_of(tx, "video_0")) == set()
    assert await store.read(lambda tx: lanes.places_of(tx, "video_1")) == {"p"}
    assert await store.read(lanes.waited_for) == ["p"]
    told = await store.read(lambda tx: lanes.waiting(tx, "p", of_each=1))
    assert sorted(told, key=lambda one: one.since) == [waiting[1], waiting[-1]]
    assert await store.read(lambda tx: lanes.waiting(tx, "q", of_each=9)) == []


async def test_video_that_has_ended_waits_no_more(store: Store) -> None:
    await add_videos(store, make_video())
    await store.write(lambda tx: lanes.wait(tx, place("video_1", "acme", AT)))
    await store.write(lambda tx: videos.fail(tx, "video_1", "cancelled", "", at=AT))
    assert await store.read(lambda tx: lanes.waiting(tx, "p", of_each=9)) == []


async def test_two_processes_that_count_one_after_the_other_never_let_in_one_too_many(
    store: Store, database: Database, clock: MovedClock
) -> None:
    most, asking = 3, 12
    await add_videos(store, *(make_video(id=f"video_{number}") for number in range(asking)))
    beside = database.store(clock)
    await beside.open()

    def enter(tx: Tx, number: int) -> bool:
        lanes.lock(tx, "p")
        if sum(lanes.in_flight(tx, "p").values()) >= most:
            return False
        videos.insert_attempt(tx, make_attempt(video_id=f"video_{number}"))
        return True

    entered = await asyncio.gather(
        *((store, beside)[number % 2].write(lambda tx, number=number: enter(tx, number)) for number in range(asking))  # type: ignore[misc]  # binds
    )
    await beside.close()
    assert sum(entered) == most
    assert await store.read(lambda tx: lanes.in_flight(tx, "p")) == {"acme": most}
