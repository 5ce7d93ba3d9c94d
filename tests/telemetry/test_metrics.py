"""Each method moves exactly its series, and strangers add none."""

from collections.abc import Callable
from itertools import product
from typing import Any, Literal, get_args

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from proxy.core.budget import BudgetScope, Period
from proxy.core.errors import FailureKind
from proxy.core.video import VideoFailure
from proxy.telemetry.metrics import (
    BUDGET_LABELS,
    OFFER_LABELS,
    ROUTE_LABELS,
    SERIES_BUDGET,
    TENANT_LABELS,
    AbsorbedReason,
    CallbackOutcome,
    CostOutcome,
    Exchange,
    ExchangeOutcome,
    FallbackReason,
    FromDatabase,
    Gauges,
    LimitReason,
    Metrics,
    Repeated,
    Strategy,
    VideoOutcome,
)

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
FORBIDDEN_LABELS = {
    "end_user_id",
    "user",
    "video",
    "job",
    "request_id",
    "key_id",
    "prompt",
    "url",
    "ip",
    "path",
    "message",
}


def make_metrics(
    *, providers: int = 2, models: int = 1, offers: int = 2, rules: int = 2, routes: dict[str, list[str]] | None = None
) -> Metrics:
    return Metrics(
        "0.0.1",
        providers=[f"provider-{i}" for i in range(providers)],
        models=[f"model-{i}" for i in range(models)],
        offers=[f"offer-{i}" for i in range(offers)],
        rules=[f"rule-{i}" for i in range(rules)],
        routes=routes if routes is not None else {"/v1/videos": ["GET", "POST"], "/v1/videos/{id}": ["GET"]},
    )


def make_gauges(**given: Any) -> Gauges:
    in_database: dict[str, Any] = {
        "videos": {},
        "oldest_age_s": {},
        "unknown_attempts": {},
        "unknown_exposure_microusd": {},
        "held_microusd": {},
        "budgets_microusd": {},
        "due_work": 0,
        "work_overdue_us": 0,
        "ledger_drift_microusd": 0,
        "ledger_checked_at_us": 0,
    }
    beside: dict[str, Any] = {"breakers": {}, "learned_s": {}, "stated_s": {}}
    beside |= {"store_free_bytes": {}, "store_used_bytes": {}, "clock_ahead_us": 0}
    database = FromDatabase(**{name: given.pop(name, value) for name, value in in_database.items()})
    return Gauges(**({"database": database} | beside | given))


def series(metrics: Metrics) -> Series:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for metric in metrics.registry.collect()
        for sample in metric.samples
    }


def moved(metrics: Metrics, act: Callable[[], None]) -> dict[str, float]:
    """What `act` changed, buckets left out: `name{label=value,…}` to the difference."""
    before = series(metrics)
    act()
    return {
        f"{name}{{{','.join(f'{label}={value}' for label, value in labels)}}}": now - before.get((name, labels), 0)
        for (name, labels), now in series(metrics).items()
        if now != before.get((name, labels), 0) and not name.endswith("_bucket")
    }


def deliver(metrics: Metrics, **given: Any) -> None:
    sums: dict[str, Any] = {"film_s": 4, "expected_microusd": 1, "charged_microusd": 2, "at_first_microusd": 3}
    names: dict[str, Any] = {"provider": "provider-0", "model": "model-0"}
    metrics.delivered(**(names | {"at_dearest_microusd": 4} | sums | given))


def test_a_request_counts_by_template_method_and_class() -> None:
    metrics = make_metrics()
    assert moved(metrics, metrics.request_started) == {"reelay_http_requests_in_progress{}": 1}
    ended = moved(metrics, lambda: metrics.request_ended(route="/v1/videos", method="POST", status=429, seconds=0.25))
    assert ended == {
        "reelay_http_requests_in_progress{}": -1,
        "reelay_http_requests_total{code_class=4xx,method=POST,route=/v1/videos}": 1,
        "reelay_http_request_duration_seconds_count{method=POST,route=/v1/videos}": 1,
        "reelay_http_request_duration_seconds_sum{method=POST,route=/v1/videos}": 0.25,
    }


