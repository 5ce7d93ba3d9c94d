"""
What two servers on one database make of submits of unknown end: whichever is asked, called back or told knows all.

Orders are given to one; sellers call back at the other, operators ask and decide at either.
"""

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.databases import choose
from tests.ports import free_port
from tests.whole.compare_books import compare
from tests.whole.scenes import PRICES, Played, Rules, Troupe, check_the_ledger, check_the_log, metric, play, rule
from tests.whole.stage import KEY, Process, Stage, start

pytestmark = pytest.mark.long

SPEED = 200.0
DEADLINE_S = 90
SUBMIT_TIMEOUT_S = 5
LISTED = ("resolved-bought", "resolved-denied", "resolved-adopted")


def _rules(rules: Rules) -> None:
    rules["rules"] = [
        rule("bold", {"metadata.case": "bold"}, fallback={"on_unknown": "fallback"}),
        rule("default"),
    ]


async def _beside(stage: Stage, port: int) -> Process:
    """At the port that sellers call back at."""
    named = stage.environment | {"REELAY_PORT": str(port)}
    return await start(["serve"], named, stage.folder, port, "/readyz")


def _states(video: dict[str, Any]) -> list[str]:
    return [attempt["status"] for attempt in video["routing"]["attempts"]]


async def _scene(folder: Path) -> Played:
    async with AsyncExitStack() as stack:
        stage = Stage(folder, stack)
        choose("postgresql", folder)
        await stage.start_sellers(speed=SPEED)
        stage.write_rules(_rules, deadline_s=DEADLINE_S, submit_timeout_s=SUBMIT_TIMEOUT_S)
        port = free_port()
        await stage.start_server(PUBLIC_URL=f"http://127.0.0.1:{port}")
        other = await _beside(stage, port)
        stack.push_async_callback(other.stop)
        headers = {"authorization": f"Bearer {KEY}"}
        there = await stack.enter_async_context(
            httpx.AsyncClient(base_url=other.origin, headers=headers, trust_env=False, timeout=30)
        )
        troupe = Troupe(stage)
        only: dict[str, Any] = {"routing": {"order": ["shortapi", "evolink"]}}
        await troupe.ask("healed", "reset_after@shortapi", **only)
        await troupe.ask("found", "reset_after@runflow", "cb_lost", routing={"order": ["runflow", "evolink"]})
        await troupe.ask("bold", "reset_after@shortapi", "cb_late@shortapi", metadata={"case": "bold"}, **only)
        for case in LISTED:
            fault = "reset_before" if case == "resolved-denied" else "reset_after"
            await troupe.ask(case, f"{fault}@shortapi", "cb_lost", **only)
            await stage.until(troupe.ids[case], lambda video: _states(video) == ["unknown"])
        await troupe.end("healed", "found", "bold")
        await stage.until(troupe.ids["bold"], lambda video: _states(video) == ["done", "done"])
        async with asyncio.timeout(20):  # until what is not of this list has left it
            while len(here := (await _unknown(stage.client))) > len(LISTED):
                await asyncio.sleep(0.1)
        listed = {"here": here, "there": await _unknown(there)}
        code, printed, _ = await stage.cli("attempts", "list", "--state", "unknown", "--json")
        assert code == 0
        exposed = [(await client.get("/metrics")).text for client in (stage.client, there)]
        job = next(one for one in await stage.books() if one["prompt"].startswith("resolved-adopted"))
        for case, finding in (
            ("resolved-bought", {"bought": True, "cost_usd": "0.96"}),
            ("resolved-denied", {"bought": False}),
            ("resolved-adopted", {"bought": True, "seller_id": job["id"]}),
        ):
            path = f"/admin/attempts/{troupe.ids[case]}/1/resolve"
            (await there.post(path, json=finding | {"reason": "their desk says so"})).raise_for_status()
        await troupe.end()
        report = (await there.get("/admin/reports/spend", params={"group_by": "provider"})).json()["data"]
        books = (await stage.admin.get("/admin/books")).json()
        metrics_of_both = [(await client.get("/metrics")).text for client in (stage.client, there)]
        return await troupe.played(
            listed=listed | {"printed": json.loads(printed)},
            exposed=exposed,
            metrics_of_both=metrics_of_both,
            left=await _unknown(stage.client),
            differences=compare(books, report, []),
        )


