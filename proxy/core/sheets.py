"""CSV that spreadsheets may open."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def safe(text: str | None) -> str | None:
    """What strangers wrote, marked as text where a spreadsheet would take it for a formula."""
    return f"'{text}" if text is not None and text.startswith(_FORMULA) else text


def as_csv(rows: Iterable[Sequence[Any]]) -> str:
    """Null is an empty field."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(["" if value is None else value for value in row] for row in rows)
    return out.getvalue()
