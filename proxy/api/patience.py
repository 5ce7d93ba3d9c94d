"""
How many clients there may be, how long each may take to send a request and take its answer, and how much beside a body.

The server bounds none of it: whoever sends or takes a byte a second, or sends a head without an end, would hold a
connection and memory for ever. Bodies are counted where they are read. Nothing here limits how long an answer takes
to be made.
"""

import resource
from collections.abc import Iterable
from typing import Any, Final

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from proxy.api.manners import with_manners
from proxy.api.schemas import error_body
from proxy.core.errors import InvalidValue, Overloaded

HEAD_MAX_BYTES = 64 * 1024

FILES_MAX: Final = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
"""Files and connections that the system lets this process have open."""
CONNECTIONS_MAX: Final = min(10_000, FILES_MAX // 2)
"""Clients at once; the other half is for sellers, the database and films."""
TURNED_AWAY_S: Final = 5
"""After which those beyond are to come again."""
_PROBES: Final = ("/healthz", "/readyz")


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How long is waited, in seconds; looked at about once a second."""

    head_s: float = 15.0
    """From the connection, or from the first byte of a later request, to the end of its head."""
    body_s: float = 120.0
    """From the first byte of the head to the last of the body."""
    linger_s: float = 5.0
    """For the rest of a body that was answered before its end, so that its client sees the answer."""
    unread_s: float = 60.0
    """For a client to take up the next part of its answer, about 48 KiB; also after the connection was ended."""


class BoundedProtocol(HttpToolsProtocol):
    """A connection that is closed on a client beyond these bounds."""

    patience = Patience()
    most = CONNECTIONS_MAX
    """A tenth beyond is told to come again; whoever comes after those is told nothing."""

    def connection_made(self, transport: object) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]  # asyncio and uvicorn each have a type for the same
        self._in_head = True
        self._beside_body_bytes = 0
        """Heads, trailers and frames of chunks since the last byte of a body, or the last whole request."""
        self._since = self.loop.time()
        self._unread_since: float | None = None
        if len(self.connections) > self.most + self.most // 10:
            self.transport.abort()
        elif len(self.connections) > self.most:
            self.app = _Full(self.app)

    def pause_writing(self) -> None:
        self._unread_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._unread_since = None
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        self._beside_body_bytes += len(data)
        super().data_received(data)
        if self._beside_body_bytes > HEAD_MAX_BYTES and not self.transport.is_closing():
            self.send_400_response(f"A request's head has no more than {HEAD_MAX_BYTES} bytes.")

    def on_message_begin(self) -> None:
        self._since = self.loop.time()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._beside_body_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_head = True
        self._beside_body_bytes = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._since = self.loop.time()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """In our envelope; nothing where an answer was begun already."""
        if self._in_head or not self.cycle.response_started:
            body = error_body(msg, "invalid_request_error", None, InvalidValue.code)
            said = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
            lines = [b"%s: %s\r\n" % header for header in with_manners([*said, (b"connection", b"close")])]
            self.transport.write(b"".join((b"HTTP/1.1 400 Bad Request\r\n", *lines, b"\r\n", body)))
        self.transport.close()

    def hurry(self) -> None:
        """Closes the connection where its client took too long; one that idles has the server's own timer."""
        if self.transport.is_closing():
            self._unread_since = self._unread_since or self.loop.time()
        if self._unread_since is not None:
            if self.loop.time() - self._unread_since > self.patience.unread_s:
                self.transport.abort()
            return
        answered = self.cycle is None or self.cycle.response_complete
        if not self._in_head:
            most_s = self.patience.linger_s if answered else self.patience.body_s
        elif answered and self.timeout_keep_alive_task is None:
            most_s = self.patience.head_s
        else:
            return
        if self.loop.time() - self._since > most_s:
            self.transport.close()


class _Full:
    """The application with no room for more clients: only who asks how it is gets its answer."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] in _PROBES:
            await self._inner(scope, receive, send)
            return
        body = error_body("Too many clients are connected.", "service_unavailable_error", None, Overloaded.code)
        said = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        said += [(b"retry-after", b"%d" % TURNED_AWAY_S), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 503, "headers": with_manners(said)})
        await send({"type": "http.response.body", "body": body})


def hurry_all(connections: Iterable[object]) -> None:
    """Looks at every connection of a server."""
    for connection in tuple(connections):
        if isinstance(connection, BoundedProtocol):
            connection.hurry()
