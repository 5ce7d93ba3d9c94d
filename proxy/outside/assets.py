"""
Fetches a seller's finished file from wherever its link points; no key ever goes along.

The link is the seller's word, so it is followed through the guard, hop by hop. Errors name the host
and no more: links are signed, and whoever holds one has the film.
"""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from importlib.metadata import version

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver
from yarl import URL

from proxy.core.errors import SellerError
from proxy.outside.film import NotAFilm, begins_like_a_film
from proxy.outside.guard import AddressRefused, Network, guarded_socket_factory

__all__ = ["Download", "Fetcher", "FileCutShort", "FileTooLarge", "FileUnavailable", "NotAFilm"]

MAX_BYTES = 2 * 1024**3
PIECE_BYTES = 1024 * 1024
MAX_REDIRECTS = 3
CONNECT_TIMEOUT_S = 5.0
SILENCE_TIMEOUT_S = 60.0
TOTAL_TIMEOUT_S = 1800.0

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# 404 is among them because a file just finished may not have reached the edge that is asked.
_PASSING = frozenset({404, 408, 425, 429})


class FileUnavailable(SellerError):
    """
    The link gives no file.

    `status` is None where there was no HTTP answer. `retryable`: the same link may work later; if not,
    a fresh one has to be asked for.
    """

    def __init__(self, message: str, *, status: int | None = None, retryable: bool) -> None:
        super().__init__(message)
        self.status = status
        self.retryable = retryable


class FileCutShort(FileUnavailable):
    """The file broke off before its announced end, fell silent or took too long; asked again it may be whole."""

    def __init__(self, message: str) -> None:
        super().__init__(message, status=200, retryable=True)


class FileTooLarge(SellerError):
    """Larger than any film that was ordered here."""


class Download(msgspec.Struct, frozen=True, kw_only=True):
    """A film on its way; the first piece is here and begins like one."""

    content_length: int | None
    """Bytes, where the host says so."""
    content_type: str | None
    chunks: AsyncIterator[bytes]
    """Pieces of about 1 MiB, once. Raises FileCutShort or FileTooLarge."""


