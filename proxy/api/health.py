"""Alive, ready, and what Prometheus scrapes."""

import asyncio
import hmac
from typing import Any

from litestar import Response, get

from proxy.api.videos import AnyRequest, house_of
from proxy.core.errors import InvalidApiKey, ReelayError
from proxy.services.house import House
from proxy.services.report import gauges
from proxy.store import tenants

BREAKERS = {"closed": 0, "half_open": 1, "open": 2}


@get("/healthz")
async def alive() -> Response[bytes]:
    """Say that the process runs."""
    return Response(b'{"status":"ok"}', media_type="application/json")


@get("/readyz")
async def ready(request: AnyRequest) -> Response[bytes]:
    """Say whether new work is taken: the database answers and nobody asked for the end."""
    house = house_of(request)
    if house.draining:
        return Response(b'{"status":"draining"}', media_type="application/json", status_code=503)
    try:
        await house.store.read(tenants.all_tenants)
    except ReelayError:
        return Response(b'{"status":"database"}', media_type="application/json", status_code=503)
    return Response(b'{"status":"ready"}', media_type="application/json")


@get("/metrics")
async def scrape(request: AnyRequest) -> Response[bytes]:
    """Render every metric; the gauges are read from the database now."""
    token: str | None = request.app.state.metrics_token
    sent = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
    if token is not None and not hmac.compare_digest(sent.encode(), token.encode()):
        raise InvalidApiKey("This address needs the metrics token.")
    body, content_type = await render(house_of(request), request.headers.get("accept"))
    return Response(body, media_type=content_type)


async def render(house: House, accept: str | None) -> tuple[bytes, str]:
    """The metrics as text; the content type beside."""
    free, used = await _disk(house)
    breakers = {offer: BREAKERS[house.pulse.standing(offer).state] for offer in house.rules.offers}
    house.metrics.snapshot(
        await gauges(house.store, now_us=house.clock(), free_bytes=free, used_bytes=used, breakers=breakers)
    )
    return await asyncio.to_thread(house.metrics.render, accept)


async def _disk(house: House) -> tuple[dict[str, int], dict[str, int]]:
    free = await house.storage.free_bytes()
    ratio = await house.storage.used_ratio()
    if free is None or ratio is None or ratio >= 1:
        return {}, {}
    return {"files": free}, {"files": int(free * ratio / (1 - ratio))}


ROUTES: list[Any] = [alive, ready]
METRICS_ROUTES: list[Any] = [scrape]
