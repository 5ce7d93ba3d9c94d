"""What every answer tells browsers and caches, whichever route made it."""

from collections.abc import Iterable

from litestar.types import ASGIApp, Message, Receive, Scope, Send

Headers = Iterable[tuple[bytes, bytes]]

_ALWAYS = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]
_UNKEPT = (b"cache-control", b"no-store")
_PAGE = (
    b"content-security-policy",
    b"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
)
"""A page of ours shows text and its own style; nothing is loaded, run, sent or framed."""


def with_manners(said: Headers) -> list[tuple[bytes, bytes]]:
    """The headers and what they lack; names are in lower case. What says nothing of caches is kept by none."""
    headers = [*said, *_ALWAYS]
    known = dict(headers)
    if b"cache-control" not in known:
        headers.append(_UNKEPT)
    if known.get(b"content-type", b"").startswith(b"text/html"):
        headers.append(_PAGE)
    return headers


class Mannered:
    """An application whose answers have manners."""

    def __init__(self, inner: ASGIApp) -> None:
        self._inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def mannered(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = with_manners(message["headers"])
            await send(message)

        await self._inner(scope, receive, mannered)
