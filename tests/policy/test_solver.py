"""Whether conditions can be met: compared with trying everything."""

from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.video import MAX_SECONDS, MIN_SECONDS, RESOLUTIONS, TIERS
from proxy.policy.solver import possible
from proxy.policy.when import Facts, Not, condition
from tests.policy.policies import make_spec, make_tenant, parse

MODELS = {"seedance-2.0": "seedance-2.0", "seedance": "seedance-2.0", "kino-1": "kino-1"}


def can_be_met(*pieces: str, **only: Any) -> bool:
    trees = [condition(parse(piece), MODELS).tree for piece in pieces]
    return possible(trees, ("kino-1", "seedance-2.0"), {field: values.__contains__ for field, values in only.items()})


@pytest.mark.parametrize(
    "pieces",
    [
        ("{seconds: 5}", "{seconds: {min: 5, max: 5}}"),
        ("{seconds: auto}", "{not: {seconds: {min: 0}}}"),
        ("{tenant: acme}", "{tenant: tenant_1}"),
        ("{not: {tenant: acme}}", "{not: {end_user_id: [u-1, u-2]}}"),
        ("{end_user_id: u-1}", "{prompt: a boat}"),
        ("{not: {prompt: x}}", "{not: {prompt: xx}}"),
        ("{seed: {min: 3, max: 3}}", "{seed: 3}"),
        ("{seed: {min: 4294967295}}",),
        ("{not: {seed: {min: 0}}}",),
        ("{budget_used: {max: 0.1}}", "{not: {budget_used: {min: 0.05}}}"),
        ("{budget_used: {min: 0.9}}", "{not: {budget_used: {min: 0.91}}}", "{not: {budget_used: 0.9}}"),
        ("{not: {budget_used: {min: 0}}}",),
        ("{budget_used: 0.5}",),
        ("{metadata.n: {min: 3, max: 3}}", '{not: {metadata.n: ["3", "3.0", "3.00"]}}'),
        ("{metadata.n: {min: 3}}", "{metadata.n: {max: 4}}", "{not: {metadata.n: {min: 3.5}}}"),
        ("{metadata.n: {max: -1000000000000000}}",),
        ("{metadata.n: three}", "{not: {metadata.n: {min: 0}}}"),
        ("{metadata.a: x}", "{metadata.b: y}"),
        ("{not: {metadata.n: x}}", "{not: {metadata.n: {min: 0}}}", "{not: {metadata.n: {max: 0}}}"),
        ("{hour: {min: 22}}", "{any: [{hour: 1}, {hour: 23}]}"),
        ("{model: seedance}",),
        ("{operation: image-to-video}",),
    ],
)
def test_conditions_that_some_request_meets(pieces: tuple[str, ...]) -> None:
    assert can_be_met(*pieces)


@pytest.mark.parametrize(
    "pieces",
    [
        ("{seconds: 5}", "{seconds: 6}"),
        ("{seconds: {min: 16}}",),
        ("{seconds: auto}", "{seconds: {min: 0}}"),
        ("{resolution: {min: 720p}}", "{not: {resolution: [720p, 1080p]}}"),
        ("{tenant: acme}", "{tenant: tenant_1}", "{tenant: other}"),
        ("{end_user_id: u-1}", "{not: {end_user_id: [u-1, u-2]}}"),
        (f"{{end_user_id: {'u' * 129}}}",),
        (f"{{prompt: {'u' * 32_001}}}",),
        (f"{{metadata.n: {'u' * 513}}}",),
        (f"{{metadata.{'n' * 65}: x}}",),
        ("{seed: {min: 3, max: 4}}", "{not: {seed: [3, 4]}}"),
        ("{budget_used: {max: 0.1}}", "{budget_used: {min: 0.11}}"),
        ("{metadata.n: three}", "{metadata.n: {min: 0}}"),
        ("{metadata.n: {min: 3}}", "{not: {metadata.n: {min: 2}}}"),
        ("{metadata.n: a}", "{metadata.n: b}"),
        ("{model: seedance}", "{model: kino-1}"),
        ("{any: [{tier: fast}, {tier: mini}]}", "{tier: standard}"),
        ("{all: [{hour: {min: 5}}, {hour: {max: 4}}]}",),
    ],
)
def test_conditions_that_no_request_meets(pieces: tuple[str, ...]) -> None:
    assert not can_be_met(*pieces)


