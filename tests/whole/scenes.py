"""
Scenes: many videos at once on one stage, each a case with a name, and what is left when all have ended.

A fixture plays a scene once; tests read what happened. The name of a case is the first word of its
prompt, so that the sellers' books tell which jobs were made for it.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from tests.databases import whole_in
from tests.whole.stage import SPEED, Stage

T = TypeVar("T")
Rules = dict[str, Any]

MICRO = 1_000_000

PRICES = {"evolink": 198_500, "shortapi": 240_000, "fal": 303_400, "runflow": 303_400}
"""Micro-dollars for a second of 720p."""


class Played(msgspec.Struct, kw_only=True):
    """What a scene left behind."""

    folder: Path
    videos: dict[str, dict[str, Any]]
    """By case, as the API shows them at the end."""
    jobs: dict[str, list[dict[str, Any]]]
    """By case, what the sellers made, by their own books."""
    metrics: str
    found: dict[str, Any]
    """What else the scene has seen."""

    def sellers(self, case: str) -> list[str]:
        """Who took an order for this case, in the order of taking."""
        return [job["seller"] for job in self.jobs.get(case, [])]

    def outcome(self, case: str) -> tuple[str, str | None]:
        """Status, and the code where it failed."""
        video = self.videos[case]
        return video["status"], (video["error"] or {}).get("code")

    def attempts(self, case: str) -> list[tuple[str, str, str | None]]:
        """Provider, state and failure of each attempt."""
        attempts = self.videos[case]["routing"]["attempts"]
        return [(one["provider"], one["status"], one["error_code"]) for one in attempts]

    def paid(self, case: str) -> int | None:
        """Micro-dollars that the tenant pays."""
        return micro(self.videos[case]["usage"]["cost_usd"])

    def hold(self, case: str) -> tuple[str, int]:
        """Its state, and micro-dollars."""
        return rows(self.folder, "select hold, hold_microusd from videos where id = ?", self.videos[case]["id"])[0]

    def absorbed(self, case: str) -> dict[str, int]:
        """Micro-dollars that nobody pays, by reason."""
        found = rows(
            self.folder,
            "select account, sum(amount_microusd) from ledger_postings p join ledger_transactions t"
            " on t.id = p.transaction_id where t.video_id = ? and account like 'absorbed:%' group by account",
            self.videos[case]["id"],
        )
        return dict(found)

    def metric(self, name: str, **labels: str) -> float:
        return metric(self.metrics, name, **labels)


def micro(usd: str | None) -> int | None:
    """A decimal string as micro-dollars, without any float."""
    if usd is None:
        return None
    whole, _, rest = usd.partition(".")
    return int(whole) * MICRO + int(rest.ljust(6, "0"))


def metric(text: str, name: str, **labels: str) -> float:
    """The sum over all series that carry these labels; 0 where there is none."""
    total = 0.0
    for line in text.splitlines():
        found = re.fullmatch(rf"{name}(?:{{(.*)}})? (\S+)", line)
        if found is None:
            continue
        carried = dict(re.findall(r'(\w+)="([^"]*)"', found.group(1) or ""))
        if labels.items() <= carried.items():
            total += float(found.group(2))
    return total


def rows(folder: Path, query: str, *values: Any) -> list[tuple[Any, ...]]:
    """What the server's database answers, read beside it."""
    return whole_in(folder).rows(query, *values)


def check_the_ledger(folder: Path) -> None:
    """What holds of every ledger at every moment."""
    unbalanced = "select transaction_id from ledger_postings group by 1 having sum(amount_microusd) != 0"
    assert rows(folder, unbalanced) == []
    held = "select 'tenant:' || tenant_id || ':held', sum(hold_microusd) from videos where hold = 'held' group by 1"
    accounts = (
        "select account, sum(amount_microusd) from ledger_postings where account like '%:held'"
        " group by 1 having sum(amount_microusd) != 0"
    )
    assert dict(rows(folder, accounts)) == dict(rows(folder, held))
    ends = (
        "select v.id, v.status, v.hold, count(t.id), min(t.kind) from videos v left join ledger_transactions t"
        " on t.video_id = v.id and t.kind in ('post', 'void') group by v.id"
    )
    for video, status, hold, count, kind in rows(folder, ends):
        expected = {"held": (0, None), "posted": (1, "post"), "void": (1, "void")}[hold]
        assert (count, kind) == expected, f"{video} {status}: its hold ended {count} times"
        assert hold != "held" or status != "completed"
    beyond = "select id from videos where charged_microusd > hold_microusd"
    assert rows(folder, beyond) == []


def check_the_log(folder: Path) -> None:
    """The server met nothing that it had no answer to."""
    for path in folder.glob("serve-*.log"):
        text = path.read_text()
        for word in ("work.broke", "turn.broke", "Traceback"):
            assert word not in text, text[max(0, text.find(word) - 500) :][:3000]


@asynccontextmanager
async def opened(
    folder: Path,
    *,
    speed: float = SPEED,
    change: Callable[[Rules], object] | None = None,
    env: dict[str, str] | None = None,
    **rules: Any,
) -> AsyncIterator[Stage]:
    """A stage with sellers and a server that run; `rules` as for `Stage.write_rules`."""
    async with AsyncExitStack() as stack:
        stage = Stage(folder, stack)
        await stage.start_sellers(speed=speed)
        stage.write_rules(change, **rules)
        await stage.start_server(**(env or {}))
        yield stage


class Troupe:
    """Makes a scene's videos and remembers them by case."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.ids: dict[str, str] = {}

    async def ask(self, case: str, *faults: str, **fields: Any) -> str:
        """A video of 4 seconds that meets these faults; `fault` or `fault@seller`."""
        prompt = " ".join([case, *(f"[fault:{fault}]" for fault in faults)])
        self.ids[case] = (await self.stage.create(prompt, **fields))["id"]
        return self.ids[case]

    async def end(self, *cases: str, within_s: float = 60) -> None:
        """Once these videos, or all, are completed or failed."""
        ids = [self.ids[case] for case in cases or self.ids]
        await asyncio.gather(*(self.stage.ended(one, within_s=within_s) for one in ids))

    async def played(self, **found: Any) -> Played:
        """As it is now."""
        stage = self.stage
        shown = {case: (await stage.client.get(f"/v1/videos/{one}")).json() for case, one in self.ids.items()}
        metrics = (await stage.client.get("/metrics")).text
        jobs: dict[str, list[dict[str, Any]]] = {}
        for job in sorted(await stage.books(), key=lambda one: float(one["created_at"])):
            jobs.setdefault(job["prompt"].split(" ")[0], []).append(job)
        return Played(folder=stage.folder, videos=shown, jobs=jobs, metrics=metrics, found=found)


def play(scene: Callable[[Path], Coroutine[Any, Any, T]], folder: Path) -> T:
    """Runs a scene to its end, on a loop of its own."""
    return asyncio.run(scene(folder))


async def eventually(true: Callable[[], Awaitable[bool]], *, within_s: float = 30) -> None:
    """Waits until something is so."""
    async with asyncio.timeout(within_s):
        while not await true():
            await asyncio.sleep(0.1)


def rule(name: str, when: dict[str, Any] | None = None, *, strategy: Any = "cheapest", **keys: Any) -> Rules:
    """One rule of the YAML."""
    return {"name": name, **({} if when is None else {"when": when}), "strategy": strategy, **keys}
