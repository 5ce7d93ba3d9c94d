"""`/openapi.json` and `/docs`: the API's own description, made from the routes at the first request."""

import functools
import html
import re
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from typing import Any, get_args

import msgspec
from litestar import Response, get
from litestar.handlers import HTTPRouteHandler

from proxy.api.asks import MAX_PROMPT_CHARS, CreateBody
from proxy.api.books import ActObject, DifferenceObject
from proxy.api.reports import PARAMETERS
from proxy.api.schemas import (
    BudgetObject,
    BudgetRemoved,
    EndUserErased,
    ErrorEnvelope,
    KeyObject,
    KeyRevoked,
    ModelList,
    ModelObject,
    PriceRemoved,
    PriceSet,
    QuoteObject,
    TenantObject,
    VideoDeleted,
    VideoList,
    VideoObject,
)
from proxy.api.statement_objects import StatementObject
from proxy.api.statements import ClosedMonth, ClosingWish, MonthStatements, RefundObject, StatementName
from proxy.api.videos import AnyRequest
from proxy.core.attempt import AttemptState
from proxy.core.video import ASPECT_RATIOS, RESOLUTIONS, TIERS
from proxy.services.accounts import KeyChange, KeyWish, TenantChange
from proxy.services.allowances import BudgetChange, BudgetWish
from proxy.services.erasure import ErasureWish
from proxy.services.overview import AttemptLine, ProviderLine, RulesInForce
from proxy.services.pricing import PriceLine, PriceWish
from proxy.services.refunds import RefundWish
from proxy.services.report import GROUPS, PAIR, SpendLine
from proxy.services.resolve import Finding


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What a route takes and answers beside its path."""

    answers: type[msgspec.Struct] | str | None
    """A Struct as JSON, or a media type; None: nothing but a refusal."""
    many: bool = False
    """A list of such Structs in an envelope."""
    formats: tuple[str, ...] = ()
    """Media types that `format` has it answer instead."""
    takes: type[msgspec.Struct] | str | None = None
    forms: bool = False
    """Takes forms as well as JSON."""
    query: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()


SHAPES: dict[str, Shape] = {
    "POST /v1/videos": Shape(takes=CreateBody, forms=True, answers=VideoObject, headers=("Idempotency-Key", "Prefer")),
    "GET /v1/videos": Shape(answers=VideoList, query=("limit", "order", "after", "end_user_id")),
    "POST /v1/videos/quote": Shape(takes=CreateBody, forms=True, answers=QuoteObject),
    "GET /v1/videos/{video_id}": Shape(answers=VideoObject),
    "DELETE /v1/videos/{video_id}": Shape(answers=VideoDeleted),
    "POST /v1/videos/{video_id}/cancel": Shape(answers=VideoObject),
    "GET /v1/videos/{video_id}/content": Shape(
        answers="video/mp4", query=("variant",), headers=("Range", "If-Range", "If-None-Match")
    ),
    "HEAD /v1/videos/{video_id}/content": Shape(answers="video/mp4", query=("variant",), headers=("If-None-Match",)),
    "POST /v1/videos/{video_id}/remix": Shape(answers=None),
    "POST /v1/videos/edits": Shape(answers=None),
    "POST /v1/videos/extensions": Shape(answers=None),
    "POST /v1/videos/characters": Shape(answers=None),
    "GET /v1/models": Shape(answers=ModelList),
    "GET /v1/models/{model_id}": Shape(answers=ModelObject),
    "GET /v1/spend": Shape(answers=SpendLine, many=True, formats=("text/csv",), query=PARAMETERS),
    "GET /admin/reports/spend": Shape(
        answers=SpendLine, many=True, formats=("text/csv",), query=(*PARAMETERS, "tenant")
    ),
    "GET /v1/statements": Shape(answers=StatementName, many=True),
    "GET /v1/statements/{month}": Shape(answers=StatementObject, formats=("text/csv", "text/html"), query=("format",)),
    "GET /admin/statements": Shape(answers=StatementName, many=True, query=("tenant",)),
    "GET /admin/statements/{tenant}/{month}": Shape(
        answers=StatementObject, formats=("text/csv", "text/html"), query=("format",)
    ),
    "GET /admin/months": Shape(answers=ClosedMonth, many=True),
    "POST /admin/months/{month}/close": Shape(takes=ClosingWish, answers=MonthStatements),
    "POST /admin/videos/{video}/refunds": Shape(takes=RefundWish, answers=RefundObject, headers=("Idempotency-Key",)),
    "GET /admin/log": Shape(answers=ActObject, many=True, query=("limit", "after")),
    "GET /admin/differences": Shape(answers=DifferenceObject, many=True, query=("limit",)),
    "GET /admin/tenants": Shape(answers=TenantObject, many=True),
    "POST /admin/tenants": Shape(takes=TenantChange, answers=TenantObject),
    "PATCH /admin/tenants/{tenant}": Shape(takes=TenantChange, answers=TenantObject),
    "POST /admin/tenants/{tenant}/end_users/erase": Shape(takes=ErasureWish, answers=EndUserErased),
    "GET /admin/keys": Shape(answers=KeyObject, many=True, query=("tenant",)),
    "POST /admin/keys": Shape(takes=KeyWish, answers=KeyObject),
    "PATCH /admin/keys/{key_id}": Shape(takes=KeyChange, answers=KeyObject),
    "DELETE /admin/keys/{key_id}": Shape(answers=KeyRevoked, query=("reason",)),
    "GET /admin/budgets": Shape(answers=BudgetObject, many=True, query=("tenant",)),
    "POST /admin/budgets": Shape(takes=BudgetWish, answers=BudgetObject),
    "PATCH /admin/budgets/{budget}": Shape(takes=BudgetChange, answers=BudgetObject),
    "DELETE /admin/budgets/{budget}": Shape(answers=BudgetRemoved, query=("reason",)),
    "GET /admin/prices": Shape(answers=PriceLine, many=True, query=("provider", "model")),
    "POST /admin/prices": Shape(takes=PriceWish, answers=PriceSet),
    "DELETE /admin/prices/{price}": Shape(answers=PriceRemoved, query=("reason",)),
    "GET /admin/providers": Shape(answers=ProviderLine, many=True),
    "GET /admin/rules": Shape(answers=RulesInForce),
    "GET /admin/attempts": Shape(answers=AttemptLine, many=True, query=("state", "limit")),
    "POST /admin/attempts/{video}/{number}/resolve": Shape(takes=Finding, answers=AttemptLine),
    "POST /callbacks/{token}": Shape(takes="application/json", answers="application/json"),
    "GET /metrics": Shape(answers="text/plain"),
    "GET /docs": Shape(answers="text/html"),
}
"""What is said here of a route is said nowhere else; one that is missing answers JSON of no stated shape."""

WORDS: dict[str, tuple[str, dict[str, Any]]] = {
    "limit": ("How many at the most.", {"type": "integer", "minimum": 0}),
    "order": ("By time of creation.", {"type": "string", "enum": ["asc", "desc"], "default": "desc"}),
    "after": ("Where the page before ended: the id of its last item, or of a report its `next`.", {"type": "string"}),
    "end_user_id": ("Of this end user alone.", {"type": "string"}),
    "variant": ("Only the film itself is made.", {"type": "string", "enum": ["video"]}),
    "group_by": (f"A list of {', '.join(GROUPS)}, {PAIR}KEY; separated by commas.", {"type": "string"}),
    "start": ("First day, UTC; without it the first of this month.", {"type": "string", "format": "date"}),
    "end": ("Day after the last, UTC; without it tomorrow.", {"type": "string", "format": "date"}),
    "format": (
        "How it is written; of a statement also html, and charges: a CSV of each charge and refund behind it.",
        {"type": "string", "enum": ["json", "csv", "html", "charges"], "default": "json"},
    ),
    "tenant": ("Id or name; without it all.", {"type": "string"}),
    "provider": ("Of this provider alone.", {"type": "string"}),
    "model": ("Of this model alone, by any of its names.", {"type": "string"}),
    "state": ("State of the attempts.", {"type": "string", "enum": get_args(AttemptState), "default": "unknown"}),
    "reason": ("Kept in the admins' log.", {"type": "string"}),
    "Idempotency-Key": ("The same key and body stand for the same video, for 24 hours.", {"type": "string"}),
    "Prefer": (
        "`wait=N` holds the answer until the video has ended, N seconds at the most, as Preference-Applied then tells.",
        {"type": "string"},
    ),
    "Range": ("One range of bytes.", {"type": "string"}),
    "If-Range": ("The ETag for which the range holds.", {"type": "string"}),
    "If-None-Match": ("ETags of films that the client has.", {"type": "string"}),
}

_OPEN = ("/healthz", "/readyz", "/openapi.json", "/docs", "/callbacks/{token}")
"""Where no API key is asked for."""

_MAY_BE_OPEN = ("/metrics",)
"""Where the settings say whether a token is asked for."""

_ENUMS: dict[str, Sequence[str]] = {
    "resolution": RESOLUTIONS,
    "aspect_ratio": (*ASPECT_RATIOS, "auto"),
    "tier": TIERS,
}


@get("/openapi.json")
async def openapi(request: AnyRequest) -> Response[bytes]:
    """Describe this API as OpenAPI 3.1."""
    return Response(_as_json(request.app.state.handlers), media_type="application/json")


@get("/docs")
async def docs(request: AnyRequest) -> Response[bytes]:
    """Show the description as a page, which loads nothing from anywhere."""
    return Response(_as_page(request.app.state.handlers), media_type="text/html")


ROUTES: list[Any] = [openapi, docs]


def templates_of(handlers: Iterable[HTTPRouteHandler]) -> Iterator[tuple[str, str, HTTPRouteHandler]]:
    """Method, path and handler of every route, parameters of paths as `{name}`."""
    for handler in handlers:
        for path in sorted(handler.paths):
            for method in sorted(handler.http_methods):
                yield method, re.sub(r"\{(\w+):\w+\}", r"{\1}", path), handler


@functools.cache
def _as_json(handlers: tuple[HTTPRouteHandler, ...]) -> bytes:
    return msgspec.json.encode(describe(handlers))


def describe(handlers: Iterable[HTTPRouteHandler]) -> dict[str, Any]:
    """The OpenAPI document of these routes."""
    shapes = [shape for method, path, _ in templates_of(handlers) if (shape := SHAPES.get(f"{method} {path}"))]
    structs: set[Any] = {kind for shape in shapes for kind in (shape.takes, shape.answers) if isinstance(kind, type)}
    ordered = sorted({ErrorEnvelope, *structs}, key=lambda kind: str(kind.__name__))
    _, schemas = msgspec.json.schema_components(ordered, ref_template="#/components/schemas/{name}")
    create = schemas["CreateBody"]
    for field, words in _ENUMS.items():
        create["properties"][field]["enum"] = [*words, None]
    # Null means left out; of the one field that may not be, the decoder leaves it to `build_ask` to say so.
    create["properties"]["prompt"] = {"type": "string", "minLength": 1, "maxLength": MAX_PROMPT_CHARS}
    create["required"] = ["prompt"]
    paths: dict[str, dict[str, Any]] = {}
    for method, path, handler in templates_of(handlers):
        paths.setdefault(path, {})[method.lower()] = _operation(method, path, handler)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Reelay",
            "version": version("reelay"),
            "description": "OpenAI's Videos API before many sellers. Amounts are decimal strings in US dollars.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "responses": {"refused": {"description": "Refused, or failed.", **_content(_ref(ErrorEnvelope))}},
        },
        "security": [{"key": []}],
    }


def _operation(method: str, path: str, handler: HTTPRouteHandler) -> dict[str, Any]:
    shape = SHAPES.get(f"{method} {path}", Shape(answers="application/json"))
    doc = (handler.fn.__doc__ or "").strip()
    parameters: list[dict[str, Any]] = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "integer" if any(f"{{{name}:int}}" in one for one in handler.paths) else "string"},
        }
        for name in re.findall(r"\{(\w+)\}", path)
    ]
    for place, names in (("query", shape.query), ("header", shape.headers)):
        parameters += [
            {"name": name, "in": place, "description": WORDS[name][0], "schema": WORDS[name][1]} for name in names
        ]
    operation: dict[str, Any] = {
        "operationId": f"{handler.fn.__name__}_{method.lower()}" if len(handler.paths) == 1 else f"{method} {path}",
        "summary": doc.splitlines()[0],
        "tags": [path.split("/")[2 if path.startswith("/v1/") else 1]],
        "parameters": parameters,
        "responses": {"default": {"$ref": "#/components/responses/refused"}},
    }
    if shape.answers is not None:
        operation["responses"] = {**_answers(shape), **operation["responses"]}
    if shape.takes is not None:
        operation["requestBody"] = {"required": True, **_body(shape)}
    if path in _OPEN:
        operation["security"] = []
    elif path in _MAY_BE_OPEN:
        operation["security"] = [{}, {"key": []}]
    return operation


def _ref(kind: type[msgspec.Struct]) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{kind.__name__}"}


def _content(schema: dict[str, Any], *media_types: str) -> dict[str, Any]:
    return {"content": {media_type: {"schema": schema} for media_type in media_types or ("application/json",)}}


def _answers(shape: Shape) -> dict[str, Any]:
    """By status; what a client has, or a part of it, where it may ask for that."""
    whole = _answer(shape)
    answers: dict[str, Any] = {"200": whole}
    if "Range" in shape.headers:
        answers["206"] = whole | {"description": "The part that was asked for."}
    if "If-None-Match" in shape.headers:
        answers["304"] = {"description": "The client has it."}
    return answers


def _answer(shape: Shape) -> dict[str, Any]:
    if not isinstance(shape.answers, type):
        return {"description": "Done.", **_content({}, str(shape.answers))}
    schema = _ref(shape.answers)
    if shape.many:
        data = {"type": "array", "items": schema}
        schema = {"type": "object", "properties": {"object": {"type": "string"}, "data": data}}
    answer = _content(schema)
    for media_type in shape.formats:
        answer["content"][media_type] = {"schema": {}}
    return {"description": "Done.", **answer}


def _body(shape: Shape) -> dict[str, Any]:
    if isinstance(shape.takes, str):
        return _content({}, shape.takes)
    assert shape.takes is not None, "asked only of routes that take something"
    forms = ("application/json", "multipart/form-data", "application/x-www-form-urlencoded") if shape.forms else ()
    return _content(_ref(shape.takes), *forms)


_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222}"
    "h2{margin:2em 0 0;font:600 16px ui-monospace,monospace}td{padding:0 1.5em 0 0;vertical-align:top}"
    "td:first-child{font-family:ui-monospace,monospace}@media(prefers-color-scheme:dark){body{background:#111;color:#ddd}}"
)


@functools.cache
def _as_page(handlers: tuple[HTTPRouteHandler, ...]) -> bytes:
    """Plain HTML: each route, what it takes and what it answers."""
    described = describe(handlers)
    title = html.escape(f"{described['info']['title']} {described['info']['version']}")
    parts = [f"<!doctype html><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style><h1>{title}</h1>"]
    parts.append(f"<p>{html.escape(described['info']['description'])} <a href=/openapi.json>openapi.json</a></p>")
    for path, item in described["paths"].items():
        for method, operation in item.items():
            parts.append(f"<h2>{method.upper()} {html.escape(path)}</h2><p>{html.escape(operation['summary'])}</p>")
            rows = [(one["name"], one.get("description", one["in"])) for one in operation["parameters"]]
            parts.append(_table(rows) + _named(operation))
    parts.append("<h1>Objects</h1>")
    for name, schema in described["components"]["schemas"].items():
        parts.append(f'<h2 id="{name}">{name}</h2><p>{html.escape(schema.get("description", ""))}</p>')
        parts.append(_table([(field, _kind(kind)) for field, kind in schema.get("properties", {}).items()]))
    return "".join(parts).encode()


def _named(operation: dict[str, Any]) -> str:
    """Which objects go in and come out."""
    said = []
    for word, place in (("Takes", operation.get("requestBody")), ("Answers", operation["responses"].get("200"))):
        if place is not None:
            media_type, content = next(iter(place["content"].items()))
            names = re.findall(r"schemas/(\w+)", str(content))
            said.append(f"{word} " + (f'<a href="#{names[0]}">{names[0]}</a>' if names else media_type))
    return f"<p>{'. '.join(said) or 'Always refused'}.</p>"


def _table(rows: Sequence[tuple[str, str]]) -> str:
    cells = "".join(f"<tr><td>{html.escape(name)}<td>{html.escape(text)}" for name, text in rows)
    return f"<table>{cells}</table>" if rows else ""


def _kind(schema: dict[str, Any]) -> str:
    """A type in a few words."""
    if "enum" in schema:
        return " | ".join("null" if word is None else str(word) for word in schema["enum"])
    if "anyOf" in schema:
        return " | ".join(_kind(one) for one in schema["anyOf"])
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}" if isinstance(schema.get("items"), dict) else "list"
    return str(schema.get("type", "anything"))