def test_only_some_values_may_be_left() -> None:
    assert can_be_met("{resolution: {min: 720p}}", resolution={"480p", "1080p"})
    assert not can_be_met("{resolution: {min: 720p}}", resolution={"480p"})
    assert can_be_met("{tier: fast}", resolution=set()), "of a field that no condition is on nothing is asked"


def test_search_that_takes_too_long_claims_nothing() -> None:
    """Nine pigeons have no room in eight holes, but to see it all ways to sit must be tried."""
    pigeons = range(9)
    sits = [f"{{metadata.p{one}: {[str(hole) for hole in pigeons[1:]]}}}" for one in pigeons]
    alone = [
        f'{{not: {{metadata.p{one}: "{hole}", metadata.p{other}: "{hole}"}}}}'
        for one, other in product(pigeons, repeat=2)
        if one < other
        for hole in pigeons[1:]
    ]
    assert can_be_met(*sits, *alone)


# Compared with trying everything


def piece(*leaves: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.recursive(
        st.one_of(*leaves),
        lambda inner: st.one_of(
            inner.map(lambda one: f"{{not: {one}}}"),
            st.lists(inner, min_size=1, max_size=3).map(lambda some: f"{{any: [{', '.join(some)}]}}"),
            st.lists(inner, min_size=1, max_size=3).map(lambda some: f"{{all: [{', '.join(some)}]}}"),
        ),
        max_leaves=6,
    )


closed = piece(
    st.sampled_from(TIERS).map(lambda tier: f"{{tier: {tier}}}"),
    st.sampled_from(RESOLUTIONS).map(lambda resolution: f"{{resolution: {{min: {resolution}}}}}"),
    st.integers(MIN_SECONDS, MAX_SECONDS).map(lambda seconds: f"{{seconds: {{max: {seconds}}}}}"),
    st.sampled_from(["{seconds: [4, auto]}", "{generate_audio: true}", "{content_filter: false}"]),
)
EVERY_SPEC = [
    make_spec(tier=tier, resolution=resolution, seconds=seconds, generate_audio=sound, content_filter=filtered)
    for tier, resolution, seconds, sound, filtered in product(
        TIERS, RESOLUTIONS, (*range(MIN_SECONDS, MAX_SECONDS + 1), None), (True, False), (True, False)
    )
]


@given(st.lists(closed, min_size=1, max_size=3), st.booleans())
def test_closed_fields_are_decided_as_if_everything_was_tried(pieces: list[str], negate: bool) -> None:
    conditions = [condition(parse(one), MODELS) for one in pieces]
    facts = [Facts(spec=spec, tenant=make_tenant(), budget_used=None, hour=0) for spec in EVERY_SPEC]
    first, *others = conditions
    met = any(first.holds(one) is not negate and all(other.holds(one) for other in others) for one in facts)
    trees = [Not(first.tree) if negate else first.tree, *(other.tree for other in others)]
    assert possible(trees, ()) is met


open_ended = piece(
    st.integers(-1, 3).map(lambda number: f"{{metadata.n: {{min: {number}}}}}"),
    st.integers(-1, 3).map(lambda number: f"{{metadata.n: {{max: {number}.5}}}}"),
    st.sampled_from(['{metadata.n: ["1", "1.0"]}', "{metadata.n: [x, xx]}", "{seed: {max: 1}}", "{seed: [0, 2]}"]),
    st.sampled_from(["{budget_used: {min: 0.5}}", "{budget_used: {max: 0.5}}", "{tenant: acme}", "{tenant: Acme}"]),
)


@given(
    st.lists(open_ended, min_size=1, max_size=3),
    st.one_of(st.none(), st.text(max_size=2), st.sampled_from(["-1", "0", "0.7", "1.00", "1.5", "2", "3.5", "9"])),
    st.one_of(st.none(), st.integers(0, 4)),
    st.one_of(st.none(), st.floats(0, 2)),
    st.sampled_from([("acme", "Acme"), ("acme", "x"), ("x", "Acme"), ("x", "y")]),
)
def test_what_some_request_meets_is_never_called_impossible(
    pieces: list[str], text: str | None, seed: int | None, used: float | None, who: tuple[str, str]
) -> None:
    spec = make_spec(seed=seed, metadata={} if text is None else {"n": text})
    facts = Facts(spec=spec, tenant=make_tenant(id=who[0], name=who[1]), budget_used=used, hour=0)
    conditions = [condition(parse(one), MODELS) for one in pieces]
    met = [one.tree if one.holds(facts) else Not(one.tree) for one in conditions]
    assert possible(met, ())
