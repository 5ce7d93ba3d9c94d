"""What has outlived its time is found by an index, in batches, and changed once."""

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from proxy.core.attempt import Outcome
from proxy.store import health, upkeep, videos
from proxy.store.base import Store, Tx
from proxy.store.sqlite import DIALECT
from proxy.store.upkeep import ExpiredFilm
from proxy.store.videos import Bound, Video
from tests.store.rows import AT, add_attempts, add_videos, make_attempt, make_footage, make_video

FOOTAGE = make_footage()


def completed(name: str, expires_at: int | None, **fields: Any) -> Video:
    row: dict[str, Any] = {"status": "completed", "footage": videos.encode(FOOTAGE), "ended_at": AT - 10}
    return make_video(id=f"video_{name}", expires_at=expires_at, **row | fields)


async def video(store: Store, video_id: str) -> Video:
    found = await store.read_now(lambda tx: videos.by_id(tx, video_id))
    assert found is not None
    return found


# Films


async def expired(store: Store, after: ExpiredFilm | None = None, most: int = 10) -> list[ExpiredFilm]:
    return await store.read(lambda tx: upkeep.expired_films(tx, after=after, most=most))


async def test_film_is_expired_from_its_moment_on_and_until_it_is_gone(store: Store) -> None:
    await add_videos(
        store,
        completed("past", AT - 1),
        completed("now", AT),
        completed("later", AT + 1),
        completed("never", None),
        completed("gone", AT - 1, file_removed_at=AT - 1),
    )
    assert [film.video_id for film in await expired(store)] == ["video_past", "video_now"]
    assert (await expired(store))[0].footage == FOOTAGE


async def test_pages_of_expired_films_go_on_behind_those_that_stay(store: Store) -> None:
    await add_videos(store, *(completed(name, AT - at) for name, at in (("a", 3), ("b", 3), ("c", 2), ("d", 9))))
    seen: list[str] = []
    last: ExpiredFilm | None = None
    while page := await expired(store, last, most=1):
        seen += [film.video_id for film in page]
        last = page[-1]
    assert seen == ["video_d", "video_a", "video_b", "video_c"]


async def test_film_is_marked_gone_once_and_what_was_measured_stays(store: Store) -> None:
    before = completed("a", AT - 1)
    await add_videos(store, before, completed("b", AT - 1, deleted_at=AT))
    names = ["video_a", "video_b"]
    assert await store.write(lambda tx: upkeep.films_gone(tx, names)) == 2
    assert await store.write(lambda tx: upkeep.films_gone(tx, names)) == 0
    assert await video(store, "video_a") == msgspec.structs.replace(before, file_removed_at=AT)
    assert (await video(store, "video_b")).footage is None, "nothing is kept of what its customer deleted"


async def test_deleted_film_has_expired_until_its_file_is_gone(store: Store) -> None:
    await add_videos(store, completed("a", AT + 99), completed("b", AT - 5, file_removed_at=AT - 4))
    for name in ("video_a", "video_b"):
        await store.write(lambda tx, name=name: videos.hide(tx, name, at=AT))  # type: ignore[misc]  # the default binds the loop's value
    assert await expired(store) == [ExpiredFilm(video_id="video_a", expires_at=AT, footage=FOOTAGE)]
    assert (await video(store, "video_b")).footage is None


# Prompts


async def test_prompts_of_videos_that_ended_long_ago_are_erased_with_the_sellers_words(store: Store) -> None:
    ends = {"old": AT - 2, "older": AT - 3, "young": AT, "live": None}
    rows = {name: make_video(id=f"video_{name}", ended_at=at) for name, at in ends.items()}
    await add_videos(store, *rows.values())
    said = [make_attempt(video_id=row.id, message="no boats", link="https://files.example") for row in rows.values()]
    await add_attempts(store, *said)
    assert await store.read(lambda tx: upkeep.count_old_prompts(tx, before=AT - 1)) == 2
    found = await store.read(lambda tx: upkeep.old_prompts(tx, before=AT - 1, most=9))
    assert found == ["video_older", "video_old"]
    assert await store.read(lambda tx: upkeep.old_prompts(tx, before=AT - 1, most=1)) == ["video_older"]
    assert await store.write(lambda tx: upkeep.erase_prompts(tx, found)) == 2
    assert await store.write(lambda tx: upkeep.erase_prompts(tx, found)) == 0
    for name, row in rows.items():
        erased = name.startswith("old")
        assert await video(store, row.id) == (msgspec.structs.replace(row, prompt=None) if erased else row)
        (attempt,) = await store.read(lambda tx, row=row: videos.attempts_of(tx, row.id))  # type: ignore[misc]  # the same
        assert (attempt.message, attempt.link) == ((None, None) if erased else ("no boats", "https://files.example"))


