"""A seller that refuses, breaks or is gone while many videos are under way, and more customers than can be served."""

import asyncio
import re
import ssl
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import msgspec

from proxy.policy.retries import FLOOR, LENGTH_US, SHARE
from tests.ports import free_port
from tests.torture.revived import Order, Revived
from tests.torture.verdict import Tally, judge
from tests.whole.scenes import PRICES, rule

SELLER = "evolink"
SPEED = 25.0
"""Of the sellers: a film takes some seconds."""
MANY = 200
"""Videos that an outage meets."""
LANES = 2
OUTAGE_S = 20.0
BACK_WITHIN_S = 180.0
"""From the end of an outage to the last film; a breaker's pause and a seller's backoff are part of it."""
CROWD = 1_500
PRICE_MICROUSD = 4 * PRICES[SELLER]
CONNECTIONS = 200
GROWTH_MAX_BYTES = 160 * 1024 * 1024
"""By which a server may grow under a flood: it took 119 MiB, and 133 where three times as many came."""


class Outage(msgspec.Struct, frozen=True, kw_only=True):
    """What goes wrong at the only seller."""

    name: str
    fault: str | None
    """The simulated seller's; None: it cannot be reached."""
    of: str
    """What is asked in vain: `submit` or `poll`."""


OUTAGES = (
    Outage(name="every submit is answered 503", fault="error_503", of="submit"),
    Outage(name="every submit is answered 429", fault="throttled", of="submit"),
    Outage(name="every poll is answered 500", fault="poll_500", of="poll"),
    Outage(name="nobody listens at the seller's address", fault=None, of="submit"),
)


class Gate:
    """Stands before the sellers; closed, nobody listens there."""

    def __init__(self, origin: str) -> None:
        self.port = free_port()
        self._to = int(origin.rpartition(":")[2])
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", self.port, backlog=1024)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            for writer in self._open:
                writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._to)
        self._open |= {writer, there_writer}
        await asyncio.gather(_carry(reader, there_writer), _carry(there_reader, writer))
        self._open -= {writer, there_writer}


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


def rules(written: dict[str, Any], origin: str | None = None) -> None:
    """One seller for everything, with its breaker; `origin` where it stands elsewhere."""
    provider = written["providers"][SELLER]
    del provider["breaker"]
    if origin is not None:
        provider["base_url"] = f"{origin}/{SELLER}"
    written["rules"] = [rule("default", providers={"only": [SELLER]})]


# Outages


async def meet(stage: Revived, folder: Path, engine: str, outage: Outage, *, many: int = MANY) -> Tally:
    """Many videos under way as it begins; what the seller hears while it lasts, and how all of them end."""
    gate = Gate(stage.sellers.origin)
    await stage.move(folder, engine, lambda written: rules(written, gate.origin))
    stage.begin()
    await stage.ask("GET", "/readyz")
    if outage.fault is None:
        await gate.close()
    else:
        await gate.open()
        await stage.arm(SELLER, outage.fault, probability=1)
    begun = time.monotonic()
    await order_many(stage, many)
    await asyncio.sleep(max(0.0, OUTAGE_S - (time.monotonic() - begun)))
    asked, seconds = await tries(stage, outage.of), time.monotonic() - begun
    if outage.fault is None:
        await gate.open()
    (await stage.admin.delete("/admin/faults")).raise_for_status()
    back_at = time.monotonic()
    tally = await judge(stage, outage.name, within_s=BACK_WITHIN_S)
    await gate.close()
    most = allowed(many, seconds)
    print(
        f"{tally.fault} ({engine}): {asked} {outage.of}s for {many} videos in {seconds:.0f} s, {most} allowed;"
        f" all over {time.monotonic() - back_at:.0f} s after its end.",
        flush=True,
    )
    if asked > most:
        tally.differences.append(f"{SELLER} heard {asked} {outage.of}s in {seconds:.0f} s, {most} are allowed")
    if tally.delivered != many:
        tally.differences.append(f"{many - tally.delivered} videos did not outlive the outage")
    return tally


def allowed(many: int, seconds: float) -> int:
    """Each for the first time, a share of that again, and a few in each ten seconds; the last have begun."""
    return many + many // SHARE + FLOOR * (int(seconds * 1_000_000 // LENGTH_US) + 1)


async def order_many(stage: Revived, many: int) -> None:
    """As customers do, a few at a time."""
    names = iter([f"video-{number}" for number in range(many)])

    async def be_a_customer() -> None:
        for name in names:
            await stage.order(Order(name=name))

    await asyncio.gather(*(be_a_customer() for _ in range(16)))


