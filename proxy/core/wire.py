"""One HTTP exchange with a seller as data, so that adapters need no client."""

import msgspec


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
