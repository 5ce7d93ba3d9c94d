"""How many videos tenants and keys may have under way at once, and how many they have."""

from collections.abc import Collection
from typing import Literal

from sqlalchemy import ColumnElement, Table, bindparam, func, select

from proxy.store.base import Statement, Tx, of_several, several_ids
from proxy.store.tables import api_keys, tenants, videos

Whose = Literal["tenant", "key"]
Subject = tuple[Whose, str]
"""Whose limit, and the id of that tenant or key."""


def _take(table: Table) -> Statement:
    """By id, and not in the stronger way: whoever writes a video takes a share of its tenant's key."""
    query = select(table.c.id, table.c.videos_in_flight).where(table.c.id.in_(several_ids()))
    return Statement(query.order_by(table.c.id).with_for_update(key_share=True))


def _under_way(*whose: ColumnElement[bool]) -> Statement:
    """Goes through no more of them than `most`."""
    some = select(videos.c.tenant_id).where(*whose, videos.c.status.in_(["queued", "in_progress"]))
    return Statement(select(func.count()).select_from(some.limit(bindparam("most")).subquery()))


_of_tenant = videos.c.tenant_id == bindparam("tenant_id")
_TAKE: dict[Whose, Statement] = {"tenant": _take(tenants), "key": _take(api_keys)}
_UNDER_WAY: dict[Whose, Statement] = {
    "tenant": _under_way(_of_tenant),
    "key": _under_way(_of_tenant, videos.c.key_id == bindparam("key_id")),
}


def take(tx: Tx, whose: Whose, ids: Collection[str]) -> dict[Subject, int]:
    """
    The limits that these have now, of those that have one.

    Whoever else takes one of them waits until this unit is kept, and then counts what it has written. Every
    unit takes tenants first and then keys, before it takes anything else.
    """
    return {(whose, row[0]): row[1] for row in of_several(tx, _TAKE[whose], sorted(ids)) if row[1] is not None}


def under_way(tx: Tx, whose: Whose, tenant_id: str, key_id: str | None, *, most: int) -> int:
    """Videos of the tenant or of its key that are queued or in progress; `most` where they are as many or more."""
    values = {"tenant_id": tenant_id, "most": most} | ({"key_id": key_id} if whose == "key" else {})
    row = tx.one(_UNDER_WAY[whose], **values)
    return 0 if row is None else int(row[0])
