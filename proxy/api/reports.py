"""Spend as finance reads it: a tenant's own under `/v1/spend`, everybody's under `/admin`."""

import csv
import io
from collections.abc import Sequence

import msgspec
from litestar import Response, get

from proxy.api.auth import authenticate
from proxy.api.videos import AnyRequest, house_of
from proxy.api.views import encode
from proxy.core.clock import iso
from proxy.core.errors import InvalidValue
from proxy.services.report import SPEND_COLUMNS, SpendLine, SpendQuery, read_query, spend


@get("/v1/spend")
async def own_spend(request: AnyRequest) -> Response[bytes]:
    """Tell what the caller's tenant has spent."""
    caller = await authenticate(request, "reports")
    return await _answer(request, caller.tenant.id)


@get("/admin/reports/spend")
async def all_spend(request: AnyRequest) -> Response[bytes]:
    """Tell what all tenants, or one, have spent."""
    await authenticate(request, "admin")
    return await _answer(request, request.query_params.get("tenant"))


async def _answer(request: AnyRequest, tenant_id: str | None) -> Response[bytes]:
    house, asked = house_of(request), request.query_params
    form = asked.get("format", "json")
    if form not in {"json", "csv"}:
        raise InvalidValue("'format' must be 'json' or 'csv'.", param="format")
    query = read_query(asked.get("group_by"), asked.get("start"), asked.get("end"), tenant_id, now_us=house.clock())
    lines = await spend(house.store, query)
    if form == "csv":
        return Response(as_csv(query, lines).encode(), media_type="text/csv; charset=utf-8")
    return Response(encode(as_object(query, lines)), media_type="application/json")


def as_object(query: SpendQuery, lines: Sequence[SpendLine]) -> dict[str, object]:
    """The report as JSON shows it."""
    return {
        "object": "spend_report",
        "start": iso(query.start),
        "end": iso(query.end),
        "group_by": query.groups,
        "data": lines,
    }


def as_csv(query: SpendQuery, lines: Sequence[SpendLine]) -> str:
    """A header and a row a group; null is an empty field."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*query.groups, *SPEND_COLUMNS])
    for line in lines:
        row = msgspec.to_builtins(line)
        writer.writerow(["" if row[name] is None else row[name] for name in (*query.groups, *SPEND_COLUMNS)])
    return out.getvalue()


ROUTES = [own_spend, all_spend]
