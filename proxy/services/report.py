"""What was spent, by whom and on what; and what the database says of this moment."""

from datetime import UTC, date, datetime, time, timedelta

import msgspec

from proxy.core.clock import SECOND_US
from proxy.core.errors import InvalidValue
from proxy.core.money import usd_text
from proxy.store import ledger, videos, work
from proxy.store.base import Store, Tx
from proxy.telemetry.metrics import Gauges

_EPOCH = date(1970, 1, 1)


class SpendQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which spend: `[start, end)` in microseconds, by which groups, of one tenant or all."""

    groups: tuple[str, ...]
    start: int
    end: int
    tenant_id: str | None


class SpendLine(msgspec.Struct, frozen=True, kw_only=True):
    """One group's sums; amounts are decimal strings in USD, exact to the micro-dollar."""

    tenant: str | msgspec.UnsetType | None = msgspec.UNSET
    end_user: str | msgspec.UnsetType | None = msgspec.UNSET
    provider: str | msgspec.UnsetType | None = msgspec.UNSET
    model: str | msgspec.UnsetType | None = msgspec.UNSET
    day: str | msgspec.UnsetType | None = msgspec.UNSET
    videos: int
    charged_usd: str
    seller_usd: str
    assumed_usd: str
    markup_usd: str
    absorbed_usd: str
    unknown_costs: int


SPEND_COLUMNS = ("videos", "charged_usd", "seller_usd", "assumed_usd", "markup_usd", "absorbed_usd", "unknown_costs")


def read_query(
    group_by: str | None, start: str | None, end: str | None, tenant_id: str | None, *, now_us: int
) -> SpendQuery:
    """
    From text: groups separated by commas, days as ISO dates, `end` exclusive; without dates this month.

    Raises InvalidValue with the parameter at fault.
    """
    groups = tuple(word.strip() for word in (group_by or "tenant").split(",") if word.strip())
    odd = [word for word in groups if word not in ledger.GROUPS]
    if odd or len(set(groups)) != len(groups):
        raise InvalidValue(f"'group_by' is a list of {', '.join(ledger.GROUPS)}.", param="group_by")
    if tenant_id is None and "end_user" in groups and "tenant" not in groups:
        groups = ("tenant", *groups)  # two tenants may each have somebody of the same name
    today = datetime.fromtimestamp(now_us / SECOND_US, UTC).date()
    first = _day("start", start) if start else today.replace(day=1)
    last = _day("end", end) if end else today + timedelta(days=1)
    if last <= first:
        raise InvalidValue("'end' must be later than 'start'.", param="end")
    return SpendQuery(groups=groups, start=_micros(first), end=_micros(last), tenant_id=tenant_id)


def _day(param: str, text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise InvalidValue(f"'{param}' must be a day such as 2026-11-21.", param=param) from None


def _micros(day: date) -> int:
    return int(datetime.combine(day, time(), UTC).timestamp()) * SECOND_US


async def spend(store: Store, query: SpendQuery) -> list[SpendLine]:
    """The ledger's own sums, in one snapshot with the count of costs that nobody knows."""

    def unit(tx: Tx) -> list[SpendLine]:
        where = {"tenant_id": query.tenant_id, "start": query.start, "end": query.end}
        rows = ledger.spend(tx, query.groups, **where)  # type: ignore[arg-type]  # the keys are the parameters
        unknown = ledger.unknown_costs(tx, query.groups, **where)  # type: ignore[arg-type]  # the same
        lines = [_line(row.keys, row, unknown.pop(tuple(row.keys.values()), 0)) for row in rows]
        nothing = ledger.SpendRow(
            keys={},
            videos=0,
            charged_microusd=0,
            seller_microusd=0,
            assumed_microusd=0,
            markup_microusd=0,
            absorbed_microusd=0,
        )
        lines += [
            _line(dict(zip(query.groups, key, strict=True)), nothing, count)
            for key, count in sorted(unknown.items(), key=str)
        ]
        # Without groups there is a line of sums over nothing, too.
        return [line for line in lines if query.groups or line.unknown_costs or any(row.anything for row in rows)]

    return await store.read(unit)


def _line(keys: dict[str, str | None], row: ledger.SpendRow, unknown: int) -> SpendLine:
    told: dict[str, str | None] = dict(keys)
    if told.get("day") is not None:
        told["day"] = (_EPOCH + timedelta(days=int(told["day"] or 0))).isoformat()
    return SpendLine(
        **told,
        videos=row.videos,
        charged_usd=usd_text(row.charged_microusd),
        seller_usd=usd_text(row.seller_microusd),
        assumed_usd=usd_text(row.assumed_microusd),
        markup_usd=usd_text(row.markup_microusd),
        absorbed_usd=usd_text(row.absorbed_microusd),
        unknown_costs=unknown,
    )


async def gauges(
    store: Store, *, now_us: int, free_bytes: dict[str, int], used_bytes: dict[str, int], breakers: dict[str, int]
) -> Gauges:
    """What a scrape shows of the database."""

    def unit(tx: Tx) -> Gauges:
        counts = videos.live_counts(tx)
        unknown = videos.unknown_by_provider(tx)
        return Gauges(
            videos={status: count for status, count, _ in counts},
            oldest_age_s={status: (now_us - oldest) / SECOND_US for status, _, oldest in counts},
            unknown_attempts={provider: count for provider, (count, _) in unknown.items()},
            unknown_exposure_microusd={provider: exposure for provider, (_, exposure) in unknown.items()},
            held_microusd=videos.held_by_tenant(tx),
            store_free_bytes=free_bytes,
            store_used_bytes=used_bytes,
            due_work=work.overdue(tx),
            breakers=breakers,
        )

    return await store.read(unit)
