"""Units of work on PostgreSQL: several processes beside each other, broken connections, lost answers."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import closing, suppress
from typing import Any

import msgspec
import psycopg
import pytest
from sqlalchemy import text

from proxy.core.clock import SECOND_US, system_clock
from proxy.core.errors import CommitUnknown, ConfigError, Overloaded
from proxy.store import tenants, videos
from proxy.store.base import Statement, Tx
from proxy.store.migrations import migrate
from proxy.store.postgres import PostgresStore
from proxy.store.tables import APPEND_ONLY, metadata
from tests.databases import server, start_postgres
from tests.ports import free_port
from tests.store.conftest import with_two_tenants
from tests.store.rows import AT, add_videos, make_video

SLEEP = Statement(text("SELECT pg_sleep(0.2)"))
READ_ONLY = Statement(text("SET LOCAL transaction_read_only = on"))
DIE = Statement(text("SELECT pg_terminate_backend(pg_backend_pid())"))


@pytest.fixture
async def pair() -> AsyncIterator[tuple[PostgresStore, PostgresStore]]:
    """Two processes' stores on one database, by its own clock."""
    url = server().new()
    stores = PostgresStore(url), PostgresStore(url)
    for store in stores:
        await store.open()
    await with_two_tenants(stores[0])
    yield stores
    for store in stores:
        await store.close()
    server().give_back(url)


Pair = tuple[PostgresStore, PostgresStore]


def fact(name: str, value: str = "1") -> Callable[[Tx], str]:
    def unit(tx: Tx) -> str:
        tenants.set_fact(tx, name, value)
        return name

    return unit


async def facts_in(store: PostgresStore, *names: str) -> list[str]:
    return [name for name in names if await store.read(lambda tx, name=name: tenants.fact(tx, name)) is not None]  # type: ignore[misc]  # the default binds the loop's value


async def test_server_that_does_not_answer_is_one_line_without_the_password() -> None:
    store = PostgresStore(f"postgresql://reelay:hush@127.0.0.1:{free_port()}/reelay")
    with pytest.raises(ConfigError, match="the database does not answer: ") as caught:
        await store.open()
    assert "hush" not in str(caught.value)
    assert "\n" not in str(caught.value)
    await store.close()


async def test_clock_is_the_databases_and_near_ours(pair: Pair) -> None:
    one, other = pair
    assert abs(one.clock() - other.clock()) < SECOND_US / 5
    assert abs(one.clock() - system_clock()) < SECOND_US / 5
    before, inside, after = one.clock(), await one.write(lambda tx: tx.now_us), one.clock()
    assert before - SECOND_US / 20 <= inside <= after + SECOND_US / 20


async def test_units_run_beside_each_other(pair: Pair) -> None:
    begun = time.monotonic()
    await asyncio.gather(*(pair[number % 2].write(lambda tx: tx.rows(SLEEP)) for number in range(8)))
    assert time.monotonic() - begun < 8 * 0.2


async def test_unit_that_raises_keeps_nothing(pair: Pair) -> None:
    def breaks(tx: Tx) -> None:
        tenants.set_fact(tx, "kept", "no")
        raise ValueError("odd")

    with pytest.raises(ValueError, match="odd"):
        await pair[0].write(breaks)
    assert await facts_in(pair[1], "kept") == []


async def test_taken_video_is_nobody_elses_until_the_unit_is_kept(pair: Pair) -> None:
    await add_videos(pair[0], make_video())
    held, go = threading.Event(), threading.Event()

    def holds(tx: Tx) -> None:
        videos.take(tx, "video_1")
        held.set()
        assert go.wait(10)
        videos.start(tx, "video_1")

    def looks(tx: Tx) -> str:
        video = videos.take(tx, "video_1")
        assert video is not None
        return video.status

    holding = asyncio.create_task(pair[0].write(holds))
    assert await asyncio.to_thread(held.wait, 10)
    looking = asyncio.create_task(pair[1].write(looks))
    await asyncio.sleep(0.2)
    assert not looking.done()
    go.set()
    await holding
    assert await looking == "in_progress"


