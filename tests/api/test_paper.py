"""A statement says the same on paper, as CSV and as JSON, and adds up in each."""

import csv
import io
import re
from decimal import Decimal
from html import unescape
from typing import Any

import pytest

from proxy.api.paper import COLUMNS, as_csv, as_html, as_object, cents_text
from proxy.services.charges import read_month
from proxy.services.statements import EndUserLine, RefundLine, SkuLine, Statement

NOVEMBER = read_month("2026-11")
NAMES = {"eu_1": "ann <b>&", "eu_2": None, "eu_3": "=HYPERLINK(1)"}


def make_statement(**fields: Any) -> Statement:
    sku = {"tier": "standard", "operation": "text-to-video", "resolution": "720p"}
    lines = (
        SkuLine(
            model="seedance-2.0",
            outcome="delivered",
            unit_usd="0.1985",
            videos=1234,
            seconds=6170,
            microusd=1_224_745_000,
            cents=122_475,
            **sku,
        ),
        SkuLine(
            model="seedance-2.0", outcome="billed", unit_usd=None, videos=1, seconds=0, microusd=5_000, cents=1, **sku
        ),
    )
    refunds = (
        RefundLine(
            id="video_9/1/refund-1",
            at=NOVEMBER.start + 1,
            charge="video_9/1/post",
            charged_at=NOVEMBER.start - 1,
            corrects="2026-10-0007",
            reason="flickers <i>",
            microusd=-1_004_999,
            cents=-100,
        ),
    )
    users = (
        EndUserLine(end_user="", videos=1, charged_microusd=745_000, refunded_microusd=0),
        EndUserLine(end_user="eu_1", videos=1233, charged_microusd=1_224_005_000, refunded_microusd=1_004_999),
        EndUserLine(end_user="eu_2", videos=1, charged_microusd=0, refunded_microusd=0),
        EndUserLine(end_user="eu_3", videos=0, charged_microusd=0, refunded_microusd=0),
    )
    defaults: dict[str, Any] = {
        "number": "2026-11-0001",
        "tenant_id": "tenant_1",
        "tenant_name": "Films & <Co>",
        "month": "2026-11",
        "start": NOVEMBER.start,
        "end": NOVEMBER.end,
        "made_at": NOVEMBER.end + 10**9,
        "software": "Reelay 1",
        "books": ("abcdef0123456789",),
        "lines": lines,
        "refunds": refunds,
        "end_users": users,
        "total_microusd": 1_223_745_001,
        "total_cents": 122_375,
        "rounding_cents": -1,
        "held_microusd": 794_000,
        "charges": 1236,
        "charges_sha256": "5e" * 32,
    }
    return Statement(**defaults | fields)


def test_cents_are_written_with_their_sign() -> None:
    assert [cents_text(cents) for cents in (0, 7, -7, 123_450, -100)] == ["0.00", "0.07", "-0.07", "1234.50", "-1.00"]


def test_csv_adds_up_to_what_is_paid() -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(make_statement(), NAMES))))
    assert tuple(rows[0]) == COLUMNS
    assert {row["statement"] for row in rows} == {"2026-11-0001"}

    def amounts(column: str, *kinds: str) -> Decimal:
        return sum((Decimal(row[column] or "0") for row in rows if row["kind"] in kinds), Decimal(0))

    assert amounts("amount_usd", "sku", "refund", "rounding") == amounts("amount_usd", "total") == Decimal("1223.75")
    assert amounts("exact_usd", "sku", "refund") == amounts("exact_usd", "end_user") == amounts("exact_usd", "total")


def test_csv_of_a_stranger_calculates_nothing() -> None:
    """A spreadsheet takes a cell that begins so for a formula; an end user's name may begin with anything."""
    rows = list(csv.DictReader(io.StringIO(as_csv(make_statement(), NAMES))))
    [row] = [row for row in rows if row["end_user_ref"] == "eu_3"]
    assert row["end_user"] == "'=HYPERLINK(1)"


def test_draft_says_so_in_every_form() -> None:
    draft = make_statement(number=None)
    assert "Draft: the month is open" in as_html(draft, NAMES)
    assert as_object(draft, NAMES)["final"] is False
    assert as_csv(draft, NAMES).splitlines()[1].startswith("draft,")
    assert "Draft" not in as_html(make_statement(), NAMES)


def test_json_tells_all_of_it_in_decimal_strings() -> None:
    told = as_object(make_statement(), NAMES)
    assert (told["total_usd"], told["exact_usd"], told["rounding_usd"]) == ("1223.75", "1223.745001", "-0.01")
    assert (told["start"], told["end"]) == ("2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z")
    assert [line["end_user"] for line in told["end_users"]] == [None, "ann <b>&", "erased-eu_2", "=HYPERLINK(1)"]


@pytest.mark.parametrize("number", ["2026-11-0001", None])
def test_page_shows_every_figure_and_nothing_from_elsewhere(number: str | None) -> None:
    page = as_html(make_statement(number=number), NAMES)
    assert not re.search(r"<(script|link|img|iframe)|https?://|url\(|@import", page)
    assert "<b>&" not in page
    assert "<i>" not in page
    text = unescape(re.sub(r"<[^>]+>", " ", page))
    for figure in (
        "Films & <Co> (tenant_1)",
        "1,224.75",
        "1,224.745000",
        "0.1985",
        "1,234",
        "6,170",
        "-1.00",
        "-1.004999",
        "-0.01",
        "1,223.75",
        "1,223.745001",
        "2026-10-0007",
        "flickers <i>",
        "ann <b>&",
        "erased-eu_2",
        "(none)",
        "0.794000",
        "1,236",
        "5e" * 32,
        "abcdef012345",
        "various",
        "not delivered",
    ):
        assert figure in text, figure


def test_statement_without_refunds_has_no_section_for_them() -> None:
    plain = make_statement(refunds=())
    assert "Refunds" not in as_html(plain, NAMES)
    assert "Refunds and corrections" in as_html(make_statement(), NAMES)