@pytest.mark.parametrize(
    ("status", "code_class"), [(200, "2xx"), (206, "2xx"), (404, "4xx"), (503, "5xx"), (304, "other"), (101, "other")]
)
def test_a_status_reads_as_its_class(status: int, code_class: str) -> None:
    metrics = make_metrics()
    ended = moved(metrics, lambda: metrics.request_ended(route="/v1/videos", method="GET", status=status, seconds=1))
    assert f"reelay_http_requests_total{{code_class={code_class},method=GET,route=/v1/videos}}" in ended


@pytest.mark.parametrize(("route", "method"), [("/wp-admin", "GET"), ("/v1/videos", "BREW")])
def test_an_unknown_route_or_method_reads_other(route: str, method: str) -> None:
    metrics = make_metrics()
    ended = moved(metrics, lambda: metrics.request_ended(route=route, method=method, status=404, seconds=1))
    assert "reelay_http_requests_total{code_class=4xx,method=other,route=other}" in ended


def test_a_decision_counts_by_rule_first_provider_and_strategy() -> None:
    metrics = make_metrics()
    assert moved(metrics, lambda: metrics.decision(rule="rule-1", provider="provider-0", reason="balanced")) == {
        "reelay_route_decisions_total{provider=provider-0,reason=balanced,rule=rule-1}": 1
    }


def test_first_charge_of_a_tenant_is_a_step_from_zero() -> None:
    metrics = make_metrics()
    metrics.set_tenants(["acme"])
    before = series(metrics)
    assert before["reelay_charged_usd_total", (("model", "model-0"), ("tenant", "acme"))] == 0
    ended = (("model", "model-0"), ("outcome", "completed"), ("tenant", "acme"))
    assert before["reelay_videos_total", ended] == 0
    metrics.charged(tenant="acme", model="model-0", microusd=1)
    metrics.set_tenants(["acme", "bolt"])
    after = series(metrics)
    assert after["reelay_charged_usd_total", (("model", "model-0"), ("tenant", "acme"))] > 0
    assert after["reelay_charged_usd_total", (("model", "model-0"), ("tenant", "bolt"))] == 0


def test_tenants_of_whom_nothing_is_told_take_no_room_from_those_who_come_later() -> None:
    metrics = make_metrics()
    tenants = [f"tenant-{number}" for number in range(60)]
    for many in range(1, len(tenants) + 1):
        metrics.set_tenants(tenants[:many])
    metrics.budget_warned(tenant=tenants[-1], reason="tenant_month")
    key = (("reason", "tenant_month"), ("tenant", tenants[-1]))
    assert series(metrics)["reelay_budget_warnings_total", key] == 1


def test_an_exchange_counts_and_is_timed() -> None:
    metrics = make_metrics()
    assert moved(
        metrics, lambda: metrics.exchange(provider="provider-1", operation="submit", outcome="throttled", seconds=0.5)
    ) == {
        "reelay_provider_attempts_total{operation=submit,outcome=throttled,provider=provider-1}": 1,
        "reelay_provider_request_duration_seconds_count{operation=submit,provider=provider-1}": 1,
        "reelay_provider_request_duration_seconds_sum{operation=submit,provider=provider-1}": 0.5,
    }


def test_a_fallback_counts_where_from_where_to_and_why() -> None:
    metrics = make_metrics()
    assert moved(
        metrics, lambda: metrics.fallback(from_provider="provider-0", to_provider="provider-1", reason="capacity")
    ) == {"reelay_fallbacks_total{from_provider=provider-0,reason=capacity,to_provider=provider-1}": 1}


def test_a_possible_double_counts_at_the_provider_that_may_have_bought() -> None:
    metrics = make_metrics()
    assert moved(metrics, lambda: metrics.double_submit_possible(provider="provider-0")) == {
        "reelay_possible_double_total{provider=provider-0}": 1
    }


