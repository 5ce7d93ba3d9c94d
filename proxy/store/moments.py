"""The latest moment that the database knows of: time goes on from there, also where a clock has been set back."""

from sqlalchemy import func, select

from proxy.store import settlements
from proxy.store.base import Statement, Tx
from proxy.store.tables import attempts, closings, ledger_transactions

_LATEST = [
    Statement(select(func.max(column)))
    for column in (ledger_transactions.c.at, attempts.c.started_at, closings.c.closed_at)
]
"""Whatever is accepted, sent, settled or closed writes one of these."""


def latest(tx: Tx) -> int:
    """Microseconds; 0 where nothing has happened yet."""
    seen = [int(value or 0) for statement in _LATEST for (value,) in tx.rows(statement)]
    # What was written before then would be missing from the sums of its day.
    return max(*seen, settlements.folded_until(tx))
