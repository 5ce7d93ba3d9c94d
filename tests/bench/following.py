"""
Many attempts in flight, each polled every few seconds, with requests beside them.

They are written into the database as one that was created over HTTP and accepted by the seller stands
there, so every row is as the server would have made it. The seller, `endless`, lets none of them end.
"""

import contextlib
import re
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from tests.bench import machine
from tests.bench.accepting import create_requests, gets
from tests.bench.bench import Bench
from tests.bench.carrying import exchanges
from tests.bench.load import Generator, Job, Tally
from tests.bench.report import Line, count, megabytes, percentiles
from tests.bench.serve import Process, Server, fetch, make_key, start, start_server, write_rules
from tests.ports import free_port

EXPECTED_S = 120.0
"""Of every video: a fifth of it is above the longest interval between two polls, which is 10 s on average."""
INTERVAL_S = 10.0
CREATES_PER_S, GETS_PER_S = 100, 500
FIRST_AFTER_S = 2.0
"""From the filling to the first poll."""
ACCEPTED_WITHIN_S = 10.0

_NUMBERS = "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :many)"
_VIDEO = "printf('video_%032x', n)"
_COPIES: dict[str, dict[str, str]] = {
    "videos": {"id": _VIDEO},
    "attempts": {
        "video_id": _VIDEO,
        "client_ref": f"{_VIDEO} || '-1'",
        "seller_id": "printf('task-filled-%016d', n)",
    },
    "work": {
        "video_id": _VIDEO,
        "due_at": "CASE WHEN attempt_no = 0 THEN due_at ELSE :first_us + n * :spread_us / :many END",
    },
    "ledger_transactions": {"id": f"{_VIDEO} || substr(id, instr(id, '/'))", "video_id": _VIDEO},
    "ledger_postings": {"transaction_id": f"{_VIDEO} || substr(transaction_id, instr(transaction_id, '/'))"},
}
"""Table to its columns that differ from the row that is copied."""


def fill(database: Path, video_id: str, many: int, *, spread_s: float) -> None:
    """So many videos like that one, their polls due one after the other over `spread_s` seconds."""
    with contextlib.closing(sqlite3.connect(database, timeout=30)) as rows:
        first_us = int((time.time() + FIRST_AFTER_S) * 1e6)
        values = {"video": video_id, "many": many, "first_us": first_us, "spread_us": int(spread_s * 1e6)}
        rows.execute("BEGIN IMMEDIATE")
        for table, changed in _COPIES.items():
            columns = [row[1] for row in rows.execute(f"PRAGMA table_info({table})")]
            key = next(iter(changed))
            into, chosen = ", ".join(columns), ", ".join(changed.get(column, column) for column in columns)
            of_video = f"{key} = :video OR {key} LIKE :video || '/%'"
            copy = f"INSERT INTO {table} ({into}) SELECT {chosen} FROM {table}, numbers WHERE {of_video}"  # noqa: S608 - of words above
            rows.execute(f"{_NUMBERS} {copy}", values)
        rows.execute("COMMIT")


@contextlib.contextmanager
def _endless_seller(folder: Path) -> Iterator[Process]:
    port = free_port()
    seller = start("tests.bench.endless", [str(port)], folder=folder, port=port, probe="/", env={})
    try:
        yield seller
    finally:
        seller.kill()


def _accepted(bench: Bench, server: Server) -> str:
    """A video whose order the seller has taken."""
    requests = create_requests(server.key)
    job = Job(port=server.process.port, requests=requests, connections=1, count=1, keep_ids=True)
    video_id = bench.generator.send(job).ids[0]
    query = "SELECT count(*) FROM attempts JOIN work USING (video_id) WHERE state = 'running' AND attempt_no = 1"
    with contextlib.closing(sqlite3.connect(server.database, timeout=10)) as rows:
        ends_at = time.monotonic() + ACCEPTED_WITHIN_S
        while not rows.execute(query).fetchone()[0]:
            if time.monotonic() > ends_at:
                raise RuntimeError("the seller has taken no order")
            time.sleep(0.05)
    return video_id


class Lags(msgspec.Struct, frozen=True):
    """The server's own histogram of how late its polls began: seconds to the polls that were no later."""

    up_to: dict[float, int]

    @property
    def polls(self) -> int:
        return self.up_to[float("inf")]

    def since(self, before: "Lags") -> "Lags":
        return Lags({bound_s: number - before.up_to.get(bound_s, 0) for bound_s, number in self.up_to.items()})

    def at(self, share: float) -> float:
        """The upper bound of the bucket in which that share of the polls is reached; infinite beyond the last."""
        return next(bound_s for bound_s, number in sorted(self.up_to.items()) if number >= share * self.polls)

    def told(self, percent: int) -> str:
        """As in `p99 <= 0.5 s`."""
        bound_s = self.at(percent / 100)
        if bound_s == float("inf"):
            return f"p{percent} > {sorted(self.up_to)[-2]:g} s"
        return f"p{percent} <= {bound_s:g} s"


