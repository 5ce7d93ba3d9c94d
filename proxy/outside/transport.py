"""
The door to the sellers: a Call becomes one HTTP exchange and a Reply.

What matters most here is the difference between *nothing left* and *something may have left*: after
the first another seller may be asked, after the second the video may be bought already. Only a
connection that was never made counts as the first; whatever is not known counts as the second.
"""

import asyncio
import contextlib
import re
import ssl
import zlib
from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import Literal
from urllib.parse import urlencode

import aiohttp
import httpx
from aiohttp.abc import AbstractResolver
from yarl import URL

from proxy.core.account import Account
from proxy.core.errors import Interrupted, NotSent
from proxy.core.wire import Call, Reply

MAX_BODY_BYTES = 4 * 1024 * 1024
CONNECT_TIMEOUT_S = 5.0
POOL_TIMEOUT_S = 5.0
KEEP_ALIVE_S = 30.0
DEFAULT_CONNECTIONS = 400
"""Of an account without a limit: as many as a worker has calls under way, so that none waits for another."""

_PATH = re.compile(r"/[!\"$-~]*").fullmatch
"""Whole and percent-encoded, without a fragment."""

_Habit = Literal["pooled", "fresh"]


class Transport:
    """
    Sends calls to sellers, with pools of connections for each account; one per process.

    An account has two pools, each as large as its limit: one whose idle connections are used again,
    and one that opens a connection for every call. `pool_timeout_s` covers the wait for a free one, DNS
    and connecting. `ssl_context` and `resolver` replace the usual trust and DNS.
    """

    def __init__(
        self,
        *,
        pool_timeout_s: float = POOL_TIMEOUT_S,
        ssl_context: ssl.SSLContext | None = None,
        resolver: AbstractResolver | None = None,
    ) -> None:
        self._pool_timeout_s = pool_timeout_s
        self._ssl_context = ssl_context
        self._resolver = resolver
        self._lines: dict[tuple[str, str, int | None, _Habit], SellerTransport] = {}
        self._user_agent = f"reelay/{version('reelay')}"

    async def send(
        self, account: Account, authorization: tuple[str, str], call: Call, *, timeout_s: float, fresh: bool = False
    ) -> Reply:
        """
        The seller's whole answer, whatever its status; a redirect is an answer and is not followed.

        `timeout_s` covers everything from waiting for a connection to the last byte. `fresh` opens a new
        connection, and sends nothing twice; without it a GET whose idle connection the seller just
        closed is repeated once, and NotSent speaks of the second. Raises NotSent or Interrupted.
        """
        line = self._line(account, "fresh" if fresh else "pooled")
        try:
            request = self._request(line.base_url, account, authorization, call)
        except (UnicodeError, ValueError, TypeError) as exc:
            raise NotSent(f"the request to {account.name} cannot be written: {_reason(exc)}") from exc
        try:
            async with asyncio.timeout(timeout_s):
                return await _exchange(line, request, account.name)
        except (NotSent, Interrupted):
            raise
        except TimeoutError as exc:
            raise Interrupted(f"no answer from {account.name} within {timeout_s:g} s") from exc
        except Exception as exc:
            # Whatever else goes wrong in there, nobody can say that nothing left.
            raise Interrupted(f"the exchange with {account.name} broke: {_reason(exc)}") from exc

    async def close(self) -> None:
        """Ends all connections, also those in use."""
        lines = tuple(self._lines.values())
        self._lines.clear()
        for line in lines:
            await line.aclose()

    def _request(
        self, base_url: httpx.URL, account: Account, authorization: tuple[str, str], call: Call
    ) -> httpx.Request:
        if not _PATH(call.path):
            # `https://host` and `@elsewhere/` would make another host, and the key would go there.
            raise NotSent(f"a path for {account.name} does not begin with a slash, or is not percent-encoded")
        headers = {"accept": "application/json", "accept-encoding": "gzip", "user-agent": self._user_agent}
        if call.body is not None:
            headers["content-type"] = "application/json"
        for name, value in (*call.headers, authorization):
            headers[name.lower()] = value
        # With a stream httpx adds no headers of its own, which aiohttp adds all the same; that halves what this takes.
        stream = httpx.ByteStream(call.body or b"")
        below = f"{call.path}?{urlencode(call.query)}" if call.query else call.path
        request = httpx.Request(call.method, base_url, headers=headers, stream=stream, extensions={"below": below})
        request.headers.encoding = "utf-8"  # httpx would try each header by itself, and once more for the answer's
        return request

    def _line(self, account: Account, habit: _Habit) -> "SellerTransport":
        # A reload may change host or limit; the old line then ends its calls and idles out.
        key = (account.name, account.base_url, account.max_in_flight, habit)
        line = self._lines.get(key)
        if line is None:
            if self._ssl_context is None:
                self._ssl_context = httpx.create_ssl_context(trust_env=False)
            line = SellerTransport(
                account.base_url,
                self._ssl_context,
                connections=account.max_in_flight or DEFAULT_CONNECTIONS,
                fresh=habit == "fresh",
                pool_timeout_s=self._pool_timeout_s,
                resolver=self._resolver,
            )
            self._lines[key] = line
        return line


