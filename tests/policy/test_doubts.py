"""Which rules can hardly be meant, and that nothing is said of the others."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.errors import ReelayError
from proxy.core.video import RESOLUTIONS, TIERS
from proxy.policy.doubts import doubts, with_doubts
from proxy.policy.rules import Rules
from tests.policy.policies import AT_US, ENV, PROVIDERS, decided, load, make_rules, make_tenant
from tests.policy.test_rules import EVERYTHING, TOP_FILE


def told(*bodies: str, last: str = "{name: last}", **options: Any) -> list[str]:
    """Doubts of rules `a`, `b`, … that say these bodies."""
    named = [f"{{name: {name}, {body}}}" for name, body in zip("abcdef", bodies, strict=False)]
    return doubts(make_rules(f"rules: [{', '.join([*named, last])}]", **options), at_us=AT_US)


def test_rules_of_the_project_leave_no_doubt() -> None:
    assert doubts(load(TOP_FILE.read_text()), at_us=AT_US) == []
    assert doubts(load(EVERYTHING), at_us=AT_US) == []


# Rules that are never the one


@pytest.mark.parametrize(
    "when",
    [
        "{all: [{seconds: 5}, {seconds: 6}]}",
        "{seconds: {min: 16}}",
        "{tier: fast, not: {tier: [fast, mini]}}",
        "{metadata.stage: preview, all: [{metadata.stage: final}]}",
    ],
)
def test_rule_that_can_never_match(when: str) -> None:
    assert told(f"when: {when}") == ['the rule "a" can never match: no request meets all of its `when`']


def test_rule_behind_one_that_matches_all_of_its_requests() -> None:
    shadowed = 'the rule "b" is never reached: "a" before it matches whatever it matches'
    assert told("when: {tier: fast}", "when: {tier: fast, seconds: 5}") == [shadowed]
    assert told("when: {seconds: {max: 8}}", "when: {seconds: [4, 5]}") == [shadowed]
    assert told("when: {not: {metadata.x: y}}", "when: {metadata.x: z}") == [shadowed]
    assert told("when: {tier: fast, seconds: 5}", "when: {tier: fast}") == []
    assert told("when: {seconds: {max: 8}}", "when: {seconds: [4, auto]}") == [], "auto is not below 8"


def test_rule_behind_several_that_match_all_of_its_requests_together() -> None:
    found = told("when: {hour: {max: 11}}", "when: {hour: {min: 12, max: 22}}", "when: {hour: {min: 9, max: 15}}")
    assert found == ['the rule "c" is never reached: the rules before it match whatever it matches']


def test_last_rule_has_to_be_there_whatever_is_left_to_it() -> None:
    assert told("when: {generate_audio: true}", "when: {generate_audio: false}") == []


# Rules that leave nobody


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("when: {resolution: 1080p, tier: fast}", "no offer makes what it matches"),
        ("when: {operation: image-to-video}", "no offer makes what it matches"),
        ("when: {content_filter: false}, providers: {only: [fal]}", "no offer of its providers makes what it matches"),
        ("when: {tier: mini}, strategy: {ordered: [fal]}", "no offer of its providers makes what it matches"),
        ("when: {tier: mini}, strategy: {weighted: {fal: 1}}", "no offer of its providers makes what it matches"),
        ("when: {seed: {min: 0}}, require: [seed], providers: {only: [evolink]}",
         "no offer of its providers makes what it matches"),
        ("when: {hour: 3}, seed: 7, require: [seed], providers: {only: [evolink]}",
         "no offer of its providers makes what it fills in"),
        ("when: {resolution: 1080p}, resolution_at_most: 720p", "no offer makes what it matches"),
        ("when: {hour: 3}, tier: mini, resolution: 1080p", "no offer makes what it fills in"),
        ("when: {hour: 3}, generate_audio: false, require: [generate_audio], providers: {only: [shortapi]}",
         "no offer of its providers makes what it fills in"),
        ("when: {tier: fast}, max_price_usd: '0.01'", "no offer makes what it matches within its limits"),
        ("when: {tier: fast}, max_wait_s: 1", "no offer makes what it matches within its limits"),
        ("when: {resolution: 1080p, seconds: {min: 10}}, max_price_usd: '3.00'",
         "no offer makes what it matches within its limits"),
        ("when: {web_search: true}, providers: {only: [fal]}", "no offer of its providers makes what it matches"),
        ("when: {tier: mini, resolution: 720p}", "no offer makes what it matches"),
    ],
)  # fmt: skip
def test_rule_that_leaves_nobody(body: str, what: str) -> None:
    assert told(body) == [f'the rule "a" leaves nobody: {what}']


@pytest.mark.parametrize(
    "body",
    [
        "when: {resolution: 1080p}",
        "when: {resolution: 1080p}, resolution_at_most: 720p, downgrade: true",
        "when: {tier: [fast, mini], resolution: 1080p}, resolution_at_most: 480p, downgrade: true",
        "when: {content_filter: false}, max_price_usd: '3.00'",
        "when: {seconds: auto}",
        "when: {seconds: auto}, seconds: 5, downgrade: true, providers: {only: [evolink]}",
        "when: {tier: fast}, tier: mini, resolution: 480p",
        "when: {hour: 3}, tier: mini, resolution: 480p",
        "when: {seed: {min: 0}}, require: [seed]",
        "when: {seed: {min: 0}}",
        "when: {web_search: true}, require: [web_search]",
        "when: {resolution: 1080p, seconds: {min: 4}}, max_price_usd: '3.00'",
        "when: {tenant: acme, metadata.x: {min: 3}, prompt: rain, end_user_id: u, hour: {min: 3}}, max_wait_s: 900",
    ],
)
def test_rule_that_leaves_somebody(body: str) -> None:
    assert told(body) == []


def test_rule_whose_own_limits_leave_somebody_only_where_earlier_rules_took_them() -> None:
    found = told("when: {tier: standard}", "when: {resolution: 1080p}")
    assert found == ['the rule "b" leaves nobody: no offer makes what it matches']


def test_price_counts_from_its_first_day() -> None:
    price = "{model: seedance-2.0, tier: mini, resolution: 720p, usd_per_second: '0.1', starts: 2099-01-01}"
    providers = PROVIDERS.replace('"${EVOLINK_API_KEY}"}', f'"${{EVOLINK_API_KEY}}", prices: [{price}]}}')
    rules = make_rules("rules: [{name: a, when: {tier: mini, resolution: 720p}}, {name: last}]", providers=providers)
    assert len(doubts(rules, at_us=AT_US)) == 1
    assert doubts(rules, at_us=AT_US + 80 * 365 * 86_400 * 1_000_000) == []


def test_rule_that_would_leave_somebody_who_is_off_says_so() -> None:
    env = {"FAL_KEY": ENV["FAL_KEY"]}
    assert told("when: {content_filter: false}", env=env) == [
        'the rule "a" leaves nobody for now: what it matches is made by evolink alone, switched off or without a key'
    ]
    [doubt] = told("when: {hour: 3}, resolution: 1080p", env=env)
    assert doubt.endswith("what it fills in is made by evolink, runflow alone, switched off or without a key")


def test_that_nobody_is_on_is_no_fault_of_a_rule() -> None:
    assert told("when: {resolution: 1080p}", env={}) == []
    assert len(told("when: {resolution: 1080p, tier: fast}", env={})) == 1


def test_doubts_join_the_other_warnings() -> None:
    rules = make_rules("rules: [{name: a, when: {seconds: {min: 16}}}, {name: last}]", env={"FAL_KEY": "id:fal"})
    known = with_doubts(rules, at_us=AT_US)
    assert known.warnings[: len(rules.warnings)] == rules.warnings
    assert [warning[:24] for warning in known.warnings[len(rules.warnings) :]] == ['the rule "a" can never m']
    assert rules.figures == {}, "no price that was looked up for a doubt is kept"


# Compared with decisions


def words(field: str, *values: str) -> st.SearchStrategy[str]:
    return st.sampled_from(["", *(f"{field}: {value}, " for value in values)])


BODIES = st.tuples(
    st.sampled_from(["{tier: fast}", "{not: {resolution: 720p}}", "{seconds: {min: 8}}", "{content_filter: false}"]),
    words("tier", *TIERS),
    words("resolution", *RESOLUTIONS),
    words("resolution_at_most", "480p", "720p"),
    words("downgrade", "true"),
    words("max_price_usd", '"0.5"', '"1.1"'),
    words("max_wait_s", "100"),
    words("providers", "{only: [fal, shortapi]}", "{ignore: [evolink]}"),
    words("require", "[seed, web_search]", "[generate_audio]"),
)
ASKS = st.fixed_dictionaries(
    {},
    optional={
        "tier": st.sampled_from(TIERS),
        "resolution": st.sampled_from(RESOLUTIONS),
        "seconds": st.sampled_from([4, 8, "auto"]),
        "content_filter": st.booleans(),
        "generate_audio": st.booleans(),
        "web_search": st.booleans(),
        "seed": st.just(7),
    },
)


def is_served(rules: Rules, ask: dict[str, Any], right: bool) -> bool:
    try:
        decision = decided(rules, tenant=make_tenant(allow_filter_off=right), explain=False, **ask)
    except ReelayError:
        return False
    return decision.plan.rule == "a"


@given(BODIES, st.lists(ASKS, min_size=1, max_size=20), st.booleans())
def test_nothing_is_doubted_that_serves_a_request(
    body: tuple[str, ...], asks: list[dict[str, Any]], right: bool
) -> None:
    when, *fields = body
    rules = make_rules(f"rules: [{{name: a, when: {when}, {''.join(fields)}}}, {{name: last}}]")
    filled = {field.split(":")[0] for field in fields if field.startswith(("tier", "resolution:"))}
    plain = [ask for ask in asks if not filled & set(ask)]
    if any(is_served(rules, ask, right) for ask in plain):
        assert doubts(rules, at_us=AT_US) == []
