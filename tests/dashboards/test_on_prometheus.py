"""
Every query of every page, asked of a real Prometheus that scraped a real server through a bad quarter of an hour.

The server sells to two tenants on PostgreSQL; sellers refuse, break, vanish and take money for nothing,
limits and budgets refuse. After that no panel may be in error, and none empty.
"""

import asyncio
import math
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from dashboards.alerting import alerts, recorded
from tests.dashboards.prometheus import Prometheus, running
from tests.dashboards.test_pages import DATABASE, FOLDER, NAMES, panels_of, queries, read_page
from tests.databases import choose
from tests.whole.company import Company, Team
from tests.whole.scenes import rule

pytestmark = [pytest.mark.long, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]

RULES = tuple(FOLDER / "rules" / name for name in ("recording.yaml", "alerts.yaml"))
RATE_INTERVAL = "30s"
STEP_S = 5
ORDERS: tuple[dict[str, Any], ...] = (
    *({"prompt": f"a paper boat {number}"} for number in range(10)),
    {"prompt": "[fault:render_failed@evolink] a paper boat"},
    {"prompt": "[fault:moderation] a paper boat"},
    {"prompt": "[fault:dear] a paper boat", "model": "shortapi/seedance-2.0"},
    {"prompt": "[fault:no_url] a paper boat", "model": "shortapi/seedance-2.0"},
    {"prompt": "[fault:reset_after@evolink] [fault:cb_lost] a paper boat"},
    {"prompt": "[fault:poll_500] a paper boat", "model": "runflow/seedance-2.0"},
    {"prompt": "a paper boat", "routing": {"order": ["fal", "runflow"]}},
)