async def test_unit_that_met_another_is_run_again(pair: Pair) -> None:
    """Both look, find nothing, and write the same key: one of them has to look once more."""
    both_looked, tries = threading.Barrier(2, timeout=10), list[str]()

    def first_or_known(name: str) -> Callable[[Tx], str]:
        def unit(tx: Tx) -> str:
            known = tenants.fact(tx, "winner")
            if known is None:
                if name not in tries:
                    tries.append(name)
                    both_looked.wait()
                tenants.set_fact(tx, "winner", name)
            return known or name

        return unit

    winners = await asyncio.gather(pair[0].write(first_or_known("a")), pair[1].write(first_or_known("b")))
    assert sorted(tries) == ["a", "b"]
    assert len(set(winners)) == 1


async def test_units_that_wait_for_each_other_are_both_kept(pair: Pair) -> None:
    await add_videos(pair[0], make_video(id="video_1"), make_video(id="video_2"))
    first = threading.Barrier(2, timeout=10)

    def both(one: str, other: str) -> Callable[[Tx], None]:
        seen: list[str] = []

        def unit(tx: Tx) -> None:
            videos.take(tx, one)
            if not seen:
                seen.append(one)
                first.wait()
            videos.take(tx, other)

        return unit

    await asyncio.gather(pair[0].write(both("video_1", "video_2")), pair[1].write(both("video_2", "video_1")))


async def test_connection_that_broke_before_the_commit_is_tried_again(pair: Pair) -> None:
    tries = []

    def unit(tx: Tx) -> None:
        tries.append(1)
        tenants.set_fact(tx, f"try-{len(tries)}", "1")
        if len(tries) == 1:
            tx.rows(DIE)

    await pair[0].write(unit)
    assert await facts_in(pair[1], "try-1", "try-2") == ["try-2"]


async def test_server_that_stays_away_is_told_and_nothing_is_kept(pair: Pair) -> None:
    def unit(tx: Tx) -> None:
        tenants.set_fact(tx, "kept", "no")
        tx.rows(DIE)

    with pytest.raises(Overloaded):
        await pair[0].write(unit)
    assert await facts_in(pair[1], "kept") == []


async def test_commit_whose_answer_was_lost_is_asked_for() -> None:
    """What was kept is told as kept: told as refused, the client would buy it again."""
    url = server().new()
    proxy = LostAnswers(url)
    store = PostgresStore(await proxy.start())
    await store.open()
    await store.write(fact("before"))
    proxy.swallow_commit_answer = True
    assert await store.write(fact("kept")) == "kept"
    assert proxy.swallowed
    assert await facts_in(store, "kept") == ["kept"]
    await store.close()
    await proxy.stop()
    server().give_back(url)


@pytest.fixture(scope="module")
def fragile() -> str:
    """A database on a server of our own, which may crash."""
    url = start_postgres(careless=False)
    migrate(url)
    return url


def crash(url: str) -> None:
    """All of the server's processes end at once; it comes back by itself."""
    with closing(psycopg.connect(url)) as one, closing(psycopg.connect(url, autocommit=True)) as other:
        os.kill(one.info.backend_pid, signal.SIGKILL)
        with suppress(psycopg.OperationalError):
            while True:
                other.execute("SELECT 1")


def write_beside(url: str, times: int) -> None:
    """Transactions of somebody else, as soon as the server answers."""
    end = time.monotonic() + 10
    while True:
        try:
            with closing(psycopg.connect(url, autocommit=True)) as connection:
                for number in range(times):
                    connection.execute("INSERT INTO facts VALUES (%s, '')", [f"beside-{time.monotonic()}-{number}"])
                return
        except psycopg.OperationalError:
            assert time.monotonic() < end
            time.sleep(0.05)


async def test_commit_that_a_crash_undid_is_never_told_as_kept(fragile: str) -> None:
    """After a crash the numbers of transactions that left no trace are given to others."""
    store = PostgresStore(fragile)
    await store.open()

    def unit(_: Tx) -> None:
        crash(fragile)
        write_beside(fragile, times=20)

    with pytest.raises(CommitUnknown):
        await store.write(unit)
    await store.close()


async def test_number_that_nobody_has_after_a_crash_was_not_kept(fragile: str) -> None:
    store = PostgresStore(fragile)
    await store.open()

    def unit(tx: Tx) -> None:
        tenants.set_fact(tx, "undone", "1")
        crash(fragile)

    begun = time.monotonic()
    with pytest.raises(Overloaded) as caught:
        await store.write(unit)
    assert not isinstance(caught.value, CommitUnknown), "certain, so the client may ask again"
    assert time.monotonic() - begun < 8
    write_beside(fragile, times=1)
    assert await facts_in(store, "undone") == []
    await store.close()