_BUCKET = re.compile(r'^reelay_poll_lag_seconds_bucket\{.*le="([^"]+)".*\} ([0-9.e+]+)$', re.MULTILINE)


def read_lags(text: str) -> Lags:
    """From a scrape of `/metrics`, all providers together."""
    found: dict[float, int] = {float("inf"): 0}
    for bound, number in _BUCKET.findall(text):
        found[float(bound)] = found.get(float(bound), 0) + int(float(number))
    return Lags(found)


def _lags(server: Server) -> Lags:
    return read_lags(fetch(server.process.port, "/metrics")[1].decode())


def measure_following(bench: Bench) -> list[Line]:
    scale = bench.scale
    many = Crowd(
        folder="many", attempts=scale.followed, spread_s=INTERVAL_S, warm_s=scale.follow_warm_s, seconds=scale.follow_s
    )
    # No policy of ours leaves an attempt alone for 30 s; so the first polls are spread so far, and what is
    # measured ends before the first of the second ones.
    more = Crowd(
        folder="more",
        attempts=scale.followed_stretch,
        spread_s=3 * INTERVAL_S,
        warm_s=0.5,
        seconds=min(scale.follow_s, 0.8 * INTERVAL_S),
    )
    return [
        _follow(bench, many, goal="poll lag p99 <= 1 s, RSS <= 250 MB", profile="poll"),
        _follow(bench, more, goal="the same (stretch)"),
    ]


class Crowd(msgspec.Struct, frozen=True, kw_only=True):
    """What is in flight, and how long it is looked at."""

    folder: str
    attempts: int
    spread_s: float
    warm_s: float
    seconds: float


@contextlib.contextmanager
def followed(bench: Bench, crowd: Crowd, *, module: str = "proxy") -> Iterator[tuple[Server, Process, str]]:
    """The server, warm, with so many in flight; their seller; and one of the videos."""
    folder = bench.folder / f"following-{crowd.folder}"
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        seller = stack.enter_context(_endless_seller(folder))
        origin = f"http://127.0.0.1:{seller.port}"
        write_rules(folder, lambda _: origin, pace_s=EXPECTED_S)
        process = start_server(folder, module=module)
        stack.callback(process.kill)
        server = Server(process=process, folder=folder, key=make_key(bench.generator, process))
        video_id = _accepted(bench, server)
        fill(server.database, video_id, crowd.attempts, spread_s=crowd.spread_s)
        time.sleep(FIRST_AFTER_S + crowd.warm_s)
        yield server, seller, video_id


def _follow(bench: Bench, crowd: Crowd, *, goal: str, profile: str | None = None) -> Line:
    with followed(bench, crowd) as (server, seller, video_id):
        found = _beside_requests(bench, server, seller, video_id, crowd)
    return msgspec.structs.replace(found, goal=goal, profile=profile)


def _beside_requests(bench: Bench, server: Server, seller: Process, video_id: str, crowd: Crowd) -> Line:
    seconds = crowd.seconds
    port, pid = server.process.port, server.process.pid
    with Generator() as other:
        watch = machine.Watch([bench.generator.process.pid, other.process.pid, pid, seller.pid])
        machine.forget_peak(pid)
        submits = exchanges(port, "submit")
        before, begun = _lags(server), time.perf_counter()
        cpu_before, seller_before = machine.cpu_s(pid), machine.cpu_s(seller.pid)
        creating = Job(
            port=port, requests=create_requests(server.key), connections=32, per_second=CREATES_PER_S, seconds=seconds
        )
        getting = Job(
            port=port, requests=gets(server, (video_id,)), connections=64, per_second=GETS_PER_S, seconds=seconds
        )
        created: list[Tally] = []
        beside = threading.Thread(target=lambda: created.append(bench.generator.send(creating)))
        beside.start()
        got = other.send(getting)
        beside.join()
        took_s = time.perf_counter() - begun
        lags, submits = _lags(server).since(before), exchanges(port, "submit") - submits
        cpu_s, seller_s = machine.cpu_s(pid) - cpu_before, machine.cpu_s(seller.pid) - seller_before
        rss_bytes, disturbance = machine.peak_rss_bytes(pid), watch.end()
    if not created:
        raise RuntimeError("the creates beside the polls have failed")
    return Line(
        name=f"{count(crowd.attempts)} in flight at {crowd.spread_s:.0f} s",
        goal="",
        measured=f"{lags.told(99)}, {megabytes(rss_bytes)}",
        met=lags.at(0.99) <= 1 and rss_bytes <= 250e6,
        notes=(
            f"poll lag {lags.told(50)}, {lags.told(90)}, by the server's own buckets",
            f"{lags.polls / took_s:.0f} polls/s and {submits / took_s:.0f} submits/s",
            f"cores: server {cpu_s / took_s:.2f}, seller {seller_s / took_s:.2f}",
            _told("creates", created[0]),
            _told("GETs", got),
        ),
        disturbance=disturbance,
    )


def _told(what: str, tally: Tally) -> str:
    return f"{count(tally.per_second)} {what}/s beside them: {percentiles(tally.latencies_us)}"
