"""Units of work on SQLite: committed in groups, failing alone, answered only once they are kept."""

import asyncio
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text

from proxy.core.errors import ConfigError, Overloaded
from proxy.store import tenants, work
from proxy.store.base import Statement, Tx
from proxy.store.gathering import GROUP_MAX, QUEUE_MAX
from proxy.store.sqlite import (
    LOG_KEPT_BYTES,
    FileLock,
    SqliteStore,
    connect,
    file_system_of,
    refuse_network_file_system,
)
from proxy.store.tables import facts
from tests.store.conftest import with_two_tenants
from tests.store.rows import AT, MovedClock, commits, outside


@pytest.fixture
async def store(path: Path, clock: MovedClock) -> AsyncIterator[SqliteStore]:
    """Open, with two tenants: acme and other."""
    store = SqliteStore(path, clock)
    await store.open()
    await with_two_tenants(store)
    yield store
    await store.close()


FACTS = "SELECT name FROM facts WHERE name <> 'schema_beside' ORDER BY name"
ROOT = Path(__file__).parents[2]
DEFER_FOREIGN_KEYS = Statement(text("PRAGMA defer_foreign_keys = ON"))
PAGES = Statement(text("PRAGMA page_count"))


def fact(name: str, value: str = "1") -> Callable[[Tx], str]:
    """A unit that writes one row and answers its name."""

    def unit(tx: Tx) -> str:
        tenants.set_fact(tx, name, value)
        return name

    return unit


def facts_in(path: Path) -> list[str]:
    return [name for (name,) in outside(path, FACTS)]


class Gate:
    """A unit that keeps the writer until it is opened, so that whatever comes meanwhile waits."""

    def __init__(self, store: SqliteStore) -> None:
        self._reached, self._open = threading.Event(), threading.Event()
        self._task = asyncio.create_task(store.write(self._unit))

    def _unit(self, _: Tx) -> None:
        self._reached.set()
        assert self._open.wait(30)

    async def reached(self) -> None:
        assert await asyncio.to_thread(self._reached.wait, 30)

    async def open(self) -> None:
        self._open.set()
        await self._task


async def queued(*writes: Coroutine[Any, Any, Any]) -> list[asyncio.Task[Any]]:
    """Tasks that have all reached the queue of the writer."""
    tasks = [asyncio.create_task(write) for write in writes]
    await asyncio.sleep(0)
    return tasks


async def ends_of(tasks: Sequence[asyncio.Task[Any]]) -> list[Any]:
    return await asyncio.gather(*tasks, return_exceptions=True)


# Groups


async def test_writes_that_wait_are_committed_together(store: SqliteStore, path: Path) -> None:
    gate = Gate(store)
    await gate.reached()
    tasks = await queued(*(store.write(fact(f"f{number:03}")) for number in range(200)))
    before = commits(path)
    await gate.open()
    assert await ends_of(tasks) == [f"f{number:03}" for number in range(200)]
    assert commits(path) - before == 1
    assert len(facts_in(path)) == 200


async def test_group_has_a_largest_size(store: SqliteStore, path: Path) -> None:
    gate = Gate(store)
    await gate.reached()
    tasks = await queued(*(store.write(fact(f"f{number}")) for number in range(GROUP_MAX + 1)))
    before = commits(path)
    await gate.open()
    await ends_of(tasks)
    assert commits(path) - before == 2


async def test_one_write_alone_is_one_commit(store: SqliteStore, path: Path) -> None:
    before = commits(path)
    for number in range(5):
        await store.write(fact(f"f{number}"))
    assert commits(path) - before == 5


async def test_answer_leaves_only_after_the_commit(store: SqliteStore, path: Path) -> None:
    for number in range(20):
        name = await store.write(fact(f"f{number:02}"))
        assert facts_in(path)[-1] == name, "another process sees it as soon as the caller does"


async def test_write_runs_by_the_clock_of_its_transaction(store: SqliteStore, clock: MovedClock) -> None:
    assert await store.write(lambda tx: tx.now_us) == AT
    clock.now_us += 5
    assert await store.write(lambda tx: tx.now_us) == AT + 5
    assert await store.read_now(lambda tx: tx.now_us) == await store.read(lambda tx: tx.now_us) == AT + 5


# Failing alone