def test_a_completed_video_counts_and_is_timed() -> None:
    metrics = make_metrics()
    metrics.set_tenants(["acme"])
    assert moved(
        metrics, lambda: metrics.video_ended(model="model-0", outcome="completed", tenant="acme", seconds=95.0)
    ) == {
        "reelay_videos_total{model=model-0,outcome=completed,tenant=acme}": 1,
        "reelay_video_duration_seconds_count{model=model-0}": 1,
        "reelay_video_duration_seconds_sum{model=model-0}": 95.0,
    }


@pytest.mark.parametrize(("outcome", "seconds"), [("provider_error", 95.0), ("completed", None)])
def test_only_a_completed_video_with_a_time_is_timed(outcome: str, seconds: float | None) -> None:
    metrics = make_metrics()
    metrics.set_tenants(["acme"])
    assert moved(
        metrics, lambda: metrics.video_ended(model="model-0", outcome=outcome, tenant="acme", seconds=seconds)
    ) == {f"reelay_videos_total{{model=model-0,outcome={outcome},tenant=acme}}": 1}


def test_money_is_shown_in_dollars() -> None:
    metrics = make_metrics()
    metrics.set_tenants(["acme"])
    assert moved(metrics, lambda: metrics.charged(tenant="acme", model="model-0", microusd=1_250_000)) == {
        "reelay_charged_usd_total{model=model-0,tenant=acme}": 1.25
    }
    assert moved(
        metrics,
        lambda: metrics.seller_cost(provider="provider-0", model="model-0", outcome="double", microusd=500_000),
    ) == {"reelay_seller_cost_usd_total{model=model-0,outcome=double,provider=provider-0}": 0.5}
    assert moved(metrics, lambda: metrics.absorbed(reason="overrun", microusd=250_000)) == {
        "reelay_absorbed_usd_total{reason=overrun}": 0.25
    }
    assert moved(metrics, lambda: metrics.cost_differs(provider="provider-1")) == {
        "reelay_cost_differences_total{provider=provider-1}": 1
    }


def test_a_delivered_film_counts_in_the_sums_by_which_it_is_compared() -> None:
    metrics = make_metrics()
    seen = moved(metrics, lambda: deliver(metrics, expected_microusd=500_000, at_dearest_microusd=2_000_000))
    assert seen == {
        "reelay_delivered_film_seconds_total{provider=provider-0}": 4,
        "reelay_expected_cost_usd_total{provider=provider-0}": 0.5,
        "reelay_delivered_usd_total{model=model-0}": 0.000002,
        "reelay_at_first_usd_total{model=model-0}": 0.000003,
        "reelay_at_dearest_usd_total{model=model-0}": 2,
    }


def test_a_film_is_timed_at_its_seller() -> None:
    metrics = make_metrics()
    assert moved(metrics, lambda: metrics.film_made(provider="provider-0", seconds=95)) == {
        "reelay_provider_film_duration_seconds_count{provider=provider-0}": 1,
        "reelay_provider_film_duration_seconds_sum{provider=provider-0}": 95,
    }


def test_the_fullest_budgets_are_shown_and_those_of_small_tenants_together() -> None:
    metrics = make_metrics()
    metrics.set_tenants(["acme"])
    some = {("acme", "tenant_day"): (9_000_000, 10_000_000), ("small-1", "tenant_day"): (1_000_000, 4_000_000)}
    metrics.snapshot(make_gauges(budgets_microusd=some | {("small-2", "tenant_day"): (0, 1_000_000)}))
    shown = {(name, *(v for _, v in labels)): n for (name, labels), n in series(metrics).items() if "budget_" in name}
    assert {key: number for key, number in shown.items() if not key[0].endswith("_total")} == {
        ("reelay_budget_used_usd", "tenant_day", "acme"): 9,
        ("reelay_budget_limit_usd", "tenant_day", "acme"): 10,
        ("reelay_budget_used_usd", "tenant_day", "other"): 1,
        ("reelay_budget_limit_usd", "tenant_day", "other"): 5,
    }
    tenants = [f"tenant-{i}" for i in range(BUDGET_LABELS + 1)]
    metrics.set_tenants(tenants)
    metrics.snapshot(make_gauges(budgets_microusd={(one, "tenant_day"): (i, 100) for i, one in enumerate(tenants)}))
    used = {labels[1][1] for name, labels in series(metrics) if name == "reelay_budget_used_usd"}
    assert used == {*tenants} - {"tenant-0"}


