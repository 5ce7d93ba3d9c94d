"""Accounts with their keys, and what is refused without showing one."""

import pytest

from proxy.core.errors import ConfigError
from proxy.policy.accounts import Provider, read_providers
from tests.policy.policies import ADAPTERS, parse


def read(body: str, **env: str) -> Provider:
    return read_providers(parse(f"fal: {{{body}}}", env=env), ADAPTERS)["fal"]


def mistake(piece: str, **env: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read_providers(parse(piece, env=env), ADAPTERS)
    return str(caught.value)


def test_account_has_its_key_and_its_defaults() -> None:
    account = read('adapter: runflow, api_key: "${KEY}"', KEY="rf_live").account
    assert (account.name, account.adapter, account.api_key, account.on) == ("fal", "runflow", "rf_live", True)
    assert (account.base_url, account.discount) == ("https://api.runflow.io", "0")
    assert (account.end_user_id, account.max_in_flight, account.asset_hosts) == ("hashed", None, ())
    assert account.breaker


def test_account_may_say_everything() -> None:
    account = read(
        "adapter: fal, api_key: k, base_url: http://127.0.0.1:9000/fal/, enabled: true, required: true,"
        ' max_in_flight: 20, breaker: false, discount: "0.10", end_user_id: raw, asset_hosts: [cdn.example, "[::1]:80"]'
    ).account
    assert (account.base_url, account.max_in_flight, account.discount) == ("http://127.0.0.1:9000/fal", 20, "0.10")
    assert not account.breaker
    assert (account.required, account.end_user_id) == (True, "raw")
    assert account.asset_hosts == ("cdn.example", "[::1]:80")


def test_account_without_its_key_is_off_and_says_so() -> None:
    provider = read('adapter: fal, api_key: "${FAL_KEY}"')
    assert not provider.account.on
    assert provider.account.api_key is None
    assert provider.warning == "the provider fal is off: FAL_KEY is not set"


def test_account_that_is_switched_off_needs_no_key_and_no_warning() -> None:
    provider = read('adapter: fal, api_key: "${FAL_KEY}", enabled: false, required: true')
    assert not provider.account.on
    assert provider.warning is None


def test_account_that_is_off_may_wait_for_its_adapter() -> None:
    provider = read("adapter: runflaw, api_key: k, enabled: false")
    assert not provider.account.on
    assert provider.warning == ('the provider fal is off, and there is no adapter "runflaw"; did you mean "runflow"?')


def test_required_account_must_have_its_key() -> None:
    message = mistake('fal: {adapter: fal, required: true, api_key: "${FAL_KEY}"}')
    assert message == "some.yaml:1:46: the provider fal is required, but FAL_KEY is not set"


def test_key_is_never_shown() -> None:
    assert "secret" not in mistake("fal: {adapter: fal, api_key: se cret}")
    assert "secret" not in mistake("fal: {adapter: fal, api_key: ${KEY}}", KEY="secret with spaces")
    assert "secret" not in repr(read("adapter: fal, api_key: secret"))


@pytest.mark.parametrize(
    ("piece", "message"),
    [
        ("{}", "`providers` names nobody"),
        ("{a b: {adapter: fal, api_key: k}}", 'the provider name "a b" may hold letters'),
        (
            "fal: {adapter: fall, api_key: k}",
            'must be one of evolink, shortapi, fal, runflow, runflow-legacy, not "fall"',
        ),
        ("fal: {adapter: fal}", 'providers.fal needs the key "api_key"'),
        ("fal: {adapter: fal, api_key: [k]}", "api_key must be text, not a list"),
        ("fal: {adapter: fal, api_key: k, base-url: x}", 'did you mean "base_url"?'),
        ("fal: {adapter: fal, api_key: k, base_url: ftp://x}", "base_url must be an http or https URL"),
        ("fal: {adapter: fal, api_key: k, base_url: https://u:p@x.y}", "base_url must be an http or https URL"),
        ("fal: {adapter: fal, api_key: k, base_url: https://x.y?a=b}", "base_url must be an http or https URL"),
        ('fal: {adapter: fal, api_key: k, base_url: "https://x.y/a?"}', "base_url must be an http or https URL"),
        ('fal: {adapter: fal, api_key: k, base_url: "https://x.y/a#"}', "base_url must be an http or https URL"),
        ('fal: {adapter: fal, api_key: k, discount: "1.5"}', "discount must be a decimal number from 0 to 1"),
        ("fal: {adapter: fal, api_key: k, end_user_id: hash}", 'not "hash"; did you mean "hashed"?'),
        ("fal: {adapter: fal, api_key: k, asset_hosts: [https://x]}", "asset_hosts must be a host name"),
        ("fal: {adapter: fal, api_key: k, max_in_flight: 0}", "max_in_flight must be a whole number from 1"),
    ],
)
def test_mistake_is_named(piece: str, message: str) -> None:
    assert message in mistake(piece)
