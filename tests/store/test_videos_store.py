"""Videos and attempts: only forward, page by page, and one video for one idempotency key."""

from typing import Any

import msgspec
import pytest

from proxy.core.video import Footage
from proxy.store import settlements, tenants, videos, work
from proxy.store.base import Store, Tx
from proxy.store.videos import Bound, Video
from tests.databases import BROKEN
from tests.policy.policies import make_spec
from tests.store.rows import (
    AT,
    PLAN,
    add_attempts,
    add_settlements,
    add_videos,
    make_attempt,
    make_footage,
    make_settlement,
    make_video,
)

FOOTAGE = make_footage()


async def video(store: Store, video_id: str = "video_1") -> Video:
    found = await store.read_now(lambda tx: videos.by_id(tx, video_id))
    assert found is not None
    return found


# Rows


async def test_video_reads_back_as_it_was_written(store: Store) -> None:
    written = make_video(progress=7, footage=videos.encode(FOOTAGE))
    await add_videos(store, written)
    found = await video(store)
    assert found == written
    assert found.read_spec() == make_spec()
    assert found.read_plan() == PLAN
    assert found.read_metadata() == {"team": "ads"}
    assert found.read_footage() == FOOTAGE
    assert await store.read(lambda tx: videos.by_id(tx, "video_missing")) is None


async def test_video_is_read_whole_with_its_end_user_and_its_attempts_in_the_order_of_sending(store: Store) -> None:
    theirs, nobodys = make_video(end_user="surrogate_1"), make_video(id="video_2")
    await store.write(lambda tx: tenants.insert_end_user(tx, theirs.tenant_id, "Ann", "surrogate_1"))
    await add_videos(store, theirs, nobodys)
    sent = [make_attempt(number=number, state="refused") for number in (2, 1)]
    await add_attempts(store, *sent, make_attempt(video_id="video_2", state="refused"))
    assert await store.read_now(lambda tx: videos.whole(tx, theirs.id)) == (theirs, "Ann", sent[::-1])
    found = await store.read_now(lambda tx: videos.whole(tx, nobodys.id))
    assert found == (nobodys, None, [make_attempt(video_id="video_2", state="refused")])
    await store.write(lambda tx: tenants.forget_name(tx, theirs.tenant_id, "surrogate_1"))
    found = await store.read_now(lambda tx: videos.whole(tx, theirs.id))
    assert found == (theirs, None, sent[::-1])
    await add_videos(store, make_video(id="video_3"))
    assert await store.read_now(lambda tx: videos.whole(tx, "video_3")) == (make_video(id="video_3"), None, [])
    assert await store.read_now(lambda tx: videos.whole(tx, "video_4")) is None


def test_what_was_erased_or_is_not_yet_there_reads_as_nothing() -> None:
    empty = make_video(metadata=None, footage=None)
    assert (empty.read_metadata(), empty.read_footage()) == ({}, None)


@pytest.mark.parametrize(
    ("status", "live"), [("queued", True), ("in_progress", True), ("completed", False), ("failed", False)]
)
def test_video_is_live_until_it_ended(status: str, live: bool) -> None:
    assert make_video(status=status).live is live


def test_video_is_erased_once_its_prompt_is_gone() -> None:
    assert (make_video().erased, make_video(prompt=None).erased) == (False, True)


async def test_attempts_stand_in_the_order_of_sending(store: Store) -> None:
    await add_videos(store, make_video())

    await add_attempts(store, *(make_attempt(number=number) for number in (2, 1, 3)))
    assert [each.number for each in await store.read(lambda tx: videos.attempts_of(tx, "video_1"))] == [1, 2, 3]
    assert await store.read(lambda tx: videos.attempt_of(tx, "video_1", 4)) is None


@pytest.mark.parametrize("many", [0, 1, 32, 33, 70])
async def test_many_are_read_as_each_alone_would_be(store: Store, many: int) -> None:
    ids = [f"video_{number}" for number in range(70)]
    await add_videos(store, *(make_video(id=video_id) for video_id in ids))
    await add_attempts(
        store, *(make_attempt(video_id=video_id, number=number) for video_id in ids for number in (1, 2))
    )
    wanted = [*ids[:many], *(["video_missing"] if many else [])]

    def unit(tx: Tx) -> None:
        assert videos.by_ids(tx, wanted) == {video_id: videos.by_id(tx, video_id) for video_id in ids[:many]}
        assert videos.attempts_of_several(tx, wanted) == {
            (video_id, attempt.number): attempt
            for video_id in ids[:many]
            for attempt in videos.attempts_of(tx, video_id)
        }

    await store.read(unit)


