"""The operator's file: the whole language is read, and every mistake is one line with its place."""

from pathlib import Path

import pytest

from proxy.core.errors import ConfigError
from proxy.core.offer import FallbackPolicy
from proxy.policy.rules import Rule, Strategy
from tests.policy.policies import DEFAULT_RULE, ENV, PROVIDERS, load, make_rules, rule

EVERYTHING = """
version: 1
defaults:
  {seconds: 5, resolution: 720p, aspect_ratio: "16:9", generate_audio: true, content_filter: true, tier: standard,
   fallback: {max_attempts: 3, on: [throttled, capacity, provider_error, seller_timeout, account], deadline_s: 1200,
              on_unknown: wait, on_moderation: stop}}

providers:
  evolink:  {adapter: evolink,  api_key: "${EVOLINK_API_KEY}"}
  shortapi: {adapter: shortapi, api_key: "${SHORTAPI_KEY}", max_in_flight: 20}
  fal:      {adapter: fal,      api_key: "${FAL_KEY}", base_url: https://queue.fal.run, end_user_id: hashed}
  runflow:  {adapter: runflow,  api_key: "${RUNFLOW_API_KEY}", discount: "0.10"}
  runflow-legacy: {adapter: runflow-legacy, api_key: "${RUNFLOW_API_KEY}", enabled: false}

models:
  seedance-2.0: {aliases: [seedance, sora-2]}

rules:
  - name: nearly-broke
    when: {budget_used: {min: 0.9}}
    resolution_at_most: 480p
    downgrade: true
    strategy: cheapest
  - name: full-hd
    when: {resolution: 1080p}
    strategy: cheapest
  - name: relaxed-filter
    when: {content_filter: false}
    strategy: cheapest
    max_price_usd: "3.00"
  - name: previews
    when: {metadata.stage: preview, seconds: {max: 6}}
    tier: fast
    strategy: fastest
  - name: the-rest-of-the-language
    when: {any: [{tenant: acme}, {all: [{hour: {min: 22}}, {not: {end_user_id: [u-1, u-2]}}]}]}
    strategy: {weighted: {fal: 3, evolink: 1, runflow: 0}}
    require: [seed]
    seed: 7
    providers: {only: [fal, evolink, runflow], ignore: [runflow]}
    max_wait_s: 300
    bill_failed_attempts: true
    fallback: {on_unknown: fallback, max_attempts: 2}
  - name: in-order
    when: {tier: mini}
    strategy: {ordered: [fal, evolink]}
  - name: default
    strategy: {balanced: {price: 0.7, latency: 0.3}}
retention: {files_days: 31, inputs_days: 8}
unknown_fields: report
expose_providers: false
sizes: {"1792x1024": {resolution: 1080p, aspect_ratio: "16:9"}}
"""
TOP_FILE = Path(__file__).parents[2] / "routing_rules.yaml"


