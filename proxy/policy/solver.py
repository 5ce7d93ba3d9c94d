"""
Whether any request can meet some conditions of the rules; decided exactly.

A field matters only by which tests it passes, so a few values stand for all, also where there are
endlessly many. A search over these either finds a request or proves that there is none.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from itertools import count, pairwise, product
from typing import Any

from proxy.core.video import ASPECT_RATIOS, MAX_SECONDS, MIN_SECONDS, RESOLUTIONS, TIERS
from proxy.policy.spec import MAX_END_USER_CHARS, MAX_PAIR_KEY_CHARS, MAX_PAIR_VALUE_CHARS, MAX_PROMPT_CHARS
from proxy.policy.when import MAX_SEED, OPERATIONS, Either, Not, Test, Tree

Only = Mapping[str, Callable[[Any], bool]]
"""Fields to those of their values that come into question."""

MOST_STEPS = 1_000
"""A search that takes more has found nothing out."""

CLOSED: dict[str, tuple[Any, ...]] = {
    "operation": OPERATIONS,
    "seconds": (*range(MIN_SECONDS, MAX_SECONDS + 1), None),
    "resolution": RESOLUTIONS,
    "aspect_ratio": (*ASPECT_RATIOS, "auto"),
    "generate_audio": (True, False),
    "content_filter": (True, False),
    "tier": TIERS,
    "web_search": (True, False),
    "hour": tuple(range(24)),
}


def possible(conditions: Sequence[Tree], models: Sequence[str], only: Only | None = None) -> bool:
    """Whether one request can meet all of these; True also where that takes too long to find out."""
    tests: dict[str, list[Test]] = {}
    for condition in conditions:
        for test in _tests(condition):
            tests.setdefault(test.field, []).append(test)
    domains = {field: _distinct(_values(field, tests[field], models), tests[field], only or {}) for field in tests}
    return _Search(domains).finds(conditions, {})


def _tests(tree: Tree) -> Iterable[Test]:
    if isinstance(tree, Test):
        yield tree
    elif isinstance(tree, Not):
        yield from _tests(tree.part)
    else:
        for part in tree.parts:
            yield from _tests(part)


def _distinct(values: Iterable[Any], tests: Sequence[Test], only: Only) -> list[Any]:
    """One value for each way to pass and fail the tests."""
    allowed = only.get(tests[0].field, lambda _: True)
    found = {tuple(test.accepts(value) for test in tests): value for value in values if allowed(value)}
    return list(found.values())


class _Search:
    """Settles one field after the other, and turns back as soon as a condition has failed."""

    def __init__(self, domains: Mapping[str, list[Any]]) -> None:
        self._domains = domains
        self._order = list(domains)
        self._steps = 0

    def finds(self, undecided: Sequence[Tree], chosen: dict[str, Any]) -> bool:
        """Whether these conditions can be met beside what is chosen already."""
        self._steps += 1
        verdicts = [_verdict(condition, chosen) for condition in undecided]
        if False in verdicts:
            return False
        left = [condition for condition, verdict in zip(undecided, verdicts, strict=True) if verdict is None]
        if not left or self._steps > MOST_STEPS:
            return True
        field = self._order[len(chosen)]
        return any(self.finds(left, {**chosen, field: value}) for value in self._domains[field])


def _verdict(tree: Tree, chosen: Mapping[str, Any]) -> bool | None:
    """Whether it holds by the fields chosen so far; None: that depends on the others."""
    if isinstance(tree, Test):
        return tree.accepts(chosen[tree.field]) if tree.field in chosen else None
    if isinstance(tree, Not):
        verdict = _verdict(tree.part, chosen)
        return None if verdict is None else not verdict
    verdicts = {_verdict(part, chosen) for part in tree.parts}
    ends_it = isinstance(tree, Either)
    if ends_it in verdicts:
        return ends_it
    return None if None in verdicts else not ends_it


# --- values that stand for all


def _values(field: str, tests: Sequence[Test], models: Sequence[str]) -> Iterable[Any]:
    """Some of every kind that these tests can tell apart, and none that no request can have."""
    if field in CLOSED:
        return CLOSED[field]
    if field == "model":
        return models
    named = set().union(*(test.values for test in tests))
    ends = {Decimal(str(end)) for test in tests for end in test.bounds}
    if field == "seed":
        near = {int(one) + step for one in (*named, *ends, 0) for step in (-1, 0, 1)}
        return [None, *(seed for seed in near if 0 <= seed <= MAX_SEED)]
    if field == "budget_used":
        ends |= {Decimal(0), *(Decimal(str(one)) for one in named)}
        return [None, *(float(one) for one in _between_and_beyond(ends) if one >= 0)]
    other = next(word for length in count(1) if (word := "x" * length) not in named)
    if field == "tenant":
        # By its id or by its name, which are two words.
        return product((*named, other), repeat=2)
    if field == "prompt":
        return [other, *(one for one in named if len(one) <= MAX_PROMPT_CHARS)]
    if field == "end_user_id":
        return [None, other, *(one for one in named if len(one) <= MAX_END_USER_CHARS)]
    if len(field.removeprefix("metadata.")) > MAX_PAIR_KEY_CHARS:
        return [None]
    named = {one for one in named if len(one) <= MAX_PAIR_VALUE_CHARS}
    return [None, other, *named, *(_unnamed(one, named) for one in _between_and_beyond(ends))]


def _unnamed(number: Decimal, named: Collection[str]) -> str:
    """The number, written as no condition writes it."""
    digits = f"{number:f}"
    whole = digits if "." in digits else f"{digits}."
    return next(text for zeros in count(1) if (text := whole + "0" * zeros) not in named)


def _between_and_beyond(ends: Iterable[Decimal]) -> list[Decimal]:
    """Each end, one number between every two of them, and one on either side of all."""
    places = sorted(ends) or [Decimal(0)]
    return [places[0] - 1, *places, *((low + high) / 2 for low, high in pairwise(places)), places[-1] + 1]
