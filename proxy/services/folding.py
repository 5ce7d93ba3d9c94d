"""
Sums settlements by day, so that a report over months reads days.

Only what is so old that nothing can be written before it any more; on the way the books are compared
with what reports tell of them.
"""

import asyncio

from proxy.services import audit
from proxy.store import settlements
from proxy.store.base import Store, Tx
from proxy.store.settlements import SETTLED_US

ROWS_EACH = 2000
"""A batch: what one transaction is long."""
PAUSE_S = 0.02
"""Between two batches, in which requests have the database to themselves."""


async def fold(store: Store, *, rows_each: int = ROWS_EACH) -> None:
    """Up to ten minutes ago. May be broken off anywhere, and done by two at once."""
    more = True
    while more:
        more = await store.write(lambda tx: _fold(tx, rows_each))
        await asyncio.sleep(PAUSE_S)


def _fold(tx: Tx, rows_each: int) -> bool:
    """Whether there is more."""
    since, old = settlements.take_folded_until(tx), tx.now_us - SETTLED_US
    if since >= old:
        return False
    until = settlements.cut(tx, start=since, end=old, rows=rows_each)
    audit.compare(tx, start=since, end=until)
    settlements.fold(tx, until=until)
    return until < old
