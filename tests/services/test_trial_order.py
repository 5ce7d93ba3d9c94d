"""One paid order: sent once whatever happens, followed to its end, and told plainly."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from proxy.catalog import read_catalog
from proxy.core.attempt import Accepted
from proxy.core.errors import ConfigError, Interrupted, NotSent
from proxy.core.wire import Call, Reply
from proxy.outside.assets import FileUnavailable
from proxy.policy.rules import Rules, load_rules
from proxy.providers.registry import load_adapters
from proxy.providers.runflow_legacy import RunflowLegacy
from proxy.services.doctor import Seller
from proxy.services.trial_order import Ended, Purchase, buy_once, cheapest
from tests.services.rehearsal import (
    START_US,
    Blocking,
    FalOrder,
    Hasty,
    Script,
    ScriptedFetcher,
    ScriptedTransport,
    reply,
)
from tests.whole.stage import PLAY_KEYS, SELLERS, make_rules


def rules(change: dict[str, Any] | None = None, **offer: Any) -> Rules:
    written = make_rules(dict.fromkeys(SELLERS, "http://127.0.0.1:1"), speed=1.0, deadline_s=60, **offer)
    written["providers"]["fal"].update(change or {})
    written["providers"]["runflow-legacy"] = {"adapter": "runflow-legacy", "api_key": "${RUNFLOW_API_KEY}"}
    adapters = {name: adapter.base_url for name, adapter in load_adapters().items()}
    return load_rules(
        yaml.safe_dump(written).encode(), file="rules", env=PLAY_KEYS, adapters=adapters, catalog=read_catalog()
    )


class Visit(msgspec.Struct, kw_only=True):
    """A seller by script, and what was said about the order there."""

    seller: Seller
    transport: ScriptedTransport
    fetcher: ScriptedFetcher
    purchase: Purchase
    told: list[str] = msgspec.field(default_factory=list)
    slept_s: list[float] = msgspec.field(default_factory=list)

    async def buy(self, script: Script, out: Path | None = None) -> Ended:
        self.transport.script = script

        async def sleep(seconds: float) -> None:
            self.slept_s.append(seconds)

        return await buy_once(
            self.seller, self.purchase, client_ref="ref-1", out=out, tell=self.told.append, sleep=sleep
        )

    @property
    def submits(self) -> int:
        return sum(1 for _, method, _ in self.transport.calls if method == "POST")


async def open_visit(provider: str, film: bytes) -> AsyncIterator[Visit]:
    known = rules()
    account = known.accounts[provider]
    transport, fetcher = ScriptedTransport(FalOrder()), ScriptedFetcher(film)
    seller = Seller(account=account, adapter=load_adapters()[account.adapter], transport=transport, fetcher=fetcher)
    yield Visit(seller=seller, transport=transport, fetcher=fetcher, purchase=cheapest(known, provider, START_US))
    await transport.close()
    await fetcher.close()


@pytest.fixture
async def fal(film: bytes) -> AsyncIterator[Visit]:
    """Cannot be asked for a lost order."""
    async for visit in open_visit("fal", film):
        yield visit


@pytest.fixture
async def runflow(film: bytes) -> AsyncIterator[Visit]:
    """Can be."""
    async for visit in open_visit("runflow", film):
        yield visit


@pytest.fixture
async def blocking(film: bytes) -> AsyncIterator[Visit]:
    """Answers with the film, and can be asked nothing."""
    async for visit in open_visit("runflow-legacy", film):
        yield visit


# What is bought


def test_cheapest_offer_is_taken_at_its_smallest_size() -> None:
    found = cheapest(rules(), "evolink", START_US)
    assert (found.offer.tier, found.spec.resolution, found.spec.seconds) == ("mini", "480p", 4)
    assert (found.price_microusd, found.at_most_microusd) == (150_400, 188_000)
    printed = cheapest(rules(), "shortapi", START_US)
    assert (printed.offer.tier, printed.price_microusd, printed.at_most_microusd) == ("fast", 800_000, 800_000)


def test_discount_counts() -> None:
    assert cheapest(rules({"discount": "0.5"}), "fal", START_US).price_microusd == 225_000


def test_offer_that_knows_no_common_ratio_or_length_gets_its_own() -> None:
    spec = cheapest(rules(aspect_ratios=["1:1"], min_seconds=6), "fal", START_US).spec
    assert (spec.aspect_ratio, spec.seconds) == ("1:1", 6)


def test_provider_that_is_unknown_or_sells_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="there is no provider 'nobody'; there are: "):
        cheapest(rules(), "nobody", START_US)
    with pytest.raises(ConfigError, match="the provider fal has no offer of text-to-video with a price"):
        cheapest(rules(prices=[]), "fal", START_US)


# How it goes


async def test_good_order_is_followed_to_its_film(fal: Visit, tmp_path: Path) -> None:
    order = FalOrder()

    async def later(provider: str, call: Call) -> Reply:
        if call.path.endswith("/status") and len(fal.slept_s) > 2:
            order.status = "COMPLETED"
        return await order(provider, call)

    ended = await fal.buy(later, tmp_path / "film.mp4")
    assert (ended.word, ended.sentence) == ("delivered", "The film is here.")
    assert fal.told == ["Taken as fal-1.", "The order is running.", "The film is ready; fetching it."]
    assert ended.trial.clip is not None
    assert (ended.trial.clip.duration_ms, ended.trial.clip.width_px) == (4042, 1280)
    assert len(ended.trial.links) == 2
    assert (tmp_path / "film.mp4").read_bytes() == fal.fetcher.film
    assert [one.step for one in ended.trial.exchanges] == [
        "create", "early", "stranger", "poll", "poll", "poll", "file", "file",
    ]  # fmt: skip
    assert fal.submits == 1


@pytest.mark.parametrize(
    "answer", [reply(401, {"detail": "no such key"}), reply(429, {"detail": "slow down"}), NotSent("no connection")]
)
async def test_order_that_is_refused_buys_nothing_and_is_not_repeated(fal: Visit, answer: Reply | NotSent) -> None:
    async def refuses(_: str, __: Call) -> Reply:
        if isinstance(answer, NotSent):
            raise answer
        return answer

    ended = await fal.buy(refuses)
    assert ended.word == "not bought"
    assert ended.sentence.endswith("Nothing was bought.")
    assert ended.trial.exchanges == ()
    assert fal.submits == 1


@pytest.mark.parametrize("answer", [reply(500, None), reply(200, {"status": "IN_QUEUE"}), Interrupted("reset")])
async def test_unknown_end_is_told_with_its_price_and_never_sent_again(fal: Visit, answer: Reply | Interrupted) -> None:
    async def vanishes(_: str, __: Call) -> Reply:
        if isinstance(answer, Interrupted):
            raise answer
        return answer

    ended = await fal.buy(vanishes)
    assert ended.word == "unknown"
    assert "it may have cost up to $0.562500, and it is not sent again" in ended.sentence
    assert fal.told[0].startswith("No clear answer to the order: ")
    assert len(fal.transport.calls) == fal.submits == 1


async def test_lost_order_is_looked_for_where_the_seller_can_be_asked(runflow: Visit) -> None:
    async def lost(_: str, call: Call) -> Reply:
        if call.method == "POST":
            raise Interrupted("reset")
        if call.path == "/v1/runs" and len(runflow.slept_s) == 2:
            return reply(200, {"items": [{"id": "run-1", "client_ref": "ref-1"}]})
        if call.path == "/v1/runs":
            return reply(200, {"items": []}) if runflow.slept_s else reply(503, None)
        return reply(200, {"id": "run-1", "status_code": "failed", "failure_code": "MODEL_UNAVAILABLE"})

    ended = await runflow.buy(lost)
    assert runflow.told[1] == "Taken as run-1."
    assert runflow.slept_s[:2] == [5, 25]
    assert ended.word == "failed"
    assert "ended without a film (capacity)" in ended.sentence
    assert runflow.submits == 1


async def test_lost_order_that_is_never_found_stays_unknown(runflow: Visit) -> None:
    async def lost(_: str, call: Call) -> Reply:
        if call.method == "POST":
            raise Interrupted("reset")
        return reply(500, None) if len(runflow.slept_s) == 1 else reply(200, {"items": []})

    ended = await runflow.buy(lost)
    assert ended.word == "unknown"
    assert runflow.slept_s == [5, 25, 90]
    assert runflow.submits == 1


async def test_questions_that_go_unanswered_end_nothing(fal: Visit) -> None:
    order = FalOrder()
    order.status = "COMPLETED"

    async def deaf(provider: str, call: Call) -> Reply:
        if call.method == "GET" and len(fal.slept_s) < 3:
            if len(fal.slept_s) == 2:
                return reply(502, None)
            raise Interrupted("reset")
        return await order(provider, call)

    ended = await fal.buy(deaf)
    assert ended.word == "delivered"
    assert sum(line.startswith("No clear answer: ") for line in fal.told) == 2


async def test_result_that_turns_out_refused_is_a_failure(fal: Visit) -> None:
    order = FalOrder()
    order.status = "COMPLETED"

    async def refused_late(provider: str, call: Call) -> Reply:
        if call.method == "GET" and not call.path.endswith("/status"):
            return reply(422, {"detail": [{"type": "content_policy_violation", "msg": "flagged"}]})
        return await order(provider, call)

    ended = await fal.buy(refused_late)
    assert (ended.word, ended.trial.links) == ("failed", ())
    assert "moderation" in ended.sentence


async def test_order_that_is_answered_with_its_film_is_fetched_and_nobody_is_asked(blocking: Visit) -> None:
    ended = await blocking.buy(Blocking())
    assert ended.word == "delivered"
    assert blocking.told == ["Ordered; this seller answers when the film is made.", "The film is ready; fetching it."]
    assert [one.step for one in ended.trial.exchanges] == ["create"]
    assert (ended.trial.links, blocking.slept_s) == (("https://files.example/film.mp4",), [])
    assert len(blocking.transport.calls) == blocking.submits == 1


async def test_call_that_broke_is_told_as_unknown(blocking: Visit) -> None:
    seller = Blocking()
    seller.answer = reply(504, None)
    ended = await blocking.buy(seller)
    assert ended.word == "unknown"
    assert "it may have cost up to $0.703000, and it is not sent again" in ended.sentence


async def test_order_that_is_answered_with_its_film_is_fetched_also_where_orders_are_asked_about(fal: Visit) -> None:
    fal.seller = msgspec.structs.replace(fal.seller, adapter=Hasty())

    async def at_once(_: str, call: Call) -> Reply:
        assert call.method == "POST"
        return reply(200, {"video": {"url": "https://files.example/film.mp4"}})

    assert (await fal.buy(at_once)).word == "delivered"


async def test_order_that_was_taken_but_cannot_be_asked_about_is_told(blocking: Visit) -> None:
    class Promising(RunflowLegacy):
        def accepted(self, reply: Reply) -> Accepted:  # type: ignore[override]  # the contract forbids it
            return Accepted(seller_id=str(reply.status))

    blocking.seller = msgspec.structs.replace(blocking.seller, adapter=Promising())
    ended = await blocking.buy(Blocking())
    assert (ended.word, ended.sentence) == (
        "unfinished",
        "The order 200 cannot be asked about; it may cost up to $0.703000.",
    )


async def test_order_that_never_ends_is_left_with_what_it_may_cost(fal: Visit) -> None:
    ended = await fal.buy(FalOrder())
    assert ended.word == "unfinished"
    assert ended.sentence == "The order fal-1 still runs; it may yet cost up to $0.562500."
    assert 900 <= sum(fal.slept_s) < 910


async def test_film_that_cannot_be_fetched_was_most_likely_paid_for(fal: Visit) -> None:
    order = FalOrder()
    order.status = "COMPLETED"

    async def gone() -> None:
        raise FileUnavailable("files.example answers 404", status=404, retryable=True)

    fal.fetcher.before = gone
    ended = await fal.buy(order)
    assert ended.word == "not fetched"
    assert "most likely paid for, but not fetched: files.example answers 404" in ended.sentence
    assert ended.trial.clip is None


async def test_second_reading_that_fails_leaves_the_first_link(runflow: Visit) -> None:
    output = {"outputs": [{"url": "https://f.example/a"}]}
    done = {"id": "run-0000", "status_code": "succeeded", "cost": "0.45", "output": output}

    async def once(_: str, call: Call) -> Reply:
        if call.method == "POST":
            return reply(201, {"id": "run-0000"})
        if call.path == "/v1/runs":
            return reply(200, {"items": []})
        return reply(200, done) if len(runflow.slept_s) == 1 else reply(503, None)

    ended = await runflow.buy(once)
    assert ended.word == "delivered"
    assert ended.trial.links == ("https://f.example/a",)
    assert ("runflow", "GET", "/v1/runs/run-1111") in runflow.transport.calls


async def test_who_stops_it_is_told_that_the_order_goes_on(fal: Visit) -> None:
    async def forever(provider: str, call: Call) -> Reply:
        if call.path.endswith("/status"):
            await asyncio.Event().wait()
        return await FalOrder()(provider, call)

    buying = asyncio.create_task(fal.buy(forever))
    while not fal.told:
        await asyncio.sleep(0.001)
    buying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await buying
    assert "may cost up to $0.562500" in fal.told[-1]
