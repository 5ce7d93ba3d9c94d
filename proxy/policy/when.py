"""
The conditions of the rules: read once into a tree, and that into a closure that is asked for every request.

Unknown matches nothing: a condition on `budget_used` where there is no budget, on `seconds` where the
seller chooses the length, or on a pair of `metadata` that was not sent.
"""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import msgspec
import yaml

from proxy.core.money import parse_usd
from proxy.core.tenant import Tenant
from proxy.core.video import ASPECT_RATIOS, MAX_SECONDS, MIN_SECONDS, RESOLUTIONS, TIERS, Spec
from proxy.policy.marked import (
    Item,
    Reader,
    choice,
    decimal,
    flag,
    items,
    mapping,
    nearest,
    refuse_unknown,
    section,
    several,
    text,
    whole,
)

OPERATIONS = ("text-to-video", "image-to-video", "reference-to-video")
MAX_SEED = 2**32 - 1


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """All that a condition may look at."""

    spec: Spec
    """After the defaults, before the rule."""
    tenant: Tenant
    budget_used: float | None
    """Ratio of the tightest budget; None: no budget applies."""
    hour: int
    """0 to 23, UTC."""


Holds = Callable[[Facts], bool]


class Test(msgspec.Struct, frozen=True, kw_only=True):
    """One field, and which of its values will do."""

    field: str
    get: Callable[[Facts], Any]
    accepts: Callable[[Any], bool]
    values: frozenset[Any] = frozenset()
    """Those that are named one by one."""
    bounds: tuple[Any, ...] = ()
    """Ends of the range that is named, in the field's order."""


class Every(msgspec.Struct, frozen=True):
    parts: tuple["Tree", ...]


class Either(msgspec.Struct, frozen=True):
    parts: tuple["Tree", ...]


class Not(msgspec.Struct, frozen=True):
    part: "Tree"


Tree = Test | Every | Either | Not


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """A `when`, to be asked and to be looked into."""

    holds: Holds
    tree: Tree
    parts: dict[str, Holds]
    """The same one by one, by their keys: those that do not hold are why a rule is passed over."""


class _Field(msgspec.Struct, frozen=True, kw_only=True):
    """What a condition can be put on."""

    get: Callable[[Facts], Any]
    value: Reader[Any]
    bound: Reader[Any] | None = None
    """Reads `min` and `max`; None: the field has no order."""
    rank: Callable[[Any], Any] = lambda value: value
    """What the bounds are compared with; None where a value has no place in the order."""
    matches: Callable[[frozenset[Any]], Callable[[Any], bool]] | None = None
    """How values are found among those of a condition, where being one of them is not all."""


def seconds_or_auto(item: Item) -> int | None:
    """Whole seconds; None is `auto`."""
    if item.kind == "scalar" and item.node.value == "auto":
        return None
    return whole(MIN_SECONDS, MAX_SECONDS)(item)


def _number(item: Item) -> float:
    return float(decimal("0", "1000")(item))


def _as_decimal(value: str | None) -> Decimal | None:
    """The number in a pair of metadata; None: it is absent, or no number."""
    try:
        return None if value is None else parse_usd(value)
    except ValueError:
        return None


_seed = whole(0, MAX_SEED)

_FIELDS: dict[str, _Field] = {
    "tenant": _Field(
        get=lambda facts: (facts.tenant.id, facts.tenant.name),
        value=text,
        matches=lambda names: lambda pair: not names.isdisjoint(pair),
    ),
    "operation": _Field(get=lambda facts: facts.spec.operation, value=choice(OPERATIONS)),
    "prompt": _Field(get=lambda facts: facts.spec.prompt, value=text),
    "seconds": _Field(get=lambda facts: facts.spec.seconds, value=seconds_or_auto, bound=whole(0, 3600)),
    "resolution": _Field(
        get=lambda facts: facts.spec.resolution,
        value=choice(RESOLUTIONS),
        bound=lambda item: RESOLUTIONS.index(choice(RESOLUTIONS)(item)),
        rank=RESOLUTIONS.index,
    ),
    "aspect_ratio": _Field(get=lambda facts: facts.spec.aspect_ratio, value=choice((*ASPECT_RATIOS, "auto"))),
    "generate_audio": _Field(get=lambda facts: facts.spec.generate_audio, value=flag),
    "content_filter": _Field(get=lambda facts: facts.spec.content_filter, value=flag),
    "tier": _Field(get=lambda facts: facts.spec.tier, value=choice(TIERS)),
    "seed": _Field(get=lambda facts: facts.spec.seed, value=_seed, bound=_seed),
    "web_search": _Field(get=lambda facts: facts.spec.web_search, value=flag),
    "end_user_id": _Field(get=lambda facts: facts.spec.end_user_id, value=text),
    "budget_used": _Field(get=lambda facts: facts.budget_used, value=_number, bound=_number),
    "hour": _Field(get=lambda facts: facts.hour, value=whole(0, 23), bound=whole(0, 23)),
}
_KNOWN = ("any", "all", "not", "model", "metadata.<key>", *_FIELDS)


