"""
`python -m tests.bench.profiling create` (or `retrieve`, `poll`): what one of them costs the server, and where.

First the CPU of each of its threads under load without a profiler; then the functions of the thread
that answers, under cProfile. That counts the time that passes, so waiting for the interpreter's lock or
for a core is in it, and it makes small functions look dearer than they are. Started with `serve` it is
that profiled server: `reelay serve` that profiles from SIGUSR1 to SIGUSR2.
"""

import contextlib
import cProfile
import os
import pstats
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from tests.bench.accepting import WORK_AT_ONCE, create_requests, fill, gets, silent_seller
from tests.bench.bench import FULL, Bench
from tests.bench.carrying import exchanges
from tests.bench.following import Crowd, followed
from tests.bench.load import ROOT, Generator, Job
from tests.bench.serve import Process, Server, make_key, start_server, write_rules

SECONDS = 5.0
SHOWN = 45
PROFILED = "tests.bench.profiling"
WRITTEN_WITHIN_S = 10.0


def _threads_us(pid: int) -> dict[str, tuple[float, float]]:
    """User and system microseconds of every thread, by its number."""
    ticks_us = 1e6 / os.sysconf("SC_CLK_TCK")
    found = {}
    for thread in Path(f"/proc/{pid}/task").iterdir():
        fields = (thread / "stat").read_text(encoding="ascii").rpartition(")")[2].split()
        found[thread.name] = int(fields[11]) * ticks_us, int(fields[12]) * ticks_us
    return found


class _Work(msgspec.Struct, frozen=True, kw_only=True):
    """What the profiled server is made to do."""

    process: Process
    each: str
    do: Callable[[], int]
    """Has it work for `SECONDS`, and tells how many it has done."""


def _print_threads(work: _Work) -> None:
    before, begun = _threads_us(work.process.pid), time.perf_counter()
    many = work.do()
    took_s, after = time.perf_counter() - begun, _threads_us(work.process.pid)
    taken = {
        thread: tuple(now - then for now, then in zip(figures, before.get(thread, (0.0, 0.0)), strict=True))
        for thread, figures in after.items()
    }
    every_us = sum(user_us + system_us for user_us, system_us in taken.values())
    print(f"{many / took_s:,.0f} {work.each}s/s, {every_us / many:.0f} µs of CPU each:")
    for thread, (user_us, system_us) in taken.items():
        if user_us + system_us >= many:
            role = "the loop" if int(thread) == work.process.pid else "a thread"
            print(f"  {role}: {user_us / many:.0f} user, {system_us / many:.0f} system")


def _print_functions(work: _Work, path: Path) -> None:
    os.kill(work.process.pid, signal.SIGUSR1)
    many = work.do()
    os.kill(work.process.pid, signal.SIGUSR2)
    ends_at = time.monotonic() + WRITTEN_WITHIN_S
    while not path.exists():
        if time.monotonic() > ends_at:
            raise RuntimeError("the profile was not written")
        time.sleep(0.05)
    stats = pstats.Stats(str(path)).stats  # type: ignore[attr-defined]  # it is there, and nothing else has the rows
    print(f"\nUnder cProfile, {many:,} {work.each}s; µs and calls for each, the loop's thread alone:")
    print("     own   total   calls")
    for (file, line, name), (_, calls, own_s, total_s, _) in sorted(stats.items(), key=lambda row: -row[1][2])[:SHOWN]:
        own, total, each = (figure / many for figure in (own_s * 1e6, total_s * 1e6, calls))
        print(f"{own:8.1f}{total:8.1f}{each:8.1f}  {_where(file, line)}{name}")


def _where(file: str, line: int) -> str:
    parts = Path(file).parts
    return "" if file == "~" else f"{'/'.join(parts[-2:])}:{line} "


@contextlib.contextmanager
def _asked(bench: Bench, what: str) -> Iterator[tuple[_Work, Path]]:
    """Requests by sixteen connections, to a server whose seller never answers."""
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(silent_seller())
        write_rules(
            bench.folder, lambda _: f"http://127.0.0.1:{port}", max_in_flight=WORK_AT_ONCE, submit_timeout_s=3600
        )
        process = start_server(bench.folder, module=PROFILED)
        stack.callback(process.kill)
        server = Server(process=process, folder=bench.folder, key=make_key(bench.generator, process))
        _, ids = fill(bench, server)
        requests = create_requests(server.key) if what == "create" else gets(server, ids)
        job = Job(port=process.port, requests=requests, connections=16, warm_s=0.5, seconds=SECONDS)
        yield _Work(process=process, each=what, do=lambda: bench.generator.send(job).sent), bench.folder


@contextlib.contextmanager
def _followed(bench: Bench) -> Iterator[tuple[_Work, Path]]:
    """Nothing but polls: as many as get done of what is due."""
    crowd = Crowd(folder="profiled", attempts=30_000, spread_s=10.0, warm_s=3.0, seconds=SECONDS)
    with followed(bench, crowd, module=PROFILED) as (server, _seller, _):

        def polled() -> int:
            before = exchanges(server.process.port, "poll")
            time.sleep(SECONDS)
            return exchanges(server.process.port, "poll") - before

        yield _Work(process=server.process, each="poll", do=polled), server.folder


def measure(what: str) -> None:
    with tempfile.TemporaryDirectory(prefix="bench-", dir=ROOT / ".cache") as name, Generator() as generator:
        bench = Bench(folder=Path(name).resolve(), scale=FULL, generator=generator)
        with _followed(bench) if what == "poll" else _asked(bench, what) as (work, folder):
            _print_threads(work)
            _print_functions(work, folder / "profile")


def serve() -> None:
    """In the current folder, where the profile is written as `profile`."""
    profile = cProfile.Profile()

    def stop(_number: int, _frame: object) -> None:
        profile.disable()
        profile.dump_stats("profile.part")
        Path("profile.part").rename("profile")

    # Python runs a signal's handler in the main thread, which is the loop's.
    signal.signal(signal.SIGUSR1, lambda _number, _frame: profile.enable())
    signal.signal(signal.SIGUSR2, stop)
    from proxy.cli import main

    main()


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        serve()
    elif len(sys.argv) == 2 and sys.argv[1] in {"create", "retrieve", "poll"}:
        (ROOT / ".cache").mkdir(exist_ok=True)
        measure(sys.argv[1])
    else:
        sys.exit("usage: python -m tests.bench.profiling create|retrieve|poll")