async def _unknown(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = (await client.get("/admin/attempts", params={"state": "unknown"})).json()["data"]
    return lines


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    return play(_scene, tmp_path_factory.mktemp("unknown_on_replicas"))


def test_callback_at_the_other_server_heals_what_no_answer_told(played: Played) -> None:
    assert played.outcome("healed") == ("completed", None)
    assert played.attempts("healed") == [("shortapi", "done", None)]
    assert played.paid("healed") == 4 * PRICES["shortapi"]
    here, there = (metric(text, "reelay_callbacks_total", outcome="healed") for text in played.found["metrics_of_both"])
    assert (here, there) == (0, 2), "one for it, and one for the rule that bought elsewhere meanwhile"


def test_seller_that_can_be_asked_is_asked_by_either_server(played: Played) -> None:
    assert played.outcome("found") == ("completed", None)
    assert played.sellers("found") == ["runflow"]


@pytest.mark.parametrize("place", ["here", "there", "printed"])
def test_every_unknown_end_is_listed_everywhere_with_its_age_and_what_it_may_cost(played: Played, place: str) -> None:
    lines = {line["video"]: line for line in played.found["listed"][place]}
    assert set(lines) == {played.videos[case]["id"] for case in LISTED}
    for line in lines.values():
        assert (line["provider"], line["state"], line["possible_cost_usd"]) == ("shortapi", "unknown", "0.960000")
        assert 0 <= line["age_s"] <= DEADLINE_S
    oldest, *_, newest = (lines[played.videos[case]["id"]]["age_s"] for case in LISTED)
    assert oldest >= newest


def test_both_servers_export_what_is_unknown(played: Played) -> None:
    for text in played.found["exposed"]:
        assert metric(text, "reelay_unknown_attempts", provider="shortapi") == len(LISTED)
        assert metric(text, "reelay_unknown_exposure_usd", provider="shortapi") == pytest.approx(len(LISTED) * 0.96)


def test_operator_decides_at_the_other_server(played: Played) -> None:
    """Where the order can be asked for, its film comes; else the next offer's turn has come."""
    assert played.found["left"] == []
    assert played.attempts("resolved-adopted") == [("shortapi", "done", None)]
    for case, first in (("resolved-bought", "failed"), ("resolved-denied", "refused")):
        assert [(provider, state) for provider, state, _ in played.attempts(case)] == [
            ("shortapi", first),
            ("evolink", "done"),
        ]
    assert {played.outcome(case) for case in LISTED} == {("completed", None)}


def test_rule_that_buys_on_an_unknown_end_counts_what_it_may_pay_twice(played: Played) -> None:
    assert played.sellers("bold") == ["shortapi", "evolink"]
    prices = {4 * PRICES["shortapi"], 4 * PRICES["evolink"]}
    paid = played.paid("bold")
    assert paid in prices
    assert played.absorbed("bold") == {"absorbed:double": (prices - {paid}).pop()}
    texts = played.found["metrics_of_both"]
    assert sum(metric(text, "reelay_possible_double_total") for text in texts) == 1
    # What an operator finds to be bought, and another delivered, was paid twice too.
    doubles = sum(played.absorbed(case).get("absorbed:double", 0) for case in ("bold", "resolved-bought"))
    real = sum(metric(text, "reelay_absorbed_usd_total", reason="double") for text in texts)
    assert real == pytest.approx(doubles / 1e6)


def test_books_are_the_sellers(played: Played) -> None:
    assert played.found["differences"] == []
    check_the_ledger(played.folder)
    check_the_log(played.folder)
