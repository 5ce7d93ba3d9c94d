"""Bytes of `routing_rules.yaml` to Structs, or one line that names the mistake and its place."""

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Literal

import msgspec

from proxy.core.account import Account
from proxy.core.ids import sha256_hex
from proxy.core.money import microusd_up
from proxy.core.offer import FallbackPolicy, Offer
from proxy.core.video import ASPECT_RATIOS, RESOLUTIONS, SIZES, TIERS
from proxy.policy.accounts import Provider, read_providers
from proxy.policy.book import Book, plain
from proxy.policy.marked import (
    Item,
    Section,
    Source,
    choice,
    compose,
    decimal,
    flag,
    items,
    mapping,
    section,
    several,
    text,
    whole,
)
from proxy.policy.when import MAX_SEED, Condition, condition, seconds_or_auto

FALLBACK_ON = ("throttled", "capacity", "provider_error", "seller_timeout", "account", "invalid_input")
"""The closed set of `on`; moderation and unknown ends have keys of their own."""

StrategyName = Literal["cheapest", "fastest", "balanced", "ordered", "weighted"]


class Strategy(msgspec.Struct, frozen=True, kw_only=True):
    """How the offers that fit are put in order."""

    name: StrategyName
    order: tuple[str, ...] = ()
    """Providers of `ordered`, the first to be tried first; the others are left out."""
    weights: dict[str, float] = msgspec.field(default_factory=dict)
    """Providers of `weighted`; the others are left out."""
    price_weight: float = 0.5
    latency_weight: float = 0.5

    @property
    def providers(self) -> frozenset[str] | None:
        """The only ones it knows how to place; None: all."""
        return frozenset(self.order or self.weights) or None


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of `rules`."""

    name: str
    when: Condition | None
    """None: the last rule, which always matches."""
    fill: dict[str, Any]
    """Spec fields to values, for what the client left open."""
    resolution_at_most: str | None
    downgrade: bool
    """Whether the rule may lower even what the client stated."""
    strategy: Strategy
    require: frozenset[str]
    allowed: frozenset[str] | None
    """Providers that its `only` and `ignore` leave; None: all."""
    max_price_microusd: int | None
    max_wait_s: int | None
    bill_failed_attempts: bool
    fallback: FallbackPolicy


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """Days that files, inputs and prompts are kept."""

    files_days: int = 30
    inputs_days: int = 7
    prompts_days: int = 90


class Defaults(msgspec.Struct, frozen=True, kw_only=True):
    """What a request gets that neither client nor rule said."""

    seconds: int | None = 5
    """None is `auto`."""
    resolution: str = "720p"
    aspect_ratio: str = "16:9"
    generate_audio: bool = True
    content_filter: bool = True
    tier: str = "standard"
    web_search: bool = False


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the operator decided, checked."""

    accounts: dict[str, Account]
    offers: dict[str, Offer]
    """By id; those of providers that are off too."""
    by_model: dict[str, tuple[Offer, ...]]
    by_kind: dict[tuple[str, str, str], tuple[Offer, ...]]
    """By model, operation and tier."""
    models: tuple[str, ...]
    names: dict[str, str]
    """Every name of a model, aliases too, to its own name."""
    defaults: Defaults
    fallback: FallbackPolicy
    """The one of the defaults; each rule holds its own, merged."""
    rules: tuple[Rule, ...]
    retention: Retention
    cost_tolerance: str
    """The ratio by which a seller's stated cost may be off its price before somebody should look, a decimal string."""
    unknown_fields: Literal["refuse", "report"]
    expose_providers: bool
    sizes: dict[str, tuple[str, str]]
    """Aliases of `size` to resolution and aspect ratio."""
    rules_hash: str
    book_hash: str
    warnings: tuple[str, ...]
    figures: dict[Any, Any] = msgspec.field(default_factory=dict)
    """What `plan` has worked out before; nothing but a short cut."""

    def __repr__(self) -> str:
        return f"Rules({self.rules_hash[:12]}, {len(self.offers)} offers, {len(self.rules)} rules)"


