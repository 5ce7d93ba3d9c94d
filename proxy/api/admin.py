"""`/admin`: tenants, keys, budgets, providers and attempts, for keys with the scope `admin`."""

from typing import Any

import msgspec
from litestar import Response, delete, get, patch, post
from litestar.params import FromPath

from proxy.api.auth import authenticate
from proxy.api.documents import limit_of, read_json
from proxy.api.schemas import BudgetObject, BudgetRemoved, EndUserErased, KeyObject, KeyRevoked, TenantObject
from proxy.api.videos import AnyRequest, house_of
from proxy.api.views import encode
from proxy.core.clock import SECOND_US
from proxy.core.money import usd_text
from proxy.core.tenant import Tenant
from proxy.services.accounts import KeyChange, KeyWish, Registrar, TenantChange
from proxy.services.allowances import Allowance, BudgetChange, BudgetWish, Treasurer
from proxy.services.erasure import ErasureWish, erase_end_user
from proxy.services.overview import attempt_line, attempts_in, provider_health, rules_in_force
from proxy.services.resolve import Finding, resolve
from proxy.services.told import tell
from proxy.store.tenants import ApiKey, oldest
from proxy.telemetry.metrics import TENANT_LABELS

MAX_BODY_BYTES = 64 * 1024


def _json(value: Any, status: int = 200) -> Response[bytes]:
    return Response(encode(value), media_type="application/json", status_code=status)


def _registrar(request: AnyRequest) -> Registrar:
    registrar: Registrar = request.app.state.registrar
    return registrar


async def _tenant_wish(request: AnyRequest) -> TenantChange:
    return await read_json(request.stream(), TenantChange, max_bytes=MAX_BODY_BYTES)


async def _key_wish(request: AnyRequest) -> KeyWish:
    return await read_json(request.stream(), KeyWish, max_bytes=MAX_BODY_BYTES)


def tenant_object(tenant: Tenant) -> TenantObject:
    return TenantObject(
        id=tenant.id,
        name=tenant.name,
        markup=tenant.markup,
        allow_filter_off=tenant.allow_filter_off,
        require_end_user_id=tenant.require_end_user_id,
        requests_per_minute=tenant.requests_per_minute,
        videos_in_flight=tenant.videos_in_flight,
        created_at=tenant.created_at // SECOND_US,
    )


def key_object(key: ApiKey, secret: str | msgspec.UnsetType = msgspec.UNSET) -> KeyObject:
    """`secret` is the key itself, which is shown once."""

    def seconds(at: int | None) -> int | None:
        return None if at is None else at // SECOND_US

    return KeyObject(
        id=key.id,
        tenant=key.tenant_id,
        name=key.name,
        last4=key.last4,
        scopes=tuple(key.scopes.split()),
        requests_per_minute=key.requests_per_minute,
        videos_in_flight=key.videos_in_flight,
        created_at=key.created_at // SECOND_US,
        expires_at=seconds(key.expires_at),
        revoked_at=seconds(key.revoked_at),
        last_used_at=seconds(key.last_used_at),
        key=secret,
    )


def shown_tenant(tenant: Tenant) -> dict[str, Any]:
    """The same for the command line."""
    shown: dict[str, Any] = msgspec.to_builtins(tenant_object(tenant))
    return shown


def shown_key(key: ApiKey) -> dict[str, Any]:
    """The same for the command line."""
    shown: dict[str, Any] = msgspec.to_builtins(key_object(key))
    return shown


@get("/admin/tenants")
async def list_tenants(request: AnyRequest) -> Response[bytes]:
    """List all tenants, the oldest first."""
    await authenticate(request, "admin")
    tenants = await _registrar(request).tenants()
    return _json({"object": "list", "data": [tenant_object(tenant) for tenant in tenants]})