# Keys and outcomes


async def test_old_idempotency_key_goes_unless_it_was_bound_anew(store: Store) -> None:
    await add_videos(store, make_video())

    def bind(key: str, at: int) -> Bound:
        return Bound(tenant_id="acme", key=key, fingerprint="f", video_id="video_1", created_at=at)

    await store.write(lambda tx: videos.bind(tx, [bind("a", AT - 2), bind("b", AT - 2), bind("c", AT)]))
    found = await store.read(lambda tx: upkeep.old_keys(tx, before=AT - 1, most=9))
    assert sorted(found) == [("acme", "a"), ("acme", "b")]
    assert len(await store.read(lambda tx: upkeep.old_keys(tx, before=AT - 1, most=1))) == 1
    assert await store.read(lambda tx: upkeep.count_old_keys(tx, before=AT - 1)) == 2

    def bound_anew(tx: Tx) -> None:
        videos.unbind_older(tx, "acme", "b", before=AT)
        videos.bind(tx, [bind("b", AT)])

    await store.write(bound_anew)
    assert await store.write(lambda tx: upkeep.drop_keys(tx, found, before=AT - 1)) == 1
    assert await store.read(lambda tx: videos.bound_to(tx, "acme", "a")) is None
    for key in ("b", "c"):
        assert await store.read(lambda tx, key=key: videos.bound_to(tx, "acme", key)) == bind(key, AT)  # type: ignore[misc]  # the same


async def test_old_outcomes_go_the_oldest_first(store: Store) -> None:
    rows = [("video_1", 1, "submit", AT - 5), ("video_1", 1, "render", AT - 9), ("video_2", 1, "submit", AT)]
    told = [
        Outcome(video_id=video, attempt_no=number, part=part, offer="p/x", good=True, at=at)  # type: ignore[arg-type]  # a part
        for video, number, part, at in rows
    ]
    await store.write(lambda tx: health.add_outcomes(tx, told))
    found = await store.read(lambda tx: upkeep.old_outcomes(tx, before=AT, most=9))
    assert found == [("video_1", 1, "render"), ("video_1", 1, "submit")]
    assert await store.read(lambda tx: upkeep.count_old_outcomes(tx, before=AT)) == 2
    assert await store.write(lambda tx: upkeep.drop_outcomes(tx, found)) == 2
    assert await store.write(lambda tx: upkeep.drop_outcomes(tx, found)) == 0
    assert await store.read(lambda tx: upkeep.old_outcomes(tx, before=AT + 1, most=9)) == [("video_2", 1, "submit")]


# Indexes


class Explaining(sqlite3.Cursor):
    """Notes how each statement is carried out."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__(connection)
        self.plans: list[str] = []

    def execute(self, sql: str, parameters: Any = ()) -> "Explaining":
        steps = self.connection.execute(f"explain query plan {sql}", parameters)
        self.plans.append("; ".join(step[3] for step in steps))
        super().execute(sql, parameters)
        return self


def test_old_rows_are_found_by_their_index(path: Path) -> None:
    """A pass every few minutes may not read through years of videos."""
    with closing(sqlite3.connect(path)) as database:
        cursor = Explaining(database)
        tx = Tx(cursor, DIALECT, AT)
        upkeep.expired_films(tx, after=None, most=5)
        upkeep.old_prompts(tx, before=AT, most=5)
        upkeep.old_outcomes(tx, before=AT, most=5)
    for plan, index in zip(cursor.plans, ("videos_by_expiry", "videos_by_end", "outcomes_by_time"), strict=True):
        assert re.match(f"SEARCH .* USING (COVERING )?INDEX {index} ", plan)
        assert "FOR ORDER BY" not in plan
