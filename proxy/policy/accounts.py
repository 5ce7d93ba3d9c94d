"""The `providers` of the rules: accounts at sellers, their keys read from the environment."""

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

import msgspec

from proxy.core.account import Account
from proxy.policy.marked import (
    Item,
    Section,
    choice,
    decimal,
    flag,
    mapping,
    nearest,
    section,
    several,
    text,
    unset_variables,
    whole,
)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_KEY = re.compile(r"[\x21-\x7e]+")
_HOST = re.compile(r"[A-Za-z0-9._-]+(:\d+)?|\[[0-9A-Fa-f:]+\](:\d+)?")
_KEYS = (
    "adapter",
    "api_key",
    "base_url",
    "enabled",
    "required",
    "max_in_flight",
    "breaker",
    "discount",
    "end_user_id",
    "asset_hosts",
    "offers",
    "prices",
)


class Provider(msgspec.Struct, frozen=True, kw_only=True):
    """An account, with what the YAML adds to its seller's catalogue."""

    account: Account
    fields: Section
    """For `offers` and `prices`, which are read once all accounts are known."""
    warning: str | None
    """Why it is off, where the operator may not have meant that."""


def read_providers(item: Item, adapters: Mapping[str, str]) -> dict[str, Provider]:
    """`adapters` takes each installed adapter to its seller's own base URL."""
    providers: dict[str, Provider] = {}
    for name, entry in mapping(item, "providers.").items():
        if not _NAME.fullmatch(name):
            raise entry.fault(f'the provider name "{name}" may hold letters, digits, dots, dashes and underscores')
        providers[name] = _provider(name, section(entry, _KEYS), adapters)
    if not providers:
        raise item.fault("`providers` names nobody")
    return providers


def _provider(name: str, fields: Section, adapters: Mapping[str, str]) -> Provider:
    enabled = fields.read("enabled", flag, default=True)
    # One that is off may wait for an adapter that is not installed here.
    adapter = fields.need("adapter", choice(adapters) if enabled else text)
    required = fields.read("required", flag, default=False)
    key_item = fields.entries.get("api_key")
    missing = unset_variables(key_item) if key_item else []
    if key_item and missing and required and enabled:
        raise key_item.fault(f"the provider {name} is required, but {missing[0]} is not set")
    account = Account(
        name=name,
        adapter=adapter,
        base_url=fields.read("base_url", _base_url, adapters.get(adapter, "").rstrip("/")),
        api_key=None if missing else fields.need("api_key", _api_key),
        enabled=enabled,
        required=required,
        max_in_flight=fields.read("max_in_flight", whole(1, 1_000_000), None),
        breaker=fields.read("breaker", flag, default=True),
        discount=fields.read("discount", _discount, "0"),
        end_user_id=fields.read("end_user_id", choice(("raw", "hashed", "none")), "hashed"),
        asset_hosts=fields.read("asset_hosts", several(_host), ()),
    )
    warning = None
    if adapter not in adapters:
        warning = f'the provider {name} is off, and there is no adapter "{adapter}"{nearest(adapter, adapters)}'
    elif missing and enabled:
        warning = f"the provider {name} is off: {missing[0]} is not set"
    return Provider(account=account, fields=fields, warning=warning)


def _api_key(item: Item) -> str:
    """Never shown, whatever is wrong with it."""
    key = text(item).strip()
    if not _KEY.fullmatch(key):
        raise item.fault(f"{item.what} must be printable ASCII without spaces")
    return key


def _base_url(item: Item) -> str:
    url = text(item)
    parts = urlsplit(url)
    # An empty query or fragment shows in the text alone.
    plain = not ("?" in url or "#" in url or parts.username or parts.password)
    if parts.scheme not in {"http", "https"} or not _HOST.fullmatch(parts.netloc) or not plain:
        raise item.wrong("an http or https URL with a host and nothing but a path behind it")
    return url.rstrip("/")


def _discount(item: Item) -> str:
    return f"{decimal('0', '1')(item):f}"


def _host(item: Item) -> str:
    host = text(item)
    if not _HOST.fullmatch(host):
        raise item.wrong("a host name")
    return host
