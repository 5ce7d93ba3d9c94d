"""A sandbox's memory on disk, so that one that was stopped still knows its jobs. Written in batches."""

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import msgspec

from proxy.simulator.job import Job

T = TypeVar("T")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (seller TEXT, id TEXT, body BLOB, PRIMARY KEY (seller, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, body BLOB) WITHOUT ROWID;
"""

Rows = list[tuple[str, str, bytes]]


class Archive:
    """One SQLite file. Its methods block; one thread at a time may call them."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        # The books of a play seller may lose their last moments to a power cut, not to a crash.
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        self._db.close()

    def jobs(self) -> list[Job]:
        """Every job, in the order of their making."""
        decoder = msgspec.json.Decoder(Job)
        jobs = [decoder.decode(body) for (body,) in self._db.execute("SELECT body FROM jobs")]
        return sorted(jobs, key=lambda job: (job.accepted_v, job.number))

    def fact(self, name: str, shape: type[T]) -> T | None:
        """A named value; None if it was never written."""
        found = self._db.execute("SELECT body FROM facts WHERE name = ?", (name,)).fetchone()
        return None if found is None else msgspec.json.decode(found[0], type=shape)

    def write(self, *, jobs: Rows, facts: Iterable[tuple[str, bytes]]) -> None:
        """Stores a batch in one transaction."""
        self._db.execute("BEGIN")
        self._db.executemany("INSERT OR REPLACE INTO jobs VALUES (?, ?, ?)", jobs)
        self._db.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", facts)
        self._db.execute("COMMIT")

    def forget_jobs(self) -> None:
        self._db.execute("DELETE FROM jobs")


def rows(jobs: Iterable[Job]) -> Rows:
    """Jobs as they are written; made on the loop, for they change under a thread's hands."""
    return [(job.seller, job.id, msgspec.json.encode(job)) for job in jobs]
