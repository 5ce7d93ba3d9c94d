"""
For each alert what makes it fire, and what must not though it comes near.

Series are written as promtool reads them: `a+bxn` is `a`, then `n` times `b` more, one value a minute.
"""

from typing import NamedTuple

Series = dict[str, str]


class Case(NamedTuple):
    """Labels and time at which an alert fires, and what it then and otherwise sees."""

    at: str
    labels: dict[str, str]
    """Beside its name and severity."""
    fires: Series
    quiet: tuple[Series, ...]


def metric(name: str, **labels: str) -> str:
    told = ",".join(f'{label}="{value}"' for label, value in {"job": "reelay", **labels}.items())
    return f"{name}{{{told}}}"


CREATES = {"route": "/v1/videos", "method": "POST"}


def accept_errors(good: str, bad: str) -> Series:
    name = "reelay_http_requests_total"
    return {
        metric(name, code_class="2xx", **CREATES): good,
        metric(name, code_class="5xx", **CREATES): bad,
        # Of no consequence: other routes may fail as they like.
        metric(name, code_class="5xx", route="/v1/models", method="GET"): "0+100x2000",
    }


def accept_slow(good: str, bad: str) -> Series:
    name = "reelay_http_request_duration_seconds"
    return {metric(f"{name}_bucket", le="0.5", **CREATES): good, metric(f"{name}_count", **CREATES): added(good, bad)}


def video_failures(good: str, bad: str) -> Series:
    name, of = "reelay_videos_total", {"model": "seedance-2.0", "tenant": "acme"}
    return {
        metric(name, outcome="completed", **of): good,
        metric(name, outcome="provider_error", **of): bad,
        metric(name, outcome="moderation_blocked", **of): "0+100x2000",
        metric(name, outcome="cancelled", **of): "0+100x2000",
    }


def video_late(good: str, bad: str) -> Series:
    name, of = "reelay_video_duration_seconds", {"model": "seedance-2.0"}
    return {metric(f"{name}_bucket", le="600.0", **of): good, metric(f"{name}_count", **of): added(good, bad)}


def added(one: str, other: str) -> str:
    """Two series that step alike, as one."""
    parts = []
    for mine, its in zip(one.split(), other.split(), strict=True):
        (start, step, times), (more, also, _) = (
            [float(n) for n in t.replace("+", "x").split("x")] for t in (mine, its)
        )
        parts.append(f"{start + more:.12g}+{step + also:.12g}x{times:.0f}")
    return " ".join(parts)


def share(bad: float, *, minutes: int, per_minute: float = 100.0, then_well: int = 0) -> tuple[str, str]:
    """Events that go well and that do not, of which `bad` is the share; after that they may all go well."""
    steps = (per_minute * (1 - bad), per_minute * bad)
    lines = [f"0+{step:.12g}x{minutes}" for step in steps]
    if then_well:
        ends = [step * minutes for step in steps]
        lines = [
            f"{lines[0]} {ends[0]:.12g}+{per_minute:.12g}x{then_well}",
            f"{lines[1]} {ends[1]:.12g}+0x{then_well}",
        ]
    return lines[0], lines[1]


PROMISES = {
    "ReelayAcceptErrors": (accept_errors, 0.001, 100),
    "ReelayAcceptSlow": (accept_slow, 0.01, 100),
    "ReelayVideoFailures": (video_failures, 0.01, 20),
    "ReelayVideoLate": (video_late, 0.05, 20),
}
"""How its events are counted, what is allowed, and the fewest that are judged."""

JOB = {"job": "reelay"}
FAL = {"provider": "fal"}
OFFER = "seedance-2.0/standard/text-to-video"


def burning() -> dict[str, Case]:
    """Fast: 75 minutes. Slow: 25 hours. Well again, and too few to judge, nobody is called."""
    found = {}
    for name, (series, allowed, least) in PROMISES.items():
        found[f"{name}Fast"] = Case(
            "75m",
            JOB,
            series(*share(16 * allowed, minutes=90)),
            (
                series(*share(5 * allowed, minutes=90)),
                series(*share(16 * allowed, minutes=90, per_minute=least / 100)),
                series(*share(16 * allowed, minutes=40, then_well=50)),
            ),
        )
        found[f"{name}Slow"] = Case(
            "25h",
            JOB,
            series(*share(4 * allowed, minutes=1600)),
            (
                series(*share(0.9 * allowed, minutes=1600)),
                series(*share(4 * allowed, minutes=1600, per_minute=least / 2000)),
                series(*share(4 * allowed, minutes=900, then_well=700)),
            ),
        )
    return found


def submits(ok: float, capacity: float, moderation: float = 0) -> Series:
    name, of = "reelay_provider_attempts_total", {"operation": "submit", **FAL}
    outcomes = {"ok": ok, "capacity": capacity, "moderation": moderation}
    return {metric(name, outcome=outcome, **of): f"0+{step}x90" for outcome, step in outcomes.items()}


