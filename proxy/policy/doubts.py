"""
What an operator can hardly have meant: a rule that never matches, is never reached, or leaves nobody.

A doubt that is told is never wrong: what would take too long to find out stays unsaid.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from itertools import product
from typing import Any

import msgspec

from proxy.core.errors import InvalidValue
from proxy.core.offer import Offer
from proxy.core.tenant import Tenant
from proxy.core.video import Ask, Spec
from proxy.policy.fit import Figures, Need, fit
from proxy.policy.plan import iso_day, under
from proxy.policy.rules import Rule, Rules
from proxy.policy.solver import CLOSED, Only, possible
from proxy.policy.when import Not, Tree

_FILLED = ("seconds", "resolution", "aspect_ratio", "generate_audio", "content_filter", "tier", "web_search", "seed")
"""Fields that defaults or rules fill in."""
_MADE = tuple(field for field in CLOSED if field != "hour")
_PRICED = ("seconds", "resolution", "content_filter", "web_search")
_TENANT = Tenant(id="any", name="any", allow_filter_off=True, created_at=0)
_ASK = Ask(prompt="any")


def with_doubts(rules: Rules, *, at_us: int) -> Rules:
    """The same rules; their warnings tell the doubts too. Prices are those of the day of `at_us`."""
    return msgspec.structs.replace(rules, warnings=(*rules.warnings, *doubts(rules, at_us=at_us)))


def doubts(rules: Rules, *, at_us: int) -> list[str]:
    """A sentence for each rule that can hardly be meant, in their order."""
    accounts = {
        name: msgspec.structs.replace(account, enabled=True, api_key="any") for name, account in rules.accounts.items()
    }
    all_on = msgspec.structs.replace(rules, accounts=accounts, figures={})
    found: list[str] = []
    for place, rule in enumerate(rules.rules):
        before = [other for other in rules.rules[:place] if other.when is not None]
        doubt = _unreachable(rule, before, rules) or _nobody(rule, before, rules, all_on, iso_day(at_us))
        if doubt:
            found.append(f'the rule "{rule.name}" {doubt}')
    return found


def _unreachable(rule: Rule, before: Sequence[Rule], rules: Rules) -> str | None:
    """Nothing is said of the last rule: it has to be there, whatever the others leave to it."""
    if rule.when is None:
        return None
    own = rule.when.tree
    if not possible([own], rules.models):
        return "can never match: no request meets all of its `when`"
    if possible([own, *_none_of(before)], rules.models):
        return None
    for other in before:
        if not possible([own, *_none_of([other])], rules.models):
            return f'is never reached: "{other.name}" before it matches whatever it matches'
    return "is never reached: the rules before it match whatever it matches"


def _none_of(rules: Iterable[Rule]) -> list[Tree]:
    return [Not(rule.when.tree) for rule in rules if rule.when is not None]


# --- whether anybody is left


def _nobody(rule: Rule, before: Sequence[Rule], rules: Rules, all_on: Rules, day: str) -> str | None:
    conditions = [*([rule.when.tree] if rule.when else []), *_none_of(before)]
    if not possible(conditions, rules.models):
        return None
    left_open: Only = {field: partial(_is, _by_default(field, rules)) for field in rule.fill}
    # What it fills in says what it is for, unless it only ever matches where that is stated.
    opened = frozenset(rule.fill) if possible(conditions, rules.models, left_open) else frozenset[str]()

    def able(*, on: bool) -> Iterable[str]:
        for offer in rules.offers.values():
            if rules.accounts[offer.provider].on is on and _Maker(offer, rule, opened, all_on, day).serves(conditions):
                yield offer.provider

    if any(able(on=True)):
        return None
    what = "what it fills in" if opened else "what it matches"
    names = sorted(set(able(on=False)))
    if not names:
        whose = " of its providers" if rule.allowed or rule.strategy.providers else ""
        within = "" if rule.max_price_microusd is None and rule.max_wait_s is None else " within its limits"
        return f"leaves nobody: no offer{whose} makes {what}{within}"
    if not any(account.on for account in rules.accounts.values()):
        # That nobody is on is said of each provider, and is no fault of the rule.
        return None
    return f"leaves nobody for now: {what} is made by {', '.join(names)} alone, switched off or without a key"


def _is(one: Any, other: Any) -> bool:
    return bool(one == other)


def _by_default(field: str, rules: Rules) -> Any:
    return None if field == "seed" else getattr(rules.defaults, field)


class _Maker:
    """One offer under one rule; what it can do is asked of `fit` itself, and of `under` what the rule makes of it."""

    def __init__(self, offer: Offer, rule: Rule, opened: frozenset[str], rules: Rules, day: str) -> None:
        self._offer, self._rule, self._opened, self._rules = offer, rule, opened, rules
        by_strategy = rule.strategy.providers
        self._easiest = Need(
            spec=Spec(
                model=offer.model,
                operation=offer.operation,
                prompt="x",
                seconds=offer.min_seconds,
                resolution=offer.resolutions[0],
                aspect_ratio=offer.aspect_ratios[0],
                generate_audio=True,
                content_filter=True,
                tier=offer.tier,
            ),
            required=frozenset(),
            pin=None,
            rule_allows=rule.allowed if by_strategy is None else by_strategy & (rule.allowed or by_strategy),
            wish_allows=None,
            max_price_microusd=None,
            max_wait_s=None,
            markup="0",
            day=day,
        )

    def serves(self, conditions: Sequence[Tree]) -> bool:
        """Whether some request that meets the conditions leaves this offer in its plan."""
        priced = next((one for one in self._offer.resolutions if self._fits({"resolution": one})), None)
        if priced is None:
            return False
        spec = msgspec.structs.replace(self._easiest.spec, resolution=priced)
        self._easiest = msgspec.structs.replace(self._easiest, spec=spec)
        every: dict[str, tuple[Any, ...]] = {**{field: CLOSED[field] for field in _MADE}, "seed": (None, 0)}
        if not all(any(self._makes(field, value) for value in values) for field, values in every.items()):
            return False
        only: Only = {field: partial(self._makes, field) for field in (*_MADE, "seed", "prompt")}
        only = {**only, "model": partial(_is, self._offer.model)}
        if self._rule.max_price_microusd is None and self._rule.max_wait_s is None:
            return possible(conditions, self._rules.models, only)
        if not any(self._fits({"resolution": one}, limited=True) for one in self._offer.resolutions):
            # Nothing is cheaper or sooner than the shortest film without extras.
            return False
        return any(
            possible(conditions, self._rules.models, only | {field: partial(_is, one) for field, one in seen.items()})
            for values in product(*([one for one in CLOSED[field] if self._makes(field, one)] for field in _PRICED))
            if self._affords(seen := dict(zip(_PRICED, values, strict=True)))
        )

    def _makes(self, field: str, value: Any) -> bool:
        """Whether a request of which `when` sees this value is one for this offer, as far as the field goes."""
        return any(self._fits({field: given}, required) for given, required in self._given(field, value))

    def _affords(self, seen: dict[str, Any]) -> bool:
        """The same of all fields that price and time depend on, within the rule's limits."""
        ways = [[(field, given) for given, _ in self._given(field, value)] for field, value in seen.items()]
        return any(self._fits(dict(given), limited=True) for given in product(*ways))

    def _given(self, field: str, value: Any) -> Iterable[tuple[Any, frozenset[str]]]:
        """What the rule makes of the value, stated or left open; and whether an offer has to honour it."""
        rule, spec = self._rule, msgspec.structs.replace(self._easiest.spec, **{field: value})
        required = rule.require & {field}
        if field in _FILLED and value == _by_default(field, self._rules):
            yield getattr(under(rule, spec, _ASK, _TENANT)[0], field), required
        if field == "content_filter" and value:
            # Without the right to switch it off, neither a default nor a rule does.
            yield True, required
        if field in self._opened or (field == "seed" and value is None):
            return
        stated = msgspec.structs.replace(spec, stated=frozenset({field}))
        with suppress(InvalidValue):
            yield getattr(under(rule, stated, _ASK, _TENANT)[0], field), required | {field} - {"seed"}

    def _fits(self, fields: dict[str, Any], required: frozenset[str] = frozenset(), *, limited: bool = False) -> bool:
        rule = self._rule
        need = msgspec.structs.replace(
            self._easiest,
            spec=msgspec.structs.replace(self._easiest.spec, **fields),
            required=required,
            max_price_microusd=rule.max_price_microusd if limited else None,
            max_wait_s=rule.max_wait_s if limited else None,
        )
        return isinstance(fit(self._offer, need, self._rules), Figures)
