"""What the kills have cost: one line a fault, by what our books and the sellers' books say at the end."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from tests.databases import whole_in
from tests.torture.revived import Revived
from tests.whole.compare_books import compare
from tests.whole.scenes import check_the_ledger, check_the_log

HEAD = (
    "fault",
    "tries",
    "kills",
    "delivered",
    "failed, typed",
    "undecided",
    "LOST",
    "BOUGHT TWICE, wait",
    "twice, fallback",
    "BOOKS EQUAL",
)


class Tally(msgspec.Struct, kw_only=True):
    """Videos by how they ended, over all tries of a fault."""

    fault: str
    tries: int = 0
    kills: int = 0
    delivered: int = 0
    failed: int = 0
    """With a code."""
    undecided: int = 0
    """Counted once more: an operator had to say what became of a submit."""
    lost: int = 0
    """Accepted, and gone or never ended."""
    twice: int = 0
    """Bought twice although the rule says wait."""
    twice_boldly: int = 0
    """Bought twice by a rule that takes the risk."""
    differences: list[str] = []
    """Between our books and the sellers', and whatever else is not as it has to be."""

    @property
    def is_clean(self) -> bool:
        return not (self.lost or self.twice or self.differences)

    def add(self, other: "Tally") -> None:
        for name in ("tries", "kills", "delivered", "failed", "undecided", "lost", "twice", "twice_boldly"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.differences += other.differences


def summed(tallies: Iterable[Tally]) -> list[Tally]:
    """One for each fault, in the order of their names."""
    lines: dict[str, Tally] = {}
    for tally in sorted(tallies, key=lambda one: one.fault):
        lines.setdefault(tally.fault, Tally(fault=tally.fault)).add(tally)
    return list(lines.values())


def table(tallies: Sequence[Tally]) -> str:
    """Plain text; each difference stands below its line."""
    rows = [HEAD, *(_cells(tally) for tally in tallies)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    text = [lines[0], "  ".join("-" * width for width in widths)]
    for tally, line in zip(tallies, lines[1:], strict=True):
        text += [line, *(f"    {one}" for one in tally.differences)]
    return "\n".join(text)


def _cells(tally: Tally) -> tuple[str, ...]:
    counts = (
        tally.tries,
        tally.kills,
        tally.delivered,
        tally.failed,
        tally.undecided,
        tally.lost,
        tally.twice,
        tally.twice_boldly,
    )
    return (tally.fault, *map(str, counts), "no" if tally.differences else "yes")


async def judge(stage: Revived, fault: str, *, within_s: float) -> Tally:
    """Lets everything come to its end, and looks what has become of every accepted video."""
    tally = Tally(fault=fault, tries=1)
    if not await stage.rest(within_s=within_s):
        tally.differences.append(f"something is still under way after {within_s:g} s")
    jobs = await stage.books()
    for video_id, order in list(stage.accepted.items()):
        video = (await stage.ask("GET", f"/v1/videos/{video_id}")).json()
        match video.get("status"), (video.get("error") or {}).get("code"):
            case "completed", None:
                tally.delivered += 1
            case "failed", str():
                tally.failed += 1
            case _:
                tally.lost += 1
        if were_bought_twice([job for job in jobs if job["prompt"].split(" ")[0] == order.name]):
            tally.twice += not order.bold
            tally.twice_boldly += order.bold
        again = await stage.order(order)
        if again != video_id:
            tally.differences.append(f"the key of {video_id}, asked again, gave {again}")
    tally.kills, tally.undecided = stage.kills, len(stage.undecided)
    tally.differences += await _differences(stage, jobs)
    return tally


def were_bought_twice(jobs: Sequence[dict[str, Any]]) -> bool:
    """Jobs of one video: two at one seller, or two films; a fallback buys elsewhere, after the first has failed."""
    sellers = Counter(job["seller"] for job in jobs)
    return max(sellers.values(), default=0) > 1 or sum(job["state"] == "succeeded" for job in jobs) > 1


async def _differences(stage: Revived, jobs: Sequence[dict[str, Any]]) -> list[str]:
    books = (await stage.admin.get("/admin/books")).raise_for_status().json()
    report = (await stage.ask("GET", "/admin/reports/spend", params={"group_by": "provider"})).json()
    # What was never bought stands in a line without a provider.
    found = compare(books, [{**line, "provider": line["provider"] or "nobody"} for line in report["data"]], [])
    known = {row[0] for row in whole_in(stage.folder).rows("select seller_id from attempts")}
    found += [
        f"{job['seller']}'s job {job['id']} is nobody's: {job['prompt']}" for job in jobs if job["id"] not in known
    ]
    held = "select account, sum(amount_microusd) from ledger_postings where account like '%:held' group by 1"
    found += [f"{account} is {amount}" for account, amount in whole_in(stage.folder).rows(held) if amount]
    for check in (check_the_ledger, check_the_log):
        try:
            check(stage.folder)
        except AssertionError as exc:
            found.append(str(exc).splitlines()[0] if str(exc) else f"{check.__name__} fails")
    code, doubts = await stage.run("audit")
    return found + ([f"audit: {doubts.strip()}"] if code else [])
