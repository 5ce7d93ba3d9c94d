"""A store that tells of each unit that the database did not do, and of each state reached by one that it did."""

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from proxy.core.errors import Overloaded
from proxy.store.base import Change, Store, Tx

T = TypeVar("T")
A = TypeVar("A")
R = TypeVar("R")


class Observed:
    """
    Beside whoever uses it, two are told.

    `changed` hears what a unit changed once it is committed, in the task that waited for it; of what comes in groups
    their caller tells itself.

    `failed` is called for each unit that raised Overloaded: the database was full, locked, away or too busy.
    """

    def __init__(
        self, store: Store, changed: Callable[[Sequence[Change]], None], failed: Callable[[], None] | None = None
    ) -> None:
        self.clock, self.alone = store.clock, store.alone
        self._store = store
        self._failed = failed
        self._changed = changed

    @property
    def ahead_us(self) -> int:
        return self._store.ahead_us

    def not_before(self, at_us: int) -> None:
        self._store.not_before(at_us)

    async def write(self, unit: Callable[[Tx], T]) -> T:
        changes: list[Change] = []

        @functools.wraps(unit)  # whoever names units below names this one
        def noted(tx: Tx) -> T:
            value = unit(tx)
            changes[:] = tx.changes  # anew with each try
            return value

        with self._watched():
            value = await self._store.write(noted)
        if changes:
            self._changed(changes)
        return value

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
            if self._failed is not None:
                self._failed()
            raise
