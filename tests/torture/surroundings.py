"""
Disks fill up, storage goes away, databases are locked, clocks are set: what was accepted waits, and is delivered.

In each scene customers order and look all the time: before the fault, during it and after it.
"""

import asyncio
import contextlib
import functools
import itertools
import random
import shutil
import sqlite3
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psycopg

from tests.databases import server, whole_in
from tests.torture import weather
from tests.torture.crash_points import rules
from tests.torture.revived import FAILING_MAX_S, Failures, Order, Revived
from tests.torture.verdict import Tally, judge
from tests.whole.scenes import metric
from tests.whole.stage import SELLERS

SPEED = 25.0
"""Of the sellers: a film takes seconds, and its link lasts for minutes."""
CUSTOMERS = 3
PAUSE_S = 1.0
"""Of a customer between two orders."""
CALM_S = 3.0
"""Before and after the fault."""
WITHIN_S = 120.0
"""After the fault and its calm, everything is over: leases of 45 s run out once, and a busy machine takes its time."""
ANSWER_S = 25.0
"""Within it every question is answered, whatever the weather."""
FAULTS = (
    (),
    (),
    ("error_503@evolink", "error_503@shortapi"),
    ("render_failed@evolink",),
    ("reset_after@fal", "reset_after@runflow"),
    ("slow_file",),
)
DISK_BYTES = 200 * 1024 * 1024
HOUR_S, DAY_S = 3600, 86_400


class Seen(msgspec.Struct, frozen=True):
    """One answer."""

    phase: str
    """`before`, `during` or `after` the fault."""
    what: str
    """`POST videos`, `GET content`."""
    status: int
    """0: none came."""


class Exposed(Revived):
    """Its server stands in the weather, and its customers remember what they were told."""

    def expose(self, *, hasty: bool) -> None:
        """To weather that can be told to change; nothing has been seen yet."""
        self.hasty = hasty
        place = whole_in(self.folder).place
        if isinstance(place, str):
            self.set_clock(0)
            with psycopg.connect(place, autocommit=True) as server:
                # What is ours there comes before what PostgreSQL calls by the same name.
                server.execute(f"ALTER DATABASE {server.info.dbname} SET search_path = public, pg_catalog".encode())
        self.phase = "before"
        self.seen = Counter[Seen]()
        self.found: list[str] = []
        """What was not as it has to be."""
        self.film: str | None = None
        """A video that was completed before the fault."""

    def begin(self, *, dies_at: str | None = None, diary: Path | None = None) -> None:
        del dies_at, diary
        log = self.folder / f"serve-{self.port}.log"
        self.one = weather.start(["serve"], self.folder, self.environment, log, hasty=self.hasty)

    async def restart(self) -> None:
        """As an operator does: what it has under way it finishes or leaves to the next."""
        assert self.one is not None
        self.one.terminate()
        await asyncio.to_thread(self.one.join, 60)
        self.begin()

    async def revive(self) -> None:
        if self.one is not None and self.one.exitcode == 0:
            await asyncio.sleep(0.05)  # whoever has stopped it starts it again
        else:
            await super().revive()

    async def ask(self, method: str, path: str, *, patience_s: float = FAILING_MAX_S, **sent: Any) -> httpx.Response:
        failures = Failures(patience_s)
        while True:
            answer = await self.ask_once(method, path, **sent)
            if answer is not None and answer.status_code < 500:
                return answer
            if answer is not None:
                failures.add(answer)
            await asyncio.sleep(0.2)

    async def ask_once(self, method: str, path: str, **sent: Any) -> httpx.Response | None:
        """None: nobody answered; a server that died is started again by then."""
        begun, phase, what = time.monotonic(), self.phase, f"{method} {_kind(path)}"
        try:
            answer = await self.client.request(method, path, **sent)
        except httpx.TransportError as exc:
            if isinstance(exc, httpx.ReadTimeout):
                self.found.append(f"{phase}: {what} was not answered")
            self.seen[Seen(phase, what, 0)] += 1
            await self.revive()
            return None
        self.seen[Seen(phase, what, answer.status_code)] += 1
        took_s = time.monotonic() - begun
        if took_s > ANSWER_S:
            self.found.append(f"{phase}: {what} took {took_s:.0f} s")
        if answer.status_code >= 500 and path != "/readyz":
            self._look_at_refusal(f"{phase}: {what}", answer)
        return answer

    def _look_at_refusal(self, what: str, answer: httpx.Response) -> None:
        told = answer.json()["error"]["code"] if answer.headers["content-type"] == "application/json" else answer.text
        wait = answer.headers.get("retry-after", "")
        if (answer.status_code, told) != (503, "server_is_overloaded") or not (wait and 1 <= int(wait) <= 60):
            self.found.append(f"{what} gave {answer.status_code} {told}, Retry-After {wait!r}")

    def count(self, phase: str, what: str, *, well: bool) -> int:
        """Answers that were 2xx, or were not; where the server was down there was none."""
        return sum(
            number
            for seen, number in self.seen.items()
            if (seen.phase, seen.what) == (phase, what) and seen.status and (seen.status < 300) == well
        )

    async def metric(self, name: str, **labels: str) -> float:
        scraped = await self.ask_once("GET", "/metrics")
        return 0.0 if scraped is None or scraped.status_code != 200 else metric(scraped.text, name, **labels)

    async def shows(self, name: str, true: Callable[[float], bool], *, within_s: float = 15, **labels: str) -> None:
        """A metric tells an operator; noted where it does not."""
        last = 0.0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while not true(last := await self.metric(name, **labels)):
                    await asyncio.sleep(0.3)
                return
        self.found.append(f"{name}{labels or ''} says {last:g}, which tells nobody")

    def set_clock(self, seconds: int) -> None:
        """The database's clock, wrong by so much from now on."""
        self.films_expire = seconds > 0
        database = whole_in(self.folder)
        if isinstance(database.place, Path):
            draft = self.folder / f"{weather.CLOCK}.draft"
            draft.write_text(str(seconds))
            draft.replace(self.folder / weather.CLOCK)
            return
        with psycopg.connect(database.place, autocommit=True) as server:
            server.execute(
                "CREATE OR REPLACE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS"
                f" $$ SELECT pg_catalog.clock_timestamp() + interval '{seconds} seconds' $$".encode()
            )


