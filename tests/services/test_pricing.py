"""Prices that operators set beside everything else, on both engines."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from proxy.core.errors import InvalidValue, MissingParameter, NotFound, Overloaded, RequestError
from proxy.core.offer import PriceOverride
from proxy.core.video import Ask
from proxy.services.intake import quote
from proxy.services.pricing import Appraiser, PriceWish, book, today
from proxy.services.rulebook import reload, reprice
from proxy.store import prices
from proxy.store.base import Tx
from proxy.store.sqlite import SqliteStore
from tests.databases import Database
from tests.services.rehearsal import CALLER, FalOrder, Rehearsal, rehearse

T = TypeVar("T")

OFFER = "fal/seedance-2.0/standard/text-to-video"
WISH: dict[str, Any] = {
    "provider": "fal",
    "model": "seedance-2.0",
    "resolution": "720p",
    "usd_per_second": "0.25",
    "source": "a contract",
}


def appraiser(house: Rehearsal) -> Appraiser:
    return Appraiser(house.house.store, house.clock, house.house.new_id)


async def set_price(house: Rehearsal, **wish: Any) -> PriceOverride:
    return await appraiser(house).set("key_7", PriceWish(**WISH | wish), house.house.rules)


async def quoted(house: Rehearsal) -> int:
    """Micro-dollars that a video of four seconds would cost at fal."""
    found = await quote(house.house, CALLER, Ask(prompt="a paper boat", seconds=4))
    return found.decision.plan.candidates[0].quote_microusd


async def test_price_holds_from_when_it_is_known_and_what_was_accepted_keeps_its_own(house: Rehearsal) -> None:
    order = FalOrder()
    house.answers(order)
    before = await house.accept()
    made = await set_price(house, starts="2026-01-01")
    assert await quoted(house) == 1_213_600, "nobody has told this house"
    await reprice(house.house)
    assert await quoted(house) == 1_000_000
    order.status = "COMPLETED"
    await house.run(60)
    assert (await house.video(before)).charged_microusd == 1_213_600

    await appraiser(house).remove("key_7", made.id)
    await reprice(house.house)
    assert await quoted(house) == 1_213_600


async def test_bill_names_the_override_and_the_book_that_it_made(house: Rehearsal, database: Database) -> None:
    made = await set_price(house)
    await reprice(house.house)
    order = FalOrder()
    order.status = "COMPLETED"
    house.answers(order)
    video_id = await house.accept()
    await house.run(60)
    query = "SELECT price_id, book_hash, quantity, unit_usd FROM ledger_transactions WHERE kind = 'post'"
    assert database.rows(query) == [(made.id, house.house.rules.book_hash, 4, "0.25")]
    assert (await house.video(video_id)).charged_microusd == 1_000_000
    assert house.house.rules.book_hash != house.house.written.book_hash


async def test_price_survives_a_reload_and_its_offer_need_not(house: Rehearsal) -> None:
    made = await set_price(house)
    await reprice(house.house)
    written = house.house.written
    assert await reload(house.house, lambda: msgspec.structs.replace(written, figures={}))
    assert await quoted(house) == 1_000_000
    others = {name: offer for name, offer in written.offers.items() if name != OFFER}
    assert await reload(house.house, lambda: msgspec.structs.replace(written, offers=others, figures={}))
    assert house.house.rules.warnings[-1].startswith(f"the price {made.id} is of {OFFER} at 720p")
    (line,) = [one for one in book(house.house.rules, house.house.overrides, "2099-01-01") if one.override]
    assert (line.id, line.in_force, line.warning) == (made.id, False, "Nobody offers this any more.")
    assert await reload(house.house, lambda: written)
    assert await quoted(house) == 1_000_000


async def test_prices_read_twice_are_laid_once(house: Rehearsal) -> None:
    await set_price(house)
    await asyncio.gather(*(reprice(house.house) for _ in range(5)))
    rules = house.house.rules
    await reprice(house.house)
    assert house.house.rules is rules


class DeafStore(SqliteStore):
    """Fails to read while it has something to raise."""

    raises: Exception | None = None

    async def read(self, unit: Callable[[Tx], T]) -> T:
        if self.raises is not None:
            raise self.raises
        return await super().read(unit)


@pytest.mark.parametrize("raises", [Overloaded("the disk is gone"), RuntimeError("something else")])
async def test_database_that_does_not_answer_leaves_the_prices_in_force(
    tmp_path: Path, film: bytes, raises: Exception
) -> None:
    async with rehearse(tmp_path, film, store=DeafStore) as house:
        await set_price(house)
        await reprice(house.house)
        rules = house.house.rules
        store = house.house.store
        assert isinstance(store, DeafStore)
        store.raises = raises
        await reprice(house.house)
        assert house.house.rules is rules
        assert await reload(house.house, lambda: house.house.written)
        assert house.house.rules.offers == rules.offers
        store.raises = None


WRONG: list[tuple[dict[str, Any], type[RequestError], str, str]] = [
    ({"provider": "nobody"}, NotFound, "provider", "There is no provider 'nobody'; there are: evolink, fal, runflow"),
    ({"model": "seedance"}, NotFound, "model", "There is no offer 'fal/seedance/standard/text-to-video'; there are: "),
    ({"tier": "mini"}, NotFound, "model", f"there are: fal/seedance-2.0/fast/text-to-video, {OFFER}."),
    ({"resolution": "1080p"}, InvalidValue, "resolution", f"{OFFER} makes 480p, 720p."),
    ({"usd_per_second": "-0.1"}, InvalidValue, "usd_per_second", "USD from 0 to 1000"),
    ({"usd_per_second": "1000.1"}, InvalidValue, "usd_per_second", "USD from 0 to 1000"),
    ({"usd_per_second": "1e-3"}, InvalidValue, "usd_per_second", "USD from 0 to 1000"),
    ({"usd_per_second": "0,25"}, InvalidValue, "usd_per_second", "USD from 0 to 1000"),
    ({"usd_per_second": "\u0661"}, InvalidValue, "usd_per_second", "USD from 0 to 1000"),
    ({"usd_per_second": "0.0000000000001"}, InvalidValue, "usd_per_second", "twelve decimals"),
    ({"usd_per_second": ""}, InvalidValue, "usd_per_second", "USD from 0 to 1000"),
    ({"usd_per_second": None}, MissingParameter, "usd_per_second", "needs 'usd_per_second' or"),
    ({"usd_per_million_tokens": "14"}, InvalidValue, "usd_per_million_tokens", "not by both"),
    (
        {"usd_per_second": None, "usd_per_million_tokens": "20001"},
        InvalidValue,
        "usd_per_million_tokens",
        "USD from 0 to 20000",
    ),
    ({"starts": "2026-02-30"}, InvalidValue, "starts", "a date such as"),
    ({"starts": "soon"}, InvalidValue, "starts", "a date such as"),
    ({"starts": "20260401"}, InvalidValue, "starts", "a date such as"),
    ({"source": " "}, MissingParameter, "source", "where the figure stands"),
    ({"source": "x" * 201}, InvalidValue, "source", "at most 200 characters"),
    ({"source": "a\nb"}, InvalidValue, "source", "printable"),
    ({"reason": "x" * 1001}, InvalidValue, "reason", "at most 1000 characters"),
]


@pytest.mark.parametrize(("wrong", "kind", "param", "words"), WRONG)
async def test_wrong_price_is_refused_by_its_field_and_leaves_nothing(
    house: Rehearsal, wrong: dict[str, Any], kind: type[RequestError], param: str, words: str
) -> None:
    with pytest.raises(kind) as caught:
        await set_price(house, **wrong)
    assert (caught.value.param, words in str(caught.value)) == (param, True), str(caught.value)
    assert await house.house.store.read(prices.live_overrides) == []


async def test_second_price_from_the_same_day_is_refused_until_the_first_is_removed(house: Rehearsal) -> None:
    first = await set_price(house)
    assert first.starts == today(house.clock())
    with pytest.raises(InvalidValue, match=f"{first.id} is such a price from {first.starts} on") as caught:
        await set_price(house, usd_per_second="0.3")
    assert caught.value.param == "starts"
    await set_price(house, starts="2027-01-01")
    await set_price(house, resolution="480p")
    assert (await set_price(house, with_video=True)).price.with_video
    await appraiser(house).remove("key_7", first.id, "a mistake")
    for gone in (first.id, "price_0"):
        with pytest.raises(NotFound):
            await appraiser(house).remove("key_7", gone)
    again = await set_price(house)
    assert again.id != first.id


async def test_of_many_who_set_one_price_at_once_one_does(house: Rehearsal) -> None:
    done = await asyncio.gather(
        *(set_price(house, usd_per_second=f"0.{n}") for n in range(1, 9)), return_exceptions=True
    )
    assert sum(isinstance(one, PriceOverride) for one in done) == 1
    assert len(await house.house.store.read(prices.live_overrides)) == 1


async def test_book_tells_each_price_with_what_is_left_of_it_and_whether_it_counts_today(house: Rehearsal) -> None:
    written = house.house.written
    account = msgspec.structs.replace(written.accounts["fal"], discount="0.1")
    house.house.written = msgspec.structs.replace(written, accounts=written.accounts | {"fal": account})
    made = await set_price(house)
    later = await set_price(house, usd_per_second=None, usd_per_million_tokens="10.50", starts="2030-01-01")
    await reprice(house.house)
    rules, overrides = house.house.rules, house.house.overrides
    lines = [
        (one.id, one.usd_per_second, one.usd_per_million_tokens, one.discounted_usd, one.in_force, one.override)
        for one in book(rules, overrides, today(house.clock()), provider="fal", model="seedance")
        if (one.tier, one.resolution) == ("standard", "720p")
    ]
    assert lines == [
        ("fal-standard-720p-2026-04-01", "0.3034", None, "0.27306", False, None),
        (made.id, "0.25", None, "0.225", True, made.id),
        (later.id, None, "10.50", "9.450", False, later.id),
    ]
    every = book(rules, overrides, "2026-01-01")
    assert len(every) == len({one.id for one in every})
    assert not any(one.in_force for one in every), "none has started"
    assert {one.origin for one in every} == {"rules", "override"}
    assert book(rules, overrides, "2026-01-01", provider="nobody") == []
    assert book(rules, overrides, "2026-01-01", model="nothing") == []
