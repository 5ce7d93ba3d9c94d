"""All routes as one ASGI application, with an id and a measure for each request."""

import random
import time
from collections.abc import Sequence
from typing import Any

import structlog
from litestar import Litestar
from litestar.datastructures import State
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from proxy.api import admin, books, callbacks, failures, health, models, openapi, prices, reports, statements, videos
from proxy.api.auth import Keyring
from proxy.api.limits import Turnstile
from proxy.api.manners import Mannered, with_manners
from proxy.services.accounts import Registrar
from proxy.services.house import House

_log = structlog.get_logger("reelay.http")

_ROOMS: tuple[Any, ...] = (videos, models, reports, statements, callbacks, admin, prices, books, health, openapi)


def build_site(
    house: House, keyring: Keyring, registrar: Registrar, *, metrics_token: str | None, with_metrics: bool
) -> ASGIApp:
    """The application; `with_metrics` False where metrics have a port of their own."""
    routes: list[Any] = [
        *(handler for room in _ROOMS for handler in room.ROUTES),
        *(health.METRICS_ROUTES if with_metrics else ()),
    ]
    state = {
        "house": house,
        "keyring": keyring,
        "turnstile": Turnstile(house.metrics),
        "registrar": registrar,
        "metrics_token": metrics_token,
        "handlers": tuple(routes),
    }
    return Measured(_litestar(routes, state), house)


def build_probes_site(house: House, *, metrics_token: str | None, with_metrics: bool = True) -> ASGIApp:
    """Nothing but the two probes and `/metrics`: for a port of their own, and for a worker alone."""
    routes = [*health.ROUTES, *(health.METRICS_ROUTES if with_metrics else ())]
    return Mannered(_litestar(routes, {"house": house, "metrics_token": metrics_token}))


def _litestar(routes: Sequence[Any], state: dict[str, Any]) -> Litestar:
    return Litestar(
        list(routes),
        state=State(state, deep_copy=False),
        exception_handlers=failures.HANDLERS,
        request_max_body_size=None,  # bodies are read with limits of our own
        openapi_config=None,
        logging_config=None,
        debug=False,
    )


def route_templates() -> dict[str, list[str]]:
    """Every route's template with its methods, for the labels of metrics."""
    templates: dict[str, list[str]] = {}
    handlers = [handler for room in _ROOMS for handler in room.ROUTES] + health.METRICS_ROUTES
    for method, template, _ in openapi.templates_of(handlers):
        templates.setdefault(template, []).append(method)
    return templates


def _replace_nul(scope: Any) -> None:
    """A NUL in an address names nothing, and PostgreSQL takes no text with one: another odd character stands for it."""
    if "\0" in scope["path"]:
        scope["path"] = scope["path"].replace("\0", "\ufffd")
    if b"%00" in scope["query_string"]:
        scope["query_string"] = scope["query_string"].replace(b"%00", b"%EF%BF%BD")


class Measured:
    """Gives each request an id and each answer manners, counts and times it, and logs what is worth a line."""

    def __init__(self, inner: ASGIApp, house: House) -> None:
        self._inner = inner
        self._metrics = house.metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._inner(scope, receive, send)
            return
        _replace_nul(scope)
        request_id = f"req_{random.getrandbits(96):024x}"
        stamp = (b"x-request-id", request_id.encode())
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        begun, status = time.perf_counter(), 0

        async def stamped(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = with_manners([*message["headers"], stamp])
            await send(message)

        self._metrics.request_started()
        token = structlog.contextvars.bind_contextvars(request=request_id)
        try:
            await self._inner(scope, receive, stamped)
        finally:
            structlog.contextvars.reset_contextvars(**token)
            held_s = state.get("held_s", 0.0)
            self._end(scope, request_id, status, time.perf_counter() - begun - held_s)

    def _end(self, scope: Any, request_id: str, status: int, seconds: float) -> None:
        method, route = scope["method"], scope.get("path_template") or "other"
        self._metrics.request_ended(route=route, method=method, status=status, seconds=seconds)
        # What a request changed is told by the service that changed it, under the same request id.
        if status >= 400:
            _log.info(
                "http.request",
                request=request_id,
                method=method,
                route=route,
                status=status,
                ms=round(seconds * 1000, 2),
            )
