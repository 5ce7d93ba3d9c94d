"""Key to tenant, and what the key may do."""

import asyncio
import hmac
import time
from collections.abc import Iterable
from typing import Any

import structlog
from litestar import Request

from proxy.api.limits import Turnstile
from proxy.core.clock import SECOND_US, Clock
from proxy.core.errors import InvalidApiKey, Overloaded, PermissionDenied
from proxy.core.ids import Secrets, is_api_key
from proxy.core.tenant import SCOPES, Caller, Scope, Tenant
from proxy.store import budgets, tenants
from proxy.store.base import Store, Tx

_log = structlog.get_logger("reelay.auth")

TRUSTED_FOR_S = 5.0
"""How long a key that was looked up is believed; so long may a revoked one still work."""
KNOWN_MAX = 10_000
TOUCH_EVERY_US = 60 * SECOND_US

BOOTSTRAP_TENANT = "default"


class Keyring:
    """Looks keys up, and remembers them for seconds."""

    def __init__(self, store: Store, secrets: Secrets, clock: Clock, bootstrap_key: str | None) -> None:
        self._store = store
        self._secrets = secrets
        self._clock = clock
        self._bootstrap_key = bootstrap_key
        self._known: dict[str, tuple[float, Caller]] = {}
        self._touches: set[asyncio.Task[None]] = set()

    async def caller(self, presented: str) -> Caller:
        """Who presents this key. Raises InvalidApiKey."""
        known = self._known.get(presented)
        now = time.monotonic()
        if known is not None and known[0] > now:
            return known[1]
        caller = await self._look_up(presented)
        if len(self._known) >= KNOWN_MAX:
            self._known.clear()
        self._known[presented] = now + TRUSTED_FOR_S, caller
        return caller

    async def _look_up(self, presented: str) -> Caller:
        bootstrap = self._bootstrap_key
        if bootstrap is not None and hmac.compare_digest(presented.encode(), bootstrap.encode()):
            return await self._bootstrap_caller()
        if not is_api_key(presented):
            raise InvalidApiKey("Incorrect API key provided.")
        for digest in self._secrets.key_digests(presented):
            found = await self._store.read_now(lambda tx, digest=digest: _by_digest(tx, digest))  # type: ignore[misc]  # the default binds the loop's value
            if found is not None:
                return self._admit(*found)
        raise InvalidApiKey("Incorrect API key provided.")

    async def _bootstrap_caller(self) -> Caller:
        def unit(tx: Tx) -> tuple[Tenant, bool]:
            tenant = tenants.find_tenant(tx, BOOTSTRAP_TENANT)
            assert tenant is not None, "made at start"
            return tenant, budgets.are_there(tx, tenant.id)

        tenant, budgeted = await self._store.read_now(unit)
        return Caller(tenant=tenant, key_id="bootstrap", scopes=frozenset(SCOPES), budgeted=budgeted)

    def _admit(self, key: tenants.ApiKey, tenant: Tenant, budgeted: bool) -> Caller:
        now = self._clock()
        if key.revoked_at is not None:
            raise InvalidApiKey("This API key has been revoked.")
        if key.expires_at is not None and key.expires_at <= now:
            raise InvalidApiKey("This API key has expired.")
        if now - (key.last_used_at or 0) > TOUCH_EVERY_US:
            task = asyncio.create_task(self._touch(key.id, now))
            self._touches.add(task)
            task.add_done_callback(self._touches.discard)
        scopes = frozenset(key.scopes.split())
        return Caller(
            tenant=tenant,
            key_id=key.id,
            scopes=scopes,
            budgeted=budgeted,
            requests_per_minute=key.requests_per_minute,
            videos_in_flight=key.videos_in_flight,
        )

    async def _touch(self, key_id: str, at: int) -> None:
        try:
            await self._store.write(lambda tx: tenants.touch_key(tx, key_id, at=at))
        except Overloaded as exc:
            _log.warning("key.not_touched", key_id=key_id, why=str(exc))


def _by_digest(tx: Tx, digest: str) -> tuple[tenants.ApiKey, Tenant, bool] | None:
    """The key, its tenant, and whether that has budgets."""
    found = tenants.key_by_digest(tx, digest)
    return None if found is None else (*found, budgets.are_there(tx, found[1].id))


async def authenticate(request: Request[Any, Any, Any], scope: Scope) -> Caller:
    """
    The caller of this request, who may act in `scope`.

    Raises InvalidApiKey without a good key, PermissionDenied where the key lacks the scope, RateLimited
    where a request under /v1 is one too many; operators are not counted.
    """
    presented = _presented(request.scope["headers"])
    if not presented:
        raise InvalidApiKey("No API key provided. Send it as 'Authorization: Bearer <key>'.")
    keyring: Keyring = request.app.state["keyring"]
    caller = await keyring.caller(presented.strip())
    if scope != "admin":
        turnstile: Turnstile = request.app.state["turnstile"]
        turnstile.enter(caller)
    if scope not in caller.scopes:
        raise PermissionDenied(f"This API key lacks the scope '{scope}'.")
    return caller


def _presented(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The key that a request shows, empty without one; read from the raw headers, as every request needs it."""
    shown = {name: value for name, value in headers if name in {b"authorization", b"api-key"}}
    kind, _, presented = shown.get(b"authorization", b"").partition(b" ")
    if kind.lower() != b"bearer" or not presented:
        presented = shown.get(b"api-key", b"")
    return presented.decode("latin-1")