async def test_attempt_is_saved_whole(store: Store) -> None:
    await add_videos(store, make_video())
    before = make_attempt()
    after = make_attempt(
        state="done",
        seller_id="s-1",
        failure_kind="capacity",
        seller_code="E1",
        message="x",
        accepted_at=AT + 1,
        ended_at=AT + 2,
        retry_at=AT + 3,
        cost_microusd=5,
        cost_stated=1,
        bearer="tenant",
        asks=2,
        missing_since=AT,
        missing=3,
        cancel_asked_at=AT + 4,
        link="https://files.example/x",
        fetches=6,
    )
    await store.write(lambda tx: videos.insert_attempt(tx, before))
    assert await store.read(lambda tx: videos.attempt_of(tx, "video_1", 1)) == before
    await store.write(lambda tx: videos.save_attempt(tx, after))
    assert await store.read(lambda tx: videos.attempt_of(tx, "video_1", 1)) == after


async def test_sellers_id_belongs_to_one_attempt(store: Store) -> None:
    await add_videos(store, make_video())
    await store.write(lambda tx: videos.insert_attempt(tx, make_attempt(seller_id="s-1")))
    await store.write(lambda tx: videos.insert_attempt(tx, make_attempt(number=2, provider="q", seller_id="s-1")))
    with pytest.raises(BROKEN):
        await store.write(lambda tx: videos.insert_attempt(tx, make_attempt(number=3, seller_id="s-1")))
    found = await store.read(lambda tx: videos.attempt_by_seller_id(tx, "q", "s-1"))
    assert found is not None
    assert found.number == 2
    assert await store.read(lambda tx: videos.attempt_by_seller_id(tx, "p", "s-2")) is None


# Only forward

STATUSES = ("queued", "in_progress", "completed", "failed")


async def with_status(store: Store, status: str) -> Video:
    row = make_video(status=status, progress=40)
    await add_videos(store, row)
    return row


@pytest.mark.parametrize("status", STATUSES)
async def test_first_acceptance_starts_a_queued_video_and_no_other(store: Store, status: str) -> None:
    await with_status(store, status)
    await store.write(lambda tx: videos.start(tx, "video_1"))
    assert (await video(store)).status == ("in_progress" if status == "queued" else status)


@pytest.mark.parametrize("status", STATUSES)
async def test_progress_moves_forward_while_the_video_is_made(store: Store, status: str) -> None:
    before = await with_status(store, status)
    for percent, after in ((39, 40), (40, 40), (41, 41), (7, 41), (99, 99)):
        await store.write(lambda tx, percent=percent: videos.advance(tx, "video_1", percent))  # type: ignore[misc]  # the default binds the loop's value
        assert (await video(store)).progress == (after if status == "in_progress" else before.progress)


async def test_progress_of_many_moves_forward(store: Store) -> None:
    await add_videos(store, *(make_video(id=f"video_{n}", status="in_progress", progress=50) for n in (1, 2)))
    await store.write(lambda tx: videos.advance_many(tx, [("video_1", 60), ("video_2", 40), ("video_3", 5)]))
    assert [(await video(store, f"video_{n}")).progress for n in (1, 2)] == [60, 50]


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("cancelled", [True, False])
async def test_live_video_fails_and_an_ended_one_stays(store: Store, status: str, cancelled: bool) -> None:
    before = await with_status(store, status)
    failed = await store.write(
        lambda tx: videos.fail(tx, "video_1", "cancelled", "Stopped.", at=AT + 9, cancelled=cancelled)
    )
    assert failed is before.live
    changes: dict[str, Any] = {
        "status": "failed",
        "error_code": "cancelled",
        "error_message": "Stopped.",
        "ended_at": AT + 9,
        "cancelled_at": AT + 9 if cancelled else None,
    }
    assert await video(store) == (msgspec.structs.replace(before, **changes) if failed else before)


