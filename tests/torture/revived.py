"""A stage whose server is killed and started again, with a customer who repeats and an operator who decides."""

import asyncio
import signal
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from decimal import Decimal
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import httpx
import msgspec

from proxy.core.money import usd_text
from proxy.simulator.faults import BLOCKING
from tests.databases import choose, file_in, whole_in
from tests.torture import mortal
from tests.whole.stage import Stage

PATIENCE_S = 2.0
"""So long an operator leaves an unknown end to callbacks and questions before deciding by the sellers' books."""
FAILING_MAX_S = 120.0
"""So long a server may have failures of its own as its only answers."""
DEADLINE_S = 600
"""Longer than anything here takes: what is unknown waits for the operator."""
SUBMIT_TIMEOUT_S = 20

_OPEN = "select video_id from attempts where state in ('sending', 'running', 'unknown', 'lost')"
_HELD = "select count(*) from videos where hold = 'held'"
_OWED = "select count(*) from videos where status not in ('completed', 'failed')"


class Order(msgspec.Struct, kw_only=True):
    """What a customer asks for; `name` is the first word of its prompt and its Idempotency-Key."""

    name: str
    faults: tuple[str, ...] = ()
    order: tuple[str, ...] = ()
    """Sellers, the first first; empty: as the rules have it."""
    bold: bool = False
    """Under `on_unknown: fallback`."""
    seconds: int = 4
    resolution: str = "720p"
    end_user: str | None = None
    brief: bool = False
    """Under a deadline of seconds: an order that it leaves running at a seller may run for ever."""

    @property
    def body(self) -> dict[str, Any]:
        wish: dict[str, Any] = {"prompt": " ".join([self.name, *(f"[fault:{fault}]" for fault in self.faults)])}
        # What the rules fill in anyway is not stated: nobody is then told that no offer has it.
        wish |= {"seconds": self.seconds} if self.seconds != 4 else {}
        wish |= {"resolution": self.resolution} if self.resolution != "720p" else {}
        wish |= {"end_user_id": self.end_user} if self.end_user is not None else {}
        if self.order:
            wish["routing"] = {"order": list(self.order)}
        metadata = {name: "yes" for name in ("bold", "brief") if getattr(self, name)}
        return wish | ({"metadata": metadata} if metadata else {})


class StillFailing(AssertionError):
    """A server had nothing but failures of its own to say, for longer than anything lasts that is in its way here."""


class Failures:
    """The answers of one question, while they are failures of the server's."""

    def __init__(self, most_s: float) -> None:
        self._most_s = most_s
        self._since: float | None = None

    def add(self, answer: httpx.Response) -> None:
        """Raises StillFailing."""
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        if now - self._since > self._most_s:
            asked = f"{answer.request.method} {answer.request.url.path}"
            raise StillFailing(f"{asked} gave {answer.status_code} for {self._most_s:g} s: {answer.text:.500}")