def with_offers(rules: Rules, offers: dict[str, Offer]) -> Rules:
    """The same rules about other figures of the same offers; what was worked out before is forgotten."""
    return msgspec.structs.replace(
        rules,
        offers=offers,
        by_model={key: tuple(offers[one.id] for one in several) for key, several in rules.by_model.items()},
        by_kind={key: tuple(offers[one.id] for one in several) for key, several in rules.by_kind.items()},
        figures={},
    )


_TOP_KEYS = (
    "version",
    "defaults",
    "providers",
    "models",
    "rules",
    "retention",
    "cost_tolerance",
    "unknown_fields",
    "expose_providers",
    "sizes",
)
_FILL = {
    "seconds": seconds_or_auto,
    "resolution": choice(RESOLUTIONS),
    "aspect_ratio": choice((*ASPECT_RATIOS, "auto")),
    "generate_audio": flag,
    "content_filter": flag,
    "tier": choice(TIERS),
    "web_search": flag,
}
_RULE_KEYS = (
    "name",
    "when",
    *_FILL,
    "seed",
    "resolution_at_most",
    "downgrade",
    "strategy",
    "require",
    "providers",
    "max_price_usd",
    "max_wait_s",
    "bill_failed_attempts",
    "fallback",
)
_FALLBACK_KEYS = ("max_attempts", "on", "deadline_s", "on_unknown", "on_moderation")
_REQUIRABLE = (*_FILL, "seed")
_FALLBACK = FallbackPolicy(
    max_attempts=3,
    on=frozenset(FALLBACK_ON[:5]),
    deadline_s=1200,
    on_unknown="wait",
    on_moderation="stop",
)


def load_rules(
    text: bytes,
    *,
    file: str,
    env: Mapping[str, str],
    adapters: Mapping[str, str],
    catalog: Mapping[str, bytes],
) -> Rules:
    """
    Read the operator's file against what is installed.

    `adapters` takes each installed adapter to its seller's base URL, `catalog` an adapter to its file.
    Raises ConfigError, whose message is one line with file, line and column.
    """
    top = section(compose(text, Source(file=file, env=env)), _TOP_KEYS)
    top.need("version", choice(("1",)))
    providers = top.need("providers", lambda item: read_providers(item, adapters))
    accounts = {name: provider.account for name, provider in providers.items()}
    book = _read_book(top, providers, catalog)
    names = _read_models(top, book)
    models = tuple(sorted(set(names.values())))
    offers = {offer.id: offer for offer in book.offers.values() if offer.model in models}
    defaults, fallback = top.read("defaults", _defaults, (Defaults(), _FALLBACK))
    known = _Known(accounts=accounts, models=names, fallback=fallback)
    return Rules(
        accounts=accounts,
        offers=offers,
        by_model={model: tuple(offer for offer in offers.values() if offer.model == model) for model in models},
        by_kind=_by_kind(offers.values()),
        models=models,
        names=names,
        defaults=defaults,
        fallback=fallback,
        rules=top.need("rules", lambda item: _read_rules(item, known)),
        retention=top.read("retention", _retention, Retention()),
        cost_tolerance=plain(top.read("cost_tolerance", decimal("0", "1"), Decimal("0.01"))),
        unknown_fields=top.read("unknown_fields", choice(("refuse", "report")), "refuse"),
        expose_providers=top.read("expose_providers", flag, default=True),
        sizes=top.read("sizes", _sizes, {}),
        rules_hash=sha256_hex(text),
        book_hash=book.fingerprint({name: account.discount for name, account in accounts.items()}),
        warnings=tuple(provider.warning for provider in providers.values() if provider.warning),
    )


