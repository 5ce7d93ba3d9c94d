"""The sellers, their common parts, and what keeps them moving and remembered."""

import asyncio
from pathlib import Path

import msgspec

from proxy.simulator.archive import Archive, rows
from proxy.simulator.base import Polled, Seller
from proxy.simulator.callbacks import Callbacks
from proxy.simulator.clock import Clock, Pace
from proxy.simulator.desk import Desk
from proxy.simulator.evolink import Evolink
from proxy.simulator.fal import Fal
from proxy.simulator.faults import Faults
from proxy.simulator.files import FileHost
from proxy.simulator.film import READY_MADE, Films
from proxy.simulator.job import Job
from proxy.simulator.jobs import Jobs
from proxy.simulator.journal import Journal
from proxy.simulator.ledger import Account, Billing, Ledger
from proxy.simulator.runflow import Runflow, Secret
from proxy.simulator.runflow_legacy import RunflowLegacy
from proxy.simulator.shortapi import Shortapi
from proxy.simulator.switches import Switches

WRITE_EVERY_S = 0.05
"""Real seconds; so much may be lost when the process is killed."""

BILLING: dict[str, Billing] = {
    seller.name: seller.billing for seller in (Runflow, RunflowLegacy, Fal, Shortapi, Evolink)
}


class Sandbox:
    """All of it, stopped until `start`."""

    def __init__(
        self, *, folder: Path, clock_factor: float, seed: int, allow_private_callbacks: bool, ready_made_clip: bool
    ) -> None:
        self._folder = folder
        self._ready_made = ready_made_clip
        self._archive: Archive | None = None
        self._changed: dict[tuple[str, str], Job] = {}
        self._facts_changed = False
        self._due = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._writing: asyncio.Future[None] | None = None
        self.clock = Clock(factor=clock_factor)
        self.films = Films(folder / "films", ready_made=ready_made_clip)
        self.jobs = Jobs(clock=self.clock, films=self.films, seed=seed)
        self.faults = Faults(seed=seed)
        self.journal = Journal()
        self.switches = Switches()
        self.ledger = Ledger(BILLING)
        polled: dict[str, Polled] = {}
        self.callbacks = Callbacks(sellers=polled, clock=self.clock, faults=self.faults, on_change=self._on_change)
        self.desk = Desk(
            clock=self.clock,
            jobs=self.jobs,
            ledger=self.ledger,
            faults=self.faults,
            callbacks=self.callbacks,
            switches=self.switches,
        )
        self.files = FileHost(
            clock=self.clock,
            jobs=self.jobs,
            films=self.films,
            faults=self.faults,
            ledger=self.ledger,
            journal=self.journal,
        )
        self._runflow = Runflow(desk=self.desk, files=self.files)
        self._runflow.on_secret = self.note_facts
        evolink = Evolink(desk=self.desk, files=self.files, allow_private_callbacks=allow_private_callbacks)
        for seller in (
            self._runflow,
            Fal(desk=self.desk, files=self.files),
            Shortapi(desk=self.desk, files=self.files),
            evolink,
        ):
            polled[seller.name] = seller
        legacy = RunflowLegacy(desk=self.desk, files=self.files)
        self.sellers: dict[str, Seller] = {**polled, legacy.name: legacy}
        self.jobs.on_change = self._on_change
        self.jobs.on_end = self._on_end
        self.jobs.on_due = self._due.set
        self.apply_switches()

    async def start(self) -> None:
        """Takes up what an earlier run left, and lets time pass."""
        self._archive = Archive(self._folder / "sandbox.db")
        self._restore(self._archive)
        if self._ready_made:
            await self.films.clip(READY_MADE)
        self._tasks = [asyncio.create_task(self._move()), asyncio.create_task(self._write_often())]

    async def stop(self) -> None:
        """Writes the last change and leaves the rest for the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.callbacks.close()
        if self._writing is not None:
            # A thread cannot be cancelled with the task that waits for it.
            await self._writing
        self.note_facts()
        for job in self.jobs:
            # Polls are counted without a note: there are many.
            self._on_change(job)
        await self._write()
        self.films.close()
        if self._archive is not None:
            self._archive.close()
            self._archive = None

    def apply_switches(self) -> None:
        """Tells the state machine what a switch may have changed."""
        self.jobs.running_at_once["fal"] = self.switches.fal_running_at_once

    def note_facts(self) -> None:
        """Remembers that the clock, a secret or a revoked key is to be written."""
        self._facts_changed = True

    async def settle(self) -> None:
        """Makes every move that is due, waiting for the clips that it needs."""
        self.jobs.run_due()
        await self.films.idle()
        self.jobs.run_due()

    async def forget(self) -> None:
        """Empties the books: jobs, accounts, requests. Jobs under way are forgotten too."""
        if self._writing is not None:
            await self._writing
        self.jobs.clear()
        self.ledger.clear()
        self.journal.clear()
        self.faults.struck.clear()
        self._changed.clear()
        if self._archive is not None:
            self._archive.forget_jobs()

    def _restore(self, archive: Archive) -> None:
        pace = archive.fact("pace", Pace)
        if pace is not None:
            self.clock.resume(pace)
        self.ledger.restore(archive.fact("accounts", list[Account]) or [])
        self._runflow.secrets.extend(archive.fact("secrets", list[Secret]) or [])
        self.desk.revoked |= archive.fact("revoked", set[str]) or set()
        for job in archive.jobs():
            self.jobs.restore(job)
            if job.has_ended and job.callback_open:
                self.callbacks.announce(job)
        self.note_facts()

    def _on_change(self, job: Job) -> None:
        if self.jobs.knows(job):
            self._changed[job.seller, job.id] = job

    def _on_end(self, job: Job) -> None:
        self.ledger.ended(job)
        self.callbacks.announce(job)

    async def _move(self) -> None:
        """Makes each move at its time."""
        while True:
            self._due.clear()
            self.jobs.run_due()
            next_s = self.jobs.next_due_s
            wait_s = None if next_s is None else max(0.0, next_s - self.clock.now_s())
            await self.clock.nap(wait_s, self._due)

    async def _write_often(self) -> None:
        while True:
            await asyncio.sleep(WRITE_EVERY_S)
            await self._write()

    async def _write(self) -> None:
        if self._archive is None or not (self._changed or self._facts_changed or self.ledger.changed):
            return
        changed, self._changed = self._changed, {}
        self._facts_changed = self.ledger.changed = False
        facts = {
            "pace": self.clock.pace,
            "accounts": self.ledger.accounts,
            "secrets": self._runflow.secrets,
            "revoked": self.desk.revoked,
        }
        encoded = [(name, msgspec.json.encode(value)) for name, value in facts.items()]
        batch = rows(changed.values())
        self._writing = asyncio.ensure_future(asyncio.to_thread(self._archive.write, jobs=batch, facts=encoded))
        await asyncio.shield(self._writing)
