"""A backup is one moment of the database, whole, marked as a backup, and never in the place of something else."""

import sqlite3
import stat
import threading
from contextlib import closing
from pathlib import Path

import pytest

from proxy.core.errors import ConfigError
from proxy.store import tenants, videos
from proxy.store.backup import back_up
from proxy.store.sqlite import SqliteStore
from tests.store.rows import AT, MovedClock, add_videos, make_video, outside


@pytest.fixture
def engine() -> str:
    """PostgreSQL has a program of its own for this."""
    return "sqlite"


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_copy_holds_what_was_committed_and_says_that_it_is_one(
    store: SqliteStore, path: Path, clock: MovedClock
) -> None:
    await add_videos(store, make_video(), make_video(id="video_2"))
    target = path.with_name("copy.db")
    size_bytes = back_up(path, target, at_us=AT + 7)
    assert size_bytes == target.stat().st_size
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert outside(target, "select id from videos order by id") == [("video_1",), ("video_2",)]
    assert outside(target, "pragma integrity_check") == [("ok",)]
    assert await store.read(lambda tx: tenants.fact(tx, tenants.BACKUP_AT)) is None, "only the copy is one"
    assert [name for name in files(path.parent) if "copy" in name] == ["copy.db"]

    copy = SqliteStore(target, clock)
    await copy.open()
    assert await copy.read(lambda tx: tenants.fact(tx, tenants.BACKUP_AT)) == str(AT + 7)
    await copy.write(lambda tx: videos.insert_many(tx, [make_video(id="video_3")]))
    await copy.close()
    again = path.with_name("again.db")
    back_up(target, again, at_us=AT + 8)
    assert outside(again, "select value from facts where name = 'backup_at'") == [(str(AT + 8),)]


async def test_copy_is_of_one_moment_whoever_writes_meanwhile(store: SqliteStore, path: Path) -> None:
    """Two tables that always agree, written by another connection all the time."""
    await add_videos(store, make_video())
    stop = threading.Event()

    def write() -> None:
        with closing(sqlite3.connect(path, timeout=10)) as database:
            number = 0
            while not stop.is_set():
                number += 1
                with database:
                    database.execute("update videos set progress = ?", (number,))
                    database.execute("insert or replace into facts values ('number', ?)", (str(number),))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for turn in range(10):
            target = path.with_name(f"copy-{turn}.db")
            back_up(path, target, at_us=AT)
            told = "select progress, (select value from facts where name = 'number') from videos"
            ((progress, number),) = outside(target, told)
            assert str(progress) == (number or "0")
    finally:
        stop.set()
        writer.join()


async def test_copy_has_nothing_of_what_was_erased(store: SqliteStore, path: Path) -> None:
    await add_videos(store, make_video(prompt="an unlucky boat " * 50))
    await store.write(lambda tx: videos.hide(tx, "video_1", at=AT))
    target = path.with_name("copy.db")
    back_up(path, target, at_us=AT)
    assert b"unlucky" not in target.read_bytes()


async def test_nothing_is_overwritten(store: SqliteStore, path: Path) -> None:
    del store
    target = path.with_name("notes.txt")
    target.write_text("my notes")
    with pytest.raises(ConfigError, match="is there already; a backup overwrites nothing"):
        back_up(path, target, at_us=AT)
    assert target.read_text() == "my notes"
    with pytest.raises(ConfigError, match="is there already"):
        back_up(path, path, at_us=AT)
    assert [name for name in files(path.parent) if name.startswith(".")] == []


def test_place_that_cannot_be_written_is_one_line(path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        back_up(path, path.parent / "nowhere" / "copy.db", at_us=AT)
    assert str(caught.value) == f"{path.parent}/nowhere/copy.db cannot be written: No such file or directory"


def test_file_that_is_no_database_of_ours_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no database at"):
        back_up(tmp_path / "reelay.db", tmp_path / "copy.db", at_us=AT)
    (tmp_path / "notes.db").write_text("these are my notes, not a database at all. " * 30)
    with pytest.raises(ConfigError, match="not a database"):
        back_up(tmp_path / "notes.db", tmp_path / "copy.db", at_us=AT)
    with closing(sqlite3.connect(tmp_path / "other.db")) as other, other:
        other.execute("create table things (name)")
    with pytest.raises(ConfigError, match="no such table: facts"):
        back_up(tmp_path / "other.db", tmp_path / "copy.db", at_us=AT)
    assert files(tmp_path) == ["notes.db", "other.db"]