@pytest.mark.parametrize("status", STATUSES)
async def test_only_a_video_in_the_making_is_completed(store: Store, status: str) -> None:
    before = await with_status(store, status)
    completed = await store.write(lambda tx: videos.complete(tx, "video_1", 2, FOOTAGE, at=AT + 9, expires_at=AT + 99))
    assert completed is (status == "in_progress")
    encoded = videos.encode(FOOTAGE)
    changes: dict[str, Any] = {
        "status": "completed",
        "progress": 100,
        "ended_at": AT + 9,
        "delivered_no": 2,
        "footage": encoded,
        "expires_at": AT + 99,
    }
    assert await video(store) == (msgspec.structs.replace(before, **changes) if completed else before)


@pytest.mark.parametrize("hold", ["held", "posted", "void"])
async def test_hold_ends_once(store: Store, hold: str) -> None:
    before = make_video(hold=hold, charged_microusd=None if hold == "held" else 1)
    await add_videos(store, before)
    assert await store.write(lambda tx: videos.settle(tx, "video_1", "posted", 5)) is (hold == "held")
    assert await store.write(lambda tx: videos.settle(tx, "video_1", "void", 0)) is False
    found = await video(store)
    assert (found.hold, found.charged_microusd) == (("posted", 5) if hold == "held" else (hold, 1))


async def test_those_that_have_ended_are_told_among_any_number(store: Store) -> None:
    states = ["queued", "in_progress", "completed", "failed"]
    await add_videos(store, *(make_video(id=f"video_{n}", status=states[n % 4]) for n in range(500)))
    asked = [f"video_{n}" for n in range(250)] + ["video_missing"]
    over = await store.read(lambda tx: videos.over_among(tx, asked))
    assert sorted(over) == sorted(f"video_{n}" for n in range(250) if n % 4 > 1)
    assert await store.read(lambda tx: videos.over_among(tx, [])) == []


async def test_nothing_happens_to_a_video_that_is_not_there(store: Store) -> None:
    assert not await store.write(lambda tx: videos.fail(tx, "video_1", "cancelled", "x", at=AT))
    assert not await store.write(lambda tx: videos.complete(tx, "video_1", 1, FOOTAGE, at=AT, expires_at=AT + 99))
    assert not await store.write(lambda tx: videos.settle(tx, "video_1", "void", 0))
    assert not await store.write(lambda tx: videos.hide(tx, "video_1", at=AT))


async def test_hidden_video_keeps_its_money_and_loses_what_was_said(store: Store) -> None:
    row = make_video(footage=videos.encode(FOOTAGE), status="completed", hold="posted", charged_microusd=5)
    await add_videos(store, row)
    ended = make_attempt(state="failed", link="https://files.example/1", message="a refused prompt")
    copying = make_attempt(number=2, state="done", link="https://files.example/2")
    await add_attempts(store, ended, copying)
    assert await store.write(lambda tx: videos.hide(tx, "video_1", at=AT + 3)) is True
    assert await store.write(lambda tx: videos.hide(tx, "video_1", at=AT + 4)) is False
    gone: dict[str, Any] = {"prompt": None, "metadata": None, "deleted_at": AT + 3, "expires_at": AT + 3}
    assert await video(store) == msgspec.structs.replace(row, **gone)
    first, second = await store.read(lambda tx: videos.attempts_of(tx, "video_1"))
    assert (first.link, first.message) == (None, None)
    assert second.link == "https://files.example/2", "its copy may still be under way"


# Pages


async def page_ids(
    store: Store,
    *,
    after: Video | None = None,
    newest_first: bool = True,
    most: int = 10,
    end_user: str | None = None,
    tenant_id: str = "acme",
) -> list[str]:
    found = await store.read_now(
        lambda tx: videos.page(tx, tenant_id, end_user=end_user, after=after, newest_first=newest_first, most=most)
    )
    return [each.id for each in found]


