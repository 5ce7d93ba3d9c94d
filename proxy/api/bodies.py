"""
A create request, in whichever encoding it comes: the same fields are the same request.

JSON is decoded once into a Struct. A form is first turned into the JSON document that it stands for,
and goes the same way; so does JSON that needs a second look.
"""

import re
from collections.abc import AsyncIterator
from typing import Any, Literal

import msgspec
from multipart import parse_options_header

from proxy.api.asks import (
    CREATE_FIELDS,
    MAX_END_USER_CHARS,
    MEDIA_FIELDS,
    NOT_SOLD,
    CreateBody,
    Medium,
    build_ask,
    media_of,
)
from proxy.api.documents import Hold, collect, decode, decode_members, read_json, refuse_nul, unknown_parameter
from proxy.api.forms import Form, Node, UploadedFile, coerce, read_multipart, read_urlencoded
from proxy.core.errors import (
    InvalidType,
    InvalidValue,
    MissingParameter,
    UnknownParameter,
    Unsupported,
    UnsupportedMediaType,
)
from proxy.core.ids import sha256_hex
from proxy.core.video import Ask, RoutingWish

__all__ = ["CreateRequest", "ListQuery", "UnknownFields", "parse_list_query", "read_create", "read_json"]

UnknownFields = Literal["refuse", "report"]

MAX_CONTENT_TYPE_CHARS = 1024
MAX_REPORTED = 20
DEFAULT_LIMIT = 20


class CreateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a create request asks for."""

    ask: Ask
    fingerprint: str
    """SHA-256 of what was stated, files by their hashes: the same for equal content in any encoding."""
    warnings: tuple[str, ...] = ()
    """One sentence for each unknown field that was let pass."""
    files: tuple[UploadedFile, ...] = ()


async def read_create(
    content_type: str | None, body: AsyncIterator[bytes], *, max_bytes: int, unknown_fields: UnknownFields
) -> CreateRequest:
    """
    Reads no more than `max_bytes`.

    Raises RequestError for what the client sent, Overloaded where all bodies together are too much. Without a content
    type, a body that begins like a JSON object is taken for one. Multipart under a JSON header, which SDKs send when
    their user forces the header, is recognised by its first bytes.
    """
    media_type, options = _media_type(content_type)
    if media_type == "application/json":
        with Hold() as hold:
            data = await collect(body, hold, max_bytes=max_bytes)
            if data[:2] == b"--":
                return await _from_mislabelled(data, unknown_fields)
            return _from_json(data, unknown_fields)
    if media_type == "multipart/form-data":
        return _from_form(await _multipart(options.get("boundary"), body, max_bytes), unknown_fields)
    if media_type == "application/x-www-form-urlencoded":
        return _from_form(await read_urlencoded(body, max_bytes=max_bytes), unknown_fields)
    if media_type == "":
        with Hold() as hold:
            data = await collect(body, hold, max_bytes=max_bytes)
            if data.lstrip()[:1] == b"{":
                return _from_json(data, unknown_fields)
    raise UnsupportedMediaType(
        f"Content-Type {media_type[:64]!r} is not understood; send application/json, multipart/form-data "
        "or application/x-www-form-urlencoded."
    )


def _media_type(content_type: str | None) -> tuple[str, dict[str, str]]:
    if content_type == "application/json":
        return content_type, {}
    if not content_type:
        return "", {}
    if len(content_type) > MAX_CONTENT_TYPE_CHARS:
        raise UnsupportedMediaType("Content-Type is too long.")
    media_type, options = parse_options_header(content_type)
    charset = options.get("charset", "utf-8").lower()
    if charset not in {"utf-8", "utf8", "us-ascii"}:
        raise UnsupportedMediaType(f"The charset {charset[:64]!r} is not understood; send UTF-8.")
    return media_type, options


async def _multipart(boundary: str | None, body: AsyncIterator[bytes], max_bytes: int) -> Form:
    if boundary:
        return await read_multipart(boundary, body, max_bytes=max_bytes)
    with Hold() as hold:
        return await _recovered(await collect(body, hold, max_bytes=max_bytes))


async def _recovered(data: bytes) -> Form:
    return await read_multipart(_boundary_in(data), _once(data), max_bytes=len(data))


async def _from_mislabelled(data: bytes, unknown_fields: UnknownFields) -> CreateRequest:
    """Multipart under a JSON header: Python's SDK then sends the files and leaves every field out."""
    try:
        return _from_form(await _recovered(data), unknown_fields)
    except MissingParameter as exc:
        raise MissingParameter(
            f"{exc} The body is multipart under a Content-Type of application/json; do not force that header "
            "when a file is sent.",
            param=exc.param,
        ) from exc


def _boundary_in(data: bytes) -> str:
    """The boundary that a multipart body begins with."""
    match = re.match(rb"--([!-~]{1,200})\r\n", data)
    if match is None:
        raise InvalidValue(
            "The multipart body cannot be read: neither Content-Type nor its first line names a boundary."
        )
    return match[1].decode()


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


def _from_json(data: bytes, unknown_fields: UnknownFields) -> CreateRequest:
    try:
        body = decode(data, CreateBody)
    except UnknownParameter:
        members = decode_members(data)
        extra = members.pop("extra_body", _NULL)
        if not _is_null(extra):
            members = decode_members(bytes(extra), param="extra_body") | members
        members, warnings = _sort_out(members, unknown_fields)
        return _request(decode(msgspec.json.encode(members), CreateBody), {}, warnings)
    return _request(body, {}, ())


