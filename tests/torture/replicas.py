"""
Several servers on one PostgreSQL database.

One is stopped past its lease and wakes; the database goes away under all of them; a new version takes their place.
"""

import asyncio
import hashlib
import itertools
import os
import random
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psycopg

from proxy.store.migrations import HEAD
from tests import newer
from tests.databases import OwnServer, whole_in
from tests.ports import free_port
from tests.torture import mortal
from tests.torture.crash_points import rules
from tests.torture.revived import FAILING_MAX_S, Failures, Order, Revived
from tests.torture.verdict import Tally, judge, summed
from tests.whole.scenes import metric
from tests.whole.stage import KEY, SELLERS

SPEED = 25.0
"""Faster sellers would take their films away while a lease runs."""
LANES = 4
CUSTOMERS = 10
CANCELLED_RATIO = 0.1
BOLD_RATIO = 0.15
AWAY_S = (0.5, 3.0)
LONG_AWAY_S = 12.0
"""Longer than anybody asks what became of a commit."""
READY_WITHIN_S = 10.0
TOLD_WITHIN_S = 5.0
"""So soon a server says that the database is away."""
ANSWER_WITHIN_S = 15.0
"""However the schema is migrated."""


class Replica(msgspec.Struct, kw_only=True):
    """A process of ours, and how it is asked."""

    process: ForkServerProcess
    client: httpx.AsyncClient
    log: Path

    @property
    def owner(self) -> str:
        """How its leases are found."""
        return f"%:{self.process.pid}"

    async def says(self, status: int, *, within_s: float) -> bool:
        """Whether `/readyz` comes to this status in time."""
        try:
            async with asyncio.timeout(within_s):
                while await self.status() != status:
                    await asyncio.sleep(0.05)
        except TimeoutError:
            return False
        return True

    async def status(self) -> int:
        """Of `/readyz`; 0: nobody answers."""
        try:
            return (await self.client.get("/readyz")).status_code
        except httpx.TransportError:
            return 0


class Fleet(Revived):
    """Customers are sent to whoever is at work; what they are told wrongly is written down."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        super().__init__(folder, stack)
        self.at_work: list[Replica] = []
        """Whom customers ask."""
        self.wrongs: list[str] = []
        self.longest_s = 0.0
        """That anybody waited for an answer."""
        self._all: list[ForkServerProcess] = []
        self._turns = itertools.count()
        self._ended: dict[str, Any] = {}

    async def found(self, folder: Path, url: str | None = None) -> None:
        """Empty, and nobody at work; on the tests' own server, or at this address."""
        for process in self._all:
            process.kill()
        await self.move(folder, "postgresql", rules)
        if url is not None:
            (self.folder / "database-url").write_text(url)
            self.furnish()
        self.at_work, self.wrongs, self.longest_s = [], [], 0.0
        self._ended = {}

    async def add(self, verb: str = "serve", **how: Any) -> Replica:
        """One more; ready, unless it is told where to stop. It is asked once it is put among those at work."""
        port = free_port()
        log = self.folder / f"serve-{port}.log"
        process = mortal.start([verb], self.folder, self.environment | {"REELAY_PORT": str(port)}, log, **how)
        self._stack.callback(process.kill)
        self._all.append(process)
        client = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}",
            headers={"authorization": f"Bearer {KEY}"},
            trust_env=False,
            timeout=30,
            # A server closes an idle connection when it likes, also when a request is on its way to it.
            limits=httpx.Limits(max_keepalive_connections=0),
        )
        self._stack.push_async_callback(client.aclose)
        replica = Replica(process=process, client=client, log=log)
        if not await replica.says(200, within_s=60):
            raise RuntimeError(f"it is not ready: {log.read_text()[-3000:]}")
        return replica

    async def ask(self, method: str, path: str, *, patience_s: float = FAILING_MAX_S, **sent: Any) -> httpx.Response:
        """The first answer that is not `come back later`; whatever else is none of a client's business is wrong."""
        loop = asyncio.get_running_loop()
        failures = Failures(patience_s)
        while True:
            replica = self.at_work[next(self._turns) % len(self.at_work)]
            begun = loop.time()
            try:
                answer = await replica.client.request(method, path, **sent)
            except httpx.TransportError as exc:
                if replica in self.at_work:
                    self.wrongs.append(f"{method} {path}: no answer: {exc!r}")
                await asyncio.sleep(0.05)
                continue
            self.longest_s = max(self.longest_s, loop.time() - begun)
            if answer.status_code >= 500:
                failures.add(answer)
            if answer.status_code == 503 and 1 <= int(answer.headers.get("retry-after", 0)) <= 60:
                await asyncio.sleep(0.2)
                continue
            if answer.status_code >= 500 and path != "/readyz":
                self.wrongs.append(f"{method} {path}: {answer.status_code} {answer.text[:200]}")
            if answer.status_code < 500:
                return answer
            await asyncio.sleep(0.05)

    async def look(self, video_id: str) -> None:
        """A customer asks for its film; what was over once is so for ever."""
        answer = await self.ask("GET", f"/v1/videos/{video_id}")
        if answer.status_code != 200:
            self.wrongs.append(f"{video_id} was accepted, and is answered {answer.status_code}")
            return
        video = answer.json()
        now = video["status"], (video["error"] or {}).get("code")
        was = self._ended.setdefault(video_id, now) if now[0] in {"completed", "failed"} else self._ended.get(video_id)
        if was not in {None, now}:
            self.wrongs.append(f"{video_id} was {was}, and is {now}")

    async def be_a_customer(self, over: asyncio.Event, numbers: "itertools.count[int]", dice: random.Random) -> None:
        mine: list[str] = []
        while not over.is_set():
            order = Order(
                name=f"video-{next(numbers)}",
                order=tuple(dice.sample(list(SELLERS), 3)),
                bold=dice.random() < BOLD_RATIO,
            )
            mine.append(await self.order(order))
            if dice.random() < CANCELLED_RATIO:
                await self.ask("POST", f"/v1/videos/{mine[-1]}/cancel")
            for video_id in dice.sample(mine, min(3, len(mine))):
                await self.look(video_id)
            await asyncio.sleep(dice.uniform(0.2, 1))

    async def verdict(self, fault: str, *, within_s: float) -> Tally:
        tally = await judge(self, fault, within_s=within_s)
        tally.tries = len(self.accepted)
        for video_id in self.accepted:
            await self.look(video_id)
        tally.differences += self.wrongs
        return tally


