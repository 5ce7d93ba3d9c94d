"""Spend as finance reads it: a tenant's own under `/v1/spend`, everybody's under `/admin`."""

from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any, Literal

import msgspec
from litestar import Response, get
from litestar.response import Stream

from proxy.api.auth import authenticate
from proxy.api.documents import refuse_unknown
from proxy.api.videos import AnyRequest, house_of
from proxy.api.views import encode
from proxy.core import sheets
from proxy.core.clock import iso
from proxy.core.errors import InvalidValue, NotFound
from proxy.core.sheets import safe
from proxy.services.house import House
from proxy.services.report import (
    PAIR,
    SPEND_COLUMNS,
    SpendLine,
    SpendPage,
    SpendQuery,
    all_pages,
    read_query,
    spend,
)
from proxy.store import tenants

PARAMETERS = ("group_by", "start", "end", "format", "limit", "after")
"""Of a query for one tenant's spend; everybody's takes `tenant` too."""


@get("/v1/spend")
async def own_spend(request: AnyRequest) -> Response[Any]:
    """Tell what the caller's tenant has spent; what sellers took of it only where sellers are shown."""
    caller = await authenticate(request, "reports")
    refuse_unknown(request.query_params, PARAMETERS)
    return await _answer(request, caller.tenant.id, sellers_shown=house_of(request).rules.expose_providers)


@get("/admin/reports/spend")
async def all_spend(request: AnyRequest) -> Response[Any]:
    """Tell what all tenants, or one, have spent."""
    await authenticate(request, "admin")
    refuse_unknown(request.query_params, (*PARAMETERS, "tenant"))
    named = request.query_params.get("tenant")
    tenant_id = None if named is None else await _tenant_id(house_of(request), named)
    return await _answer(request, tenant_id, sellers_shown=True)


async def _tenant_id(house: House, id_or_name: str) -> str:
    tenant = await house.store.read(lambda tx: tenants.find_tenant(tx, id_or_name))
    if tenant is None:
        raise NotFound(f"There is no tenant {id_or_name[:80]!r}.", param="tenant")
    return tenant.id


async def _answer(request: AnyRequest, tenant_id: str | None, *, sellers_shown: bool) -> Response[Any]:
    house, asked = house_of(request), request.query_params
    form = asked.get("format", "json")
    if form not in {"json", "csv"}:
        raise InvalidValue("'format' must be 'json' or 'csv'.", param="format")
    odd = next((name for name in ("limit", "after") if form == "csv" and name in asked), None)
    if odd is not None:
        raise InvalidValue(f"'{odd}' cuts JSON into pages; a CSV is the whole report.", param=odd)
    query = read_query(
        asked.get("group_by"),
        asked.get("start"),
        asked.get("end"),
        tenant_id,
        now_us=house.clock(),
        limit=asked.get("limit"),
        after=asked.get("after"),
    )
    if not sellers_shown and "provider" in query.groups:
        raise InvalidValue("'group_by' may not name providers here.", param="group_by")
    blank = () if sellers_shown else _SELLERS_SIDE
    if form == "csv":
        return Stream(as_csv(query, all_pages(house.store, query), blank), media_type="text/csv")
    page = await spend(house.store, query)
    return Response(encode(as_object(query, page, blank)), media_type="application/json")


_SELLERS_SIDE = ("seller_usd", "assumed_usd", "markup_usd", "absorbed_usd", "at_first_usd", "at_dearest_usd")


class SpendReport(msgspec.Struct, frozen=True, kw_only=True):
    """A page of a report, one line a group."""

    object: Literal["spend_report"] = "spend_report"
    start: str
    end: str
    """Without it."""
    group_by: tuple[str, ...]
    data: list[dict[str, Any]]
    has_more: bool
    next: str | None
    """What `after` is for the next page."""


def _row(query: SpendQuery, line: SpendLine, blank: Collection[str]) -> dict[str, Any]:
    row: dict[str, Any] = msgspec.to_builtins(line)
    if "metadata" in row:
        row[f"{PAIR}{query.pair}"] = row.pop("metadata")
    row |= dict.fromkeys(blank)
    return {name: row[name] for name in (*query.groups, *SPEND_COLUMNS)}


def as_object(query: SpendQuery, page: SpendPage, blank: Collection[str] = ()) -> SpendReport:
    """A page as JSON shows it; what stands in `blank` is null."""
    return SpendReport(
        start=iso(query.start),
        end=iso(query.end),
        group_by=query.groups,
        data=[_row(query, line, blank) for line in page.lines],
        has_more=page.next is not None,
        next=page.next,
    )


async def as_csv(
    query: SpendQuery, pages: AsyncIterator[list[SpendLine]], blank: Collection[str] = ()
) -> AsyncIterator[str]:
    """All of it: a header and a row a group; null is an empty field."""
    rows: list[Sequence[Any]] = [(*query.groups, *SPEND_COLUMNS)]
    async for lines in pages:
        for line in lines:
            row = _row(query, line, blank)
            rows.append([safe(row[name]) for name in query.groups] + [row[name] for name in SPEND_COLUMNS])
        yield sheets.as_csv(rows)
        rows = []


ROUTES = [own_spend, all_spend]
