"""A small mixed run as Prometheus sees it, and strangers that add nothing to it."""

import asyncio
import uuid
from collections.abc import Iterator
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.databases import WHOLE_ENGINE
from tests.whole.stage import SELLERS, Stage

STRANGERS = 2_000
OFFER = "evolink/seedance-2.0/standard/text-to-video"
AT_ONCE = 24


class Scrape:
    """One reading of `/metrics`."""

    def __init__(self, text: str) -> None:
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        self._values = {(one.name, frozenset(one.labels.items())): one.value for one in samples}

    def sum(self, name: str, **labels: str) -> float:
        """Of all series with these labels, whatever their others."""
        return sum(value for (known, own), value in self._values.items() if known == name and labels.items() <= own)

    @property
    def series(self) -> set[tuple[str, frozenset[tuple[str, str]]]]:
        return set(self._values)

    def label_values(self) -> Iterator[str]:
        return (value for _, labels in self._values for _, value in labels)


async def scrape(stage: Stage) -> Scrape:
    return Scrape((await stage.client.get("/metrics")).raise_for_status().text)


async def test_mixed_run_is_counted_where_it_happened(stage: Stage) -> None:
    await stage.start_sellers()
    stage.write_rules(dead=("fal",))
    await stage.start_server()
    plain = await stage.create()
    broken = await stage.create("[fault:render_failed@evolink] a paper boat")
    refused = await stage.create("[fault:moderation] a paper boat")
    elsewhere = await stage.create(routing={"order": ["fal", "runflow"]})
    ends = [await stage.ended(video["id"]) for video in (plain, broken, refused, elsewhere)]
    assert [video["status"] for video in ends] == ["completed", "completed", "failed", "completed"]
    assert (await stage.client.get("/v1/nonsense")).status_code == 404

    seen = await scrape(stage)
    total = "reelay_provider_attempts_total"
    assert seen.sum(total, provider="evolink", operation="submit", outcome="ok") == 2
    assert seen.sum(total, provider="evolink", operation="submit", outcome="moderation") == 1
    assert seen.sum(total, provider="fal", operation="submit", outcome="capacity") == 1
    assert seen.sum(total, provider="shortapi", operation="submit", outcome="ok") == 1
    assert seen.sum(total, operation="fetch", outcome="ok") == 3
    assert seen.sum(total, provider="evolink", operation="poll") >= 2
    fallbacks = "reelay_fallbacks_total"
    assert seen.sum(fallbacks) == 2
    assert seen.sum(fallbacks, from_provider="evolink", to_provider="shortapi", reason="provider_error") == 1
    assert seen.sum(fallbacks, from_provider="fal", to_provider="runflow", reason="capacity") == 1
    assert seen.sum("reelay_videos_total", outcome="completed", tenant="default") == 3
    assert seen.sum("reelay_videos_total", outcome="moderation_blocked") == 1
    assert seen.sum("reelay_video_duration_seconds_count") == 3
    assert seen.sum("reelay_video_duration_seconds_sum") > 0
    paid = sum(float(video["usage"]["cost_usd"]) for video in ends if video["status"] == "completed")
    assert round(seen.sum("reelay_charged_usd_total", tenant="default", model="seedance-2.0"), 6) == round(paid, 6)
    assert round(seen.sum("reelay_seller_cost_usd_total", outcome="delivered"), 6) == round(paid, 6)
    assert round(seen.sum("reelay_delivered_usd_total", model="seedance-2.0"), 6) == round(paid, 6)
    assert seen.sum("reelay_at_dearest_usd_total") > seen.sum("reelay_delivered_usd_total")
    assert seen.sum("reelay_expected_cost_usd_total") == seen.sum("reelay_seller_cost_usd_total", outcome="delivered")
    assert seen.sum("reelay_delivered_film_seconds_total", provider="shortapi") == 4
    assert seen.sum("reelay_provider_film_duration_seconds_count") == 3
    assert seen.sum("reelay_provider_film_duration_seconds_count", provider="runflow") == 1
    assert seen.sum("reelay_route_decisions_total", rule="default", provider="evolink", reason="cheapest") == 3
    assert seen.sum("reelay_route_decisions_total", rule="default", provider="fal", reason="ordered") == 1
    assert seen.sum("reelay_http_requests_total", route="/v1/videos", method="POST", code_class="2xx") == 4
    assert seen.sum("reelay_http_requests_total", route="other", code_class="4xx") == 1
    assert seen.sum("reelay_provider_request_duration_seconds_count", operation="submit") == 6
    assert seen.sum("reelay_videos") == 0
    assert seen.sum("reelay_held_usd") == 0
    for store in ("files", "database") if WHOLE_ENGINE == "sqlite" else ("files",):
        assert seen.sum("reelay_store_free_bytes", store=store) > 0
        assert seen.sum("reelay_store_used_bytes", store=store) > 0


