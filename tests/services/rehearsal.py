"""Services on a real SQLite file, with a clock that is moved and sellers that answer by script."""

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml

from proxy.catalog import read_catalog
from proxy.core.account import Account
from proxy.core.attempt import Accepted, Attempt, Done
from proxy.core.clock import SECOND_US
from proxy.core.errors import Interrupted, LeaseLost, Overloaded
from proxy.core.ids import Secrets, time_hex
from proxy.core.tenant import SCOPES, Caller, Tenant
from proxy.core.video import Ask
from proxy.core.wire import Call, Reply
from proxy.outside.assets import Download, Fetcher
from proxy.outside.storage import Folder
from proxy.outside.transport import Transport
from proxy.policy.rules import load_rules
from proxy.providers.base import Adapter
from proxy.providers.fal import Fal
from proxy.providers.registry import load_adapters
from proxy.services import cancel
from proxy.services.deliver import deliver
from proxy.services.dispatch import advance
from proxy.services.house import House
from proxy.services.intake import accept
from proxy.services.watch import attend, called_back
from proxy.store import ledger, tenants, videos, work
from proxy.store.base import Tx
from proxy.store.sqlite import SqliteStore
from proxy.store.videos import Video
from proxy.store.work import Claim
from proxy.telemetry.logs import Redaction
from proxy.telemetry.metrics import Metrics
from tests.databases import Database, file_in
from tests.whole.stage import PLAY_KEYS, SELLERS, make_rules

T = TypeVar("T")

START_US = 1_795_000_000 * SECOND_US
TENANT = Tenant(id="tenant_a", name="a", allow_filter_off=True, created_at=START_US)
CALLER = Caller(tenant=TENANT, key_id="key_1", scopes=frozenset(SCOPES))

Script = Callable[[str, Call], Awaitable[Reply]]
"""Provider and call to its answer; what it raises is what the exchange ends in."""


def reply(status: int, body: Any = None, **headers: str) -> Reply:
    return Reply(status=status, headers=headers, body=b"" if body is None else msgspec.json.encode(body))


class Refusing(SqliteStore):
    """Refuses so many writes as are set, as one whose disk is full."""

    refusals = 0

    async def write(self, unit: Callable[[Tx], T]) -> T:
        if self.refusals:
            self.refusals -= 1
            raise Overloaded("The database could not keep this.")
        return await super().write(unit)


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now_us = START_US

    def __call__(self) -> int:
        return self.now_us

    def move(self, seconds: float) -> None:
        self.now_us += int(seconds * SECOND_US)


class ScriptedTransport(Transport):
    """The sellers' side of the wire."""

    def __init__(self, script: Script) -> None:
        super().__init__()
        self.script = script
        self.calls: list[tuple[str, str, str]] = []
        """Provider, method and path."""

    async def send(
        self, account: Account, authorization: tuple[str, str], call: Call, *, timeout_s: float, fresh: bool = False
    ) -> Reply:
        del authorization, timeout_s, fresh
        self.calls.append((account.name, call.method, call.path))
        return await self.script(account.name, call)


class ScriptedFetcher(Fetcher):
    """Gives `film` for every link, after `before` had its turn."""

    def __init__(self, film: bytes) -> None:
        super().__init__()
        self.film = film
        self.opened = 0
        self.before: Callable[[], Awaitable[object]] | None = None

    @contextlib.asynccontextmanager
    async def open(self, url: str, trusted_hosts: Collection[str] = ()) -> AsyncGenerator[Download]:
        del url, trusted_hosts
        self.opened += 1
        if self.before is not None:
            await self.before()

        async def chunks() -> AsyncGenerator[bytes]:
            yield self.film

        yield Download(content_length=len(self.film), content_type="video/mp4", chunks=chunks())


