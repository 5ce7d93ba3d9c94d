"""What the kills have cost: one line a fault, by what our books and the sellers' books say at the end."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from proxy.core.money import usd_text
from proxy.simulator.faults import BLOCKING
from tests.databases import whole_in
from tests.torture.revived import Order, Revived
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


NAMES_NO_DOLLARS = ("evolink", "fal", "runflow-legacy")
"""Sellers whose answers say what was used, but not what they take for it."""


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


def total(name: str, tallies: Iterable[Tally]) -> Tally:
    """All of them as one."""
    whole = Tally(fault=name)
    for tally in tallies:
        whole.add(tally)
    return whole


def table(tallies: Sequence[Tally]) -> str:
    """Plain text; each difference stands below its line, and the sum of all at the end."""
    rows = [HEAD, *(_cells(tally) for tally in [*tallies, total("all", tallies)])]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    text = [lines[0], "  ".join("-" * width for width in widths)]
    for tally, line in zip(tallies, lines[1:-1], strict=True):
        text += [line, *(f"    {one}" for one in tally.differences)]
    return "\n".join([*text, text[1], lines[-1]])


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
    [tally] = summed(await judge_each(stage, lambda _order: fault, whole=fault, within_s=within_s))
    return tally


async def judge_each(stage: Revived, fault_of: Callable[[Order], str], *, whole: str, within_s: float) -> list[Tally]:
    """The same, a line for each fault; `whole` names the one of what concerns the books as a whole, and the kills."""
    house = Tally(fault=whole)
    if not await stage.rest(within_s=within_s):
        house.differences.append(f"something is still under way after {within_s:g} s")
    jobs_of: dict[str, list[dict[str, Any]]] = {}
    for job in await stage.books():
        jobs_of.setdefault(job["prompt"].split(" ")[0], []).append(job)
    costs_of = _costs(stage)
    tallies = [house]
    for video_id, order in list(stage.accepted.items()):
        tally = Tally(fault=fault_of(order), tries=1, undecided=int(video_id in stage.undecided))
        tallies.append(tally)
        video = (await stage.ask("GET", f"/v1/videos/{video_id}")).json()
        match video.get("status"), (video.get("error") or {}).get("code"):
            case "completed", None:
                tally.delivered = 1
            case "failed", str():
                tally.failed = 1
            case _:
                tally.lost = 1
        jobs = jobs_of.get(order.name, [])
        if were_bought_twice([job for job in jobs if (video_id, job["seller"]) not in stage.written_off]):
            tally.twice, tally.twice_boldly = int(not order.bold), int(order.bold)
        again = await stage.order(order)
        if again != video_id:
            tally.differences.append(f"the key of {video_id}, asked again, gave {again}")
        tally.differences += _unequal_costs(order.name, costs_of.get(video_id, {}), jobs)
    house.kills = stage.kills
    house.differences += await _differences(stage, jobs_of)
    return tallies


def were_bought_twice(jobs: Sequence[dict[str, Any]]) -> bool:
    """
    Jobs of one video: two at one seller, or two films; a fallback buys elsewhere, after the first has failed.

    A success without a link is a failure like any other: there is nothing to fetch.
    """
    sellers = Counter(job["seller"] for job in jobs)
    films = [job for job in jobs if job["state"] == "succeeded" and "no_url" not in job["faults"]]
    return max(sellers.values(), default=0) > 1 or len(films) > 1


def _costs(stage: Revived) -> dict[str, dict[str, int | None]]:
    """By video and provider, what we have written down that it took; None where we say that nobody knows."""
    costs: dict[str, dict[str, int | None]] = {}
    query = "select video_id, provider, state, cost_microusd from attempts"
    for video_id, provider, state, cost in whole_in(stage.folder).rows(query):
        of_video = costs.setdefault(video_id, {})
        so_far = of_video.get(provider, 0)
        of_video[provider] = None if so_far is None or _is_unknown(state, cost) else so_far + (cost or 0)
    return costs


def _is_unknown(state: str, cost: int | None) -> bool:
    """What an attempt costs in the end."""
    return state == "running" or (cost is None and state != "refused")


def _unequal_costs(name: str, ours: dict[str, int | None], jobs: Sequence[dict[str, Any]]) -> list[str]:
    found = []
    for provider in sorted(ours.keys() | {job["seller"] for job in jobs}):
        mine = ours.get(provider, 0)
        theirs = sum(_kept(job) for job in jobs if job["seller"] == provider)
        # What it takes without a word is told by a metric where it can be known at all, and here by nobody.
        silent = sum(_kept(job) // 2 for job in jobs if job["seller"] == provider and is_silently_dear(job))
        if mine is not None and theirs - silent != mine:
            found.append(f"{name}: {provider} took {theirs}, we wrote down {mine}")
    return found


def is_silently_dear(job: dict[str, Any]) -> bool:
    """Whether its seller takes twice its price and names no dollars."""
    return "dear" in job["faults"] and job["seller"] in NAMES_NO_DOLLARS


def _kept(job: dict[str, Any]) -> int:
    return int(job["charged_microusd"] - job["refunded_microusd"])


async def _differences(stage: Revived, jobs_of: dict[str, list[dict[str, Any]]]) -> list[str]:
    books = (await stage.admin.get("/admin/books")).raise_for_status().json()
    report = (await stage.ask("GET", "/admin/reports/spend", params={"group_by": "provider"})).json()
    database = whole_in(stage.folder)
    jobs = [job for some in jobs_of.values() for job in some]
    attempts = database.rows("select provider, possible_microusd, state, cost_microusd from attempts")
    unsaid = [(provider, possible) for provider, possible, state, cost in attempts if _is_unknown(state, cost)]
    unsaid += [(job["seller"], _kept(job) // 2) for job in jobs if is_silently_dear(job)]
    maybe = [{"provider": provider, "possible_cost_usd": usd_text(amount)} for provider, amount in unsaid]
    # What was never bought stands in a line without a provider.
    found = compare(books, [{**line, "provider": line["provider"] or "nobody"} for line in report["data"]], maybe)
    known = {row[0] for row in database.rows("select seller_id from attempts")}
    names = {order.name: video_id for video_id, order in stage.accepted.items()}
    found += [
        f"{job['seller']}'s job {job['id']} is nobody's: {job['prompt']}"
        for name, some in jobs_of.items()
        for job in some
        if job["id"] not in known
        and job["seller"] not in BLOCKING
        and (names.get(name), job["seller"]) not in stage.written_off
    ]
    held = "select account, sum(amount_microusd) from ledger_postings where account like '%:held' group by 1"
    found += [f"{account} is {amount}" for account, amount in database.rows(held) if amount]
    for check in (check_the_ledger, check_the_log):
        try:
            check(stage.folder)
        except AssertionError as exc:
            found.append(str(exc).splitlines()[0] if str(exc) else f"{check.__name__} fails")
    code, doubts = await stage.run("audit")
    return found + ([f"audit: {doubts.strip()}"] if code else [])
