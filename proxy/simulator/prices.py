"""What each seller takes: its own list, read from its own pages. Micro-dollars for one second."""

MICROUSD_PER_SECOND: dict[tuple[str, str, str], int] = {
    ("runflow", "standard", "480p"): 140_600,
    ("runflow", "standard", "720p"): 303_400,
    ("runflow", "standard", "1080p"): 680_400,
    ("runflow", "fast", "480p"): 112_500,
    ("runflow", "fast", "720p"): 241_900,
    # The older API's page says a third of this, without a size and long ago.
    ("runflow-legacy", "standard", "480p"): 140_600,
    ("runflow-legacy", "standard", "720p"): 303_400,
    ("fal", "standard", "480p"): 140_600,
    ("fal", "standard", "720p"): 303_400,
    ("fal", "fast", "480p"): 112_500,
    ("fal", "fast", "720p"): 241_900,
    ("shortapi", "standard", "720p"): 240_000,
    ("shortapi", "fast", "720p"): 200_000,
    ("evolink", "standard", "480p"): 91_900,
    ("evolink", "standard", "720p"): 198_500,
    ("evolink", "standard", "1080p"): 495_000,
    ("evolink", "fast", "480p"): 74_500,
    ("evolink", "fast", "720p"): 160_800,
    ("evolink", "mini", "480p"): 37_600,
    # Nobody prints this one: the 480p figure, scaled as the standard tier's two are.
    ("evolink", "mini", "720p"): 81_200,
}
"""By seller, tier and resolution. 480p and 1080p of Runflow and fal, and EvoLink's 1080p, are derived."""

MILLICREDITS_PER_SECOND: dict[tuple[str, str], int] = {
    ("standard", "480p"): 6_251,
    ("standard", "720p"): 13_500,
    ("standard", "1080p"): 33_673,
    ("fast", "480p"): 5_063,
    ("fast", "720p"): 10_935,
    ("mini", "480p"): 2_558,
    ("mini", "720p"): 5_524,
}
"""EvoLink's currency; a credit is about 0.0147 USD."""


def price_microusd(seller: str, tier: str, resolution: str, *, seconds: int, content_filter: bool = True) -> int:
    """The price of a whole clip; a filter switched off costs a tenth more, where there is a switch."""
    price = MICROUSD_PER_SECOND[seller, tier, resolution] * seconds
    return price if content_filter else price * 11 // 10


def price_millicredits(tier: str, resolution: str, *, seconds: int, content_filter: bool) -> int:
    price = MILLICREDITS_PER_SECOND[tier, resolution] * seconds
    return price if content_filter else price * 11 // 10


def dollars(microusd: int, *, places: int = 6) -> str:
    """A decimal string, cut after so many places."""
    text = f"{microusd // 1_000_000}.{microusd % 1_000_000:06d}"
    return text[: len(text) - 6 + places]