class Rehearsal:
    """A house, and the worker's turns taken by hand."""

    def __init__(self, house: House, clock: Clock, transport: ScriptedTransport, fetcher: ScriptedFetcher) -> None:
        self.house = house
        self.clock = clock
        self.transport = transport
        self.fetcher = fetcher

    def answers(self, script: Script) -> None:
        self.transport.script = script

    async def accept(self, **ask: Any) -> str:
        """An accepted video, ordered at fal first and then at Runflow, unless `ask` says otherwise."""
        wish = Ask(**{"prompt": "a paper boat", "seconds": 4, **ask})
        accepted = await accept(self.house, CALLER, wish, fingerprint="f")
        return accepted.video.id

    async def claim(self) -> list[Claim]:
        """What is due now, all of it."""
        return await self.house.store.write(lambda tx: work.claim(tx, "rehearsal", most=100, lease_us=90 * SECOND_US))

    async def do(self, claim: Claim) -> None:
        """What the worker does with one claim. Raises LeaseLost."""
        if claim.attempt_no == 0:
            await advance(self.house, claim)
            return
        video, attempt = await self.video(claim.video_id), await self.attempt(claim.video_id, claim.attempt_no)
        ready = attempt if attempt.state == "done" else await attend(self.house, claim, video, attempt)
        if ready is not None:
            await deliver(self.house, claim, video, ready)

    async def turn(self) -> int:
        """Everything that is due now, one after another; how much it was."""
        claims = await self.claim()
        for claim in claims:
            with contextlib.suppress(LeaseLost):
                await self.do(claim)
        return len(claims)

    async def settle(self) -> None:
        """Turns until nothing is due at this moment."""
        for _ in range(50):
            if not await self.turn():
                return
        raise AssertionError("work is due again and again at the same moment")

    async def run(self, seconds: float, *, step_s: float = 1.0) -> None:
        """Lets time pass, and does what falls due."""
        await self.settle()
        passed = 0.0
        while passed < seconds:
            self.clock.move(min(step_s, seconds - passed))
            passed += step_s
            await self.settle()

    async def restart(self) -> None:
        """As if the process had been killed: whoever held a lease is gone."""
        await self.house.store.write(work.release_all)

    async def call_back(self, video_id: str, number: int, body: Any) -> bool:
        token = self.house.secrets.callback_token(video_id, number)
        return await called_back(self.house, token, msgspec.json.encode(body))

    async def cancel(self, video_id: str) -> Video | None:
        return await cancel.cancel(self.house, TENANT.id, video_id)

    async def delete(self, video_id: str) -> bool:
        return await cancel.delete(self.house, TENANT.id, video_id)

    async def video(self, video_id: str) -> Video:
        video = await self.house.store.read_now(lambda tx: videos.by_id(tx, video_id))
        assert video is not None
        return video

    async def attempts(self, video_id: str) -> list[Attempt]:
        return await self.house.store.read_now(lambda tx: videos.attempts_of(tx, video_id))

    async def attempt(self, video_id: str, number: int = 1) -> Attempt:
        return (await self.attempts(video_id))[number - 1]

    async def states(self, video_id: str) -> list[str]:
        return [attempt.state for attempt in await self.attempts(video_id)]

    async def balances(self) -> dict[str, int]:
        """Accounts that are not at zero; all together they must be."""
        found = await self.house.store.read_now(ledger.balances)
        assert sum(found.values()) == 0
        held = await self.house.store.read_now(ledger.held_by_videos)
        assert found.get(f"tenant:{TENANT.id}:held", 0) == held[TENANT.id]
        return {account: amount for account, amount in found.items() if amount}

    async def rows_of_work(self, video_id: str) -> list[int]:
        """Numbers of the attempts that something is still due for; 0 is the video itself."""
        found: list[int] = []

        def unit(tx: Tx) -> None:
            tx.now_us += 10**15
            claims = work.claim(tx, "probe", most=1000, lease_us=1)
            found.extend(claim.attempt_no for claim in claims if claim.video_id == video_id)
            raise LeaseLost("undone: this was only a look")

        with contextlib.suppress(LeaseLost):
            await self.house.store.write(unit)
        return sorted(found)

    def metric(self, name: str, **labels: str) -> float:
        value = self.house.metrics.registry.get_sample_value(name, labels)
        return value or 0.0


async def nobody_answers(provider: str, call: Call) -> Reply:
    raise Interrupted(f"{provider} was asked {call.method} {call.path}, but the test gave no answer")


