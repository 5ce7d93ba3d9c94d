"""
Create and retrieve on PostgreSQL, against the floor; the database's server is on the same machine and cores.

As in `accepting` the sellers are silent. The server keeps every promise of a commit: nothing is switched off.
"""

import contextlib

from tests.bench.accepting import WORK_AT_ONCE, create_requests, silent_seller
from tests.bench.bench import PARALLEL, Bench, against_floor, run
from tests.bench.load import Job, get
from tests.bench.report import Line, count, percentiles
from tests.bench.serve import Process, make_tenants, start_floor, start_server, write_rules
from tests.databases import start_postgres

TENANTS = 16
CREATED_FIRST = WORK_AT_ONCE + 200
SHOWN_IDS = 256


def measure_sharing(bench: Bench) -> list[Line]:
    folder = bench.folder / "sharing"
    folder.mkdir()
    with silent_seller() as port, contextlib.ExitStack() as stack:
        write_rules(folder, lambda _: f"http://127.0.0.1:{port}", max_in_flight=WORK_AT_ONCE, submit_timeout_s=3600)
        process = start_server(folder, database_url=start_postgres(careless=False))
        stack.callback(process.kill)
        keys = make_tenants(bench.generator, process, TENANTS)
        creates = tuple(request for key in keys for request in create_requests(key))
        first = bench.generator.send(
            Job(port=process.port, requests=creates, connections=PARALLEL, count=CREATED_FIRST, keep_ids=True)
        )
        # The requests go in turn, so an id belongs to the tenant of its place; those of one are enough.
        gets = tuple(get(f"/v1/videos/{video_id}", keys[0]) for video_id in _of_one(bench, process, keys[0]))
        shown = run(bench, process, Job(port=process.port, requests=gets, connections=1, count=1))
        floor = start_floor(folder, created=first.sample, retrieved=shown.tally.sample)
        stack.callback(floor.kill)
        return [
            _create(bench, process, floor, creates),
            _one_at_a_time(bench, process, creates),
            _retrieve(bench, process, floor, gets),
        ]


def _of_one(bench: Bench, process: Process, key: str) -> tuple[str, ...]:
    """Ids of one tenant's videos."""
    job = Job(port=process.port, requests=create_requests(key), connections=1, count=SHOWN_IDS, keep_ids=True)
    return bench.generator.send(job).ids


def _create(bench: Bench, process: Process, floor: Process, requests: tuple[bytes, ...]) -> Line:
    found = against_floor(bench, process, floor, bench.timed(process.port, requests), bench.timed(floor.port, requests))
    return Line(
        name=f"create on PostgreSQL, {PARALLEL} in parallel, {TENANTS} tenants",
        goal=">= 0.12 x floor",
        measured=f"{count(found.per_second)}/s",
        floor=f"{count(found.floor_per_second)}/s",
        ratio=found.shown_ratio,
        met=found.ratio >= 0.12,
        notes=found.notes(),
        disturbance=found.disturbance,
    )


def _one_at_a_time(bench: Bench, process: Process, requests: tuple[bytes, ...]) -> Line:
    watch = bench.watch(process)
    ours = run(bench, process, Job(port=process.port, requests=requests, connections=1, count=bench.scale.singles))
    return Line(
        name="create on PostgreSQL, one at a time",
        goal="",
        measured=f"p50 {ours.tally.p50_us / 1000:.2f} ms, p99 {ours.tally.p99_us / 1000:.2f} ms",
        notes=(percentiles(ours.tally.latencies_us), f"CPU a request: server {ours.cpu_us:.0f} µs"),
        disturbance=watch.end(),
    )


def _retrieve(bench: Bench, process: Process, floor: Process, requests: tuple[bytes, ...]) -> Line:
    found = against_floor(bench, process, floor, bench.timed(process.port, requests), bench.timed(floor.port, requests))
    return Line(
        name=f"GET /v1/videos/{{id}} on PostgreSQL, {PARALLEL} in parallel",
        goal="",
        measured=f"{count(found.per_second)}/s",
        floor=f"{count(found.floor_per_second)}/s",
        ratio=found.shown_ratio,
        notes=found.notes(),
        disturbance=found.disturbance,
    )
