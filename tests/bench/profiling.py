"""
`python -m tests.bench.profiling create` (or `retrieve`, `poll`): what one of them costs the server, and where.

First the CPU of its threads under load without a profiler; then the rooms, libraries and functions of the
thread that answers, under cProfile. That counts the time that passes, so waiting for the interpreter's lock or
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
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from tests.bench.accepting import WORK_AT_ONCE, create_requests, fill, gets, silent_seller
from tests.bench.bench import FULL, Bench
from tests.bench.carrying import exchanges
from tests.bench.following import Crowd, followed
from tests.bench.load import ROOT, Generator, Job
from tests.bench.report import Line
from tests.bench.serve import Process, Server, make_key, start_server, write_rules

WHAT = ("create", "retrieve", "poll")
SECONDS = 5.0
SHOWN = 45
ROOMS_SHOWN = 14
PROFILED = "tests.bench.profiling"
WRITTEN_WITHIN_S = 10.0

_Function = tuple[str, int, str]
"""File, line, name; the file of C's functions is `~`."""
_Figures = tuple[int, int, float, float, dict[_Function, tuple[int, int, float, float]]]
"""Calls, all calls, own seconds, all seconds; and the same by each caller."""


def _threads_us(pid: int) -> dict[str, tuple[float, float]]:
    """User and system microseconds of every thread, by its number."""
    ticks_us = 1e6 / os.sysconf("SC_CLK_TCK")
    found = {}
    for thread in Path(f"/proc/{pid}/task").iterdir():
        fields = (thread / "stat").read_text(encoding="ascii").rpartition(")")[2].split()
        found[thread.name] = int(fields[11]) * ticks_us, int(fields[12]) * ticks_us
    return found


class Threads(msgspec.Struct, frozen=True, kw_only=True):
    """The CPU that one of many took."""

    each: str
    per_second: float
    loop_us: tuple[float, float]
    """User and system; the same of the thread that took the most of all others, and of the rest together."""
    writer_us: tuple[float, float]
    rest_us: float

    def __str__(self) -> str:
        (loop, loop_system), (writer, writer_system) = self.loop_us, self.writer_us
        every = loop + loop_system + writer + writer_system + self.rest_us
        return (
            f"{self.per_second:,.0f} {self.each}s/s, {every:.0f} µs of CPU each: loop {loop:.0f} user and"
            f" {loop_system:.0f} system, writer {writer:.0f} and {writer_system:.0f}, other threads {self.rest_us:.0f}"
        )


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """The loop's thread under cProfile."""

    many: int
    functions: dict[_Function, _Figures]

    def rooms(self) -> list[tuple[str, float]]:
        """Rooms of ours, libraries and `Python` with their shares; what is written in C counts for its callers."""
        own_s: defaultdict[str, float] = defaultdict(float)
        for (file, _, _), (_, _, seconds, _, callers) in self.functions.items():
            if file == "~":
                for (caller, _, _), (_, _, part_s, _) in callers.items():
                    own_s[_room(caller)] += part_s
            else:
                own_s[_room(file)] += seconds
        every_s = sum(own_s.values())
        return sorted(((room, seconds / every_s) for room, seconds in own_s.items()), key=lambda one: -one[1])


class _Work(msgspec.Struct, frozen=True, kw_only=True):
    """What the profiled server is made to do."""

    process: Process
    folder: Path
    each: str
    do: Callable[[], int]
    """Has it work for `SECONDS`, and tells how many it has done."""


def _threads(work: _Work) -> Threads:
    before, begun = _threads_us(work.process.pid), time.perf_counter()
    many = work.do()
    took_s, after = time.perf_counter() - begun, _threads_us(work.process.pid)
    taken = {
        int(thread): ((user_us - user_before_us) / many, (system_us - system_before_us) / many)
        for thread, (user_us, system_us) in after.items()
        for user_before_us, system_before_us in [before.get(thread, (0.0, 0.0))]
    }
    loop_us = taken.pop(work.process.pid)
    writer_us, *rest = sorted(taken.values(), key=sum, reverse=True)
    return Threads(
        each=work.each,
        per_second=many / took_s,
        loop_us=loop_us,
        writer_us=writer_us,
        rest_us=sum(user_us + system_us for user_us, system_us in rest),
    )


