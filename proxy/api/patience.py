"""
How many clients there may be, how long each may take to send a request and take its answer, and how much beside a body.

The server bounds none of it: whoever sends or takes a byte a second, or sends a head without an end, would hold a
connection and memory for ever. Bodies are counted where they are read. Nothing here limits how long an answer takes
to be made.
"""

import array
import contextlib
import fcntl
import resource
import termios
from collections.abc import Iterable
from typing import Any, Final

import httptools
import msgspec
import structlog
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from proxy.api.manners import Headers, with_manners
from proxy.api.schemas import error_body
from proxy.core.errors import InvalidValue, Overloaded

_log = structlog.get_logger("reelay.http")

HEAD_MAX_BYTES = 64 * 1024
_HEAD_TOO_LARGE = f"A request's head has no more than {HEAD_MAX_BYTES} bytes."
UNREAD_STEP_BYTES = 32 * 1024
"""Of an answer, by which a client shows that it reads it."""


def files_most(hard: int) -> int:
    """Files and connections that may be open, by the system's hard limit, which may be none, or a thousand million."""
    return FILES_ENOUGH if hard == resource.RLIM_INFINITY else min(hard, FILES_ENOUGH)


FILES_ENOUGH: Final = 65_536
FILES_MAX: Final = files_most(resource.getrlimit(resource.RLIMIT_NOFILE)[1])
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
    """For a client to take up the next UNREAD_STEP_BYTES of its answer; also after the connection was ended."""
    idle_s: float = 5.0
    """For the next request, while more than nine tenths of the clients that there may be are connected."""


