"""`python -m tests.torture`."""

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from tests.databases import ENGINES
from tests.torture import crash_points, fuzzing, lying, pressure, random_kills, replicas, surroundings
from tests.torture.verdict import Tally, table, too_few, total

Part = Callable[[Path, str], Awaitable[list[Tally]]]

PARTS: dict[str, Part] = {
    "crash-points": crash_points.torture,
    "random-kills": random_kills.torture,
    "lying": lying.torture,
    "replicas": replicas.torture,
    "surroundings": surroundings.torture,
    "fuzzing": fuzzing.torture,
    "pressure": pressure.torture,
}
ROUNDS: Sequence[dict[str, Sequence[str]]] = (
    {"crash-points": ENGINES},
    {"random-kills": ENGINES},
    {"lying": ENGINES, "replicas": ("postgresql",)},
    {"surroundings": ENGINES},
    # Not side by side: one interpreter's syntax trees are not for two threads.
    {"fuzzing": ("sqlite",)},
    {"fuzzing": ("postgresql",)},
    {"pressure": ENGINES},
)
"""Parts with their engines, side by side where they wait most of the time; a round begins when the last one is over."""

DELIVERING = ("crash-points", "random-kills", "replicas", "pressure")
"""Parts whose videos a seller can make: of the others', many end with a reason, and each of those is looked at."""


def chosen(parts: Sequence[str] | None, engines: Sequence[str]) -> list[list[tuple[str, str]]]:
    """Part and engine, round by round; None: every part. Raises ValueError for one asked for that would try nothing."""
    rounds = [
        [
            (name, engine)
            for name, on in together.items()
            for engine in on
            if name in (parts or PARTS) and engine in engines
        ]
        for together in ROUNDS
    ]
    tried = {name for together in rounds for name, _ in together}
    if idle := [name for name in parts or () if name not in tried]:
        raise ValueError(f"{', '.join(idle)} runs nothing on {' or '.join(engines)}")
    return rounds


async def _try(name: str, folder: Path, engine: str) -> tuple[str, list[Tally]]:
    begun = time.monotonic()
    tallies = await PARTS[name](folder / f"{name}-{engine}", engine)
    if name in DELIVERING and (few := too_few(tallies)):
        tallies.append(Tally(fault="too few were delivered", differences=few))
    for tally in tallies:
        tally.fault += f" ({engine})"
    print(f"\n{name} on {engine}, {time.monotonic() - begun:.0f} s:\n{table(tallies)}", flush=True)
    return name, tallies


async def _torture(folder: Path, rounds: Sequence[Sequence[tuple[str, str]]]) -> bool:
    """Whether everything was as it has to be."""
    found: dict[str, list[Tally]] = {}
    for together in rounds:
        for name, tallies in await asyncio.gather(*(_try(name, folder, engine) for name, engine in together)):
            found.setdefault(name, []).extend(tallies)
    sums = [total(name, tallies) for name, tallies in found.items()]
    print(f"\n{table([line for tallies in found.values() for line in tallies])}\n\n{table(sums)}")
    return all(line.is_clean for line in sums)


def main() -> None:
    arguments = argparse.ArgumentParser(
        prog="python -m tests.torture",
        description="Lets everything fail that can fail, and compares our books with the sellers'.",
    )
    arguments.add_argument("--only", action="append", choices=list(PARTS), help="one part; may be given again")
    arguments.add_argument("--engine", action="append", choices=ENGINES, help="one engine; may be given again")
    asked = arguments.parse_args()
    try:
        rounds = chosen(asked.only, asked.engine or list(ENGINES))
    except ValueError as exc:
        arguments.error(str(exc))
    # As with Ctrl-C, what was started is stopped.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(143))
    begun = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="reelay-torture-"))
    clean = asyncio.run(_torture(folder, rounds))
    print(f"{time.monotonic() - begun:.0f} s in all.")
    if not clean:
        sys.exit(f"What is left of it lies in {folder}.")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
