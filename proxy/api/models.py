"""`/v1/models`: what may be asked for, with abilities and prices."""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
from litestar import Response, get
from litestar.params import FromPath

from proxy.api.auth import authenticate
from proxy.api.schemas import Abilities, ModelList, ModelObject, ModelPrice, SecondsRange
from proxy.api.videos import AnyRequest, house_of
from proxy.api.views import encode
from proxy.core.clock import as_datetime
from proxy.core.errors import PriceMissing
from proxy.core.offer import Offer
from proxy.core.tenant import Tenant
from proxy.core.video import ASPECT_RATIOS, RESOLUTIONS, TIERS
from proxy.policy.prices import list_usd_per_second, price_in_force
from proxy.policy.spec import ModelName, read_model
from proxy.services.house import House


@get("/v1/models")
async def list_models(request: AnyRequest) -> Response[bytes]:
    """List every model that somebody sells."""
    caller = await authenticate(request, "videos")
    house = house_of(request)
    return _json(
        ModelList(data=tuple(_model(house, caller.tenant, ModelName(model=name)) for name in house.rules.models))
    )


@get("/v1/models/{model_id:path}")
async def retrieve_model(request: AnyRequest, model_id: FromPath[str]) -> Response[bytes]:
    """Describe one model, by any name that a request may call it."""
    caller = await authenticate(request, "videos")
    house = house_of(request)
    asked = model_id.removeprefix("/")
    name = read_model(asked, house.rules)
    model = _model(house, caller.tenant, name)
    return _json(model if asked in house.rules.names else msgspec.structs.replace(model, id=asked))


def _json(value: Any) -> Response[bytes]:
    return Response(encode(value), media_type="application/json", status_code=200)


def _model(house: House, tenant: Tenant, called: ModelName) -> ModelObject:
    rules, name = house.rules, called.model
    every = [offer for offer in rules.by_model.get(name, ()) if called.pin in {None, offer.provider}]
    offers = [offer for offer in every if rules.accounts[offer.provider].on]
    starts = [price.starts for offer in every for price in offer.prices]
    created = datetime.fromisoformat(min(starts)).replace(tzinfo=UTC) if starts else as_datetime(0)
    return ModelObject(
        id=name,
        created=int(created.timestamp()),
        owned_by="reelay",
        aliases=tuple(alias for alias, canonical in rules.names.items() if canonical == name and alias != name),
        abilities=_abilities(offers) if offers else None,
        prices=tuple(price for offer in offers for price in _prices(house, tenant, offer)),
    )


def _abilities(offers: Sequence[Offer]) -> Abilities:
    return Abilities(
        operations=tuple(dict.fromkeys(offer.operation for offer in offers)),
        tiers=tuple(tier for tier in TIERS if any(offer.tier == tier for offer in offers)),
        resolutions=tuple(one for one in RESOLUTIONS if any(one in offer.resolutions for offer in offers)),
        aspect_ratios=tuple(
            one for one in (*ASPECT_RATIOS, "auto") if any(one in offer.aspect_ratios for offer in offers)
        ),
        seconds=SecondsRange(
            min=min(offer.min_seconds for offer in offers),
            max=max(offer.max_seconds for offer in offers),
            auto=any(offer.auto_seconds for offer in offers),
        ),
        audio_switch=any(offer.audio == "switch" for offer in offers),
        seed=any(offer.seed for offer in offers),
        filter_switch=any(offer.filter_switch for offer in offers),
        web_search=any(offer.web_search for offer in offers),
    )


def _prices(house: House, tenant: Tenant, offer: Offer) -> list[ModelPrice]:
    account = house.rules.accounts[offer.provider]
    today = as_datetime(house.clock()).date().isoformat()
    factor = (1 - Decimal(account.discount)) * (1 + Decimal(tenant.markup))
    priced = []
    for resolution in offer.resolutions:
        try:
            price = price_in_force(offer, resolution, today)
        except PriceMissing:
            continue
        priced.append(
            ModelPrice(
                provider=offer.provider if house.rules.expose_providers else None,
                operation=offer.operation,
                tier=offer.tier,
                resolution=resolution,
                usd_per_second=f"{list_usd_per_second(offer, price, 'auto') * factor:f}",
                basis=price.basis,
            )
        )
    return priced


ROUTES = [list_models, retrieve_model]
