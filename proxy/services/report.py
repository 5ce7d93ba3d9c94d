"""What was spent, by whom and on what; and what the database says of this moment."""

import asyncio
import base64
import binascii
import re
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import msgspec

from proxy.core.clock import DAY_US, SECOND_US
from proxy.core.errors import InvalidValue
from proxy.core.money import usd_text
from proxy.services.audit import CHECKED_AT, DRIFT
from proxy.store import budgets, settlements, tenants, unsettled, videos, work
from proxy.store.base import Store, Tx
from proxy.store.settlements import Key, Sums
from proxy.store.unsettled import Unsettled
from proxy.telemetry.metrics import FromDatabase

_EPOCH = date(1970, 1, 1)
_NEVER = 2**62
_COLUMN = {"tenant": "tenant_id", "key": "key_id"}
"""Groups that the tables call otherwise."""
GROUPS = (
    "tenant",
    "end_user",
    "key",
    "provider",
    "model",
    "tier",
    "operation",
    "resolution",
    "rule",
    "outcome",
    "day",
    "month",
)
"""What spend can be told by, beside `metadata.<key>`."""
PAIR = "metadata."
LINES, LINES_MOST = 1000, 10_000
"""Of a page, where nothing is said, and at the most."""
LINES_AT_ONCE = 50_000
"""Of a report that is written as a whole."""
ROWS_AT_ONCE = 250_000
"""Settlements that are summed by metadata in one read: others have their turn between two of them."""


class SpendQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which spend: `[start, end)` in microseconds, both midnights; by which groups; of one tenant or all."""

    groups: tuple[str, ...]
    start: int
    end: int
    tenant_id: str | None
    after: Key | None = None
    """Where the page before ended."""
    limit: int = LINES
    """Lines of a page; by end user so many of these, each with all of its lines."""

    @property
    def pair(self) -> str | None:
        """The metadata key among the groups."""
        return next((name.removeprefix(PAIR) for name in self.groups if name.startswith(PAIR)), None)

    @property
    def columns(self) -> tuple[str, ...]:
        """The groups as the tables call them, in the order of the lines: end users first, tenant by tenant."""
        names = [_COLUMN.get(name, "metadata" if name.startswith(PAIR) else name) for name in self.groups]
        if self.by_end_user:
            names = ["tenant_id", "end_user", *(name for name in names if name not in {"tenant_id", "end_user"})]
        return tuple(names)

    @property
    def by_end_user(self) -> bool:
        """Whether pages are cut by end user; metadata is cut by its values."""
        return "end_user" in self.groups and self.pair is None


class SpendLine(msgspec.Struct, frozen=True, kw_only=True):
    """
    One group's sums; amounts are decimal strings in USD, exact to the micro-dollar.

    Null as a group's value: there is none. An erased end user is told by its surrogate.
    """

    tenant: str | msgspec.UnsetType | None = msgspec.UNSET
    end_user: str | msgspec.UnsetType | None = msgspec.UNSET
    key: str | msgspec.UnsetType | None = msgspec.UNSET
    """Id of the API key."""
    provider: str | msgspec.UnsetType | None = msgspec.UNSET
    model: str | msgspec.UnsetType | None = msgspec.UNSET
    tier: str | msgspec.UnsetType | None = msgspec.UNSET
    operation: str | msgspec.UnsetType | None = msgspec.UNSET
    resolution: str | msgspec.UnsetType | None = msgspec.UNSET
    """As billed."""
    rule: str | msgspec.UnsetType | None = msgspec.UNSET
    outcome: str | msgspec.UnsetType | None = msgspec.UNSET
    """delivered, billed (but cancelled or failed), refunded, or why nobody paid what a seller took."""
    day: str | msgspec.UnsetType | None = msgspec.UNSET
    month: str | msgspec.UnsetType | None = msgspec.UNSET
    metadata: str | msgspec.UnsetType | None = msgspec.UNSET
    """Under the name that was asked for, such as metadata.team."""
    videos: int
    """Charged."""
    seconds: int
    """Delivered and billed."""
    charged_usd: str
    refunded_usd: str
    """Given back, by the day on which it was."""
    seller_usd: str
    assumed_usd: str
    """The part of it that no seller has stated: by the price list."""
    markup_usd: str
    absorbed_usd: str
    """What sellers took and no tenant pays."""
    at_first_usd: str
    """What the delivered films would have cost at the first offer of their plan."""
    at_dearest_usd: str
    """And at the dearest that could have made them."""
    held_usd: str
    """Still held for videos accepted in this time."""
    unknown_costs: int
    """Attempts whose cost nobody knows."""


SPEND_COLUMNS = SpendLine.__struct_fields__[SpendLine.__struct_fields__.index("videos") :]


class SpendPage(msgspec.Struct, frozen=True, kw_only=True):
    """Lines in the order of their groups, and where the next page begins; None: there is none."""

    lines: list[SpendLine]
    next: str | None


def read_query(
    group_by: str | None,
    start: str | None,
    end: str | None,
    tenant_id: str | None,
    *,
    now_us: int,
    limit: str | None = None,
    after: str | None = None,
) -> SpendQuery:
    """
    From text: groups separated by commas, days as ISO dates, `end` exclusive; without dates this month.

    Raises InvalidValue with the parameter at fault.
    """
    groups = tuple(word.strip() for word in (group_by or "tenant").split(",") if word.strip())
    pairs = [word for word in groups if word.startswith(PAIR)]
    odd = [word for word in groups if word not in GROUPS and word not in pairs]
    if odd or len(set(groups)) != len(groups):
        raise InvalidValue(f"'group_by' is a list of {', '.join(GROUPS)}, {PAIR}KEY.", param="group_by")
    if len(pairs) > 1 or any(word == PAIR or set(word) & set('"\\\0') for word in pairs):
        raise InvalidValue(
            f"'group_by' takes one {PAIR}KEY, and a KEY without quotation marks and backslashes.", param="group_by"
        )
    if tenant_id is None and "end_user" in groups and "tenant" not in groups:
        groups = ("tenant", *groups)  # two tenants may each have somebody of the same name
    today = datetime.fromtimestamp(now_us / SECOND_US, UTC).date()
    first = today.replace(day=1) if start is None else _day("start", start)
    last = today + timedelta(days=1) if end is None else _day("end", end)
    if last <= first:
        raise InvalidValue("'end' must be later than 'start'.", param="end")
    query = SpendQuery(groups=groups, start=_micros(first), end=_micros(last), tenant_id=tenant_id)
    return msgspec.structs.replace(query, limit=_limit(limit), after=_mark(after, query))


def _limit(text: str | None) -> int:
    if text is None:
        return LINES
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and 0 < int(text) <= LINES_MOST):
        raise InvalidValue(f"'limit' must be a whole number from 1 to {LINES_MOST}.", param="limit")
    return int(text)


def _day(param: str, text: str) -> date:
    try:
        if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
            return date.fromisoformat(text)
    except ValueError:
        pass
    raise InvalidValue(f"'{param}' must be a day such as 2026-11-21.", param=param)


def _micros(day: date) -> int:
    return int(datetime.combine(day, time(), UTC).timestamp()) * SECOND_US


def _as_text(key: Key) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(key)).decode().rstrip("=")


def _mark(text: str | None, query: SpendQuery) -> Key | None:
    """Where a page ended, as `next` told it of a query by the same groups."""
    if text is None:
        return None
    columns = query.columns[:2] if query.by_end_user else query.columns
    shape: Any = tuple[tuple(int if name == "day" else str for name in columns)]  # type: ignore[misc]  # made here
    try:
        key: Key = msgspec.json.decode(
            base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True), type=shape
        )
    except (binascii.Error, ValueError):
        key = ()
    if len(key) != len(columns) or any(abs(part) > _NEVER if isinstance(part, int) else "\0" in part for part in key):
        raise InvalidValue("'after' must be the 'next' of a report by the same groups.", param="after")
    return key


class _Totals(msgspec.Struct):
    """All of one line."""

    sums: Sums = Sums()
    held_microusd: int = 0
    unknown: int = 0

    @property
    def anything(self) -> bool:
        return bool(self.held_microusd or self.unknown or any(msgspec.structs.astuple(self.sums)))


async def spend(store: Store, query: SpendQuery) -> SpendPage:
    """One page. By metadata in several reads of what is past, else all of one moment."""
    if query.pair is not None:
        return await _by_pair(store, query, query.pair)
    return await store.read(lambda tx: _by_end_user(tx, query) if query.by_end_user else _by_days(tx, query))


async def all_pages(store: Store, query: SpendQuery) -> AsyncIterator[list[SpendLine]]:
    """The lines of the whole report, in pages so long that few looks at all the rows are needed."""
    query = msgspec.structs.replace(query, limit=LINES_AT_ONCE)
    while True:
        page = await spend(store, query)
        yield page.lines
        if page.next is None:
            return
        query = msgspec.structs.replace(query, after=_mark(page.next, query))


def _by_days(tx: Tx, query: SpendQuery) -> SpendPage:
    found = settlements.by_days(tx, query.columns, tenant_id=query.tenant_id, start=query.start, end=query.end)
    totals = _beside(tx, query, found)
    keys = sorted(key for key in totals if query.after is None or key > query.after)
    return _page(tx, query, totals, keys[: query.limit], more=len(keys) > query.limit)


def _by_end_user(tx: Tx, query: SpendQuery) -> SpendPage:
    after = None if query.after is None else (str(query.after[0]), str(query.after[1]))
    found, last = settlements.by_end_users(
        tx,
        query.columns,
        tenant_id=query.tenant_id,
        start=query.start,
        end=query.end,
        after=after,
        most=query.limit,
    )
    totals = _beside(tx, query, found)
    keys = [key for key in sorted(totals) if (after is None or key[:2] > after) and (last is None or key[:2] <= last)]
    return _page(tx, query, totals, keys, more=last is not None, mark=last)


async def _by_pair(store: Store, query: SpendQuery, pair: str) -> SpendPage:
    """
    In reads of so many rows at a time, two of them at once.

    Each gives its first groups behind the mark, so that the first of all of them are whole.
    """
    cuts = await store.read(lambda tx: _cuts(tx, query))
    turns = asyncio.Semaphore(2)

    async def part(start: int, end: int) -> dict[Key, Sums]:
        async with turns:
            return await store.read(
                lambda tx: settlements.by_pair(
                    tx,
                    query.columns,
                    pair,
                    tenant_id=query.tenant_id,
                    start=start,
                    end=end,
                    after=query.after,
                    most=query.limit + 1,
                )
            )

    found: dict[Key, Sums] = {}
    for sums in await asyncio.gather(*(part(*span) for span in cuts)):
        for key, one in sums.items():
            found[key] = found[key].plus(one) if key in found else one

    def unit(tx: Tx) -> SpendPage:
        totals = _beside(tx, query, found)
        keys = sorted(key for key in totals if query.after is None or key > query.after)
        return _page(tx, query, totals, keys[: query.limit], more=len(keys) > query.limit)

    return await store.read(unit)


def _cuts(tx: Tx, query: SpendQuery) -> list[tuple[int, int]]:
    """Spans of about so many rows; one for a single tenant, whose rows are found by themselves."""
    if query.tenant_id is not None:
        return [(query.start, query.end)]
    spans, start = [], query.start
    while start < query.end:
        end = settlements.cut(tx, start=start, end=query.end, rows=ROWS_AT_ONCE)
        spans.append((start, end))
        start = end
    return spans


def _beside(tx: Tx, query: SpendQuery, found: dict[Key, Sums]) -> dict[Key, _Totals]:
    """The sums, with what is held and what nobody knows beside them."""
    totals = {key: _Totals(sums=sums) for key, sums in found.items()}
    where: dict[str, Any] = {"tenant_id": query.tenant_id, "start": query.start, "end": query.end}
    for one in (*unsettled.open_holds(tx, **where), *unsettled.unknown_costs(tx, **where)):
        total = totals.setdefault(tuple(_value(one, name, query.pair) for name in query.columns), _Totals())
        total.held_microusd += one.held_microusd
        total.unknown += one.unknown
    return {key: total for key, total in totals.items() if total.anything}


def _value(one: Unsettled, name: str, pair: str | None) -> str | int:
    match name:
        case "day":
            return one.at // DAY_US
        case "month":
            return f"{datetime.fromtimestamp(one.at // SECOND_US, UTC):%Y-%m}"
        case "metadata":
            return one.pairs.get(pair or "", "")
        case "outcome":
            return ""
    value: str = getattr(one, name)
    return value


def _page(
    tx: Tx, query: SpendQuery, totals: dict[Key, _Totals], keys: list[Key], *, more: bool, mark: Key | None = None
) -> SpendPage:
    names = _names(tx, query, keys)
    lines = [_line(query, key, totals[key], names) for key in keys]
    return SpendPage(lines=lines, next=_as_text(mark or keys[-1]) if more else None)


def _names(tx: Tx, query: SpendQuery, keys: Iterable[Key]) -> dict[tuple[str, str], str | None]:
    """End users' own names by tenant and surrogate; None once erased."""
    if "end_user" not in query.groups:
        return {}
    of: dict[str, set[str]] = {}
    for key in keys:
        found: dict[str, Any] = dict(zip(query.columns, key, strict=True))
        of.setdefault(_tenant_of(query, found), set()).add(found["end_user"])
    return {
        (tenant_id, surrogate): name
        for tenant_id, surrogates in of.items()
        for surrogate, name in tenants.end_user_names(tx, tenant_id, sorted(surrogates)).items()
    }


