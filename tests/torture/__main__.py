"""`python -m tests.torture`."""

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.databases import ENGINES
from tests.torture import crash_points, random_kills
from tests.torture.verdict import Tally, summed, table

PARTS = ("crash-points", "random-kills")
LANES = {"sqlite": 6, "postgresql": 10}
"""Points that are tried at once; on PostgreSQL each waits for most of a minute for a dead server's lease."""
SERVERS = {"sqlite": 2, "postgresql": 1}
"""That are killed at random, side by side."""
KILLS = {"sqlite": 150, "postgresql": 100}
"""Of each of them."""
CUSTOMERS = {"sqlite": 12, "postgresql": 24}


async def _crash_points(folder: Path, engine: str) -> tuple[list[Tally], str]:
    """On PostgreSQL one point of each kind."""
    points = await crash_points.record(folder / "record")
    tried = points if engine == "sqlite" else crash_points.one_of_each(points)
    tallies = await crash_points.attempt(tried, folder / "try", engine, lanes=LANES[engine])
    missed = sum(not tally.kills for tally in tallies.values())
    lines = summed(tallies.values())
    for line in lines:
        line.fault += f" ({engine})"
    return lines, f"{engine}: {len(points)} points recorded, {len(tried)} tried, {missed} of them not come by again."


async def _random_kills(folder: Path, engine: str, seconds: float) -> Tally:
    kills, customers = KILLS[engine], CUSTOMERS[engine]
    tallies = await asyncio.gather(
        *(
            random_kills.torture(folder / f"{number}", engine, kills=kills, seconds=seconds, customers=customers)
            for number in range(SERVERS[engine])
        )
    )
    [line] = summed(tallies)
    return line


async def _torture(folder: Path, parts: list[str], engines: list[str], seconds: float) -> bool:
    """Prints as it goes; whether everything was as it has to be."""
    tallies: list[Tally] = []
    if "crash-points" in parts:
        for lines, said in await asyncio.gather(*(_crash_points(folder / engine, engine) for engine in engines)):
            print(said, flush=True)
            tallies += lines
    if "random-kills" in parts:
        tallies += await asyncio.gather(*(_random_kills(folder / f"{one}-load", one, seconds) for one in engines))
    print(f"\n{table(tallies)}\n\n{sum(tally.kills for tally in tallies)} kills.")
    return all(tally.is_clean for tally in tallies)


def main() -> None:
    arguments = argparse.ArgumentParser(
        prog="python -m tests.torture", description="Kills the server wherever it may die, and compares the books."
    )
    arguments.add_argument("--only", action="append", choices=PARTS, help="one part; may be given again")
    arguments.add_argument("--engine", action="append", choices=ENGINES, help="one engine; may be given again")
    arguments.add_argument("--seconds", type=float, default=300, help="of random kills, at the most")
    asked = arguments.parse_args()
    # As with Ctrl-C, what was started is stopped.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(143))
    begun = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="reelay-torture-"))
    clean = asyncio.run(_torture(folder, asked.only or list(PARTS), asked.engine or list(ENGINES), asked.seconds))
    print(f"{time.monotonic() - begun:.0f} s in all.")
    if not clean:
        sys.exit(f"What is left of it lies in {folder}.")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