class BoundedProtocol(HttpToolsProtocol):
    """A connection that is closed on a client beyond these bounds, and on one that leaves open what it says."""

    patience = Patience()
    most = CONNECTIONS_MAX
    """A tenth beyond is told to come again; whoever comes after those is told nothing."""

    def connection_made(self, transport: object) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]  # asyncio and uvicorn each have a type for the same
        self._in_head = True
        self._deaf = False
        """Whether what is still sent is heard no more: it was refused, or is in another protocol."""
        self._beside_body_bytes = 0
        """Heads, trailers and frames of chunks since the last byte of a body, or the last whole request."""
        self._since = self.loop.time()
        self._answering: RequestResponseCycle | None = None
        """The request whose turn it is; those that came after it wait for theirs."""
        self._unread: tuple[float, int] | None = None
        """When the client was last seen to take up some of its answer, and how many bytes were left then."""
        if len(self.connections) > self.most + self.most // 10:
            self.transport.abort()
        elif len(self.connections) > self.most:
            self.app = _Full(self.app)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answering is not None and not self._answering.response_complete:
            self._answering.disconnected = True
            self._answering.message_event.set()
        super().connection_lost(exc)

    def resume_writing(self) -> None:
        self._unread = None
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        self._unset_keepalive_if_required()
        self._beside_body_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._deaf = True  # It was served as if it had not asked; what follows may be in whatever protocol.
        except httptools.HttpParserError as exc:
            reason = exc.__context__
            self._refuse(str(reason) if isinstance(reason, InvalidValue) else "The request is no valid HTTP.")
        else:
            if self._beside_body_bytes > HEAD_MAX_BYTES and not self.transport.is_closing():
                self._refuse(_HEAD_TOO_LARGE)

    def on_message_begin(self) -> None:
        self._since = self.loop.time()
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # A trailer is no header: whoever looked at the head alone would not know of it.
            super().on_header(name, value.strip(b" \t"))

    def on_headers_complete(self) -> None:
        if self._beside_body_bytes > HEAD_MAX_BYTES and _head_bytes(self.url, self.headers) > HEAD_MAX_BYTES:
            raise InvalidValue(_HEAD_TOO_LARGE)
        refuse_ambiguous(self.parser.get_http_version(), self.headers)
        upgrades = self.parser.should_upgrade()
        if upgrades and _has_body(self.headers):
            raise InvalidValue("A request that asks for another protocol has no body.")
        super().on_headers_complete()
        self._in_head = False
        if upgrades:
            self.cycle.keep_alive = False

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

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def _refuse(self, message: str) -> None:
        """In our envelope, where nothing else is under way; whoever was asked before is answered, as the last one."""
        self._deaf = True
        refused = None if self._in_head else self.cycle
        under_way = self._answering
        if under_way is not None and under_way is not refused and not under_way.response_complete:
            if refused is not None:
                self.pipeline.popleft()
            self.cycle, self._in_head = self.pipeline[0][0] if self.pipeline else under_way, True
            self.cycle.keep_alive = False
            return
        if refused is None or not refused.response_started:
            body = error_body(message, "invalid_request_error", None, InvalidValue.code)
            said = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
            lines = [b"%s: %s\r\n" % header for header in with_manners([*said, (b"connection", b"close")])]
            self.transport.write(b"".join((b"HTTP/1.1 400 Bad Request\r\n", *lines, b"\r\n", body)))
        if refused is not None:
            refused.disconnected = True
            refused.message_event.set()
        self.transport.close()

    def hurry(self) -> None:
        """Closes the connection where its client took too long."""
        if self.flow.write_paused or self.transport.is_closing():
            if self._takes_nothing():
                self._cut_off("unread")
                self.transport.abort()
            return
        self._unread = None
        answered = self.cycle is None or self.cycle.response_complete
        if not self._in_head:
            reason, most_s = ("linger", self.patience.linger_s) if answered else ("body", self.patience.body_s)
        elif answered and self.timeout_keep_alive_task is None:
            reason, most_s = "head", self.patience.head_s
        elif answered and len(self.connections) * 10 > self.most * 9:
            reason, most_s = "idle", self.patience.idle_s
        else:
            return  # It waits for us, or idles, for which the server has a timer of its own.
        if self.loop.time() - self._since > most_s:
            self._cut_off(reason)
            self.transport.close()

    def _takes_nothing(self) -> bool:
        """
        Whether the client took up too little for too long.

        What counts is what it acknowledged: the transport goes on to write only when a third of the system's
        buffer is free, which is megabytes, and minutes to a client that is merely slow.
        """
        now, left_bytes = self.loop.time(), self.transport.get_write_buffer_size() + self._sent_unread_bytes()
        if self._unread is None or left_bytes <= max(0, self._unread[1] - UNREAD_STEP_BYTES):
            self._unread = now, left_bytes
        return now - self._unread[0] > self.patience.unread_s

    def _sent_unread_bytes(self) -> int:
        """Given to the system, and not acknowledged by the client's."""
        count = array.array("i", [0])
        with contextlib.suppress(OSError):  # The socket is closed already.
            fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, count)
        return count[0]

    def _cut_off(self, reason: str) -> None:
        _log.info("client.cut_off", reason=reason)


def refuse_ambiguous(version: str, headers: Headers) -> None:
    """
    Raises InvalidValue for a head that two readers may read in two ways.

    One in front of this one may end a message elsewhere, or look at the other key; `headers` are in lower case.
    """
    if version not in {"1.0", "1.1"}:
        raise InvalidValue("The request is in no version of HTTP that is spoken here; send HTTP/1.1.")
    given = [name for name, _ in headers]
    for name in _ONCE:
        if given.count(name) > 1:
            raise InvalidValue(f"The header {name.decode().title()!r} is given more than once.")
    if version == "1.1" and b"host" not in given:
        raise InvalidValue("The header 'Host' is missing.")
    if b"transfer-encoding" not in given:
        return
    encodings = [value.lower() for name, value in headers if name == b"transfer-encoding"]
    if encodings != [b"chunked"] or version == "1.0" or b"content-length" in given:
        raise InvalidValue(
            "The only Transfer-Encoding that is understood is chunked, in HTTP/1.1, without a Content-Length."
        )


_ONCE = (b"host", b"content-length", b"authorization", b"api-key", b"idempotency-key", b"content-type")


def _head_bytes(url: bytes, headers: Headers) -> int:
    return len(url) + sum(len(name) + len(b": ") + len(value) + len(b"\r\n") for name, value in headers)


def _has_body(headers: Headers) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0")) for name, value in headers
    )


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
