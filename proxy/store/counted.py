"""A store that tells of each unit which the database did not do."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from proxy.core.errors import Overloaded
from proxy.store.base import Store, Tx

T = TypeVar("T")
A = TypeVar("A")
R = TypeVar("R")


class Counted:
    """`failed` is called for each unit that raised Overloaded: the database was full, locked, away or too busy."""

    def __init__(self, store: Store, failed: Callable[[], None]) -> None:
        self.clock, self.alone = store.clock, store.alone
        self._store = store
        self._failed = failed

    @property
    def ahead_us(self) -> int:
        return self._store.ahead_us

    def not_before(self, at_us: int) -> None:
        self._store.not_before(at_us)

    async def write(self, unit: Callable[[Tx], T]) -> T:
        with self._watched():
            return await self._store.write(unit)

    async def write_grouped(self, batch: Callable[[Tx, Sequence[A]], Sequence[R]], item: A) -> R:
        with self._watched():
            return await self._store.write_grouped(batch, item)

    async def read_now(self, unit: Callable[[Tx], T]) -> T:
        with self._watched():
            return await self._store.read_now(unit)

    async def read(self, unit: Callable[[Tx], T]) -> T:
        with self._watched():
            return await self._store.read(unit)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except Overloaded:
            self._failed()
            raise