class Revived(Stage):
    """Its server lives in a process of the nursery; whoever finds it dead starts it again."""

    accepted: dict[str, Order]
    """By id of the video, whatever a customer was told 200 for."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        super().__init__(folder, stack)
        folder.mkdir(parents=True, exist_ok=True)
        self.one: ForkServerProcess | None = None

    async def move(self, folder: Path, engine: str, rules: Callable[[dict[str, Any]], object], **env: str) -> None:
        """To an empty folder and database; the sellers forget what they had."""
        if self.one is None:
            self._stack.callback(self.kill)
        else:
            self.kill()
        (await self.admin.delete("/admin/books")).raise_for_status()
        (folder / "data").mkdir(parents=True, exist_ok=True)
        self.folder = folder
        choose(engine, folder)
        if engine == "sqlite":
            file_in(folder / "data")
        self.write_rules(rules, deadline_s=DEADLINE_S, submit_timeout_s=SUBMIT_TIMEOUT_S)
        self.furnish(**env)
        await self.open_client(f"http://127.0.0.1:{self.port}")
        self.accepted = {}
        self.undecided: set[str] = set()
        """Videos of which an operator had to say what became of them."""
        self.written_off: set[tuple[str, str]] = set()
        """Seller and id of its job, where a film was made that an operator gave up: nobody can ask for it."""
        self.deleted: set[str] = set()
        """Videos that their customer deleted."""
        self.films_expire = False
        """Whether films may have become too old to be kept."""
        self.markup = Decimal(0)
        self.over_budget = 0
        """Orders that were refused for it."""
        self.hasty = False
        """Whether its servers keep house all the time."""
        self.kills = 0
        self._unknown_since: dict[tuple[str, int], float] = {}

    def begin(self, *, dies_at: str | None = None, diary: Path | None = None) -> None:
        log = self.folder / f"serve-{self.port}.log"
        self.one = mortal.start(
            ["serve"], self.folder, self.environment, log, dies_at=dies_at, diary=diary, hasty=self.hasty
        )

    def kill(self) -> None:
        if self.one is not None:
            self.one.kill()
            self.one.join()

    async def revive(self) -> None:
        """A server that died is started again; one that only begins is waited for."""
        assert self.one is not None
        if self.one.exitcode is None:
            await asyncio.sleep(0.02)
        elif self.one.exitcode == -signal.SIGKILL:
            self.kills += 1
            self.begin()
        else:
            raise RuntimeError((self.folder / f"serve-{self.port}.log").read_text()[-3000:])

    async def ask(self, method: str, path: str, *, patience_s: float = FAILING_MAX_S, **sent: Any) -> httpx.Response:
        """
        An answer, however many times it takes: nobody knows what became of a question without one.

        Raises StillFailing where for that long there are only failures.
        """
        failures = Failures(patience_s)
        while True:
            try:
                answer = await self.client.request(method, path, **sent)
            except httpx.TransportError:
                await self.revive()
                continue
            if answer.status_code < 500:
                return answer
            failures.add(answer)
            await asyncio.sleep(0.05)

    async def allot(self, scope: str, limit_microusd: int) -> None:
        """A budget of the tenant's, for all time."""
        wish = {"tenant": "default", "scope": scope, "period": "total", "limit_usd": usd_text(limit_microusd)}
        (await self.ask("POST", "/admin/budgets", json=wish)).raise_for_status()
        # One that runs may not have looked again yet.
        self.kill()
        self.begin()

    async def mark_up(self, markup: str) -> None:
        """What the tenant pays over the sellers' prices, from now on: a decimal ratio."""
        (await self.ask("PATCH", "/admin/tenants/default", json={"markup": markup})).raise_for_status()
        # One that runs trusts what it knows of a tenant for some seconds.
        self.kill()
        self.begin()
        self.markup = Decimal(markup)

    async def try_order(self, order: Order) -> str | None:
        """The id of the video; None where no budget has room for it, and its customer leaves it."""
        answer = await self._order(order)
        if answer.status_code == 429 and answer.json()["error"]["code"] == "insufficient_quota":
            self.over_budget += 1
            return None
        return self._accept(order, answer)

    async def order(self, order: Order) -> str:
        """The id of the video, which is the customer's from now on."""
        return self._accept(order, await self._order(order))

    async def _order(self, order: Order) -> httpx.Response:
        return await self.ask("POST", "/v1/videos", json=order.body, headers={"idempotency-key": order.name})

    def _accept(self, order: Order, answer: httpx.Response) -> str:
        assert answer.status_code == 200, answer.text
        video_id: str = answer.json()["id"]
        self.accepted[video_id] = order
        return video_id

    async def delete(self, video_id: str) -> None:
        """What was asked twice is not there any more the second time."""
        self.deleted.add(video_id)
        answer = await self.ask("DELETE", f"/v1/videos/{video_id}")
        assert answer.status_code in {200, 404}, answer.text

    async def reaches(self, video_id: str, *states: str) -> dict[str, Any]:
        """Once it is over, or an attempt is in one of these states."""
        while True:
            video: dict[str, Any] = (await self.ask("GET", f"/v1/videos/{video_id}")).json()
            attempts = {one["status"] for one in video.get("routing", {}).get("attempts", ())}
            if video.get("status") not in {"queued", "in_progress"} or attempts & set(states):
                return video
            await self.decide()
            await asyncio.sleep(0.1)

    async def rest(self, *, within_s: float) -> bool:
        """Once nothing is under way any more, neither here nor at a seller; whether it came to that."""
        try:
            async with asyncio.timeout(within_s):
                while await self._is_something_under_way():
                    await self.decide()
                    await asyncio.sleep(0.1)
        except TimeoutError:
            return False
        return True

    async def _is_something_under_way(self) -> bool:
        await self.ask("GET", "/readyz")
        database = whole_in(self.folder)
        if any(database.rows(query) != [(0,)] for query in (_HELD, _OWED)):
            return True
        endless = {video_id: order.name for video_id, order in self.accepted.items() if order.brief}
        owed = {video_id for (video_id,) in database.rows(_OPEN)}
        return bool(owed - endless.keys()) or any(
            job["state"] in {"queued", "running"} and job["prompt"].split(" ")[0] not in endless.values()
            for job in await self.books()
        )

    async def decide(self) -> None:
        """What has been unknown for long is looked up in the sellers' books, and settled by what stands there."""
        listed = (await self.ask("GET", "/admin/attempts", params={"state": "unknown", "limit": 1000})).json()["data"]
        now, jobs = time.monotonic(), None
        for line in listed:
            since = self._unknown_since.setdefault((line["video"], line["attempt"]), now)
            if now - since < PATIENCE_S:
                continue
            jobs = await self.books() if jobs is None else jobs
            self.undecided.add(line["video"])
            await self._resolve(line, jobs)

    async def _resolve(self, line: dict[str, Any], jobs: list[dict[str, Any]]) -> None:
        name = self.accepted[line["video"]].name
        found = [job for job in jobs if (job["seller"], job["prompt"].split(" ")[0]) == (line["provider"], name)]
        finding = {"bought": bool(found), "reason": "it stands in the seller's books"}
        if found and (line["state"] == "lost" or line["provider"] in BLOCKING):
            # Nobody can ask for this one any more: what it cost is known when it has ended.
            if found[0]["state"] in {"queued", "running"}:
                return
            finding["cost_usd"] = usd_text(found[0]["charged_microusd"] - found[0]["refunded_microusd"])
            self.written_off.add((line["provider"], found[0]["id"]))
        elif found:
            finding["seller_id"] = found[0]["id"]
        path = f"/admin/attempts/{line['video']}/{line['attempt']}/resolve"
        # It may have healed meanwhile, and a repeated finding is refused; what is still unknown is listed again.
        await self.ask("POST", path, json=finding)

    async def run(self, *arguments: str) -> tuple[int, str]:
        """Exit code and output of another verb beside the server."""
        log = self.folder / f"{arguments[0]}.log"
        log.unlink(missing_ok=True)
        process = mortal.start(list(arguments), self.folder, self.environment, log)
        await asyncio.to_thread(process.join, 60)
        return -1 if process.exitcode is None else process.exitcode, log.read_text()