async def test_times_are_shown_of_offers_that_are_asked_and_learned_ones_once_there_are_enough(stage: Stage) -> None:
    await stage.start_sellers()
    stage.write_rules(lambda rules: rules["providers"]["fal"].update(enabled=False))
    await stage.start_server()
    before = await scrape(stage)
    assert {provider: stated_s(before, provider) > 0 for provider in SELLERS} == {
        "evolink": True, "shortapi": True, "fal": False, "runflow": True,
    }  # fmt: skip
    assert before.sum("reelay_offer_learned_seconds") == 0
    assert not {offer for offer in before.label_values() if offer.startswith("fal/")}
    made = [await stage.create() for _ in range(9)]
    for video in made:
        await stage.ended(video["id"])
    async with asyncio.timeout(40):
        while (seen := await scrape(stage)).sum("reelay_offer_learned_seconds", offer=OFFER) == 0:
            await asyncio.sleep(0.5)
    mean = "reelay_provider_film_duration_seconds"
    took_s = seen.sum(f"{mean}_sum", provider="evolink") / seen.sum(f"{mean}_count", provider="evolink")
    assert took_s / 3 < seen.sum("reelay_offer_learned_seconds") < took_s * 3


def stated_s(seen: Scrape, provider: str) -> float:
    return seen.sum("reelay_offer_stated_seconds", offer=f"{provider}/seedance-2.0/standard/text-to-video")


async def test_budget_shows_what_is_used_of_it(stage: Stage) -> None:
    await stage.start_sellers()
    stage.write_rules()
    await stage.start_server()
    for limit, period in (("5", "month"), ("2.5", "day")):
        body = {"tenant": "default", "scope": "tenant", "period": period, "limit_usd": limit}
        (await stage.client.post("/admin/budgets", json=body)).raise_for_status()
    video = await stage.ended((await stage.create())["id"])
    seen = await scrape(stage)
    for period, limit_usd in (("month", 5), ("day", 2.5)):
        bound = {"tenant": "default", "reason": f"tenant_{period}"}
        assert seen.sum("reelay_budget_limit_usd", **bound) == limit_usd
        assert seen.sum("reelay_budget_used_usd", **bound) == float(video["usage"]["cost_usd"])


async def test_strangers_add_no_series(stage: Stage) -> None:
    await stage.start_sellers()
    stage.write_rules(dead=("fal", "evolink", "shortapi", "runflow"), deadline_s=3600)
    await stage.start_server()
    await asyncio.gather(*(stranger(stage, number) for number in range(8)))
    before = await scrape(stage)
    gate = asyncio.Semaphore(AT_ONCE)

    async def enter(number: int) -> None:
        async with gate:
            await stranger(stage, number)

    await asyncio.gather(*(enter(number) for number in range(STRANGERS)))
    after = await scrape(stage)
    assert after.series == before.series
    requests = "reelay_http_requests_total"
    assert after.sum(requests) - before.sum(requests) >= STRANGERS
    assert not [value for value in after.label_values() if "stranger" in value]


async def stranger(stage: Stage, number: int) -> None:
    """Somebody new, who asks for something that nobody else asks for; one in eight also has a video accepted."""
    name = f"stranger-{uuid.uuid4()}"
    body: dict[str, Any] = {"prompt": "a paper boat", "end_user_id": name, "metadata": {name: name}}
    match number % 8:
        case 0:
            answer = await stage.client.post("/v1/videos", json=body)
            assert answer.status_code == 200
        case 1:
            answer = await stage.client.post("/v1/videos", json=body | {"model": name})
            assert answer.status_code == 404
        case 2:
            answer = await stage.client.post("/v1/videos", json=body | {name: 1})
            assert answer.status_code == 400
        case 3:
            assert (await stage.client.get(f"/v1/videos/video_{name}")).status_code == 404
        case 4:
            assert (await stage.client.get(f"/{name}/{name}")).status_code == 404
        case 5:
            assert (await stage.client.patch(f"/v1/videos/{name}")).status_code == 405
        case 6:
            answer = await stage.client.get("/v1/models", headers={"authorization": f"Bearer {name}"})
            assert answer.status_code == 401
        case _:
            assert (await stage.client.get("/v1/spend", params={"group_by": name})).status_code == 400
