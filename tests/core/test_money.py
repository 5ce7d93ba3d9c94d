"""Money is whole micro-dollars: never less than exact in quotes, fair in settlements, the same when read back."""

import contextlib
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.core.money import (
    ABSURD_USD,
    exact_microusd,
    microusd_even,
    microusd_up,
    parse_usd,
    stated_microusd,
    usd_text,
)

AMOUNTS = st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**9), max_value=10**9)
WHOLE = st.integers(-(2**63), 2**63 - 1)


@given(AMOUNTS)
@example(Decimal("0.0000010000000000000000000000000000001"))
@example(Decimal("1E-400"))
def test_quote_is_never_below_the_exact_amount_nor_a_micro_dollar_above(usd: Decimal) -> None:
    exact = Fraction(usd) * 1_000_000
    assert exact <= microusd_up(usd) < exact + 1


@given(AMOUNTS)
@example(Decimal("0.0000005"))
@example(Decimal("0.00000050000000000000000000000000000001"))
def test_settlement_is_the_nearest_micro_dollar(usd: Decimal) -> None:
    assert microusd_even(usd) == round(Fraction(usd) * 1_000_000), "Python rounds halves of fractions to even too"


@pytest.mark.parametrize(
    ("usd", "up", "even"),
    [
        ("0", 0, 0),
        ("0.0000005", 1, 0),
        ("0.0000015", 2, 2),
        ("0.0000025", 3, 2),
        ("-0.0000015", -1, -2),
        ("0.9925", 992_500, 992_500),
        ("0.00000000001", 1, 0),
    ],
)
def test_halves_go_up_in_quotes_and_to_even_in_settlements(usd: str, up: int, even: int) -> None:
    assert (microusd_up(Decimal(usd)), microusd_even(Decimal(usd))) == (up, even)


@given(WHOLE)
def test_printed_amount_reads_back_as_itself(microusd: int) -> None:
    usd = parse_usd(usd_text(microusd))
    assert microusd_up(usd) == microusd_even(usd) == microusd


@pytest.mark.parametrize(
    ("microusd", "text"),
    [(0, "0.000000"), (1, "0.000001"), (-1, "-0.000001"), (992_500, "0.992500"), (-3_000_000, "-3.000000")],
)
def test_amount_is_printed_with_six_places(microusd: int, text: str) -> None:
    assert usd_text(microusd) == text


@pytest.mark.parametrize(
    "text", ["", " ", "abc", "1,5", "1.2.3", "$1", "0x10", "--1", "NaN", "sNaN", "inf", "-Infinity"]
)
def test_text_that_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a (decimal|finite) number"):
        parse_usd(text)


@given(st.text())
def test_any_text_is_an_amount_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert parse_usd(text).is_finite()


@pytest.mark.parametrize(
    ("value", "microusd"),
    [(None, None), (0, 0), ("0", 0), ("0.35", 350_000), (0.1, 100_000), (2, 2_000_000), ("1e-7", 0), (1e-07, 0)],
)
def test_what_a_seller_says_it_took_is_read_from_text_or_number(value: object, microusd: int | None) -> None:
    assert stated_microusd(value) == microusd


def test_most_that_a_seller_may_take_is_itself_no_absurdity() -> None:
    assert stated_microusd(str(ABSURD_USD)) == 1_000_000_000_000


@pytest.mark.parametrize("value", [-1, "-0.000001", "1000000.01", "1e999999", True, [], "", "free", float("nan")])
def test_broken_figure_of_a_seller_is_not_nothing(value: object) -> None:
    with pytest.raises(ValueError, match=r"is no price of a video|is not a (decimal|finite) number"):
        stated_microusd(value)


@pytest.mark.parametrize("text", ["1_0", "\uff11\uff10", " 1", "1.", ".5", "0x1", "NaN", "1e9999"])
def test_amount_is_plain_digits_and_nothing_else(text: str) -> None:
    with pytest.raises(ValueError, match="decimal"):
        parse_usd(text)


@given(st.integers(0, 10**15))
def test_what_is_written_out_is_read_exactly(microusd: int) -> None:
    assert exact_microusd(usd_text(microusd), most=10**15) == microusd


@pytest.mark.parametrize(
    "text", ["", "-1", "+1", "1e3", "1_0", ".5", "1.", "0.0000001", "1.0000000", "\u0661", "9" * 13]
)
def test_what_is_no_plain_amount_is_nothing(text: str) -> None:
    assert exact_microusd(text, most=10**18) is None


def test_amount_beyond_the_most_is_nothing() -> None:
    assert exact_microusd("5.000001", most=5_000_000) is None
    assert exact_microusd("5", most=5_000_000) == 5_000_000
