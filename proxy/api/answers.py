"""A whole answer in JSON: two messages to the server, and nothing between."""

from collections.abc import Mapping
from typing import Any

from litestar import Response
from litestar.types import Receive, Scope, Send


class Answer(Response[bytes]):
    """
    A body of JSON under status 200 that is its own ASGI application.

    Litestar's Response costs as much again as finding the route: it looks for cookies, encoders, hooks
    and tasks, none of which the hot routes have.
    """

    def __init__(self, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        # Not the parent's, which is what is saved.
        more = () if headers is None else [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        length = (b"content-length", b"%d" % len(body))
        self._said = [(b"content-type", b"application/json"), length, *more]
        self._body = body

    def to_asgi_response(self, *_: Any, **__: Any) -> "Answer":  # type: ignore[override]  # an ASGI application all the same
        return self

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        await send({"type": "http.response.start", "status": 200, "headers": self._said})
        await send({"type": "http.response.body", "body": self._body, "more_body": False})
