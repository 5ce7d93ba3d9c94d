"""Twenty videos, good and bad, for three end users of two tenants: both sides' books agree to the micro-dollar."""

import asyncio
import csv
import io
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.whole.compare_books import compare, microusd
from tests.whole.scenes import (
    PRICES,
    Played,
    Rules,
    Troupe,
    check_the_ledger,
    check_the_log,
    eventually,
    opened,
    play,
    rows,
    rule,
)
from tests.whole.stage import ROOT, Stage

MARKUP_PERCENT = 15
GROUPINGS = ("tenant", "end_user", "provider", "model", "day", "tenant,end_user,provider,model,day")


def _rules(rules: Rules) -> None:
    rules["rules"] = [
        rule("bold", {"metadata.case": "bold"}, fallback={"on_unknown": "fallback"}),
        rule("hurry", {"metadata.case": "hurry"}, fallback={"deadline_s": 2}),
        rule("default"),
    ]


async def _good(troupe: Troupe) -> None:
    for seller in PRICES:
        await troupe.ask(f"plain-{seller}", model=f"{seller}/seedance-2.0", end_user_id="ann")
    await troupe.ask("small", resolution="480p", end_user_id="bob")
    await troupe.ask("long", seconds=11, tier="fast", end_user_id="bob")
    await troupe.ask("unfiltered", content_filter=False, end_user_id="bob")
    await troupe.ask("auto", model="runflow/seedance-2.0", seconds="auto")


async def _bad(troupe: Troupe) -> None:
    await troupe.ask("broken", "render_failed@evolink", end_user_id="ann")
    await troupe.ask("broken-paid", "render_failed@shortapi", routing={"order": ["shortapi", "evolink"]})
    await troupe.ask("blocked", "moderation_late@evolink", end_user_id="ann")
    await troupe.ask("refused", "no_credit@evolink", end_user_id="bob")
    await troupe.ask("invalid", "invalid@evolink")
    await troupe.ask("shorter", "shorter@evolink", end_user_id="bob")
    await troupe.ask("smaller", "smaller@runflow", model="runflow/seedance-2.0")
    await troupe.ask("dear", "dear@runflow", model="runflow/seedance-2.0", end_user_id="ann")
    await troupe.ask("dear-twice", "dear@shortapi", model="shortapi/seedance-2.0")
    await troupe.ask("healed", "reset_after@fal", model="fal/seedance-2.0", end_user_id="ann")
    await troupe.ask("double", "reset_after@fal", "cb_late@fal", routing={"order": ["fal", "evolink"]},
                     metadata={"case": "bold"}, end_user_id="bob")  # fmt: skip
    await troupe.ask("overdue", "never_ends@fal", model="fal/seedance-2.0", metadata={"case": "hurry"})
    await troupe.ask("cancelled", model="runflow/seedance-2.0", end_user_id="ann")
    await troupe.ask("unknown", "reset_after@evolink", metadata={"case": "hurry"}, end_user_id="bob")


async def _other_tenant(stage: Stage) -> str:
    """A tenant with a markup and its one video; the tenant's id."""
    wish = {"name": "resold", "markup": f"0.{MARKUP_PERCENT}"}
    tenant: str = (await stage.client.post("/admin/tenants", json=wish)).raise_for_status().json()["id"]
    key = (await stage.client.post("/admin/keys", json={"tenant": tenant})).raise_for_status().json()["key"]
    theirs = {"authorization": f"Bearer {key}"}
    body = {"prompt": "resold", "seconds": 7, "end_user_id": "ann"}
    video = (await stage.client.post("/v1/videos", json=body, headers=theirs)).raise_for_status().json()

    async def completed() -> bool:
        shown = (await stage.client.get(f"/v1/videos/{video['id']}", headers=theirs)).json()
        return bool(shown["status"] == "completed")

    await eventually(completed)
    return tenant