async def tries(stage: Revived, operation: str) -> int:
    """By our own count: nobody else hears those that do not arrive."""
    scraped = (await stage.ask("GET", "/metrics")).text
    labels = rf'{{operation="{operation}",outcome="\w+",provider="{SELLER}"}}'
    return sum(
        int(float(one)) for one in re.findall(rf"^reelay_provider_attempts_total{labels} (\S+)$", scraped, re.MULTILINE)
    )


# A flood


async def flood(stage: Revived, folder: Path, engine: str, *, crowd: int = CROWD) -> Tally:
    """More creates at once than the budget has room for, over many connections, at sellers that take their time."""
    await stage.move(folder, engine, rules)
    stage.begin()
    fitting = crowd * 2 // 3
    await stage.allot("tenant", fitting * PRICE_MICROUSD)
    await stage.ask("GET", "/readyz")
    await stage.arm(SELLER, "throttled", probability=0.3)
    held = _held_bytes(stage)
    begun = time.monotonic()
    answers, odd, longest_s = await _rush(stage, crowd)
    seconds, grown = time.monotonic() - begun, _held_bytes(stage) - held
    (await stage.admin.delete("/admin/faults")).raise_for_status()
    tally = await judge(stage, "more creates than the budget allows", within_s=300)
    grown = max(grown, _held_bytes(stage) - held)
    print(
        f"{tally.fault} ({engine}): {crowd} over {CONNECTIONS} connections in {seconds:.0f} s,"
        f" {dict(sorted(answers.items()))},"
        f" the longest took {longest_s:.1f} s; grown by {grown // 2**20} MiB.",
        flush=True,
    )
    tally.differences += odd
    if len(stage.accepted) != fitting:
        tally.differences.append(f"{len(stage.accepted)} were accepted, the budget is for {fitting}")
    if tally.delivered != len(stage.accepted):
        tally.differences.append(f"{len(stage.accepted) - tally.delivered} videos did not outlive the flood")
    if grown > GROWTH_MAX_BYTES:
        tally.differences.append(f"the server has grown by {grown // 2**20} MiB")
    return tally


async def _rush(stage: Revived, crowd: int) -> tuple[Counter[int], list[str], float]:
    """Answers by status, those that no answer may be, and the longest wait for one."""
    answers, odd, longest_s = Counter[int](), list[str](), 0.0
    orders = iter([Order(name=f"crowd-{number}") for number in range(crowd)])
    headers, tls = dict(stage.client.headers), ssl.create_default_context()

    async def be_one_of_them() -> None:
        nonlocal longest_s
        # A client for each: looking for a free one among all connections would take longer than the answer.
        async with httpx.AsyncClient(
            base_url=stage.client.base_url, headers=headers, trust_env=False, timeout=60, verify=tls
        ) as client:
            for order in orders:
                asked_at = time.monotonic()
                key = {"idempotency-key": order.name}
                answer = await client.post("/v1/videos", json=order.body, headers=key)
                longest_s = max(longest_s, time.monotonic() - asked_at)
                answers[answer.status_code] += 1
                if answer.status_code == 200:
                    stage.accepted[answer.json()["id"]] = order
                elif not _is_fair_refusal(answer):
                    odd.append(f"answered {answer.status_code}, retry-after {answer.headers.get('retry-after')}")

    await asyncio.gather(*(be_one_of_them() for _ in range(CONNECTIONS)))
    return answers, odd, longest_s


def _is_fair_refusal(answer: httpx.Response) -> bool:
    """Whether it says when to come back, or that there is no money for it."""
    if answer.status_code == 429 and answer.json()["error"]["code"] == "insufficient_quota":
        return str(answer.headers.get("x-should-retry")) == "false"
    return answer.status_code in {429, 503} and 1 <= int(answer.headers.get("retry-after", "0")) <= 60


def _held_bytes(stage: Revived) -> int:
    """Memory of the server."""
    assert stage.one is not None
    status = Path(f"/proc/{stage.one.pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS:"))


async def torture(folder: Path, engine: str) -> list[Tally]:
    """Every outage, half of them beside the others, and then the flood."""

    async def meet_some(number: int) -> list[Tally]:
        async with AsyncExitStack() as stack:
            stage = Revived(folder / f"lane-{number}", stack)
            await stage.start_sellers(speed=SPEED)
            return [
                await meet(stage, folder / f"outage-{number}-{place}", engine, outage)
                for place, outage in enumerate(OUTAGES[number::LANES])
            ]

    met = await asyncio.gather(*(meet_some(number) for number in range(LANES)))
    async with AsyncExitStack() as stack:
        stage = Revived(folder, stack)
        await stage.start_sellers(speed=SPEED)
        return [*(tally for some in met for tally in some), await flood(stage, folder / "flood", engine)]
