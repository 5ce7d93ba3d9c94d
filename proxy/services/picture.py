"""How the house does at one moment, as one look: sellers, queue, money. Read from the database, beside any server."""

import msgspec

from proxy.core.clock import DAY_US, SECOND_US, iso
from proxy.core.ids import NewId
from proxy.core.money import microusd_even, parse_usd, usd_text
from proxy.policy.rules import Rules
from proxy.services.allowances import Treasurer
from proxy.services.overview import ProviderLine, provider_health
from proxy.services.pulse import Pulse
from proxy.services.report import SpendQuery, all_pages, read_query, seen_in_database
from proxy.store import tenants
from proxy.store.base import Store
from proxy.telemetry.metrics import FromDatabase

TENANTS_MOST = 5
BUDGETS_MOST = 5
NEAR_RATIO = 0.8
"""Of a budget that is worth a look."""


class Seller(msgspec.Struct, frozen=True, kw_only=True):
    """A provider, with what was learned of it."""

    line: ProviderLine
    learned_s: float | None
    """From accept to file, for a film as the defaults have it, by its fastest offer; None: too little is known."""


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """What is under way."""

    queued: int
    in_progress: int
    oldest_s: int
    """Age since accept of the oldest of both; 0: there is none."""
    due_work: int
    """Rows of work that are due and that nobody has claimed."""
    overdue_s: float
    """How long the first of them has been."""
    unknown_attempts: int
    unknown_exposure_usd: str
    """What they may have cost."""


class TenantSpend(msgspec.Struct, frozen=True, kw_only=True):
    """What a tenant was charged this month."""

    tenant: str
    name: str
    videos: int
    charged_usd: str


class NearBudget(msgspec.Struct, frozen=True, kw_only=True):
    """A budget of which little is left."""

    id: str
    tenant: str
    scope: str
    period: str
    used_usd: str
    limit_usd: str
    used_ratio: float


class Spend(msgspec.Struct, frozen=True, kw_only=True):
    """Charged to tenants, less what was refunded."""

    today_usd: str
    month_usd: str
    held_usd: str
    top: tuple[TenantSpend, ...]
    """The most of the month first."""
    near: tuple[NearBudget, ...]
    """The nearest to its end first."""


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """Everything, at about one moment."""

    at: str
    sellers: tuple[Seller, ...]
    queue: Queue
    spend: Spend


class Onlooker:
    """Hears what the servers tell each other through the database, and tells them nothing."""

    def __init__(self, store: Store, rules: Rules, new_id: NewId) -> None:
        self._store = store
        self._rules = rules
        self._pulse = Pulse(store, store.clock)
        self._treasurer = Treasurer(store, store.clock, new_id)

    async def look(self) -> Picture:
        """Raises Overloaded where the database does not answer."""
        await self._pulse.beat()
        now_us = self._store.clock()
        lines = await provider_health(self._store, self._rules, self._pulse, now_us=now_us)
        seen = await seen_in_database(self._store, now_us=now_us)
        return Picture(
            at=iso(now_us),
            sellers=tuple(Seller(line=line, learned_s=self._learned_s(line.provider)) for line in lines),
            queue=_queue(seen),
            spend=await self._spend(sum(seen.held_microusd.values()), now_us),
        )

    def _learned_s(self, provider: str) -> float | None:
        defaults = self._rules.defaults
        known = [
            self._pulse.times.expected_s(offer, defaults.resolution, defaults.seconds)
            for offer in self._rules.offers.values()
            if offer.provider == provider
        ]
        return min((one for one in known if one is not None), default=None)

    async def _spend(self, held_microusd: int, now_us: int) -> Spend:
        month = read_query("tenant", None, None, None, now_us=now_us)
        today = msgspec.structs.replace(month, start=now_us - now_us % DAY_US)
        by_tenant = await self._charged(month)
        names = {one.id: one.name for one in await self._store.read(tenants.all_tenants)}
        most = sorted(by_tenant, key=lambda one: (-by_tenant[one][1], one))[:TENANTS_MOST]
        return Spend(
            today_usd=usd_text(sum(charged for _, charged in (await self._charged(today)).values())),
            month_usd=usd_text(sum(charged for _, charged in by_tenant.values())),
            held_usd=usd_text(held_microusd),
            top=tuple(
                TenantSpend(
                    tenant=one,
                    name=names.get(one, one),
                    videos=by_tenant[one][0],
                    charged_usd=usd_text(by_tenant[one][1]),
                )
                for one in most
            ),
            near=await self._near(now_us),
        )

    async def _charged(self, query: SpendQuery) -> dict[str, tuple[int, int]]:
        """Tenant to films charged and the micro-dollars for them, less refunds."""
        lines = [line async for page in all_pages(self._store, query) for line in page]
        return {
            str(line.tenant): (line.videos, charged)
            for line in lines
            if (charged := _microusd(line.charged_usd) - _microusd(line.refunded_usd))
        }

    async def _near(self, now_us: int) -> tuple[NearBudget, ...]:
        near = []
        for one in await self._treasurer.list():
            limit = one.budget.limit_at(now_us)
            if one.used_microusd is None or one.used_microusd < NEAR_RATIO * limit:
                continue
            budget = one.budget
            near.append(
                NearBudget(
                    id=budget.id,
                    tenant=budget.tenant_id,
                    scope=budget.scope,
                    period=budget.period,
                    used_usd=usd_text(one.used_microusd),
                    limit_usd=usd_text(limit),
                    used_ratio=one.used_microusd / limit if limit else 1.0,
                )
            )
        return tuple(sorted(near, key=lambda one: -one.used_ratio)[:BUDGETS_MOST])


def _queue(seen: FromDatabase) -> Queue:
    return Queue(
        queued=seen.videos.get("queued", 0),
        in_progress=seen.videos.get("in_progress", 0),
        oldest_s=int(max(seen.oldest_age_s.values(), default=0)),
        due_work=seen.due_work,
        overdue_s=seen.work_overdue_us / SECOND_US,
        unknown_attempts=sum(seen.unknown_attempts.values()),
        unknown_exposure_usd=usd_text(sum(seen.unknown_exposure_microusd.values())),
    )


def _microusd(text: str) -> int:
    return microusd_even(parse_usd(text))
