"""
What reports sum: a row for every cost, and the sums of these by day.

A row is written beside its transaction's postings and says the same as they do. Days are summed up to a
moment that lies so far back that nothing is written before it any more (`fold`); what came after is
summed from the rows themselves, so that both together are the ledger at each moment.
"""

from collections.abc import Iterator, Sequence
from operator import add
from typing import Any, Literal

import msgspec
from msgspec.structs import astuple
from sqlalchemy import (
    ColumnElement,
    Select,
    Table,
    Text,
    and_,
    bindparam,
    case,
    func,
    insert,
    literal_column,
    select,
    tuple_,
    update,
)

from proxy.core.clock import DAY_US, SECOND_US
from proxy.store import tenants
from proxy.store.base import Statement, Tx
from proxy.store.expressions import member, month_of
from proxy.store.tables import DIMENSIONS, SUMS, facts, settlements, spend_days

Kind = Literal["post", "bill", "absorb", "refund"]
Outcome = Literal["delivered", "billed", "failed_attempt", "undelivered", "abandoned", "unknown", "double", "refunded"]
"""
delivered: paid for and received. billed: paid for, but cancelled or failed. refunded: given back. The
others name the account that absorbs what a seller took.
"""

SETTLED_US = 600 * SECOND_US
"""So old is what no transaction under way can still write before: none lasts minutes."""
FOLDED_UNTIL = "folded_until"
"""The fact that tells up to when days are summed; microseconds."""


