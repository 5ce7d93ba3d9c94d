"""No more is under way than may be, however many ask at once; on both engines."""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from proxy.core.errors import RateLimited
from proxy.core.tenant import SCOPES, Caller
from proxy.core.video import Ask
from proxy.services.accounts import KeyChange, KeyWish, Registrar, TenantChange
from proxy.services.allowances import BudgetWish, Treasurer
from proxy.services.intake import Accepted, accept
from proxy.services.limits import Full
from proxy.store import budgets, videos
from tests.services.rehearsal import TENANT, FalOrder, Rehearsal


class Office:
    """Callers of one tenant, whose limits are set as an operator would."""

    def __init__(self, house: Rehearsal) -> None:
        self.house = house
        inside = house.house
        self.registrar = Registrar(inside.store, inside.secrets, house.clock, inside.new_id)
        self.tenant = TENANT

    async def bound(self, most: int | None) -> None:
        """The tenant's limit."""
        self.tenant = await self.registrar.change_tenant("cli", TENANT.id, TenantChange(videos_in_flight=most))

    async def key(self, most: int | None) -> Caller:
        """A new key with that limit."""
        made = await self.registrar.create_key("cli", KeyWish(tenant=TENANT.id, videos_in_flight=most))
        return self.caller(made.row.id, most)

    def caller(self, key: str = "key_1", most: int | None = None) -> Caller:
        """As a server that has just looked knows it."""
        return Caller(tenant=self.tenant, key_id=key, scopes=frozenset(SCOPES), budgeted=True, videos_in_flight=most)

    async def ask(self, caller: Caller | None = None, *, key: str | None = None, **wish: Any) -> Accepted | RateLimited:
        body = Ask(**{"prompt": "a paper boat", "seconds": 4, **wish})
        try:
            return await accept(self.house.house, caller or self.caller(), body, fingerprint="f", idempotency_key=key)
        except RateLimited as exc:
            return exc

    async def ask_many(self, times: int, caller: Caller | None = None) -> int:
        """How many of so many at once were accepted."""
        return len(accepted(await asyncio.gather(*(self.ask(caller) for _ in range(times)))))

    async def live(self) -> list[str]:
        return [name for name, _ in await self.house.house.store.read(videos.live_ids)]

    def refused(self, reason: str) -> float:
        return self.house.metric("reelay_rate_limited_total", tenant="other", reason=reason)


def accepted(answers: Sequence[Accepted | RateLimited]) -> list[Accepted]:
    return [answer for answer in answers if isinstance(answer, Accepted)]


@pytest.fixture
def office(house: Rehearsal) -> Office:
    return Office(house)


async def test_of_many_at_once_as_many_are_accepted_as_may_be_under_way(office: Office) -> None:
    await office.bound(3)
    assert await office.ask_many(20) == 3
    assert await office.ask_many(5) == 0
    assert len(await office.live()) == 3
    assert office.refused("tenant_in_flight") == 22


async def test_each_that_ends_makes_room_for_one(office: Office) -> None:
    await office.bound(2)
    assert await office.ask_many(4) == 2
    for video_id in await office.live():
        await office.house.cancel(video_id)
        assert await office.ask_many(3) == 1


async def test_limits_of_key_and_tenant_both_hold(office: Office) -> None:
    await office.bound(5)
    small, large, free = await office.key(2), await office.key(9), office.caller()
    assert await office.ask_many(6, small) == 2
    assert await office.ask_many(2, free) == 2
    assert await office.ask_many(6, large) == 1
    assert (office.refused("key_in_flight"), office.refused("tenant_in_flight")) == (4, 5)


async def test_refusal_says_whose_limit_it_is_and_about_when_to_come_back(office: Office) -> None:
    caller = await office.key(1)
    await office.ask(caller)
    refusal = await office.ask(caller)
    assert isinstance(refusal, RateLimited)
    assert str(refusal) == "This key may have 1 videos under way at once."
    assert refusal.limit is None
    assert refusal.retry_after_s > 0


@pytest.mark.parametrize(("limit", "expected_s", "told_s"), [(1, 90, 45), (7, 90, 12), (0, 50, 50), (99, 0.5, 1)])
def test_the_more_may_be_under_way_the_sooner_one_ends(limit: int, expected_s: float, told_s: int) -> None:
    assert Full(whose="key", limit=limit).retry_after_s(expected_s) == told_s


