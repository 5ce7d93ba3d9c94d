"""A statement says the same as CSV and as JSON, and adds up in each."""

import csv
import io
from decimal import Decimal

import msgspec

from proxy.api.paper import as_html
from proxy.api.statement_objects import COLUMNS, as_csv, as_object, cents_text
from tests.api.told import NAMES, make_statement


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
    assert as_object(draft, NAMES).final is False
    assert as_csv(draft, NAMES).splitlines()[1].startswith("draft,")
    assert "Draft" not in as_html(make_statement(), NAMES)


def test_json_tells_all_of_it_in_decimal_strings() -> None:
    told = msgspec.to_builtins(as_object(make_statement(), NAMES))
    assert (told["total_usd"], told["exact_usd"], told["rounding_usd"]) == ("1223.75", "1223.745001", "-0.01")
    assert (told["start"], told["end"]) == ("2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z")
    assert [line["end_user"] for line in told["end_users"]] == [None, "ann <b>&", "erased-eu_2", "=HYPERLINK(1)"]