def costs(taken: float, price: float, film_s: float) -> Series:
    return {
        metric("reelay_seller_cost_usd_total", outcome="delivered", model="seedance-2.0", **FAL): f"0+{taken}x90",
        metric("reelay_seller_cost_usd_total", outcome="failed", model="seedance-2.0", **FAL): "0+9x90",
        metric("reelay_expected_cost_usd_total", **FAL): f"0+{price}x90",
        metric("reelay_delivered_film_seconds_total", **FAL): f"0+{film_s}x90",
    }


def disk(used: str, free: str) -> Series:
    return {
        metric("reelay_store_used_bytes", store="files", instance="a"): used,
        metric("reelay_store_free_bytes", store="files", instance="a"): free,
    }


def breakers(evolink: str, fal: str) -> Series:
    name = "reelay_breaker_state"
    return {
        metric(name, offer=f"evolink/{OFFER}"): evolink,
        metric(name, offer=f"fal/{OFFER}"): fal,
        metric(name, offer="fal/seedance-2.0/fast/text-to-video"): "0x20",
    }


def poll_lag(within_5_s: float) -> Series:
    name = "reelay_poll_lag_seconds_bucket"
    buckets = {"5.0": within_5_s, "10.0": 100.0, "+Inf": 100.0}
    return {metric(name, le=le, **FAL): f"0+{step}x30" for le, step in buckets.items()}


def gauge(name: str, fires: str, *quiet: str, **labels: str) -> tuple[Series, tuple[Series, ...]]:
    """One series that is at one time so, at others so."""
    return {metric(name, **labels): fires}, tuple({metric(name, **labels): one} for one in quiet)


CASES: dict[str, Case] = {
    **burning(),
    "ReelayAbsent": Case("6m", {}, {"up": "0x20"}, ({metric("reelay_build_info", version="1"): "1x20"},)),
    "ReelayUnknownExposure": Case(
        "15m", JOB | FAL, *gauge("reelay_unknown_exposure_usd", "51x20", "50x20", "51x8 0x12", **FAL)
    ),
    "ReelayUnknownAttempts": Case("61m", JOB | FAL, *gauge("reelay_unknown_attempts", "1x90", "1x50 0x40", **FAL)),
    "ReelayLedgerDrift": Case("1m", JOB, *gauge("reelay_ledger_drift_usd", "-0.000001x20", "0x20")),
    "ReelayLedgerUnchecked": Case(
        "70m", JOB, *gauge("reelay_ledger_last_check_timestamp_seconds", "60x90", "0x90", "0+60x90")
    ),
    "ReelayPollLag": Case("20m", JOB, poll_lag(90), (poll_lag(96),)),
    "ReelayWorkOverdue": Case("10m", JOB, *gauge("reelay_work_overdue_seconds", "61x20", "60x20", "300x3 0x17")),
    "ReelayVideoStuck": Case(
        "15m",
        JOB | {"state": "in_progress"},
        *gauge("reelay_video_oldest_age_seconds", "7201x20", "7200x20", state="in_progress"),
    ),
    "ReelayDiskFull": Case("5m", JOB | {"store": "files"}, disk("91x9", "9x9"), (disk("90x9", "10x9"),)),
    "ReelayDiskFilling": Case(
        "7h",
        JOB | {"store": "files"},
        disk("65+0.05x450", "35-0.05x450"),
        (disk("80x450", "20x450"), disk("10+0.05x450", "90-0.05x450")),
    ),
    "ReelayRulesRefused": Case(
        "10m",
        JOB | {"instance": "a"},
        *gauge("reelay_config_last_reload_success", "0x20", "1x20", "0x3 1x17", instance="a"),
    ),
    "ReelayModelWithoutSeller": Case(
        "10m",
        JOB | {"made": OFFER},
        breakers("2x20", "2 1 2 1 2x20"),
        (breakers("2x20", "0x20"), breakers("2x1 0x20", "2x20")),
    ),
    "ReelaySellerFailing": Case(
        "60m", JOB | FAL, submits(4, 6), (submits(6, 4), submits(1, 0, moderation=9), submits(0.1, 0.2))
    ),
    "ReelaySellerAccount": Case(
        "10m",
        JOB | FAL,
        *gauge("reelay_provider_attempts_total", "0+1x20", "1x20", operation="poll", outcome="account", **FAL),
    ),
    "ReelaySellerPriceDrift": Case(
        "80m", JOB | FAL, costs(1.03, 1, 5), (costs(1.01, 1, 5), costs(0.99, 1, 5), costs(1.03, 1, 0.5))
    ),
    "ReelayStoreErrors": Case(
        "15m", JOB | {"store": "database"}, *gauge("reelay_store_errors_total", "0+2x20", "0+0.9x20", store="database")
    ),
    "ReelayClockAhead": Case(
        "15m", JOB | {"instance": "a"}, *gauge("reelay_clock_ahead_seconds", "-6x20", "5x20", "60x5 0x15", instance="a")
    ),
}
