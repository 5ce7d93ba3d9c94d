"""A statement on paper shows every figure, and nothing that a stranger wrote does anything there."""

import re
from html import unescape

import pytest

from proxy.api.paper import as_html
from tests.api.told import NAMES, make_statement


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
