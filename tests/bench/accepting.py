"""
Create and retrieve, against the floor; how soon the server is ready, and how large it is then.

The sellers are one socket that takes connections and never answers. A worker has at most 400 pieces of
work under way, so once it has sent 400 orders it waits for the seller and takes no more CPU: what is
measured is the accepting alone. What accepting is like beside a worker that works, `carrying` measures.
"""

import contextlib
import socket
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import msgspec

from tests.bench import machine
from tests.bench.bench import BODY, PARALLEL, Bench, against_floor, run
from tests.bench.load import Job, get, post
from tests.bench.report import Line, count, megabytes, microseconds, percentiles
from tests.bench.serve import Process, Server, make_key, start_floor, start_server, write_rules

WORK_AT_ONCE = 400
"""What `proxy.services.worker` has under way at the most."""
CREATED_FIRST = WORK_AT_ONCE + 200
SHOWN_IDS = 256
END_USERS = 64


@contextlib.contextmanager
def silent_seller() -> Iterator[int]:
    """The port of one that takes every connection (the kernel does) and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        yield listening.getsockname()[1]


def measure_accepting(bench: Bench) -> list[Line]:
    folder = bench.folder / "accepting"
    folder.mkdir()
    with silent_seller() as port, contextlib.ExitStack() as stack:
        write_rules(folder, lambda _: f"http://127.0.0.1:{port}", max_in_flight=WORK_AT_ONCE, submit_timeout_s=3600)
        process, started = _starts(bench, folder)
        stack.callback(process.kill)
        server = Server(process=process, folder=folder, key=make_key(bench.generator, process))
        created, ids = fill(bench, server)
        retrieved = run(bench, process, Job(port=process.port, requests=gets(server, ids), connections=1, count=1))
        floor = start_floor(folder, created=created, retrieved=retrieved.tally.sample)
        stack.callback(floor.kill)
        return [
            _create(bench, server, floor),
            _one_at_a_time(bench, server, floor),
            _retrieve(bench, server, floor, ids),
            *started,
        ]


def _starts(bench: Bench, folder: Path) -> tuple[Process, list[Line]]:
    """The last of several servers, and what their starts took; the first of them makes the database."""
    watch = bench.watch()
    process = fresh = start_server(folder)
    times, sizes = [], []
    for _ in range(bench.scale.starts):
        process.kill()
        process = start_server(folder)
        times.append(process.ready_after_s)
        time.sleep(bench.scale.settle_s)
        sizes.append(machine.rss_bytes(process.pid))
    times, sizes = times or [fresh.ready_after_s], sizes or [machine.rss_bytes(fresh.pid)]
    ready_s, idle_bytes, disturbance = median(times), median(sizes), watch.end(started=process.pid)
    return process, [
        Line(
            name="ready after start",
            goal="<= 1.5 s",
            measured=f"{ready_s:.2f} s",
            met=ready_s <= 1.5,
            notes=(f"{min(times):.2f} to {max(times):.2f} s; {fresh.ready_after_s:.2f} s on a new database",),
            disturbance=disturbance,
        ),
        Line(
            name="RSS idle",
            goal="<= 110 MB",
            measured=megabytes(idle_bytes),
            met=idle_bytes <= 110e6,
        ),
    ]


def create_requests(key: str, *, end_users: int = 0) -> tuple[bytes, ...]:
    """Bodies as clients send them; with an end user each, in turn, or without."""
    bodies = [BODY | {"end_user_id": f"user-{number}"} for number in range(end_users)] or [BODY]
    return tuple(post("/v1/videos", msgspec.json.encode(body), key) for body in bodies)


def gets(server: Server, ids: tuple[str, ...]) -> tuple[bytes, ...]:
    return tuple(get(f"/v1/videos/{video_id}", server.key) for video_id in ids)


def fill(bench: Bench, server: Server) -> tuple[str, tuple[str, ...]]:
    """So many videos that the worker waits for the seller; an answer, and ids of videos with an attempt."""
    job = Job(
        port=server.process.port,
        requests=create_requests(server.key),
        connections=PARALLEL,
        count=CREATED_FIRST,
        keep_ids=True,
    )
    tally = bench.generator.send(job)
    with contextlib.closing(sqlite3.connect(f"file:{server.database}?mode=ro", uri=True)) as database:
        ends_at = time.monotonic() + 30
        while (sent := database.execute("SELECT count(*) FROM attempts").fetchone()[0]) < WORK_AT_ONCE:
            if time.monotonic() > ends_at:
                raise RuntimeError(f"the worker has begun {sent} attempts, not {WORK_AT_ONCE}")
            time.sleep(0.05)
    time.sleep(0.5)
    return tally.sample, tally.ids[:SHOWN_IDS]


def _create(bench: Bench, server: Server, floor: Process) -> Line:
    ours = bench.timed(server.process.port, create_requests(server.key))
    bare = bench.timed(floor.port, create_requests(server.key))
    found = against_floor(bench, server.process, floor, ours, bare)
    named = run(
        bench, server.process, bench.timed(server.process.port, create_requests(server.key, end_users=END_USERS))
    )
    return Line(
        name=f"create, {PARALLEL} in parallel",
        goal=">= 0.28 x floor, >= 2,000/s",
        measured=f"{count(found.per_second)}/s",
        floor=f"{count(found.floor_per_second)}/s",
        ratio=found.shown_ratio,
        met=found.ratio >= 0.28 and found.per_second >= 2000,
        profile="create",
        notes=(
            "accepting alone: the sellers are silent, the worker waits for them",
            *found.notes(),
            f"with one of {END_USERS} end users named: {count(named.tally.per_second)}/s, {named.cpu_us:.0f} µs",
        ),
        disturbance=found.disturbance,
    )


def _one_at_a_time(bench: Bench, server: Server, floor: Process) -> Line:
    singles = bench.scale.singles
    watch = bench.watch(server.process, floor)
    syncs = machine.fdatasync_us(bench.folder, singles // 2)
    requests = create_requests(server.key)
    ours = run(bench, server.process, Job(port=server.process.port, requests=requests, connections=1, count=singles))
    bare = run(bench, floor, Job(port=floor.port, requests=requests, connections=1, count=singles))
    syncs = sorted(syncs + machine.fdatasync_us(bench.folder, singles // 2))
    sync_us, late_us = median(syncs), syncs[len(syncs) * 99 // 100]
    p50_us, p99_us = ours.tally.p50_us, ours.tally.p99_us
    return Line(
        name="create, one at a time",
        goal="p50 <= 1.2 ms + fdatasync, p99 <= 10 ms",
        measured=f"p50 {p50_us / 1000:.2f} ms, p99 {p99_us / 1000:.2f} ms",
        floor=f"p50 {bare.tally.p50_us / 1000:.2f} ms",
        met=p50_us <= 1200 + sync_us and p99_us <= 10_000,
        notes=(
            f"{percentiles(ours.tally.latencies_us)}; p50 without an fdatasync: {microseconds(p50_us - sync_us)}",
            f"CPU a request: server {ours.cpu_us:.0f} µs, floor {bare.cpu_us:.0f}",
            f"fdatasync of one page here: p50 {microseconds(sync_us)}, p99 {microseconds(late_us)}",
        ),
        disturbance=watch.end(),
    )


def _retrieve(bench: Bench, server: Server, floor: Process, ids: tuple[str, ...]) -> Line:
    requests = gets(server, ids)
    ours, bare = bench.timed(server.process.port, requests), bench.timed(floor.port, requests)
    found = against_floor(bench, server.process, floor, ours, bare)
    return Line(
        name=f"GET /v1/videos/{{id}}, {PARALLEL} in parallel",
        goal=">= 0.33 x floor, >= 3,500/s",
        measured=f"{count(found.per_second)}/s",
        floor=f"{count(found.floor_per_second)}/s",
        ratio=found.shown_ratio,
        met=found.ratio >= 0.33 and found.per_second >= 3500,
        profile="retrieve",
        notes=(f"{len(ids)} videos with one attempt each", *found.notes()),
        disturbance=found.disturbance,
    )