def _from_form(form: Form, unknown_fields: UnknownFields) -> CreateRequest:
    fields, document = dict(form.fields), dict[str, Any]()
    extra = fields.pop("extra_body", None)
    if isinstance(extra, str):
        document |= decode_members(extra.encode(), param="extra_body")
    elif isinstance(extra, dict):
        fields = extra | fields
    elif extra is not None:
        raise InvalidType("'extra_body' must be an object.", param="extra_body")
    media = {name: _media_node(name, fields.pop(name)) for name in MEDIA_FIELDS if name in fields}
    known, warnings = _sort_out(document | fields, unknown_fields)
    stated = {name: node for name, node in fields.items() if name in known}
    document = {name: value for name, value in known.items() if name not in media} | coerce(stated, CreateBody)
    return _request(decode(msgspec.json.encode(document), CreateBody), media, warnings, form.files)


def _media_node(name: str, node: Node) -> Any:
    """A form's media field: one value for a list is a list of one, and JSON text is what it says."""
    meant: Any = node
    if isinstance(node, str) and node.lstrip()[:1] in {"{", "["}:
        meant = decode(node.encode(), Any, param=name)
    single = isinstance(meant, str | UploadedFile) or (isinstance(meant, dict) and "0" not in meant)
    if MEDIA_FIELDS[name].many and single:
        return [meant]
    if not MEDIA_FIELDS[name].many and isinstance(node, list):
        raise InvalidValue(f"{name!r} is given more than once.", param=name)
    return meant


def _sort_out(members: dict[str, Any], unknown_fields: UnknownFields) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The known members, and a warning for each other. Raises Unsupported, or UnknownParameter unless reported."""
    for name, sentence in NOT_SOLD.items():
        if not _is_null(members.get(name, _NULL)):
            raise Unsupported(f"{name!r} cannot be honoured: {sentence}.", param=name)
    odd = [name for name in members if name not in CREATE_FIELDS and name not in NOT_SOLD]
    if odd and unknown_fields == "refuse":
        raise unknown_parameter(odd[0], CREATE_FIELDS)
    if len(odd) > MAX_REPORTED:
        raise InvalidValue(f"The request has more than {MAX_REPORTED} unknown fields.")
    refusals = [unknown_parameter(name, CREATE_FIELDS) for name in odd]
    known = {name: value for name, value in members.items() if name in CREATE_FIELDS}
    return known, tuple(f"{refusal} It was ignored." for refusal in refusals)


_NULL = msgspec.Raw(b"null")


def _is_null(value: Any) -> bool:
    return isinstance(value, msgspec.Raw) and bytes(value) == b"null"


def _request(
    body: CreateBody, form_media: dict[str, Any], warnings: tuple[str, ...], files: tuple[UploadedFile, ...] = ()
) -> CreateRequest:
    media = _stated_media(body, form_media)
    ask = build_ask(body, media)
    stated = _stated(ask, media, warnings)
    if b"\\u0000" in stated:
        refuse_nul(msgspec.to_builtins(ask))
    return CreateRequest(ask=ask, fingerprint=sha256_hex(stated), warnings=warnings, files=files)


def _stated_media(body: CreateBody, form_media: dict[str, Any]) -> tuple[Medium, ...]:
    if (
        not form_media
        and body.input_reference is None
        and body.end_image is None
        and body.reference_images is None
        and body.reference_videos is None
        and body.reference_audios is None
    ):
        return ()
    return media_of({name: getattr(body, name) for name in MEDIA_FIELDS} | form_media)


_NO_WISH = RoutingWish()


def _stated(ask: Ask, media: tuple[Medium, ...], warnings: tuple[str, ...]) -> bytes:
    """
    Canonical text of what was stated.

    What is open is left out, so that a field that a later release adds changes no fingerprint that
    an earlier one stored.
    """
    fields: dict[str, Any] = {name: value for name in _ASKED if (value := getattr(ask, name)) is not None}
    if ask.metadata:
        fields["metadata"] = ask.metadata
    if ask.routing is not _NO_WISH and ask.routing != _NO_WISH:
        wish = ask.routing
        fields["routing"] = {n: v for n in wish.__struct_fields__ if (v := getattr(wish, n)) is not None}
    if media:
        fields["media"] = media
    if warnings:
        fields["ignored"] = warnings
    return msgspec.json.encode(fields, order="deterministic")


_ASKED = tuple(
    name for name in Ask.__struct_fields__ if name not in {"operation", "operation_param", "metadata", "routing"}
)


class ListQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which page of a list is wanted."""

    limit: int = DEFAULT_LIMIT
    """0 to 100; 0 is an empty page."""
    order: Literal["asc", "desc"] = "desc"
    """By creation time."""
    after: str | None = None
    """Id of the last item of the page before."""
    end_user_id: str | None = None
    """Whose videos alone; None: everybody's."""


def parse_list_query(
    limit: str | None, order: str | None, after: str | None, end_user_id: str | None = None
) -> ListQuery:
    """Raises InvalidValue with the parameter at fault; whether `after` exists is not asked here."""
    if limit is not None and not (re.fullmatch("[0-9]{1,3}", limit) and int(limit) <= 100):
        raise InvalidValue("'limit' must be a whole number from 0 to 100.", param="limit")
    if order not in {None, "asc", "desc"}:
        raise InvalidValue("'order' must be 'asc' or 'desc'.", param="order")
    if after is not None and not 0 < len(after) <= 128:
        raise InvalidValue("'after' must be the id of a video.", param="after")
    if end_user_id is not None and not 0 < len(end_user_id) <= MAX_END_USER_CHARS:
        raise InvalidValue(f"'end_user_id' has 1 to {MAX_END_USER_CHARS} characters.", param="end_user_id")
    return ListQuery(
        limit=DEFAULT_LIMIT if limit is None else int(limit),
        order="asc" if order == "asc" else "desc",
        after=after,
        end_user_id=end_user_id,
    )
