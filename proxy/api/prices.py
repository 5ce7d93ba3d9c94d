"""`/admin/prices`: the book in force, and the prices that operators set over it, for keys with the scope `admin`."""

from typing import Any

from litestar import Response, delete, get, post
from litestar.params import FromPath

from proxy.api.auth import authenticate
from proxy.api.documents import read_json
from proxy.api.schemas import PriceRemoved, PriceSet
from proxy.api.videos import AnyRequest, house_of
from proxy.api.views import encode
from proxy.core.clock import SECOND_US
from proxy.core.offer import PriceOverride
from proxy.services.pricing import Appraiser, PriceWish, book, today
from proxy.services.rulebook import reprice

MAX_BODY_BYTES = 64 * 1024


def _json(value: Any) -> Response[bytes]:
    return Response(encode(value), media_type="application/json", status_code=200)


def _appraiser(request: AnyRequest) -> Appraiser:
    house = house_of(request)
    return Appraiser(house.store, house.clock, house.new_id)


def price_set(override: PriceOverride) -> PriceSet:
    return PriceSet(
        id=override.id,
        provider=override.provider,
        model=override.model,
        tier=override.tier,
        operation=override.operation,
        resolution=override.resolution,
        with_video=bool(override.with_video),
        usd_per_second=override.usd_per_second,
        usd_per_million_tokens=override.usd_per_million_tokens,
        starts=override.starts,
        source=override.source,
        basis=override.basis,
        created_at=override.created_at // SECOND_US,
    )


@get("/admin/prices")
async def list_prices(request: AnyRequest) -> Response[bytes]:
    """List every dated price, where it comes from and whether it is in force today."""
    await authenticate(request, "admin")
    house, asked = house_of(request), request.query_params
    lines = book(
        house.rules, house.overrides, today(house.clock()), provider=asked.get("provider"), model=asked.get("model")
    )
    return _json({"object": "list", "data": lines})


@post("/admin/prices", status_code=200)
async def set_price(request: AnyRequest) -> Response[bytes]:
    """Set a price over those of catalogue and rules; it holds here at once, elsewhere within seconds."""
    caller = await authenticate(request, "admin")
    wish = await read_json(request.stream(), PriceWish, max_bytes=MAX_BODY_BYTES)
    house = house_of(request)
    made = await _appraiser(request).set(caller.key_id, wish, house.rules)
    await reprice(house)
    return _json(price_set(made))


@delete("/admin/prices/{price:str}", status_code=200)
async def remove_price(request: AnyRequest, price: FromPath[str]) -> Response[bytes]:
    """Remove a price that was set; what it overruled holds again."""
    caller = await authenticate(request, "admin")
    await _appraiser(request).remove(caller.key_id, price, request.query_params.get("reason"))
    await reprice(house_of(request))
    return _json(PriceRemoved(id=price))


ROUTES = [list_prices, set_price, remove_price]
