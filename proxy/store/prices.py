"""Prices that operators set while the server works. Rows stay when they hold no more: postings name them."""

from sqlalchemy import bindparam, insert, select, update

from proxy.core.offer import PriceOverride
from proxy.store.base import Statement, Tx, as_structs, fields_of
from proxy.store.tables import price_overrides

_OVERRIDE = PriceOverride.__struct_fields__
_columns = [price_overrides.c[name] for name in _OVERRIDE]
_is_live = price_overrides.c.removed_at.is_(None)
_INSERT = Statement(insert(price_overrides).values({name: bindparam(name) for name in _OVERRIDE}))
_LIVE = Statement(select(*_columns).where(_is_live).order_by(price_overrides.c.created_at, price_overrides.c.id))
_TAKE = Statement(select(*_columns).where(price_overrides.c.id == bindparam("of_id"), _is_live).with_for_update())
_REMOVE = Statement(
    update(price_overrides).where(price_overrides.c.id == bindparam("of_id")).values(removed_at=bindparam("at"))
)


def insert_override(tx: Tx, override: PriceOverride) -> None:
    """A new one; a second of the same offer, resolution and start breaks the unit."""
    tx.run(_INSERT, **fields_of(override))


def live_overrides(tx: Tx) -> list[PriceOverride]:
    """Those that are not removed, from the oldest."""
    return as_structs(PriceOverride, tx.rows(_LIVE))


def take_override(tx: Tx, override_id: str) -> PriceOverride | None:
    """One that is not removed, which nobody else removes until this unit is kept."""
    rows = as_structs(PriceOverride, tx.rows(_TAKE, of_id=override_id))
    return rows[0] if rows else None


def remove_override(tx: Tx, override_id: str, at: int) -> None:
    """It holds no more."""
    tx.run(_REMOVE, of_id=override_id, at=at)