# Stopped past its lease


class Pause(msgspec.Struct, frozen=True, kw_only=True):
    """Where a worker is stopped, and what it may be told when it wakes."""

    fault: str
    point: str
    seller: str
    bold: bool = False
    loses: bool = True
    """Whether it then finds that it has lost its lease; it need not, where it has nothing more to write."""
    patient: bool = False
    """The lease runs out by itself; else it is cut short, as seen from the database."""


_SUBMIT, _POLL, _COPY, _COMMIT = (
    f"stopped past its lease in {what}" for what in ("a submit", "a poll", "a copy", "a commit")
)
PAUSES = [
    Pause(fault=_SUBMIT, point="send POST fal no.1 after", seller="fal", patient=True),
    Pause(fault=_SUBMIT, point="write proxy.services.dispatch.advance no.1 after", seller="evolink", patient=True),
    Pause(fault=_POLL, point="send GET evolink no.1 after", seller="evolink", loses=False, patient=True),
    Pause(fault=_COPY, point="put film no.1 middle", seller="evolink", patient=True),
    Pause(fault=f"{_SUBMIT}, fallback", point="send POST shortapi no.1 after", seller="shortapi", bold=True),
    *(
        Pause(fault=_SUBMIT, point=f"send POST {seller} no.1 {moment}", seller=seller)
        for seller in SELLERS
        for moment in ("before", "after")
    ),
    Pause(fault=f"{_SUBMIT}, fallback", point="send POST fal no.1 before", seller="fal", bold=True),
    Pause(fault=f"{_SUBMIT}, fallback", point="send POST fal no.1 after", seller="fal", bold=True),
    Pause(fault=_POLL, point="send GET fal no.1 before", seller="fal", loses=False),
    Pause(fault=_POLL, point="send GET shortapi no.2 after", seller="shortapi", loses=False),
    Pause(fault=_COPY, point="fetch film no.1 after", seller="fal"),
    Pause(fault=_COPY, point="put film no.1 after", seller="shortapi"),
    Pause(fault=_COMMIT, point="write proxy.services.dispatch._record no.1 before", seller="fal"),
    Pause(fault=_COMMIT, point="write proxy.services.deliver._complete no.1 before", seller="fal", loses=False),
    Pause(fault=_COMMIT, point="write proxy.services.deliver._complete no.1 after", seller="evolink", loses=False),
]


