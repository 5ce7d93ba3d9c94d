"""
The door to the sellers: a Call becomes one HTTP exchange and a Reply.

What matters most here is the difference between *nothing left* and *something may have left*: after
the first another seller may be asked, after the second the video may be bought already. Only a
connection that was never made counts as the first; whatever is not known counts as the second.
"""

import asyncio
import ssl
from importlib.metadata import version
from typing import Literal

import aiohttp
import certifi
from aiohttp.abc import AbstractResolver
from yarl import URL

from proxy.core.account import Account
from proxy.core.errors import Interrupted, NotSent
from proxy.core.wire import Call, Reply

MAX_BODY_BYTES = 4 * 1024 * 1024
CONNECT_TIMEOUT_S = 5.0
POOL_TIMEOUT_S = 5.0
KEEP_ALIVE_S = 30.0
DEFAULT_CONNECTIONS = 100

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
        self._timeout = aiohttp.ClientTimeout(connect=pool_timeout_s, sock_connect=CONNECT_TIMEOUT_S)
        self._ssl_context = ssl_context
        self._resolver = resolver
        self._lines: dict[tuple[str, str, int | None, _Habit], aiohttp.ClientSession] = {}
        self._headers = {
            "accept": "application/json",
            "accept-encoding": "gzip, deflate",
            "user-agent": f"reelay/{version('reelay')}",
        }

    async def send(
        self, account: Account, authorization: tuple[str, str], call: Call, *, timeout_s: float, fresh: bool = False
    ) -> Reply:
        """
        The seller's whole answer, whatever its status; a redirect is an answer and is not followed.

        `timeout_s` covers everything from waiting for a connection to the last byte. `fresh` opens a new
        connection, and sends nothing twice; without it a GET whose idle connection the seller just
        closed is repeated once. Raises NotSent or Interrupted.
        """
        if not call.path.startswith("/"):
            # `https://host` and `@elsewhere/` would make another host, and the key would go there.
            raise NotSent(f"a path for {account.name} does not begin with a slash")
        line = self._line(account, "fresh" if fresh else "pooled")
        try:
            async with asyncio.timeout(timeout_s):
                return await _exchange(line, account, authorization, call)
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
            await line.close()

    def _line(self, account: Account, habit: _Habit) -> aiohttp.ClientSession:
        # A reload may change host or limit; the old line then ends its calls and idles out.
        key = (account.name, account.base_url, account.max_in_flight, habit)
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = self._open(account, fresh=habit == "fresh")
        return line

    def _open(self, account: Account, *, fresh: bool) -> aiohttp.ClientSession:
        if self._ssl_context is None:
            self._ssl_context = ssl.create_default_context(cafile=certifi.where())
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=account.max_in_flight or DEFAULT_CONNECTIONS,
                ssl=self._ssl_context,
                resolver=self._resolver,
                force_close=fresh,
                keepalive_timeout=None if fresh else KEEP_ALIVE_S,
            ),
            timeout=self._timeout,
            headers=self._headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            middlewares=(_send_once if fresh else _repeat_only_get,),
            trust_env=False,
        )


class _DroppedError(aiohttp.ClientConnectionError):
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
        raise _DroppedError(type(exc).__name__) from exc


async def _repeat_only_get(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Lets aiohttp send a GET again, which only asks, and nothing else."""
    if request.method == "GET":
        return await send(request)
    return await _send_once(request, send)


async def _exchange(line: aiohttp.ClientSession, account: Account, authorization: tuple[str, str], call: Call) -> Reply:
    headers = {} if call.body is None else {"content-type": "application/json"}
    for name, value in (*call.headers, authorization):
        headers[name.lower()] = value
    url = URL(account.base_url + call.path)
    if call.query:
        url = url.update_query(call.query)
    try:
        response = await line.request(call.method, url, headers=headers, data=call.body, allow_redirects=False)
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as exc:
        raise NotSent(f"no connection to {account.name}: {_reason(exc)}") from exc
    except aiohttp.ClientResponseError as exc:
        # Its repr holds the request's headers and so the key; it is not kept as a cause.
        raise Interrupted(f"what {account.name} answered is not HTTP: {exc.message}") from None
    try:
        body = await _body(response)
    finally:
        # An answer in hand is not lost because its connection then fails to close.
        response.release()
    return Reply(status=response.status, headers=_by_name(response), body=body)


def _by_name(response: aiohttp.ClientResponse) -> dict[str, str]:
    """A header that comes more than once is a list, as HTTP has it."""
    named: dict[str, str] = {}
    for written, value in response.headers.items():
        name = written.lower()
        named[name] = f"{named[name]}, {value}" if name in named else value
    return named


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """All of it, unpacked; every failure is Interrupted, for the seller has begun to answer."""
    pieces: list[bytes] = []
    size_bytes = 0
    try:
        async for piece in response.content.iter_any():
            size_bytes += len(piece)
            if size_bytes > MAX_BODY_BYTES:
                raise Interrupted(f"an answer with status {response.status} is longer than {MAX_BODY_BYTES} bytes")
            pieces.append(piece)
    except aiohttp.ClientError as exc:
        raise Interrupted(f"an answer with status {response.status} broke off: {_reason(exc)}") from exc
    return b"".join(pieces)


def _reason(exc: BaseException) -> str:
    """The kind of error without its text, which may hold addresses or what was sent."""
    cause = exc.__cause__ or exc
    return type(cause).__name__