@pytest.mark.parametrize("newest_first", [True, False])
async def test_pages_together_show_every_video_once_in_order(store: Store, newest_first: bool) -> None:
    times = {"a": 5, "b": 3, "c": 3, "d": 3, "e": 3, "f": 1, "g": 9}
    rows = {f"video_{name}": make_video(id=f"video_{name}", created_at=AT + at) for name, at in times.items()}
    await add_videos(store, *rows.values(), make_video(id="video_x", tenant_id="other"))
    wanted = sorted(rows, key=lambda name: (rows[name].created_at, name), reverse=newest_first)
    for most in range(1, len(rows) + 2):
        seen: list[str] = []
        cursor = None
        while some := await page_ids(store, after=cursor, newest_first=newest_first, most=most):
            assert len(some) <= most
            seen += some
            cursor = rows[some[-1]]
        assert seen == wanted


@pytest.mark.parametrize("newest_first", [True, False])
async def test_deleted_video_is_no_more_shown_but_still_a_place_to_go_on_from(store: Store, newest_first: bool) -> None:
    rows = [make_video(id=f"video_{name}") for name in "abcde"]
    await add_videos(store, *rows)
    await store.write(lambda tx: videos.hide(tx, "video_c", at=AT))
    wanted = ["video_e", "video_d", "video_b", "video_a"]
    assert await page_ids(store, newest_first=newest_first) == (wanted if newest_first else wanted[::-1])
    behind = ["video_b", "video_a"] if newest_first else ["video_d", "video_e"]
    cursor = await video(store, "video_c")
    assert cursor.deleted_at == AT
    assert await page_ids(store, after=cursor, newest_first=newest_first) == behind


async def test_page_of_an_end_user_shows_nobody_elses(store: Store) -> None:
    whose = {"a": "eu_1", "b": "eu_2", "c": None, "d": "eu_1"}
    await add_videos(store, *(make_video(id=f"video_{name}", end_user=user) for name, user in whose.items()))
    assert await page_ids(store, end_user="eu_1") == ["video_d", "video_a"]
    assert await page_ids(store, end_user="eu_1", after=await video(store, "video_d")) == ["video_a"]
    assert await page_ids(store, end_user="eu_3") == []
    assert await page_ids(store, end_user="eu_1", tenant_id="other") == []


# Idempotency


def make_bound(**fields: Any) -> Bound:
    defaults: dict[str, Any] = {
        "tenant_id": "acme",
        "key": "k",
        "fingerprint": "f",
        "video_id": "video_1",
        "created_at": AT,
    }
    return Bound(**defaults | fields)


async def test_key_stands_for_one_video_of_its_tenant(store: Store) -> None:
    await add_videos(store, make_video(), make_video(id="video_2", tenant_id="other"))
    bounds = [make_bound(), make_bound(tenant_id="other", video_id="video_2")]
    await store.write(lambda tx: videos.bind(tx, bounds))
    assert await store.read(lambda tx: videos.bound_to(tx, "acme", "k")) == bounds[0]
    assert await store.read(lambda tx: videos.bound_to(tx, "other", "k")) == bounds[1]
    assert await store.read(lambda tx: videos.bound_to(tx, "acme", "K")) is None


async def test_bound_key_breaks_the_unit_that_binds_it_again(store: Store) -> None:
    await add_videos(store, make_video())
    await store.write(lambda tx: videos.bind(tx, [make_bound()]))

    def second(tx: Tx) -> None:
        videos.insert_many(tx, [make_video(id="video_2")])
        videos.bind(tx, [make_bound(video_id="video_2")])

    with pytest.raises(BROKEN):
        await store.write(second)
    assert await store.read(lambda tx: videos.by_id(tx, "video_2")) is None


async def test_key_is_freed_once_it_is_old_enough(store: Store) -> None:
    await add_videos(store, make_video())
    await store.write(lambda tx: videos.bind(tx, [make_bound()]))
    await store.write(lambda tx: videos.unbind_older(tx, "acme", "k", before=AT))
    assert await store.read(lambda tx: videos.bound_to(tx, "acme", "k")) == make_bound()
    await store.write(lambda tx: videos.unbind_older(tx, "acme", "k", before=AT + 1))
    assert await store.read(lambda tx: videos.bound_to(tx, "acme", "k")) is None


# What a scrape asks


