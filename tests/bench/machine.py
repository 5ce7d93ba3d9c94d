"""The machine under the measurements: what a process takes, what the disk takes, who else is at work. Linux only."""

import os
import resource
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_KIB = 1024

BUSY_ABOVE = 0.12
"""Cores taken by others, or stolen by the host, from which on a figure is no verdict."""
UNSTEADY_ABOVE = 0.15
"""Ratio by which a core may be slower at the end of the run than at its beginning, or the other way round."""

WAL_PAGE_BYTES = 4096
_WAL_BYTES = 4 * 1024 * 1024
_SPIN_TURNS = 400_000
_LISTEN_S = 2.0


def cpu_s(pid: int) -> float:
    """CPU seconds of a process of ours that still lives, all its threads together."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def _status_bytes(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * _KIB
    raise ValueError(f"/proc/{pid}/status says nothing of {name}")


def rss_bytes(pid: int) -> int:
    return _status_bytes(pid, "VmRSS:")


def peak_rss_bytes(pid: int) -> int:
    """Since the last `forget_peak`."""
    return _status_bytes(pid, "VmHWM:")


def forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")


def fdatasync_us(folder: Path, count: int) -> list[float]:
    """
    What one page and an fdatasync take in `folder`, in rising order.

    The pages go round in a file of the size that SQLite's log has, for it too writes over itself.
    """
    path = folder / "fdatasync"
    page = os.urandom(WAL_PAGE_BYTES)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, bytes(_WAL_BYTES))
        os.fsync(descriptor)
        taken = []
        for number in range(count):
            begun = time.perf_counter()
            os.pwrite(descriptor, page, number * WAL_PAGE_BYTES % _WAL_BYTES)
            os.fdatasync(descriptor)
            taken.append((time.perf_counter() - begun) * 1e6)
    finally:
        os.close(descriptor)
        path.unlink()
    return sorted(taken)


def turns_per_s() -> float:
    """How fast a core counts in Python: of short tries, for a fifth of a second or so, the best."""
    best = float("inf")
    for _ in range(40):
        begun = time.perf_counter()
        for _ in range(_SPIN_TURNS):
            pass
        best = min(best, time.perf_counter() - begun)
    return _SPIN_TURNS / best


class _Moment(NamedTuple):
    at: float
    busy_s: float
    stolen_s: float
    ours_s: float


class Disturbance(msgspec.Struct, frozen=True):
    """What others took during a measurement, in cores."""

    others: float
    stolen: float

    @property
    def is_too_much(self) -> bool:
        return self.others > BUSY_ABOVE or self.stolen > BUSY_ABOVE

    def __str__(self) -> str:
        return f"others took {self.others:.2f} cores, {self.stolen:.2f} were stolen"


def disturbance_now() -> Disturbance:
    """What others take while nothing of ours runs."""
    watch = Watch(())
    time.sleep(_LISTEN_S)
    return watch.end()


class Watch:
    """Tells what on the machine was not ours between two moments."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._pids = tuple(pids)
        """Children that live all the time; one that has ended in between was waited for."""
        self._before = self._now()

    def _now(self) -> _Moment:
        fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()
        user, nice, system, stolen = (int(fields[place]) / _TICKS_PER_S for place in (1, 2, 3, 8))
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        ours = time.process_time() + ended.ru_utime + ended.ru_stime + sum(cpu_s(pid) for pid in self._pids)
        return _Moment(time.perf_counter(), user + nice + system, stolen, ours)

    def end(self, *, started: int | None = None) -> Disturbance:
        """`started`: a child that was not there at the beginning and lives."""
        before, now = self._before, self._now()
        wall_s = now.at - before.at
        ours_s = now.ours_s - before.ours_s + (0.0 if started is None else cpu_s(started))
        others_s = now.busy_s - before.busy_s - ours_s
        return Disturbance(max(0.0, others_s) / wall_s, (now.stolen_s - before.stolen_s) / wall_s)
