"""What came to the sellers' doors: the last requests, how many in all and at once, keys where none belong."""

from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from proxy.simulator.exchange import Asked

KEPT = 1000
"""Requests remembered for each seller."""


class Journal:
    """In memory only; keys are blotted out before anybody reads it."""

    def __init__(self) -> None:
        self._kept: dict[str, deque[tuple[Asked, int]]] = {}
        self._asked: dict[str, Counter[str]] = {}
        self._open: dict[str, int] = {}
        self._peak: dict[str, int] = {}
        self.files_saw_key = 0
        """Downloads that carried a credential."""

    def clear(self) -> None:
        self._kept.clear()
        self._asked.clear()
        self._peak = dict(self._open)
        self.files_saw_key = 0

    @contextmanager
    def open(self, seller: str) -> Iterator[None]:
        """Counts a request among those under way."""
        under_way = self._open[seller] = self._open.get(seller, 0) + 1
        self._peak[seller] = max(self._peak.get(seller, 0), under_way)
        try:
            yield
        finally:
            self._open[seller] -= 1

    def note(self, seller: str, asked: Asked, status: int) -> None:
        """Remembers a request with the status it got; 0 where it got none."""
        kept = self._kept.get(seller)
        if kept is None:
            kept = self._kept[seller] = deque(maxlen=KEPT)
            self._asked[seller] = Counter()
        kept.append((asked, status))
        self._asked[seller][asked.method] += 1

    def read(self, seller: str | None, *, last: int) -> dict[str, Any]:
        """The last requests of one seller or of all, oldest first."""
        kept = {seller: self._kept.get(seller, deque())} if seller else self._kept
        shown = [
            _shown(name, asked, status) for name, requests in kept.items() for asked, status in list(requests)[-last:]
        ]
        return {
            "requests": shown,
            "asked": {name: dict(methods) for name, methods in self._asked.items()},
            "concurrent": dict(self._open),
            "peak_concurrent": dict(self._peak),
            "files_saw_key": self.files_saw_key,
        }


def _shown(seller: str, asked: Asked, status: int) -> dict[str, Any]:
    headers = dict(asked.headers)
    if "authorization" in headers:
        headers["authorization"] = headers["authorization"].split(" ")[0]
    try:
        body: Any = msgspec.json.decode(asked.body) if asked.body else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        body = asked.body.decode("latin-1")
    return {
        "seller": seller,
        "method": asked.method,
        "path": asked.path,
        "query": asked.query,
        "headers": headers,
        "body": body,
        "status": status,
    }