async def test_unit_that_raises_undoes_itself_alone(store: SqliteStore, path: Path) -> None:
    def half(tx: Tx) -> None:
        tenants.set_fact(tx, "half", "1")
        raise KeyError("changed its mind")

    gate = Gate(store)
    await gate.reached()
    tasks = await queued(store.write(fact("a")), store.write(half), store.write(fact("b")))
    await gate.open()
    first, middle, last = await ends_of(tasks)
    assert (first, last) == ("a", "b")
    assert isinstance(middle, KeyError)
    assert facts_in(path) == ["a", "b"]


async def test_row_that_breaks_a_constraint_undoes_its_unit_alone(store: SqliteStore, path: Path) -> None:
    def twice(tx: Tx) -> None:
        tenants.set_fact(tx, "new", "1")
        tenants.set_fact(tx, "a", "2")

    await store.write(fact("a"))
    with pytest.raises(sqlite3.IntegrityError):
        await store.write(twice)
    assert facts_in(path) == ["a"]


async def test_whatever_a_unit_raises_reaches_its_caller_and_harms_no_other(store: SqliteStore) -> None:
    def exhausted(_: Tx) -> None:
        next(iter(()))

    gate = Gate(store)
    await gate.reached()
    tasks = await queued(store.write(fact("a")), store.write(exhausted), store.write(fact("b")))
    await gate.open()
    async with asyncio.timeout(10):
        first, middle, last = await ends_of(tasks)
    assert (first, last) == ("a", "b")
    assert isinstance(middle, Exception)


# Many items in one statement


