"""What is due is claimed by one worker at a time, and whoever lost a lease can write nothing."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from proxy.core.errors import LeaseLost
from proxy.store import work
from proxy.store.base import Store, Tx
from proxy.store.work import Claim, Next
from tests.databases import BROKEN, Database
from tests.store.rows import AT, MovedClock, add_videos, make_video

SECOND_US = 1_000_000
LEASE_US = 60 * SECOND_US


async def add(store: Store, *rows: tuple[str, int, int]) -> None:
    """Work, and the videos that it is for."""
    await add_videos(store, *(make_video(id=video) for video in {video for video, _, _ in rows}))
    await store.write(lambda tx: work.add(tx, rows))


async def claim(store: Store, *, owner: str = "w", most: int = 10) -> list[Claim]:
    return await store.write(lambda tx: work.claim(tx, owner, most=most, lease_us=LEASE_US))


async def only_claim(store: Store) -> Claim:
    (held,) = await claim(store)
    return held


async def still_ours(store: Store, held: Claim) -> bool:
    try:
        await store.write(lambda tx: work.check(tx, held))
    except LeaseLost:
        return False
    return True


def names(claims: list[Claim]) -> list[tuple[str, int]]:
    return [(each.video_id, each.attempt_no) for each in claims]


# Claiming


async def test_what_is_due_is_claimed_the_longest_due_first(store: Store) -> None:
    await add(store, ("video_a", 0, AT - 1), ("video_b", 0, AT - 3), ("video_b", 1, AT), ("video_c", 0, AT + 1))
    claims = await claim(store)
    assert names(claims) == [("video_b", 0), ("video_a", 0), ("video_b", 1)]
    assert {each.lease_until for each in claims} == {AT + LEASE_US}
    assert [each.due_at for each in claims] == [AT - 3, AT - 1, AT], "when it was due, for the lag"


async def test_no_more_is_claimed_than_asked_for(store: Store) -> None:
    await add(store, *((f"video_{number}", 0, AT - number) for number in range(5)))
    assert names(await claim(store, most=2)) == [("video_4", 0), ("video_3", 0)]
    assert names(await claim(store, most=2)) == [("video_2", 0), ("video_1", 0)]


async def test_claimed_row_is_nobody_elses_until_its_lease_ends(store: Store, clock: MovedClock) -> None:
    await add(store, ("video_a", 0, AT))
    first = await only_claim(store)
    clock.now_us = first.lease_until - 1
    assert await claim(store) == []
    clock.now_us = first.lease_until
    second = await only_claim(store)
    assert second.fence == first.fence + 1
    assert not await still_ours(store, first)
    assert await still_ours(store, second)


async def test_two_claimers_never_get_the_same_row(database: Database, store: Store, clock: MovedClock) -> None:
    rows = [(f"video_{number:03}", 0, AT - number) for number in range(200)]
    await add(store, *rows)
    beside = database.store(clock)
    await beside.open()
    every = await asyncio.gather(
        *(claim(each, owner=owner, most=7) for _ in range(20) for owner, each in (("a", store), ("b", beside)))
    )
    await beside.close()
    got = [name for claims in every for name in names(claims)]
    assert sorted(got) == sorted((video, number) for video, number, _ in rows)


async def test_lapsed_lease_is_still_ours_while_nobody_else_came(store: Store, clock: MovedClock) -> None:
    await add(store, ("video_a", 0, AT))
    held = await only_claim(store)
    clock.now_us = held.lease_until + 1
    await store.write(lambda tx: work.again(tx, held, clock.now_us + 5))
    assert await claim(store) == []


# The fence

Act = Callable[[Tx, Claim], Any]


@pytest.mark.parametrize("act", [work.check, lambda tx, held: work.again(tx, held, AT)], ids=["check", "again"])
async def test_old_holder_can_do_nothing(store: Store, clock: MovedClock, act: Act) -> None:
    await add(store, ("video_a", 1, AT))
    old = await only_claim(store)
    clock.now_us = old.lease_until
    new = await only_claim(store)
    with pytest.raises(LeaseLost, match="video_a/1"):
        await store.write(lambda tx: act(tx, old))
    await store.write(lambda tx: act(tx, new))


@pytest.mark.parametrize("act", [work.check, lambda tx, held: work.again(tx, held, AT)], ids=["check", "again"])
async def test_holder_of_a_row_that_is_gone_has_lost_it(store: Store, act: Act) -> None:
    await add(store, ("video_a", 0, AT))
    held = await only_claim(store)
    await store.write(lambda tx: work.done(tx, "video_a", 0))
    with pytest.raises(LeaseLost):
        await store.write(lambda tx: act(tx, held))


async def test_row_let_go_is_due_again_when_it_was_said(store: Store, clock: MovedClock) -> None:
    await add(store, ("video_a", 0, AT))
    held = await only_claim(store)
    await store.write(lambda tx: work.again(tx, held, AT + 5))
    assert await store.read(work.next_due) == AT + 5
    assert await claim(store) == []
    clock.now_us = AT + 5
    assert (await only_claim(store)).fence == held.fence + 1


async def test_many_are_let_go_and_the_lost_one_is_left_to_its_holder(store: Store, clock: MovedClock) -> None:
    await add(store, ("video_a", 0, AT), ("video_b", 0, AT + LEASE_US))
    (lost,) = await claim(store)
    clock.now_us = AT + LEASE_US
    again, kept = await claim(store)
    rows = [Next(claim=lost, due_at=1), Next(claim=kept, due_at=clock.now_us + 9)]
    await store.write(lambda tx: work.again_many(tx, rows))
    assert await still_ours(store, again)
    assert await claim(store) == [], "one is held, the other not yet due"
    assert await store.read(work.next_due) == clock.now_us + 9


async def test_lease_is_made_longer_for_those_that_are_still_ours(store: Store, clock: MovedClock) -> None:
    await add(store, ("video_a", 0, AT), ("video_b", 0, AT + LEASE_US))
    (lost,) = await claim(store)
    clock.now_us = AT + LEASE_US
    taken, kept = await claim(store)
    await store.write(lambda tx: work.extend(tx, [lost, kept], lease_us=5 * LEASE_US))
    clock.now_us = taken.lease_until
    assert names(await claim(store)) == [("video_a", 0)]
    clock.now_us = AT + 6 * LEASE_US
    assert ("video_b", 0) in names(await claim(store))


# A nudge


async def test_nudge_makes_a_free_row_due_now(store: Store, clock: MovedClock) -> None:
    await add(store, ("video_a", 0, AT + 1000))
    clock.now_us = AT + 10
    assert await store.write(lambda tx: work.nudge(tx, "video_a", 0))
    assert (await only_claim(store)).due_at == AT + 10


async def test_nudge_takes_a_row_that_was_due_no_place_in_the_queue(store: Store) -> None:
    await add(store, ("video_a", 0, AT - 20), ("video_b", 0, AT - 10))
    assert await store.write(lambda tx: work.nudge(tx, "video_a", 0))
    assert names(await claim(store, most=1)) == [("video_a", 0)]


async def test_nudge_of_a_held_row_is_heeded_when_its_holder_lets_go(store: Store) -> None:
    await add(store, ("video_a", 0, AT))
    held = await only_claim(store)
    assert await store.write(lambda tx: work.nudge(tx, "video_a", 0))
    assert await claim(store) == [], "its holder works undisturbed"
    await store.write(lambda tx: work.again(tx, held, AT + 1000))
    second = await only_claim(store)
    await store.write(lambda tx: work.again(tx, second, AT + 1000))
    assert await claim(store) == [], "a nudge counts once"


async def test_nudge_is_heeded_where_many_are_let_go_too(store: Store) -> None:
    await add(store, ("video_a", 0, AT))
    held = await only_claim(store)
    await store.write(lambda tx: work.nudge(tx, "video_a", 0))
    await store.write(lambda tx: work.again_many(tx, [Next(claim=held, due_at=AT + 1000)]))
    assert names(await claim(store)) == [("video_a", 0)]


async def test_nudge_of_nothing_says_so(store: Store) -> None:
    assert await store.write(lambda tx: work.nudge(tx, "video_a", 0)) is False


# Rows that come and go


async def test_row_is_made_once_and_moved_after(store: Store) -> None:
    await add_videos(store, make_video(id="video_a"))
    await store.write(lambda tx: work.ensure(tx, "video_a", 1, AT + 50))
    assert await store.read(work.next_due) == AT + 50
    await store.write(lambda tx: work.ensure(tx, "video_a", 1, AT + 20))
    assert await store.read(work.next_due) == AT + 20
    await store.write(lambda tx: work.move(tx, "video_a", 1, AT))
    assert names(await claim(store)) == [("video_a", 1)]


async def test_row_that_is_done_is_gone(store: Store) -> None:
    await add(store, ("video_a", 0, AT), ("video_a", 1, AT))
    await store.write(lambda tx: work.done(tx, "video_a", 1))
    await store.write(lambda tx: work.done(tx, "video_a", 1))
    assert names(await claim(store)) == [("video_a", 0)]


async def test_work_is_for_a_video_that_exists(store: Store) -> None:
    with pytest.raises(BROKEN):
        await store.write(lambda tx: work.add(tx, [("video_missing", 0, AT)]))


async def test_restart_frees_what_the_dead_process_held(store: Store) -> None:
    await add(store, ("video_a", 0, AT), ("video_b", 0, AT))
    before = await claim(store, owner="dead")
    await store.write(work.release_all)
    after = await claim(store, owner="new")
    assert sorted(names(after)) == sorted(names(before))
    assert {each.fence for each in after} == {2}
    assert not await still_ours(store, before[0])


async def test_what_waits_is_told(store: Store) -> None:
    assert await store.read(work.next_due) is None
    assert not await store.read(work.any_due)
    assert await store.read(work.overdue) == (0, 0)
    await add(store, ("video_a", 0, AT), ("video_b", 0, AT - 5), ("video_c", 0, AT + 7))
    assert await store.read(work.next_due) == AT - 5
    assert await store.read(work.any_due)
    assert await store.read(work.overdue) == (2, 5)
    await claim(store)
    assert await store.read(work.next_due) == AT + 7, "of those that are free"
    assert not await store.read(work.any_due)
    assert await store.read(work.overdue) == (0, 0), "somebody looks after it"