async def _compared(stage: Stage, folder: Path) -> tuple[int, str]:
    """Exit code and output of the script, on what the command line printed."""
    _, report, _ = await stage.cli("report", "spend", "--by", "provider", "--format", "csv")
    _, unknown, _ = await stage.cli("attempts", "list", "--json")
    (folder / "report.csv").write_text(report)
    (folder / "unknown.json").write_text(unknown)
    script = [sys.executable, "tests/whole/compare_books.py", f"{stage.sellers.origin}/admin/books"]
    process = await asyncio.create_subprocess_exec(
        *script, str(folder / "report.csv"), str(folder / "unknown.json"), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await process.communicate()
    return process.returncode or 0, printed.decode()


async def _scene(folder: Path) -> Played:
    async with opened(folder, change=_rules, deadline_s=60) as stage:
        troupe = Troupe(stage)
        await _good(troupe)
        await _bad(troupe)
        # Cancelled before its seller took it, it would cost nothing.
        await stage.until(troupe.ids["cancelled"], lambda video: video["status"] != "queued")
        await stage.client.post(f"/v1/videos/{troupe.ids['cancelled']}/cancel")
        tenant = await _other_tenant(stage)
        await troupe.end()

        async def billed() -> bool:
            owed = "select count(*) from attempts where bearer is null and state not in ('unknown', 'running')"
            return rows(folder, owed) == rows(folder, "select count(*) from videos where hold = 'held'") == [(0,)]

        await eventually(billed)
        reports = {}
        for grouping in GROUPINGS:
            _, printed, _ = await stage.cli("report", "spend", "--by", grouping, "--format", "csv")
            reports[grouping] = list(csv.DictReader(io.StringIO(printed)))
        books = (await stage.admin.get("/admin/books")).json()
        compared = await _compared(stage, folder)
        own = (await stage.client.get("/v1/spend", params={"group_by": "tenant"})).json()["data"]
        return await troupe.played(reports=reports, books=books, compared=compared, tenant=tenant, own=own)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    return play(_scene, tmp_path_factory.mktemp("money"))


def test_the_script_finds_no_difference(played: Played) -> None:
    assert played.found["compared"] == (0, "the books agree\n")


def test_only_what_is_unknown_differs(played: Played) -> None:
    """EvoLink has taken its money for an order whose answer was lost."""
    differences = compare(played.found["books"], played.found["reports"]["provider"], [])
    assert [line.partition(":")[0] for line in differences] == ["evolink"]


@pytest.mark.parametrize("seller", PRICES)
def test_the_script_would_notice_one_micro_dollar(played: Played, seller: str) -> None:
    books = played.found["books"]
    unknown = [{"provider": "evolink", "possible_cost_usd": "0.794000"}]
    assert compare(books, played.found["reports"]["provider"], unknown) == []
    report = [dict(line) for line in played.found["reports"]["provider"]]
    for line in report:
        if line["provider"] == seller:
            line["seller_usd"] = f"{(microusd(line['seller_usd']) + 1) / 1e6:.6f}"
            line["charged_usd"] = f"{(microusd(line['charged_usd']) + 1) / 1e6:.6f}"
    assert len(compare(books, report, unknown)) == 1


@pytest.mark.parametrize("grouping", GROUPINGS)
def test_every_report_sums_to_the_ledger(played: Played, grouping: str) -> None:
    lines = played.found["reports"][grouping]
    ledger = dict(rows(played.folder, "select account, sum(amount_microusd) from ledger_postings group by account"))

    def total(prefix: str, suffix: str) -> int:
        return sum(
            amount for account, amount in ledger.items() if account.startswith(prefix) and account.endswith(suffix)
        )

    def reported(column: str) -> int:
        return sum(microusd(line[column]) for line in lines)

    assert reported("charged_usd") == total("tenant:", ":spend")
    assert reported("seller_usd") == -total("provider:", ":payable")
    assert reported("markup_usd") == -total("tenant:", ":markup")
    assert reported("absorbed_usd") == total("absorbed:", "")
    assert (
        sum(int(line["videos"]) for line in lines)
        == rows(played.folder, "select count(*) from videos where hold = 'posted'")[0][0]
    )


def test_every_video_costs_its_tenant_what_its_answer_says(played: Played) -> None:
    paid = {case: played.paid(case) for case in played.videos}
    expected: dict[str, Any] = {
        **{f"plain-{seller}": 4 * price for seller, price in PRICES.items()},
        "small": 4 * 91_900,
        "long": 11 * 160_800,
        "unfiltered": 4 * 198_500 * 11 // 10,
        "broken": 4 * PRICES["shortapi"],
        "broken-paid": 4 * PRICES["evolink"],
        "refused": 4 * PRICES["shortapi"],
        "shorter": 3 * PRICES["evolink"],
        "smaller": 4 * 140_600,
        "dear": 4 * PRICES["runflow"],
        "dear-twice": 4 * PRICES["shortapi"],
        "healed": 4 * PRICES["fal"],
        "cancelled": 4 * PRICES["runflow"],
        **dict.fromkeys(("blocked", "invalid", "overdue", "unknown"), 0),
    }
    assert {case: paid[case] for case in expected} == expected


def test_end_users_and_tenants_pay_for_their_own(played: Played) -> None:
    (resold,) = [
        line for line in played.found["reports"]["tenant"] if line["tenant"] in {played.found["tenant"], "resold"}
    ]
    price = 7 * PRICES["evolink"]
    assert microusd(resold["charged_usd"]) == price * (100 + MARKUP_PERCENT) // 100
    assert microusd(resold["markup_usd"]) == price * MARKUP_PERCENT // 100
    by_user = {line["end_user"]: microusd(line["charged_usd"]) for line in played.found["reports"]["end_user"]}
    mine = sum(played.paid(case) or 0 for case, video in played.videos.items() if video["end_user_id"] == "bob")
    assert by_user["bob"] == mine
    (own,) = played.found["own"]
    assert microusd(own["charged_usd"]) == sum(played.paid(case) or 0 for case in played.videos)


def test_metrics_and_ledger_tell_the_same_sums(played: Played) -> None:
    ledger = dict(rows(played.folder, "select account, sum(amount_microusd) from ledger_postings group by account"))
    spend = sum(amount for account, amount in ledger.items() if account.endswith(":spend"))
    absorbed = sum(amount for account, amount in ledger.items() if account.startswith("absorbed:"))
    assert played.metric("reelay_charged_usd_total") == pytest.approx(spend / 1e6)
    assert played.metric("reelay_absorbed_usd_total") == pytest.approx(absorbed / 1e6)
    for seller in PRICES:
        owed = -ledger[f"provider:{seller}:payable"] / 1e6
        assert played.metric("reelay_seller_cost_usd_total", provider=seller) == pytest.approx(owed)
    assert played.metric("reelay_held_usd") == 0


def test_ledger_balances_and_nothing_broke_in_all_of_this(played: Played) -> None:
    check_the_ledger(played.folder)
    check_the_log(played.folder)
