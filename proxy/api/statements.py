"""`/v1/statements`, `/admin/statements`, `/admin/months` and refunds: what tenants pay, and what is given back."""

from importlib.metadata import version
from typing import Any, Literal

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath
from litestar.response import Stream

from proxy.api import paper, statement_objects
from proxy.api.admin import MAX_BODY_BYTES
from proxy.api.auth import authenticate
from proxy.api.documents import read_json, refuse_unknown
from proxy.api.videos import AnyRequest, house_of, idempotency_key
from proxy.api.views import encode
from proxy.core.clock import iso
from proxy.core.errors import InvalidValue, NotFound
from proxy.core.money import usd_text
from proxy.services.acts import Clerk
from proxy.services.charges import charges_file, read_month
from proxy.services.house import House
from proxy.services.refunds import RefundWish, refund
from proxy.services.statements import close_month, end_user_names, statement_for
from proxy.store import statements, tenants
from proxy.store.base import Tx

SOFTWARE = f"Reelay {version('reelay')}"
FORMATS = ("json", "html", "csv", "charges")
"""As it is asked for; `charges` is the CSV of each charge and refund behind it."""


class StatementName(msgspec.Struct, frozen=True, kw_only=True):
    """A statement of a closed month."""

    object: Literal["statement"] = "statement"
    number: str
    tenant: str
    month: str


class ClosedMonth(msgspec.Struct, frozen=True, kw_only=True):
    """A month in which nothing is written any more."""

    object: Literal["month"] = "month"
    month: str
    closed_at: str


class ClosingWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a month is closed."""

    reason: str | None = None


class MonthStatements(msgspec.Struct, frozen=True, kw_only=True):
    """What a closing has made."""

    object: Literal["month.closed"] = "month.closed"
    month: str
    statements: tuple[StatementName, ...]


class RefundObject(msgspec.Struct, frozen=True, kw_only=True):
    """What was given back of a charge."""

    object: Literal["refund"] = "refund"
    id: str
    charge: str
    amount_usd: str
    left_usd: str
    """What may still be given back of it."""


def _json(value: Any) -> Response[bytes]:
    return Response(encode(value), media_type="application/json")


def _clerk(house: House) -> Clerk:
    return Clerk(house.clock, house.new_id)


async def _listed(house: House, tenant_id: str | None) -> Response[bytes]:
    found = await house.store.read(lambda tx: statements.numbers(tx, tenant_id))
    names = [StatementName(number=number, tenant=tenant, month=month) for number, tenant, month in found]
    return _json({"object": "list", "data": names})


@get("/v1/statements")
async def own_statements(request: AnyRequest) -> Response[bytes]:
    """List the caller's statements of closed months, the newest first."""
    caller = await authenticate(request, "reports")
    return await _listed(house_of(request), caller.tenant.id)


@get("/v1/statements/{month:str}")
async def own_statement(request: AnyRequest, month: FromPath[str]) -> Response[Any]:
    """Show what the caller's tenant pays for a month; a draft while it is open."""
    caller = await authenticate(request, "reports")
    return await _shown(request, caller.tenant.id, month)


@get("/admin/statements")
async def list_statements(request: AnyRequest) -> Response[bytes]:
    """List statements of closed months, of one tenant or all, the newest first."""
    await authenticate(request, "admin")
    refuse_unknown(request.query_params, ("tenant",))
    house, named = house_of(request), request.query_params.get("tenant")
    return await _listed(house, None if named is None else await _tenant_id(house, named))


@get("/admin/statements/{tenant:str}/{month:str}")
async def show_statement(request: AnyRequest, tenant: FromPath[str], month: FromPath[str]) -> Response[Any]:
    """Show what a tenant pays for a month; a draft while it is open."""
    await authenticate(request, "admin")
    return await _shown(request, await _tenant_id(house_of(request), tenant), month)


async def _tenant_id(house: House, id_or_name: str) -> str:
    def unit(tx: Tx) -> str:
        found = tenants.find_tenant(tx, id_or_name)
        if found is None:
            raise NotFound(f"There is no tenant {id_or_name[:80]!r}.", param="tenant")
        return found.id

    return await house.store.read(unit)


async def _shown(request: AnyRequest, tenant_id: str, month: str) -> Response[Any]:
    refuse_unknown(request.query_params, ("format",))
    form = request.query_params.get("format", "json")
    if form not in FORMATS:
        raise InvalidValue(f"'format' must be one of {', '.join(FORMATS)}.", param="format")
    store = house_of(request).store
    if form == "charges":
        return Stream(charges_file(store, tenant_id, read_month(month)), media_type="text/csv")
    statement = await statement_for(store, tenant_id, month, software=SOFTWARE)
    names = await end_user_names(store, statement)
    if form == "html":
        return Response(paper.as_html(statement, names).encode(), media_type="text/html")
    if form == "csv":
        return Response(statement_objects.as_csv(statement, names).encode(), media_type="text/csv")
    return _json(statement_objects.as_object(statement, names))


@get("/admin/months")
async def list_months(request: AnyRequest) -> Response[bytes]:
    """List the months that are closed."""
    await authenticate(request, "admin")
    found = await house_of(request).store.read(statements.every_closing)
    months = [ClosedMonth(month=one.month, closed_at=iso(one.closed_at)) for one in found]
    return _json({"object": "list", "data": months})


@post("/admin/months/{month:str}/close", status_code=200)
async def close(request: AnyRequest, month: FromPath[str]) -> Response[bytes]:
    """Make every tenant's statement of a month, and let nothing into that month any more."""
    caller = await authenticate(request, "admin")
    house = house_of(request)
    wish = await read_json(request.stream(), ClosingWish, max_bytes=MAX_BODY_BYTES)
    closed = await close_month(
        house.store, _clerk(house), actor=caller.key_id, month=month, reason=wish.reason, software=SOFTWARE
    )
    names = (StatementName(number=one.number or "", tenant=one.tenant_id, month=one.month) for one in closed.statements)
    return _json(MonthStatements(month=closed.month, statements=tuple(names)))


@post("/admin/videos/{video:str}/refunds", status_code=200)
async def give_back(request: AnyRequest, video: FromPath[str]) -> Response[bytes]:
    """Give a tenant back what a video was charged, or a part of it."""
    caller = await authenticate(request, "admin")
    house = house_of(request)
    wish = await read_json(request.stream(), RefundWish, max_bytes=MAX_BODY_BYTES)
    made = await refund(
        house.store,
        _clerk(house),
        actor=caller.key_id,
        video_id=video,
        wish=wish,
        idempotency_key=idempotency_key(request),
    )
    amount, left = usd_text(made.amount_microusd), usd_text(made.left_microusd)
    return _json(RefundObject(id=made.id, charge=made.charge, amount_usd=amount, left_usd=left))


ROUTES = [
    own_statements,
    own_statement,
    list_statements,
    show_statement,
    list_months,
    close,
    give_back,
]