@pytest.mark.parametrize("reason", get_args(LimitReason))
def test_a_request_that_a_limit_refused_counts_by_whose_limit_it_is(reason: str) -> None:
    metrics = make_metrics()
    metrics.set_tenants(["acme"])
    assert moved(metrics, lambda: metrics.rate_limited(tenant="acme", reason=reason)) == {
        f"reelay_rate_limited_total{{reason={reason},tenant=acme}}": 1
    }


def test_a_late_poll_one_put_off_a_lost_lease_and_a_callback_count() -> None:
    metrics = make_metrics()
    assert moved(metrics, lambda: metrics.poll_lag(provider="provider-0", seconds=0.125)) == {
        "reelay_poll_lag_seconds_count{provider=provider-0}": 1,
        "reelay_poll_lag_seconds_sum{provider=provider-0}": 0.125,
    }
    assert moved(metrics, lambda: metrics.put_off(provider="provider-0", operation="poll")) == {
        "reelay_retries_put_off_total{operation=poll,provider=provider-0}": 1
    }
    assert moved(metrics, metrics.lease_lost) == {"reelay_job_lease_lost_total{}": 1}
    assert moved(metrics, lambda: metrics.callbacks(provider="provider-0", outcome="healed")) == {
        "reelay_callbacks_total{outcome=healed,provider=provider-0}": 1
    }


def test_every_way_an_exchange_can_end_has_a_word() -> None:
    assert set(get_args(FailureKind)) < set(get_args(ExchangeOutcome))
    assert set(get_args(VideoOutcome)) == {"completed", *get_args(VideoFailure)}


def test_every_known_combination_without_tenant_is_zero_from_the_start() -> None:
    now = series(make_metrics())
    names = {name for name, _ in now}
    for providers, words, name, label in (
        (2, get_args(ExchangeOutcome), "reelay_provider_attempts_total", "outcome"),
        (2, get_args(CallbackOutcome), "reelay_callbacks_total", "outcome"),
        (2, get_args(CostOutcome), "reelay_seller_cost_usd_total", "outcome"),
        (2, get_args(FallbackReason), "reelay_fallbacks_total", "reason"),
        (2, get_args(Strategy), "reelay_route_decisions_total", "reason"),
        (1, get_args(AbsorbedReason), "reelay_absorbed_usd_total", "reason"),
    ):
        assert {dict(labels)[label] for family, labels in now if family == name} == set(words)
        assert len({dict(labels).get("provider") for family, labels in now if family == name}) <= providers
    assert (
        now["reelay_provider_attempts_total", (("operation", "find"), ("outcome", "lost"), ("provider", "provider-1"))]
        == 0
    )
    assert {
        "reelay_video_duration_seconds_bucket",
        "reelay_poll_lag_seconds_bucket",
        "reelay_job_lease_lost_total",
    } <= names
    assert now["reelay_build_info", (("version", "0.0.1"),)] == 1
    assert {value for (name, _), value in now.items() if name != "reelay_build_info"} == {0}


def test_no_gauge_of_the_database_is_shown_before_the_first_snapshot() -> None:
    assert not {"reelay_videos", "reelay_held_usd", "reelay_due_work"} & {name for name, _ in series(make_metrics())}


def test_what_a_database_that_does_not_answer_would_tell_is_not_shown() -> None:
    metrics = make_metrics()
    metrics.snapshot(make_gauges(due_work=7))
    metrics.snapshot(make_gauges(database=None, store_free_bytes={"files": 5}, clock_ahead_us=-1_500_000))
    shown = {name: value for (name, _), value in series(metrics).items()}
    assert "reelay_due_work" not in shown
    assert "reelay_videos" not in shown
    assert shown["reelay_store_free_bytes"] == 5
    assert shown["reelay_clock_ahead_seconds"] == -1.5


