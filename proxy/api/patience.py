"""
How long a client may take to send a request, and how much of it beside its body.

The server bounds neither: whoever sends a byte a second, or a head without an end, would hold a connection
and memory for ever. Bodies are counted where they are read. Nothing here limits how long an answer takes.
"""

from collections.abc import Iterable

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from proxy.api.manners import with_manners
from proxy.api.schemas import error_body
from proxy.core.errors import InvalidValue

HEAD_MAX_BYTES = 64 * 1024


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How long is waited, in seconds; looked at about once a second."""

    head_s: float = 15.0
    """From the connection, or from the first byte of a later request, to the end of its head."""
    body_s: float = 120.0
    """From the first byte of the head to the last of the body."""
    linger_s: float = 5.0
    """For the rest of a body that was answered before its end, so that its client sees the answer."""


class BoundedProtocol(HttpToolsProtocol):
    """A connection that is closed on a client beyond these bounds."""

    patience = Patience()

    def connection_made(self, transport: object) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]  # asyncio and uvicorn each have a type for the same
        self._in_head = True
        self._beside_body_bytes = 0
        """Heads, trailers and frames of chunks since the last byte of a body, or the last whole request."""
        self._since = self.loop.time()

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
        answered = self.cycle is None or self.cycle.response_complete
        if not self._in_head:
            most_s = self.patience.linger_s if answered else self.patience.body_s
        elif answered and self.timeout_keep_alive_task is None:
            most_s = self.patience.head_s
        else:
            return
        if self.loop.time() - self._since > most_s:
            self.transport.close()


def hurry_all(connections: Iterable[object]) -> None:
    """Looks at every connection of a server."""
    for connection in tuple(connections):
        if isinstance(connection, BoundedProtocol):
            connection.hurry()
