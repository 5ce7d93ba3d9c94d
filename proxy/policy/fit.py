"""Whether an offer can do what is needed, and what it would cost and take if it can."""

from typing import Any, Literal

import msgspec

from proxy.core.errors import PriceMissing
from proxy.core.money import usd_text
from proxy.core.offer import ExclusionReason, Offer
from proxy.core.video import Spec
from proxy.policy.budgets import UNBOUND, Standing
from proxy.policy.pace import LearnedTimes
from proxy.policy.prices import Quote, Rated, billed_seconds, quote, rate
from proxy.policy.rules import Rules

_MOST_FIGURES = 10_000
"""Markups are the tenants' own, so the short cut could grow without end; it starts again instead."""


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """A Spec with everything else that an offer has to meet."""

    spec: Spec
    required: frozenset[str]
    """Wishes that count as requirements: what the client stated (but its seed), and the rule's `require`."""
    pin: str | None
    rule_allows: frozenset[str] | None
    """Providers that the rule leaves; None: all."""
    wish_allows: frozenset[str] | None
    """Providers that the request's `routing` leaves; None: all."""
    max_price_microusd: int | None
    max_wait_s: int | None
    markup: str
    day: str
    """ISO date, UTC, for the price in force."""
    budget: Standing = UNBOUND
    times: LearnedTimes | None = None
    """None: nothing is learned, and the catalogue's times hold."""


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What an offer would cost and take."""

    rated: Rated
    quote: Quote
    expected_s: float


def fit(offer: Offer, need: Need, rules: Rules) -> Figures | ExclusionReason:
    """The figures of an offer that fits, or the first reason why it does not."""
    fault = _fault(offer, need, rules)
    if fault is not None:
        return fault
    figures = figures_of(offer, need, rules)
    if figures is None:
        return "no_price"
    if need.max_price_microusd is not None and figures.quote.tenant_microusd > need.max_price_microusd:
        return "over_price"
    if need.budget.left_microusd is not None and figures.quote.hold_microusd > need.budget.left_microusd:
        return "over_budget"
    if need.max_wait_s is not None and figures.expected_s > need.max_wait_s:
        return "too_slow"
    return figures


def _fault(offer: Offer, need: Need, rules: Rules) -> ExclusionReason | None:
    spec, provider = need.spec, offer.provider
    if offer.operation != spec.operation:
        return "operation"
    if need.pin is not None and provider != need.pin:
        return "not_pinned"
    if not rules.accounts[provider].on:
        return "provider_off"
    if need.rule_allows is not None and provider not in need.rule_allows:
        return "rule"
    if need.wish_allows is not None and provider not in need.wish_allows:
        return "rule"
    if offer.tier != spec.tier:
        return "tier"
    if spec.resolution not in offer.resolutions:
        return "resolution"
    if spec.aspect_ratio not in offer.aspect_ratios:
        return "aspect_ratio"
    if not _makes_length(offer, spec.seconds):
        return "seconds"
    return _missing_ability(offer, spec, need.required)


def _makes_length(offer: Offer, seconds: int | None) -> bool:
    return offer.auto_seconds if seconds is None else offer.min_seconds <= seconds <= offer.max_seconds


def _missing_ability(offer: Offer, spec: Spec, required: frozenset[str]) -> ExclusionReason | None:
    if not spec.content_filter and not offer.filter_switch:
        return "content_filter"
    if "generate_audio" in required and offer.audio == ("never" if spec.generate_audio else "always"):
        return "generate_audio"
    if "web_search" in required and spec.web_search and not offer.web_search:
        return "web_search"
    if "seed" in required and spec.seed is not None and not offer.seed:
        return "seed"
    if offer.prompt_max_chars is not None and len(spec.prompt) > offer.prompt_max_chars:
        return "prompt"
    return None


def figures_of(offer: Offer, need: Need, rules: Rules) -> Figures | None:
    """Price and time of an offer that makes the asked resolution; None: no price is in force."""
    figures, spec = _by_catalogue(offer, need, rules), need.spec
    if figures is None or need.times is None:
        return figures
    expected_s = need.times.expected_s(offer, spec.resolution, spec.seconds)
    if expected_s is None:
        return figures
    return Figures(rated=figures.rated, quote=figures.quote, expected_s=expected_s)


def _by_catalogue(offer: Offer, need: Need, rules: Rules) -> Figures | None:
    """What stands in rules and catalogue, worked out once; what is learned changes and is not kept."""
    spec, known = need.spec, rules.figures
    key = (
        offer.id,
        spec.resolution,
        spec.aspect_ratio,
        spec.seconds,
        spec.content_filter,
        spec.web_search,
        spec.input_video_s,
        need.markup,
        need.day,
    )
    found: Figures | Literal["unknown"] | None = known.get(key, "unknown")
    if found != "unknown":
        return found
    if len(known) >= _MOST_FIGURES:
        known.clear()
    figures = known[key] = _work_out(offer, need, rules)
    return figures


def _work_out(offer: Offer, need: Need, rules: Rules) -> Figures | None:
    spec = need.spec
    seconds = offer.max_seconds if spec.seconds is None else spec.seconds
    try:
        rated = rate(offer, spec, need.day, discount=rules.accounts[offer.provider].discount)
    except PriceMissing:
        return None
    return Figures(
        rated=rated,
        quote=quote(rated, billed_seconds(offer.input_seconds, seconds, spec.input_video_s), need.markup),
        expected_s=offer.expected_time_s(spec.resolution, seconds),
    )


def detail(reason: ExclusionReason, offer: Offer, need: Need, rules: Rules) -> str:
    """A sentence for people. It names no seller: those who may not see one still see the sentence."""
    spec = need.spec
    if reason in {"over_price", "over_budget", "too_slow"}:
        return _beyond_limit(reason, offer, need, rules)
    sentences: dict[str, str] = {
        "operation": f"makes {offer.operation}, not {spec.operation}",
        "not_pinned": "the request names another provider",
        "provider_off": "the provider is switched off or has no key",
        "rule": "the rule or the request's routing leaves this provider out",
        "tier": f"makes tier {offer.tier}, not {spec.tier}",
        "resolution": f"makes {', '.join(offer.resolutions)}, not {spec.resolution}",
        "aspect_ratio": f"makes {', '.join(offer.aspect_ratios)}, not {spec.aspect_ratio}",
        "seconds": f"makes {lengths(offer)}, not {shown('seconds', spec.seconds)}",
        "content_filter": "always filters; content_filter cannot be false here",
        "generate_audio": f"{offer.audio} makes sound; generate_audio cannot be {shown('', spec.generate_audio)} here",
        "web_search": "cannot search the web",
        "seed": "takes no seed, which the rule requires",
        "prompt": f"takes prompts of up to {offer.prompt_max_chars} characters, not {len(spec.prompt)}",
        "no_price": f"has no price for {spec.resolution} on {need.day}",
    }
    return sentences[reason]


def _beyond_limit(reason: ExclusionReason, offer: Offer, need: Need, rules: Rules) -> str:
    figures = figures_of(offer, need, rules)
    assert figures is not None
    if reason == "over_price":
        limit = usd_text(need.max_price_microusd or 0)
        return f"costs ${usd_text(figures.quote.tenant_microusd)}; the limit is ${limit}"
    if reason == "over_budget":
        left = usd_text(need.budget.left_microusd or 0)
        return f"holds ${usd_text(figures.quote.hold_microusd)}; the budget leaves ${left}"
    return f"is expected to take {figures.expected_s:.0f} s; the limit is {need.max_wait_s} s"


def lengths(offer: Offer) -> str:
    whole = f"{offer.min_seconds} to {offer.max_seconds} s"
    return f"{whole} or auto" if offer.auto_seconds else whole


def shown(field: str, value: Any) -> str:
    """A value as a client writes it."""
    if value is None:
        return "auto" if field == "seconds" else "none"
    return str(value).lower() if isinstance(value, bool) else str(value)