class Fetcher:
    """
    Opens links to files; one per process.

    Times are in seconds: `silence_s` between any two bytes, `total_s` for one hop with its whole body.
    """

    def __init__(
        self,
        allowed_networks: Sequence[Network] = (),
        *,
        max_bytes: int = MAX_BYTES,
        silence_s: float = SILENCE_TIMEOUT_S,
        total_s: float = TOTAL_TIMEOUT_S,
        resolver: AbstractResolver | None = None,
    ) -> None:
        self._allowed_networks = tuple(allowed_networks)
        self._max_bytes = max_bytes
        self._timeout = aiohttp.ClientTimeout(total=total_s, sock_connect=CONNECT_TIMEOUT_S, sock_read=silence_s)
        self._resolver = resolver
        self._guarded: aiohttp.ClientSession | None = None
        self._trusted: aiohttp.ClientSession | None = None

    @contextlib.asynccontextmanager
    async def open(self, url: str, trusted_hosts: Collection[str] = ()) -> AsyncGenerator[Download]:
        """
        The film behind the link. Raises FileUnavailable, NotAFilm or FileTooLarge.

        Hosts in `trusted_hosts` (in lower case, without port) may lie at any address, all others only where
        the guard lets through; that holds for each hop of a redirect.
        """
        response = await self._follow(url, trusted_hosts)
        try:
            self._check_head(response)
            async with contextlib.aclosing(self._pieces(response)) as pieces:
                first = await anext(pieces, b"")
                if not begins_like_a_film(first):
                    raise NotAFilm(f"{response.url.host} sent something that is no MP4")
                async with contextlib.aclosing(_rejoined(first, pieces)) as chunks:
                    yield Download(
                        content_length=response.content_length,
                        content_type=response.headers.get("content-type"),
                        chunks=chunks,
                    )
        finally:
            response.close()

    async def close(self) -> None:
        """Ends all connections, also those in use."""
        for session in (self._guarded, self._trusted):
            if session is not None:
                await session.close()
        self._guarded = self._trusted = None

    async def _follow(self, url: str, trusted_hosts: Collection[str]) -> aiohttp.ClientResponse:
        target = _parsed(url)
        for _ in range(MAX_REDIRECTS + 1):
            response = await self._ask(target, trusted=str(target.host).lower() in trusted_hosts)
            location = response.headers.get("location")
            if response.status not in _REDIRECTS or location is None:
                return response
            response.close()
            target = _parsed(location, base=target)
        raise FileUnavailable(f"{target.host} redirects too often", status=response.status, retryable=False)

    async def _ask(self, target: URL, *, trusted: bool) -> aiohttp.ClientResponse:
        session = self._trusted_session() if trusted else self._guarded_session()
        try:
            return await session.get(target, allow_redirects=False, timeout=self._timeout)
        except aiohttp.ClientConnectorError as exc:
            if isinstance(exc.os_error, AddressRefused):
                # The cause is left out: it would tell an address behind the name.
                raise FileUnavailable(f"{target.host} is not at an allowed address", retryable=False) from None
            raise FileUnavailable(f"no connection to {target.host}", retryable=True) from exc
        except (aiohttp.InvalidURL, UnicodeError) as exc:
            # A host that no resolver can take, or a number that is no address as those are written today.
            raise FileUnavailable("the link's host is no name of a host", retryable=False) from exc
        except (aiohttp.ClientError, TimeoutError) as exc:
            raise FileUnavailable(f"no answer from {target.host}: {type(exc).__name__}", retryable=True) from exc

    def _check_head(self, response: aiohttp.ClientResponse) -> None:
        host = response.url.host
        if response.status != 200:
            retryable = response.status >= 500 or response.status in _PASSING
            raise FileUnavailable(f"{host} answers {response.status}", status=response.status, retryable=retryable)
        if response.content_type in {"text/html", "application/json"}:
            raise NotAFilm(f"{host} sent {response.content_type} instead of a film")
        if response.content_length is not None and response.content_length > self._max_bytes:
            raise FileTooLarge(f"{host} announces {response.content_length} bytes")

    async def _pieces(self, response: aiohttp.ClientResponse) -> AsyncGenerator[bytes]:
        """The body in pieces of at least 1 MiB, but for the last."""
        piece = bytearray()
        total_bytes = 0
        try:
            async for data in response.content.iter_any():
                total_bytes += len(data)
                if total_bytes > self._max_bytes:
                    raise FileTooLarge(f"{response.url.host} sends more than {self._max_bytes} bytes")
                piece += data
                if len(piece) >= PIECE_BYTES:
                    yield bytes(piece)
                    piece.clear()
        except (aiohttp.ClientError, TimeoutError) as exc:
            raise FileCutShort(f"the file from {response.url.host} broke off: {type(exc).__name__}") from exc
        if piece:
            yield bytes(piece)

    def _guarded_session(self) -> aiohttp.ClientSession:
        if self._guarded is None:
            factory = guarded_socket_factory(self._allowed_networks)
            self._guarded = _session(aiohttp.TCPConnector(socket_factory=factory, resolver=self._resolver, limit=0))
        return self._guarded

    def _trusted_session(self) -> aiohttp.ClientSession:
        if self._trusted is None:
            self._trusted = _session(aiohttp.TCPConnector(resolver=self._resolver, limit=0))
        return self._trusted


def _session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"accept-encoding": "identity", "user-agent": f"reelay/{version('reelay')}"},
        auto_decompress=False,
        read_bufsize=PIECE_BYTES // 2,
        trust_env=False,
    )


def _parsed(link: str, *, base: URL | None = None) -> URL:
    try:
        # A signature covers the link as it was written, so a clean one is not written anew; any other
        # is, for a line break in it would begin a header.
        url = URL(link, encoded=link.isascii() and link.isprintable() and " " not in link)
        url = base.join(url) if base else url
        usable = url.scheme in {"http", "https"} and bool(url.host) and url.user is url.password is None
    except ValueError:
        usable = False
    if not usable:
        raise FileUnavailable("the link to the file is not a plain http or https address", retryable=False)
    return url


async def _rejoined(first: bytes, rest: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    yield first
    async for piece in rest:
        yield piece
