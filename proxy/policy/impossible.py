"""Why nothing can be bought, and which single change would do: the message of `unsupported_request`."""

from collections.abc import Iterable
from typing import Any

import msgspec

from proxy.core.errors import InsufficientQuota, NoProviderAvailable, ReelayError, Unsupported
from proxy.core.money import usd_text
from proxy.core.video import ASPECT_RATIOS, MAX_SECONDS, MIN_SECONDS, RESOLUTIONS, TIERS, Ask
from proxy.policy.budgets import UNBOUND, Standing
from proxy.policy.fit import Figures, Need, figures_of, fit, shown
from proxy.policy.rules import Rule, Rules
from proxy.policy.when import OPERATIONS

_CHOICES: dict[str, tuple[Any, ...]] = {
    "resolution": RESOLUTIONS,
    "tier": TIERS,
    "aspect_ratio": (*ASPECT_RATIOS, "auto"),
    "seconds": (*range(MIN_SECONDS, MAX_SECONDS + 1), None),
    "generate_audio": (True, False),
    "content_filter": (True,),
    "web_search": (False,),
    "seed": (None,),
    "operation": OPERATIONS,
}


_PERIODS = {"day": "today's budget", "month": "this month's budget", "total": "the budget"}
_WHOSE = {
    "tenant": "tenant",
    "key": "key",
    "end_user": "end user",
    "each_end_user": "end user",
    "no_end_user": "tenant for requests without an end user",
}


class _Way(msgspec.Struct, frozen=True, kw_only=True):
    """One change that would make the request possible."""

    part: str
    """What stands against the rest now: "resolution 1080p"."""
    possible: str
    """What it could be: "resolution 480p, 720p"."""
    param: str | None
    stated: bool


def nothing_fits(need: Need, ask: Ask, rule: Rule, rules: Rules) -> ReelayError:
    """The error to raise where no offer fits: NoProviderAvailable, InsufficientQuota, or Unsupported with the field."""
    offers = rules.by_model[need.spec.model]
    if not any(rules.accounts[offer.provider].on for offer in offers):
        return NoProviderAvailable(f"no provider of {need.spec.model} is switched on")
    affordable = _figures(msgspec.structs.replace(need, budget=UNBOUND), rules)
    if affordable:
        return over_budget(need.budget, min(one.quote.hold_microusd for one in affordable))
    need = msgspec.structs.replace(need, budget=UNBOUND)
    ways = [*_other_values(need, ask, rules), *_other_prompt(need, rules), *_other_routing(need, ask, rule, rules)]
    found = [fit(offer, need, rules) for offer in offers]
    if not ways:
        return _too_much_at_once(need, ask, rules, [reason for reason in found if isinstance(reason, str)])
    lacking = "has a price for" if "no_price" in found else "can do"
    return Unsupported(
        f"no offer {lacking} {' with '.join(way.part for way in ways)};"
        f" possible instead: {', or '.join(way.possible for way in ways)}",
        param=next((way.param for way in ways if way.stated), ways[0].param),
    )


def over_budget(budget: Standing, hold_microusd: int) -> InsufficientQuota:
    """What the client hears whose cheapest offer holds so much."""
    tightest, left = budget.tightest, usd_text(budget.left_microusd or 0)
    whose = "the budget" if tightest is None else f"{_PERIODS[tightest.period]} of this {_WHOSE[tightest.scope]}"
    return InsufficientQuota(f"{whose} leaves ${left}; the cheapest way to make this holds ${usd_text(hold_microusd)}")


def _possible(need: Need, rules: Rules) -> bool:
    return any(isinstance(fit(offer, need, rules), Figures) for offer in rules.by_model[need.spec.model])


def _with(need: Need, **fields: Any) -> Need:
    return msgspec.structs.replace(need, spec=msgspec.structs.replace(need.spec, **fields))


def _param(field: str, ask: Ask) -> str | None:
    if field == "operation":
        return ask.operation_param
    by_size = ask.size is not None and field in {"resolution", "aspect_ratio"} and getattr(ask, field) is None
    return "size" if by_size else field


def _other_values(need: Need, ask: Ask, rules: Rules) -> Iterable[_Way]:
    for field, choices in _CHOICES.items():
        now = getattr(need.spec, field)
        good = [value for value in choices if value != now and _possible(_with(need, **{field: value}), rules)]
        if good:
            yield _Way(
                part=f"{field} {shown(field, now)}",
                possible=f"{field} {_listed(field, good)}",
                param=_param(field, ask),
                stated=field in need.spec.stated or field == "operation",
            )


