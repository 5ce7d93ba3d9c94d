"""What each condition matches, and which are refused."""

from typing import Any

import pytest

from proxy.core.errors import ConfigError
from proxy.policy.when import Facts, condition
from tests.policy.policies import make_spec, make_tenant, parse

MODELS = {"seedance-2.0": "seedance-2.0", "seedance": "seedance-2.0"}


def matches(piece: str, *, budget_used: float | None = None, hour: int = 12, **fields: Any) -> bool:
    facts = Facts(spec=make_spec(**fields), tenant=make_tenant(), budget_used=budget_used, hour=hour)
    return condition(parse(piece), MODELS).holds(facts)


@pytest.mark.parametrize(
    "piece",
    [
        "{model: seedance-2.0}",
        "{model: seedance}",
        "{operation: text-to-video}",
        "{prompt: a paper boat in rain}",
        "{seconds: 5}",
        "{seconds: [4, 5]}",
        "{seconds: {max: 6}}",
        "{seconds: {min: 5, max: 5}}",
        "{resolution: 720p}",
        "{resolution: [720p, 1080p]}",
        "{resolution: {min: 480p, max: 720p}}",
        '{aspect_ratio: "16:9"}',
        "{generate_audio: true}",
        "{content_filter: true, tier: standard}",
        "{seed: 7}",
        "{seed: {min: 7}}",
        "{web_search: false}",
        "{end_user_id: [u-1, u-2]}",
        "{tenant: acme}",
        "{tenant: [Acme]}",
        "{metadata.stage: preview}",
        "{metadata.count: {min: 3, max: 3.5}}",
        "{budget_used: {min: 0.9}}",
        "{hour: {min: 12}}",
        "{hour: 12}",
        "{any: [{tier: fast}, {seconds: 5}]}",
        "{all: [{tier: standard}, {seconds: 5}]}",
        "{not: {tier: fast}}",
        "{not: {tier: fast, seconds: 5}}",
    ],
)
def test_condition_that_holds(piece: str) -> None:
    metadata = {"stage": "preview", "count": "3"}
    assert matches(piece, budget_used=0.95, seed=7, end_user_id="u-1", metadata=metadata)


@pytest.mark.parametrize(
    "piece",
    [
        "{seconds: 6}",
        "{seconds: {min: 6}}",
        "{seconds: {max: 4}}",
        "{resolution: {min: 1080p}}",
        "{tier: standard, seconds: 6}",
        "{tenant: other}",
        "{metadata.stage: final}",
        "{metadata.other: preview}",
        "{hour: {min: 13, max: 20}}",
        "{any: [{tier: fast}, {seconds: 6}]}",
        "{all: [{tier: standard}, {seconds: 6}]}",
        "{not: {tier: standard}}",
        "{generate_audio: false}",
    ],
)
def test_condition_that_does_not_hold(piece: str) -> None:
    assert not matches(piece, metadata={"stage": "preview"})


@pytest.mark.parametrize(
    "piece",
    [
        "{budget_used: {max: 1}}",
        "{seconds: {min: 4}}",
        "{seed: {min: 0}}",
        "{end_user_id: u-1}",
        "{metadata.count: {min: 0}}",
        "{metadata.missing: {min: 0}}",
    ],
)
def test_unknown_matches_nothing(piece: str) -> None:
    assert not matches(piece, seconds=None, metadata={"count": "many"})


def test_auto_length_is_a_value() -> None:
    assert matches("{seconds: auto}", seconds=None)
    assert not matches("{seconds: [auto, 6]}", seconds=5)


@pytest.mark.parametrize(
    ("piece", "message"),
    [
        ("{}", "some.yaml:1:1: `when` holds no condition; leave it out in the last rule"),
        ("{resolutoin: 720p}", '1:2: unknown key "resolutoin" in the file; did you mean "resolution"?'),
        ("{metadata.: x}", 'unknown key "metadata."'),
        ("{resolution: 4k}", 'resolution must be one of 480p, 720p, 1080p, not "4k"'),
        ("{model: kling}", 'model must be one of seedance, seedance-2.0, not "kling"'),
        ("{seconds: 16}", 'seconds must be a whole number from 4 to 15, not "16"'),
        ("{seconds: []}", "seconds lists no value"),
        ("{seconds: {}}", "seconds needs `min`, `max` or both"),
        ("{seconds: {min: 6, max: 5}}", "seconds has a `min` above its `max`"),
        ("{seconds: {mim: 6}}", 'unknown key "mim" in seconds; did you mean "min"?'),
        ("{tier: {min: fast}}", "tier must be a value or a list of values, not a mapping"),
        ("{hour: 24}", 'hour must be a whole number from 0 to 23, not "24"'),
        ("{any: []}", "`any` holds no condition"),
        ("{any: {tier: fast}}", "any must be a list, not a mapping"),
        ("{not: [a]}", "not must be a mapping, not a list"),
        ("{generate_audio: loud}", 'generate_audio must be true or false, not "loud"'),
    ],
)
def test_mistake_is_named(piece: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        condition(parse(piece), MODELS)
    assert message in str(caught.value)