def _read_book(top: Section, providers: Mapping[str, Provider], catalog: Mapping[str, bytes]) -> Book:
    book = Book()
    accounts = {name: provider.account for name, provider in providers.items()}
    for provider in providers.values():
        file = catalog.get(provider.account.adapter)
        if file is not None:
            book.take_catalogue(provider.account, file)
        book.add_to_provider(provider.account, provider.fields.read("offers", items, []))
    for model, entry in top.read("models", mapping, {}).items():
        book.add_to_model(model, accounts, section(entry, ("aliases", "offers")).read("offers", items, []))
    for provider in providers.values():
        book.reprice(provider.account, provider.fields.read("prices", items, []))
    book.check_price_ids(top.item)
    return book


def _read_models(top: Section, book: Book) -> dict[str, str]:
    """Every name of a model to its own; without `models`, all that somebody makes."""
    made = {offer.model for offer in book.offers.values()}
    if "models" not in top.entries:
        return {model: model for model in sorted(made)}
    entries = top.need("models", mapping)
    for model, entry in entries.items():
        if model not in made:
            raise entry.fault(
                f'nobody makes the model "{model}"; offers exist for: {", ".join(sorted(made)) or "none"}'
            )
    names = {model: model for model in entries}
    for model, entry in entries.items():
        aliases = section(entry, ("aliases", "offers")).entries.get("aliases")
        for alias in items(aliases) if aliases else []:
            name = text(alias)
            if name in names or "/" in name or ":" in name:
                raise alias.wrong("a name that no model has yet, without / and :")
            names[name] = model
    if not names:
        raise top.item.fault("`models` names no model")
    return names


def _by_kind(offers: Iterable[Offer]) -> dict[tuple[str, str, str], tuple[Offer, ...]]:
    found: dict[tuple[str, str, str], tuple[Offer, ...]] = {}
    for offer in offers:
        kind = (offer.model, offer.operation, offer.tier)
        found[kind] = (*found.get(kind, ()), offer)
    return found


def _defaults(item: Item) -> tuple[Defaults, FallbackPolicy]:
    fields = section(item, (*_FILL, "fallback"))
    return Defaults(**_filled(fields)), fields.read("fallback", lambda inner: _fallback(inner, _FALLBACK), _FALLBACK)


def _filled(fields: Section) -> dict[str, Any]:
    """The spec fields that are said here."""
    return {key: how(fields.entries[key]) for key, how in _FILL.items() if key in fields.entries}


def _fallback(item: Item, base: FallbackPolicy) -> FallbackPolicy:
    """What is said here over what was said before."""
    fields = section(item, _FALLBACK_KEYS)
    return FallbackPolicy(
        max_attempts=fields.read("max_attempts", whole(1, 20), base.max_attempts),
        on=frozenset(fields.read("on", several(choice(FALLBACK_ON)), base.on)),
        deadline_s=fields.read("deadline_s", whole(1, 259_200), base.deadline_s),
        on_unknown=fields.read("on_unknown", choice(("wait", "fallback")), base.on_unknown),
        on_moderation=fields.read("on_moderation", choice(("stop", "next")), base.on_moderation),
    )


def _retention(item: Item) -> Retention:
    fields = section(item, Retention.__struct_fields__)
    days = whole(1, 36_500)
    return Retention(**{key: days(entry) for key, entry in fields.entries.items()})


def _sizes(item: Item) -> dict[str, tuple[str, str]]:
    found: dict[str, tuple[str, str]] = {}
    for size, entry in mapping(item, "sizes.").items():
        if size in SIZES or not re.fullmatch(r"[0-9]+x[0-9]+", size):
            raise entry.fault(f'"{size}" must be a size such as 1792x1024 that no resolution has')
        fields = section(entry, ("resolution", "aspect_ratio"))
        found[size] = (
            fields.need("resolution", choice(RESOLUTIONS)),
            fields.need("aspect_ratio", choice(ASPECT_RATIOS)),
        )
    return found


# --- the rules themselves


class _Known(msgspec.Struct, frozen=True, kw_only=True):
    accounts: dict[str, Account]
    models: dict[str, str]
    fallback: FallbackPolicy