def _kind(path: str) -> str:
    """`videos` for all of them, `video` for one, `content` for its film."""
    last = path.rsplit("/", 1)[-1]
    return "video" if last.startswith("video_") else last


# What happens

Fault = Callable[[Exposed], Awaitable[None]]
"""From its beginning to its end."""


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """A fault, and what has to be so while it lasts."""

    name: str
    fault: Fault
    creates_refused: bool | None = False
    """Some are, during the fault; None: that depends on who waits for how long. Else none are."""
    reads_go_on: bool = True
    films_go_on: bool = True
    hasty: bool = False
    """The housekeeper comes all the time."""


@contextlib.contextmanager
def _folder_away(folder: Path) -> Iterator[None]:
    """As a mount that is gone: an empty folder stands in its place."""
    away = folder.with_name(folder.name + "-away")
    folder.rename(away)
    folder.mkdir()
    try:
        yield
    finally:
        shutil.rmtree(folder)
        away.rename(folder)


def _storage_away(seconds: float) -> Fault:
    async def fault(stage: Exposed) -> None:
        with _folder_away(stage.folder / "data" / "videos"):
            await stage.shows("reelay_store_errors_total", lambda count: count > 0, store="files")
            await asyncio.sleep(seconds)

    return fault


def _no_file_takes_anything(seconds: float) -> Fault:
    async def fault(stage: Exposed) -> None:
        assert stage.one is not None
        assert stage.one.pid is not None
        weather.let_files_take(stage.one.pid, 0)
        await stage.shows("reelay_store_errors_total", lambda count: count > 0)
        await asyncio.sleep(seconds)
        weather.let_files_take(stage.one.pid, -1)

    return fault


async def _disk_full(stage: Exposed) -> None:
    """A file that somebody else puts there takes all that is left."""
    disk = stage.folder / "data"
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        for size in (65536, 4096, 1):
            with contextlib.suppress(OSError):
                while file.write(b"\0" * size) == size:
                    pass
    free, used = "reelay_store_free_bytes", "reelay_store_used_bytes"
    for store in ("database", "files"):
        await stage.shows(used, lambda size: size > 0, store=store)
        await stage.shows(free, lambda size: size < 100_000, store=store)
    await asyncio.sleep(8)
    ballast.unlink()


def _full_at_the_worst_moment(*, killed: bool) -> Fault:
    async def fault(stage: Exposed) -> None:
        asked = stage.folder / weather.FULL_AFTER_SUBMIT
        asked.touch()
        while asked.exists():  # another process removes it
            await asyncio.sleep(0.05)
        await stage.shows("reelay_store_errors_total", lambda count: count > 0, store="database")
        await asyncio.sleep(3)
        assert stage.one is not None
        assert stage.one.pid is not None
        if killed:
            stage.kill()
        else:
            weather.let_files_take(stage.one.pid, -1)

    return fault


