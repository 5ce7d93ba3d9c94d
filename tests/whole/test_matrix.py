"""
Every combination of seller, tier, resolution, ratio and content filter: made, measured and billed, or refused.

What is sold, and at what price, is written here from the sellers' own pages, not read from the catalogue.
"""

import asyncio
import itertools
from decimal import Decimal
from pathlib import Path
from typing import Any

import av
import httpx
import msgspec
import pytest

from tests.whole.company import refused
from tests.whole.era import JSON_ERA, NEWEST, Era, run
from tests.whole.stage import Stage

TIERS = ("standard", "fast", "mini")
RESOLUTIONS = ("480p", "720p", "1080p")
SIZES_PX = {
    "21:9": {"480p": (992, 432), "720p": (1470, 630), "1080p": (2206, 946)},
    "16:9": {"480p": (864, 496), "720p": (1280, 720), "1080p": (1920, 1080)},
    "4:3": {"480p": (752, 560), "720p": (1112, 834), "1080p": (1664, 1248)},
    "1:1": {"480p": (640, 640), "720p": (960, 960), "1080p": (1440, 1440)},
    "3:4": {"480p": (560, 752), "720p": (834, 1112), "1080p": (1248, 1664)},
    "9:16": {"480p": (496, 864), "720p": (720, 1280), "1080p": (1080, 1920)},
}
USD_PER_SECOND: dict[tuple[str, str], dict[str, str]] = {
    ("runflow", "standard"): {"480p": "0.1406", "720p": "0.3034", "1080p": "0.6804"},
    ("runflow", "fast"): {"480p": "0.1125", "720p": "0.2419"},
    ("fal", "standard"): {"480p": "0.1406", "720p": "0.3034"},
    ("fal", "fast"): {"480p": "0.1125", "720p": "0.2419"},
    ("shortapi", "standard"): {"720p": "0.24"},
    ("shortapi", "fast"): {"720p": "0.20"},
    ("evolink", "standard"): {"480p": "0.0919", "720p": "0.1985", "1080p": "0.495"},
    ("evolink", "fast"): {"480p": "0.0745", "720p": "0.1608"},
    ("evolink", "mini"): {"480p": "0.0376"},
}
"""What is sold. EvoLink makes 720p in its mini tier too, but nobody knows the price."""
SELLERS = ("runflow", "fal", "shortapi", "evolink")
WITH_FILTER_SWITCH = {"evolink"}
FILTER_OFF_FACTOR = Decimal("1.1")
SECONDS = 4


class Combination(msgspec.Struct, frozen=True, kw_only=True):
    seller: str
    tier: str
    resolution: str
    aspect_ratio: str
    content_filter: bool

    @property
    def name(self) -> str:
        ratio = self.aspect_ratio.replace(":", "x")
        return f"{self.seller}-{self.tier}-{self.resolution}-{ratio}-{'on' if self.content_filter else 'off'}"

    @property
    def model(self) -> str:
        return f"{self.seller}/seedance-2.0"

    @property
    def fields(self) -> dict[str, Any]:
        names = ("tier", "resolution", "aspect_ratio", "content_filter")
        return {name: getattr(self, name) for name in names}

    @property
    def is_sold(self) -> bool:
        has_price = self.resolution in USD_PER_SECOND.get((self.seller, self.tier), {})
        return has_price and (self.content_filter or self.seller in WITH_FILTER_SWITCH)

    @property
    def price_usd(self) -> Decimal:
        factor = 1 if self.content_filter else FILTER_OFF_FACTOR
        return Decimal(USD_PER_SECOND[self.seller, self.tier][self.resolution]) * factor * SECONDS

    def ways_out(self) -> dict[str, set[str]]:
        """Each field that alone stands in the way, with the values that would do."""
        choices = {"tier": TIERS, "resolution": RESOLUTIONS, "seller": SELLERS, "content_filter": (True,)}
        ways: dict[str, set[str]] = {}
        for field, values in choices.items():
            for value in values:
                if msgspec.structs.replace(self, **{field: value}).is_sold:
                    ways.setdefault(field, set()).add(str(value).lower())
        return ways


ALL = [
    Combination(seller=seller, tier=tier, resolution=resolution, aspect_ratio=ratio, content_filter=filtered)
    for seller, tier, resolution, ratio, filtered in itertools.product(
        SELLERS, TIERS, RESOLUTIONS, SIZES_PX, (True, False)
    )
]
SOLD = [one for one in ALL if one.is_sold]
NOT_SOLD = [one for one in ALL if not one.is_sold]


def test_matrix_has_the_size_that_the_sellers_pages_give_it() -> None:
    assert (len(ALL), len(SOLD), len(NOT_SOLD)) == (432, 138, 294)