def _read_rules(item: Item, known: _Known) -> tuple[Rule, ...]:
    entries = items(item)
    if not entries:
        raise item.fault("`rules` holds no rule")
    rules: list[Rule] = []
    for number, entry in enumerate(entries, start=1):
        rule = _rule(_named(entry, number), known)
        if any(rule.name == other.name for other in rules):
            raise entry.fault(f'there is another rule "{rule.name}"')
        if (rule.when is None) != (number == len(entries)):
            last = number == len(entries)
            raise entry.fault(
                f'the rule "{rule.name}" is the last and must have no `when`: something must always match'
                if last
                else f'the rule "{rule.name}" needs a `when`: without it no later rule is ever reached'
            )
        rules.append(rule)
    return tuple(rules)


def _named(entry: Item, number: int) -> Item:
    """The same entry, called by its rule's name in messages."""
    name = mapping(entry).get("name")
    title = f'rule "{name.node.value}"' if name is not None and name.kind == "scalar" else f"rule {number}"
    return msgspec.structs.replace(entry, what=title)


def _rule(entry: Item, known: _Known) -> Rule:
    fields = section(entry, _RULE_KEYS)
    fill = _filled(fields)
    if "seed" in fields.entries:
        fill["seed"] = whole(0, MAX_SEED)(fields.entries["seed"])
    return Rule(
        name=fields.need("name", text),
        when=fields.read("when", lambda item: condition(item, known.models), None),
        fill=fill,
        resolution_at_most=fields.read("resolution_at_most", choice(RESOLUTIONS), None),
        downgrade=fields.read("downgrade", flag, default=False),
        strategy=fields.read("strategy", lambda item: _strategy(item, known.accounts), Strategy(name="cheapest")),
        require=frozenset(fields.read("require", several(choice(_REQUIRABLE)), ())),
        allowed=fields.read("providers", lambda item: _allowed(item, known.accounts), None),
        max_price_microusd=fields.read("max_price_usd", lambda item: microusd_up(decimal("0", "1000000")(item)), None),
        max_wait_s=fields.read("max_wait_s", whole(1, 259_200), None),
        bill_failed_attempts=fields.read("bill_failed_attempts", flag, default=False),
        fallback=fields.read("fallback", lambda item: _fallback(item, known.fallback), known.fallback),
    )


def _allowed(item: Item, accounts: Mapping[str, Account]) -> frozenset[str]:
    fields = section(item, ("only", "ignore"))
    names = several(choice(accounts))
    left = frozenset(fields.read("only", names, tuple(accounts))) - frozenset(fields.read("ignore", names, ()))
    if not left:
        raise item.fault("`only` and `ignore` leave no provider")
    return left


def _strategy(item: Item, accounts: Mapping[str, Account]) -> Strategy:
    if item.kind != "mapping":
        return Strategy(name=choice(("cheapest", "fastest", "balanced"))(item))
    fields = section(item, ("balanced", "ordered", "weighted"))
    if len(fields.entries) != 1:
        raise item.fault("a strategy is one of balanced, ordered, weighted")
    if "balanced" in fields.entries:
        return _balanced(fields.entries["balanced"])
    if "ordered" in fields.entries:
        order = several(choice(accounts))(fields.entries["ordered"])
        if not order:
            raise item.fault("`ordered` names no provider")
        return Strategy(name="ordered", order=order)
    weighted = section(fields.entries["weighted"], accounts)
    weights = {name: _weight(entry) for name, entry in weighted.entries.items()}
    if not any(weights.values()):
        raise item.fault("`weighted` gives no provider any weight")
    return Strategy(name="weighted", weights={name: weight for name, weight in weights.items() if weight})


def _balanced(item: Item) -> Strategy:
    fields = section(item, ("price", "latency"))
    price, latency = fields.need("price", _weight), fields.need("latency", _weight)
    if price + latency <= 0:
        raise item.fault("`balanced` needs a weight above 0")
    return Strategy(name="balanced", price_weight=price, latency_weight=latency)


def _weight(item: Item) -> float:
    return float(decimal("0", str(Decimal(10**6)))(item))