def _locked_file(seconds: float) -> Fault:
    async def fault(stage: Exposed) -> None:
        place = whole_in(stage.folder).place
        with (
            contextlib.closing(sqlite3.connect(place, isolation_level=None, timeout=30)) as reader,
            contextlib.closing(sqlite3.connect(place, isolation_level=None, timeout=30)) as owner,
        ):
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM videos").fetchall()
            owner.execute("BEGIN EXCLUSIVE")
            if seconds > 5:
                await stage.shows("reelay_work_overdue_seconds", lambda overdue: overdue > 2)
            if seconds > 15:
                await stage.shows("reelay_store_errors_total", lambda count: count > 0, within_s=20, store="database")
            await asyncio.sleep(seconds)
            owner.execute("ROLLBACK")

    return fault


def _locked_server(statement: str, seconds: float) -> Fault:
    """A session that somebody forgot."""

    async def fault(stage: Exposed) -> None:
        place = whole_in(stage.folder).place
        assert isinstance(place, str)
        async with await psycopg.AsyncConnection.connect(place) as owner:
            await owner.execute(statement.encode())
            await stage.shows("reelay_store_errors_total", lambda count: count > 0, within_s=20, store="database")
            await asyncio.sleep(seconds)
            await owner.rollback()

    return fault


def _clock_set(seconds: int, *, restarted: bool = False) -> Fault:
    async def fault(stage: Exposed) -> None:
        stage.set_clock(seconds)
        if restarted:
            await stage.restart()
        if not (restarted and seconds > 0):
            ahead = -seconds
            await stage.shows("reelay_clock_ahead_seconds", lambda shown: abs(shown - ahead) < abs(ahead) / 4)
        await asyncio.sleep(8)

    return fault


CLOCKS = (
    ("forward by 1 h", HOUR_S, False),
    ("forward by 30 days", 30 * DAY_S, False),
    ("back by 10 min", -600, False),
    ("back by 1 h, then a restart", -HOUR_S, True),
    ("back by 1 day", -DAY_S, False),
    ("back behind a closed month, then a restart", -40 * DAY_S, True),
)
ROWS = "SELECT 1 FROM videos, attempts WHERE attempts.video_id = videos.id FOR UPDATE"
TABLES = "LOCK TABLE videos, attempts, work IN ACCESS EXCLUSIVE MODE"


def scenes(engine: str) -> list[Scene]:
    """What may befall a server on that engine; what takes longest comes first."""
    found = _of_its_file() if engine == "sqlite" else _of_its_database_server()
    found.append(Scene(name="storage away for 10 s", fault=_storage_away(10), films_go_on=False))
    for name, seconds, restarted in CLOCKS:
        # Everything that goes by time is done meanwhile, the housekeeping too.
        fault, refused = _clock_set(seconds, restarted=restarted), None if restarted else False
        found.append(Scene(name=f"clock set {name}", fault=fault, creates_refused=refused, hasty=True))
    return found


def _of_its_file() -> list[Scene]:
    worst = "disk full right after a submit"
    found = [
        Scene(name="database locked for 60 s", fault=_locked_file(60), creates_refused=True),
        Scene(name=worst, fault=_full_at_the_worst_moment(killed=False), creates_refused=True),
        Scene(name=f"{worst}, then killed", fault=_full_at_the_worst_moment(killed=True), creates_refused=True),
        Scene(name="no file takes anything for 8 s", fault=_no_file_takes_anything(8), creates_refused=True),
        Scene(name="database locked for 10 s", fault=_locked_file(10), creates_refused=None),
        Scene(name="database locked for 1 s", fault=_locked_file(1)),
    ]
    if _may_mount():
        found.insert(1, Scene(name="disk full for 8 s", fault=_disk_full, creates_refused=True))
    else:
        print("disk full for 8 s: left out, for nobody may mount a small one here.", flush=True)
    return found


def _of_its_database_server() -> list[Scene]:
    def locked(what: str, statement: str, **promised: bool | None) -> Scene:
        return Scene(name=f"{what} locked for 20 s", fault=_locked_server(statement, 20), **promised)  # type: ignore[arg-type]  # these are booleans

    return [
        locked("tables", TABLES, creates_refused=True, reads_go_on=False, films_go_on=False),
        locked("tenants", "SELECT 1 FROM tenants FOR UPDATE", creates_refused=None),
        locked("all rows", ROWS),
    ]


# The play


