"""Factories of rows with good defaults, a clock that is moved, and what can be read from a database file."""

import sqlite3
import struct
from contextlib import closing
from pathlib import Path
from typing import Any

from proxy.core.attempt import Attempt
from proxy.core.offer import FallbackPolicy, Plan
from proxy.core.tenant import Tenant
from proxy.core.video import Footage
from proxy.store.base import Store, Tx
from proxy.store.ledger import Entry, entry_id
from proxy.store.settlements import Settlement
from proxy.store.settlements import insert_many as insert_settlements
from proxy.store.tenants import ApiKey
from proxy.store.videos import Video, encode, insert_attempt, insert_many
from tests.policy.policies import make_candidate, make_spec

AT = 1_795_239_000_000_000
"""2026-11-21, 05:30:00 UTC."""
DAY_US = 86_400_000_000

PLAN = Plan(
    rule="default",
    strategy="cheapest",
    candidates=(make_candidate(),),
    excluded=(),
    fallback=FallbackPolicy(
        max_attempts=3, on=frozenset({"capacity"}), deadline_s=1200, on_unknown="wait", on_moderation="stop"
    ),
    bill_failed_attempts=False,
    changed={},
    rules_hash="rules",
    book_hash="book",
    markup="0",
)


class MovedClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now_us = AT

    def __call__(self) -> int:
        return self.now_us


def make_tenant(**fields: Any) -> Tenant:
    defaults: dict[str, Any] = {"id": "acme", "name": "Acme", "created_at": AT}
    return Tenant(**defaults | fields)


def make_key(**fields: Any) -> ApiKey:
    defaults: dict[str, Any] = {
        "id": "key_1",
        "tenant_id": "acme",
        "digest": "d1",
        "last4": "wxyz",
        "name": "",
        "scopes": "videos",
        "created_at": AT,
    }
    return ApiKey(**defaults | fields)


def make_video(**fields: Any) -> Video:
    defaults: dict[str, Any] = {
        "id": "video_1",
        "tenant_id": "acme",
        "end_user": None,
        "status": "queued",
        "model": "seedance-2.0",
        "prompt": "a paper boat in rain",
        "spec": encode(make_spec()),
        "metadata": b'{"team":"ads"}',
        "plan": encode(PLAN),
        "progress": 0,
        "created_at": AT,
        "deadline_at": AT + 1_200_000_000,
        "hold": "held",
        "hold_microusd": 1_000_000,
    }
    return Video(**defaults | fields)


def make_attempt(**fields: Any) -> Attempt:
    defaults: dict[str, Any] = {
        "video_id": "video_1",
        "number": 1,
        "offer": "p/seedance-2.0/standard/text-to-video",
        "provider": "p",
        "seller_model": "seller/seedance",
        "state": "sending",
        "client_ref": "video_1-1",
        "started_at": AT,
        "possible_microusd": 1_000_000,
    }
    return Attempt(**defaults | fields)


def make_footage(**fields: Any) -> Footage:
    defaults: dict[str, Any] = {
        "key": "v/video_1.mp4",
        "size_bytes": 1000,
        "sha256": "00",
        "duration_ms": 5042,
        "width_px": 1280,
        "height_px": 720,
        "has_audio": True,
    }
    return Footage(**defaults | fields)


def make_entry(**fields: Any) -> Entry:
    defaults: dict[str, Any] = {
        "kind": "post",
        "video_id": "video_1",
        "attempt_no": 1,
        "at": AT,
        "tenant_id": "acme",
        "end_user": None,
        "provider": "p",
        "model": "seedance-2.0",
        "price_id": "720p@2026-04-01",
        "book_hash": "book",
        "rules_hash": "rules",
    }
    values = defaults | fields
    return Entry(**{"id": entry_id(values["video_id"], values["attempt_no"], values["kind"])} | values)


def make_settlement(**fields: Any) -> Settlement:
    defaults: dict[str, Any] = {
        "kind": "post",
        "at": AT,
        "end_user": "",
        "tenant_id": "acme",
        "key_id": "key_1",
        "provider": "p",
        "model": "seedance-2.0",
        "tier": "standard",
        "operation": "text-to-video",
        "resolution": "720p",
        "rule": "default",
        "outcome": "delivered",
    }
    values = defaults | fields
    return Settlement(**{"id": f"video_{values['at']}/1/{values['kind']}"} | values)


async def add_settlements(store: Store, *rows: Settlement) -> None:
    await store.write(lambda tx: insert_settlements(tx, rows))


async def add_videos(store: Store, *rows: Video) -> None:
    def unit(tx: Tx) -> None:
        insert_many(tx, rows)

    await store.write(unit)


async def add_attempts(store: Store, *rows: Attempt) -> None:
    def unit(tx: Tx) -> None:
        for row in rows:
            insert_attempt(tx, row)

    await store.write(unit)


# What the file itself says


def outside(path: Path, sql: str) -> list[tuple[Any, ...]]:
    """What another process would read at this moment."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def commits(path: Path) -> int:
    """
    How many transactions stand in the write-ahead log.

    By SQLite's file format: a header of 32 bytes, then frames of 24 bytes and a page each; a frame that
    ends a transaction tells the size of the database, and counts while its salt is the header's.
    """
    log = path.with_name(path.name + "-wal").read_bytes()
    page_bytes, salt = struct.unpack(">8xI4x8s", log[:24])
    found = 0
    for start in range(32, len(log), 24 + page_bytes):
        size, frame_salt = struct.unpack(">4xI8s", log[start : start + 16])
        if frame_salt != salt:
            break
        found += bool(size)
    return found
