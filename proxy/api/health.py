"""Alive, ready, and what Prometheus scrapes."""

import asyncio
import contextlib
import hmac
from typing import Any

import msgspec
from litestar import Response, get

from proxy.api.videos import AnyRequest, house_of
from proxy.core.errors import InvalidApiKey, Overloaded, ReelayError
from proxy.outside.base import StorageFailed
from proxy.services.house import House
from proxy.services.overview import expected_times, offers_asked
from proxy.services.report import seen_in_database
from proxy.store import migrations, tenants
from proxy.telemetry.metrics import TENANT_LABELS, FromDatabase, Gauges

DATABASE_TIMEOUT_S = 5.0
"""A scraper waits ten seconds, and what this process counts itself is wanted most when the database does not answer."""
BREAKERS = {"closed": 0, "half_open": 1, "open": 2}


@get("/healthz")
async def alive() -> Response[bytes]:
    """Say that the process runs."""
    return Response(b'{"status":"ok"}', media_type="application/json")


@get("/readyz")
async def ready(request: AnyRequest) -> Response[bytes]:
    """
    Say whether requests are answered: the database does, this version speaks its schema, and nobody asked for the end.

    A disk that is nearly full is told, but changes nothing here: creates are refused one by one, while films
    can still be watched and downloaded, which a server that is taken out of service could not offer. A sandbox
    says so.
    """
    house = house_of(request)
    if house.draining:
        return Response(b'{"status":"draining"}', media_type="application/json", status_code=503)
    try:
        spoken = await house.store.read(migrations.is_spoken)
    except ReelayError:
        return Response(b'{"status":"database"}', media_type="application/json", status_code=503)
    if not spoken:
        return Response(b'{"status":"schema"}', media_type="application/json", status_code=503)
    told: dict[str, Any] = {"status": "ready"}
    if house.sandbox:
        told["sandbox"] = True
    if house.full:
        told["full"] = sorted(house.full)
    return Response(msgspec.json.encode(told), media_type="application/json")


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
    """The metrics as text; the content type beside. What the database does not tell in time is left out."""
    free, used = await _disks(house)
    asked = offers_asked(house.rules)
    times = expected_times(house.rules, house.pulse.times)
    house.metrics.snapshot(
        Gauges(
            database=await _seen_in_database(house),
            store_free_bytes=free,
            store_used_bytes=used,
            clock_ahead_us=house.store.ahead_us,
            breakers={offer.id: BREAKERS[house.pulse.standing(offer.id).state] for offer in asked},
            learned_s={offer: learned for offer, (learned, _) in times.items() if learned is not None},
            stated_s={offer: stated for offer, (_, stated) in times.items()},
        )
    )
    return await asyncio.to_thread(house.metrics.render, accept)


async def _seen_in_database(house: House) -> FromDatabase | None:
    try:
        async with asyncio.timeout(DATABASE_TIMEOUT_S):
            # Another process may have made tenants meanwhile.
            house.metrics.set_tenants(await house.store.read(lambda tx: tenants.oldest(tx, most=TENANT_LABELS)))
            return await seen_in_database(house.store, now_us=house.clock())
    except (Overloaded, TimeoutError):
        return None


async def _disks(house: House) -> tuple[dict[str, int], dict[str, int]]:
    """Free and used bytes by store; one that has no limit, or cannot be asked, is left out."""
    free: dict[str, int] = {}
    used: dict[str, int] = {}
    for store, disk in house.disks.items():
        with contextlib.suppress(StorageFailed):
            room = await disk.room()
            if room is not None:
                free[store], used[store] = room.free_bytes, room.used_bytes
    return free, used


ROUTES: list[Any] = [alive, ready]
METRICS_ROUTES: list[Any] = [scrape]