def _tenant_of(query: SpendQuery, found: dict[str, Any]) -> str:
    """By end user there is always one: the query's, or that of the line."""
    return str(found.get("tenant_id", query.tenant_id))


def _line(query: SpendQuery, key: Key, total: _Totals, names: dict[tuple[str, str], str | None]) -> SpendLine:
    found: dict[str, Any] = dict(zip(query.columns, key, strict=True))
    sums = total.sums
    told: dict[str, str | None] = {}
    for group in query.groups:
        name = "metadata" if group.startswith(PAIR) else group
        told[name] = found[_COLUMN.get(name, name)] or None
    if "day" in told:
        told["day"] = (_EPOCH + timedelta(days=found["day"])).isoformat()
    if told.get("end_user") is not None:
        surrogate = found["end_user"]
        told["end_user"] = names.get((_tenant_of(query, found), surrogate)) or f"erased-{surrogate}"
    return SpendLine(
        **told,
        videos=sums.videos,
        seconds=sums.seconds,
        charged_usd=usd_text(sums.charged_microusd),
        refunded_usd=usd_text(sums.refunded_microusd),
        seller_usd=usd_text(sums.seller_microusd),
        assumed_usd=usd_text(sums.assumed_microusd),
        markup_usd=usd_text(sums.markup_microusd),
        absorbed_usd=usd_text(sums.absorbed_microusd),
        at_first_usd=usd_text(sums.at_first_microusd),
        at_dearest_usd=usd_text(sums.at_dearest_microusd),
        held_usd=usd_text(total.held_microusd),
        unknown_costs=total.unknown,
    )


async def seen_in_database(store: Store, *, now_us: int) -> FromDatabase:
    """What a scrape shows of the database."""

    def unit(tx: Tx) -> FromDatabase:
        counts = videos.live_counts(tx)
        unknown = videos.unknown_by_provider(tx)
        due_work, overdue_us = work.overdue(tx)
        return FromDatabase(
            videos={status: count for status, count, _ in counts},
            oldest_age_s={status: (now_us - oldest) / SECOND_US for status, _, oldest in counts},
            unknown_attempts={provider: count for provider, (count, _) in unknown.items()},
            unknown_exposure_microusd={provider: exposure for provider, (_, exposure) in unknown.items()},
            held_microusd=videos.held_by_tenant(tx),
            budgets_microusd={
                (budget.tenant_id, f"{budget.scope}_{budget.period}"): (used, budget.limit_at(now_us))
                for budget, used in budgets.of_whole_tenants(tx, now_us)
            },
            due_work=due_work,
            work_overdue_us=overdue_us,
            ledger_drift_microusd=int(tenants.fact(tx, DRIFT) or 0),
            ledger_checked_at_us=int(tenants.fact(tx, CHECKED_AT) or 0),
        )

    return await store.read(unit)
