"""What strangers wrote is text in a spreadsheet, and figures stay figures."""

import pytest

from proxy.core.sheets import as_csv, safe


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@sum", "\t=1", "\r=1"])
def test_formula_is_marked_as_text(text: str) -> None:
    assert safe(text) == f"'{text}"


@pytest.mark.parametrize("text", [None, "", "ann", "a=b", "'=1", " =1", "1"])
def test_other_text_is_left_alone(text: str | None) -> None:
    assert safe(text) == text


def test_rows_are_quoted_where_they_must_be_and_null_is_empty() -> None:
    assert as_csv([("a", 1, None), ('say "hi", then go', -5, "")]) == 'a,1,\n"say ""hi"", then go",-5,\n'
