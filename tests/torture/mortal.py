"""
A server that dies where it is told to, or is stopped there: at a write, or at a call to the outside.

Store, transport, fetcher and storage are wrapped before the real server opens them; it knows nothing of it.
A point is named by what is done, how many times it was done before, and the moment: `send POST fal no.1 before`.
"""

import contextlib
import functools
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Collection, Sequence
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any, TypeVar

import uvloop  # noqa: F401  # what every server imports, once for all of them
from litestar.plugins import attrs, pydantic  # noqa: F401  # the same: litestar looks for whatever it could work with

from proxy import app, cli
from proxy.core.account import Account
from proxy.core.wire import Call, Reply
from proxy.opening import open_store
from proxy.outside.assets import Download, Fetcher
from proxy.outside.base import PROBE_KEY, Stored
from proxy.outside.storage import Folder
from proxy.outside.transport import Transport
from proxy.services import folding, worker
from proxy.services.audit import go_through  # noqa: F401  # the same
from proxy.services.belonging import MARKER_KEY
from proxy.services.housekeeping import keep_house_forever
from proxy.settings import Settings
from proxy.store import postgres  # noqa: F401  # the same
from proxy.store.base import Store, Tx
from tests.newer import become

T = TypeVar("T")
A = TypeVar("A")
R = TypeVar("R")

Step = Callable[[str], None]
"""Told of a moment; where it is the one, this process gets its signal."""