def measure(path: Path) -> tuple[int, int, float, bool]:
    """Width, height, seconds, and whether the first frame can be decoded."""
    with av.open(str(path), mode="r") as container:
        stream = container.streams.video[0]
        frame = next(container.decode(stream))
        seconds = (container.duration or 0) / av.time_base
        return stream.width, stream.height, seconds, (frame.width, frame.height) == (stream.width, stream.height)


@pytest.mark.parametrize("era", [NEWEST, pytest.param(JSON_ERA, marks=pytest.mark.long)], ids=str)
async def test_everything_that_is_sold_is_made_at_its_size_and_price(stage: Stage, era: Era) -> None:
    await stage.start_sellers(speed=2000)
    stage.write_rules(deadline_s=120)
    await stage.start_server()
    films = stage.folder / "films"
    films.mkdir()
    orders = [{"name": one.name, "model": one.model, "fields": one.fields} for one in SOLD]
    videos = await run(era, "buy_all.py", stage, told=orders, folder=films)
    for one in SOLD:
        video = videos[one.name]
        assert video.get("status") == "completed", (one.name, video)
        assert video["routing"]["provider"] == one.seller, one.name
        assert len(video["routing"]["attempts"]) == 1, one.name
        width, height = SIZES_PX[one.aspect_ratio][one.resolution]
        assert (video["size"], video["seconds"]) == (f"{width}x{height}", "4"), one.name
        *size, seconds, decoded = await asyncio.to_thread(measure, films / f"{one.name}.mp4")
        assert (size, decoded) == ([width, height], True), one.name
        assert seconds == pytest.approx(SECONDS, abs=0.1), one.name
        assert Decimal(video["usage"]["cost_usd"]) == one.price_usd, one.name
    await _books_agree(stage)


async def _books_agree(stage: Stage) -> None:
    """Each seller made each film once, as ordered, and took its price."""
    made = {job["prompt"].removeprefix("a paper boat, "): job for job in await stage.books()}
    assert len(made) == len(await stage.books()) == len(SOLD)
    for one in SOLD:
        job = made[one.name]
        found = Combination(**{name: job[name] for name in Combination.__struct_fields__})
        assert (found, job["seconds"]) == (one, SECONDS)
        assert Decimal(job["charged_microusd"] - job["refunded_microusd"]) / 1_000_000 == one.price_usd, one.name


async def test_nothing_else_is_made_and_the_refusal_names_the_part(stage: Stage) -> None:
    await stage.start_sellers()
    stage.write_rules()
    await stage.start_server()
    for one in NOT_SOLD:
        body = {"model": one.model, "prompt": "a paper boat", "seconds": SECONDS, **one.fields}
        answer = await stage.client.post("/v1/videos", json=body)
        _names_what_cannot_be_met(one, answer)
        assert (await stage.client.post("/v1/videos/quote", json=body)).json() == answer.json()
    assert (await stage.client.get("/v1/videos")).json()["data"] == []
    assert await stage.books() == []


async def test_filter_left_open_is_on(stage: Stage) -> None:
    await stage.start_sellers()
    stage.write_rules()
    await stage.start_server()
    for one in ALL:
        if one.content_filter:
            fields = {name: value for name, value in one.fields.items() if name != "content_filter"}
            body = {"model": one.model, "prompt": "a paper boat", "seconds": SECONDS, **fields}
            answer = await stage.client.post("/v1/videos/quote", json=body)
            if one.is_sold:
                [candidate] = answer.json()["candidates"]
                assert (candidate["provider"], answer.json()["content_filter"]) == (one.seller, True)
                assert Decimal(candidate["price_usd"]) == one.price_usd
            else:
                _names_what_cannot_be_met(one, answer)


def _names_what_cannot_be_met(one: Combination, answer: httpx.Response) -> None:
    message = refused(answer, 400, "unsupported_request")
    param = answer.json()["error"]["param"]
    ways = one.ways_out()
    if not ways:
        # No single change helps: what this seller lacks is named, and what there is of each tier.
        assert param in {"tier", "resolution", "content_filter"}, (one, message)
        assert f"{param} {str(getattr(one, param)).lower()}" in message
        assert "tier standard makes 480p, 720p, 1080p" in message
        return
    assert ({"model": "seller"}.get(param, param)) in ways, (one, message)
    wrong, _, possible = message.partition("possible instead:")
    for field, values in ways.items():
        word = "provider" if field == "seller" else field
        assert f"{word} {str(getattr(one, field)).lower()}" in wrong, (one, message)
        offered = next(part for part in possible.split(", or ") if part.strip().startswith(word))
        assert {text.strip() for text in offered.strip().removeprefix(word).split(",")} == values, (one, message)
