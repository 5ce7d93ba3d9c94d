"""Notices that the rules or the prices set over them have changed, or that somebody asks for them to be read anew."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import structlog

from proxy.core.ids import sha256_hex
from proxy.policy.rules import Rules
from proxy.services.house import House
from proxy.services.rulebook import reload, reprice
from proxy.telemetry import logs

_log = structlog.get_logger("reelay.rules")

LOOK_EVERY_S = 5.0
"""How late is noticed what nobody tells of: a file changed behind a chain of links, a price set elsewhere."""
SETTLED_MS = 200
"""How long nothing more may happen in the folder before the file is read: an editor writes in several steps."""


class Reloading:
    """Keeps a house's rules those of the file, and its prices those of the database."""

    def __init__(self, house: House, path: Path, read: Callable[[], Rules], redaction: logs.Redaction) -> None:
        self._house = house
        self._path = path.absolute()
        self._read = read
        self._redaction = redaction
        self._seen: str | None = house.rules.rules_hash
        self._asked = asyncio.Event()
        hide_keys(house.rules, redaction)
        house.metrics.rules_read(in_force_at_us=house.rules_since)

    def ask(self) -> None:
        """Has the rules read anew soon, changed or not: keys that stand in files may be others by now."""
        self._asked.set()

    async def run(self) -> None:
        """Until it is cancelled."""
        watching = [asyncio.create_task(self._watch()), asyncio.create_task(self._keep_prices())]
        try:
            while True:
                await self._asked.wait()
                self._asked.clear()
                await reload(self._house, self._read_quietly)
        finally:
            for watch in watching:
                watch.cancel()
                with suppress(asyncio.CancelledError):
                    await watch

    def _read_quietly(self) -> Rules:
        rules = self._read()
        # Before any of them is used.
        hide_keys(rules, self._redaction)
        return rules

    async def _watch(self) -> None:
        """The folder, not the file: editors replace it, and a mounted ConfigMap changes a link beside it."""
        from watchfiles import awatch  # noqa: PLC0415 - the first requests need none of it

        # It tells of every change; where our log lies in that folder, of its own telling too, for ever.
        logging.getLogger("watchfiles").setLevel(logging.WARNING)
        try:
            async for _ in awatch(
                self._path.parent,
                watch_filter=None,
                step=SETTLED_MS,
                rust_timeout=int(LOOK_EVERY_S * 1000),
                yield_on_timeout=True,
                recursive=False,
            ):
                await self._look()
        except Exception as exc:  # noqa: BLE001 - no inotify left, a file system without: looking now and then does too
            _log.warning("rules.not_watched", why=str(exc), looked_at_every_s=LOOK_EVERY_S)
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await self._look()

    async def _keep_prices(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await reprice(self._house)

    async def _look(self) -> None:
        found = await asyncio.to_thread(_hash_of, self._path)
        if found != self._seen:
            self._seen = found
            self._asked.set()


def _hash_of(path: Path) -> str | None:
    """None for a file that cannot be read; the reload says why."""
    try:
        return sha256_hex(path.read_bytes())
    except OSError:
        return None


def hide_keys(rules: Rules, redaction: logs.Redaction) -> None:
    """Keeps the sellers' keys out of what is logged and shown."""
    keys = [account.api_key for account in rules.accounts.values() if account.api_key]
    redaction.add(keys)
    logs.redact_too(keys)