@post("/admin/tenants", status_code=200)
async def create_tenant(request: AnyRequest) -> Response[bytes]:
    """Make a tenant."""
    caller = await authenticate(request, "admin")
    wish = await _tenant_wish(request)
    tenant = await _registrar(request).create_tenant(caller.key_id, wish)
    house = house_of(request)
    house.metrics.set_tenants(await house.store.read(lambda tx: oldest(tx, most=TENANT_LABELS)))
    return _json(tenant_object(tenant))


@patch("/admin/tenants/{tenant:str}")
async def change_tenant(request: AnyRequest, tenant: FromPath[str]) -> Response[bytes]:
    """Change a tenant's settings."""
    caller = await authenticate(request, "admin")
    wish = await _tenant_wish(request)
    return _json(tenant_object(await _registrar(request).change_tenant(caller.key_id, tenant, wish)))


@post("/admin/tenants/{tenant:str}/end_users/erase", status_code=200)
async def erase_user(request: AnyRequest, tenant: FromPath[str]) -> Response[bytes]:
    """
    Erase an end user: the name, and all that was made for it.

    The name stands in the body and in no address, for addresses are logged on their way.
    """
    caller = await authenticate(request, "admin")
    house = house_of(request)
    wish = await read_json(request.stream(), ErasureWish, max_bytes=MAX_BODY_BYTES)
    erased = await erase_end_user(
        house.store,
        house.storage,
        house.new_id,
        lambda video, moved: tell(house, video, moved),
        actor=caller.key_id,
        tenant=tenant,
        wish=wish,
    )
    house.due.set()
    return _json(EndUserErased(tenant=erased.tenant, end_user=erased.end_user, videos=erased.videos))


@get("/admin/keys")
async def list_keys(request: AnyRequest) -> Response[bytes]:
    """List keys, of one tenant or all; the keys themselves are kept nowhere."""
    await authenticate(request, "admin")
    keys = await _registrar(request).keys(request.query_params.get("tenant"))
    return _json({"object": "list", "data": [key_object(key) for key in keys]})


@post("/admin/keys", status_code=200)
async def create_key(request: AnyRequest) -> Response[bytes]:
    """Make a key; it is shown this once."""
    caller = await authenticate(request, "admin")
    wish = await _key_wish(request)
    made = await _registrar(request).create_key(caller.key_id, wish)
    return _json(key_object(made.row, made.key))


@patch("/admin/keys/{key_id:str}")
async def change_key(request: AnyRequest, key_id: FromPath[str]) -> Response[bytes]:
    """Change a key's limits; they hold within seconds."""
    caller = await authenticate(request, "admin")
    wish = await read_json(request.stream(), KeyChange, max_bytes=MAX_BODY_BYTES)
    return _json(key_object(await _registrar(request).change_key(caller.key_id, key_id, wish)))


@delete("/admin/keys/{key_id:str}", status_code=200)
async def revoke_key(request: AnyRequest, key_id: FromPath[str]) -> Response[bytes]:
    """Revoke a key; it works for seconds more at the most."""
    caller = await authenticate(request, "admin")
    reason = request.query_params.get("reason")
    await _registrar(request).revoke_key(caller.key_id, key_id, reason)
    return _json(KeyRevoked(id=key_id))


def budget_object(allowance: Allowance, *, now_us: int) -> BudgetObject:
    budget, used = allowance.budget, allowance.used_microusd
    limit = budget.limit_at(now_us)
    raised = limit != budget.limit_microusd
    return BudgetObject(
        id=budget.id,
        tenant=budget.tenant_id,
        scope=budget.scope,
        key=budget.subject if budget.scope == "key" else None,
        end_user_id=allowance.end_user_id,
        period=budget.period,
        limit_usd=usd_text(budget.limit_microusd),
        shadow=bool(budget.shadow),
        warn_at=tuple(budget.warn_at.split()),
        raise_usd=usd_text(budget.raise_microusd) if raised else None,
        raise_until=budget.raise_until // SECOND_US if raised and budget.raise_until is not None else None,
        used_usd=None if used is None else usd_text(used),
        left_usd=None if used is None else usd_text(max(0, limit - used)),
        created_at=budget.created_at // SECOND_US,
    )