@pytest.mark.parametrize("store", ["database", "files"])
def test_each_failure_of_a_store_is_counted(store: Literal["database", "files"]) -> None:
    metrics = make_metrics()
    found = moved(metrics, lambda: metrics.store_failed(store=store))
    assert found == {f"reelay_store_errors_total{{store={store}}}": 1}


def test_a_snapshot_fills_the_gauges() -> None:
    metrics = make_metrics()
    metrics.set_tenants(["acme"])
    metrics.snapshot(
        make_gauges(
            videos={"in_progress": 3, "dreaming": 1},
            oldest_age_s={"in_progress": 61.5},
            unknown_attempts={"provider-1": 2, "gone-1": 1, "gone-2": 1},
            unknown_exposure_microusd={"provider-1": 1_500_000},
            held_microusd={"acme": 2_000_000, "small-1": 250_000, "small-2": 250_000},
            store_free_bytes={"files": 10, "database": 20},
            store_used_bytes={"files": 1},
            due_work=7,
            work_overdue_us=2_500_000,
            clock_ahead_us=3_000_000,
            ledger_drift_microusd=2,
            ledger_checked_at_us=1_500_000,
            breakers={"offer-0": 2},
        )
    )
    shown = {
        (name, *(value for _, value in labels)): number
        for (name, labels), number in series(metrics).items()
        if name.startswith(
            (
                "reelay_videos",
                "reelay_video_old",
                "reelay_unk",
                "reelay_held",
                "reelay_store_free",
                "reelay_store_used",
                "reelay_due",
                "reelay_work",
                "reelay_clock",
                "reelay_br",
                "reelay_led",
            )
        )
        and not name.endswith("_total")
    }
    assert shown == {
        ("reelay_videos", "queued"): 0,
        ("reelay_videos", "in_progress"): 3,
        ("reelay_videos", "other"): 1,
        ("reelay_video_oldest_age_seconds", "queued"): 0,
        ("reelay_video_oldest_age_seconds", "in_progress"): 61.5,
        ("reelay_unknown_attempts", "provider-0"): 0,
        ("reelay_unknown_attempts", "provider-1"): 2,
        ("reelay_unknown_attempts", "other"): 2,
        ("reelay_unknown_exposure_usd", "provider-0"): 0,
        ("reelay_unknown_exposure_usd", "provider-1"): 1.5,
        ("reelay_held_usd", "acme"): 2,
        ("reelay_held_usd", "other"): 0.5,
        ("reelay_store_free_bytes", "files"): 10,
        ("reelay_store_free_bytes", "database"): 20,
        ("reelay_store_used_bytes", "files"): 1,
        ("reelay_due_work",): 7,
        ("reelay_work_overdue_seconds",): 2.5,
        ("reelay_clock_ahead_seconds",): 3,
        ("reelay_ledger_drift_usd",): 0.000002,
        ("reelay_ledger_last_check_timestamp_seconds",): 1.5,
        ("reelay_breaker_state", "offer-0"): 2,
    }


def test_breakers_that_are_not_closed_are_shown_before_the_others() -> None:
    metrics = make_metrics()
    metrics.snapshot(make_gauges(breakers={f"offer-{i}": 2 * (i == 499) for i in range(500)}))
    shown = {labels[0][1]: number for (name, labels), number in series(metrics).items() if "breaker" in name}
    assert len(shown) == OFFER_LABELS
    assert shown["offer-499"] == 2


def test_a_later_snapshot_replaces_the_whole_of_the_first() -> None:
    metrics = make_metrics()
    metrics.set_tenants(["acme"])
    metrics.snapshot(make_gauges(held_microusd={"acme": 5, "small": 5}, videos={"completed": 9}))
    metrics.snapshot(make_gauges())
    now = series(metrics)
    assert now["reelay_held_usd", (("tenant", "acme"),)] == 0
    assert ("reelay_held_usd", (("tenant", "other"),)) not in now
    assert ("reelay_videos", (("state", "completed"),)) not in now


