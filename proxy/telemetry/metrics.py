"""
Every metric: its name, its unit, its labels, and what moves it.

Labels come from closed sets: what the configuration names, or a fixed list here. Any other value reads
`other`, and no family grows beyond its allowance, so that all together stay under SERIES_BUDGET
whatever strangers send. Methods may be called from any thread.
"""

from collections import Counter as Counts
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import product
from types import MappingProxyType
from typing import Any, Final, Literal

import msgspec
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from proxy.core.budget import BudgetScope, Period
from proxy.core.errors import FailureKind
from proxy.core.video import Status, VideoFailure
from proxy.telemetry.families import ANY, OTHER, Family, Registry, closed, named, summed

SERIES_BUDGET: Final = 5_000
"""Series per replica, a histogram's buckets counted one by one."""
TENANT_LABELS: Final = 100
"""The oldest tenants have a label of their own, the rest share `other`."""
CHARGED_SERIES: Final = 200
"""Pairs of tenant and model."""
ROUTE_LABELS: Final = 60
"""Pairs of route and method with labels of their own, the rest share `other`."""

OFFER_LABELS: Final = 60
"""Offers whose breakers and times are shown."""
BUDGET_LABELS: Final = 60
"""Budgets of whole tenants that are shown, the fullest."""

REQUEST_BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
VIDEO_BUCKETS_S: Final = (5.0, 10.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0, 180.0, 300.0, 600.0, 900.0, 1800.0)

Strategy = Literal["cheapest", "fastest", "balanced", "ordered", "weighted"]
Exchange = Literal["submit", "poll", "fetch", "cancel", "find"]
Repeated = Literal["submit", "poll", "find"]
ExchangeOutcome = Literal["ok", FailureKind, "unknown", "garbled", "not_sent", "interrupted", "lost"]
FallbackReason = Literal[
    "throttled",
    "capacity",
    "provider_error",
    "seller_timeout",
    "account",
    "invalid_input",
    "moderation",
    "unknown",
    "lost",
]
VideoOutcome = Literal["completed", VideoFailure]
CostOutcome = Literal["delivered", "failed", "undelivered", "abandoned", "double"]
AbsorbedReason = Literal["failed_attempt", "overrun", "undelivered", "abandoned", "unknown", "double"]
CallbackOutcome = Literal["accepted", "ignored", "refused", "healed"]
Store = Literal["database", "files"]
LimitReason = Literal["key_requests", "tenant_requests", "key_in_flight", "tenant_in_flight"]

_CODE_CLASSES: Final = {2: "2xx", 4: "4xx", 5: "5xx"}
_WAITING: Final = ("queued", "in_progress")
_MICRO: Final = 1_000_000


class FromDatabase(msgspec.Struct, frozen=True, kw_only=True):
    """What is read from the database for a scrape; every replica reads the same."""

    videos: dict[str, int]
    """Status to videos; `queued` and `in_progress` are zero where absent."""
    oldest_age_s: dict[str, float]
    """Status to the age since accept of the oldest video in it; the same."""
    unknown_attempts: dict[str, int]
    """Provider to attempts that may or may not have bought."""
    unknown_exposure_microusd: dict[str, int]
    """Provider to what those would cost if all had bought."""
    held_microusd: dict[str, int]
    """Tenant id to money held."""
    budgets_microusd: dict[tuple[str, str], tuple[int, int]]
    """Tenant id, and scope and period of its budget as in `tenant_month`, to what is used of it and its limit."""
    due_work: int
    """Rows of work that are due and that nobody has claimed."""
    work_overdue_us: int
    """How long the first of them has been; 0 where there is none."""
    ledger_drift_microusd: int
    """By how much the books differ in themselves, as far as they were compared."""
    ledger_checked_at_us: int
    """When they were compared; 0: not yet."""


class Gauges(msgspec.Struct, frozen=True, kw_only=True):
    """What is looked up for a scrape."""

    database: FromDatabase | None
    """None: it does not answer."""
    store_free_bytes: dict[str, int]
    store_used_bytes: dict[str, int]
    clock_ahead_us: int
    """By how much time here is ahead of the clock that it follows."""
    breakers: dict[str, int]
    """Offer to 0 closed, 1 half-open, 2 open, as this replica sees them."""
    learned_s: dict[str, float]
    """Offer to the time from accept to file of a film by the defaults of the rules, where enough was learned."""
    stated_s: dict[str, float]
    """The same by the catalogue."""


