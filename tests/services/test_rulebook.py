"""Rules that are replaced between two steps of a video."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from proxy.core.account import Account
from proxy.core.errors import ConfigError
from proxy.core.video import RoutingWish
from proxy.core.wire import Call, Reply
from proxy.policy.rules import Rules
from proxy.services.dispatch import advance
from proxy.services.rulebook import reload
from proxy.services.vanished import mark_vanished
from proxy.store.base import Tx
from proxy.store.sqlite import SqliteStore
from tests.services.rehearsal import FalOrder, Rehearsal, nobody_answers, rehearse, reply

T = TypeVar("T")


def with_account(rules: Rules, name: str, **change: Any) -> Rules:
    account = msgspec.structs.replace(rules.accounts[name], **change)
    return msgspec.structs.replace(rules, accounts={**rules.accounts, name: account}, figures={})


def without(rules: Rules, name: str) -> Rules:
    """As if the file named this provider no more."""
    left: dict[str, Account] = {one: account for one, account in rules.accounts.items() if one != name}
    offers = {key: offer for key, offer in rules.offers.items() if offer.provider != name}
    return msgspec.structs.replace(rules, accounts=left, offers=offers, figures={})


async def put(house: Rehearsal, rules: Rules) -> str | None:
    """Why the rules were refused; None where they are in force."""
    done = await reload(house.house, lambda: rules)
    last = house.house.last_reload
    assert last is not None
    assert done is (last.error is None) is (house.house.rules is rules)
    assert house.metric("reelay_config_last_reload_success") == done
    return last.error


async def test_plan_made_under_the_old_rules_is_carried_out(house: Rehearsal) -> None:
    house.answers(FalOrder())
    video_id = await house.accept()
    rules = house.house.rules
    assert await put(house, msgspec.structs.replace(rules, offers={}, by_model={}, by_kind={}, figures={})) is None
    await house.settle()
    assert await house.states(video_id) == ["running"]


async def test_what_was_stated_is_ordered_though_the_offer_is_gone(house: Rehearsal) -> None:
    bodies: list[bytes] = []

    async def evolink(_: str, call: Call) -> Reply:
        bodies.append(call.body or b"")
        return reply(400, {"error": {"code": "invalid_request", "message": "no", "type": "x"}})

    house.answers(evolink)
    for stated in (True, None):
        await house.accept(web_search=stated, routing=RoutingWish(order=("evolink",), allow_fallbacks=False))
    await put(house, msgspec.structs.replace(house.house.rules, offers={}, figures={}))
    await house.settle()
    assert [b'"web_search":true' in body.replace(b" ", b"") for body in bodies] == [True, False]


async def test_provider_that_is_owed_may_not_go_and_one_that_is_not_may(house: Rehearsal) -> None:
    house.answers(FalOrder())
    await house.accept()
    await house.settle()
    rules = house.house.rules
    why = await put(house, without(rules, "fal"))
    assert why is not None
    assert why.startswith("attempts are still owed to fal, which the rules name no more")
    assert await put(house, without(rules, "evolink")) is None


async def test_provider_that_went_while_a_submit_was_due_is_not_sent_to(house: Rehearsal) -> None:
    house.answers(nobody_answers)
    video_id = await house.accept(routing=RoutingWish(order=("fal",)))
    assert await put(house, without(house.house.rules, "fal")) is None
    await house.settle()
    assert house.transport.calls == []
    (attempt,) = await house.attempts(video_id)
    assert (attempt.state, attempt.failure_kind, attempt.cost_microusd) == ("refused", "account", 0)


async def test_provider_switched_off_gets_no_new_submit_and_is_polled_on(house: Rehearsal) -> None:
    order = FalOrder()
    house.answers(order)
    runs = await house.accept()
    await house.settle()
    assert await put(house, with_account(house.house.rules, "fal", enabled=False)) is None
    waits = await house.accept(routing=RoutingWish(order=("runflow",)))
    order.status = "COMPLETED"
    await house.run(30)
    assert (await house.video(runs)).status == "completed"
    assert {call[0] for call in house.transport.calls} == {"fal", "runflow"}
    assert (await house.attempts(waits))[0].provider == "runflow"


class InterruptedStore(SqliteStore):
    """Has something happen right after the next commit, once."""

    then: Callable[[], None] | None = None

    async def write(self, unit: Callable[[Tx], T]) -> T:
        done = await super().write(unit)
        if self.then is not None:
            then, self.then = self.then, None
            then()
        return done


async def test_provider_switched_off_between_the_commit_and_the_submit_is_not_sent_to(
    tmp_path: Path, film: bytes
) -> None:
    async with rehearse(tmp_path, film, order=("fal",), store=InterruptedStore) as house:
        await house.accept()
        off = with_account(house.house.rules, "fal", enabled=False)
        (claim,) = await house.claim()
        assert isinstance(house.house.store, InterruptedStore)
        house.house.store.then = lambda: setattr(house.house, "rules", off)
        await advance(house.house, claim)
        assert house.transport.calls == []


async def test_provider_may_not_become_another_seller(house: Rehearsal) -> None:
    why = await put(house, with_account(house.house.rules, "fal", adapter="runflow"))
    assert why is not None
    assert why.startswith("the provider fal may not change its adapter from fal to runflow")


async def test_provider_that_comes_back_is_polled_for_what_it_owes(house: Rehearsal) -> None:
    order = FalOrder()
    house.answers(order)
    video_id = await house.accept()
    await house.settle()
    rules = house.house.rules
    house.house.rules = without(rules, "fal")
    await house.house.store.write(lambda tx: mark_vanished(tx, house.house.rules.accounts))
    assert await put(house, without(house.house.rules, "evolink")) is None, "what vanished before is no reason"
    order.status = "COMPLETED"
    assert await put(house, rules) is None
    await house.settle()
    assert (await house.video(video_id)).status == "completed"


async def test_reader_that_breaks_in_any_way_changes_nothing(house: Rehearsal) -> None:
    rules = house.house.rules

    def broken() -> Rules:
        raise ConfigError("rules.yaml:1:1: two\nlines")

    def very_broken() -> Rules:
        raise RecursionError("deep")

    for read, why in ((broken, "rules.yaml:1:1: two lines"), (very_broken, "the rules could not be read")):
        assert not await reload(house.house, read)
        assert house.house.last_reload is not None
        assert (house.house.last_reload.error, house.house.rules) == (why, rules)
