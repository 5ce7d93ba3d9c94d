"""Tenants and their keys: made, changed and revoked, each with a row that says who did it."""

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from proxy.core.clock import Clock
from proxy.core.errors import InvalidValue, NotFound
from proxy.core.ids import NewId, Secrets, new_api_key
from proxy.core.money import parse_usd
from proxy.core.tenant import SCOPES, Tenant
from proxy.services.acts import REASON_MAX_CHARS, Clerk, check_text
from proxy.services.belonging import claim_secret
from proxy.store import tenants
from proxy.store.base import Store, Tx
from proxy.store.tenants import ApiKey

MARKUP_MAX = 10
NAME_MAX_CHARS = 128
LIMIT_MAX = 1_000_000
UNIX_MAX_S = 253_402_300_799
"""The last second of the year 9999."""


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits to be set; None takes one away, what is not stated stays as it is."""

    requests_per_minute: int | UnsetType | None = UNSET
    """From 1 on."""
    videos_in_flight: int | UnsetType | None = UNSET
    """From 0 on, which lets nothing new in while what is under way goes on."""


class TenantChange(Limits, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may be set of a tenant; None leaves it as it is, but for limits."""

    name: str | None = None
    markup: str | None = None
    allow_filter_off: bool | None = None
    require_end_user_id: bool | None = None
    reason: str | None = None


