"""The verbs of those who keep the books, each on a database of its own."""

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from proxy.core.clock import system_clock
from proxy.services.report import SPEND_COLUMNS
from tests.office import Office, open_office
from tests.store.rows import make_settlement


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    with open_office(tmp_path) as office:
        yield office


def test_nothing_spent_is_told_in_every_form(office: Office) -> None:
    office.says("tenants", "create", "films")
    assert office.says("report", "spend") == "none\n"
    header = f"tenant,day,{','.join(SPEND_COLUMNS)}\n"
    assert office.says("report", "spend", "--by", "tenant,day", "--tenant", "films", "--format", "csv") == header
    report = json.loads(
        office.says("report", "spend", "--start", "2026-11-01", "--end", "2026-12-01", "--format", "json")
    )
    assert (report["start"], report["end"], report["data"]) == ("2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z", [])
    assert office.refuses("report", "spend", "--tenant", "nobody") == "There is no tenant 'nobody'."


def test_report_tells_columns_that_hold_something_and_savings_those_of_the_sellers(office: Office) -> None:
    office.says("migrate")
    assert office.says("report", "spend", "--by", "rule,metadata.team") == "none\n"
    assert office.says("report", "savings") == "none\n"
    cost = make_settlement(
        at=system_clock(), charged_microusd=794_000, seller_microusd=794_000, at_first_microusd=794_000,
        at_dearest_microusd=1_213_600, metadata='{"team":"ads"}',
    )  # fmt: skip
    columns = ", ".join(msgspec.structs.asdict(cost))
    marks = ", ".join("?" * len(msgspec.structs.asdict(cost)))
    with closing(sqlite3.connect(office.database)) as database, database:
        database.execute(f"INSERT INTO settlements ({columns}) VALUES ({marks})", msgspec.structs.astuple(cost))  # noqa: S608 - names of ours
    [head, row] = office.says("report", "savings", "--by", "rule,metadata.team").splitlines()
    assert head.split() == [
        "rule",
        "metadata.team",
        "videos",
        "charged_usd",
        "at_first_usd",
        "at_dearest_usd",
        "saved_usd",
    ]
    assert row.split() == ["default", "ads", "1", "0.794000", "0.794000", "1.213600", "0.419600"]
    [head, row] = office.says("report", "spend", "--by", "rule").splitlines()
    assert "absorbed_usd" not in head
    assert "charged_usd" in head


@pytest.mark.parametrize(
    "verb", ["audit", "report spend", "report savings", "statements list", "statements show x 2026-11", "log"]
)
def test_verb_that_only_reads_makes_no_database(office: Office, verb: str) -> None:
    assert "there is no database at" in office.refuses(*verb.split())
    assert not office.database.exists()


def test_draft_of_a_month_without_spending_is_empty_and_a_file_if_asked(office: Office, tmp_path: Path) -> None:
    office.says("tenants", "create", "films")
    total = [line for line in office.says("statements", "show", "films", "2030-01").splitlines() if ",total," in line]
    assert re.fullmatch("draft,total,.*,0.000000,0.00,,", total[0])
    assert json.loads(office.says("statements", "show", "films", "2030-01", "--format", "json"))["total_usd"] == "0.00"
    page = tmp_path / "page.html"
    assert office.says("statements", "show", "films", "2030-01", "--format", "html", "--out", str(page)) == ""
    assert page.read_text().startswith("<!doctype html>")
    assert office.says("statements", "show", "films", "2030-01", "--format", "charges").startswith("transaction,at,")
    assert "cannot be written" in office.refuses("statements", "show", "films", "2030-01", "--out", str(tmp_path))
    assert "no tenant 'nobody'" in office.refuses("statements", "show", "nobody", "2030-01")
    assert "such as 2026-11" in office.refuses("statements", "show", "films", "January")


def test_month_is_closed_and_the_log_tells_who_did_it(office: Office) -> None:
    office.says("migrate")
    assert office.says("statements", "close", "2020-01", "--reason", "a test") == "none\n"
    assert "is closed already" in office.refuses("statements", "close", "2020-01")
    assert "ten minutes after its end" in office.refuses("statements", "close", "2999-01")
    assert office.says("statements", "list") == "none\n"
    [act] = json.loads(office.says("log", "--json"))
    assert (act["actor"], act["action"], act["subject"], act["reason"]) == ("cli", "month.close", "2020-01", "a test")
    assert "month.close" in office.says("log")


def test_video_that_was_not_charged_is_not_refunded(office: Office) -> None:
    office.says("migrate")
    assert "Nothing was charged" in office.refuses("refund", "video_1", "1", "--reason", "flickers")


def test_prices_of_the_rules_are_listed_without_a_database_and_none_is_made(office: Office) -> None:
    assert json.loads(office.says("prices", "list", "--json"))
    assert not office.database.exists()


def test_price_is_set_listed_and_removed(office: Office) -> None:
    office.says("migrate")
    fast = ("--provider", "first", "--model", "seedance-2.0", "--tier", "fast", "--resolution", "720p")
    wish = (*fast, "--source", "a contract", "--usd-per-second")
    price = office.says("prices", "set", *wish, "0.2", "--starts", "2026-01-01", "--reason", "agreed").strip()
    assert price.startswith("price_")
    told = office.refuses("prices", "set", *wish, "0.3", "--starts", "2026-01-01")
    assert told == f"{price} is such a price from 2026-01-01 on; remove it first."
    assert "'usd_per_second' is USD from 0 to 1000" in office.refuses("prices", "set", *wish, "much")
    assert "A price needs 'usd_per_second' or" in office.refuses("prices", "set", *wish[:-1])
    later = office.says("prices", "set", *wish[:-1], "--usd-per-million-tokens", "9", "--starts", "2999-01-01").strip()
    listed = json.loads(office.says("prices", "list", "--model", "seedance", "--provider", "first", "--json"))
    assert listed == [], "no alias of the rules"
    with_video = office.says("prices", "set", *wish, "0.1", "--with-video").strip()
    (row,) = [row for row in office.says("prices", "list").splitlines() if row.split()[0] == with_video]
    assert "720p, with video" in row
    office.says("prices", "remove", with_video)
    every = json.loads(office.says("prices", "list", "--json"))
    assert {line["origin"] for line in every} == {"catalogue", "override"}
    own = [(line["id"], line["discounted_usd"], line["in_force"]) for line in every if line["override"]]
    assert own == [(price, "0.2", True), (later, "9", False)]
    table = office.says("prices", "list", "--provider", "first").splitlines()
    assert (table[0].split()[0], len(table)) == ("id", 1 + len(every))
    office.says("prices", "list", "--sandbox")
    assert office.says("prices", "remove", price, "--reason", "over") == f"{price} is removed.\n"
    assert "No price" in office.refuses("prices", "remove", price)
    with closing(sqlite3.connect(office.database)) as database:
        acts = database.execute("SELECT actor, action, subject, reason FROM admin_log ORDER BY at, id").fetchall()
    assert [act for act in acts if act[2] == price] == [
        ("cli", "price.set", price, "agreed"),
        ("cli", "price.remove", price, "over"),
    ]
