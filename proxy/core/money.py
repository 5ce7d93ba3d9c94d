"""Whole micro-dollars: read, multiply, round, print. No float comes near."""

import re
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Decimal, InvalidOperation

MICRO = Decimal(1_000_000)
ABSURD_USD = Decimal(1_000_000)
"""No seller takes more than this for one video."""

# Rounded to this before it is multiplied: a product is cut at 28 digits, and may fall below the exact amount.
_STEP = Decimal("0.000001")


def parse_usd(text: str) -> Decimal:
    """A decimal string in USD, plain ASCII digits. Raises ValueError on anything else, an underscore too."""
    if not re.fullmatch(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?", text):
        raise ValueError(f"{text!r} is not a decimal number")
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{text!r} is not a decimal number") from None
    if not value.is_finite():
        raise ValueError(f"{text!r} is not a finite number")
    return value


def exact_microusd(text: str, *, most: int) -> int | None:
    """Plain digits with six decimals at most, as what they are; None for anything else, and beyond `most`."""
    if not re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,6})?", text):
        return None
    whole, _, micro = text.partition(".")
    microusd = int(whole) * 1_000_000 + int(micro.ljust(6, "0"))
    return microusd if microusd <= most else None


def microusd_up(usd: Decimal) -> int:
    """For quotes and holds: never less than the exact amount."""
    return int(usd.quantize(_STEP, rounding=ROUND_CEILING) * MICRO)


def microusd_even(usd: Decimal) -> int:
    """For settlements: half goes to the even neighbour, once."""
    return int(usd.quantize(_STEP, rounding=ROUND_HALF_EVEN) * MICRO)


def stated_microusd(value: object) -> int | None:
    """
    What a seller says it took, from its decimal string or number; None where it says nothing.

    Raises ValueError for a negative, absurd or unreadable amount: a broken figure is not nothing.
    """
    if value is None:
        return None
    usd = parse_usd(str(value))
    if not 0 <= usd <= ABSURD_USD:
        raise ValueError(f"{value!r} is no price of a video")
    return microusd_even(usd)


def usd_text(microusd: int) -> str:
    """A decimal string with six places: "0.992500"."""
    sign = "-" if microusd < 0 else ""
    whole, micro = divmod(abs(microusd), 1_000_000)
    return f"{sign}{whole}.{micro:06d}"
