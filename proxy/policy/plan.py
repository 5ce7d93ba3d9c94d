"""The one resolver: what is asked, under which rule, from whom and in which order. Create and quote both ask it."""

from datetime import UTC, datetime
from itertools import takewhile
from typing import Any

import msgspec

from proxy.core.clock import SECOND_US
from proxy.core.errors import InvalidValue
from proxy.core.offer import Candidate, Exclusion, ExclusionReason, Offer, Plan
from proxy.core.tenant import Tenant
from proxy.core.video import MAX_SECONDS, RESOLUTIONS, TIERS, Ask, RoutingWish, Spec
from proxy.policy.budgets import UNBOUND, Standing
from proxy.policy.fit import Figures, Need, detail, fit
from proxy.policy.impossible import nothing_fits
from proxy.policy.pace import LearnedTimes
from proxy.policy.ranking import Fitting, rank, reasons
from proxy.policy.rules import Rule, Rules, Strategy, StrategyName
from proxy.policy.spec import Settled, settle
from proxy.policy.when import Facts

_HOUR_US = 3600 * SECOND_US
_DAY_US = 24 * _HOUR_US
_SORTS: dict[str, StrategyName] = {"price": "cheapest", "latency": "fastest", "balanced": "balanced"}


class PassedOver(msgspec.Struct, frozen=True, kw_only=True):
    """A rule that stands before the one that matched."""

    rule: str
    unmet: tuple[str, ...]
    """Keys of its `when` that do not hold."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What will be made, and who may be asked to make it."""

    spec: Spec
    plan: Plan
    passed_over: tuple[PassedOver, ...] = ()
    """Only where it is explained."""


