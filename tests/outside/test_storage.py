"""Films in a local folder: whole or not at all."""

import asyncio
import contextlib
import hashlib
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import pytest

from proxy.core.errors import ConfigError
from proxy.outside.base import Listed
from proxy.outside.bucket import Bucket
from proxy.outside.film import NotAFilm
from proxy.outside.storage import FileMissing, Folder, Storage, StorageFailed, open_storage, probe
from tests.outside.films import make_film


@pytest.fixture
def folder(tmp_path: Path) -> Storage:
    return open_storage(f"file:{tmp_path}/films")


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def files_in(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob("*") if path.is_file())


async def read(storage: Storage, key: str, start: int, end: int) -> list[bytes]:
    return [piece async for piece in storage.read(key, start, end)]


def open_files() -> int:
    """How many descriptors this process holds."""
    return len(list(Path("/dev/fd").iterdir()))


async def test_stored_file_reads_back_with_size_and_hash(folder: Storage) -> None:
    content = os.urandom(3 * 1024 * 1024 + 5)
    stored = await folder.put("2026/11/a.mp4", pieces(content[:100], b"", content[100:]))
    assert (stored.size_bytes, stored.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert await folder.size("2026/11/a.mp4") == len(content)
    got = await read(folder, "2026/11/a.mp4", 0, len(content))
    assert b"".join(got) == content
    assert [len(piece) for piece in got] == [1024 * 1024] * 3 + [5]


async def test_range_is_read_without_its_end(folder: Storage) -> None:
    await folder.put("a", pieces(b"0123456789"))
    assert await read(folder, "a", 2, 5) == [b"234"]
    assert await read(folder, "a", 5, 5) == []


async def test_failed_put_leaves_nothing(folder: Storage, tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * 1000
        raise ConnectionError("the seller hung up")

    with pytest.raises(ConnectionError, match="hung up"):
        await folder.put("a.mp4", broken())
    assert files_in(tmp_path) == []


async def test_folder_that_went_away_takes_nothing_until_it_is_back(folder: Storage, tmp_path: Path) -> None:
    """What is written where a disk was mounted lies hidden below it once it is mounted again."""
    await folder.check()
    (tmp_path / "films").rename(tmp_path / "away")
    (tmp_path / "films").mkdir()
    with pytest.raises(StorageFailed):
        await folder.put("t/a.mp4", pieces(b"film"))
    assert files_in(tmp_path / "films") == []
    (tmp_path / "films").rmdir()
    (tmp_path / "away").rename(tmp_path / "films")
    await folder.put("t/a.mp4", pieces(b"film"))
    assert files_in(tmp_path / "films") == ["a.mp4"]


async def test_put_cancelled_while_waiting_leaves_nothing(folder: Storage, tmp_path: Path) -> None:
    waiting = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b"x" * 1000
        waiting.set()
        await asyncio.sleep(60)

    task = asyncio.create_task(folder.put("a.mp4", endless()))
    await waiting.wait()
    assert len(files_in(tmp_path)) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert files_in(tmp_path) == []


async def test_put_cancelled_at_any_moment_leaves_all_or_nothing(folder: Storage, tmp_path: Path) -> None:
    for hops in range(60):
        task = asyncio.create_task(folder.put("a.mp4", pieces(b"x" * 1000, b"y" * 1000)))
        for _ in range(hops):
            await asyncio.sleep(0.0001 if hops % 2 else 0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert files_in(tmp_path) == ([] if task.cancelled() else ["a.mp4"])
        await folder.delete("a.mp4")


async def test_reader_sees_the_old_file_or_the_new_one(folder: Storage) -> None:
    await folder.put("a", pieces(b"old" * 1000))
    reader = folder.read("a", 0, 3000)
    await folder.put("a", pieces(b"new"))
    assert await anext(reader) == b"new"
    await reader.aclose()


async def test_file_deleted_under_a_reader_is_read_to_its_end(folder: Storage) -> None:
    await folder.put("a", pieces(b"x" * 1024 * 1024, b"y"))
    async with contextlib.aclosing(folder.read("a", 0, 1024 * 1024 + 1)) as reader:
        await anext(reader)
        await folder.delete("a")
        assert await anext(reader) == b"y"


async def test_reader_that_stops_early_holds_no_file(folder: Storage) -> None:
    await folder.put("a", pieces(b"x" * 10))
    before = open_files()
    for _ in range(20):
        async with contextlib.aclosing(folder.read("a", 0, 10)) as reader:
            await anext(reader)
    assert open_files() <= before


async def test_file_shorter_than_asked_is_an_error(folder: Storage) -> None:
    await folder.put("a", pieces(b"abc"))
    with pytest.raises(StorageFailed):
        await read(folder, "a", 0, 4)


async def test_missing_file_has_a_name_of_its_own(folder: Storage) -> None:
    await folder.check()
    with pytest.raises(FileMissing):
        await folder.size("a")
    with pytest.raises(FileMissing):
        await folder.measure("a")
    with pytest.raises(FileMissing):
        await read(folder, "a", 0, 1)
    await folder.delete("a")


async def test_film_is_measured_where_it_lies(folder: Storage) -> None:
    await folder.put("a.mp4", pieces(make_film(width_px=128)))
    measured = await folder.measure("a.mp4")
    assert (measured.duration_ms, measured.width_px, measured.has_audio) == (1042, 128, True)
    await folder.put("b.mp4", pieces(b"<html>"))
    with pytest.raises(NotAFilm):
        await folder.measure("b.mp4")


async def test_check_makes_the_folder_and_leaves_no_file(folder: Storage, tmp_path: Path) -> None:
    await folder.check()
    assert (tmp_path / "films").is_dir()
    assert files_in(tmp_path) == []


async def test_check_sweeps_what_a_killed_process_left(folder: Storage, tmp_path: Path) -> None:
    await folder.check()
    old, young = (tmp_path / "films" / ".drafts" / name for name in ("old", "young"))
    for draft in (old, young):
        draft.write_bytes(b"half")
    yesterday = time.time() - 25 * 3600
    os.utime(old, (yesterday, yesterday))
    await folder.check()
    assert files_in(tmp_path) == ["young"]


async def test_probe_leaves_nothing_and_needs_what_it_wrote(folder: Storage, tmp_path: Path) -> None:
    await probe(folder, "0123")
    assert files_in(tmp_path) == []

    class Forgetful(Folder):
        async def read(self, key: str, start: int, end: int) -> AsyncGenerator[bytes]:
            async for piece in super().read(key, start, end):
                yield piece[:-1]

    with pytest.raises(StorageFailed, match="what was read is not what was written"):
        await probe(Forgetful(tmp_path / "films"), "0123")
    assert files_in(tmp_path) == []


async def test_listing_shows_every_file_with_size_and_time_but_no_draft(folder: Storage, tmp_path: Path) -> None:
    assert [page async for page in folder.listing()] == [], "not even the folder is there yet"
    await folder.check()
    (tmp_path / "films" / ".drafts" / "half").write_bytes(b"half")
    for number in range(1005):
        (tmp_path / "films" / f"{number}.mp4").write_bytes(b"film")
    await folder.put("v/deep/a.mp4", pieces(b"abc"))
    os.utime(tmp_path / "films" / "v" / "deep" / "a.mp4", (1_790_000_000, 1_790_000_000))
    pages = [page async for page in folder.listing()]
    assert [len(page) for page in pages] == [1000, 6]
    found = {file.key: file for page in pages for file in page}
    assert len(found) == 1006
    assert found["v/deep/a.mp4"] == Listed(key="v/deep/a.mp4", size_bytes=3, changed_at=1_790_000_000_000_000)


async def test_folder_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "films").write_text("a file lies where the folder is due")
    storage = open_storage(f"file:{tmp_path}/films")
    with pytest.raises(ConfigError) as caught:
        await storage.check()
    assert str(caught.value) == f"the storage folder {tmp_path}/films cannot be written: Not a directory"


async def test_error_of_the_disk_is_told_and_not_what_follows_from_it(tmp_path: Path) -> None:
    (tmp_path / "films").write_text("a file lies where the folder is due")
    with pytest.raises(StorageFailed, match="Not a directory"):
        await open_storage(f"file:{tmp_path}/films").put("a", pieces(b"x"))


async def test_full_disk_is_told_by_its_name(tmp_path: Path) -> None:
    import resource
    import signal

    # A limit on the size of files is the full disk that a test can have.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(StorageFailed, match="File too large"):
            await open_storage(f"file:{tmp_path}/films").put("a", pieces(b"x" * 900, b"x" * 900))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert files_in(tmp_path) == []


async def test_room_on_the_disk_is_known(folder: Storage) -> None:
    await folder.check()
    room = await folder.room()
    assert room is not None
    assert room.free_bytes > 0
    assert 0 < room.used_ratio < 1


def test_relative_folder_is_taken_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    storage = open_storage("file:data/films")
    asyncio.run(storage.check())
    assert (tmp_path / "data" / "films").is_dir()


@pytest.mark.parametrize("form", ["file:{}", "file://{}"])
def test_absolute_folder_is_taken_as_written(tmp_path: Path, form: str) -> None:
    asyncio.run(open_storage(form.format(tmp_path / "films")).check())
    assert (tmp_path / "films").is_dir()


@pytest.mark.parametrize("url", ["", "file:", "file://data/films", "data/films", "s3:bucket", "s3://", "ftp://x/y"])
def test_unknown_storage_is_a_mistake_of_the_settings(url: str) -> None:
    with pytest.raises(ConfigError):
        open_storage(url)


@pytest.mark.parametrize("url", ["s3://bucket", "s3://bucket/", "s3://bucket/some/prefix/"])
def test_bucket_is_opened_without_asking_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.setenv(name, "made-up")
    assert isinstance(open_storage(url), Bucket)


async def test_file_that_hangs_keeps_nobody_elses_thread(folder: Storage, tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    os.mkfifo(tmp_path / "films" / "stuck")
    stuck = [asyncio.create_task(read(folder, "stuck", 0, 1)) for _ in range(12)]
    await asyncio.sleep(0.1)
    async with asyncio.timeout(5):
        assert await asyncio.to_thread(lambda: "done") == "done"
        assert (await folder.room()) is not None
    os.close(os.open(tmp_path / "films" / "stuck", os.O_WRONLY))
    assert {type(end) for end in await asyncio.gather(*stuck, return_exceptions=True)} == {StorageFailed}