async def stop_and_wake(stage: Fleet, pause: Pause, folder: Path) -> Tally:
    """One worker is stopped, another takes over what it held, and then it wakes."""
    await stage.found(folder)
    stage.write_rules(rules, deadline_s=600, submit_timeout_s=5)
    diary = folder / "diary"
    sleeper = await stage.add(dies_at=pause.point, diary=diary, by=signal.SIGSTOP)
    stage.at_work = [sleeper]
    order = Order(name="stopped", faults=("cb_lost",), order=(pause.seller, "evolink", "runflow"), bold=pause.bold)
    ordering = asyncio.create_task(stage.order(order))
    async with asyncio.timeout(60):
        while pause.point not in diary.read_text().splitlines():
            await asyncio.sleep(0.02)
    stage.kills = 1
    stage.at_work = []
    ordering.cancel()
    await asyncio.wait([ordering])
    stage.at_work = [await stage.add()]
    # Its answer may not have come: asked again with its key.
    video_id = await stage.order(order)
    if not pause.patient:
        whole_in(stage.folder).write("update work set lease_until = 1 where owner like ?", sleeper.owner)
    await _taken_over(stage, pause, video_id)
    assert sleeper.process.pid is not None
    os.kill(sleeper.process.pid, signal.SIGCONT)
    awake = await sleeper.says(200, within_s=30)
    if pause.fault.startswith(_SUBMIT):
        await _healed(stage, video_id)
    tally = await stage.verdict(pause.fault, within_s=240)
    if not awake:
        tally.differences.append("it did not wake")
    tally.differences += await _of_the_sleeper(sleeper, pause)
    tally.differences += await _of_the_film(stage, video_id)
    tally.differences = [f"{pause.point}: {one}" for one in tally.differences]
    return tally


async def _taken_over(stage: Fleet, pause: Pause, video_id: str) -> None:
    """Until the other worker has gone as far as it can."""
    query = "select state from attempts where video_id = ? order by number"
    async with asyncio.timeout(240):
        while True:
            states = [state for (state,) in whole_in(stage.folder).rows(query, video_id)]
            over = (await stage.ask("GET", f"/v1/videos/{video_id}")).json()["status"] in {"completed", "failed"}
            known = pause.fault == _SUBMIT or "_record" in pause.point
            if over or (known and states[0] != "sending"):
                return
            await asyncio.sleep(0.1)


async def _healed(stage: Fleet, video_id: str) -> None:
    """Until what the sleeper brings with it is known; without an operator."""
    query = "select state from attempts where video_id = ? and number = 1"
    async with asyncio.timeout(60):
        while whole_in(stage.folder).rows(query, video_id)[0][0] in {"sending", "unknown"}:
            await asyncio.sleep(0.1)


async def _of_the_sleeper(sleeper: Replica, pause: Pause) -> list[str]:
    """Whether it tells, where it lost its lease; what the database would not take it brings once more."""
    told = counted = not pause.loses
    with suppress(TimeoutError):
        async with asyncio.timeout(30):
            while not (told and counted):
                await asyncio.sleep(0.2)
                told = "lease.lost" in sleeper.log.read_text()
                counted = metric((await sleeper.client.get("/metrics")).text, "reelay_job_lease_lost_total") > 0
    return [] if told and counted else [f"it lost its lease, and the log says so: {told}, the metrics: {counted}"]


async def _of_the_film(stage: Fleet, video_id: str) -> list[str]:
    """The film that is delivered is the one that was measured, and no other copy is left."""
    [(footage,)] = whole_in(stage.folder).rows("select footage from videos where id = ?", video_id)
    if footage is None:
        return ["there is no film"]
    known = msgspec.json.decode(footage)
    content = (await stage.ask("GET", f"/v1/videos/{video_id}/content")).content
    found = [] if hashlib.sha256(content).hexdigest() == known["sha256"] else ["the film is another than was measured"]
    files = [path.name for path in stage.folder.glob("data/videos/**/*.mp4")]
    return found if len(files) == 1 else [*found, f"the files are {files}"]


async def torture_pauses(folder: Path, pauses: list[Pause], *, lanes: int = LANES) -> list[Tally]:
    """One tally for each."""
    left, tallies = iter(list(enumerate(pauses))), list[Tally]()

    async def work(number: int) -> None:
        async with AsyncExitStack() as stack:
            stage = Fleet(folder / f"lane-{number}", stack)
            await stage.start_sellers(speed=SPEED)
            for place, pause in left:
                tallies.append(await stop_and_wake(stage, pause, folder / f"try-{place}"))

    async with asyncio.TaskGroup() as group:
        for number in range(min(lanes, len(pauses))):
            group.create_task(work(number))
    return tallies


# The database goes away


async def torture_database(folder: Path, *, rounds: int = 2, customers: int = CUSTOMERS) -> Tally:
    """Two servers and a worker, whose database is stopped, crashes, is killed and cuts them off."""
    dice = random.Random("database")
    database = await asyncio.to_thread(OwnServer)
    async with AsyncExitStack() as stack:
        stage = Fleet(folder, stack)
        await stage.start_sellers(speed=SPEED)
        await stage.found(folder / "load", database.url)
        stage.at_work = [await stage.add()]
        stage.at_work.append(await stage.add())
        everybody = [*stage.at_work, await stage.add("work")]
        over, numbers = asyncio.Event(), itertools.count()
        async with asyncio.TaskGroup() as group:
            for _ in range(customers):
                group.create_task(stage.be_a_customer(over, numbers, dice))
            for number in range(rounds):
                for signal_ in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
                    await asyncio.sleep(dice.uniform(1, 3))
                    last = number == rounds - 1 and signal_ is signal.SIGQUIT
                    await _go_away(stage, everybody, database, signal_, LONG_AWAY_S if last else dice.uniform(*AWAY_S))
                await _cut_off(stage, database, dice)
            over.set()
        return await stage.verdict("database restarted under load", within_s=240)