class Blocking:
    """The older Runflow: an answer is the film, and comes after `meanwhile` had its turn."""

    def __init__(self, meanwhile: Callable[[], Awaitable[object]] | None = None) -> None:
        self.meanwhile = meanwhile
        self.answer = reply(200, {"video": {"url": "https://files.example/film.mp4"}, "seed": 1})

    async def __call__(self, provider: str, call: Call) -> Reply:
        if (provider, call.method) != ("runflow-legacy", "POST"):
            return await nobody_answers(provider, call)
        if self.meanwhile is not None:
            await self.meanwhile()
        return self.answer


class FalOrder:
    """One order at fal, in the state that the test puts it into."""

    def __init__(self, seller_id: str = "fal-1") -> None:
        self.seller_id = seller_id
        self.status = "IN_PROGRESS"

    async def __call__(self, provider: str, call: Call) -> Reply:
        if provider != "fal":
            return await nobody_answers(provider, call)
        if call.method == "POST":
            return reply(200, {"request_id": self.seller_id})
        if call.method == "PUT":
            return reply(202, {"status": "CANCELLATION_REQUESTED"})
        if call.path.endswith("/status"):
            return reply(200, {"status": self.status})
        return reply(200, {"video": {"url": "https://files.example/film.mp4"}, "seed": 1})


class Hasty(Fal):
    """Takes orders as fal does, but answers with the film where there is one already."""

    def accepted(self, reply: Reply) -> Accepted | Done:  # type: ignore[override]  # as an Adapter may
        return Done(result=self.result(reply)) if b"video" in reply.body else super().accepted(reply)


@contextlib.asynccontextmanager
async def rehearse(
    where: Database | Path,
    film: bytes,
    *,
    order: tuple[str, ...] = ("fal", "runflow"),
    rule: dict[str, Any] | None = None,
    store: type[SqliteStore] | None = None,
    adapters: dict[str, Adapter] | None = None,
    **fallback: Any,
) -> AsyncGenerator[Rehearsal]:
    """
    Sellers in a fixed order, among them the blocking one where it is named.

    `rule` goes over the only rule, `fallback` over the defaults, `adapters` over those that there are.
    In a folder, on a SQLite file of its own, run by `store`.
    """
    clock = Clock()
    database = where if isinstance(where, Database) else file_in(where)
    opened = database.store(clock) if store is None else store(database.folder / "reelay.db", clock)
    await opened.open()
    await opened.write(lambda tx: tenants.insert_tenant(tx, TENANT))
    written = make_rules(dict.fromkeys(SELLERS, "http://127.0.0.1:1"), speed=1.0, deadline_s=1200)
    written["defaults"]["fallback"].update(fallback)
    written["rules"] = [{"name": "default", "strategy": {"ordered": list(order)}, **(rule or {})}]
    if "runflow-legacy" in order:
        written["providers"]["runflow-legacy"] = {"adapter": "runflow-legacy", "api_key": "${RUNFLOW_API_KEY}"}
    adapters = {**load_adapters(), **(adapters or {})}
    rules = load_rules(
        yaml.safe_dump(written).encode(),
        file="routing_rules.yaml",
        env=PLAY_KEYS,
        adapters={name: adapter.base_url for name, adapter in adapters.items()},
        catalog=read_catalog(),
    )
    transport, fetcher = ScriptedTransport(nobody_answers), ScriptedFetcher(film)
    house = House(
        store=opened,
        rules=rules,
        adapters=adapters,
        transport=transport,
        fetcher=fetcher,
        storage=Folder(database.folder / "videos"),
        metrics=Metrics(
            "0", providers=list(rules.accounts), models=rules.models, offers=list(rules.offers), rules=["default"],
            routes={},
        ),
        secrets=Secrets(masters=("a-secret-of-tests-only",)),
        clock=clock,
        new_id=time_hex,
        chance=lambda: 0.5,
        public_url="http://127.0.0.1:1",
        sandbox=False,
        clean=Redaction(list(PLAY_KEYS.values())).text,
    )  # fmt: skip
    try:
        yield Rehearsal(house, clock, transport, fetcher)
    finally:
        await transport.close()
        await fetcher.close()
        await opened.close()
