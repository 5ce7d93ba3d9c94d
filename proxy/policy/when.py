"""
The conditions of the rules: read once, each a closure that is asked for every request.

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


Condition = Callable[[Facts], bool]


class _Field(msgspec.Struct, frozen=True, kw_only=True):
    """What a condition can be put on."""

    get: Callable[[Facts], Any]
    value: Reader[Any]
    bound: Reader[Any] | None = None
    """Reads `min` and `max`; None: the field has no order."""
    rank: Callable[[Any], Any] = lambda value: value
    """What the bounds are compared with; None where a value has no place in the order."""


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
_KNOWN = ("any", "all", "not", "model", "tenant", "metadata.<key>", *_FIELDS)


def condition(item: Item, models: Mapping[str, str]) -> Condition:
    """
    Compile a mapping of conditions, all of which must hold.

    `models` takes every name of a model, aliases too, to its own name.
    """
    entries = mapping(item)
    if not entries:
        raise item.fault("`when` holds no condition; leave it out in the last rule")
    parts = [_part(item, key, value, models) for (key, _), value in zip(item.node.value, entries.values(), strict=True)]
    return _all(parts)


def conditions(item: Item, models: Mapping[str, str]) -> dict[str, Condition]:
    """The same one by one, by their keys: those that do not hold are why a rule is passed over."""
    found: dict[str, Condition] = {}
    for key, value in item.node.value:
        alone = yaml.MappingNode(item.node.tag, [(key, value)], item.node.start_mark, item.node.end_mark)
        found[str(key.value)] = condition(msgspec.structs.replace(item, node=alone), models)
    return found


def _all(parts: list[Condition]) -> Condition:
    if len(parts) == 1:
        return parts[0]
    return lambda facts: all(part(facts) for part in parts)


def _part(item: Item, key: yaml.ScalarNode, value: Item, models: Mapping[str, str]) -> Condition:
    name = str(key.value)
    if name == "not":
        inner = condition(value, models)
        return lambda facts: not inner(facts)
    if name in {"any", "all"}:
        parts = [condition(one, models) for one in items(value)]
        if not parts:
            raise value.fault(f"`{name}` holds no condition")
        return _all(parts) if name == "all" else lambda facts: any(part(facts) for part in parts)
    if name == "tenant":
        names = _values(value, text)
        return lambda facts: facts.tenant.id in names or facts.tenant.name in names
    return _on_field(_field(item, key, models), value)


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


def _on_field(field: _Field, item: Item) -> Condition:
    get = field.get
    if item.kind != "mapping":
        values = _values(item, field.value)
        return lambda facts: get(facts) in values
    if field.bound is None:
        raise item.wrong("a value or a list of values")
    return _between(field, item, field.bound)


def _between(field: _Field, item: Item, bound: Reader[Any]) -> Condition:
    bounds = section(item, ("min", "max"))
    low, high = bounds.read("min", bound, None), bounds.read("max", bound, None)
    if low is None and high is None:
        raise item.fault(f"{item.what} needs `min`, `max` or both")
    if low is not None and high is not None and low > high:
        raise item.fault(f"{item.what} has a `min` above its `max`")
    get, rank = field.get, field.rank

    def between(facts: Facts) -> bool:
        value = get(facts)
        place = None if value is None else rank(value)
        return place is not None and (low is None or place >= low) and (high is None or place <= high)

    return between
