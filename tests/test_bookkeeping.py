"""The verbs of those who keep the books, each on a database of its own."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.services.report import SPEND_COLUMNS
from tests.office import Office, open_office


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


def test_savings_and_every_other_column_are_left_out_where_they_are_nothing(office: Office) -> None:
    assert office.says("report", "spend", "--by", "rule,metadata.team") == "none\n"


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
    assert office.says("statements", "close", "2020-01", "--reason", "a test") == "none\n"
    assert "is closed already" in office.refuses("statements", "close", "2020-01")
    assert "ten minutes after its end" in office.refuses("statements", "close", "2999-01")
    assert office.says("statements", "list") == "none\n"
    [act] = json.loads(office.says("log", "--json"))
    assert (act["actor"], act["action"], act["subject"], act["reason"]) == ("cli", "month.close", "2020-01", "a test")
    assert "month.close" in office.says("log")


def test_video_that_was_not_charged_is_not_refunded(office: Office) -> None:
    assert "Nothing was charged" in office.refuses("refund", "video_1", "1", "--reason", "flickers")