def test_the_oldest_tenants_have_labels_and_the_rest_share_one() -> None:
    metrics = make_metrics()
    assert metrics.tenant_label("tenant-0") == "other"
    metrics.set_tenants(f"tenant-{i}" for i in range(TENANT_LABELS + 1))
    assert metrics.tenant_label(f"tenant-{TENANT_LABELS - 1}") == f"tenant-{TENANT_LABELS - 1}"
    assert metrics.tenant_label(f"tenant-{TENANT_LABELS}") == "other"


def send_strangers(metrics: Metrics, *, many: int) -> None:
    """Everything that anybody outside could make up, `many` times."""
    for i in range(many):
        metrics.request_started()
        metrics.request_ended(route=f"/v1/videos/video_{i}", method=f"M{i}", status=i, seconds=0.1)
        metrics.decision(rule=f"made-up-{i}", provider=f"made-up-{i}", reason=f"made-up-{i}")
        metrics.exchange(provider=f"made-up-{i}", operation=f"made-up-{i}", outcome=f"made-up-{i}", seconds=0.1)
        metrics.fallback(from_provider=f"made-up-{i}", to_provider=f"made-up-{i}", reason=f"made-up-{i}")
        metrics.double_submit_possible(provider=f"made-up-{i}")
        metrics.video_ended(model=f"made-up-{i}", outcome=f"made-up-{i}", tenant=f"user-{i}", seconds=1.0)
        metrics.video_ended(model=f"made-up-{i}", outcome="completed", tenant=f"user-{i}", seconds=1.0)
        metrics.charged(tenant=f"user-{i}", model=f"made-up-{i}", microusd=1)
        metrics.seller_cost(provider=f"made-up-{i}", model=f"made-up-{i}", outcome=f"made-up-{i}", microusd=1)
        metrics.absorbed(reason=f"made-up-{i}", microusd=1)
        metrics.budget_rejected(tenant=f"user-{i}", reason=f"made-up-{i}")
        metrics.film_made(provider=f"made-up-{i}", seconds=1)
        deliver(metrics, provider=f"made-up-{i}", model=f"made-up-{i}")
        metrics.cost_differs(provider=f"made-up-{i}")
        metrics.poll_lag(provider=f"made-up-{i}", seconds=0.1)
        metrics.callbacks(provider=f"made-up-{i}", outcome=f"made-up-{i}")
        metrics.put_off(provider=f"made-up-{i}", operation=f"made-up-{i}")
    made_up = {f"made-up-{i}": 1 for i in range(many)}
    metrics.snapshot(
        make_gauges(
            videos=made_up,
            oldest_age_s=made_up,
            unknown_attempts=made_up,
            unknown_exposure_microusd=made_up,
            held_microusd={f"user-{i}": 1 for i in range(many)},
            budgets_microusd={(f"user-{i}", "tenant_day"): (1, 2) for i in range(many)},
            store_free_bytes=made_up,
            store_used_bytes=made_up,
        )
    )


def test_thousands_of_users_models_paths_and_tenants_add_no_series() -> None:
    metrics = make_metrics(providers=10, models=10, offers=20, rules=8)
    metrics.set_tenants(f"tenant-{i}" for i in range(5_000))
    send_strangers(metrics, many=1)
    first = set(series(metrics))
    send_strangers(metrics, many=3_000)
    assert set(series(metrics)) == first
    assert len(first) < SERIES_BUDGET


def saturate_requests_and_videos(metrics: Metrics, models: list[str], routes: list[str]) -> None:
    """Every combination that configuration and fixed lists permit, and everything made up."""
    for route, method, status in product([*routes, "made-up"], ("GET", "POST", "made-up"), (200, 302, 404, 500)):
        metrics.request_ended(route=route, method=method, status=status, seconds=1)
    tenants = [f"tenant-{i}" for i in range(TENANT_LABELS + 1)]
    for tenant, reason in product(tenants, words(LimitReason)):
        metrics.rate_limited(tenant=tenant, reason=reason)
    for tenant, model in product(tenants, models):
        metrics.charged(tenant=tenant, model=model, microusd=1)
    for tenant, model, outcome in product(tenants, models, words(VideoOutcome)):
        metrics.video_ended(model=model, outcome=outcome, tenant=tenant, seconds=1)