class Batch:
    """Writes facts many at a time, and remembers how many it was given."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, tx: Tx, names: Sequence[str]) -> list[str]:
        self.sizes.append(len(names))
        for name in names:
            tenants.set_fact(tx, name, "1")
        return [name.upper() for name in names]


async def test_items_that_wait_are_one_batch(store: SqliteStore, path: Path) -> None:
    batch = Batch()
    gate = Gate(store)
    await gate.reached()
    tasks = await queued(*(store.write_grouped(batch, name) for name in "abc"), store.write(fact("d")))
    before = commits(path)
    await gate.open()
    assert await ends_of(tasks) == ["A", "B", "C", "d"], "each has its own answer"
    assert batch.sizes == [3]
    assert commits(path) - before == 1


async def test_batch_that_fails_is_replayed_item_by_item(store: SqliteStore, path: Path) -> None:
    await store.write(fact("b"))
    batch, other = Batch(), Batch()
    gate = Gate(store)
    await gate.reached()
    tasks = await queued(*(store.write_grouped(batch, name) for name in "abc"), store.write_grouped(other, "d"))
    await gate.open()
    first, middle, last, beside = await ends_of(tasks)
    assert (first, last, beside) == ("A", "C", "D")
    assert isinstance(middle, sqlite3.IntegrityError)
    assert batch.sizes == [3, 1, 1, 1]
    assert other.sizes == [1], "a batch of another kind is none of its business"
    assert facts_in(path) == ["a", "b", "c", "d"]


async def test_lone_item_that_fails_is_not_replayed(store: SqliteStore) -> None:
    await store.write(fact("a"))
    batch = Batch()
    with pytest.raises(sqlite3.IntegrityError):
        await store.write_grouped(batch, "a")
    assert batch.sizes == [1]


async def test_batch_that_owes_answers_fails_and_the_writer_lives_on(store: SqliteStore, path: Path) -> None:
    def forgetful(tx: Tx, names: Sequence[str]) -> list[str]:
        for name in names:
            tenants.set_fact(tx, name, "1")
        return []

    gate = Gate(store)
    await gate.reached()
    tasks = await queued(store.write_grouped(forgetful, "a"), store.write_grouped(forgetful, "b"))
    await gate.open()
    async with asyncio.timeout(10):
        ends = await ends_of(tasks)
        assert await store.write(fact("c")) == "c"
    assert all(isinstance(end, Exception) for end in ends)
    assert facts_in(path) == ["c"], "what nobody answers for is not kept"


# Commits that fail


def orphan(tx: Tx) -> None:
    """Work for a video that is not there, which SQLite is told to find out at the commit."""
    tx.rows(DEFER_FOREIGN_KEYS)
    work.add(tx, [("video_missing", 0, AT)])


async def test_commit_that_fails_fails_its_whole_group_and_keeps_nothing(store: SqliteStore, path: Path) -> None:
    batch = Batch()
    gate = Gate(store)
    await gate.reached()
    tasks = await queued(store.write(fact("a")), store.write(orphan), store.write_grouped(batch, "b"))
    await gate.open()
    ends = await ends_of(tasks)
    assert [type(end) for end in ends] == [Overloaded] * 3
    assert all(1 <= end.retry_after_s <= 60 for end in ends)
    assert facts_in(path) == []
    assert await store.write(fact("c")) == "c", "the writer lives on"


async def test_full_disk_refuses_and_keeps_nothing(store: SqliteStore, path: Path) -> None:
    ((pages,),) = await store.read(lambda tx: tx.rows(PAGES))
    await store.write(lambda tx: tx.rows(Statement(text(f"PRAGMA max_page_count = {pages + 2}"))))
    gate = Gate(store)
    await gate.reached()
    tasks = await queued(store.write(fact("small")), store.write(fact("large", "x" * 100_000)))
    await gate.open()
    assert [type(end) for end in await ends_of(tasks)] == [Overloaded, Overloaded]
    assert facts_in(path) == []
    await store.write(lambda tx: tx.rows(Statement(text("PRAGMA max_page_count = 100000"))))
    assert await store.write(fact("large", "x" * 100_000)) == "large", "there is room again"


# Callers that go, and too many of them


async def test_unit_of_a_caller_that_went_away_stands(store: SqliteStore, path: Path) -> None:
    gate = Gate(store)
    await gate.reached()
    tasks = await queued(store.write(fact("a")), store.write(fact("b")))
    tasks[0].cancel()
    await gate.open()
    gone, stayed = await ends_of(tasks)
    assert isinstance(gone, asyncio.CancelledError)
    assert stayed == "b"
    assert facts_in(path) == ["a", "b"]


async def test_full_queue_refuses_at_once(store: SqliteStore, path: Path) -> None:
    gate = Gate(store)
    await gate.reached()
    tasks = await queued(*(store.write(lambda tx: tx.now_us) for _ in range(QUEUE_MAX)))
    with pytest.raises(Overloaded) as refused:
        await store.write(fact("one too many"))
    assert refused.value.retry_after_s == 1
    assert await store.read_now(lambda tx: tx.now_us) == AT, "reading goes on"
    await gate.open()
    assert set(await ends_of(tasks)) == {AT}
    assert await store.write(fact("a")) == "a"
    assert facts_in(path) == ["a"]


async def test_closing_commits_what_waits(path: Path, clock: MovedClock) -> None:
    store = SqliteStore(path, clock)
    await store.open()
    gate = Gate(store)
    await gate.reached()
    tasks = await queued(*(store.write(fact(f"f{number}")) for number in range(9)))
    closing = asyncio.create_task(store.close())
    await asyncio.sleep(0.01)
    await gate.open()
    await closing
    assert await ends_of(tasks) == facts_in(path) == [f"f{number}" for number in range(9)]


# Readers


async def test_readers_see_what_is_committed_and_nothing_else(store: SqliteStore) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def slow(tx: Tx) -> None:
        tenants.set_fact(tx, "a", "1")
        reached.set()
        assert go_on.wait(30)

    def known(tx: Tx) -> str | None:
        return tenants.fact(tx, "a")

    writing = asyncio.create_task(store.write(slow))
    await asyncio.to_thread(reached.wait, 30)
    assert await store.read_now(known) is None
    assert await store.read(known) is None
    go_on.set()
    await writing
    assert await store.read_now(known) == "1"
    assert await store.read(known) == "1"


async def test_reader_sees_one_moment(store: SqliteStore, path: Path) -> None:
    def twice(tx: Tx) -> tuple[str | None, str | None]:
        before = tenants.fact(tx, "a")
        with connect(path) as other:
            other.execute("INSERT INTO facts VALUES ('a', '1')")
        other.close()
        return before, tenants.fact(tx, "a")

    assert await store.read(twice) == (None, None)
    assert await store.read(lambda tx: tenants.fact(tx, "a")) == "1"


async def test_short_read_that_stops_at_the_first_row_keeps_no_log_from_being_folded_in(
    store: SqliteStore, path: Path
) -> None:
    for name in "abc":
        await store.write(fact(name))
    assert await store.read_now(lambda tx: tx.one(Statement(select(facts.c.name)))) is not None
    with closing(connect(path)) as other:
        assert other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0


async def test_reader_cannot_write(store: SqliteStore, path: Path) -> None:
    for read in (store.read_now, store.read):
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            await read(fact("a"))
    assert facts_in(path) == []


async def test_read_that_raises_leaves_the_reader_usable(store: SqliteStore) -> None:
    def fails(_: Tx) -> None:
        raise KeyError("nothing here")

    for read in (store.read_now, store.read):
        for _ in range(3):
            with pytest.raises(KeyError):
                await read(fails)
        assert await read(lambda tx: tx.now_us) == AT


async def test_two_processes_write_beside_each_other(store: SqliteStore, path: Path, clock: MovedClock) -> None:
    beside = SqliteStore(path, clock)
    await beside.open()
    each = [
        each.write(fact(f"{name}{number:02}")) for number in range(40) for name, each in (("a", store), ("b", beside))
    ]
    await asyncio.gather(*each)
    await beside.close()
    assert len(facts_in(path)) == 80


def test_every_commit_reaches_the_disk(path: Path) -> None:
    connection = connect(path)
    settings = {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")}
    settings["foreign_keys"] = connection.execute("PRAGMA foreign_keys").fetchone()[0]
    connection.close()
    assert settings == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


# One process


TAKE = """
import sys
from pathlib import Path
from proxy.core.errors import ConfigError
from proxy.store.sqlite import FileLock
try:
    FileLock(Path(sys.argv[1])).take()
