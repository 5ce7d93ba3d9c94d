"""One HTTP exchange with a seller as data, so that adapters need no client."""

import msgspec

_ODD = "\ufffd".encode()


def without_nul(body: bytes) -> bytes:
    """
    What a seller said, another odd character in the place of each NUL, also of one that JSON escapes.

    PostgreSQL takes no text with one; an order that was taken would be lost over it.
    """
    if b"\0" not in body and b"\\u0000" not in body:
        return body
    return body.replace(b"\0", _ODD).replace(b"\\u0000", b"\\ufffd")


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """
    A request to a seller, without host and key.

    The door to the outside puts the provider's `base_url` before `path` and adds the key, so that a
    key cannot go anywhere else.
    """

    method: str
    path: str
    """Begins with a slash; already percent-encoded."""
    query: tuple[tuple[str, str], ...] = ()
    """Not yet encoded."""
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    """JSON where present."""


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """A seller's whole answer."""

    status: int
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes
    """Never with a NUL."""

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "body", without_nul(self.body))