class KeyWish(Limits, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key to be made."""

    tenant: str
    """Id or name."""
    name: str = ""
    scopes: tuple[str, ...] = ("videos",)
    expires_at: int | None = None
    """Unix seconds."""
    reason: str | None = None


class KeyChange(Limits, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may be set of a key."""

    reason: str | None = None


class MadeKey(msgspec.Struct, frozen=True, kw_only=True):
    """A new key; `key` is shown this once and kept nowhere."""

    row: ApiKey
    key: str


class Registrar:
    """Every change goes through here, from HTTP and from the command line."""

    def __init__(self, store: Store, secrets: Secrets, clock: Clock, new_id: NewId) -> None:
        self._store = store
        self._secrets = secrets
        self._clock = clock
        self._new_id = new_id
        self._clerk = Clerk(clock, new_id)

    async def tenants(self) -> list[Tenant]:
        """From the oldest."""
        return await self._store.read(tenants.all_tenants)

    async def create_tenant(self, actor: str, wish: TenantChange) -> Tenant:
        """Raises InvalidValue for a name that is missing or taken."""
        if wish.name is None:
            raise InvalidValue("A tenant needs a name.", param="name")
        at = self._clock()
        fresh = Tenant(id=f"tenant_{self._new_id(at)}", name=wish.name, created_at=at)
        tenant = _changed(fresh, wish)

        def unit(tx: Tx) -> None:
            if tenants.find_tenant(tx, tenant.name) is not None:
                raise InvalidValue(f"There is a tenant {tenant.name!r} already.", param="name")
            tenants.insert_tenant(tx, tenant)
            self._clerk.record(tx, actor, "tenant.create", tenant.id, None, tenant, wish.reason)

        await self._store.write(unit)
        return tenant

    async def change_tenant(self, actor: str, id_or_name: str, wish: TenantChange) -> Tenant:
        """Raises NotFound, or InvalidValue."""

        def unit(tx: Tx) -> Tenant:
            before = tenants.take_tenant(tx, id_or_name)
            if before is None:
                raise _no_tenant(id_or_name)
            after = _changed(before, wish)
            other = tenants.find_tenant(tx, after.name)
            if other is not None and other.id != after.id:
                raise InvalidValue(f"There is a tenant {after.name!r} already.", param="name")
            tenants.save_tenant(tx, after)
            self._clerk.record(tx, actor, "tenant.change", after.id, before, after, wish.reason)
            return after

        return await self._store.write(unit)

    async def keys(self, id_or_name: str | None = None) -> list[ApiKey]:
        """Of one tenant, or all. Raises NotFound."""

        def unit(tx: Tx) -> list[ApiKey]:
            return tenants.keys(tx, None if id_or_name is None else known_tenant(tx, id_or_name).id)

        return await self._store.read(unit)

    async def create_key(self, actor: str, wish: KeyWish) -> MadeKey:
        """
        A key of the secret that the database is used with.

        Raises NotFound for the tenant, InvalidValue for a scope that does not exist or a limit out of bounds,
        ConfigError for another secret.
        """
        check_text("name", wish.name, NAME_MAX_CHARS)
        check_text("reason", wish.reason, REASON_MAX_CHARS)
        if not 0 <= (wish.expires_at or 0) <= UNIX_MAX_S:
            raise InvalidValue("'expires_at' is a time in Unix seconds.", param="expires_at")
        odd = [scope for scope in wish.scopes if scope not in SCOPES]
        if odd or not wish.scopes:
            raise InvalidValue(f"Scopes are {', '.join(SCOPES)}.", param="scopes")
        limits = _limits(wish)
        at, key = self._clock(), new_api_key()

        def unit(tx: Tx) -> ApiKey:
            claim_secret(tx, self._secrets, anew=False)
            row = ApiKey(
                id=f"key_{self._new_id(at)}",
                tenant_id=known_tenant(tx, wish.tenant).id,
                digest=self._secrets.key_digests(key)[0],
                last4=key[-4:],
                name=wish.name,
                scopes=" ".join(wish.scopes),
                created_at=at,
                expires_at=None if wish.expires_at is None else wish.expires_at * 1_000_000,
                **limits,
            )
            tenants.insert_key(tx, row)
            self._clerk.record(tx, actor, "key.create", row.id, None, _shown(row), wish.reason)
            return row

        return MadeKey(row=await self._store.write(unit), key=key)

    async def change_key(self, actor: str, key_id: str, wish: KeyChange) -> ApiKey:
        """Holds within seconds everywhere. Raises NotFound for no such key or a revoked one, InvalidValue."""
        check_text("reason", wish.reason, REASON_MAX_CHARS)
        limits = _limits(wish)

        def unit(tx: Tx) -> ApiKey:
            before = tenants.take_key(tx, key_id)
            if before is None or before.revoked_at is not None:
                raise _no_key(key_id)
            after = msgspec.structs.replace(before, **limits)
            tenants.limit_key(tx, after)
            self._clerk.record(tx, actor, "key.change", key_id, _shown(before), _shown(after), wish.reason)
            return after

        return await self._store.write(unit)

    async def revoke_key(self, actor: str, key_id: str, reason: str | None = None) -> None:
        """Works within seconds everywhere. Raises NotFound for no such key, or one revoked before."""
        check_text("reason", reason, REASON_MAX_CHARS)

        def unit(tx: Tx) -> None:
            if not tenants.revoke_key(tx, key_id, at=tx.now_us):
                raise _no_key(key_id)
            self._clerk.record(tx, actor, "key.revoke", key_id, None, None, reason)

        await self._store.write(unit)


def known_tenant(tx: Tx, id_or_name: str) -> Tenant:
    """Raises NotFound."""
    tenant = tenants.find_tenant(tx, id_or_name)
    if tenant is None:
        raise _no_tenant(id_or_name)
    return tenant


def _no_tenant(id_or_name: str) -> NotFound:
    return NotFound(f"There is no tenant {id_or_name!r}.")


def _no_key(key_id: str) -> NotFound:
    return NotFound(f"There is no live key {key_id!r}.")


def _limits(wish: Limits) -> dict[str, int | None]:
    """Those that are stated. Raises InvalidValue."""
    stated = {}
    for name, least in (("requests_per_minute", 1), ("videos_in_flight", 0)):
        limit: int | UnsetType | None = getattr(wish, name)
        if limit is UNSET:
            continue
        if limit is not None and not least <= limit <= LIMIT_MAX:
            raise InvalidValue(f"'{name}' is a whole number from {least} to {LIMIT_MAX}, or null.", param=name)
        stated[name] = limit
    return stated


def _changed(tenant: Tenant, wish: TenantChange) -> Tenant:
    check_text("name", wish.name, NAME_MAX_CHARS)
    check_text("reason", wish.reason, REASON_MAX_CHARS)
    stated: dict[str, Any] = {
        name: value
        for name in ("name", "markup", "allow_filter_off", "require_end_user_id")
        if (value := getattr(wish, name)) is not None
    }
    if "name" in stated:
        stated["name"] = stated["name"].strip()
        if not stated["name"]:
            raise InvalidValue("A tenant needs a name.", param="name")
    if "markup" in stated:
        try:
            markup = parse_usd(stated["markup"])
        except ValueError:
            markup = None
        if markup is None or not 0 <= markup <= MARKUP_MAX:
            raise InvalidValue(f"'markup' is a ratio from 0 to {MARKUP_MAX}, such as \"0.15\".", param="markup")
    return msgspec.structs.replace(tenant, **stated, **_limits(wish))


def _shown(row: ApiKey) -> dict[str, Any]:
    names = ("id", "tenant_id", "name", "scopes", "last4", "requests_per_minute", "videos_in_flight")
    return {name: getattr(row, name) for name in names}
