"""What the kills have cost: one line a fault, by what our books and the sellers' books say at the end."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from proxy.core.money import usd_text
from proxy.simulator.faults import BLOCKING
from tests.databases import whole_in
from tests.torture.bill import NAMES_NO_DOLLARS, Prices, is_film, kept_microusd
from tests.torture.revived import Order, Revived, StillFailing
from tests.whole.compare_books import compare
from tests.whole.scenes import check_the_ledger, check_the_log, micro

HEAD = (
    "fault",
    "tries",
    "kills",
    "delivered",
    "failed, typed",
    "withdrawn",
    "undecided",
    "LOST",
    "BOUGHT TWICE, wait",
    "twice, fallback",
    "BOOKS EQUAL",
)

DELIVERED_MIN_RATIO = 0.75
"""Of the videos that nobody took back: where less is delivered, failing has become the rule."""

FILM_MAX_S = 5.0
"""So long a film may be had only later, once everything else is over."""


class Tally(msgspec.Struct, kw_only=True):
    """Videos by how they ended, over all tries of a fault."""

    fault: str
    tries: int = 0
    kills: int = 0
    delivered: int = 0
    failed: int = 0
    """With a code."""
    withdrawn: int = 0
    """By the customer, who cancelled or deleted it."""
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
        for name in (
            "tries",
            "kills",
            "delivered",
            "failed",
            "withdrawn",
            "undecided",
            "lost",
            "twice",
            "twice_boldly",
        ):
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


def too_few(tallies: Sequence[Tally]) -> list[str]:
    """Whether so many videos failed, each with its reason, that nobody would call it a service."""
    whole = total("", tallies)
    wanted = whole.tries - whole.withdrawn
    if whole.delivered >= DELIVERED_MIN_RATIO * wanted:
        return []
    return [f"{whole.delivered} of {wanted} were delivered, which is less than {DELIVERED_MIN_RATIO:.0%}"]


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
        tally.withdrawn,
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
    costs_of, prices, footage = _costs(stage), Prices.of(stage.folder), _footage(stage)
    without_cost = _without_cost(stage)
    tallies = [house]
    for video_id, order in list(stage.accepted.items()):
        tally = Tally(fault=fault_of(order), tries=1, undecided=int(video_id in stage.undecided))
        tallies.append(tally)
        jobs = jobs_of.get(order.name, [])
        tally.differences += [
            f"{order.name}: {provider} is {state} without a cost"
            for provider, state in without_cost.get(video_id, ())
            if not may_lack_cost(provider, state, jobs)
        ]
        tally.differences += _unequal_costs(order.name, costs_of.get(video_id, {}), jobs)
        if were_bought_twice([job for job in jobs if (job["seller"], job["id"]) not in stage.written_off]):
            bold = order.bold and not is_asked_again(jobs)
            tally.twice, tally.twice_boldly = int(not bold), int(bold)
        if video_id in stage.deleted:
            tally.withdrawn = 1
            tally.differences += await _still_there(stage, video_id)
            continue
        await _judge_one(stage, tally, video_id, order, jobs, prices, footage.get(video_id))
    house.kills = stage.kills
    house.differences += await _differences(stage, jobs_of)
    return tallies


async def _judge_one(
    stage: Revived,
    tally: Tally,
    video_id: str,
    order: Order,
    jobs: Sequence[dict[str, Any]],
    prices: Prices,
    measured: dict[str, Any] | None,
) -> None:
    """What its customer has of a video that was not deleted, and pays for it."""
    video = (await stage.ask("GET", f"/v1/videos/{video_id}")).json()
    match video.get("status"), (video.get("error") or {}).get("code"):
        case "completed", None:
            missing = await _missing(stage, video, measured)
            tally.delivered, tally.lost = int(not missing), int(bool(missing))
            tally.differences += missing
        case "failed", "cancelled":
            tally.withdrawn = 1
        case "failed", str():
            tally.failed = 1
        case _:
            tally.lost = 1
    if video.get("status") in {"completed", "failed"}:
        tally.differences += _unequal_charge(stage, prices, order, video, jobs)
    again = await stage.order(order)
    if again != video_id:
        tally.differences.append(f"the key of {video_id}, asked again, gave {again}")


def _footage(stage: Revived) -> dict[str, dict[str, Any]]:
    """By video, what its film was measured to be."""
    measured = whole_in(stage.folder).rows("select id, footage from videos where footage is not null")
    return {video_id: msgspec.json.decode(footage) for video_id, footage in measured}


async def _missing(stage: Revived, video: dict[str, Any], measured: dict[str, Any] | None) -> list[str]:
    """What keeps the customer of a completed video from its film."""
    try:
        answer = await stage.ask("GET", f"/v1/videos/{video['id']}/content", patience_s=FILM_MAX_S)
    except StillFailing as exc:
        return [str(exc)]
    if answer.status_code == 404 and stage.films_expire and "expired at" in answer.json()["error"]["message"]:
        return []
    if answer.status_code != 200 or measured is None:
        return [f"the film of {video['id']} is answered {answer.status_code}"]
    film = answer.content
    told = int(answer.headers["content-length"])
    whole = len(film) == told == measured["size_bytes"] and hashlib.sha256(film).hexdigest() == measured["sha256"]
    if whole and is_film(film):
        return []
    return [f"the film of {video['id']} has {len(film)} bytes of {told}, {measured['size_bytes']} were measured"]


async def _still_there(stage: Revived, video_id: str) -> list[str]:
    """What is left for its customer of a video that was deleted."""
    paths = (f"/v1/videos/{video_id}", f"/v1/videos/{video_id}/content")
    statuses = [(await stage.ask("GET", path)).status_code for path in paths]
    return [] if statuses == [404, 404] else [f"{video_id} was deleted, and is answered {statuses}"]


def _unequal_charge(
    stage: Revived, prices: Prices, order: Order, video: dict[str, Any], jobs: Sequence[dict[str, Any]]
) -> list[str]:
    charged = micro(video["usage"]["cost_usd"])
    if video["status"] == "completed":
        provider = video["routing"]["provider"]
        owed = prices.of_delivered(order, provider, jobs, stage.markup)
    elif video["error"]["code"] == "cancelled":
        charged, owed = charged or 0, prices.of_cancelled(jobs, stage.markup)
    else:
        charged, owed = charged or 0, 0
    [(hold,)] = whole_in(stage.folder).rows("select hold_microusd from videos where id = ?", video["id"])
    # A charge never exceeds its hold.
    owed = None if owed is None else min(owed, hold)
    return [] if charged == owed else [f"{order.name}: its tenant pays {charged}, and owes {owed}"]


def were_bought_twice(jobs: Sequence[dict[str, Any]]) -> bool:
    """
    Jobs of one video: two at one seller, or two films; a fallback buys elsewhere, after the first has failed.

    A success without a link is a failure like any other: there is nothing to fetch.
    """
    films = [job for job in jobs if job["state"] == "succeeded" and "no_url" not in job["faults"]]
    return is_asked_again(jobs) or len(films) > 1


def is_asked_again(jobs: Sequence[dict[str, Any]]) -> bool:
    """Whether one seller took two orders for a video: under no rule is an offer of unknown end asked once more."""
    return max(Counter(job["seller"] for job in jobs).values(), default=0) > 1


def _costs(stage: Revived) -> dict[str, dict[str, int | None]]:
    """By video and provider, what we have written down that it took; None where we say that nobody knows."""
    costs: dict[str, dict[str, int | None]] = {}
    query = "select video_id, provider, state, cost_microusd from attempts"
    for video_id, provider, state, cost in whole_in(stage.folder).rows(query):
        of_video = costs.setdefault(video_id, {})
        so_far = of_video.get(provider, 0)
        of_video[provider] = None if so_far is None or _is_unknown(state, cost) else so_far + (cost or 0)
    return costs


def may_lack_cost(provider: str, state: str, jobs: Sequence[dict[str, Any]]) -> bool:
    """Whether nobody can say what an attempt cost that is over: there is no film, and its seller names no dollars."""
    silent = any(job["seller"] == provider and "no_cost" in job["faults"] for job in jobs)
    return state == "failed" and (provider in NAMES_NO_DOLLARS or silent)


def _without_cost(stage: Revived) -> dict[str, list[tuple[str, str]]]:
    """By video, provider and state of the attempts that are over and have no cost."""
    found: dict[str, list[tuple[str, str]]] = {}
    query = "select video_id, provider, state from attempts where cost_microusd is null and state in ('done', 'failed')"
    for video_id, provider, state in whole_in(stage.folder).rows(query):
        found.setdefault(video_id, []).append((provider, state))
    return found


def _is_unknown(state: str, cost: int | None) -> bool:
    """What an attempt costs in the end."""
    return state == "running" or (cost is None and state != "refused")


def _unequal_costs(name: str, ours: dict[str, int | None], jobs: Sequence[dict[str, Any]]) -> list[str]:
    found = []
    for provider in sorted(ours.keys() | {job["seller"] for job in jobs}):
        mine = ours.get(provider, 0)
        theirs = sum(kept_microusd(job) for job in jobs if job["seller"] == provider)
        # What it takes without a word is told by a metric where it can be known at all, and here by nobody.
        silent = sum(kept_microusd(job) // 2 for job in jobs if job["seller"] == provider and is_silently_dear(job))
        if mine is not None and theirs - silent != mine:
            found.append(f"{name}: {provider} took {theirs}, we wrote down {mine}")
    return found


def is_silently_dear(job: dict[str, Any]) -> bool:
    """Whether its seller takes twice its price and names no dollars."""
    return "dear" in job["faults"] and job["seller"] in NAMES_NO_DOLLARS


def wrong_budgets(stage: Revived) -> list[str]:
    """Those that are passed at this moment, and counters that are not what their videos say: in one look at all."""
    found = []
    for scope, whose, videos, subject, limit, spent, counted in whole_in(stage.folder).rows(_BUDGETS):
        who = f"{scope} {whose} {subject}"
        if max(spent, counted) > limit:
            found.append(f"{who}: {videos} videos hold or cost {spent}, counted are {counted}, of {limit}")
        elif spent != counted:
            found.append(f"{who}: {videos} videos hold or cost {spent}, counted are {counted}")
    return found


_SPENT = "sum(case when hold = 'held' then hold_microusd else coalesce(charged_microusd, 0) end)"
_BUDGETS = f"""
select b.scope, c.whose, v.videos, c.subject, b.limit_microusd, v.spent, c.used_microusd
from budgets b join budget_counters c
  on c.tenant_id = b.tenant_id and c.period = 'total'
  and c.whose = case b.scope when 'each_end_user' then 'end_user' else 'tenant' end