def _treasurer(request: AnyRequest) -> Treasurer:
    house = house_of(request)
    return Treasurer(house.store, house.clock, house.new_id)


@get("/admin/budgets")
async def list_budgets(request: AnyRequest) -> Response[bytes]:
    """List budgets, of one tenant or all, and how they stand."""
    await authenticate(request, "admin")
    found = await _treasurer(request).list(request.query_params.get("tenant"))
    now_us = house_of(request).clock()
    return _json({"object": "list", "data": [budget_object(one, now_us=now_us) for one in found]})


@post("/admin/budgets", status_code=200)
async def create_budget(request: AnyRequest) -> Response[bytes]:
    """Make a budget; it counts what its period has seen already."""
    caller = await authenticate(request, "admin")
    wish = await read_json(request.stream(), BudgetWish, max_bytes=MAX_BODY_BYTES)
    made = await _treasurer(request).create(caller.key_id, wish)
    return _json(budget_object(made, now_us=house_of(request).clock()))


@patch("/admin/budgets/{budget:str}")
async def change_budget(request: AnyRequest, budget: FromPath[str]) -> Response[bytes]:
    """Change a budget, or raise it for a while."""
    caller = await authenticate(request, "admin")
    wish = await read_json(request.stream(), BudgetChange, max_bytes=MAX_BODY_BYTES)
    changed = await _treasurer(request).change(caller.key_id, budget, wish)
    return _json(budget_object(changed, now_us=house_of(request).clock()))


@delete("/admin/budgets/{budget:str}", status_code=200)
async def remove_budget(request: AnyRequest, budget: FromPath[str]) -> Response[bytes]:
    """Remove a budget; it bounds nothing from then on."""
    caller = await authenticate(request, "admin")
    await _treasurer(request).remove(caller.key_id, budget, request.query_params.get("reason"))
    return _json(BudgetRemoved(id=budget))


@get("/admin/providers")
async def list_providers(request: AnyRequest) -> Response[bytes]:
    """Tell which providers are on, and how the last hour went."""
    await authenticate(request, "admin")
    house = house_of(request)
    found = await provider_health(house.store, house.rules, house.pulse, now_us=house.clock())
    return _json({"object": "list", "data": found})


@get("/admin/rules")
async def show_rules(request: AnyRequest) -> Response[bytes]:
    """Tell which rules are in force, and how the last reload went."""
    await authenticate(request, "admin")
    return _json(rules_in_force(house_of(request)))


@get("/admin/attempts")
async def list_attempts(request: AnyRequest) -> Response[bytes]:
    """List attempts in a state, the oldest first: `?state=unknown` needs an operator's eye."""
    await authenticate(request, "admin")
    house = house_of(request)
    most = limit_of(request.query_params.get("limit"), 100, 1000)
    found = await attempts_in(
        house.store, request.query_params.get("state", "unknown"), most=most, now_us=house.clock()
    )
    return _json({"object": "list", "data": found})


@post("/admin/attempts/{video:str}/{number:int}/resolve", status_code=200)
async def resolve_attempt(request: AnyRequest, video: FromPath[str], number: FromPath[int]) -> Response[bytes]:
    """Say what became of an attempt that is unknown or lost."""
    caller = await authenticate(request, "admin")
    house = house_of(request)
    finding = await read_json(request.stream(), Finding, max_bytes=MAX_BODY_BYTES)
    resolved = await resolve(
        house.store, house.new_id, actor=caller.key_id, video_id=video, number=number, finding=finding
    )
    tell(house, resolved.video, resolved.moved)
    house.due.set()
    return _json(attempt_line(resolved.attempt, resolved.video.tenant_id, resolved.video.status, now_us=house.clock()))


ROUTES = [
    list_tenants,
    create_tenant,
    change_tenant,
    erase_user,
    list_keys,
    create_key,
    change_key,
    revoke_key,
    list_budgets,
    create_budget,
    change_budget,
    remove_budget,
    list_providers,
    show_rules,
    list_attempts,
    resolve_attempt,
]