async def torture(folder: Path, engine: str, *, names: Collection[str] = (), lanes: int = 6) -> list[Tally]:
    """One for each fault, or for those named; so many at once, each with sellers of its own."""
    wanted = [scene for scene in scenes(engine) if not names or scene.name in names]
    if engine == "postgresql":
        await asyncio.to_thread(server)  # its start takes longer than others' questions may
    left, tallies = iter(enumerate(wanted)), dict[int, Tally]()

    async def work(lane: Path) -> None:
        async with AsyncExitStack() as stack:
            stage = Exposed(lane, stack)
            await stage.start_sellers(speed=SPEED)
            for number, scene in left:
                tallies[number] = await _play(stage, lane / f"{number}", engine, scene)

    async with asyncio.TaskGroup() as group:
        for number in range(min(lanes, len(wanted))):
            group.create_task(work(folder / f"lane-{number}"))
    return [tally for _, tally in sorted(tallies.items())]


async def _play(stage: Exposed, folder: Path, engine: str, scene: Scene) -> Tally:
    """Calm weather, the fault, and calm weather again."""
    with _small_disk(folder / "data") if scene.fault is _disk_full else contextlib.nullcontext():
        await stage.move(folder, engine, rules)
        stage.expose(hasty=scene.hasty)
        stage.begin()
        stage.film = await _first_film(stage)
        async with _customers(stage):
            await asyncio.sleep(CALM_S)
            stage.phase = "during"
            await scene.fault(stage)
            stage.phase = "after"
            await asyncio.sleep(CALM_S)
        tally = await judge(stage, scene.name, within_s=WITHIN_S)
        tally.tries = len(stage.accepted)
        tally.differences += [*Counter(stage.found), *_complaints(stage, scene, tally)]
        stage.kill()
    if tally.is_clean:
        shutil.rmtree(folder)
    return tally


@functools.cache
def _may_mount() -> bool:
    """Whether this is root, on a machine that lets it."""
    try:
        with tempfile.TemporaryDirectory() as place, _small_disk(Path(place) / "disk"):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


@contextlib.contextmanager
def _small_disk(place: Path) -> Iterator[None]:
    place.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


async def _first_film(stage: Exposed) -> str:
    video_id = await stage.order(Order(name="first"))
    # A film that takes its time would be no film before the fault.
    await stage.reaches(video_id)
    month = f"{datetime.now(UTC).replace(day=1) - timedelta(days=1):%Y-%m}"
    (await stage.ask("POST", f"/admin/months/{month}/close", json={})).raise_for_status()
    return video_id


@asynccontextmanager
async def _customers(stage: Exposed) -> AsyncIterator[None]:
    """Until the block is left; whoever has begun an order waits for its answer."""
    over, numbers, dice = asyncio.Event(), itertools.count(), random.Random(stage.folder.name)
    async with asyncio.TaskGroup() as group:
        for _ in range(CUSTOMERS):
            group.create_task(_order(stage, over, numbers, dice))
        group.create_task(_look(stage, over))
        operator = group.create_task(_operate(stage))
        yield
        over.set()
        operator.cancel()


async def _order(stage: Exposed, over: asyncio.Event, numbers: "itertools.count[int]", dice: random.Random) -> None:
    while not over.is_set():
        order = Order(
            name=f"video-{next(numbers)}", faults=dice.choice(FAULTS), order=tuple(dice.sample(list(SELLERS), 3))
        )
        await stage.order(order)
        await asyncio.sleep(PAUSE_S * dice.uniform(0.5, 1.5))


async def _look(stage: Exposed, over: asyncio.Event) -> None:
    while not over.is_set():
        for path in (f"/v1/videos/{stage.film}", "/v1/videos", f"/v1/videos/{stage.film}/content"):
            await stage.ask_once("GET", path)
        await asyncio.sleep(0.2)


async def _operate(stage: Exposed) -> None:
    while True:
        await stage.decide()
        await asyncio.sleep(0.5)


def _complaints(stage: Exposed, scene: Scene, tally: Tally) -> list[str]:
    """What the scene promises, and did not keep."""
    found = []
    if tally.failed:
        found.append(f"{tally.failed} videos failed that only had to wait")
    refused = stage.count("during", "POST videos", well=False)
    if scene.creates_refused is not None and bool(refused) != scene.creates_refused:
        found.append(f"{refused} creates were refused during it")
    for what, go_on in (
        ("GET video", scene.reads_go_on),
        ("GET videos", scene.reads_go_on),
        ("GET content", scene.films_go_on),
    ):
        broken = stage.count("during", what, well=False)
        if go_on and broken:
            found.append(f"{broken} of {what} failed during it")
    return found
