"""Money that no settlement tells of: holds that are open, and costs that nobody knows."""

from collections.abc import Iterator
from typing import Any

import msgspec
from sqlalchemy import Select, bindparam, func, select

from proxy.store.base import Statement, Tx
from proxy.store.tables import attempts, cost_is_unknown, videos


class _Spec(msgspec.Struct):
    """The part of a Spec that reports tell."""

    operation: str
    resolution: str
    tier: str


class _Plan(msgspec.Struct):
    """The part of a Plan that reports tell."""

    rule: str


_spec_of = msgspec.json.Decoder(_Spec)
_plan_of = msgspec.json.Decoder(_Plan)
_pairs_of = msgspec.json.Decoder(dict[str, str])


class Unsettled(msgspec.Struct, frozen=True, kw_only=True):
    """A hold, or an attempt whose cost is unknown; empty where there is none."""

    at: int
    """When the video was accepted, or the attempt ended."""
    tenant_id: str
    key_id: str
    end_user: str
    provider: str
    model: str
    tier: str
    operation: str
    resolution: str
    rule: str
    pairs: dict[str, str]
    """The client's metadata."""
    held_microusd: int = 0
    unknown: int = 0
    """1 for an attempt whose cost nobody knows."""


_went_at = func.coalesce(attempts.c.ended_at, attempts.c.started_at)
_FACTS = (
    videos.c.tenant_id,
    videos.c.key_id,
    videos.c.end_user,
    videos.c.model,
    videos.c.spec,
    videos.c.plan,
    videos.c.metadata,
)


def _spanning(at: Any, query: Select[Any], tenant_id: str | None) -> Statement:
    query = query.where(at >= bindparam("start"), at < bindparam("end"))
    return Statement(query if tenant_id is None else query.where(videos.c.tenant_id == bindparam("tenant_id")))


def open_holds(tx: Tx, *, tenant_id: str | None, start: int, end: int) -> Iterator[Unsettled]:
    """Of videos accepted in `[start, end)`, as they are now."""
    query = select(videos.c.created_at, videos.c.hold_microusd, *_FACTS).where(videos.c.hold == "held")
    for at, held, *facts in _rows(tx, _spanning(videos.c.created_at, query, tenant_id), tenant_id, start, end):
        yield _unsettled(at, "", facts, held_microusd=held)


def unknown_costs(tx: Tx, *, tenant_id: str | None, start: int, end: int) -> Iterator[Unsettled]:
    """Attempts that ended in `[start, end)`, or that nobody knows of, whose cost is not known now."""
    query = select(_went_at, attempts.c.provider, *_FACTS).join(videos, videos.c.id == attempts.c.video_id)
    query = query.where(cost_is_unknown)
    for at, provider, *facts in _rows(tx, _spanning(_went_at, query, tenant_id), tenant_id, start, end):
        yield _unsettled(at, provider, facts, unknown=1)


def _rows(tx: Tx, statement: Statement, tenant_id: str | None, start: int, end: int) -> list[tuple[Any, ...]]:
    values: dict[str, Any] = {"start": start, "end": end}
    if tenant_id is not None:
        values["tenant_id"] = tenant_id
    return tx.rows(statement, **values)


def _unsettled(at: int, provider: str, facts: list[Any], **amount: int) -> Unsettled:
    tenant_id, key_id, end_user, model, spec, plan, metadata = facts
    asked = _spec_of.decode(spec)
    return Unsettled(
        at=at,
        tenant_id=tenant_id,
        key_id=key_id or "",
        end_user=end_user or "",
        provider=provider,
        model=model,
        tier=asked.tier,
        operation=asked.operation,
        resolution=asked.resolution,
        rule=_plan_of.decode(plan).rule,
        pairs={} if metadata is None else _pairs_of.decode(metadata),
        **amount,
    )
