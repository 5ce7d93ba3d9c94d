"""Random lives of videos: every door is tried in any order, and after each step the money has to be right."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from proxy.core.attempt import Attempt
from proxy.core.budget import Budget, BudgetScope, CounterKey, Period
from proxy.core.clock import DAY_US
from proxy.core.errors import (
    InsufficientQuota,
    Interrupted,
    InvalidValue,
    LeaseLost,
    NotFound,
    NotSent,
    RateLimited,
)
from proxy.core.money import usd_text
from proxy.core.tenant import SCOPES, Caller
from proxy.core.video import Ask
from proxy.core.wire import Call, Reply
from proxy.policy.budgets import applying, counter_of
from proxy.services.acts import Clerk
from proxy.services.allowances import BudgetChange, BudgetWish, Treasurer
from proxy.services.audit import go_through
from proxy.services.folding import fold
from proxy.services.intake import accept
from proxy.services.refunds import RefundWish, refund
from proxy.services.report import SpendLine, SpendQuery, spend
from proxy.services.resolve import Finding, resolve
from proxy.store import budgets, ledger, tenants, videos
from proxy.store.base import Tx
from proxy.store.videos import Video
from tests.databases import Database
from tests.services.rehearsal import TENANT, Rehearsal, rehearse, reply

T = TypeVar("T")

PRICES = {"fal": 1_213_600, "evolink": 794_000}
"""Micro-dollars for the four seconds that every film here has."""
USERS = (None, "ann", "bob")
KEYS = ("key_1", "key_2")

REFUSALS = {"throttled": 429, "no credit": 402, "bad input": 422, "full": 503}
LOSSES = {"lost on the way", "lost after it was taken", "broken after it was taken"}
ANSWERS = ("taken", *REFUSALS, "not connected", *LOSSES, "killed before", "killed after it was taken")
"""What can become of a submit."""


class KilledError(BaseException):
    """The process ends here; no code of ours gets to know."""


class Order(msgspec.Struct, kw_only=True):
    """What a seller has in its books."""

    provider: str
    video_id: str
    number: int
    state: str = "running"


class Sellers:
    """Fal and EvoLink, who do as they are told."""

    def __init__(self, whose: Callable[[str], Awaitable[tuple[str, int]]]) -> None:
        self.orders: dict[str, Order] = {}
        self.next: list[str] = []
        """What becomes of the submits to come; without it they are taken."""
        self._whose = whose

    async def __call__(self, provider: str, call: Call) -> Reply:
        if call.method == "POST":
            return await self._submitted(provider, call)
        if call.method == "PUT":
            return reply(202, {"status": "CANCELLATION_REQUESTED"})
        order_id = next(part for part in call.path.split("/") if part in self.orders)
        return self._shown(provider, order_id, call.path)

    async def _submitted(self, provider: str, call: Call) -> Reply:
        what = self.next.pop(0) if self.next else "taken"
        if what in REFUSALS:
            return reply(REFUSALS[what], {"detail": what, "error": {"message": what}})
        if what == "not connected":
            raise NotSent(what)
        if what == "killed before":
            raise KilledError
        if what == "lost on the way":
            raise Interrupted(what)
        order_id = f"{provider}-{len(self.orders) + 1}"
        video_id, number = await self._whose(msgspec.json.decode(call.body or b"{}")["prompt"])
        self.orders[order_id] = Order(provider=provider, video_id=video_id, number=number)
        if what == "killed after it was taken":
            raise KilledError
        if what == "lost after it was taken":
            raise Interrupted(what)
        if what == "broken after it was taken":
            return reply(502, "bad gateway")
        return reply(200, {"request_id": order_id} if provider == "fal" else {"id": order_id})

    def _shown(self, provider: str, order_id: str, path: str) -> Reply:
        state, link = self.orders[order_id].state, "https://files.example/film.mp4"
        if provider == "evolink":
            status = {"running": "processing", "done": "completed", "failed": "failed"}[state]
            task: dict[str, Any] = {"id": order_id, "status": status, "results": [link] if state == "done" else None}
            return reply(200, task | ({"error": {"code": "broken", "message": "no film"}} if state == "failed" else {}))
        if path.endswith("/status"):
            return reply(200, {"status": "IN_PROGRESS" if state == "running" else "COMPLETED"})
        if state == "failed":
            return reply(422, {"detail": [{"type": "generation_error", "msg": "no film"}]})
        return reply(200, {"video": {"url": link}, "seed": 1})

    def took(self) -> dict[str, int]:
        """Provider to the micro-dollars that it bills."""
        bills = dict.fromkeys(PRICES, 0)
        for order in self.orders.values():
            bills[order.provider] += PRICES[order.provider] if order.state == "done" else 0
        return bills


class Lives(RuleBasedStateMachine):
    """One house and all that can happen to it."""

    database: Database
    film: bytes
    on_unknown = "wait"
    billed = False

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._stack = contextlib.ExitStack()
        """Closed last of all."""
        self._doors = contextlib.AsyncExitStack()
        self.videos: list[str] = []
        self.tenant = TENANT

    async def whose(self, prompt: str) -> tuple[str, int]:
        """Which send an order is."""
        video_id = self.videos[int(prompt)]
        [sending] = [one for one in await self.house.attempts(video_id) if one.state == "sending"]
        return video_id, sending.number

    def run(self, work: Awaitable[T]) -> T:
        async def whole() -> T:
            return await work

        return self._runner.run(whole())

    @initialize()
    def open(self) -> None:
        rehearsed = rehearse(
            self.database, self.film, order=("fal", "evolink"),
            rule={"bill_failed_attempts": self.billed}, on_unknown=self.on_unknown,
        )  # fmt: skip
        self.house: Rehearsal = self.run(self._doors.enter_async_context(rehearsed))
        self.sellers = Sellers(self.whose)
        self.house.answers(self.sellers)
        self.treasurer = Treasurer(self.house.house.store, self.house.clock, self.house.house.new_id)

    def teardown(self) -> None:
        try:
            if hasattr(self, "house"):
                self.end()
        finally:
            self.run(self._doors.aclose())
            self._runner.close()
            self._stack.close()

    # What happens

    @rule(user=st.sampled_from(USERS), key=st.sampled_from(KEYS), sends=st.lists(st.sampled_from(ANSWERS), max_size=2))
    def ask(self, user: str | None, key: str, sends: list[str]) -> None:
        caller = Caller(tenant=self.tenant, key_id=key, scopes=frozenset(SCOPES), budgeted=True)
        wish = Ask(prompt=str(len(self.videos)), seconds=4, end_user_id=user)
        self.sellers.next += sends
        try:
            accepted = self.run(accept(self.house.house, caller, wish, fingerprint="f"))
        except InsufficientQuota:
            return
        except RateLimited:
            assert self.under_way() >= (self.tenant.videos_in_flight or 0)
            return
        self.videos.append(accepted.video.id)
        assert self.tenant.videos_in_flight is None or self.under_way() <= self.tenant.videos_in_flight
        self.no_budget_is_passed(accepted.video)

    @rule()
    def work(self) -> None:
        for claim in self.run(self.house.claim()):
            try:
                self.run(self.house.do(claim))
            except LeaseLost:
                continue
            except KilledError:
                self.run(self.house.restart())
                return

    @rule()
    def claim_and_die(self) -> None:
        self.run(self.house.claim())
        self.run(self.house.restart())

    @rule(seconds=st.sampled_from([1, 5, 30, 120, 600, 1500]))
    def wait(self, seconds: int) -> None:
        self.house.clock.move(seconds)

    @precondition(lambda self: self.videos)
    @rule(data=st.data(), state=st.sampled_from(["done", "done", "failed"]))
    def finish(self, data: st.DataObject, state: str) -> None:
        running = [order for order in self.sellers.orders.values() if order.state == "running"]
        if running:
            data.draw(st.sampled_from(running)).state = state

    @precondition(lambda self: self.videos)
    @rule(data=st.data())
    def call_back(self, data: st.DataObject) -> None:
        if self.sellers.orders:
            self.called_back(data.draw(st.sampled_from(sorted(self.sellers.orders))))

    def called_back(self, order_id: str) -> None:
        order = self.sellers.orders[order_id]
        body = {"request_id": order_id, "status": "OK"} if order.provider == "fal" else {"id": order_id}
        self.run(self.house.call_back(order.video_id, order.number, body))

    @precondition(lambda self: self.videos)
    @rule(data=st.data(), how=st.sampled_from(["cancel", "delete"]))
    def stop(self, data: st.DataObject, how: str) -> None:
        video_id = data.draw(st.sampled_from(self.videos))
        self.run(self.house.cancel(video_id) if how == "cancel" else self.house.delete(video_id))

    @precondition(lambda self: self.videos)
    @rule(data=st.data(), microusd=st.integers(1, 1_300_000))
    def give_back(self, data: st.DataObject, microusd: int) -> None:
        video_id = data.draw(st.sampled_from(self.videos))
        wish = RefundWish(amount_usd=usd_text(microusd), reason="flickers")
        clerk = Clerk(self.house.clock, self.house.house.new_id)
        with contextlib.suppress(NotFound, InvalidValue):
            self.run(refund(self.house.house.store, clerk, actor="key_7", video_id=video_id, wish=wish))

    @rule()
    def fold(self) -> None:
        self.run(fold(self.house.house.store))

    @precondition(lambda self: self.videos)
    @rule(data=st.data())
    def find_out(self, data: st.DataObject) -> None:
        unclear = self.unclear()
        if unclear:
            self.resolved(data.draw(st.sampled_from(unclear)))

    def unclear(self) -> list[Attempt]:
        every = [one for video_id in self.videos for one in self.run(self.house.attempts(video_id))]
        return [one for one in every if one.state in {"unknown", "lost"}]

    def resolved(self, attempt: Attempt) -> None:
        """As the seller's books have it."""
        place = attempt.video_id, attempt.number
        mine = [name for name, one in self.sellers.orders.items() if (one.video_id, one.number) == place]
        finding = Finding(bought=bool(mine), seller_id=mine[0] if mine else None, reason="the seller's books")
        store, new_id = self.house.house.store, self.house.house.new_id
        self.run(resolve(store, new_id, actor="key_7", video_id=place[0], number=place[1], finding=finding))

    @rule(
        scope=st.sampled_from(["tenant", "key", "end_user", "each_end_user", "no_end_user"]),
        period=st.sampled_from(["day", "month", "total"]),
        videos=st.integers(0, 6),
        shadow=st.booleans(),
    )
    def allot(self, scope: BudgetScope, period: Period, videos: int, shadow: bool) -> None:
        wish = BudgetWish(
            tenant=TENANT.id,
            scope=scope,
            end_user_id="ann" if scope == "end_user" else None,
            period=period,
            limit_usd=usd_text(videos * PRICES["fal"]),
            shadow=shadow,
            warn_at=("0.5",),
        )
        if scope == "key":
            return  # the house of a rehearsal knows no keys; the counter of one is like the others
        with contextlib.suppress(InvalidValue):  # there is one like it
            self.run(self.treasurer.create("key_7", wish))

    @rule(data=st.data(), videos=st.integers(0, 8), raised=st.booleans())
    def change(self, data: st.DataObject, videos: int, raised: bool) -> None:
        every = self.budgets()
        if not every:
            return
        budget, limit = data.draw(st.sampled_from(every)), usd_text(videos * PRICES["evolink"])
        until_s = self.house.clock.now_us // 10**6 + 600
        wish = BudgetChange(raise_usd=limit, raise_until=until_s) if raised else BudgetChange(limit_usd=limit)
        self.run(self.treasurer.change("key_7", budget.id, wish))

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        every = self.budgets()
        if every:
            self.run(self.treasurer.remove("key_7", data.draw(st.sampled_from(every)).id))

    @rule(most=st.sampled_from([None, None, 0, 1, 2, 4]))
    def bound(self, most: int | None) -> None:
        self.tenant = msgspec.structs.replace(TENANT, videos_in_flight=most)
        self.run(self.house.house.store.write(lambda tx: tenants.save_tenant(tx, self.tenant)))

    def under_way(self) -> int:
        return len(self.run(self.house.house.store.read(videos.live_ids)))

    def budgets(self) -> list[Budget]:
        return self.run(self.house.house.store.read(budgets.every))

    # What is always true

    def no_budget_is_passed(self, video: Video) -> None:
        def unit(tx: Tx) -> list[tuple[Budget, int]]:
            those = applying(budgets.of_tenant(tx, TENANT.id), key_id=video.key_id, end_user=video.end_user)
            keys = {one.id: counter_of(one, end_user=video.end_user, at_us=video.created_at) for one in those}
            return [(one, budgets.used(tx, [keys[one.id]])[keys[one.id]]) for one in those]

        for budget, used in self.run(self.house.house.store.read(unit)):
            assert budget.shadow or used <= budget.limit_at(self.house.clock.now_us), budget

    @invariant()
    def books_are_right(self) -> None:
        if not hasattr(self, "house"):
            return
        balances = self.run(self.house.balances())
        self.counters_are_what_the_videos_say()
        self.report_is_the_ledger(balances)
        for video_id in self.videos:
            self.charged_once_and_within_its_hold(video_id)

    def counters_are_what_the_videos_say(self) -> None:
        def unit(tx: Tx) -> list[tuple[CounterKey, int, int]]:
            return [(key, used, budgets.spent(tx, key)) for key, used in budgets.every_counter(tx)]

        for key, used, spent in self.run(self.house.house.store.write(unit)):
            assert used == spent, (key, used, spent)

    def report_is_the_ledger(self, balances: dict[str, int]) -> None:
        spent = balances.get(f"tenant:{TENANT.id}:spend", 0)
        absorbed = sum(amount for account, amount in balances.items() if account.startswith("absorbed:"))
        payable = -sum(amount for account, amount in balances.items() if account.endswith(":payable"))
        held = balances.get(f"tenant:{TENANT.id}:held", 0)
        for groups in ((), ("end_user", "provider"), ("metadata.none", "day")):
            query = SpendQuery(groups=groups, start=0, end=10**6 * DAY_US, tenant_id=TENANT.id)
            lines = self.run(spend(self.house.house.store, query)).lines

            def told(column: str, lines: list[SpendLine] = lines) -> int:
                return sum(int(getattr(line, column).replace(".", "")) for line in lines)

            assert told("charged_usd") - told("refunded_usd") == spent
            assert (told("absorbed_usd"), told("seller_usd"), told("held_usd")) == (absorbed, payable, held)

    def charged_once_and_within_its_hold(self, video_id: str) -> None:
        video, attempts = self.run(self.house.video(video_id)), self.run(self.house.attempts(video_id))
        assert (video.charged_microusd or 0) <= video.hold_microusd
        if video.live:
            assert video.hold == "held"
        elif video.hold == "held":
            # Cancelled, and something may still be billed for it.
            assert video.error_code == "cancelled"
            assert any(one.open for one in attempts) or self.run(self.house.rows_of_work(video_id))
        if video.status == "completed":
            assert video.hold == "posted"

    def end(self) -> None:
        """Every order comes to its end and every doubt is cleared: the sellers' books are ours."""
        self.sellers.next.clear()
        for order in self.sellers.orders.values():
            order.state = "done" if order.state == "running" else order.state
        for _ in range(6):
            for order_id in self.sellers.orders:
                self.called_back(order_id)
            for attempt in self.unclear():
                self.resolved(attempt)
            for order in self.sellers.orders.values():
                order.state = "done" if order.state == "running" else order.state
            self.run(self.house.run(600, step_s=60))
        self.books_are_right()
        for video_id in self.videos:
            video = self.run(self.house.video(video_id))
            assert not video.live
            assert video.hold != "held"
        balances = self.run(self.house.balances())
        ours = {name: -balances.get(f"provider:{name}:payable", 0) for name in PRICES}
        assert ours == self.sellers.took()
        assert self.run(self.house.house.store.read(ledger.held_by_videos))[TENANT.id] == 0
        assert self.run(self.house.house.store.read(videos.live_counts)) == []
        assert self.run(go_through(self.house.house.store)).doubts == ()
