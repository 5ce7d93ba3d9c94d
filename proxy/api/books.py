"""`/admin/log` and `/admin/differences`: what admins changed, and what sellers took that their price does not make."""

from typing import Any, Literal

import msgspec
from litestar import Response, get

from proxy.api.auth import authenticate
from proxy.api.documents import limit_of, refuse_unknown
from proxy.api.videos import AnyRequest, house_of
from proxy.api.views import encode
from proxy.core.clock import iso
from proxy.core.errors import InvalidValue
from proxy.core.money import usd_text
from proxy.store import settlements, tenants
from proxy.store.base import Tx
from proxy.store.settlements import Settlement
from proxy.store.tenants import AdminAct

LIMIT, LIMIT_MOST = 100, 1000


class ActObject(msgspec.Struct, frozen=True, kw_only=True):
    """A change by an operator, which is never changed itself."""

    object: Literal["act"] = "act"
    id: str
    at: str
    actor: str
    """Id of the key, or `cli`."""
    action: str
    subject: str
    before: Any
    after: Any
    reason: str | None


class DifferenceObject(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery whose seller says it took another amount than its price makes, beyond the tolerance."""

    object: Literal["difference"] = "difference"
    settlement: str
    at: str
    tenant: str
    provider: str
    model: str
    resolution: str
    seconds: int
    expected_usd: str
    """By the price that was frozen at accept, for what was asked."""
    stated_usd: str
    """By the seller, and what counts as its cost."""


def act_object(act: AdminAct) -> ActObject:
    before, after = (None if text is None else msgspec.json.decode(text) for text in (act.before, act.after))
    return ActObject(
        id=act.id,
        at=iso(act.at),
        actor=act.actor,
        action=act.action,
        subject=act.subject,
        before=before,
        after=after,
        reason=act.reason,
    )


def difference_object(cost: Settlement) -> DifferenceObject:
    return DifferenceObject(
        settlement=cost.id,
        at=iso(cost.at),
        tenant=cost.tenant_id,
        provider=cost.provider,
        model=cost.model,
        resolution=cost.resolution,
        seconds=cost.seconds,
        expected_usd=usd_text(cost.expected_microusd or 0),
        stated_usd=usd_text(cost.seller_microusd),
    )


@get("/admin/log")
async def list_acts(request: AnyRequest) -> Response[bytes]:
    """List what admins changed, the newest first."""
    await authenticate(request, "admin")
    refuse_unknown(request.query_params, ("limit", "after"))
    most = limit_of(request.query_params.get("limit"), LIMIT, LIMIT_MOST)
    mark = request.query_params.get("after")

    def unit(tx: Tx) -> list[AdminAct]:
        after = None if mark is None else tenants.act_by_id(tx, mark)
        if mark is not None and after is None:
            raise InvalidValue("'after' names no act.", param="after")
        return tenants.acts(tx, most=most, after=after)

    return _list([act_object(act) for act in await house_of(request).store.read(unit)])


@get("/admin/differences")
async def list_differences(request: AnyRequest) -> Response[bytes]:
    """List deliveries whose seller took another amount than its price makes, the newest first."""
    await authenticate(request, "admin")
    refuse_unknown(request.query_params, ("limit",))
    most = limit_of(request.query_params.get("limit"), LIMIT, LIMIT_MOST)
    found = await house_of(request).store.read(lambda tx: settlements.differing(tx, most=most))
    return _list([difference_object(one) for one in found])


def _list(items: list[Any]) -> Response[bytes]:
    return Response(encode({"object": "list", "data": items}), media_type="application/json")


ROUTES = [list_acts, list_differences]