class Settlement(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `settlements`; the columns are described in tables.py."""

    id: str
    kind: Kind
    at: int
    end_user: str
    tenant_id: str
    key_id: str
    provider: str
    model: str
    tier: str
    operation: str
    resolution: str
    rule: str
    outcome: Outcome
    seconds: int = 0
    charged_microusd: int = 0
    seller_microusd: int = 0
    assumed_microusd: int = 0
    markup_microusd: int = 0
    absorbed_microusd: int = 0
    refunded_microusd: int = 0
    at_first_microusd: int = 0
    at_dearest_microusd: int = 0
    expected_microusd: int | None = None
    differs: int = 0
    metadata: str | None = None


class Sums(msgspec.Struct, frozen=True):
    """What the settlements of one group come to."""

    videos: int = 0
    """Those charged."""
    seconds: int = 0
    charged_microusd: int = 0
    seller_microusd: int = 0
    assumed_microusd: int = 0
    markup_microusd: int = 0
    absorbed_microusd: int = 0
    refunded_microusd: int = 0
    at_first_microusd: int = 0
    at_dearest_microusd: int = 0

    def plus(self, other: "Sums") -> "Sums":
        return Sums(*map(add, astuple(self), astuple(other)))


Key = tuple[str | int, ...]
"""A group's values in the order of the groups; texts, and for `day` the number of days since the epoch."""

_SETTLEMENT = Settlement.__struct_fields__
_INSERT = Statement(insert(settlements).values({name: bindparam(name) for name in _SETTLEMENT}))


def insert_many(tx: Tx, rows: Sequence[Settlement]) -> None:
    """Beside the postings of the same transactions."""
    tx.run_many(_INSERT, rows)


_OF_VIDEO = Statement(
    select(*(settlements.c[name] for name in _SETTLEMENT))
    .where(settlements.c.id > bindparam("from_id"), settlements.c.id < bindparam("to_id"))
    .order_by(settlements.c.id)
)


def of_video(tx: Tx, video_id: str) -> list[Settlement]:
    """Every cost of a video."""
    rows = tx.rows(_OF_VIDEO, **ids_of(video_id))
    return [Settlement(**dict(zip(_SETTLEMENT, row, strict=True))) for row in rows]


_DIFFERING = Statement(
    select(*(settlements.c[name] for name in _SETTLEMENT))
    .where(settlements.c.differs == 1)
    .order_by(settlements.c.at.desc())
    .limit(bindparam("most"))
)


def differing(tx: Tx, *, most: int) -> list[Settlement]:
    """The newest whose seller says it took another amount than its price makes."""
    rows = tx.rows(_DIFFERING, most=most)
    return [Settlement(**dict(zip(_SETTLEMENT, row, strict=True))) for row in rows]


def ids_of(video_id: str) -> dict[str, str]:
    """Between which ids those of a video's transactions lie."""
    return {"from_id": f"{video_id}/", "to_id": f"{video_id}0"}  # the character behind the stroke


# Groups

_ROW_SUMS = [
    func.sum(case((settlements.c.kind == "post", 1), else_=0)),
    *(func.sum(settlements.c[name]) for name in ("seconds", *SUMS)),
]
_DAY_SUMS = [func.sum(spend_days.c[name]) for name in ("videos", "seconds", *SUMS)]
_USER = (settlements.c.tenant_id, settlements.c.end_user)


def _values(groups: Sequence[str], table: Table) -> list[ColumnElement[Any]]:
    """What a row says of each group; `metadata` is the pair that the parameter names."""
    special: dict[str, Any]
    if table is settlements:
        pair = member(settlements.c.metadata, bindparam("pair", type_=Text))
        special = {"day": settlements.c.at // DAY_US, "month": month_of(settlements.c.at), "metadata": pair}
    else:
        special = {"day": spend_days.c.day, "month": month_of(spend_days.c.day * DAY_US)}
    return [special[name] if name in special else table.c[name] for name in groups]


def _summed(groups: Sequence[str], table: Table) -> Select[Any]:
    keys = [value.label(f"key_{place}") for place, value in enumerate(_values(groups, table))]
    query = select(*keys, *(_ROW_SUMS if table is settlements else _DAY_SUMS)).select_from(table)
    # By position, for the values may be expressions with parameters.
    places: list[ColumnElement[Any]] = [literal_column(str(place)) for place in range(1, len(groups) + 1)]
    return query.group_by(*places).order_by(*places) if groups else query


def _span() -> ColumnElement[bool]:
    return and_(settlements.c.at >= bindparam("start"), settlements.c.at < bindparam("end"))


def _sums(rows: Sequence[tuple[Any, ...]], width: int) -> dict[Key, Sums]:
    """The sum over no row at all is null."""
    return {tuple(row[:width]): Sums(*map(int, row[width:])) for row in rows if row[-1] is not None}


def folded_until(tx: Tx) -> int:
    """Days are summed up to then; microseconds."""
    return int(tenants.fact(tx, FOLDED_UNTIL) or 0)


def by_days(tx: Tx, groups: Sequence[str], *, tenant_id: str | None, start: int, end: int) -> dict[Key, Sums]:
    """From the days and what came after them, between two midnights; not by end user or metadata."""
    days, rows = _summed(groups, spend_days), _summed(groups, settlements).where(_span())
    days = days.where(spend_days.c.day >= bindparam("first"), spend_days.c.day < bindparam("beyond"))
    values: dict[str, Any] = {}
    if tenant_id is not None:
        values["tenant_id"] = tenant_id
        days = days.where(spend_days.c.tenant_id == bindparam("tenant_id"))
        rows = rows.where(settlements.c.tenant_id == bindparam("tenant_id"))
    found = _sums(tx.rows(Statement(days), first=start // DAY_US, beyond=end // DAY_US, **values), len(groups))
    since = max(start, folded_until(tx))
    for key, sums in _sums(tx.rows(Statement(rows), start=since, end=end, **values), len(groups)).items():
        found[key] = found[key].plus(sums) if key in found else sums
    return found


def by_end_users(
    tx: Tx,
    groups: Sequence[str],
    *,
    tenant_id: str | None,
    start: int,
    end: int,
    after: tuple[str, str] | None,
    most: int,
) -> tuple[dict[Key, Sums], tuple[str, str] | None]:
    """
    From the rows of so many end users, tenant by tenant, and who was the last; None: nobody comes after.

    `groups` begins with tenant_id and end_user.
    """
    # Not by the index over time: the one by end user ends the look after a page.
    at = settlements.c.at + 0
    where: list[ColumnElement[bool]] = [at >= bindparam("start"), at < bindparam("end")]
    values: dict[str, Any] = {"start": start, "end": end}
    if tenant_id is not None:
        where.append(settlements.c.tenant_id == bindparam("tenant_id"))
        values["tenant_id"] = tenant_id
    if after is not None:
        where.append(tuple_(*_USER) > tuple_(bindparam("after_tenant"), bindparam("after_user")))
        values |= {"after_tenant": after[0], "after_user": after[1]}
    page = select(*_USER).distinct().where(*where).order_by(*_USER).limit(bindparam("most"))
    users = [(row[0], row[1]) for row in tx.rows(Statement(page), most=most + 1, **values)]
    if not users:
        return {}, None
    last = users[:most][-1]
    where.append(tuple_(*_USER) <= tuple_(bindparam("last_tenant"), bindparam("last_user")))
    rows = tx.rows(
        Statement(_summed(groups, settlements).where(*where)), last_tenant=last[0], last_user=last[1], **values
    )
    return _sums(rows, len(groups)), last if len(users) > most else None


def by_pair(
    tx: Tx,
    groups: Sequence[str],
    pair: str,
    *,
    tenant_id: str | None,
    start: int,
    end: int,
    after: Key | None,
    most: int,
) -> dict[Key, Sums]:
    """The first so many groups behind `after`, in their order; `metadata` among them stands for that pair."""
    query = _summed(groups, settlements).where(_span()).limit(bindparam("most"))
    values: dict[str, Any] = {"start": start, "end": end, "pair": pair, "most": most}
    if tenant_id is not None:
        query = query.where(settlements.c.tenant_id == bindparam("tenant_id"))
        values["tenant_id"] = tenant_id
    if after is not None:
        marks = {f"after_{place}": value for place, value in enumerate(after)}
        query = query.where(tuple_(*_values(groups, settlements)) > tuple_(*map(bindparam, marks)))
        values |= marks
    return _sums(tx.rows(Statement(query), **values), len(groups))


_CUT = Statement(select(settlements.c.at).where(_span()).order_by(settlements.c.at).limit(1).offset(bindparam("rows")))


def cut(tx: Tx, *, start: int, end: int, rows: int) -> int:
    """A moment until which there are about so many rows from `start` on; at most `end`."""
    found = tx.one(_CUT, start=start, end=end, rows=rows)
    return end if found is None else max(int(found[0]), start + 1)


# Days

_DAY_KEY = ("day", *DIMENSIONS)
_ADD_TO_DAY = Statement(
    update(spend_days)
    .where(and_(*(spend_days.c[name] == bindparam(f"of_{name}") for name in _DAY_KEY)))
    .values({name: spend_days.c[name] + bindparam(name) for name in Sums.__struct_fields__})
)
_INSERT_DAY = Statement(
    insert(spend_days).values({name: bindparam(name) for name in (*_DAY_KEY, *Sums.__struct_fields__)})
)
_TAKE_FOLDED = Statement(select(facts.c.value).where(facts.c.name == FOLDED_UNTIL).with_for_update())
_SLICE = Statement(_summed(_DAY_KEY, settlements).where(_span()))


def take_folded_until(tx: Tx) -> int:
    """The same; nobody else sums days until this unit is kept."""
    row = tx.one(_TAKE_FOLDED)
    if row is None:
        tenants.set_fact(tx, FOLDED_UNTIL, "0")
        return 0
    return int(row[0])


def fold(tx: Tx, *, until: int) -> None:
    """Adds the rows up to then to their days. Nothing may be written before it any more; taken before."""
    since = folded_until(tx)
    fresh = []
    for key, sums in _sums(tx.rows(_SLICE, start=since, end=until), len(_DAY_KEY)).items():
        place, values = dict(zip(_DAY_KEY, key, strict=True)), msgspec.structs.asdict(sums)
        if not tx.run(_ADD_TO_DAY, **{f"of_{name}": value for name, value in place.items()}, **values):
            fresh.append(place | values)
    tx.run_many(_INSERT_DAY, fresh)
    tenants.put_fact(tx, FOLDED_UNTIL, str(until))


_DAY = Statement(
    select(*(spend_days.c[name] for name in _DAY_KEY), *(spend_days.c[name] for name in Sums.__struct_fields__)).where(
        spend_days.c.day == bindparam("day")
    )
)
_NEVER = 2**62
_FIRST_DAY = Statement(select(func.min(spend_days.c.day)))
_FIRST_ROW = Statement(select(func.min(settlements.c.at)))


def _first(tx: Tx, statement: Statement) -> int:
    row = tx.one(statement)
    return _NEVER if row is None or row[0] is None else int(row[0])


def unlike_days(tx: Tx) -> Iterator[tuple[int, int]]:
    """Days whose sums are not those of their rows: the day, and by how many micro-dollars, all sums together."""
    until = folded_until(tx)
    for day in range(min(_first(tx, _FIRST_DAY), _first(tx, _FIRST_ROW) // DAY_US), until // DAY_US + 1):
        start, end = day * DAY_US, min((day + 1) * DAY_US, until)
        rows = _sums(tx.rows(_SLICE, start=start, end=end), len(_DAY_KEY))
        days = _sums(tx.rows(_DAY, day=day), len(_DAY_KEY))
        if rows != days:
            pairs = ((rows.get(key, Sums()), days.get(key, Sums())) for key in rows.keys() | days.keys())
            yield (
                day,
                sum(abs(a - b) for one, other in pairs for a, b in zip(astuple(one), astuple(other), strict=True)),
            )
