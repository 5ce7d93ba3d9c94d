"""How much is measured, and the ratio to a floor that is run in turns with it."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median

import msgspec

from tests.bench.load import Generator, Job, Tally
from tests.bench.machine import Disturbance, Watch, cpu_s
from tests.bench.report import percentiles
from tests.bench.serve import Process

PARALLEL = 16
BODY = {
    "model": "seedance-2.0",
    "prompt": "A paper boat sails a rain-swept street at night, slow dolly in, neon reflections, shallow focus",
    "seconds": "5",
    "size": "1280x720",
}


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """How long and how often."""

    starts: int
    """Again on the same database; 0: the first start stands for all."""
    settle_s: float
    """After which a server that was just started counts as idle."""
    rounds: int
    """Of ours between two of the floor's."""
    seconds: float
    warm_s: float
    singles: int
    """Requests one after the other."""
    in_flight: int
    """Videos kept on their way."""
    carry_warm_s: float
    carry_s: float
    followed: int
    """Attempts that are polled for ever."""
    followed_stretch: int
    follow_warm_s: float
    follow_s: float
    file_bytes: int
    decisions: int


FULL = Scale(
    starts=5,
    settle_s=1.0,
    rounds=5,
    seconds=2.0,
    warm_s=0.4,
    singles=1000,
    in_flight=400,
    carry_warm_s=6.0,
    carry_s=15.0,
    followed=10_000,
    followed_stretch=50_000,
    follow_warm_s=5.0,
    follow_s=15.0,
    file_bytes=500_000_000,
    decisions=20_000,
)
QUICK = Scale(
    starts=0,
    settle_s=0.2,
    rounds=1,
    seconds=0.3,
    warm_s=0.1,
    singles=60,
    in_flight=40,
    carry_warm_s=1.5,
    carry_s=1.5,
    followed=100,
    followed_stretch=200,
    follow_warm_s=0.5,
    follow_s=1.0,
    file_bytes=20_000_000,
    decisions=1000,
)


class Bench(msgspec.Struct, frozen=True, kw_only=True):
    """What every measurement works with."""

    folder: Path
    """On the disk that is measured with the rest; emptied in the end."""
    scale: Scale
    generator: Generator

    def watch(self, *processes: Process) -> Watch:
        """Counts these and the generator as ours."""
        return Watch([self.generator.process.pid, *(process.pid for process in processes)])

    def timed(self, port: int, requests: Sequence[bytes]) -> Job:
        scale = self.scale
        return Job(
            port=port, requests=tuple(requests), connections=PARALLEL, warm_s=scale.warm_s, seconds=scale.seconds
        )


class Round(msgspec.Struct, frozen=True):
    """One job, and what it took of the process that answered."""

    tally: Tally
    cpu_us: float
    """For each request."""


def run(bench: Bench, process: Process, job: Job) -> Round:
    before = cpu_s(process.pid)
    tally = bench.generator.send(job)
    return Round(tally, (cpu_s(process.pid) - before) / max(1, tally.sent) * 1e6)


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """Medians over the rounds."""

    per_second: float
    floor_per_second: float
    ratio: float
    """Median of each round's ratio to the floor just before and just after it."""
    lowest_ratio: float
    highest_ratio: float
    cpu_us: float
    floor_cpu_us: float
    p50_us: float
    p90_us: float
    p99_us: float
    generator_us: float
    disturbance: Disturbance

    @property
    def shown_ratio(self) -> str:
        return f"{self.ratio:.2f}"

    def notes(self) -> tuple[str, ...]:
        return (
            percentiles((self.p50_us, self.p90_us, self.p99_us)),
            f"the rounds' ratios: {self.lowest_ratio:.2f} to {self.highest_ratio:.2f}",
            f"CPU a request: server {self.cpu_us:.0f} µs, floor {self.floor_cpu_us:.0f}, load {self.generator_us:.0f}",
        )


def against_floor(bench: Bench, server: Process, floor: Process, ours: Job, bare: Job) -> Compared:
    """Floor, ours, floor, ours, …, floor: whatever the machine does slowly, it does to both."""
    watch = bench.watch(server, floor)
    floors, rounds = [run(bench, floor, bare)], list[Round]()
    for _ in range(bench.scale.rounds):
        rounds.append(run(bench, server, ours))
        floors.append(run(bench, floor, bare))
    disturbance = watch.end()
    ratios = [
        one.tally.per_second * 2 / (before.tally.per_second + after.tally.per_second)
        for before, one, after in zip(floors, rounds, floors[1:], strict=False)
    ]
    return Compared(
        per_second=median(one.tally.per_second for one in rounds),
        floor_per_second=median(one.tally.per_second for one in floors),
        ratio=median(ratios),
        lowest_ratio=min(ratios),
        highest_ratio=max(ratios),
        cpu_us=median(one.cpu_us for one in rounds),
        floor_cpu_us=median(one.cpu_us for one in floors),
        p50_us=median(one.tally.p50_us for one in rounds),
        p90_us=median(one.tally.p90_us for one in rounds),
        p99_us=median(one.tally.p99_us for one in rounds),
        generator_us=median(one.tally.own_cpu_s / one.tally.sent * 1e6 for one in rounds),
        disturbance=disturbance,
    )