class _Route(msgspec.Struct, frozen=True):
    """The bound children of one route and method."""

    by_class: dict[int, Counter]
    """First digit of the status to its counter."""
    unclassed: Counter
    seconds: Histogram


class _Snapshot(Collector):
    """The last Gauges as metrics, all changed at once; before the first there are no samples."""

    def __init__(self, providers: frozenset[str], tenant_label: Callable[[str], str]) -> None:
        self.latest: Gauges | None = None
        self.tenants: tuple[str, ...] = ()
        self.providers = providers
        self._tenant_label = tenant_label

    def describe(self) -> tuple[Metric, ...]:
        """Nothing: the registry would take the gauge `reelay_videos` for the counter `reelay_videos_total`."""
        return ()

    def collect(self) -> Iterator[Metric]:
        values = self._values(self.latest) if self.latest else {}
        for name, text, labels in _LOOKED_UP:
            family = GaugeMetricFamily(name, text, labels=labels)
            for value, number in values.get(name, {}).items():
                family.add_metric(value[: len(labels)], number)
            yield family

    def _values(self, now: Gauges) -> dict[str, dict[tuple[str, ...], float]]:
        """Metric to label values to number."""
        budgets = {} if now.database is None else self._budgets(now.database)
        single = {**self._of_replica(now), **({} if now.database is None else self._of_database(now.database))}
        return budgets | {name: {(value,): n for value, n in numbers.items()} for name, numbers in single.items()}

    def _of_replica(self, now: Gauges) -> dict[str, dict[str, float]]:
        """Metric to label value to number; so the next one."""
        stores = named(Store)
        return {
            "reelay_store_free_bytes": summed(now.store_free_bytes, lambda s: closed(s, stores)),
            "reelay_store_used_bytes": summed(now.store_used_bytes, lambda s: closed(s, stores)),
            "reelay_clock_ahead_seconds": {"": now.clock_ahead_us / _MICRO},
            "reelay_breaker_state": _most(now.breakers, OFFER_LABELS),
            "reelay_offer_learned_seconds": _most(now.learned_s, OFFER_LABELS),
            "reelay_offer_stated_seconds": _most(now.stated_s, OFFER_LABELS),
        }

    def _budgets(self, now: FromDatabase) -> dict[str, dict[tuple[str, ...], float]]:
        used: Counts[tuple[str, ...]] = Counts()
        limits: Counts[tuple[str, ...]] = Counts()
        for (tenant, bound), (used_microusd, limit_microusd) in now.budgets_microusd.items():
            used[self._tenant_label(tenant), bound] += used_microusd
            limits[self._tenant_label(tenant), bound] += limit_microusd
        fullest = sorted(limits, key=lambda labels: -used[labels] / max(limits[labels], 1))[:BUDGET_LABELS]
        return {
            "reelay_budget_used_usd": {labels: used[labels] / _MICRO for labels in fullest},
            "reelay_budget_limit_usd": {labels: limits[labels] / _MICRO for labels in fullest},
        }

    def _of_database(self, now: FromDatabase) -> dict[str, dict[str, float]]:
        providers = self.providers
        return {
            "reelay_videos": _by_state(now.videos),
            "reelay_video_oldest_age_seconds": _by_state(now.oldest_age_s),
            "reelay_unknown_attempts": summed(now.unknown_attempts, lambda p: closed(p, providers), providers),
            "reelay_unknown_exposure_usd": summed(
                _usd(now.unknown_exposure_microusd), lambda p: closed(p, providers), providers
            ),
            "reelay_held_usd": summed(_usd(now.held_microusd), self._tenant_label, self.tenants),
            "reelay_due_work": {"": now.due_work},
            "reelay_work_overdue_seconds": {"": now.work_overdue_us / _MICRO},
            "reelay_ledger_drift_usd": _usd({"": now.ledger_drift_microusd}),
            "reelay_ledger_last_check_timestamp_seconds": {"": now.ledger_checked_at_us / _MICRO},
        }