def _profile(work: _Work) -> Profile:
    os.kill(work.process.pid, signal.SIGUSR1)
    many = work.do()
    os.kill(work.process.pid, signal.SIGUSR2)
    path = work.folder / "profile"
    ends_at = time.monotonic() + WRITTEN_WITHIN_S
    while not path.exists():
        if time.monotonic() > ends_at:
            raise RuntimeError("the profile was not written")
        time.sleep(0.05)
    return Profile(many=many, functions=pstats.Stats(str(path)).stats)  # type: ignore[attr-defined]  # nothing else has the rows


def _room(file: str) -> str:
    parts = Path(file).parts
    if "site-packages" in parts:
        return parts[parts.index("site-packages") + 1].removesuffix(".py")
    try:
        room = Path(file).relative_to(ROOT).with_suffix("").parts
    except ValueError:
        return "Python"
    return "/".join(room[:2])


def _where(file: str, line: int) -> str:
    parts = Path(file).parts
    return "" if file == "~" else f"{'/'.join(parts[-2:])}:{line} "


@contextlib.contextmanager
def _asked(bench: Bench, what: str) -> Iterator[_Work]:
    """Requests by sixteen connections, to a server whose seller never answers."""
    folder = bench.folder / f"profiled-{what}"
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(silent_seller())
        write_rules(folder, lambda _: f"http://127.0.0.1:{port}", max_in_flight=WORK_AT_ONCE, submit_timeout_s=3600)
        process = start_server(folder, module=PROFILED)
        stack.callback(process.kill)
        server = Server(process=process, folder=folder, key=make_key(bench.generator, process))
        _, ids = fill(bench, server)
        requests = create_requests(server.key) if what == "create" else gets(server, ids)
        job = Job(port=process.port, requests=requests, connections=16, warm_s=0.5, seconds=SECONDS)
        yield _Work(process=process, folder=folder, each=what, do=lambda: bench.generator.send(job).sent)


@contextlib.contextmanager
def _followed(bench: Bench) -> Iterator[_Work]:
    """Nothing but polls: as many as get done of what is due."""
    crowd = Crowd(folder="profiled", attempts=30_000, spread_s=10.0, warm_s=3.0, seconds=SECONDS)
    with followed(bench, crowd, module=PROFILED) as (server, _seller, _):

        def polled() -> int:
            before = exchanges(server.process.port, "poll")
            time.sleep(SECONDS)
            return exchanges(server.process.port, "poll") - before

        yield _Work(process=server.process, folder=server.folder, each="poll", do=polled)


def profiled(bench: Bench, what: str) -> tuple[Threads, Profile]:
    """Of a server of its own; `what` is one of WHAT."""
    with _followed(bench) if what == "poll" else _asked(bench, what) as work:
        return _threads(work), _profile(work)


def explained(bench: Bench, line: Line) -> Line:
    """A line whose goal was missed with where its time goes; any other as it is."""
    if line.met is not False or line.profile is None:
        return line
    threads, profile = profiled(bench, line.profile)
    rooms = ", ".join(f"{room} {share:.0%}" for room, share in profile.rooms()[:ROOMS_SHOWN])
    return msgspec.structs.replace(line, notes=(*line.notes, f"profile: {threads}", f"the loop: {rooms}"))


def measure(what: str) -> None:
    with tempfile.TemporaryDirectory(prefix="bench-", dir=ROOT / ".cache") as name, Generator() as generator:
        threads, profile = profiled(Bench(folder=Path(name).resolve(), scale=FULL, generator=generator), what)
    print(threads)
    print("\nThe loop's thread under cProfile:")
    for room, share in profile.rooms():
        if share >= 0.005:
            print(f"{share:8.1%}  {room}")
    print("\nµs and calls for each:\n     own   total   calls")
    rows = sorted(profile.functions.items(), key=lambda row: -row[1][2])[:SHOWN]
    for (file, line, name), (_, calls, own_s, total_s, _) in rows:
        own, total, each = (figure / profile.many for figure in (own_s * 1e6, total_s * 1e6, calls))
        print(f"{own:8.1f}{total:8.1f}{each:8.1f}  {_where(file, line)}{name}")


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
    elif len(sys.argv) == 2 and sys.argv[1] in WHAT:
        (ROOT / ".cache").mkdir(exist_ok=True)
        measure(sys.argv[1])
    else:
        sys.exit("usage: python -m tests.bench.profiling " + "|".join(WHAT))
