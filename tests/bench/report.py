"""The table: one line a goal, what was measured, and whether it was met."""

from collections.abc import Sequence

import msgspec

from tests.bench.machine import UNSTEADY_ABOVE, Disturbance

NOT_MEASURED = "not measured"


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One row, in words and rounded figures."""

    name: str
    goal: str
    measured: str = NOT_MEASURED
    floor: str = ""
    ratio: str = ""
    met: bool | None = None
    """None where there is no goal, or nothing to hold against it."""
    profile: str | None = None
    """What of `profiling` shows where the time of this line goes."""
    notes: tuple[str, ...] = ()
    disturbance: Disturbance | None = None

    @property
    def verdict(self) -> str:
        if self.met is None:
            return "-"
        if self.disturbance is not None and self.disturbance.is_too_much:
            return "machine busy"
        return "met" if self.met else "missed"


def why_no_verdict(*, quick: bool, before: Disturbance, speed_change: float) -> str | None:
    """
    Why a run as a whole is none to judge by; None where it is.

    `before` is what others took just before it, `speed_change` the ratio by which a core was faster at
    its end. What others took during a line stands with that line.
    """
    if quick:
        return "Quick: too short for a verdict."
    if before.is_too_much:
        return f"The machine was busy beforehand ({before}): no verdict."
    if abs(speed_change) > UNSTEADY_ABOVE:
        return "The machine's own speed changed under way: no verdict."
    return None


def table(lines: Sequence[Line], *, verdicts: bool = True) -> str:
    """Plain text; the notes of a line stand below it. Without `verdicts` there are figures alone."""
    head = ("line", "goal", "measured", "floor", "ratio", "verdict")
    rows = [
        (line.name, line.goal, line.measured, line.floor, line.ratio, line.verdict if verdicts else "no verdict")
        for line in lines
    ]
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    text = [_row(head, widths), "  ".join("-" * width for width in widths)]
    for line, row in zip(lines, rows, strict=True):
        text.append(_row(row, widths))
        text += [f"    {note}" for note in _notes(line)]
    return "\n".join(text)


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _notes(line: Line) -> list[str]:
    busy = line.disturbance is not None and line.disturbance.is_too_much
    return [*line.notes, *([str(line.disturbance)] if busy else [])]


def count(number: float) -> str:
    """With thousands apart."""
    return f"{number:,.0f}"


def megabytes(size_bytes: float) -> str:
    return f"{size_bytes / 1e6:.0f} MB"


def percentiles(us: Sequence[float]) -> str:
    """`p50 1.22, p90 1.80, p99 3.21 ms`, of these three in microseconds."""
    p50, p90, p99 = (f"{one / 1000:.2f}" for one in us)
    return f"p50 {p50}, p90 {p90}, p99 {p99} ms"


def at(ordered: Sequence[float], share: float) -> float:
    """The figure below which that share of them lies; they stand in rising order."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def microseconds(us: float) -> str:
    return f"{us / 1000:.2f} ms" if us >= 1000 else f"{us:.0f} µs"
