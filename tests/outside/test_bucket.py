"""Films in an object store: a real one, over its own wire."""

import asyncio
import hashlib
import os
import resource
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from proxy.core.errors import ConfigError
from proxy.outside.bucket import Bucket, open_bucket
from proxy.outside.film import NotAFilm
from proxy.outside.storage import FileMissing, StorageFailed
from tests.object_store import BUCKET, KEY_ID, SECRET, ObjectStore, new_prefix, object_store
from tests.outside.films import make_film

MIB = 1024 * 1024


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment of whoever may write to the store."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in object_store().environment().items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.fixture
def prefix() -> str:
    return new_prefix()


@pytest.fixture
def bucket(aws: pytest.MonkeyPatch, prefix: str) -> Bucket:  # noqa: ARG001  # it finds its store by the environment
    return open_bucket(BUCKET, prefix, os.environ)


@pytest.fixture
def mortal(aws: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """A store of the test's own, which may fall."""
    store = ObjectStore()
    aws.setenv("AWS_ENDPOINT_URL", store.endpoint)
    yield store
    store.leave()


def keys(prefix: str) -> list[str]:
    """All that there is, as another program sees it."""
    return sorted(one["path"] for page in object_store().direct(prefix).list() for one in page)


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def test_stored_file_reads_back_with_size_and_hash(bucket: Bucket) -> None:
    content = os.urandom(12 * 1024 * 1024 + 5)
    stored = await bucket.put("v/a.mp4", pieces(content[:100], content[100:]))
    assert (stored.size_bytes, stored.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert await bucket.size("v/a.mp4") == len(content)
    got = [piece async for piece in bucket.read("v/a.mp4", 1, len(content))]
    assert b"".join(got) == content[1:]
    assert max(len(piece) for piece in got) == 1024 * 1024


@pytest.mark.parametrize("sent_bytes", [1000, 13 * MIB])
async def test_failed_put_leaves_nothing(bucket: Bucket, prefix: str, sent_bytes: int) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * sent_bytes
        raise ConnectionError("the seller hung up")

    with pytest.raises(ConnectionError, match="the seller hung up"):
        await bucket.put("a.mp4", broken())
    with pytest.raises(FileMissing):
        await bucket.size("a.mp4")
    assert keys(prefix) == []
    assert object_store().unfinished() == 0


async def test_put_cancelled_while_it_waits_for_the_seller_leaves_nothing(bucket: Bucket, prefix: str) -> None:
    waiting = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b"x" * 11 * MIB
        waiting.set()
        await asyncio.sleep(60)

    chunks = endless()
    task = asyncio.create_task(bucket.put("a.mp4", chunks))
    await waiting.wait()
    while object_store().unfinished() == 0:
        await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await anext(chunks, None) is None
    assert keys(prefix) == []
    assert object_store().unfinished() == 0


@pytest.mark.parametrize("after_s", [0, 0.01, 0.05, 0.2])
async def test_put_cancelled_in_its_last_step_leaves_nothing(bucket: Bucket, prefix: str, after_s: float) -> None:
    through = asyncio.Event()

    async def whole() -> AsyncIterator[bytes]:
        yield b"x" * 6 * MIB
        through.set()

    task = asyncio.create_task(bucket.put("a.mp4", whole()))
    await through.wait()
    await asyncio.sleep(after_s)
    if not task.cancel():
        assert keys(prefix) == ["a.mp4"]
        return
    with pytest.raises(asyncio.CancelledError):
        await task
    assert keys(prefix) == []
    assert object_store().unfinished() == 0


async def test_missing_file_has_a_name_of_its_own(bucket: Bucket) -> None:
    with pytest.raises(FileMissing):
        await bucket.size("a")
    with pytest.raises(FileMissing):
        await bucket.measure("a")
    with pytest.raises(FileMissing):
        await anext(bucket.read("a", 0, 1))
    await bucket.delete("a")


async def test_file_shorter_than_asked_is_an_error(bucket: Bucket) -> None:
    await bucket.put("a", pieces(b"abc"))
    for start in (0, 3):
        with pytest.raises(StorageFailed):
            _ = [piece async for piece in bucket.read("a", start, 4)]


async def test_film_is_measured_where_it_lies(bucket: Bucket) -> None:
    await bucket.put("a.mp4", pieces(make_film(seconds=2)))
    measured = await bucket.measure("a.mp4")
    assert (measured.duration_ms, measured.width_px, measured.height_px) == (2042, 64, 48)
    await bucket.put("b.mp4", pieces(b"<html>"))
    with pytest.raises(NotAFilm):
        await bucket.measure("b.mp4")


async def test_store_that_falls_away_while_a_film_is_measured_is_no_fault_of_the_film(
    bucket: Bucket, aws: pytest.MonkeyPatch, prefix: str
) -> None:
    """What is no film would be deleted, and paid for by us."""
    film = make_film(seconds=2)
    # A box that says nothing, between what must be read of the film.
    at = film.index(b"mdat") - 4
    gap = 3 * MIB
    await bucket.put("a.mp4", pieces(film[:at] + gap.to_bytes(4, "big") + b"free" + bytes(gap - 8) + film[at:]))
    assert (await bucket.measure("a.mp4")).width_px == 64
    answers = 0

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One answer for each connection, while there are some left."""
        nonlocal answers
        answers -= 1
        if answers >= 0:
            head = await reader.readuntil(b"\r\n\r\n")
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", object_store().port)
            inner_writer.write(head.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
            writer.write(await inner_reader.read())
            await writer.drain()
            inner_writer.close()
        writer.close()

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    aws.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    failed = 0
    while failed < 9:
        answers = failed
        try:
            measured = await open_bucket(BUCKET, prefix, os.environ).measure("a.mp4")
        except StorageFailed:
            failed += 1
        else:
            assert measured.width_px == 64
            break
    assert 3 <= failed < 9, "it takes a look at the size, and several pieces"
    server.close()


async def test_listing_shows_every_file_with_size_and_time(bucket: Bucket, prefix: str) -> None:
    assert [page async for page in bucket.listing()] == []
    direct = object_store().direct(prefix)
    await asyncio.gather(*(direct.put_async(f"v/{number}.mp4", b"abc") for number in range(1001)))
    await object_store().direct().put_async(f"{prefix}-of-another/a.mp4", b"abc")
    pages = [page async for page in bucket.listing()]
    assert sum(len(page) for page in pages) == 1001
    assert len(pages) > 1
    file = next(file for page in pages for file in page if file.key == "v/7.mp4")
    assert file.size_bytes == 3
    assert abs(file.changed_at / 1e6 - time.time()) < 60


async def test_check_leaves_no_file(bucket: Bucket, prefix: str) -> None:
    await bucket.check()
    assert keys(prefix) == []
    assert object_store().unfinished() == 0


def told(error: BaseException) -> str:
    """One line, which names no secret."""
    text = str(error)
    assert "\n" not in text
    assert SECRET not in text
    assert KEY_ID not in text
    return text


@pytest.mark.parametrize(
    ("bucket_name", "environment", "says"),
    [
        ("films-of-nobody", {}, "404 Not Found: NoSuchBucket"),
        (BUCKET, {"AWS_SECRET_ACCESS_KEY": "another-secret"}, "403 Forbidden: SignatureDoesNotMatch"),
        (BUCKET, {"AWS_ACCESS_KEY_ID": "a-stranger"}, "403 Forbidden: InvalidAccessKeyId"),
        (BUCKET, {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "http://127.0.0.1:1/"),
    ],
)
async def test_bucket_that_cannot_be_written_is_one_clear_line(
    aws: pytest.MonkeyPatch, bucket_name: str, environment: dict[str, str], says: str
) -> None:
    for name, value in environment.items():
        aws.setenv(name, value)
    with pytest.raises(ConfigError, match=f"the storage s3://{bucket_name}/p cannot be written: ") as caught:
        await open_bucket(bucket_name, "p", os.environ).check()
    assert says in told(caught.value)


async def test_credentials_may_stand_in_a_file_that_is_read_anew(aws: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    file.write_text(
        "[default]\naws_access_key_id = x\naws_secret_access_key = y\n"
        f"[films]\naws_access_key_id = {KEY_ID}\naws_secret_access_key = {SECRET}\n"
    )
    aws.delenv("AWS_ACCESS_KEY_ID")
    aws.delenv("AWS_SECRET_ACCESS_KEY")
    aws.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    with pytest.raises(ConfigError, match="InvalidAccessKeyId"):
        await open_bucket(BUCKET, new_prefix(), os.environ).check()
    aws.setenv("AWS_PROFILE", "films")
    await open_bucket(BUCKET, new_prefix(), os.environ).check()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "No such file or directory"),
        ("", "has no [default] with aws_access_key_id and aws_secret_access_key"),
        ("[default]\naws_access_key_id = x\n", "has no [default] with aws_access_key_id and aws_secret_access_key"),
        ("aws_access_key_id = a-key-in-a-file\n", "File contains no section headers."),
    ],
)
def test_credentials_file_that_holds_none_is_one_clear_line(
    aws: pytest.MonkeyPatch, tmp_path: Path, content: str | None, says: str
) -> None:
    aws.delenv("AWS_ACCESS_KEY_ID")
    aws.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    if content is not None:
        (tmp_path / "credentials").write_text(content)
    with pytest.raises(ConfigError, match=f"the storage s3://{BUCKET}/ cannot be opened: ") as caught:
        open_bucket(BUCKET, "", os.environ)
    assert says in told(caught.value)
    assert "a-key-in-a-file" not in str(caught.value)


async def test_bucket_may_be_a_part_of_the_hosts_name(aws: pytest.MonkeyPatch, prefix: str) -> None:
    """The endpoint names it then; the path is the key alone."""
    aws.setenv("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "true")
    aws.setenv("AWS_ENDPOINT_URL", f"{object_store().endpoint}/{BUCKET}")
    bucket = open_bucket(BUCKET, prefix, os.environ)
    await bucket.put("a.mp4", pieces(b"abc"))
    assert keys(prefix) == ["a.mp4"]
    assert await bucket.size("a.mp4") == 3


async def test_store_that_was_away_serves_again_once_it_is_back(bucket: Bucket, mortal: ObjectStore) -> None:
    bucket = open_bucket(BUCKET, "p", os.environ)
    content = os.urandom(6 * MIB)
    await bucket.put("a.mp4", pieces(content))
    mortal.stop()
    for asked in (bucket.size("a.mp4"), anext(bucket.read("a.mp4", 0, 9)), bucket.put("b.mp4", pieces(content))):
        with pytest.raises(StorageFailed) as caught:
            await asked
        assert not isinstance(caught.value, FileMissing)
        told(caught.value)
    mortal.start()
    assert b"".join([piece async for piece in bucket.read("a.mp4", 0, len(content))]) == content
    await bucket.put("b.mp4", pieces(content))
    assert await bucket.size("b.mp4") == len(content)


@pytest.mark.long
async def test_store_that_falls_silent_ends_an_upload_within_minutes(mortal: ObjectStore) -> None:
    bucket = open_bucket(BUCKET, "p", os.environ)

    async def endless() -> AsyncIterator[bytes]:
        for number in range(1000):
            if number == 12:
                mortal.halt()
            yield os.urandom(MIB)

    begun = time.monotonic()
    with pytest.raises(StorageFailed):
        await bucket.put("a.mp4", endless())
    assert time.monotonic() - begun < 120
    mortal.go_on()
    await bucket.put("a.mp4", pieces(b"abc"))
    assert await bucket.size("a.mp4") == 3


@pytest.mark.long
async def test_film_of_half_a_gigabyte_goes_and_comes_in_little_memory(bucket: Bucket) -> None:
    most_bytes, before_bytes = 0, resident_bytes()
    sent, got = hashlib.sha256(), hashlib.sha256()

    async def film() -> AsyncIterator[bytes]:
        nonlocal most_bytes
        for _ in range(512):
            piece = os.urandom(MIB)
            sent.update(piece)
            yield piece
            most_bytes = max(most_bytes, resident_bytes())

    stored = await bucket.put("a.mp4", film())
    assert (stored.size_bytes, stored.sha256) == (512 * MIB, sent.hexdigest())
    async for piece in bucket.read("a.mp4", 0, 512 * MIB):
        got.update(piece)
        most_bytes = max(most_bytes, resident_bytes())
    assert got.hexdigest() == sent.hexdigest()
    await bucket.delete("a.mp4")
    assert most_bytes - before_bytes < 64 * MIB


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def test_bucket_has_no_known_limit(bucket: Bucket) -> None:
    assert await bucket.room() is None
