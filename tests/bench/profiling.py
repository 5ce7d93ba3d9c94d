"""
`python -m tests.bench.profiling create` (or `retrieve`): what one request costs the server, and where.

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
from pathlib import Path

from tests.bench.accepting import WORK_AT_ONCE, create_requests, fill, gets, silent_seller
from tests.bench.bench import FULL, Bench, run
from tests.bench.load import ROOT, Generator, Job
from tests.bench.serve import Process, Server, make_key, start_server, write_rules

SECONDS = 5.0
SHOWN = 45
WRITTEN_WITHIN_S = 10.0


def _threads_us(pid: int) -> dict[str, tuple[float, float]]:
    """User and system microseconds of every thread, by its number."""
    ticks_us = 1e6 / os.sysconf("SC_CLK_TCK")
    found = {}
    for thread in Path(f"/proc/{pid}/task").iterdir():
        fields = (thread / "stat").read_text(encoding="ascii").rpartition(")")[2].split()
        found[thread.name] = int(fields[11]) * ticks_us, int(fields[12]) * ticks_us
    return found


def _print_threads(bench: Bench, process: Process, job: Job) -> None:
    before = _threads_us(process.pid)
    found = run(bench, process, job)
    after = _threads_us(process.pid)
    print(f"{found.tally.per_second:,.0f} requests/s, {found.cpu_us:.0f} µs of CPU each:")
    for thread, (user_us, system_us) in after.items():
        user_before_us, system_before_us = before.get(thread, (0.0, 0.0))
        user, system = (user_us - user_before_us) / found.tally.sent, (system_us - system_before_us) / found.tally.sent
        if user + system >= 1:
            role = "the loop" if int(thread) == process.pid else "a thread"
            print(f"  {role}: {user:.0f} user, {system:.0f} system")


def _print_functions(bench: Bench, process: Process, job: Job, path: Path) -> None:
    os.kill(process.pid, signal.SIGUSR1)
    tally = bench.generator.send(job)
    os.kill(process.pid, signal.SIGUSR2)
    ends_at = time.monotonic() + WRITTEN_WITHIN_S
    while not path.exists():
        if time.monotonic() > ends_at:
            raise RuntimeError("the profile was not written")
        time.sleep(0.05)
    stats = pstats.Stats(str(path)).stats  # type: ignore[attr-defined]  # it is there, and nothing else has the rows
    print(
        f"\nUnder cProfile, {tally.per_second:,.0f} requests/s; µs and calls for each request, the loop's thread alone:"
    )
    print("     own   total   calls")
    for (file, line, name), (_, calls, own_s, total_s, _) in sorted(stats.items(), key=lambda row: -row[1][2])[:SHOWN]:
        own, total, each = (figure / tally.sent for figure in (own_s * 1e6, total_s * 1e6, calls))
        print(f"{own:8.1f}{total:8.1f}{each:8.1f}  {_where(file, line)}{name}")


def _where(file: str, line: int) -> str:
    parts = Path(file).parts
    return "" if file == "~" else f"{'/'.join(parts[-2:])}:{line} "


def measure(what: str) -> None:
    with tempfile.TemporaryDirectory(prefix="bench-", dir=ROOT / ".cache") as name, contextlib.ExitStack() as stack:
        bench = Bench(folder=Path(name).resolve(), scale=FULL, generator=stack.enter_context(Generator()))
        port = stack.enter_context(silent_seller())
        write_rules(
            bench.folder, lambda _: f"http://127.0.0.1:{port}", max_in_flight=WORK_AT_ONCE, submit_timeout_s=3600
        )
        process = start_server(bench.folder, module="tests.bench.profiling")
        stack.callback(process.kill)
        server = Server(process=process, folder=bench.folder, key=make_key(bench.generator, process))
        _, ids = fill(bench, server)
        requests = create_requests(server.key) if what == "create" else gets(server, ids)
        job = Job(port=process.port, requests=requests, connections=16, warm_s=0.5, seconds=SECONDS)
        _print_threads(bench, process, job)
        _print_functions(bench, process, job, bench.folder / "profile")


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
    elif len(sys.argv) == 2 and sys.argv[1] in {"create", "retrieve"}:
        (ROOT / ".cache").mkdir(exist_ok=True)
        measure(sys.argv[1])
    else:
        sys.exit("usage: python -m tests.bench.profiling create|retrieve")