class Seen(msgspec.Struct, kw_only=True):
    """A Prometheus that saw all of it, and from when to when."""

    prometheus: Prometheus
    begun_at: float
    ended_at: float

    def values(self, expr: str) -> list[float]:
        """All numbers of all series, over the whole time."""
        found = self.prometheus.matrix(expr, start=self.begun_at, end=self.ended_at, step_s=STEP_S)
        numbers = (float(value) for series in found for _, value in series["values"])
        return [number for number in numbers if not math.isnan(number)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def seen(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Seen]:
    folder = tmp_path_factory.mktemp("seen")
    choose("postgresql", folder)
    async with AsyncExitStack() as stack:
        company = Company(folder, stack)
        await company.start_sellers()
        company.write_rules(_rules, dead=("fal",), deadline_s=60)
        await company.start_server()
        prometheus = stack.enter_context(running(folder, f"127.0.0.1:{company.port}", rules=RULES))
        begun_at = time.time()
        await _until(lambda: bool(prometheus.vector("reelay_build_info")))
        await trade(company)
        await _until(lambda: bool(prometheus.vector("reelay_offer_learned_seconds > 0")))
        await asyncio.sleep(2)  # a scrape or two after the last that happened
        yield Seen(prometheus=prometheus, begun_at=begun_at, ended_at=time.time())


def _rules(rules: dict[str, Any]) -> None:
    rules["rules"] = [
        rule("patient", {"metadata.case": "patient"}, strategy="cheapest"),
        rule("default", strategy="cheapest", fallback={"on_unknown": "fallback"}),
    ]


async def _until(is_so: Any) -> None:
    async with asyncio.timeout(90):
        while not await asyncio.to_thread(is_so):
            await asyncio.sleep(0.5)


async def trade(company: Company) -> None:
    """Everything that a panel tells of happens twice: what a scrape finds at once is no step for a rate."""
    team = await company.found("acme", markup="0.1")
    small = await company.found("small")
    hasty = await company.found("hasty", requests_per_minute=1)
    for body in (
        {"limit_usd": "2", "period": "month", "warn_at": ["0.3", "0.7"]},
        {"limit_usd": "0.1", "period": "day", "shadow": True},
    ):
        (await company.client.post("/admin/budgets", json=body | {"tenant": small.id})).raise_for_status()
    videos = []
    for turn in range(2):
        for order in ORDERS:
            body = order | {"end_user_id": f"user-{turn}", "metadata": {"case": "patient" if turn else "bold"}}
            videos.append((await team.client.post("/v1/videos", json=body)).raise_for_status().json()["id"])
        await _refused(small, hasty)
        await asyncio.sleep(5)
    for path in ("/v1/videos", "/v1/nothing", "/readyz", f"/v1/videos/{videos[0]}/content"):
        await team.client.get(path)
    await asyncio.gather(*(_ended(team, video) for video in videos))


async def _refused(small: Team, hasty: Team) -> None:
    """One reaches a share of its budget, and asks for more than is left; the other asks too often."""
    fits, is_too_dear = {"prompt": "a boat"}, {"prompt": "a boat", "seconds": "15"}
    bought = [(await small.client.post("/v1/videos", json=body)).status_code for body in (fits, is_too_dear)]
    assert bought == [200, 429]
    assert 429 in [(await hasty.client.get("/v1/videos")).status_code for _ in range(2)]


async def _ended(team: Team, video_id: str) -> None:
    async with asyncio.timeout(90):
        while (await team.client.get(f"/v1/videos/{video_id}")).json()["status"] not in {"completed", "failed"}:
            await asyncio.sleep(0.5)


def filled_in(expr: str, **chosen: str) -> str:
    """As Grafana would ask it: everything that is not chosen is chosen by `.*`."""
    filled = expr.replace("$__rate_interval", RATE_INTERVAL)
    return re.sub(r"\$([a-z]+)", lambda found: chosen.get(found[1], ".*"), filled)


def panels() -> Iterator[tuple[str, str, str]]:
    for name in NAMES:
        shown = [panel for panel in panels_of(read_page(name)) if panel["datasource"] != DATABASE]
        for title, expr, _ in queries(shown):
            yield name, title, expr


async def test_no_panel_is_in_error_and_none_is_empty(seen: Seen) -> None:
    empty = [(page, title, expr) for page, title, expr in panels() if not seen.values(filled_in(expr))]
    assert not empty, "\n".join(map(str, empty))


QUIET = {
    "Server errors",
    "Requests in progress",
    "Store errors",
    "Clock set",
    "Leases lost",
    "Retries put off",
    "Breakers",
    "Ledger drift",
    "Due work",
    "Overdue work",
    "Callbacks that healed",
}
"""What stays at zero where nothing is wrong with ourselves, or lasts too short for a scrape."""


async def test_panels_tell_of_what_happened(seen: Seen) -> None:
    still = {title for _, title, expr in panels() if not any(seen.values(filled_in(expr)))}
    assert still <= QUIET, still - QUIET


async def test_variables_offer_what_there_is_and_each_choice_has_data(seen: Seen) -> None:
    offered: dict[str, list[str]] = {}
    for name in NAMES:
        for variable in read_page(name)["templating"]["list"]:
            if variable["type"] == "datasource":
                continue
            found = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
            assert found
            offered[variable["name"]] = seen.prometheus.ask(
                f"label/{found[2]}/values", **{"match[]": filled_in(found[1])}
            )
    assert offered["job"] == ["reelay"]
    assert set(offered["provider"]) == {"evolink", "fal", "runflow", "shortapi"}
    assert offered["model"] == ["seedance-2.0"]
    assert len(offered["tenant"]) == 4
    expr = next(expr for _, title, expr in panels() if title == "Learned times")
    assert seen.values(filled_in(expr, provider="evolink"))
    assert not seen.values(filled_in(expr, provider="fal"))
    for tenant in offered["tenant"]:
        expr = next(expr for _, title, expr in panels() if title == "Held")
        assert seen.values(filled_in(expr, tenant=tenant))


async def test_prices_and_savings_are_those_of_the_sellers(seen: Seen) -> None:
    by_title = {title: expr for _, title, expr in panels()}
    per_second = seen.values(filled_in(by_title["Price per second of film"], provider="evolink"))
    assert any(math.isclose(number, 0.1985, rel_tol=1e-6) for number in per_second)
    against = seen.values(filled_in(by_title["Taken against price"], provider="evolink"))
    assert all(math.isclose(number, 1, rel_tol=1e-6) for number in against)
    assert max(seen.values(filled_in(by_title["Taken against price"], provider="shortapi"))) > 1.2
    assert max(seen.values(filled_in(by_title["Saved against the dearest"]))) > 0
    assert 0.7 < max(seen.values(filled_in(by_title["Budgets used"]))) < 1


async def test_every_rule_is_evaluated_and_every_recorded_series_has_data(seen: Seen) -> None:
    rules = [rule for group in seen.prometheus.ask("rules")["groups"] for rule in group["rules"]]
    assert len(rules) == len(recorded()) + len(alerts())
    assert not [(rule["name"], rule["lastError"]) for rule in rules if rule["health"] != "ok"]
    assert not [name for name in recorded() if not seen.prometheus.vector(name)]


async def test_alerts_tell_of_the_orders_that_nobody_knows_of_in_plain_words(seen: Seen) -> None:
    risen = {alert["labels"]["alertname"]: alert["annotations"] for alert in seen.prometheus.ask("alerts")["alerts"]}
    assert "ReelayUnknownAttempts" in risen
    assert "evolink" in risen["ReelayUnknownAttempts"]["summary"]
    assert not {"ReelayLedgerDrift", "ReelayAbsent", "ReelayWorkOverdue", "ReelayClockAhead"} & set(risen)
    for annotations in risen.values():
        assert not [text for text in annotations.values() if "<" in text or "{{" in text]