def _listed(field: str, values: list[Any]) -> str:
    """The values; a run of whole seconds as its ends."""
    whole = [value for value in values if value is not None]
    if field == "seconds" and len(whole) > 2 and whole[-1] - whole[0] == len(whole) - 1:
        rest = ", auto" if None in values else ""
        return f"{whole[0]} to {whole[-1]}{rest}"
    return ", ".join(shown(field, value) for value in values)


def _other_prompt(need: Need, rules: Rules) -> Iterable[_Way]:
    length = len(need.spec.prompt)
    limits = {offer.prompt_max_chars or 0 for offer in rules.by_model[need.spec.model]}
    for limit in sorted((limit for limit in limits if 0 < limit < length), reverse=True):
        if _possible(_with(need, prompt=need.spec.prompt[:limit]), rules):
            yield _Way(
                part=f"a prompt of {length} characters",
                possible=f"a prompt of up to {limit} characters",
                param="prompt",
                stated=True,
            )
            return


def _other_routing(need: Need, ask: Ask, rule: Rule, rules: Rules) -> Iterable[_Way]:
    free = msgspec.structs.replace
    if need.pin is not None and _possible(other := free(need, pin=None), rules):
        off = "" if rules.accounts[need.pin].on else ", which is off"
        yield _Way(
            part=f"provider {need.pin}{off}",
            possible=f"provider {_providers(other, rules)}",
            param="model",
            stated=True,
        )
    if need.wish_allows is not None and _possible(other := free(need, wish_allows=None), rules):
        wish = ask.routing
        field = "only" if wish.only else "order" if wish.order else "ignore"
        yield _Way(
            part=f"routing.{field} as it is",
            possible=f"provider {_providers(other, rules)}",
            param=f"routing.{field}",
            stated=True,
        )
    if need.rule_allows is not None and _possible(free(need, rule_allows=None), rules):
        yield _by_rule(rule, "the providers it leaves", "another choice of providers in that rule")
    yield from _other_limits(need, ask, rule, rules)


def _by_rule(rule: Rule, part: str, possible: str) -> _Way:
    return _Way(part=f'{part} in the rule "{rule.name}"', possible=possible, param=None, stated=False)


def _providers(need: Need, rules: Rules) -> str:
    offers = rules.by_model[need.spec.model]
    return ", ".join(sorted({o.provider for o in offers if isinstance(fit(o, need, rules), Figures)}))


def _other_limits(need: Need, ask: Ask, rule: Rule, rules: Rules) -> Iterable[_Way]:
    if need.max_price_microusd is not None:
        figures = _figures(msgspec.structs.replace(need, max_price_microusd=None), rules)
        if figures:
            lowest = usd_text(min(one.quote.tenant_microusd for one in figures))
            part, possible = f"at most ${usd_text(need.max_price_microusd)}", f"a price of ${lowest}"
            if need.max_price_microusd == ask.routing.max_price_microusd:
                yield _Way(part=part, possible=possible, param="routing.max_price_usd", stated=True)
            else:
                yield _by_rule(rule, part, possible)
    if need.max_wait_s is not None:
        figures = _figures(msgspec.structs.replace(need, max_wait_s=None), rules)
        if figures:
            shortest = min(one.expected_s for one in figures)
            part, possible = f"at most {need.max_wait_s} s to wait", f"an expected time of {shortest:.0f} s"
            if need.max_wait_s == ask.routing.max_wait_s:
                yield _Way(part=part, possible=possible, param="routing.max_wait_s", stated=True)
            else:
                yield _by_rule(rule, part, possible)


def _figures(need: Need, rules: Rules) -> list[Figures]:
    """Of every offer that fits."""
    offers = rules.by_model[need.spec.model]
    return [
        figures
        for offer in offers
        if isinstance(fit(offer, need, rules), Figures) and (figures := figures_of(offer, need, rules))
    ]


def _too_much_at_once(need: Need, ask: Ask, rules: Rules, found: list[str]) -> Unsupported:
    """No single change helps: name what stands in the way, and what each tier makes."""
    faults = [field for field in _CHOICES if field in found]
    stated = [field for field in faults if field in need.spec.stated]
    makes: dict[str, set[str]] = {}
    for offer in rules.by_model[need.spec.model]:
        if rules.accounts[offer.provider].on:
            makes.setdefault(offer.tier, set()).update(offer.resolutions)
    tiers = "; ".join(
        f"tier {tier} makes {', '.join(name for name in RESOLUTIONS if name in makes[tier])}"
        for tier in TIERS
        if tier in makes
    )
    parts = ", ".join(f"{field} {shown(field, getattr(need.spec, field))}" for field in faults) or "all of this"
    return Unsupported(
        f"no offer can do {parts} together, and no single change would do; {tiers}",
        param=_param((stated or faults)[0], ask) if faults else None,
    )
