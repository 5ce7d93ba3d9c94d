"""An outage at a seller is not met by a storm, and whatever it stopped goes on soon after."""

import asyncio
from pathlib import Path

import msgspec

from proxy.core.wire import Call, Reply
from proxy.policy.retries import FLOOR, LENGTH_US, SHARE
from proxy.services import retrying
from proxy.services.lanes import usher
from proxy.services.retrying import Retrying
from tests.databases import Database
from tests.services.rehearsal import Clock, FalOrder, Rehearsal, rehearse, reply

MANY = 3 * FLOOR


class Throttling:
    """fal, which takes no order while it is busy, and answers no poll while it is broken."""

    def __init__(self) -> None:
        self.busy = self.broken = False
        self.submits = self.polls = 0

    async def __call__(self, provider: str, call: Call) -> Reply:
        if call.method == "POST":
            self.submits += 1
            return reply(429) if self.busy else reply(200, {"request_id": f"fal-{self.submits}"})
        self.polls += 1
        if self.broken:
            return reply(500)
        order = FalOrder()
        order.status = "COMPLETED"
        return await order(provider, call)


async def let_pass(house: Rehearsal, seconds: int) -> None:
    """As the worker does it: whoever may go is called all the time."""
    for _ in range(seconds):
        await usher(house.house)
        await house.run(1)


async def states(house: Rehearsal, ids: list[str]) -> set[str]:
    return {(await house.video(one)).status for one in ids}


async def test_throttled_seller_is_asked_again_by_few_and_then_by_all(database: Database, film: bytes) -> None:
    async with rehearse(database, film, order=("fal",)) as house:
        seller = Throttling()
        seller.busy = True
        house.answers(seller)
        ids = [await house.accept() for _ in range(MANY)]
        await house.settle()
        assert seller.submits == MANY, "what is new is asked at once"
        await let_pass(house, 30)
        assert MANY < seller.submits <= MANY + MANY // SHARE + 4 * FLOOR
        put_off = house.metric("reelay_retries_put_off_total", provider="fal", operation="submit")
        assert put_off >= MANY - FLOOR - MANY // SHARE
        assert await states(house, ids) == {"queued"}, "to wait is not to fail"
        seller.busy = False
        await let_pass(house, 40)
        assert await states(house, ids) == {"completed"}


async def test_video_that_may_not_ask_again_goes_on_to_who_was_not_asked_yet(database: Database, film: bytes) -> None:
    """The first was throttled, the second takes it; nobody waits for leave where somebody else can be asked."""
    async with rehearse(database, film, order=("fal", "runflow")) as house:
        seller = Throttling()
        seller.busy = True

        async def script(provider: str, call: Call) -> Reply:
            if provider == "fal":
                return await seller(provider, call)
            if call.method == "POST":
                return reply(201, {"id": f"run-{len(house.transport.calls)}", "status_code": "queued"})
            return reply(200, {"id": call.path.rpartition("/")[2], "status_code": "running"})

        house.answers(script)
        ids = [await house.accept() for _ in range(MANY)]
        await house.settle()
        assert seller.submits == MANY
        assert await states(house, ids) == {"in_progress"}
        assert house.metric("reelay_retries_put_off_total", provider="fal", operation="submit") == 0


async def test_deadline_ends_a_video_that_waits_for_leave_to_ask_again(database: Database, film: bytes) -> None:
    async with rehearse(database, film, order=("fal",), deadline_s=60) as house:
        seller = Throttling()
        seller.busy = True
        house.answers(seller)
        ids = [await house.accept() for _ in range(MANY)]
        await let_pass(house, 61)
        assert await states(house, ids) == {"failed"}
        assert await house.balances() == {}


async def test_polls_without_an_answer_are_repeated_by_few_and_then_by_all(database: Database, film: bytes) -> None:
    async with rehearse(database, film, order=("fal",)) as house:
        seller = Throttling()
        seller.broken = True
        house.answers(seller)
        ids = [await house.accept() for _ in range(MANY)]
        await let_pass(house, 30)
        assert MANY < seller.polls <= MANY + MANY // SHARE + 4 * FLOOR
        assert house.metric("reelay_retries_put_off_total", provider="fal", operation="poll") > MANY
        assert await states(house, ids) == {"in_progress"}
        seller.broken = False
        await let_pass(house, 40)
        assert await states(house, ids) == {"completed"}


async def test_only_one_of_many_that_wait_for_a_seller_finds_out_whether_it_is_well(
    tmp_path: Path, film: bytes
) -> None:
    async with rehearse(tmp_path, film, order=("fal",)) as house:
        asked = 0

        async def script(provider: str, call: Call) -> Reply:
            nonlocal asked
            asked += 1
            assert (provider, call.method) == ("fal", "POST")
            return reply(503)

        house.answers(script)
        rules = house.house.rules
        fal = msgspec.structs.replace(rules.accounts["fal"], breaker=True)
        house.house.rules = msgspec.structs.replace(rules, accounts={**rules.accounts, "fal": fal})
        for _ in range(MANY):
            await house.accept()
        await house.settle()
        assert asked == 5, "so many open the breaker"
        house.clock.move(12)
        claims = await house.claim()
        assert len(claims) == MANY
        # All in one turn, as the worker begins them.
        async with asyncio.TaskGroup() as group:
            for claim in claims:
                group.create_task(house.do(claim))
        assert asked == 6


def test_questions_without_an_answer_are_remembered_up_to_a_bound() -> None:
    clock = Clock()
    asking = Retrying(clock)
    for number in range(retrying.REMEMBERED + 1):
        asking.heard_about(("video", number), "fal", "poll", well=False)
    for _ in range(FLOOR):
        assert asking.take_about(("video", 5), "fal", "poll")
    assert not asking.take_about(("video", 5), "fal", "poll"), "it was asked before"
    assert asking.take_about(("video", 0), "fal", "poll"), "the oldest was forgotten"
    clock.move(LENGTH_US / 10**6)
    assert asking.take_about(("video", 5), "fal", "poll")