async def test_counts_are_of_what_lives(store: Store) -> None:
    rows = [("a", "queued", 5), ("b", "queued", 3), ("c", "in_progress", 1), ("d", "failed", 0), ("e", "completed", 0)]
    await add_videos(
        store, *(make_video(id=f"video_{name}", status=status, created_at=AT + at) for name, status, at in rows)
    )
    counts = await store.read(videos.live_counts)
    assert sorted(counts) == [("in_progress", 1, AT + 1), ("queued", 2, AT + 3)]
    live = await store.read(videos.live_ids)
    assert sorted(live) == [("video_a", AT + 5), ("video_b", AT + 3), ("video_c", AT + 1)]


async def test_held_money_is_counted_per_tenant(store: Store) -> None:
    held = [("a", "acme", "held", 5), ("b", "acme", "held", 7), ("c", "other", "held", 1), ("d", "other", "void", 9)]
    await add_videos(
        store,
        *(
            make_video(id=f"video_{name}", tenant_id=tenant, hold=hold, hold_microusd=microusd)
            for name, tenant, hold, microusd in held
        ),
    )
    assert await store.read(videos.held_by_tenant) == {"acme": 12, "other": 1}


async def test_attempts_are_told_by_state(store: Store) -> None:
    states = ["sending", "running", "done", "refused", "failed", "unknown", "lost"]
    await add_videos(store, make_video(status="in_progress"))

    for number, state in enumerate(states, 1):
        provider = "q" if state == "lost" else "p"
        await add_attempts(store, make_attempt(number=number, state=state, started_at=AT - number, provider=provider))
    await add_attempts(store, make_attempt(number=9, state="refused", provider="z", started_at=AT - 100))
    assert await store.read(videos.unknown_by_provider) == {"p": (1, 1_000_000), "q": (1, 1_000_000)}
    assert await store.read(videos.owed_providers) == {"p", "q"}
    recent = await store.read(lambda tx: videos.recent_ends(tx, since=AT - 50))
    assert sorted(recent) == [("p", 6, 1, 2, 1, 2), ("q", 1, 0, 0, 1, 0)]
    found = await store.read(lambda tx: videos.attempts_in_state(tx, "refused", most=5))
    assert [(each.number, tenant, status) for each, tenant, status in found] == [
        (9, "acme", "in_progress"),
        (4, "acme", "in_progress"),
    ], "the oldest first"
    assert len(await store.read(lambda tx: videos.attempts_in_state(tx, "refused", most=1))) == 1


async def test_provider_is_owed_until_its_film_is_copied_or_given_up(store: Store) -> None:
    await add_videos(store, make_video(status="in_progress"))
    await add_attempts(store, make_attempt(number=1, state="done"))
    await store.write(lambda tx: work.add(tx, [("video_1", 1, AT)]))
    assert await store.read(videos.owed_providers) == {"p"}
    await store.write(lambda tx: work.done(tx, "video_1", 1))
    assert await store.read(videos.owed_providers) == set()


def test_footage_survives_its_column() -> None:
    assert msgspec.json.decode(videos.encode(FOOTAGE), type=Footage) == FOOTAGE


async def test_metadata_stays_until_the_charge_and_goes_with_the_person(store: Store) -> None:
    await add_videos(store, make_video(end_user="eu_1"), make_video(id="video_2", end_user="eu_2"))
    for video_id in ("video_1", "video_2"):
        await store.write(lambda tx, video_id=video_id: videos.hide(tx, video_id, at=AT))  # type: ignore[misc]  # the default binds the loop's value
        await add_settlements(
            store, make_settlement(id=f"{video_id}/1/post", end_user=f"eu_{video_id[-1]}", metadata='{"team":"ads"}')
        )
    await store.write(lambda tx: videos.forget_metadata(tx, "acme", "eu_1"))
    kept = [(await video(store, video_id)).metadata for video_id in ("video_1", "video_2")]
    assert kept == [None, b'{"team":"ads"}']
    [gone] = await store.read(lambda tx: settlements.of_video(tx, "video_1"))
    [stays] = await store.read(lambda tx: settlements.of_video(tx, "video_2"))
    assert (gone.metadata, stays.metadata) == (None, '{"team":"ads"}')
