"""What can be bought, at what price, and in which order to try it."""

from typing import Any, Literal

import msgspec

from proxy.core.video import Operation

PriceBasis = Literal["listed", "derived"]
PriceOrigin = Literal["catalogue", "rules", "override"]
InputSeconds = Literal["added", "longest_added"]
"""
How a seller bills the seconds of reference videos beside those of the film.

added: both. longest_added: those of the film, and again whichever of the two is longer.
"""

ExclusionReason = Literal[
    "operation",
    "resolution",
    "aspect_ratio",
    "seconds",
    "generate_audio",
    "seed",
    "content_filter",
    "tier",
    "web_search",
    "prompt",
    "no_price",
    "provider_off",
    "not_pinned",
    "rule",
    "over_price",
    "too_slow",
    "over_budget",
]
"""The part that cannot be met. `rule`: the rule's or the request's `only`, `ignore`, `order`."""


class Price(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of the price book; a change is a new entry with a later start."""

    id: str
    """Unique in the book; every posting names it."""
    resolution: str
    with_video: bool = False
    """Whether it is the price where a video is among the references."""
    usd_per_second: str | None = None
    """List price, a decimal string; audio is included. None: it is stated by tokens."""
    usd_per_million_tokens: str | None = None
    """The same by the tokens that the film is made of; None: it is stated by seconds."""
    starts: str
    """ISO date, UTC, inclusive."""
    source: str
    """Where the figure stands."""
    basis: PriceBasis
    """derived: computed, not seen in print; held at 1.25 times."""
    origin: PriceOrigin = "catalogue"


class PriceOverride(msgspec.Struct, frozen=True):
    """A dated price that an operator set while the server works; catalogue and rules give way to it."""

    id: str
    """That of the price too, never given to another."""
    provider: str
    model: str
    tier: str
    operation: str
    resolution: str
    with_video: int
    usd_per_second: str | None
    usd_per_million_tokens: str | None
    starts: str
    """ISO date, UTC, inclusive."""
    source: str
    basis: PriceBasis
    created_at: int
    removed_at: int | None = None
    """None: it holds."""

    @property
    def offer(self) -> str:
        """The id of the offer that it is of."""
        return f"{self.provider}/{self.model}/{self.tier}/{self.operation}"

    @property
    def price(self) -> Price:
        return Price(
            id=self.id,
            resolution=self.resolution,
            with_video=bool(self.with_video),
            usd_per_second=self.usd_per_second,
            usd_per_million_tokens=self.usd_per_million_tokens,
            starts=self.starts,
            source=self.source,
            basis=self.basis,
            origin="override",
        )


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """One provider's way to make one model."""

    id: str
    """`<provider>/<model>/<tier>/<operation>`."""
    provider: str
    adapter: str
    model: str
    operation: Operation
    tier: str
    seller_model: str
    """The seller's own model id."""
    resolutions: tuple[str, ...]
    aspect_ratios: tuple[str, ...]
    """`auto` among them where the seller can choose."""
    min_seconds: int
    max_seconds: int
    auto_seconds: bool
    audio: Literal["switch", "always", "never"]
    seed: bool
    filter_switch: bool
    """False: the seller always filters."""
    web_search: bool
    prompt_max_chars: int | None
    """None: the seller prints no limit."""
    cancel: bool
    callbacks: Literal["none", "http", "https"]
    """What the seller calls back: nothing, any URL, or https only."""
    link_lifetime_s: int
    """How long the seller's link to the file lives, at least."""
    expected_s: dict[str, tuple[float, float]]
    """Resolution to (fixed seconds, seconds per second of film) from accept to file."""
    submit_timeout_s: float
    prices: tuple[Price, ...]
    filter_off_factor: str = "1"
    """Surcharge when `content_filter` is false, a decimal string."""
    web_search_usd: str = "0"
    """Surcharge per video with web search."""
    input_seconds: InputSeconds | None = None
    """None: those of reference videos are not billed."""

    def expected_time_s(self, resolution: str, seconds: int) -> float:
        """From accept to file, by the catalogue."""
        fixed, per_second = self.expected_s[resolution]
        return fixed + per_second * seconds


class Exclusion(msgspec.Struct, frozen=True, kw_only=True):
    """Why an offer is not in the plan."""

    offer: str
    provider: str
    reason: ExclusionReason
    detail: str
    """A sentence for people; names the part that cannot be met and what could be."""


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """An offer kept in the plan, with its figures frozen at accept."""

    offer: str
    provider: str
    seller_model: str
    tier: str
    price_id: str
    basis: PriceBasis
    rates: dict[str, str]
    """Resolution to USD per second after discount and surcharges, before markup; the asked one and those below it."""
    fixed_usd: str
    """Per video on top of the seconds, after discount, before markup; a decimal string."""
    seller_microusd: int
    """Expected price at the seller, rounded up; `auto` length at its longest."""
    quote_microusd: int
    """The same with the tenant's markup, rounded up: what the tenant would pay."""
    hold_microusd: int
    """The quote, or 1.25 times it where the price is derived."""
    expected_s: float
    link_lifetime_s: int
    submit_timeout_s: float
    reason: str
    """A sentence: why it ranks here."""
    input_seconds: InputSeconds | None = None
    """As the offer's."""


class Passed(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of an offer that could have made it and will not be asked: its price, as of a Candidate."""

    offer: str
    rates: dict[str, str]
    fixed_usd: str
    input_seconds: InputSeconds | None = None


class FallbackPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """When another offer is tried, and for how long."""

    max_attempts: int
    on: frozenset[str]
    deadline_s: int
    on_unknown: Literal["wait", "fallback"]
    on_moderation: Literal["stop", "next"]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The ordered offers for a spec, and the excluded with their reasons."""

    rule: str
    strategy: str
    candidates: tuple[Candidate, ...]
    """In the order of trying; more than `fallback.max_attempts` are kept for the quote alone."""
    excluded: tuple[Exclusion, ...]
    fallback: FallbackPolicy
    bill_failed_attempts: bool
    changed: dict[str, tuple[Any, Any]]
    """Fields that the rule changed against the client's word: asked, given."""
    rules_hash: str
    book_hash: str
    markup: str
    """The tenant's, frozen with the prices."""
    dearest: Passed | None = None
    """The dearest that could have made it, where that one is not kept."""

    @property
    def kept(self) -> tuple[Candidate, ...]:
        """Those that may be tried."""
        return self.candidates[: self.fallback.max_attempts]

    @property
    def hold_microusd(self) -> int:
        """The dearest of the kept; where failed attempts are billed, their sum."""
        holds = [candidate.hold_microusd for candidate in self.kept]
        return sum(holds) if self.bill_failed_attempts else max(holds)
