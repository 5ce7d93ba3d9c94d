"""The latest moment that a database knows of."""

from proxy.store import ledger, moments, settlements, statements
from proxy.store.base import Store
from proxy.store.statements import Closing
from tests.store.rows import AT, add_attempts, add_videos, make_attempt, make_entry, make_video


async def test_nothing_has_happened_in_a_new_database(store: Store) -> None:
    assert await store.read(moments.latest) == 0


async def test_latest_is_what_was_sent_settled_or_closed_last(store: Store) -> None:
    await add_videos(store, make_video())
    await add_attempts(store, make_attempt(started_at=AT + 1))
    assert await store.read(moments.latest) == AT + 1
    await store.write(lambda tx: ledger.write_many(tx, [(make_entry(at=AT + 2), {})]))
    assert await store.read(moments.latest) == AT + 2
    closing = Closing(month="2026-10", ends_at=AT - 5, closed_at=AT + 3, actor="cli")
    await store.write(lambda tx: statements.insert_closing(tx, closing))
    assert await store.read(moments.latest) == AT + 3
    await store.write(lambda tx: settlements.fold(tx, until=AT + 4))
    assert await store.read(moments.latest) == AT + 4
