"""An account is on with its key and its switch, and never shows the key."""

import pytest

from proxy.core.account import Account


@pytest.mark.parametrize(
    ("key", "enabled", "on"), [("k", True, True), ("k", False, False), (None, True, False), (None, False, False)]
)
def test_account_is_on_with_a_key_and_unless_switched_off(key: str | None, enabled: bool, on: bool) -> None:
    account = Account(name="p", adapter="a", base_url="https://a.example", api_key=key, enabled=enabled)
    assert account.on is on


def test_account_in_a_log_or_an_error_holds_no_key() -> None:
    account = Account(name="p", adapter="a", base_url="https://a.example", api_key="sk-very-secret")
    for shown in (repr(account), str(account), f"{account}"):
        assert "very-secret" not in shown
        assert "https://a.example" in shown