class LostAnswers:
    """A wire to the server on which the answer to one COMMIT is lost, with the connection."""

    def __init__(self, url: str) -> None:
        self._parts = psycopg.conninfo.conninfo_to_dict(url)
        self.swallow_commit_answer = False
        self.swallowed = False
        self._committing = False
        self._lines: list[asyncio.Future[None]] = []
        self._serving: asyncio.Server

    async def start(self) -> str:
        self._serving = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._serving.sockets[0].getsockname()[1]
        return f"postgresql://{self._parts['user']}@127.0.0.1:{port}/{self._parts['dbname']}?sslmode=disable"

    async def stop(self) -> None:
        self._serving.close()
        await asyncio.gather(*self._lines)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._lines.append(asyncio.ensure_future(self._carry(reader, writer)))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = str(self._parts["host"]), str(self._parts.get("port", 5432))
        socket = f"{host}/.s.PGSQL.{port}"
        unix = host.startswith("/")
        there = await (asyncio.open_unix_connection(socket) if unix else asyncio.open_connection(host, int(port)))
        both = [asyncio.create_task(self._asks(reader, there[1])), asyncio.create_task(self._answers(there[0], writer))]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        for line in (there[1], writer):
            line.close()
        for task in both:
            task.cancel()
        await asyncio.wait(both)
        await asyncio.gather(there[1].wait_closed(), writer.wait_closed(), return_exceptions=True)

    async def _asks(self, reader: asyncio.StreamReader, there: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            self._committing = b"COMMIT" in data
            there.write(data)
            await there.drain()

    async def _answers(self, there: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await there.read(65536):
            if self._committing and self.swallow_commit_answer:
                self.swallow_commit_answer, self.swallowed = False, True
                return
            writer.write(data)
            await writer.drain()


async def test_items_that_wait_are_one_transaction_and_fail_alone(pair: Pair) -> None:
    sizes = []

    def batch(tx: Tx, items: Sequence[str]) -> list[str]:
        sizes.append(len(items))
        for item in items:
            if item == "odd":
                raise ValueError(item)
            tenants.set_fact(tx, item, "1")
        return list(items)

    await pair[0].write_grouped(batch, "first")
    told = await asyncio.gather(
        *(pair[0].write_grouped(batch, name) for name in ("a", "odd", "b")), return_exceptions=True
    )
    assert [str(one) for one in told] == ["a", "odd", "b"]
    assert isinstance(told[1], ValueError)
    assert sizes == [1, 3, 1, 1, 1]
    assert await facts_in(pair[1], "a", "b", "odd") == ["a", "b"]


async def test_looks_of_one_turn_are_one_snapshot_and_fail_alone(pair: Pair) -> None:
    await add_videos(pair[0], make_video())

    def odd(_: Tx) -> None:
        raise KeyError("odd")

    def refused(tx: Tx) -> None:
        tx.rows(Statement(text("SELECT no_such_column FROM videos")))

    told = await asyncio.gather(
        pair[0].read_now(lambda tx: videos.by_id(tx, "video_1")),
        pair[0].read_now(odd),
        pair[0].read_now(refused),
        pair[0].read_now(lambda tx: tx.now_us),
        return_exceptions=True,
    )
    assert getattr(told[0], "id", None) == "video_1"
    assert isinstance(told[1], KeyError)
    assert isinstance(told[2], psycopg.errors.UndefinedColumn)
    assert isinstance(told[3], int)


async def test_look_cannot_write(pair: Pair) -> None:
    for look in (pair[0].read, pair[0].read_now):
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            await look(fact("written"))


@pytest.mark.parametrize("table", APPEND_ONLY)
@pytest.mark.parametrize("verb", ["DELETE FROM {table}", "UPDATE {table} SET {column} = {column}"])
async def test_what_is_append_only_is_so_here_too(pair: Pair, table: str, verb: str) -> None:
    [column, *_] = metadata.tables[table].primary_key.columns
    change = Statement(text(verb.format(table=table, column=column.name)))
    with pytest.raises(psycopg.errors.RaiseException, match=f"{table} is append-only"):
        await pair[0].write(lambda tx: tx.run(change))


async def test_times_of_the_tests_may_be_handed_in() -> None:
    url = server().new()
    store = PostgresStore(url, lambda: AT)
    await store.open()
    assert await store.write(lambda tx: tx.now_us) == await store.read(lambda tx: tx.now_us) == store.clock() == AT
    await store.close()
    server().give_back(url)


async def test_server_that_is_read_only_for_a_moment_is_asked_again(pair: Pair) -> None:
    """As one is that fails over: what a seller has answered must outlive it."""
    tries = []

    def unit(tx: Tx) -> str:
        tries.append(1)
        if len(tries) < 3:
            tx.run(READ_ONLY)
        return fact("kept")(tx)

    assert await pair[0].write(unit) == "kept"
    assert len(tries) == 3


async def test_server_that_stays_read_only_is_away(pair: Pair) -> None:
    def unit(tx: Tx) -> None:
        tx.run(READ_ONLY)
        fact("never")(tx)

    with pytest.raises(Overloaded):
        await pair[0].write(unit)


async def test_group_whose_connection_broke_is_tried_again_as_a_group(pair: Pair) -> None:
    sizes = []

    def batch(tx: Tx, items: Sequence[str]) -> list[str]:
        sizes.append(len(items))
        if len(sizes) == 1:
            tx.rows(DIE)
        return [fact(item)(tx) for item in items]

    assert await asyncio.gather(*(pair[0].write_grouped(batch, name) for name in "abc")) == ["a", "b", "c"]
    assert sizes == [3, 3]


async def test_many_looks_at_a_server_that_is_gone_are_refused_together() -> None:
    store = PostgresStore(f"postgresql://reelay@127.0.0.1:{free_port()}/reelay")
    with pytest.raises(ConfigError):
        await store.open()
    begun = time.monotonic()
    told = await asyncio.gather(*(store.read_now(lambda tx: tx.now_us) for _ in range(50)), return_exceptions=True)
    assert all(isinstance(one, Overloaded) for one in told)
    assert time.monotonic() - begun < 10
    await store.close()


async def test_two_changes_of_one_tenant_are_both_kept(pair: Pair) -> None:
    both_begun = threading.Barrier(2, timeout=10)

    def change(field: str, value: Any) -> Callable[[Tx], None]:
        begun: list[int] = []

        def unit(tx: Tx) -> None:
            if not begun:
                begun.append(1)
                both_begun.wait()
            tenant = tenants.take_tenant(tx, "acme")
            assert tenant is not None
            time.sleep(0.1)
            tenants.save_tenant(tx, msgspec.structs.replace(tenant, **{field: value}))

        return unit

    await asyncio.gather(
        pair[0].write(change("markup", "0.5")), pair[1].write(change("require_end_user_id", value=True))
    )
    tenant = await pair[0].read(lambda tx: tenants.find_tenant(tx, "acme"))
    assert tenant is not None
    assert (tenant.markup, tenant.require_end_user_id) == ("0.5", True)


async def test_name_is_not_erased_under_a_video_that_is_being_accepted(pair: Pair) -> None:
    await pair[0].write(lambda tx: tenants.insert_end_user(tx, "acme", "ann", "eu_1"))
    taken, go = threading.Event(), threading.Event()

    def accepts(tx: Tx) -> str | None:
        surrogate = tenants.take_surrogate(tx, "acme", "ann")
        taken.set()
        assert go.wait(10)
        return surrogate

    accepting = asyncio.create_task(pair[0].write(accepts))
    assert await asyncio.to_thread(taken.wait, 10)
    erasing = asyncio.create_task(pair[1].write(lambda tx: tenants.forget_name(tx, "acme", "eu_1")))
    await asyncio.sleep(0.2)
    assert not erasing.done()
    go.set()
    assert await accepting == "eu_1"
    await erasing
    assert await pair[0].write(lambda tx: tenants.take_surrogate(tx, "acme", "ann")) is None


@pytest.mark.parametrize("lock", ["LOCK TABLE tenants IN ACCESS EXCLUSIVE MODE", "SELECT 1 FROM tenants FOR UPDATE"])
async def test_lock_that_somebody_forgot_is_waited_for_for_seconds_only(lock: str) -> None:
    """Who asks is told so while it still listens, and the few connections are free again for what is not locked."""
    url = server().new()
    store = PostgresStore(url)
    await store.open()
    await with_two_tenants(store)
    try:
        with psycopg.connect(url) as owner:
            owner.execute(lock.encode())
            begun = time.monotonic()
            with pytest.raises(Overloaded):
                await store.write(lambda tx: tenants.take_tenant(tx, "acme"))
            assert 2 < time.monotonic() - begun < 9
        assert await store.write(lambda tx: tenants.take_tenant(tx, "acme")) is not None
    finally:
        await store.close()
        server().give_back(url)