_LOOKED_UP: Final[tuple[tuple[str, str, list[str]], ...]] = (
    (
        "reelay_videos",
        "Videos by status, as the database has them at the scrape; every replica says the same.",
        ["state"],
    ),
    (
        "reelay_video_oldest_age_seconds",
        "Age since accept of the oldest video in a status, by the database at the scrape; 0 where there is none.",
        ["state"],
    ),
    (
        "reelay_unknown_attempts",
        "Attempts that may or may not have bought, by the database at the scrape.",
        ["provider"],
    ),
    (
        "reelay_unknown_exposure_usd",
        "What the unknown attempts would cost if all had bought, by the database at the scrape.",
        ["provider"],
    ),
    (
        "reelay_held_usd",
        "Money held for videos whose cost is not known yet, by the database at the scrape.",
        ["tenant"],
    ),
    (
        "reelay_store_free_bytes",
        "Bytes that can still be written where a store lies, measured at the scrape.",
        ["store"],
    ),
    ("reelay_store_used_bytes", "Bytes used on the disk of a store, by whomever, measured at the scrape.", ["store"]),
    (
        "reelay_ledger_drift_usd",
        "By how much postings, holds and reports differ, as far as they were compared; `reelay audit` says where.",
        [],
    ),
    (
        "reelay_ledger_last_check_timestamp_seconds",
        "When the books were last compared, by the database at the scrape; 0 if never.",
        [],
    ),
    ("reelay_due_work", "Rows of work that are due and unclaimed, by the database at the scrape.", []),
    (
        "reelay_work_overdue_seconds",
        "How long the first of the due and unclaimed rows of work has been due, by the database; 0 where none is.",
        [],
    ),
    (
        "reelay_clock_ahead_seconds",
        "By how much time here is ahead of the clock that it follows, for that was set back; below 0: set forward.",
        [],
    ),
    (
        "reelay_breaker_state",
        "0 closed, 1 half-open, 2 open: whether an offer is asked just now, as this replica sees it; at most 60.",
        ["offer"],
    ),
    (
        "reelay_offer_learned_seconds",
        "Expected from accept to file, by films of late, at the rules' default length and size; at most 60 offers.",
        ["offer"],
    ),
    (
        "reelay_offer_stated_seconds",
        "The same by catalogue and rules, which holds while too little was learned; at most 60 offers.",
        ["offer"],
    ),
    (
        "reelay_budget_used_usd",
        "Held and charged against budgets of whole tenants in this period, by the database; the 60 fullest.",
        ["tenant", "reason"],
    ),
    (
        "reelay_budget_limit_usd",
        "What those budgets allow, raises included, by the database; shadow ones are not among them.",
        ["tenant", "reason"],
    ),
)
"""Name, help and labels of what a snapshot fills."""