async def test_nothing_new_is_let_in_where_nothing_may_be_under_way(office: Office) -> None:
    assert await office.ask_many(2) == 2
    await office.bound(0)
    assert await office.ask_many(2) == 0
    assert len(await office.live()) == 2


async def test_limit_holds_as_it_is_and_not_as_a_server_knew_it_seconds_ago(office: Office) -> None:
    await office.bound(9)
    key, before = await office.key(9), office.caller()
    await office.bound(4)
    await office.registrar.change_key("cli", key.key_id, KeyChange(videos_in_flight=2))
    assert await office.ask_many(9, msgspec.structs.replace(key, tenant=before.tenant)) == 2
    assert await office.ask_many(9, before) == 2
    await office.bound(None)
    await office.registrar.change_key("cli", key.key_id, KeyChange(videos_in_flight=None))
    assert await office.ask_many(9, msgspec.structs.replace(key, tenant=before.tenant)) == 9


async def test_repeat_is_answered_however_many_are_under_way(office: Office) -> None:
    await office.bound(1)
    first = await office.ask(key="k")
    again = await office.ask(key="k")
    assert isinstance(first, Accepted)
    assert isinstance(again, Accepted)
    assert (again.video.id, again.fresh) == (first.video.id, False)
    assert isinstance(await office.ask(key="another"), RateLimited)


async def test_request_sent_twice_at_once_is_one_video_where_there_is_room_for_one(office: Office) -> None:
    await office.bound(1)
    answers = await asyncio.gather(*(office.ask(key="k") for _ in range(10)))
    assert len({one.video.id for one in accepted(answers)}) == 1
    assert len(accepted(answers)) == 10


async def test_refused_request_leaves_nothing_behind(office: Office, database: Any) -> None:
    await office.bound(0)
    wish = BudgetWish(tenant=TENANT.id, period="month", limit_usd="50")
    await Treasurer(office.house.house.store, office.house.clock, office.house.house.new_id).create("cli", wish)
    tables = ("videos", "work", "ledger_transactions", "ledger_postings", "idempotency", "end_users", "budget_counters")
    before = [database.rows(f"select * from {table}") for table in tables]  # noqa: S608  # the names stand above
    assert isinstance(await office.ask(key="k", end_user_id="ann"), RateLimited)
    assert [database.rows(f"select * from {table}") for table in tables] == before  # noqa: S608  # the same


async def test_limited_acceptances_ends_and_budgets_wait_for_nobody_in_a_circle(office: Office) -> None:
    house, order = office.house, FalOrder()
    house.answers(order)
    caller = await office.key(40)
    for number in range(10):
        order.seller_id = f"fal-{number}"
        await office.ask(caller, end_user_id=f"user-{number}")
        await house.settle()
    await office.bound(30)
    order.status = "COMPLETED"
    house.clock.move(60)
    claims = await house.claim()
    treasurer = Treasurer(house.house.store, house.clock, house.house.new_id)
    begun = asyncio.get_running_loop().time()
    bounded = msgspec.structs.replace(caller, tenant=office.tenant)
    asked = asyncio.gather(*(office.ask(bounded, end_user_id=f"user-{number}") for number in range(40)))
    await asyncio.gather(
        asked,
        *(
            treasurer.create("cli", BudgetWish(tenant=TENANT.id, scope=scope, period="month", limit_usd="900"))
            for scope in ("tenant", "each_end_user", "no_end_user")
        ),
        office.bound(25),
        office.registrar.change_key("cli", caller.key_id, KeyChange(videos_in_flight=30)),
        *(house.do(claim) for claim in claims),
    )
    assert asyncio.get_running_loop().time() - begun < 2.5  # a circle is broken after a second, one by one
    assert 15 <= len(accepted(await asked)) <= 30
    for key, used in await house.house.store.read(budgets.every_counter):
        spent = await house.house.store.write(lambda tx, key=key: budgets.spent(tx, key))  # type: ignore[misc]  # the default binds the loop's value
        assert used == spent, key