async def _go_away(
    stage: Fleet, everybody: list[Replica], database: OwnServer, number: signal.Signals, seconds: float
) -> None:
    await asyncio.to_thread(database.stop, number)
    stage.kills += 1
    told = await asyncio.gather(*(one.says(503, within_s=TOLD_WITHIN_S) for one in everybody))
    await asyncio.sleep(seconds)
    await asyncio.to_thread(database.start)
    back = await asyncio.gather(*(one.says(200, within_s=READY_WITHIN_S) for one in everybody))
    if not all(told):
        stage.wrongs.append(f"{number.name}: not everybody said in time that the database is away")
    if not all(back):
        stage.wrongs.append(f"{number.name}: not everybody was ready again in time")


async def _cut_off(stage: Fleet, database: OwnServer, dice: random.Random) -> None:
    """Every connection, again and again."""
    query = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'reelay'"
    for _ in range(8):
        await asyncio.sleep(dice.uniform(0.1, 0.6))
        async with await psycopg.AsyncConnection.connect(database.url) as connection:
            await connection.execute(query)
        stage.kills += 1


# A new version


async def torture_deployment(folder: Path, *, customers: int = CUSTOMERS) -> Tally:
    """Two servers are replaced by two of the next version, whose schema has grown, while customers order."""
    dice = random.Random("deployment")
    version = newer.write_version(folder / "version", newer.EXPANDS, newer.INDEXES)
    async with AsyncExitStack() as stack:
        stage = Fleet(folder, stack)
        await stage.start_sellers(speed=SPEED)
        await stage.found(folder / "load")
        old = [await stage.add(), await stage.add()]
        stage.at_work = list(old)
        over, numbers = asyncio.Event(), itertools.count()
        async with asyncio.TaskGroup() as group:
            for _ in range(customers):
                group.create_task(stage.be_a_customer(over, numbers, dice))
            await asyncio.sleep(3)
            await _migrate(stage, old, version)
            # One of the old ones that is started again, as by whoever looks after processes that died.
            old.append(await stage.add())
            stage.at_work.append(old[-1])
            for _ in range(2):
                stage.at_work.append(await stage.add(version=version))
                await asyncio.sleep(1)
            for one in old:
                await _retire(stage, one)
            await asyncio.sleep(2)
            over.set()
        tally = await stage.verdict("a new version takes over under load", within_s=240)
        if stage.longest_s > ANSWER_WITHIN_S:
            tally.differences.append(f"somebody waited {stage.longest_s:.1f} s for an answer")
        return tally


async def _migrate(stage: Fleet, old: list[Replica], version: Path) -> None:
    """While somebody reads for long; nobody at work may notice."""
    database = whole_in(stage.folder)
    log = stage.folder / "migrate.log"
    async with await psycopg.AsyncConnection.connect(database.url) as slow:
        await slow.execute("select count(*) from videos")
        process = mortal.start(["migrate"], stage.folder, stage.environment, log, version=version)
        await asyncio.sleep(4)
        waited = process.exitcode is None
        await slow.rollback()
    migrating = asyncio.create_task(asyncio.to_thread(process.join, 60))
    while not migrating.done():
        for one in old:
            if await one.status() != 200:
                stage.wrongs.append("a server was not ready while the schema was migrated")
        await asyncio.sleep(0.1)
    if not waited or process.exitcode != 0:
        stage.wrongs.append(f"migrating ended with {process.exitcode}, having waited: {waited}: {log.read_text()}")
    if database.rows("select version_num from alembic_version") != [(f"{int(HEAD) + 2:04d}",)]:
        stage.wrongs.append("the schema is not the new version's")


async def _retire(stage: Fleet, one: Replica) -> None:
    """SIGTERM; customers are sent elsewhere first, as by whoever balances them."""
    stage.at_work.remove(one)
    stage.kills += 1
    one.process.terminate()
    await asyncio.to_thread(one.process.join, 40)
    if one.process.exitcode != 0:
        stage.wrongs.append(f"a server that was told to end did so with {one.process.exitcode}")


async def torture(folder: Path, engine: str) -> list[Tally]:
    """On PostgreSQL: SQLite takes one process."""
    assert engine == "postgresql"
    load: list[Callable[[Path], Any]] = [torture_database, torture_deployment]
    *tallies, paused = await asyncio.gather(
        *(one(folder / one.__name__) for one in load), torture_pauses(folder / "pauses", PAUSES)
    )
    return [*summed(paused), *tallies]
