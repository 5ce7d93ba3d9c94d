"""Whatever comes in, only typed errors come out: of the API, and of every place that reads what strangers send."""

import asyncio
import multiprocessing
import resource
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.databases import ENGINES, choose
from tests.torture.strangers import Stranger, films_of, furnish
from tests.torture.surfaces import SURFACES, Surface
from tests.torture.verdict import Tally
from tests.whole.company import Team, open_company
from tests.whole.stage import KEY

SURFACE_S = 8.0
"""For each surface, beside the API."""
COVER_S, FUZZ_S = 20.0, 20.0
"""For each key, at the API."""
EXAMPLES = 100
"""At a surface, from one seed."""
MOST_GROWTH_BYTES = 300 << 20
"""Of the memory that a surface takes."""


async def torture(folder: Path, engine: str) -> list[Tally]:
    """What reads no database is fuzzed beside either, one half of it here and one there."""
    first_seed = int(time.time())
    print(f"fuzzing ({engine}) from seed {first_seed}", flush=True)
    numbers = range(ENGINES.index(engine), len(SURFACES), len(ENGINES))
    api, others = await asyncio.gather(
        _fuzz_api(folder, engine, first_seed), asyncio.to_thread(_fuzz_surfaces, numbers, first_seed)
    )
    return [*api, *others]


async def _fuzz_api(folder: Path, engine: str, first_seed: int) -> list[Tally]:
    await asyncio.to_thread(folder.mkdir, parents=True)
    choose(engine, folder)
    tallies = []
    async with open_company(folder) as shop:
        world = await furnish(shop)
        admin = Team(id="default", name="an admin", key=KEY, client=shop.client)
        for team in (admin, await shop.found("a tenant", "videos", "reports")):
            stranger = Stranger(world, team, await films_of(team))
            await asyncio.to_thread(stranger.cover, seconds=COVER_S)
            await asyncio.to_thread(stranger.fuzz, first_seed, examples=20, seconds=FUZZ_S)
            code, doubts, _ = await shop.cli("audit")
            stranger.tally.differences += [f"{label} was never asked" for label in stranger.unasked]
            stranger.tally.differences += [f"audit: {doubts.strip()}"] if code else []
            tallies.append(stranger.tally)
    return tallies


def _fuzz_surfaces(numbers: Sequence[int], first_seed: int) -> list[Tally]:
    """In another process: libraries in C read films and rules, and may take theirs with them."""
    tallies = []
    pool = _another_process()
    for number in numbers:
        try:
            tallies.append(pool.submit(fuzz_for, number, SURFACE_S, first_seed).result())
        except BrokenProcessPool:
            died = f"from seed {first_seed}: it took the process with it"
            tallies.append(Tally(fault=f"fuzzed: {SURFACES[number].name}", tries=1, differences=[died]))
            pool = _another_process()
    pool.shutdown()
    return tallies


def _another_process() -> ProcessPoolExecutor:
    """One for each task: the most memory that a process ever held would hide what the next surface takes."""
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(max_workers=1, mp_context=spawn, max_tasks_per_child=1)


def fuzz_for(number: int, seconds: float, first_seed: int) -> Tally:
    """The surface of this number, from one seed after the other until the time is over or something came out."""
    surface, over = SURFACES[number], time.monotonic() + seconds
    tally = fuzz(surface, examples=EXAMPLES, start=first_seed)
    before = _most_memory_bytes()
    while tally.is_clean and time.monotonic() < over:
        first_seed += 1
        tally.add(fuzz(surface, examples=EXAMPLES, start=first_seed))
    growth = _most_memory_bytes() - before
    if growth > MOST_GROWTH_BYTES:
        tally.differences.append(f"up to seed {first_seed}: it took {growth >> 20} MiB")
    return tally


def _most_memory_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def fuzz(surface: Surface, *, examples: int, start: int) -> Tally:
    """So many examples at random from this seed; the first that fails, made as small as it can be."""
    tally = Tally(fault=f"fuzzed: {surface.name}")

    @seed(start)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    @given(surface.sent)
    def take(example: object) -> None:
        tally.tries += 1
        try:
            surface.take(example)
        except Exception as exc:
            exc.add_note(f"{example!r:.1000}")
            raise

    try:
        take()
    except Exception as exc:  # noqa: BLE001  # whatever comes out that should not is what is looked for
        said = f"{type(exc).__name__}: {exc} {' '.join(getattr(exc, '__notes__', ()))}"
        tally.differences.append(f"seed {start}: {' '.join(said.split())[:1500]}")
    return tally