class Metrics:
    """
    The metrics of one app, in a registry of their own.

    `routes` maps a path's template to its methods. What is not named here or by `set_names` reads `other`.
    """

    def __init__(
        self,
        version: str,
        *,
        providers: Collection[str],
        models: Collection[str],
        offers: Collection[str],
        rules: Collection[str],
        routes: Mapping[str, Collection[str]] = MappingProxyType({}),
    ) -> None:
        self.registry = Registry(auto_describe=True)
        self.offers = frozenset(offers)
        self._models = frozenset(models)
        self._families: list[Family[Any]] = []
        self._tenants: frozenset[str] = frozenset()
        self._snapshot = _Snapshot(frozenset(providers), self.tenant_label)
        self._declare_requests(routes)
        self._declare_routing(frozenset(providers), frozenset(rules))
        self._declare_exchanges(frozenset(providers))
        self._declare_videos(frozenset(models))
        self._declare_money(frozenset(providers), frozenset(models))
        self.registry.register(self._snapshot)
        build = Gauge(
            "reelay_build_info", "Always 1; the label names the version.", ["version"], registry=self.registry
        )
        build.labels(version).set(1)
        self._reload_success = Gauge(
            "reelay_config_last_reload_success",
            "Whether the rules could be put in force when they were last read: 1 or 0.",
            registry=self.registry,
        )
        self._reload_at = Gauge(
            "reelay_config_last_reload_timestamp_seconds",
            "Since when the rules in force are in force, Unix time; a reload that was refused leaves it as it is.",
            registry=self.registry,
        )

    def _declare_requests(self, routes: Mapping[str, Collection[str]]) -> None:
        requests = Counter(
            "reelay_http_requests_total",
            "Requests, counted when the last byte of the answer has left or the client has gone.",
            ["route", "method", "code_class"],
            registry=self.registry,
        )
        seconds = Histogram(
            "reelay_http_request_duration_seconds",
            "Time from a request's head to the last byte of its answer, without what a client wished to wait.",
            ["route", "method"],
            buckets=REQUEST_BUCKETS_S,
            registry=self.registry,
        )
        self._in_progress = 0
        Gauge(
            "reelay_http_requests_in_progress", "Requests begun and not yet answered in full.", registry=self.registry
        ).set_function(lambda: self._in_progress)

        def bind(route: str, method: str) -> _Route:
            return _Route(
                {digit: requests.labels(route, method, name) for digit, name in _CODE_CLASSES.items()},
                requests.labels(route, method, OTHER),
                seconds.labels(route, method),
            )

        pairs = [(route, method) for route, methods in routes.items() for method in sorted(methods)]
        self._routes = {pair: bind(*pair) for pair in pairs[:ROUTE_LABELS]}
        self._other_route = bind(OTHER, OTHER)

        self._rate_limited = self._counters(
            "reelay_rate_limited_total",
            "Requests refused by a limit, counted at the answer: too many a minute, or too many videos under way.",
            {"tenant": ANY, "reason": named(LimitReason)},
            at_most=120,
            sheds=("tenant",),
        )

    def _declare_routing(self, providers: frozenset[str], rules: frozenset[str]) -> None:
        self._decisions = self._counters(
            "reelay_route_decisions_total",
            "Plans, counted when a video is accepted: the rule that matched, who is tried first, by which strategy.",
            {"rule": rules, "provider": providers, "reason": named(Strategy)},
            at_most=160,
            sheds=("rule",),
        )
        self._fallbacks = self._counters(
            "reelay_fallbacks_total",
            "Moves of a video to another provider, counted when the next attempt is written down.",
            {"from_provider": providers, "to_provider": providers, "reason": named(FallbackReason)},
            at_most=160,
            sheds=("from_provider", "to_provider"),
        )
        self._possible_doubles = self._counters(
            "reelay_possible_double_total",
            "Submits sent elsewhere while this provider may have bought already, counted when they are written down.",
            {"provider": providers},
            at_most=20,
            sheds=("provider",),
        )

    def _declare_exchanges(self, providers: frozenset[str]) -> None:
        self._attempts = self._counters(
            "reelay_provider_attempts_total",
            "Exchanges with a seller, counted when each ends; `fetch` asks for the file or its link.",
            {"provider": providers, "operation": named(Exchange), "outcome": named(ExchangeOutcome)},
            at_most=480,
            sheds=("provider",),
        )
        self._exchange_seconds = self._histograms(
            "reelay_provider_request_duration_seconds",
            "Time from opening or borrowing a connection to the end of an exchange with a seller, observed then.",
            {"provider": providers, "operation": named(Exchange)},
            at_most=30,
            sheds=("provider", "operation"),
        )
        self._film_seconds = self._histograms(
            "reelay_provider_film_duration_seconds",
            "Time from a submit's begin until its seller had made the film, observed when that is committed.",
            {"provider": providers},
            at_most=10,
            sheds=("provider",),
            buckets=VIDEO_BUCKETS_S,
        )
        self._poll_lag = self._histograms(
            "reelay_poll_lag_seconds",
            "How long after its due time a poll began, observed when it begins.",
            {"provider": providers},
            at_most=10,
            sheds=("provider",),
        )
        self._callbacks = self._counters(
            "reelay_callbacks_total",
            "Sellers' callbacks, counted when answered; `healed` named the order of an unknown attempt.",
            {"provider": providers, "outcome": named(CallbackOutcome)},
            at_most=60,
            sheds=("provider",),
        )
        self._store_errors = self._counters(
            "reelay_store_errors_total",
            "Units of work that the database did not do for reasons of its own, and files that the storage did not"
            " take, give or remove, counted at each failure.",
            {"store": named(Store)},
            at_most=2,
            sheds=(),
        )
        self._put_off = self._counters(
            "reelay_retries_put_off_total",
            "Submits, polls and asks for lost orders that were to be made again and had to wait for leave, each time.",
            {"provider": providers, "operation": named(Repeated)},
            at_most=50,
            sheds=("provider",),
        )
        self._lease_lost = Counter(
            "reelay_job_lease_lost_total",
            "State changes given up because another worker held the work by then, counted at the refusal.",
            registry=self.registry,
        )

    def _declare_videos(self, models: frozenset[str]) -> None:
        self._videos = self._counters(
            "reelay_videos_total",
            "Videos that reached their end, counted once each when it is committed.",
            {"model": models, "outcome": named(VideoOutcome), "tenant": ANY},
            at_most=330,
            sheds=("tenant",),
        )
        self._video_seconds = self._histograms(
            "reelay_video_duration_seconds",
            "Time from accept to completed, observed when that is committed; failed videos are not in it.",
            {"model": models},
            at_most=11,
            sheds=("model",),
            buckets=VIDEO_BUCKETS_S,
        )

    def _declare_money(self, providers: frozenset[str], models: frozenset[str]) -> None:
        self._charged = self._counters(
            "reelay_charged_usd_total",
            "What tenants were charged, added when a settlement is committed; a copy, the ledger is the truth.",
            {"tenant": ANY, "model": models},
            at_most=CHARGED_SERIES,
            sheds=("tenant",),
        )
        self._seller_costs = self._counters(
            "reelay_seller_cost_usd_total",
            "What sellers took, added when an attempt's cost is committed; a copy, the ledger is the truth.",
            {"provider": providers, "model": models, "outcome": named(CostOutcome)},
            at_most=200,
            sheds=("provider",),
        )
        self._absorbed = self._counters(
            "reelay_absorbed_usd_total",
            "What sellers took and no tenant was charged for, added when it is committed; a copy as well.",
            {"reason": named(AbsorbedReason)},
            at_most=10,
            sheds=(),
        )
        self._delivered_seconds, self._expected_costs = (
            self._counters(name, text, {"provider": providers}, at_most=10, sheds=("provider",))
            for name, text in (
                ("reelay_delivered_film_seconds_total", "Seconds of film delivered and billed, added at settlement."),
                (
                    "reelay_expected_cost_usd_total",
                    "What sellers' prices at accept make of the films they delivered, added at settlement.",
                ),
            )
        )
        self._delivered_charges, self._at_first, self._at_dearest = (
            self._counters(name, text, {"model": models}, at_most=11, sheds=("model",))
            for name, text in (
                ("reelay_delivered_usd_total", "What tenants were charged for films delivered, added at settlement."),
                ("reelay_at_first_usd_total", "What the same films would have cost them at the plan's first offer."),
                ("reelay_at_dearest_usd_total", "And at the dearest offer that could have made them."),
            )
        )
        self._cost_differences = self._counters(
            "reelay_cost_differences_total",
            "Deliveries whose seller says it took another amount than its price makes, beyond the tolerance.",
            {"provider": providers},
            at_most=60,
            sheds=("provider",),
        )
        bounds = frozenset(f"{scope}_{period}" for scope in named(BudgetScope) for period in named(Period))
        self._budget_rejections = self._counters(
            "reelay_budget_rejections_total",
            "Requests refused because a budget left too little, counted at the answer; the reason is whose budget.",
            {"tenant": ANY, "reason": bounds},
            at_most=60,
            sheds=("tenant",),
        )
        self._budget_warnings = self._counters(
            "reelay_budget_warnings_total",
            "Videos with which a budget reached a share at which a warning is due, counted when they are accepted.",
            {"tenant": ANY, "reason": bounds},
            at_most=60,
            sheds=("tenant",),
        )
        self._budget_shadow_rejections = self._counters(
            "reelay_budget_shadow_rejections_total",
            "Videos that a budget in shadow mode would have refused, counted when they are accepted.",
            {"tenant": ANY, "reason": bounds},
            at_most=60,
            sheds=("tenant",),
        )

    def _counters(
        self, name: str, text: str, labels: Mapping[str, frozenset[str]], *, at_most: int, sheds: Collection[str]
    ) -> Family[Counter]:
        counter = Counter(name, text, list(labels), registry=self.registry)
        family = Family(counter, labels, at_most=at_most, sheds=sheds)
        self._families.append(family)
        return family

    def _histograms(
        self,
        name: str,
        text: str,
        labels: Mapping[str, frozenset[str]],
        *,
        at_most: int,
        sheds: Collection[str],
        buckets: tuple[float, ...] = REQUEST_BUCKETS_S,
    ) -> Family[Histogram]:
        histogram = Histogram(name, text, list(labels), buckets=buckets, registry=self.registry)
        family = Family(histogram, labels, at_most=at_most, sheds=sheds)
        self._families.append(family)
        return family

    def set_names(
        self, *, providers: Collection[str], models: Collection[str], offers: Collection[str], rules: Collection[str]
    ) -> None:
        """
        Gives what the rules name labels of their own, as a start under them would.

        What they named before and name no more has its series ended.
        """
        self.offers = frozenset(offers)
        self._models = frozenset(models)
        self._snapshot.providers = frozenset(providers)
        values = {"provider": providers, "model": models, "offer": offers, "rule": rules}
        values |= {"from_provider": providers, "to_provider": providers}
        for family in self._families:
            family.close({label: frozenset(names) for label, names in values.items()})
        self._begin_with_tenants()

    def set_tenants(self, ids_in_order_of_age: Iterable[str]) -> None:
        """Gives the oldest tenants labels of their own; to be told again when tenants are added."""
        oldest = tuple(tenant for tenant, _ in zip(ids_in_order_of_age, range(TENANT_LABELS), strict=False))
        self._tenants = frozenset(oldest)
        self._snapshot.tenants = oldest
        self._begin_with_tenants()

    def _begin_with_tenants(self) -> None:
        """What they will be charged stands at zero, for rate() to see the first step, where there is room for all."""
        if len(self._models) * TENANT_LABELS > CHARGED_SERIES:
            return
        for model, tenant in product(self._models, self._snapshot.tenants):
            self._charged.child(tenant, model)
            self._videos.child(model, "completed", tenant)

    def tenant_label(self, tenant_id: str) -> str:
        return closed(tenant_id, self._tenants)

    def request_started(self) -> None:
        self._in_progress += 1

    def request_ended(self, *, route: str, method: str, status: int, seconds: float) -> None:
        """`route` is the template, never the path; follows exactly one `request_started`."""
        bound = self._routes.get((route, method), self._other_route)
        bound.by_class.get(status // 100, bound.unclassed).inc()
        bound.seconds.observe(seconds)
        self._in_progress -= 1

    def decision(self, *, rule: str, provider: str, reason: str) -> None:
        """`provider` is the first candidate, `reason` the strategy that put it there."""
        self._decisions.child(rule, provider, reason).inc()

    def exchange(self, *, provider: str, operation: str, outcome: str, seconds: float) -> None:
        """One HTTP exchange with a seller, or the try; `outcome` as in ExchangeOutcome."""
        self._attempts.child(provider, operation, outcome).inc()
        self._exchange_seconds.child(provider, operation).observe(seconds)

    def fallback(self, *, from_provider: str, to_provider: str, reason: str) -> None:
        self._fallbacks.child(from_provider, to_provider, reason).inc()

    def double_submit_possible(self, *, provider: str) -> None:
        """Another offer is asked although `provider` may have bought already."""
        self._possible_doubles.child(provider).inc()

    def video_ended(self, *, model: str, outcome: str, tenant: str, seconds: float | None) -> None:
        """`outcome` is `completed` or the failure's code; `seconds` since accept count for `completed` alone."""
        self._videos.child(model, outcome, self.tenant_label(tenant)).inc()
        if outcome == "completed" and seconds is not None:
            self._video_seconds.child(model).observe(seconds)

    def charged(self, *, tenant: str, model: str, microusd: int) -> None:
        self._charged.child(self.tenant_label(tenant), model).inc(microusd / _MICRO)

    def seller_cost(self, *, provider: str, model: str, outcome: str, microusd: int) -> None:
        """`outcome` is what became of the attempt, as in CostOutcome."""
        self._seller_costs.child(provider, model, outcome).inc(microusd / _MICRO)

    def absorbed(self, *, reason: str, microusd: int) -> None:
        """`reason` is the ledger account's second part."""
        self._absorbed.child(reason).inc(microusd / _MICRO)

    def film_made(self, *, provider: str, seconds: float) -> None:
        """`seconds` since its submit began."""
        self._film_seconds.child(provider).observe(seconds)

    def delivered(
        self,
        *,
        provider: str,
        model: str,
        film_s: int,
        expected_microusd: int,
        charged_microusd: int,
        at_first_microusd: int,
        at_dearest_microusd: int,
    ) -> None:
        """A film that its tenant pays for; `expected_microusd` is what its seller's price makes of it."""
        self._delivered_seconds.child(provider).inc(film_s)
        self._expected_costs.child(provider).inc(expected_microusd / _MICRO)
        self._delivered_charges.child(model).inc(charged_microusd / _MICRO)
        self._at_first.child(model).inc(at_first_microusd / _MICRO)
        self._at_dearest.child(model).inc(at_dearest_microusd / _MICRO)

    def cost_differs(self, *, provider: str) -> None:
        self._cost_differences.child(provider).inc()

    def budget_rejected(self, *, tenant: str, reason: str) -> None:
        """`reason` is scope and period of the budget, as in `end_user_month`."""
        self._budget_rejections.child(self.tenant_label(tenant), reason).inc()

    def budget_warned(self, *, tenant: str, reason: str) -> None:
        self._budget_warnings.child(self.tenant_label(tenant), reason).inc()

    def budget_shadow_rejected(self, *, tenant: str, reason: str) -> None:
        self._budget_shadow_rejections.child(self.tenant_label(tenant), reason).inc()

    def rate_limited(self, *, tenant: str, reason: str) -> None:
        """`reason` as in LimitReason: whose limit, and on what."""
        self._rate_limited.child(self.tenant_label(tenant), reason).inc()

    def poll_lag(self, *, provider: str, seconds: float) -> None:
        self._poll_lag.child(provider).observe(seconds)

    def store_failed(self, *, store: Store) -> None:
        """It was full, locked, away or broken."""
        self._store_errors.child(store).inc()

    def put_off(self, *, provider: str, operation: str) -> None:
        """`operation` as in Repeated."""
        self._put_off.child(provider, operation).inc()

    def lease_lost(self) -> None:
        self._lease_lost.inc()

    def callbacks(self, *, provider: str, outcome: str) -> None:
        self._callbacks.child(provider, outcome).inc()

    def rules_read(self, *, in_force_at_us: int | None) -> None:
        """The rules were read, and put in force at that time; None: they were refused."""
        self._reload_success.set(in_force_at_us is not None)
        if in_force_at_us is not None:
            self._reload_at.set(in_force_at_us / _MICRO)

    def snapshot(self, gauges: Gauges) -> None:
        """Replaces what the gauges of database, disks and clock show."""
        self._snapshot.latest = gauges

    def render(self, accept: str | None) -> tuple[bytes, str]:
        """Text for a scraper and its content type, OpenMetrics where `accept` asks for it; takes milliseconds."""
        return self.registry.render(accept)


def _most(numbers: Mapping[str, float], most: int) -> dict[str, float]:
    """So many, the highest first."""
    return dict(sorted(numbers.items(), key=lambda one: -one[1])[:most])


def _by_state(numbers: Mapping[str, float]) -> dict[str, float]:
    states = named(Status)
    return summed(numbers, lambda state: closed(state, states), _WAITING)


def _usd(microusd: Mapping[str, int]) -> dict[str, float]:
    return {name: amount / _MICRO for name, amount in microusd.items()}
