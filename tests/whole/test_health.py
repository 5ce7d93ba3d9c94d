"""A seller that dies is left within five requests; one that comes back is used again within a minute."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.whole.company import Company, open_company
from tests.whole.scenes import metric
from tests.whole.stage import SELLERS

pytestmark = pytest.mark.asyncio(loop_scope="module")

REQUESTS = 9
LEFT_WITHIN = 5
BACK_WITHIN_S = 60.0


def _long_breath(rules: dict[str, Any]) -> None:
    """Whoever fails is passed over at once, and has its turn again with the next video."""
    rules["defaults"]["fallback"]["max_attempts"] = 4
    for provider in rules["providers"].values():
        del provider["breaker"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Company]:
    async with open_company(tmp_path_factory.mktemp("health"), _long_breath) as company:
        yield company


def tried(video: dict[str, Any]) -> list[str]:
    return [attempt["provider"] for attempt in video["routing"]["attempts"]]


async def made(shop: Company, first: str) -> dict[str, Any]:
    """One video for which `first` would be asked first, whoever makes it."""
    others = [seller for seller in SELLERS if seller != first]
    video = await shop.create(routing={"order": [first, *others]})
    return await shop.ended(video["id"])


async def breaker(shop: Company, provider: str) -> str:
    lines = (await shop.client.get("/admin/providers")).json()["data"]
    (line,) = [line for line in lines if line["provider"] == provider]
    (state,) = line["breakers"].values() or ["closed"]
    return str(state)


@pytest.mark.parametrize(("seller", "fault"), [("evolink", "error_503"), ("fal", "render_failed")])
async def test_seller_that_dies_is_left_and_used_again_once_it_is_back(shop: Company, seller: str, fault: str) -> None:
    await shop.arm(seller, fault, probability=1)
    videos = [await made(shop, seller) for _ in range(REQUESTS)]
    assert {video["status"] for video in videos} == {"completed"}
    asked = sum(seller in tried(video) for video in videos)
    assert 0 < asked <= LEFT_WITHIN
    assert tried(videos[-1])[0] != seller
    assert await breaker(shop, seller) in {"open", "half_open"}
    scraped = (await shop.client.get("/metrics")).text
    assert metric(scraped, "reelay_breaker_state", offer=f"{seller}/seedance-2.0/standard/text-to-video") >= 1

    (await shop.admin.delete("/admin/faults")).raise_for_status()
    back_at = time.monotonic()
    while (await made(shop, seller))["routing"]["provider"] != seller:
        assert time.monotonic() - back_at < BACK_WITHIN_S
        await asyncio.sleep(0.5)
    assert await breaker(shop, seller) == "closed"