except ConfigError as exc:
    print("refused:", exc, flush=True)
else:
    print("taken", flush=True)
    sys.stdin.read()
"""


def other_process(lock: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", TAKE, str(lock)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_second_process_is_kept_out_until_the_first_lets_go(tmp_path: Path) -> None:
    place = tmp_path / "reelay.db.lock"
    lock = FileLock(place)
    lock.take()
    with other_process(place) as refused:
        assert first_line(refused).startswith("refused: another process serves this database already")
    lock.release()
    with other_process(place) as taker:
        assert first_line(taker) == "taken"
        with pytest.raises(ConfigError, match=str(place)):
            lock.take()
        taker.kill()
        taker.communicate()
    lock.take()
    lock.release()
    lock.release()


# A local disk

MOUNTS = """\
proc /proc proc rw 0 0
/dev/sda1 / ext4 rw,relatime 0 0
server:/export /mnt/share nfs4 rw 0 0
tmpfs /mnt/share/local tmpfs rw 0 0
server:/films /mnt/our\\040films cifs rw 0 0
/dev/sdb1 /var/lib xfs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/home/reelay", "ext4"),
        ("/mnt/share", "nfs4"),
        ("/mnt/share/data", "nfs4"),
        ("/mnt/shared", "ext4"),
        ("/mnt/share/local/x", "tmpfs"),
        ("/mnt/our films/x", "cifs"),
        ("/var/lib/reelay", "xfs"),
        ("/proc/1", "proc"),
    ],
)
def test_file_system_is_that_of_the_nearest_mount(path: str, kind: str) -> None:
    assert file_system_of(Path(path), MOUNTS) == kind


def test_later_mount_covers_an_earlier_one() -> None:
    assert file_system_of(Path("/a/b"), "x /a ext4 rw 0 0\ny /a nfs rw 0 0\n") == "nfs"


def test_nothing_is_said_where_nothing_is_known() -> None:
    assert file_system_of(Path("/a"), "") == ""
    refuse_network_file_system(Path("/a"), "")


@pytest.mark.parametrize("path", ["/mnt/share/data", "/mnt/our films"])
def test_network_file_system_is_refused_by_name(path: str) -> None:
    with pytest.raises(ConfigError, match=rf"{path} lies on a network file system \((nfs4|cifs)\)"):
        refuse_network_file_system(Path(path), MOUNTS)


@pytest.mark.parametrize("path", ["/data", "/mnt/share/local", "/var/lib/reelay"])
def test_local_file_system_will_do(path: str) -> None:
    refuse_network_file_system(Path(path), MOUNTS)


async def test_log_that_a_long_reader_made_grow_is_cut_once_that_has_gone(store: SqliteStore, path: Path) -> None:
    """While somebody reads an old state, nothing can be folded into the file; the disk gets its room back after."""

    async def write(value: str) -> None:
        await store.write(lambda tx: tenants.put_fact(tx, "large", value))

    log = path.with_name(path.name + "-wal")
    await store.write(lambda tx: tenants.set_fact(tx, "large", ""))
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM facts").fetchall()
        for number in range(20):
            await write(chr(97 + number) * 1024 * 1024)
        assert log.stat().st_size > 20 * 1024 * 1024
    for number in range(3):
        await write(str(number))
    assert log.stat().st_size <= LOG_KEPT_BYTES
