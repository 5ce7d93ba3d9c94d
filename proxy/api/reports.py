"""Spend as finance reads it: a tenant's own under `/v1/spend`, everybody's under `/admin`."""

import csv
import io
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from litestar import Response, get

from proxy.api.auth import authenticate
from proxy.api.documents import unknown_parameter
from proxy.api.videos import AnyRequest, house_of
from proxy.api.views import encode
from proxy.core.clock import iso
from proxy.core.errors import InvalidValue, NotFound
from proxy.services.house import House
from proxy.services.report import SPEND_COLUMNS, SpendLine, SpendQuery, read_query, spend
from proxy.store import tenants

PARAMETERS = ("group_by", "start", "end", "format")
"""Of a query for one tenant's spend; everybody's takes `tenant` too."""


@get("/v1/spend")
async def own_spend(request: AnyRequest) -> Response[bytes]:
    """Tell what the caller's tenant has spent; what sellers took of it only where sellers are shown."""
    caller = await authenticate(request, "reports")
    _check_names(request, PARAMETERS)
    return await _answer(request, caller.tenant.id, sellers_shown=house_of(request).rules.expose_providers)


@get("/admin/reports/spend")
async def all_spend(request: AnyRequest) -> Response[bytes]:
    """Tell what all tenants, or one, have spent."""
    await authenticate(request, "admin")
    _check_names(request, (*PARAMETERS, "tenant"))
    named = request.query_params.get("tenant")
    tenant_id = None if named is None else await _tenant_id(house_of(request), named)
    return await _answer(request, tenant_id, sellers_shown=True)


def _check_names(request: AnyRequest, good: tuple[str, ...]) -> None:
    """A misspelt name would otherwise bill another group or month than was asked for."""
    for name in request.query_params:
        if name not in good:
            raise unknown_parameter(name, good)


async def _tenant_id(house: House, id_or_name: str) -> str:
    tenant = await house.store.read(lambda tx: tenants.find_tenant(tx, id_or_name))
    if tenant is None:
        raise NotFound(f"There is no tenant {id_or_name[:80]!r}.", param="tenant")
    return tenant.id


async def _answer(request: AnyRequest, tenant_id: str | None, *, sellers_shown: bool) -> Response[bytes]:
    house, asked = house_of(request), request.query_params
    form = asked.get("format", "json")
    if form not in {"json", "csv"}:
        raise InvalidValue("'format' must be 'json' or 'csv'.", param="format")
    query = read_query(asked.get("group_by"), asked.get("start"), asked.get("end"), tenant_id, now_us=house.clock())
    if not sellers_shown and "provider" in query.groups:
        raise InvalidValue("'group_by' may not name providers here.", param="group_by")
    rows = [_row(line, sellers_shown=sellers_shown) for line in await spend(house.store, query)]
    if form == "csv":
        return Response(as_csv(query, rows).encode(), media_type="text/csv")
    return Response(encode(as_object(query, rows)), media_type="application/json")


_SELLERS_SIDE = ("seller_usd", "assumed_usd", "markup_usd", "absorbed_usd")


def _row(line: SpendLine, *, sellers_shown: bool) -> dict[str, Any]:
    row: dict[str, Any] = msgspec.to_builtins(line)
    return row if sellers_shown else row | dict.fromkeys(_SELLERS_SIDE)


class SpendReport(msgspec.Struct, frozen=True, kw_only=True):
    """A report, one line a group."""

    object: Literal["spend_report"] = "spend_report"
    start: str
    end: str
    """Without it."""
    group_by: tuple[str, ...]
    data: Sequence[SpendLine | dict[str, Any]]
    """As dicts where some columns are blank."""


def as_object(query: SpendQuery, lines: Sequence[SpendLine | dict[str, Any]]) -> SpendReport:
    """The report as JSON shows it."""
    return SpendReport(start=iso(query.start), end=iso(query.end), group_by=query.groups, data=lines)


def as_csv(query: SpendQuery, lines: Sequence[SpendLine | dict[str, Any]]) -> str:
    """A header and a row a group; null is an empty field."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*query.groups, *SPEND_COLUMNS])
    for line in lines:
        row = msgspec.to_builtins(line)
        writer.writerow(["" if row[name] is None else row[name] for name in (*query.groups, *SPEND_COLUMNS)])
    return out.getvalue()


ROUTES = [own_spend, all_spend]
