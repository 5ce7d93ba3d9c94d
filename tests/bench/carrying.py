"""
Videos from accept to file over EvoLink's wire; accepting beside that work; downloading a large file.

The sellers are `reelay sandbox` in a process of its own, on the same cores. Their pace is such that a
video is done between its first and its third poll.
"""

import contextlib
import sqlite3
import time
from pathlib import Path

import msgspec

from tests.bench.accepting import create_requests
from tests.bench.bench import PARALLEL, Bench
from tests.bench.downloading import measure_downloading
from tests.bench.load import Job
from tests.bench.machine import cpu_s
from tests.bench.report import Line, at, count, percentiles
from tests.bench.serve import Process, Server, fetch, make_key, start_sellers, start_server, write_rules

SPEED = 80.0
"""Sellers' seconds in one: their 65 to 165 become 0.8 to 2.1, and polls are a second apart."""
PACE_S = 1.0
TOP_UP_EVERY_S = 0.05
TOP_UP_CONNECTIONS = 4
DRAINED_WITHIN_S = 60.0


class _Count(msgspec.Struct, frozen=True):
    """What had happened at a moment."""

    at: float
    completed: int
    polls: int
    server_cpu_s: float
    sellers_cpu_s: float


class _Books:
    """What the server has done, read from its database beside it."""

    def __init__(self, database: Path) -> None:
        self._rows = sqlite3.connect(f"file:{database}?mode=ro", uri=True)

    def _one(self, query: str) -> int:
        number: int = self._rows.execute(query).fetchone()[0]
        return number

    def completed(self) -> int:
        return self._one("SELECT count(*) FROM videos WHERE status = 'completed'")

    def failed(self) -> int:
        return self._one("SELECT count(*) FROM videos WHERE status = 'failed'")

    def attempts(self) -> int:
        return self._one("SELECT count(*) FROM attempts")

    def lives_us(self) -> list[float]:
        """From accept to file, in rising order."""
        query = "SELECT ended_at - created_at FROM videos WHERE status = 'completed' ORDER BY 1"
        return [float(row[0]) for row in self._rows.execute(query)]

    def close(self) -> None:
        self._rows.close()


def measure_carrying(bench: Bench) -> list[Line]:
    folder = bench.folder / "carrying"
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        sellers = start_sellers(folder, speed=SPEED)
        stack.callback(sellers.kill)
        origin = f"http://127.0.0.1:{sellers.port}"
        write_rules(folder, lambda name: f"{origin}/{name}", max_in_flight=200, pace_s=PACE_S)
        process = start_server(folder)
        stack.callback(process.kill)
        server = Server(process=process, folder=folder, key=make_key(bench.generator, process))
        books = stack.enter_context(contextlib.closing(_Books(server.database)))
        carried = _carry(bench, server, sellers, books)
        downloaded = measure_downloading(bench, server, sellers)
        return [carried, downloaded, _accept_beside(bench, server, sellers, books)]


def exchanges(port: int, operation: str) -> int:
    """How many of these the server has had with its sellers."""
    lines = fetch(port, "/metrics")[1].decode().splitlines()
    wanted = [
        line
        for line in lines
        if line.startswith("reelay_provider_attempts_total{") and f'operation="{operation}"' in line
    ]
    return int(sum(float(line.rpartition(" ")[2]) for line in wanted))


def _count(server: Server, sellers: Process, books: _Books) -> _Count:
    return _Count(
        time.perf_counter(),
        books.completed(),
        exchanges(server.process.port, "poll"),
        cpu_s(server.process.pid),
        cpu_s(sellers.pid),
    )


def _carry(bench: Bench, server: Server, sellers: Process, books: _Books) -> Line:
    """Always as many on their way: for each video that ends, another is created."""
    scale, requests = bench.scale, create_requests(server.key)
    watch = bench.watch(server.process, sellers)
    created = 0

    def top_up(until: float) -> None:
        nonlocal created
        while time.perf_counter() < until:
            missing = scale.in_flight - (created - books.completed() - books.failed())
            if missing > 0:
                job = Job(port=server.process.port, requests=requests, connections=TOP_UP_CONNECTIONS, count=missing)
                created += bench.generator.send(job).sent
            time.sleep(TOP_UP_EVERY_S)

    top_up(time.perf_counter() + scale.carry_warm_s)
    before = _count(server, sellers, books)
    top_up(before.at + scale.carry_s)
    after = _count(server, sellers, books)
    disturbance = watch.end()
    _drain(books, created)
    videos, seconds = after.completed - before.completed, after.at - before.at
    if not videos or books.failed():
        raise RuntimeError(f"{videos} videos were completed and {books.failed()} failed")
    lives = books.lives_us()
    server_s, sellers_s = after.server_cpu_s - before.server_cpu_s, after.sellers_cpu_s - before.sellers_cpu_s
    return Line(
        name="videos carried end to end",
        goal=">= 100/s",
        measured=f"{videos / seconds:.0f}/s",
        met=videos / seconds >= 100,
        notes=(
            f"ms of CPU a video: server {server_s / videos * 1000:.1f}, sellers {sellers_s / videos * 1000:.1f}",
            f"the server had {server_s / seconds:.2f} cores; {scale.in_flight} videos were on their way",
            f"from accept to file: {percentiles([at(lives, share) for share in (0.5, 0.9, 0.99)])}",
            f"{(after.polls - before.polls) / videos:.1f} polls and a clip of 64 KiB each",
        ),
        disturbance=disturbance,
    )


def _drain(books: _Books, created: int) -> None:
    ends_at = time.monotonic() + DRAINED_WITHIN_S
    while books.completed() + books.failed() < created:
        if time.monotonic() > ends_at:
            raise RuntimeError(f"{created - books.completed()} videos have not ended")
        time.sleep(0.1)


def _accept_beside(bench: Bench, server: Server, sellers: Process, books: _Books) -> Line:
    """Last, for it leaves the sellers more than they can do."""
    watch = bench.watch(server.process, sellers)
    sent_before, begun, cpu_before_s = books.attempts(), time.perf_counter(), cpu_s(server.process.pid)
    job = msgspec.structs.replace(
        bench.timed(server.process.port, create_requests(server.key)), seconds=2 * bench.scale.seconds
    )
    tally = bench.generator.send(job)
    seconds, server_s = time.perf_counter() - begun, cpu_s(server.process.pid) - cpu_before_s
    submits_per_s = (books.attempts() - sent_before) / seconds
    return Line(
        name=f"create, {PARALLEL} in parallel, worker at work",
        goal="",
        measured=f"{count(tally.per_second)}/s",
        notes=(
            f"beside {submits_per_s:.0f} submits/s to sellers on the same cores",
            f"{percentiles(tally.latencies_us)}; the server had {server_s / seconds:.2f} cores",
        ),
        disturbance=watch.end(),
    )