def decide(
    ask: Ask,
    tenant: Tenant,
    rules: Rules,
    *,
    at_us: int,
    budget: Standing = UNBOUND,
    chance: float = 0.0,
    times: LearnedTimes | None = None,
    explain: bool = False,
) -> Decision:
    """
    Settle the request, find its rule, order the offers.

    What the hold takes fits what `budget` leaves; `chance` in [0, 1) draws for `weighted`; without
    `times` each offer takes what the catalogue says. Without `explain` the order is the same, but
    nothing says why. Raises a RequestError that names the field, InsufficientQuota where only the
    budget is in the way, or NoProviderAvailable.
    """
    settled = settle(ask, rules, tenant)
    facts = Facts(spec=settled.spec, tenant=tenant, budget_used=budget.used, hour=at_us % _DAY_US // _HOUR_US)
    rule = next(rule for rule in rules.rules if rule.when is None or rule.when.holds(facts))
    spec, changed = under(rule, settled.spec, ask, tenant)
    strategy = _strategy(rule, settled, ask.routing, rules)
    need = _need(spec, settled, rule, strategy, ask, tenant, rules, at_us, times, budget)
    fitting, excluded = _sift(need, rules, explain=explain)
    if not fitting:
        raise nothing_fits(need, ask, rule, rules)
    ranked = rank(fitting, strategy, chance)
    fallback = rule.fallback
    if ask.routing.allow_fallbacks is False:
        fallback = msgspec.structs.replace(fallback, max_attempts=1)
    if rule.bill_failed_attempts and budget.left_microusd is not None:
        ranked, beyond = _together_within(ranked, budget.left_microusd, most=fallback.max_attempts)
        excluded += tuple(_exclusion("over_budget", offer, need, rules) for offer in beyond) if explain else ()
    plan = Plan(
        rule=rule.name,
        strategy=strategy.name,
        candidates=_candidates(ranked, strategy, explain=explain),
        excluded=excluded,
        fallback=fallback,
        bill_failed_attempts=rule.bill_failed_attempts,
        changed=changed,
        rules_hash=rules.rules_hash,
        book_hash=rules.book_hash,
        markup=tenant.markup,
    )
    return Decision(spec=spec, plan=plan, passed_over=_passed_over(rules, rule, facts) if explain else ())


def _passed_over(rules: Rules, matched: Rule, facts: Facts) -> tuple[PassedOver, ...]:
    before = takewhile(lambda rule: rule is not matched, rules.rules)
    return tuple(
        PassedOver(rule=rule.name, unmet=tuple(key for key, holds in rule.when.parts.items() if not holds(facts)))
        for rule in before
        if rule.when is not None
    )


# --- what the rule makes of the request


def under(rule: Rule, spec: Spec, ask: Ask, tenant: Tenant) -> tuple[Spec, dict[str, tuple[Any, Any]]]:
    """The spec with the rule's fields, and what of the client's own words was lowered."""
    fields = {field: value for field, value in rule.fill.items() if field not in spec.stated}
    if not tenant.allow_filter_off:
        # As with the defaults: a rule cannot give a tenant this right.
        fields.pop("content_filter", None)
    lowered = _lowered(rule, spec) if rule.downgrade else {}
    fields |= lowered
    limit = rule.resolution_at_most
    wanted = fields.get("resolution", spec.resolution)
    if limit is not None and _is_lower("resolution", limit, wanted):
        if "resolution" in spec.stated and not rule.downgrade:
            param = "resolution" if ask.resolution is not None else "size"
            raise InvalidValue(f'the rule "{rule.name}" allows {limit} at most, not {wanted}', param=param)
        fields["resolution"] = limit
    if not fields:
        return spec, {}
    changed = {
        field: (_said(field, getattr(spec, field)), _said(field, value))
        for field, value in fields.items()
        if field in spec.stated
    }
    return msgspec.structs.replace(spec, **fields), changed


def _said(field: str, value: Any) -> Any:
    return "auto" if field == "seconds" and value is None else value


def _lowered(rule: Rule, spec: Spec) -> dict[str, Any]:
    """The rule's fields that are below what the client stated; a downgrade never makes anything dearer."""
    return {
        field: value
        for field, value in rule.fill.items()
        if field in spec.stated and _is_lower(field, value, getattr(spec, field))
    }


def _is_lower(field: str, value: Any, than: Any) -> bool:
    if field == "resolution":
        return RESOLUTIONS.index(value) < RESOLUTIONS.index(than)
    if field == "tier":
        return TIERS.index(value) > TIERS.index(than)
    if field == "seconds":
        return (MAX_SECONDS + 1 if value is None else value) < (MAX_SECONDS + 1 if than is None else than)
    if field in {"generate_audio", "web_search"}:
        return bool(than) and not value
    return False


# --- what the request wishes of the routing


def _strategy(rule: Rule, settled: Settled, wish: RoutingWish, rules: Rules) -> Strategy:
    """The rule's, unless the request names one by `sort`, `order` or the model's suffix."""
    named: dict[str, StrategyName | None] = {
        "model": settled.suffix,
        "routing.sort": _SORTS[wish.sort] if wish.sort else None,
        "routing.order": "ordered" if wish.order else None,
    }
    stated = {param: name for param, name in named.items() if name is not None}
    if len(set(stated.values())) > 1:
        param = list(stated)[-1]
        raise InvalidValue(f"{' and '.join(stated)} contradict each other: {', '.join(stated.values())}", param=param)
    if wish.order:
        return Strategy(name="ordered", order=_known("order", wish.order, rules))
    for name in stated.values():
        return rule.strategy if rule.strategy.name == name else Strategy(name=name)
    return rule.strategy


def _known(field: str, names: tuple[str, ...], rules: Rules) -> tuple[str, ...]:
    """Raises InvalidValue for a provider that does not exist, or where none may be named."""
    param = f"routing.{field}"
    if not rules.expose_providers:
        raise InvalidValue(f"{param} may not name providers here", param=param)
    for name in names:
        if name not in rules.accounts:
            raise InvalidValue(
                f"{param}: no provider {name[:64]!r}; there are: {', '.join(rules.accounts)}", param=param
            )
    return names


def _wish_allows(wish: RoutingWish, rules: Rules) -> frozenset[str] | None:
    """Providers that `only` and `ignore` leave; an empty list says nothing."""
    if not wish.only and not wish.ignore:
        return None
    only = _known("only", wish.only, rules) if wish.only else rules.accounts
    return frozenset(only) - frozenset(_known("ignore", wish.ignore, rules) if wish.ignore else ())


def _need(
    spec: Spec,
    settled: Settled,
    rule: Rule,
    strategy: Strategy,
    ask: Ask,
    tenant: Tenant,
    rules: Rules,
    at_us: int,
    times: LearnedTimes | None,
    budget: Standing,
) -> Need:
    wish = ask.routing
    wish_allows, rule_allows = _wish_allows(wish, rules), rule.allowed
    if wish.order:
        wish_allows = _both(wish_allows, strategy.providers)
    else:
        rule_allows = _both(rule_allows, strategy.providers)
    return Need(
        spec=spec,
        required=spec.stated - {"seed"} | rule.require,
        pin=settled.pin,
        rule_allows=rule_allows,
        wish_allows=wish_allows,
        max_price_microusd=_lower(rule.max_price_microusd, wish.max_price_microusd),
        max_wait_s=_lower(rule.max_wait_s, wish.max_wait_s),
        markup=tenant.markup,
        day=iso_day(at_us),
        budget=budget,
        times=times,
    )


def _both(one: frozenset[str] | None, other: frozenset[str] | None) -> frozenset[str] | None:
    if one is None or other is None:
        return other if one is None else one
    return one & other


def _lower(one: int | None, other: int | None) -> int | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


def iso_day(at_us: int) -> str:
    return datetime.fromtimestamp(at_us // SECOND_US, UTC).date().isoformat()


# --- the offers


def _sift(need: Need, rules: Rules, *, explain: bool) -> tuple[list[Fitting], tuple[Exclusion, ...]]:
    """Those that fit, and with `explain` why the others of the model do not."""
    spec = need.spec
    offers = rules.by_model[spec.model] if explain else rules.by_kind.get((spec.model, spec.operation, spec.tier), ())
    fitting: list[Fitting] = []
    excluded: list[Exclusion] = []
    for offer in offers:
        found = fit(offer, need, rules)
        if isinstance(found, Figures):
            fitting.append((offer, found))
        elif explain:
            excluded.append(_exclusion(found, offer, need, rules))
    return fitting, tuple(excluded)


def _exclusion(reason: ExclusionReason, offer: Offer, need: Need, rules: Rules) -> Exclusion:
    sentence = detail(reason, offer, need, rules)
    return Exclusion(offer=offer.id, provider=offer.provider, reason=reason, detail=sentence)


def _together_within(ranked: list[Fitting], left_microusd: int, *, most: int) -> tuple[list[Fitting], list[Offer]]:
    """Where each attempt may be billed, the first `most` fit what is left together; the offers that do not."""
    kept: list[Fitting] = []
    beyond: list[Offer] = []
    for offer, figures in ranked:
        hold = figures.quote.hold_microusd
        if len(kept) < most and hold > left_microusd:
            beyond.append(offer)
            continue
        left_microusd -= hold
        kept.append((offer, figures))
    return kept, beyond


def _candidates(ranked: list[Fitting], strategy: Strategy, *, explain: bool) -> tuple[Candidate, ...]:
    why = reasons(ranked, strategy) if explain else [strategy.name] * len(ranked)
    return tuple(_candidate(offer, figures, reason) for (offer, figures), reason in zip(ranked, why, strict=True))


def _candidate(offer: Offer, figures: Figures, reason: str) -> Candidate:
    rated, quote = figures.rated, figures.quote
    made = Candidate(
        offer=offer.id,
        provider=offer.provider,
        seller_model=offer.seller_model,
        tier=offer.tier,
        price_id=rated.price_id,
        basis=rated.basis,
        rates=rated.rates,
        fixed_usd=f"{rated.fixed_usd:f}",
        seller_microusd=quote.seller_microusd,
        quote_microusd=quote.tenant_microusd,
        hold_microusd=quote.hold_microusd,
        expected_s=figures.expected_s,
        link_lifetime_s=offer.link_lifetime_s,
        submit_timeout_s=offer.submit_timeout_s,
        reason=reason,
    )
    # A sixteenth keyword would double the time that the call takes, for all those that have none.
    return made if offer.input_seconds is None else msgspec.structs.replace(made, input_seconds=offer.input_seconds)
