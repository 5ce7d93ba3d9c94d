"""A provider with `max_in_flight` gets no more at once, and who waits for it goes in turn between tenants."""

import contextlib
from collections.abc import AsyncIterator

import msgspec
import pytest

from proxy.core.errors import Interrupted
from proxy.core.tenant import Caller, Tenant
from proxy.core.video import Ask
from proxy.core.wire import Call, Reply
from proxy.services.intake import accept
from proxy.services.lanes import usher
from proxy.store import tenants
from tests.databases import Database
from tests.services.rehearsal import CALLER, START_US, Rehearsal, rehearse, reply

OTHER = Tenant(id="tenant_b", name="b", created_at=START_US)
MOST = 2


class Sellers:
    """fal and Runflow take every order, and render until they are told to finish."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, str]] = []
        self.finished: set[str] = set()

    async def __call__(self, provider: str, call: Call) -> Reply:
        if call.method == "POST":
            self.taken.append((provider, f"{provider}-{len(self.taken)}"))
            seller_id = self.taken[-1][1]
            fal = {"request_id": seller_id}
            return reply(200, fal) if provider == "fal" else reply(201, {"id": seller_id, "status_code": "queued"})
        seller_id = next(name for _, name in self.taken if name in call.path)
        if provider == "fal":
            return reply(200, {"status": "COMPLETED" if seller_id in self.finished else "IN_PROGRESS"} | (
                {} if call.path.endswith("/status") else {"video": {"url": "https://files.example/film.mp4"}}
            ))  # fmt: skip
        output = {"outputs": [{"url": "https://files.example/film.mp4", "type": "video"}]}
        ended = (
            {"status_code": "succeeded", "output": output} if seller_id in self.finished else {"status_code": "running"}
        )
        return reply(200, {"id": seller_id, **ended})

    def at(self, provider: str) -> int:
        return sum(1 for where, _ in self.taken if where == provider)


def _limit(house: Rehearsal, most: int | None) -> None:
    """Of fal, as a reload would change it."""
    rules = house.house.rules
    fal = msgspec.structs.replace(rules.accounts["fal"], max_in_flight=most)
    house.house.rules = msgspec.structs.replace(rules, accounts={**rules.accounts, "fal": fal})


@contextlib.asynccontextmanager
async def limited(
    database: Database, film: bytes, *, order: tuple[str, ...]
) -> AsyncIterator[tuple[Rehearsal, Sellers]]:
    """Fal takes two at once; two tenants."""
    async with rehearse(database, film, order=order) as house:
        _limit(house, MOST)
        await house.house.store.write(lambda tx: tenants.insert_tenant(tx, OTHER))
        sellers = Sellers()
        house.answers(sellers)
        yield house, sellers


async def ask(house: Rehearsal, tenant: Tenant = CALLER.tenant) -> str:
    caller = Caller(tenant=tenant, key_id="key", scopes=CALLER.scopes)
    accepted = await accept(house.house, caller, Ask(prompt="a paper boat", seconds=4), fingerprint="f")
    house.clock.move(0.001)
    return accepted.video.id


async def finish(house: Rehearsal, sellers: Sellers, seller_id: str) -> None:
    """A render ends, its film comes home, and whoever may go now is called."""
    sellers.finished.add(seller_id)
    await house.run(12)
    await usher(house.house)
    await house.settle()


async def test_no_more_than_so_many_are_there_at_once(database: Database, film: bytes) -> None:
    async with limited(database, film, order=("fal",)) as (house, sellers):
        ids = [await ask(house) for _ in range(5)]
        await house.settle()
        assert sellers.at("fal") == MOST
        for number in range(3):
            await finish(house, sellers, f"fal-{number}")
            assert sellers.at("fal") == MOST + number + 1
        assert [(await house.video(one)).status for one in ids] == ["completed"] * 3 + ["in_progress"] * 2


async def test_who_asks_for_much_keeps_nobody_out(database: Database, film: bytes) -> None:
    async with limited(database, film, order=("fal",)) as (house, sellers):
        for _ in range(6):
            await ask(house)
        modest = await ask(house, OTHER)
        await house.settle()
        assert await house.attempts(modest) == []
        await finish(house, sellers, "fal-0")
        assert len(await house.attempts(modest)) == 1


async def test_video_goes_elsewhere_where_another_offer_has_room(database: Database, film: bytes) -> None:
    async with limited(database, film, order=("fal", "runflow")) as (house, sellers):
        ids = [await ask(house) for _ in range(4)]
        await house.settle()
        assert (sellers.at("fal"), sellers.at("runflow")) == (MOST, 2)
        assert [[one.provider for one in await house.attempts(video_id)] for video_id in ids] == [
            ["fal"], ["fal"], ["runflow"], ["runflow"],
        ]  # fmt: skip


@pytest.mark.parametrize("end", ["cancel", "deadline"])
async def test_video_that_is_over_takes_nobodys_turn(database: Database, film: bytes, end: str) -> None:
    async with limited(database, film, order=("fal",)) as (house, sellers):
        for _ in range(MOST):
            await ask(house)
        await house.settle()
        gone = await ask(house)
        await house.settle()
        if end == "cancel":
            await house.cancel(gone)
        else:
            house.clock.move(1201)
        await house.settle()
        assert (await house.video(gone)).status == "failed"
        last = await ask(house)
        await house.settle()
        assert await house.attempts(last) == []
        await finish(house, sellers, "fal-0")
        assert len(await house.attempts(last)) == 1
        assert await house.attempts(gone) == []


async def test_video_that_needs_its_place_no_more_keeps_nobody_out(database: Database, film: bytes) -> None:
    """It waited for the limited one; then a callback told that the other had taken it after all."""
    async with rehearse(database, film, order=("runflow", "fal"), on_unknown="fallback") as house:
        _limit(house, 1)
        sellers = Sellers()
        lost = [True]

        async def script(provider: str, call: Call) -> Reply:
            if provider == "runflow" and call.method == "POST" and lost[0]:
                raise Interrupted("reset")
            if provider == "runflow" and "client_ref" in str(call.query):
                raise Interrupted("nobody answers that")
            return await sellers(provider, call)

        house.answers(script)
        there = await ask(house)
        await house.settle()
        waiting = await ask(house)
        await house.settle()
        assert await house.states(there) == ["unknown", "running"]
        assert await house.states(waiting) == ["unknown"]
        assert await house.call_back(waiting, 1, {"run_id": "runflow-9"})
        lost[0] = False
        sellers.taken.append(("runflow", "runflow-9"))
        await house.settle()
        assert await house.states(waiting) == ["running"]
        last = await ask(house)
        lost[0] = True
        await house.settle()
        await finish(house, sellers, "fal-0")
        # The first was called once more, and found that it waits for nothing here.
        await usher(house.house)
        await house.settle()
        assert await house.states(last) == ["unknown", "running"]


async def test_those_who_wait_go_when_the_limit_is_taken_away(database: Database, film: bytes) -> None:
    async with limited(database, film, order=("fal",)) as (house, sellers):
        for _ in range(MOST + 3):
            await ask(house)
        await house.settle()
        assert sellers.at("fal") == MOST
        _limit(house, None)
        await usher(house.house)
        await house.settle()
        assert sellers.at("fal") == MOST + 3