class SellerTransport(httpx.AsyncBaseTransport):
    """
    httpx's transport over aiohttp, whose errors tell whether something may have left.

    ConnectError and ConnectTimeout mean that nothing has; everything else means that bytes may have. Path
    and query of a request stand below its URL in the extension `below`, percent-encoded: httpx takes as long
    to read an address as aiohttp to send the request.
    """

    def __init__(
        self,
        base_url: str,
        context: ssl.SSLContext,
        *,
        connections: int,
        fresh: bool,
        pool_timeout_s: float,
        resolver: AbstractResolver | None,
    ) -> None:
        self.base_url = httpx.URL(base_url)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=connections,
                ssl=context,
                resolver=resolver,
                force_close=fresh,
                keepalive_timeout=None if fresh else KEEP_ALIVE_S,
            ),
            timeout=aiohttp.ClientTimeout(connect=pool_timeout_s, sock_connect=CONNECT_TIMEOUT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            middlewares=(_send_once if fresh else _repeat_only_get,),
            auto_decompress=False,
            trust_env=False,
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Raises httpx's errors."""
        try:
            answer = await self._session.request(
                request.method,
                URL(str(request.url) + request.extensions["below"], encoded=True),
                headers=request.headers,
                data=request.read() or None,
                allow_redirects=False,
            )
        except aiohttp.ClientResponseError as exc:
            # Its repr holds the request's headers and so the key; it is not kept as a cause.
            raise httpx.RemoteProtocolError(f"not HTTP: {exc.message}") from None
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            raise _translated(exc) from exc
        response = httpx.Response(answer.status, headers=answer.raw_headers, stream=_Body(answer), request=request)
        response.headers.encoding = "iso-8859-1"
        return response

    async def aclose(self) -> None:
        await self._session.close()


class _Body(httpx.AsyncByteStream):
    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._answer.content.iter_any():
                yield piece
        except aiohttp.ClientError as exc:
            raise _translated(exc) from exc

    async def aclose(self) -> None:
        """Gives the connection back, or closes it where not all was read."""
        self._answer.release()


_KINDS: tuple[tuple[type[Exception], type[httpx.TransportError]], ...] = (
    (aiohttp.ConnectionTimeoutError, httpx.ConnectTimeout),
    (aiohttp.ClientConnectorError, httpx.ConnectError),
    (aiohttp.ServerDisconnectedError, httpx.RemoteProtocolError),
)
"""The first that fits counts; the order is from the special to the general."""


def _translated(cause: Exception) -> httpx.TransportError:
    """What httpx calls it; what is not in the table is a ReadError: bytes may have left."""
    for theirs, ours in _KINDS:
        if isinstance(cause, theirs):
            return ours(type(cause).__name__)
    return httpx.ReadError(type(cause).__name__)


class ConnectionDroppedError(aiohttp.ClientConnectionError):
    """A dropped connection in a shape that aiohttp does not take as a reason to send again."""


async def _send_once(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """
    Keeps aiohttp from sending again what met a dropped connection.

    It does so for GET, HEAD, OPTIONS, TRACE, PUT and DELETE, also on a connection just opened.
    """
    try:
        return await send(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as exc:
        raise ConnectionDroppedError(type(exc).__name__) from exc


async def _repeat_only_get(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Lets aiohttp send a GET again, which only asks, and nothing else."""
    if request.method == "GET":
        return await send(request)
    return await _send_once(request, send)


async def _exchange(line: SellerTransport, request: httpx.Request, name: str) -> Reply:
    # The transport is called directly: a client around it costs half as much again and adds only
    # cookies, redirects and environment, none of which are wanted.
    try:
        response = await line.handle_async_request(request)
    except (httpx.ConnectError, httpx.ConnectTimeout) as exc:
        raise NotSent(f"no connection to {name}: {_reason(exc)}") from exc
    try:
        body = await _body(response)
    finally:
        # An answer in hand is not lost because its connection then fails to close.
        with contextlib.suppress(Exception):
            await response.aclose()
    return Reply(status=response.status_code, headers=dict(response.headers.items()), body=body)


async def _body(response: httpx.Response) -> bytes:
    """All of it, unpacked; every failure is Interrupted, for the seller has begun to answer."""
    pieces: list[bytes] = []
    size_bytes = 0
    stream = response.stream
    assert isinstance(stream, httpx.AsyncByteStream), "the transport is asynchronous"
    unpacker = _unpacker(response)
    try:
        async for sent in stream:
            # No more than is too much: a few packed bytes may stand for gigabytes.
            piece = sent if unpacker is None else unpacker.decompress(sent, MAX_BODY_BYTES + 1 - size_bytes)
            size_bytes += len(piece)
            if size_bytes > MAX_BODY_BYTES:
                raise Interrupted(f"an answer with status {response.status_code} is longer than {MAX_BODY_BYTES} bytes")
            pieces.append(piece)
    except (httpx.HTTPError, zlib.error) as exc:
        raise Interrupted(f"an answer with status {response.status_code} broke off: {_reason(exc)}") from exc
    if unpacker is not None and pieces and not unpacker.eof:
        raise Interrupted(f"an answer with status {response.status_code} broke off, packed as it was")
    return b"".join(pieces)


def _unpacker(response: httpx.Response) -> "zlib._Decompress | None":
    """None for a body as it is. Raises Interrupted for a packing that was not asked for."""
    packing = response.headers.get("content-encoding", "identity").strip().lower()
    if packing == "identity":
        return None
    if packing != "gzip":
        raise Interrupted(f"an answer with status {response.status_code} is packed as nobody asked for")
    return zlib.decompressobj(zlib.MAX_WBITS | 16)  # with gzip's head


def _reason(exc: BaseException) -> str:
    """The kind of error without its text, which may hold addresses or what was sent."""
    cause = exc.__cause__ or exc
    return type(cause).__name__
