"""One HTTP exchange at a seller's door as data, and how it goes over the socket, broken ones included."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote

import msgspec
from litestar.types import Receive, Scope, Send

JSON = "application/json"
HTML = "text/html; charset=utf-8"

_LINGER_NOT = struct.pack("ii", 1, 0)
"""SO_LINGER with zero seconds: closing sends a reset instead of a polite end."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A request as it came in."""

    method: str
    path: str
    """Below the seller's prefix, percent-decoded, beginning with a slash."""
    query: dict[str, str]
    """The last value of each name."""
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes
    origin: str
    """Scheme and host as the client wrote them, for the links in the answer."""

    def fields(self) -> dict[str, Any] | None:
        """The body as a JSON object; None where it is anything else."""
        try:
            found = msgspec.json.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        return found if isinstance(found, dict) else None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What goes back, or the refusal to answer at all."""

    status: int = 200
    """0: none, for the connection is reset or the client has left."""
    body: bytes = b""
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()
    wait_s: float = 0.0
    """Real seconds before the first byte."""
    reset: bool = False
    """The connection is reset and nothing is sent."""
    later: Awaitable["Answer"] | None = None
    """The true answer, where the seller keeps its client waiting until there is something to say."""


class Refused(Exception):
    """A seller's no; carries the whole answer out of the depth where it was found."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


def json_answer(status: int, content: object, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(status=status, body=msgspec.json.encode(content), headers=tuple((headers or {}).items()))


def html_answer(status: int, reason: str) -> Answer:
    """The page of an ingress that speaks for a server it could not reach."""
    page = (
        f"<html>\r\n<head><title>{status} {reason}</title></head>\r\n<body>\r\n"
        f"<center><h1>{status} {reason}</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
    )
    return Answer(status=status, body=page.encode(), content_type=HTML)


async def receive_asked(scope: Scope, receive: Receive, *, prefix: str) -> Asked:
    """Reads the request to its last byte."""
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    raw_path: bytes = scope["raw_path"]
    return Asked(
        method=scope["method"],  # type: ignore[typeddict-item]  # mounted handlers see HTTP scopes only
        path=unquote(raw_path.decode("latin-1"))[len(prefix) :] or "/",
        query=dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)),
        headers=headers,
        body=await _body(receive),
        origin=f"{scope['scheme']}://{headers.get('host', 'localhost')}",
    )


async def _body(receive: Receive) -> bytes:
    message = await receive()
    body: bytes = message.get("body", b"")  # type: ignore[assignment]  # an http.request carries bytes
    if not message.get("more_body"):
        return body
    parts = [body]
    while message.get("more_body"):
        message = await receive()
        parts.append(message.get("body", b""))  # type: ignore[arg-type]  # the same
    return b"".join(parts)


async def send_answer(answer: Answer, receive: Receive, send: Send) -> None:
    if answer.wait_s and await gone_within(receive, answer.wait_s):
        return
    if answer.reset:
        await hang_up(receive, reset=True)
    elif answer.status:
        await send_start(send, answer.status, answer.content_type, len(answer.body), answer.headers)
        await send({"type": "http.response.body", "body": answer.body, "more_body": False})


async def send_start(
    send: Send, status: int, content_type: str, size_bytes: int, headers: tuple[tuple[str, str], ...]
) -> None:
    lines = [(b"content-type", content_type.encode()), (b"content-length", str(size_bytes).encode())]
    lines += [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    await send({"type": "http.response.start", "status": status, "headers": lines})


async def gone_within(receive: Receive, wait_s: float) -> bool:
    """Waits; True as soon as the client has left."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(wait_s):
            await until_gone(receive)
        return True
    return False


async def unless_gone(receive: Receive, later: Awaitable[Answer]) -> Answer:
    """
    The answer that a client waits for, or none as soon as it has left.

    Raises Refused as `later` does.
    """
    waiting, leaving = asyncio.ensure_future(later), asyncio.ensure_future(until_gone(receive))
    try:
        await asyncio.wait((waiting, leaving), return_when=asyncio.FIRST_COMPLETED)
        return waiting.result() if waiting.done() else Answer(status=0)
    finally:
        waiting.cancel()
        leaving.cancel()


async def until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def hang_up(receive: Receive, *, reset: bool) -> None:
    """
    Drops the TCP connection: with a reset, or after what was written has left.

    ASGI has no word for this. Uvicorn's `receive` is a method of the object that holds the
    transport, with both of its HTTP parsers and both event loops; it answers `http.disconnect` once
    the connection is lost, and returning only then keeps Uvicorn from sending a 500.
    """
    transport: asyncio.Transport = receive.__self__.transport  # type: ignore[attr-defined]  # Uvicorn's bound method
    if reset:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        transport.abort()
    else:
        transport.close()
    await until_gone(receive)