class Fate:
    """Where this process dies, if anywhere, or gets another signal; what it comes by is written into `diary`."""

    def __init__(self, dies_at: str | None, diary: Path | None, by: signal.Signals) -> None:
        self._dies_at = dies_at
        self._by = by
        self._diary = None if diary is None else os.open(diary, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._done = Counter[str]()

    def step(self, what: str) -> Step:
        """The next of its kind."""
        self._done[what] += 1
        return functools.partial(self._come_by, f"{what} no.{self._done[what]}")

    def _come_by(self, step: str, moment: str) -> None:
        point = f"{step} {moment}"
        if self._diary is not None:
            os.write(self._diary, f"{point}\n".encode())
        if point == self._dies_at:
            # Told to the process, another thread may take it, while this one goes on for a moment.
            signal.pthread_kill(threading.get_ident(), self._by)


def name_of(unit: Callable[..., object]) -> str:
    """Where a unit of work is written down: its function, or the one that it stands in."""
    return f"{unit.__module__}.{unit.__qualname__}".split(".<locals>")[0]


class MortalStore:
    """Dies in a transaction with everything done but the commit, or with the commit and nothing after it."""

    def __init__(self, store: Store, fate: Fate) -> None:
        self.clock, self.alone = store.clock, store.alone
        self.read_now, self.read = store.read_now, store.read
        self._store = store
        self._fate = fate
        # One for each batch, for items are gathered by it.
        self._to_the_brink = functools.cache(_batch_to_the_brink)

    @property
    def ahead_us(self) -> int:
        return self._store.ahead_us

    def not_before(self, at_us: int) -> None:
        self._store.not_before(at_us)

    async def write(self, unit: Callable[[Tx], T]) -> T:
        step = self._fate.step(f"write {name_of(unit)}")

        def to_the_brink(tx: Tx) -> T:
            value = unit(tx)
            step("before")
            return value

        value = await self._store.write(to_the_brink)
        step("after")
        return value

    async def write_grouped(self, batch: Callable[[Tx, Sequence[A]], Sequence[R]], item: A) -> R:
        step = self._fate.step(f"write {name_of(batch)}")
        value = await self._store.write_grouped(self._to_the_brink(batch), (step, item))
        step("after")
        return value  # type: ignore[no-any-return]  # the batch gives R


def _batch_to_the_brink(batch: Callable[[Tx, Sequence[Any]], Sequence[Any]]) -> Callable[..., Sequence[Any]]:
    def to_the_brink(tx: Tx, items: Sequence[tuple[Step, Any]]) -> Sequence[Any]:
        values = batch(tx, [item for _, item in items])
        for step, _ in items:
            step("before")
        return values

    return to_the_brink


class MortalTransport(Transport):
    """Dies with nothing sent, or with the answer in hand and unused."""

    def __init__(self, fate: Fate) -> None:
        super().__init__()
        self._fate = fate

    async def send(
        self, account: Account, authorization: tuple[str, str], call: Call, *, timeout_s: float, fresh: bool = False
    ) -> Reply:
        step = self._fate.step(f"send {call.method} {account.name}")
        step("before")
        reply = await super().send(account, authorization, call, timeout_s=timeout_s, fresh=fresh)
        step("after")
        return reply


class MortalFetcher(Fetcher):
    """Dies before a film is asked for, or when it begins to come."""

    def __init__(self, fate: Fate, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._fate = fate

    @contextlib.asynccontextmanager
    async def open(self, url: str, trusted_hosts: Collection[str] = ()) -> AsyncGenerator[Download]:
        step = self._fate.step("fetch film")
        step("before")
        async with super().open(url, trusted_hosts) as download:
            step("after")
            yield download


class MortalFolder(Folder):
    """Dies before a file is begun, with a part of it written, and when it is in its place."""

    def __init__(self, fate: Fate, url: str) -> None:
        super().__init__(Path(url.removeprefix("file:")))
        self._fate = fate

    async def put(self, key: str, chunks: AsyncIterable[bytes]) -> Stored:
        step = self._fate.step(f"put {_kind(key)}")
        step("before")
        stored = await super().put(key, _with_a_middle(chunks, step))
        step("after")
        return stored

    async def delete(self, key: str) -> None:
        step = self._fate.step(f"delete {_kind(key)}")
        step("before")
        await super().delete(key)
        step("after")


def _kind(key: str) -> str:
    return {PROBE_KEY: "probe", MARKER_KEY: "marker"}.get(key, "film")


async def _with_a_middle(chunks: AsyncIterable[bytes], step: Step) -> AsyncIterator[bytes]:
    """When more is asked for, what came before is written."""
    async for chunk in chunks:
        yield chunk[: len(chunk) // 2]
        step("middle")
        yield chunk[len(chunk) // 2 :]


def _hurry_the_housekeeper() -> None:
    """It comes every two seconds or so, and sums up days of what is a moment old."""
    vars(folding).update(SETTLED_US=0)
    vars(worker).update(keep_house_forever=functools.partial(keep_house_forever, every_s=2.0))


def live(
    arguments: list[str],
    folder: Path,
    env: dict[str, str],
    log: Path,
    dies_at: str | None,
    diary: Path | None,
    hasty: bool,
    by: signal.Signals = signal.SIGKILL,
    version: Path | None = None,
) -> None:
    """`reelay` with these arguments, in a process of its own."""
    os.chdir(folder)
    os.environ.update(env)
    into = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for output in (1, 2):
        os.dup2(into, output)
    if hasty:
        _hurry_the_housekeeper()
    if version is not None:
        become(version)
    if dies_at is not None or diary is not None:
        fate = Fate(dies_at, diary, by)

        @contextlib.asynccontextmanager
        async def open_mortal_store(settings: Settings) -> AsyncGenerator[Store]:
            async with open_store(settings) as store:
                yield MortalStore(store, fate)

        vars(app).update(
            open_store=open_mortal_store,
            open_storage=functools.partial(MortalFolder, fate),
            Transport=functools.partial(MortalTransport, fate),
            Fetcher=functools.partial(MortalFetcher, fate),
        )
    sys.argv = ["reelay", *arguments]
    cli.main()


nursery = ForkServerContext()
nursery.set_forkserver_preload([__name__])


def start(
    arguments: list[str],
    folder: Path,
    env: dict[str, str],
    log: Path,
    *,
    dies_at: str | None = None,
    diary: Path | None = None,
    hasty: bool = False,
    by: signal.Signals = signal.SIGKILL,
    version: Path | None = None,
) -> ForkServerProcess:
    """
    A process that need not import anything: hundreds are started, and each would take seconds for it.

    `hasty`: its housekeeper does within seconds what takes others minutes. `by`: what it gets where it dies;
    SIGSTOP only stops it there. `version`: whose migrations are its own, where it is of a version to come.
    """
    arguments_of_live = (arguments, folder, env, log, dies_at, diary, hasty, by, version)
    process = nursery.Process(target=live, args=arguments_of_live, daemon=True)
    process.start()
    return process