def saturate_budgets(metrics: Metrics) -> None:
    """Every tenant at every kind of budget, and far more offers than have labels."""
    tenants = [f"tenant-{i}" for i in range(TENANT_LABELS + 1)]
    bounds = [f"{scope}_{period}" for scope, period in product(get_args(BudgetScope), get_args(Period))]
    for tenant, bound in product(tenants, [*bounds, "made-up"]):
        metrics.budget_rejected(tenant=tenant, reason=bound)
        metrics.budget_warned(tenant=tenant, reason=bound)
        metrics.budget_shadow_rejected(tenant=tenant, reason=bound)
    offers = {f"offer-{i}": 1 for i in range(500)}
    limits = {(tenant, f"tenant_{period}"): (1, 2) for tenant, period in product(tenants, get_args(Period))}
    held = dict.fromkeys(tenants, 1)
    metrics.snapshot(
        make_gauges(breakers=offers, learned_s=offers, stated_s=offers, budgets_microusd=limits, held_microusd=held)
    )


def saturate_providers(metrics: Metrics, providers: list[str], models: list[str], rules: list[str]) -> None:
    """The same, for all that a provider is part of."""
    for rule, provider, reason in product(rules, providers, words(Strategy)):
        metrics.decision(rule=rule, provider=provider, reason=reason)
    for provider, operation, outcome in product(providers, words(Exchange), words(ExchangeOutcome)):
        metrics.exchange(provider=provider, operation=operation, outcome=outcome, seconds=1)
    for from_provider, to_provider, reason in product(providers, providers, words(FallbackReason)):
        metrics.fallback(from_provider=from_provider, to_provider=to_provider, reason=reason)
    for provider, model, outcome in product(providers, models, words(CostOutcome)):
        metrics.seller_cost(provider=provider, model=model, outcome=outcome, microusd=1)
    for provider, model in product(providers, models):
        metrics.cost_differs(provider=provider)
        metrics.film_made(provider=provider, seconds=1)
        deliver(metrics, provider=provider, model=model)
    for provider, operation in product(providers, words(Repeated)):
        metrics.put_off(provider=provider, operation=operation)
    for provider, outcome in product(providers, words(CallbackOutcome)):
        metrics.callbacks(provider=provider, outcome=outcome)


def words(literal: object) -> list[str]:
    return [*get_args(literal), "made-up"]


def test_the_series_stay_under_the_budget_when_all_that_can_happen_has_happened() -> None:
    routes = {f"/v1/{i}": ["GET", "POST"] for i in range(ROUTE_LABELS)}
    metrics = make_metrics(providers=10, models=10, offers=20, rules=20, routes=routes)
    metrics.set_tenants(f"tenant-{i}" for i in range(TENANT_LABELS))
    providers = [*(f"provider-{i}" for i in range(10)), "made-up"]
    models = [*(f"model-{i}" for i in range(10)), "made-up"]
    saturate_requests_and_videos(metrics, models, list(routes))
    saturate_providers(metrics, providers, models, [*(f"rule-{i}" for i in range(20)), "made-up"])
    send_strangers(metrics, many=1)
    saturate_budgets(metrics)
    first = series(metrics)
    assert len(first) < SERIES_BUDGET
    saturate_providers(metrics, providers[::-1], models[::-1], ["made-up-too"])
    assert set(series(metrics)) == set(first)


def test_nothing_is_lost_where_a_label_is_given_up() -> None:
    metrics = make_metrics(models=10)
    metrics.set_tenants(f"tenant-{i}" for i in range(TENANT_LABELS))
    for tenant in range(TENANT_LABELS):
        for model in range(10):
            metrics.charged(tenant=f"tenant-{tenant}", model=f"model-{model}", microusd=1_000_000)
    charged = [value for (name, _), value in series(metrics).items() if name == "reelay_charged_usd_total"]
    assert sum(charged) == TENANT_LABELS * 10


def test_no_metric_has_a_label_that_strangers_fill() -> None:
    metrics = make_metrics()
    metrics.set_tenants(["acme"])
    send_strangers(metrics, many=1)
    assert not FORBIDDEN_LABELS & {label for _, labels in series(metrics) for label, _ in labels}