join (
  select 'end_user' as whose, end_user as subject, count(*) as videos, {_SPENT} as spent from videos
  where end_user is not null group by end_user
  union all
  select 'tenant', '', count(*), {_SPENT} from videos
) v on v.whose = c.whose and v.subject = c.subject
where b.period = 'total' and b.shadow = 0
"""  # noqa: S608  # words of our own
"""Of the only tenant here, for all time."""


async def _differences(stage: Revived, jobs_of: dict[str, list[dict[str, Any]]]) -> list[str]:
    books = (await stage.admin.get("/admin/books")).raise_for_status().json()
    report = (await stage.ask("GET", "/admin/reports/spend", params={"group_by": "provider"})).json()
    database = whole_in(stage.folder)
    jobs = [job for some in jobs_of.values() for job in some]
    attempts = database.rows("select provider, possible_microusd, state, cost_microusd from attempts")
    unsaid = [(provider, possible) for provider, possible, state, cost in attempts if _is_unknown(state, cost)]
    unsaid += [(job["seller"], kept_microusd(job) // 2) for job in jobs if is_silently_dear(job)]
    maybe = [{"provider": provider, "possible_cost_usd": usd_text(amount)} for provider, amount in unsaid]
    # What was never bought stands in a line without a provider.
    found = compare(books, [{**line, "provider": line["provider"] or "nobody"} for line in report["data"]], maybe)
    known = {row[0] for row in database.rows("select seller_id from attempts")}
    found += [
        f"{job['seller']}'s job {job['id']} is nobody's: {job['prompt']}"
        for job in jobs
        if job["id"] not in known
        and job["seller"] not in BLOCKING
        and (job["seller"], job["id"]) not in stage.written_off
    ]
    found += wrong_budgets(stage)
    held = "select account, sum(amount_microusd) from ledger_postings where account like '%:held' group by 1"
    found += [f"{account} is {amount}" for account, amount in database.rows(held) if amount]
    for check in (check_the_ledger, check_the_log):
        try:
            check(stage.folder)
        except AssertionError as exc:
            found.append(str(exc).splitlines()[0] if str(exc) else f"{check.__name__} fails")
    code, doubts = await stage.run("audit")
    return found + ([f"audit: {doubts.strip()}"] if code else [])