def mistake(text: str, *, env: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load(text, env=env)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("routing_rules.yaml:")
    return message


def rule_mistake(body: str) -> str:
    with pytest.raises(ConfigError) as caught:
        rule(body)
    return str(caught.value)


def named(name: str) -> Rule:
    return next(one for one in load(EVERYTHING).rules if one.name == name)


def test_whole_language_is_read() -> None:
    rules = load(EVERYTHING)
    assert list(rules.accounts) == ["evolink", "shortapi", "fal", "runflow", "runflow-legacy"]
    assert [name for name, account in rules.accounts.items() if not account.on] == ["runflow-legacy"]
    assert rules.accounts["runflow"].discount == "0.10"
    assert rules.models == ("seedance-2.0",)
    assert rules.names == dict.fromkeys(("seedance-2.0", "seedance", "sora-2"), "seedance-2.0")
    assert len(rules.rules) == 7
    assert (rules.retention.files_days, rules.retention.inputs_days, rules.retention.prompts_days) == (31, 8, 90)
    assert (rules.unknown_fields, rules.expose_providers) == ("report", False)
    assert rules.sizes == {"1792x1024": ("1080p", "16:9")}
    assert rules.warnings == ()


def test_rule_keeps_what_it_says() -> None:
    broke = named("nearly-broke")
    assert (broke.resolution_at_most, broke.downgrade, broke.strategy.name) == ("480p", True, "cheapest")
    assert named("relaxed-filter").max_price_microusd == 3_000_000
    assert named("previews").fill == {"tier": "fast"}
    assert named("in-order").strategy == Strategy(name="ordered", order=("fal", "evolink"))
    assert named("default").strategy == Strategy(name="balanced", price_weight=0.7, latency_weight=0.3)
    assert named("default").when is None
    rest = named("the-rest-of-the-language")
    assert rest.strategy == Strategy(name="weighted", weights={"fal": 3.0, "evolink": 1.0})
    assert rest.strategy.providers == rest.allowed == frozenset({"fal", "evolink"})
    assert (rest.require, rest.fill, rest.max_wait_s) == (frozenset({"seed"}), {"seed": 7}, 300)
    assert rest.bill_failed_attempts


def test_fallback_is_merged_over_the_defaults() -> None:
    assert named("the-rest-of-the-language").fallback == FallbackPolicy(
        max_attempts=2,
        on=frozenset({"throttled", "capacity", "provider_error", "seller_timeout", "account"}),
        deadline_s=1200,
        on_unknown="fallback",
        on_moderation="stop",
    )
    assert named("default").fallback == load(EVERYTHING).fallback


def test_what_is_left_out_has_its_default() -> None:
    rules = make_rules()
    assert (rules.defaults.seconds, rules.defaults.resolution, rules.defaults.tier) == (5, "720p", "standard")
    assert (rules.fallback.max_attempts, rules.fallback.deadline_s, len(rules.fallback.on)) == (3, 1200, 5)
    assert (rules.retention.files_days, rules.unknown_fields, rules.expose_providers) == (30, "refuse", True)
    assert rules.names == {"seedance-2.0": "seedance-2.0"}
    assert make_rules("rules: [{name: a}]").rules[0].strategy.name == "cheapest"


def test_defaults_may_leave_the_length_to_the_seller() -> None:
    assert make_rules(more="defaults: {seconds: auto}").defaults.seconds is None


def test_offers_can_be_found_by_model_and_kind() -> None:
    rules = make_rules()
    assert len(rules.by_model["seedance-2.0"]) == len(rules.offers) == 9
    kind = rules.by_kind["seedance-2.0", "text-to-video", "fast"]
    assert [offer.provider for offer in kind] == ["evolink", "shortapi", "fal", "runflow"]


def test_provider_without_its_key_is_off_with_a_warning() -> None:
    rules = make_rules(env={name: key for name, key in ENV.items() if name != "FAL_KEY"})
    assert rules.warnings == ("the provider fal is off: FAL_KEY is not set",)
    assert not rules.accounts["fal"].on


def test_hashes_tell_rules_from_book() -> None:
    plain, commented = make_rules(), make_rules(DEFAULT_RULE + "# a remark\n")
    assert plain.rules_hash != commented.rules_hash
    assert plain.book_hash == commented.book_hash
    dearer = make_rules(providers=PROVIDERS.replace('"${FAL_KEY}"', '"${FAL_KEY}", discount: "0.5"'))
    assert plain.book_hash != dearer.book_hash


def test_secret_is_in_no_repr() -> None:
    rules = load(EVERYTHING)
    assert not any(secret in repr(rules) + repr(rules.accounts) for secret in ENV.values())


def test_model_may_be_written_by_the_operator() -> None:
    offer = """{provider: fal, operation: text-to-video, tier: standard, seller_model: fal/kling, resolutions: [720p],
      aspect_ratios: ["16:9"], min_seconds: 5, max_seconds: 10, auto_seconds: false, audio: never, seed: false,
      filter_switch: false, web_search: false, prompt_max_chars: 2500, cancel: true, callbacks: http,
      link_lifetime_s: 604800, expected_s: {720p: [30, 9]}, submit_timeout_s: 60, prices: []}"""
    rules = make_rules(more=f"models: {{kling: {{offers: [{offer}]}}}}")
    assert rules.models == ("kling",)
    assert list(rules.offers) == ["fal/kling/standard/text-to-video"]


def test_installed_adapter_without_a_catalogue_sells_what_the_yaml_says() -> None:
    text = f"version: 1\nproviders: {{new: {{adapter: third, api_key: k}}}}\n{DEFAULT_RULE}"
    rules = load(text, adapters={"third": "https://third.example"})
    assert (rules.models, rules.offers) == ((), {})
    assert 'nobody makes the model "m"; offers exist for: none' in mistake_with_third(text + "models: {m: {}}\n")


def mistake_with_third(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(text, adapters={"third": "https://third.example"})
    return str(caught.value)


def test_rules_file_of_the_project_is_good() -> None:
    rules = load(TOP_FILE.read_text())
    assert rules.warnings == ()
    assert [one.name for one in rules.rules] == ["full-hd", "relaxed-filter", "previews", "default"]
    assert rules.rules[-1].strategy.name == "cheapest"
    assert [name for name, account in rules.accounts.items() if not account.on] == ["runflow-legacy"]
    assert len(load(TOP_FILE.read_text(), env={}).warnings) == 4


def test_message_is_one_line_with_file_line_column_and_the_nearest_key() -> None:
    text = f"version: 1\n{PROVIDERS}rules:\n  - name: default\n    strategie: cheapest\n"
    assert mistake(text) == (
        'routing_rules.yaml:10:5: unknown key "strategie" in rule "default"; did you mean "strategy"?'
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("version: 1", "version: 2", 'version must be 1, not "2"'),
        ("version: 1\n", "", 'the file needs the key "version"'),
        ("retention:", "retentions:", 'unknown key "retentions" in the file; did you mean "retention"?'),
        ("unknown_fields: report", "unknown_fields: ignore", "unknown_fields must be one of refuse, report"),
        ("files_days: 31", "file_days: 31", 'unknown key "file_days" in retention; did you mean "files_days"?'),
        ("[seedance, sora-2]", "[seedance, seedance-2.0]", "aliases must be a name that no model has yet"),
        ("[seedance, sora-2]", "[a/b]", "aliases must be a name that no model has yet"),
        ("seedance-2.0: {", "seedance-3.0: {", 'nobody makes the model "seedance-3.0"; offers exist for: seedance-2.0'),
        ("  seedance-2.0: {aliases: [seedance, sora-2]}", "  {}", "`models` names no model"),
        ('"1792x1024"', "wide", '"wide" must be a size such as 1792x1024 that no resolution has'),
        ('"1792x1024"', '"1280x720"', '"1280x720" must be a size such as'),
        (', aspect_ratio: "16:9"}}', "}}", 'sizes.1792x1024 needs the key "aspect_ratio"'),
        ("name: full-hd", "name: default", 'there is another rule "default"'),
        ("  - name: full-hd\n    when: {resolution: 1080p}", "  - name: full-hd", "without it no later rule is ever"),
        ("  - name: default\n", "  - name: default\n    when: {tier: fast}\n", "is the last and must have no `when`"),
        ("on: [throttled,", "on: [moderation,", 'not "moderation"'),
        ("deadline_s: 1200", "deadline: 1200", 'unknown key "deadline" in fallback; did you mean "deadline_s"?'),
        ("{metadata.stage: preview", "{metadat: preview", 'unknown key "metadat"'),
        (
            "only: [fal,",
            "only: [fall,",
            'only must be one of evolink, shortapi, fal, runflow, runflow-legacy, not "fall"',
        ),
        ("ignore: [runflow]", "ignore: [fal, evolink, runflow]", "`only` and `ignore` leave no provider"),
        ("{ordered: [fal, evolink]}", "{ordered: []}", "`ordered` names no provider"),
        ("{ordered: [fal, evolink]}", "{ordered: [fal], balanced: {}}", "a strategy is one of balanced"),
        ("{ordered: [fal, evolink]}", "cheapst", 'not "cheapst"; did you mean "cheapest"?'),
        ("{price: 0.7, latency: 0.3}", "{price: 0, latency: 0}", "`balanced` needs a weight above 0"),
        ("{price: 0.7, latency: 0.3}", "{price: 0.7}", 'balanced needs the key "latency"'),
        ("{fal: 3, evolink: 1, runflow: 0}", "{fal: 0}", "`weighted` gives no provider any weight"),
        ("{fal: 3, evolink: 1, runflow: 0}", "{fall: 1}", 'unknown key "fall" in weighted; did you mean "fal"?'),
        ("require: [seed]", "require: [sed]", "require must be one of"),
        ("seed: 7", "seed: -1", "seed must be a whole number from 0"),
        ('discount: "0.10"', "discounts: 1", 'unknown key "discounts" in providers.runflow; did you mean "discount"?'),
    ],
)
def test_mistake_is_named(old: str, new: str, message: str) -> None:
    assert old in EVERYTHING
    assert message in mistake(EVERYTHING.replace(old, new, 1))


def test_rules_cannot_be_empty() -> None:
    with pytest.raises(ConfigError, match="`rules` holds no rule"):
        make_rules("rules: []")
    with pytest.raises(ConfigError, match='the file needs the key "rules"'):
        make_rules("")


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("rules: [{strategy: cheapest}]", 'rule 1 needs the key "name"'),
        ("rules: [{name: [a]}]", "name must be text, not a list"),
        ("rules: [a]", 'rules must be a mapping, not "a"'),
    ],
)
def test_rule_without_a_name_is_called_by_its_number(rules: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_rules(rules)
    assert message in str(caught.value)


def test_duplicate_key_in_a_rule_is_a_mistake() -> None:
    assert 'the key "tier" is here twice' in rule_mistake("tier: fast, tier: mini")


def test_plain_word_balanced_weighs_both_the_same() -> None:
    assert rule("strategy: balanced").rules[0].strategy == Strategy(name="balanced")