def condition(item: Item, models: Mapping[str, str]) -> Condition:
    """
    Read a mapping of conditions, all of which must hold.

    `models` takes every name of a model, aliases too, to its own name.
    """
    parts = _parts(item, models)
    tree = _joined(parts)
    return Condition(holds=_compiled(tree), tree=tree, parts={key: _compiled(part) for key, part in parts.items()})


def _parts(item: Item, models: Mapping[str, str]) -> dict[str, Tree]:
    entries = mapping(item)
    if not entries:
        raise item.fault("`when` holds no condition; leave it out in the last rule")
    pairs = zip(item.node.value, entries.items(), strict=True)
    return {name: _part(item, key, value, models) for (key, _), (name, value) in pairs}


def _joined(parts: Mapping[str, Tree]) -> Tree:
    return next(iter(parts.values())) if len(parts) == 1 else Every(tuple(parts.values()))


def _part(item: Item, key: yaml.ScalarNode, value: Item, models: Mapping[str, str]) -> Tree:
    name = str(key.value)
    if name == "not":
        return Not(_joined(_parts(value, models)))
    if name in {"any", "all"}:
        parts = tuple(_joined(_parts(one, models)) for one in items(value))
        if not parts:
            raise value.fault(f"`{name}` holds no condition")
        return Every(parts) if name == "all" else Either(parts)
    return _on_field(name, _field(item, key, models), value)


def _compiled(tree: Tree) -> Holds:
    if isinstance(tree, Test):
        get, accepts = tree.get, tree.accepts
        return lambda facts: accepts(get(facts))
    if isinstance(tree, Not):
        part = _compiled(tree.part)
        return lambda facts: not part(facts)
    # Loops rather than all() and any() over a generator: half the time, for every request.
    parts, whole = tuple(_compiled(part) for part in tree.parts), isinstance(tree, Every)

    def joined(facts: Facts) -> bool:
        for part in parts:
            if part(facts) is not whole:
                return not whole
        return whole

    return joined


def _field(item: Item, key: yaml.ScalarNode, models: Mapping[str, str]) -> _Field:
    name = str(key.value)
    pair = name.removeprefix("metadata.")
    if pair and pair != name:
        return _Field(
            get=lambda facts: facts.spec.metadata.get(pair),
            value=text,
            bound=decimal("-1e15", "1e15"),
            rank=_as_decimal,
        )
    if name == "model":
        return _Field(get=lambda facts: facts.spec.model, value=lambda one: known_model(one, models))
    if name not in _FIELDS:
        refuse_unknown(item, key, _KNOWN)
    return _FIELDS[name]


def known_model(item: Item, models: Mapping[str, str]) -> str:
    """The model's own name. Raises ConfigError for one that is not sold here."""
    name = text(item)
    if name not in models:
        raise item.wrong("one of " + ", ".join(sorted(models)), nearest(name, models))
    return models[name]


def _values(item: Item, how: Reader[Any]) -> frozenset[Any]:
    values = several(how)(item) if item.kind == "list" else (how(item),)
    if not values:
        raise item.fault(f"{item.what} lists no value")
    return frozenset(values)


def _on_field(name: str, field: _Field, item: Item) -> Test:
    if item.kind != "mapping":
        values = _values(item, field.value)
        accepts = field.matches(values) if field.matches else values.__contains__
        return Test(field=name, get=field.get, accepts=accepts, values=values)
    if field.bound is None:
        raise item.wrong("a value or a list of values")
    bounds = section(item, ("min", "max"))
    low, high = bounds.read("min", field.bound, None), bounds.read("max", field.bound, None)
    if low is None and high is None:
        raise item.fault(f"{item.what} needs `min`, `max` or both")
    if low is not None and high is not None and low > high:
        raise item.fault(f"{item.what} has a `min` above its `max`")
    ends = tuple(end for end in (low, high) if end is not None)
    return Test(field=name, get=field.get, accepts=_between(field.rank, low, high), bounds=ends)


def _between(rank: Callable[[Any], Any], low: Any, high: Any) -> Callable[[Any], bool]:
    def between(value: Any) -> bool:
        place = None if value is None else rank(value)
        return place is not None and (low is None or place >= low) and (high is None or place <= high)

    return between
