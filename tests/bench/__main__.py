"""`python -m tests.bench`."""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench import machine, report
from tests.bench.accepting import measure_accepting
from tests.bench.bench import FULL, QUICK, Bench
from tests.bench.carrying import measure_carrying
from tests.bench.deciding import measure_deciding
from tests.bench.following import measure_following
from tests.bench.load import ROOT, Generator
from tests.bench.profiling import explained
from tests.bench.sharing import measure_sharing

PARTS: dict[str, Callable[[Bench], list[report.Line]]] = {
    "accepting": measure_accepting,
    "carrying": measure_carrying,
    "deciding": measure_deciding,
    "following": measure_following,
    "sharing": measure_sharing,
}
ELSEWHERE = (report.Line(name="month report, 10 million settlements", goal="<= 2 s", measured="by `make bench-full`"),)


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m tests.bench", description="Measures Reelay on this machine.")
    arguments.add_argument("--quick", action="store_true", help="so short that the figures mean little")
    arguments.add_argument("--only", action="append", choices=PARTS, help="one part; may be given again")
    arguments.add_argument("--folder", type=Path, default=ROOT / ".cache", help="on the disk to be measured")
    asked = arguments.parse_args()
    if not Path("/proc/self/clear_refs").exists():
        sys.exit("The bench reads Linux's /proc; this machine has none.")
    # As with Ctrl-C, what was started is stopped.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(143))
    asked.folder.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    speed = machine.turns_per_s()
    before = machine.disturbance_now()
    lines: list[report.Line] = []
    with tempfile.TemporaryDirectory(prefix="bench-", dir=asked.folder) as folder, Generator() as generator:
        bench = Bench(folder=Path(folder).resolve(), scale=QUICK if asked.quick else FULL, generator=generator)
        for name in asked.only or PARTS:
            lines += PARTS[name](bench)
        if not asked.quick:
            lines = [explained(bench, line) for line in lines]
    if not asked.only:
        lines += ELSEWHERE
    change = machine.turns_per_s() / speed - 1
    reason = report.why_no_verdict(quick=asked.quick, before=before, speed_change=change)
    print(report.table(lines, verdicts=reason is None))
    print(
        f"\n{os.cpu_count()} cores; beforehand {before}; a core counts {speed / 1e6:.0f} million turns/s, "
        f"{change:+.0%} at the end; {time.monotonic() - begun:.0f} s in all."
    )
    if reason is not None:
        print(reason)


if __name__ == "__main__":
    main()