def test_every_metric_says_what_it_counts_and_has_a_unit_in_its_name() -> None:
    for metric in make_metrics().registry.collect():
        assert metric.name.startswith("reelay_")
        assert metric.documentation.endswith(".")
        if metric.type == "histogram":
            assert metric.name.endswith("_seconds")


def test_plain_text_is_the_default_and_openmetrics_is_served_on_demand() -> None:
    metrics = make_metrics()
    metrics.set_tenants(["acme"])
    metrics.video_ended(model="model-0", outcome="completed", tenant="acme", seconds=95.0)
    metrics.snapshot(make_gauges(videos={"queued": 4}))
    text, text_type = metrics.render(None)
    assert text_type.startswith("text/plain")
    assert b"# TYPE reelay_videos_total counter" in text
    assert b"# TYPE reelay_videos gauge" in text
    open_text, open_type = metrics.render(OPENMETRICS)
    assert open_type.startswith("application/openmetrics-text")
    read = {
        sample.name: sample.value
        for family in text_string_to_metric_families(  # type: ignore[no-untyped-call]  # the library's parser has no types
            open_text.decode()
        )
        for sample in family.samples
        if sample.name in {"reelay_videos_total", "reelay_videos"} and sample.value
    }
    assert read == {"reelay_videos_total": 1, "reelay_videos": 4}


def test_two_apps_in_one_process_do_not_share_their_metrics() -> None:
    one, other = make_metrics(), make_metrics()
    one.lease_lost()
    assert series(other)["reelay_job_lease_lost_total", ()] == 0


def test_names_of_new_rules_have_series_at_once_and_those_gone_have_none() -> None:
    metrics = make_metrics()
    metrics.snapshot(make_gauges(unknown_attempts={"provider-1": 2, "newcomer": 1}))
    metrics.set_names(providers=["provider-0", "newcomer"], models=["new-model"], offers=["new"], rules=["new-rule"])
    now = series(metrics)
    labels = {value for _, pairs in now for _, value in pairs}
    assert not labels & {"provider-1", "model-0", "rule-0", "rule-1"}
    assert {"newcomer", "new-model", "new-rule"} <= labels
    assert now["reelay_unknown_attempts", (("provider", "newcomer"),)] == 1
    assert now["reelay_unknown_attempts", (("provider", "other"),)] == 2
    assert moved(
        metrics, lambda: metrics.fallback(from_provider="provider-0", to_provider="newcomer", reason="capacity")
    ) == {"reelay_fallbacks_total{from_provider=provider-0,reason=capacity,to_provider=newcomer}": 1}


def test_renaming_everything_again_and_again_stays_within_the_budget() -> None:
    metrics = make_metrics(providers=10, models=10, offers=20, rules=8)
    for turn in range(20):
        metrics.set_names(
            providers=[f"provider-{turn}-{i}" for i in range(10)],
            models=[f"model-{turn}-{i}" for i in range(10)],
            offers=[],
            rules=[f"rule-{turn}-{i}" for i in range(8)],
        )
        metrics.decision(rule=f"rule-{turn}-0", provider=f"provider-{turn}-0", reason="cheapest")
        key = (("provider", f"provider-{turn}-0"), ("reason", "cheapest"), ("rule", f"rule-{turn}-0"))
        assert series(metrics)["reelay_route_decisions_total", key] == 1
        send_strangers(metrics, many=50)
        assert len(series(metrics)) <= SERIES_BUDGET


def test_a_refused_reload_says_so_and_keeps_the_time_of_what_is_in_force() -> None:
    metrics = make_metrics()
    success, at = ("reelay_config_last_reload_success", ()), ("reelay_config_last_reload_timestamp_seconds", ())
    metrics.rules_read(in_force_at_us=1_500_000)
    assert (series(metrics)[success], series(metrics)[at]) == (1, 1.5)
    metrics.rules_read(in_force_at_us=None)
    assert (series(metrics)[success], series(metrics)[at]) == (0, 1.5)
