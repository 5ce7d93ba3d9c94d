"""What the database does not do is counted, and nothing else is changed by that."""

import asyncio
from collections.abc import Sequence

import msgspec
import pytest

from proxy.core.errors import NotFound, Overloaded
from proxy.store import tenants, videos
from proxy.store.base import Change, Store, Tx
from proxy.store.observed import Observed
from tests.store.rows import AT, add_videos, make_attempt, make_video


def full(_: object) -> None:
    raise Overloaded("The disk is full.")


def full_for_all(_: Tx, items: Sequence[int]) -> list[int]:
    raise Overloaded(f"The disk is full for {items}.")


def doubled(_: Tx, items: Sequence[int]) -> list[int]:
    return [2 * item for item in items]


async def test_unit_that_the_database_does_not_do_is_counted_and_raises_as_ever(store: Store) -> None:
    failures: list[None] = []
    heard: list[Change] = []
    counted = Observed(store, heard.extend, lambda: failures.append(None))
    for run in (counted.write, counted.read, counted.read_now):
        with pytest.raises(Overloaded):
            await run(full)
    with pytest.raises(Overloaded):
        await counted.write_grouped(full_for_all, 1)
    assert (len(failures), heard) == (4, [])


async def test_what_a_unit_raises_by_itself_counts_for_nothing(store: Store) -> None:
    failures: list[None] = []
    heard: list[Change] = []
    counted = Observed(store, heard.extend, lambda: failures.append(None))

    def mistaken(_: Tx) -> None:
        raise NotFound("There is none.")

    with pytest.raises(NotFound):
        await counted.write(mistaken)
    await counted.write(lambda tx: tenants.set_fact(tx, "colour", "blue"))
    assert await counted.read(lambda tx: tenants.fact(tx, "colour")) == "blue"
    assert await counted.read_now(lambda tx: tenants.fact(tx, "colour")) == "blue"
    assert await counted.write_grouped(doubled, 21) == 42
    assert (counted.clock, counted.alone, counted.ahead_us) == (store.clock, store.alone, store.ahead_us)
    assert (failures, heard) == ([], [])


async def test_each_state_is_told_once_it_is_kept_and_none_that_was_undone(store: Store) -> None:
    heard: list[Change] = []
    observed = Observed(store, heard.extend)
    await add_videos(store, make_video())

    def begin(tx: Tx) -> None:
        videos.take(tx, "video_1")
        videos.insert_attempt(tx, make_attempt())

    def accept(tx: Tx) -> None:
        _, attempt = videos.take_attempt(tx, "video_1", 1)
        videos.save_attempt(tx, msgspec.structs.replace(attempt, state="running", seller_id="s"))
        videos.start(tx, "video_1")

    def undone(tx: Tx) -> None:
        accept(tx)
        raise NotFound("There is none.")

    await observed.write(begin)
    with pytest.raises(NotFound):
        await observed.write(undone)
    await asyncio.gather(observed.write(accept), observed.write(accept))
    assert [(one.what, one.attempt_no, one.was, one.state) for one in heard] == [
        ("attempt", 1, None, "sending"),
        ("attempt", 1, "sending", "running"),
        ("video", 0, "queued", "in_progress"),
    ]
    assert {(one.video_id, one.tenant_id) for one in heard} == {("video_1", "acme")}
    heard.clear()

    def end(tx: Tx) -> None:
        _, attempt = videos.take_attempt(tx, "video_1", 1)
        videos.save_attempt(tx, msgspec.structs.replace(attempt, state="failed", failure_kind="capacity"))
        for _ in range(2):
            videos.fail(tx, "video_1", "cancelled", "It was cancelled.", at=AT, cancelled=True)
            videos.settle(tx, "video_1", "void", 0)
            videos.hide(tx, "video_1", at=AT)

    await observed.write(end)
    assert [(one.what, one.was, one.state, one.facts.get("kind") or one.facts.get("code")) for one in heard] == [
        ("attempt", "running", "failed", "capacity"),
        ("video", "in_progress", "failed", "cancelled"),
        ("hold", "held", "void", None),
        ("video", "failed", "deleted", None),
    ]


async def test_what_was_undone_is_nothing_to_the_unit_after_it(store: Store) -> None:
    heard: list[Change] = []
    observed = Observed(store, heard.extend)
    await add_videos(store, make_video())

    def begin(tx: Tx) -> None:
        videos.insert_attempt(tx, make_attempt())

    def undone(tx: Tx) -> None:
        begin(tx)
        raise NotFound("There is none.")

    failed, kept = await asyncio.gather(observed.write(undone), observed.write(begin), return_exceptions=True)
    assert isinstance(failed, Exception)  # on PostgreSQL it may come second, and find the attempt there
    assert kept is None
    assert [(one.was, one.state) for one in heard] == [(None, "sending")]
