"""
What Prometheus works out beforehand, and what it calls somebody for. Valid for Prometheus 2.42.

Four promises are watched by how fast their allowance of failures is burnt, over a long and a short time at
once: the long one so that it matters, the short one so that the alert ends when it is over. Beside them
stand causes that nobody should have to find by their effects. Each alert has its section in RUNBOOK.md,
and carries along what that says is to be done.
"""

import re
from pathlib import Path
from typing import Any, Literal, NamedTuple

RUNBOOK = "dashboards/RUNBOOK.md"
"""Where annotations lead to; whoever publishes it elsewhere replaces this in the file of alerts."""

Severity = Literal["page", "ticket"]


class Promise(NamedTuple):
    """A share of events that may go wrong."""

    series: str
    """The name of what is recorded."""
    alert: str
    allowed: float
    bad: str
    """Events that go wrong, per second over WINDOW, by job."""
    every: str
    """All events, the same."""
    least: int
    """With fewer events in the long time nothing is said."""
    what: str
    """Of which events, and what is wrong with them: follows a share."""


class Burn(NamedTuple):
    """So many times as fast as what is allowed, over both times."""

    factor: float
    long: str
    short: str


class Alert(NamedTuple):
    """A cause, or a promise that is being broken."""

    name: str
    severity: Severity
    expr: str
    lasting: str
    """How long it must be so; empty: no time."""
    summary: str
    description: str


WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")
HOURS = {"1h": 1, "6h": 6, "1d": 24, "3d": 72}
FAST = (Burn(14.4, "1h", "5m"), Burn(6, "6h", "30m"))
"""In these times a fiftieth and a twentieth of a month's allowance are gone."""
SLOW = (Burn(3, "1d", "2h"), Burn(1, "3d", "6h"))
"""A tenth, each."""


def _per_second(metric: str, selector: str) -> str:
    return f"sum by (job) (rate({metric}{{{selector}}}[WINDOW]))"


def _slower(histogram: str, seconds: str, selector: str) -> str:
    """Those that took longer than a bucket holds."""
    within = ",".join(filter(None, (selector, f'le="{seconds}"')))
    return f"{_per_second(f'{histogram}_count', selector)} - {_per_second(f'{histogram}_bucket', within)}"


_CREATES = 'route="/v1/videos",method="POST"'
_COUNTED = 'outcome!~"cancelled|moderation_blocked"'
_REQUESTS, _ANSWERS = "reelay_http_requests_total", "reelay_http_request_duration_seconds"
_VIDEOS, _READY = "reelay_videos_total", "reelay_video_duration_seconds"

PROMISES = (
    Promise(
        "reelay_accept_errors",
        "ReelayAcceptErrors",
        0.001,
        _per_second(_REQUESTS, f'{_CREATES},code_class="5xx"'),
        _per_second(_REQUESTS, _CREATES),
        100,
        "of the requests for a video are answered with a 5xx status",
    ),
    Promise(
        "reelay_accept_slow",
        "ReelayAcceptSlow",
        0.01,
        _slower(_ANSWERS, "0.5", _CREATES),
        _per_second(f"{_ANSWERS}_count", _CREATES),
        100,
        "of the requests for a video take longer than half a second to answer",
    ),
    Promise(
        "reelay_video_failures",
        "ReelayVideoFailures",
        0.01,
        _per_second(_VIDEOS, f'{_COUNTED},outcome!="completed"'),
        _per_second(_VIDEOS, _COUNTED),
        20,
        "of the videos fail that were neither cancelled nor refused for what they ask",
    ),
    Promise(
        "reelay_video_late",
        "ReelayVideoLate",
        0.05,
        _slower(_READY, "600.0", ""),
        _per_second(f"{_READY}_count", ""),
        20,
        "of the videos are ready later than ten minutes after they were accepted",
    ),
)

_BREAKERS = 'label_replace(reelay_breaker_state, "made", "$1", "offer", "[^/]+/(.+)")'
"""By what is made, as in seedance-2.0/standard/text-to-video, behind the provider's name in an offer's."""
_DRIFT = "provider:reelay_cost_drift:ratio_rate6h"
_USED = "reelay_store_used_bytes / (reelay_store_used_bytes + reelay_store_free_bytes)"
_FAILING = "provider:reelay_submit_errors:ratio_rate30m"

CAUSES = (
    Alert(
        "ReelayAbsent",
        "page",
        "absent(reelay_build_info)",
        "5m",
        "No Reelay is scraped.",
        "Nothing has shown reelay_build_info for five minutes: no server runs, or none is reached by Prometheus.",
    ),
    Alert(
        "ReelayUnknownExposure",
        "page",
        "max by (job, provider) (reelay_unknown_exposure_usd) > 50",
        "10m",
        "Orders worth much at {{ $labels.provider }} are of unknown outcome.",
        "If all of them had bought they would cost {{ $value }} USD. They are not bought again until somebody knows.",
    ),
    Alert(
        "ReelayUnknownAttempts",
        "ticket",
        "max by (job, provider) (reelay_unknown_attempts) > 0",
        "1h",
        "Nobody can tell what became of orders at {{ $labels.provider }}.",
        "{{ $value }} attempts may or may not have bought, and have not healed within an hour.",
    ),
    Alert(
        "ReelayLedgerDrift",
        "page",
        "max by (job) (abs(reelay_ledger_drift_usd)) > 0",
        "",
        "The books differ in themselves.",
        "Postings, holds and reports differ by {{ $value }} USD. Bills may be wrong until the cause is known.",
    ),
    Alert(
        "ReelayLedgerUnchecked",
        "ticket",
        "time() - max by (job) (reelay_ledger_last_check_timestamp_seconds > 0) > 3600",
        "5m",
        "The books have not been compared for long.",
        "They are compared every five minutes; the last time is {{ $value | humanizeDuration }} ago.",
    ),
    Alert(
        "ReelayPollLag",
        "ticket",
        "histogram_quantile(0.95, sum by (job, le) (rate(reelay_poll_lag_seconds_bucket[5m]))) > 5",
        "10m",
        "Sellers are polled late.",
        "One poll in twenty begins more than {{ $value | humanizeDuration }} after it was due: the workers are behind.",
    ),
    Alert(
        "ReelayWorkOverdue",
        "page",
        "max by (job) (reelay_work_overdue_seconds) > 60",
        "5m",
        "Work is due and nobody takes it.",
        "The first row of work has been waiting for {{ $value | humanizeDuration }}.",
    ),
    Alert(
        "ReelayVideoStuck",
        "ticket",
        "max by (job, state) (reelay_video_oldest_age_seconds) > 7200",
        "10m",
        "A video has been {{ $labels.state }} for hours.",
        "The oldest was accepted {{ $value | humanizeDuration }} ago; the deadline for buying is long past.",
    ),
    Alert(
        "ReelayDiskFull",
        "page",
        f"max by (job, store) ({_USED}) > 0.9",
        "2m",
        "Nothing new is accepted: the disk of {{ $labels.store }} is nearly full.",
        "{{ $value | humanizePercentage }} of it are used. What was accepted before goes on.",
    ),
    Alert(
        "ReelayDiskFilling",
        "ticket",
        f"max by (job, store) ({_USED}) > 0.6"
        " and min by (job, store) (predict_linear(reelay_store_free_bytes[6h], 2 * 86400)) < 0",
        "1h",
        "The disk of {{ $labels.store }} fills up within two days.",
        "{{ $value | humanizePercentage }} of it are used, and at the pace of six hours the rest is soon gone.",
    ),
    Alert(
        "ReelayRulesRefused",
        "ticket",
        "min by (job, instance) (reelay_config_last_reload_success) == 0",
        "5m",
        "{{ $labels.instance }} goes by older rules.",
        "The rules that it read last were refused; those before stay in force.",
    ),
    Alert(
        "ReelayModelWithoutSeller",
        "page",
        # Half-open counts as well: an offer that is down is probed again and again.
        f"min by (job, made) (max by (job, made, offer) ({_BREAKERS})) >= 1",
        "2m",
        "Every seller of {{ $labels.made }} fails.",
        "No breaker of its offers is closed. Videos wait for the least bad until their deadline.",
    ),
    Alert(
        "ReelaySellerFailing",
        "ticket",
        f"{_FAILING} > 0.5 and sum by (job, provider)"
        ' (increase(reelay_provider_attempts_total{operation="submit"}[30m])) > 10',
        "15m",
        "{{ $labels.provider }} refuses or breaks most orders.",
        "{{ $value | humanizePercentage }} of the submits of half an hour were not taken.",
    ),
    Alert(
        "ReelaySellerAccount",
        "page",
        'sum by (job, provider) (increase(reelay_provider_attempts_total{outcome="account"}[10m])) > 0',
        "5m",
        "{{ $labels.provider }} does not accept our account.",
        "It answers as if the key were wrong or the credit used up. Videos go to other sellers, if there are any.",
    ),
    Alert(
        "ReelaySellerPriceDrift",
        "ticket",
        f"abs({_DRIFT} - 1) > 0.02 and sum by (job, provider) (increase(reelay_delivered_film_seconds_total[6h])) > 60",
        "30m",
        "{{ $labels.provider }} takes another price than quoted.",
        "What it took for films delivered in six hours is off by {{ $value | humanizePercentage }}"
        " of what its prices make.",
    ),
    Alert(
        "ReelayStoreErrors",
        "page",
        "sum by (job, store) (rate(reelay_store_errors_total[5m])) * 60 > 1",
        "5m",
        "The store of {{ $labels.store }} fails.",
        "{{ $value }} times a minute it did not take, give or keep what it should.",
    ),
    Alert(
        "ReelayClockAhead",
        "ticket",
        "max by (job, instance) (abs(reelay_clock_ahead_seconds)) > 5",
        "10m",
        "The clock of {{ $labels.instance }} was set.",
        "Time there is {{ $value | humanizeDuration }} off the clock, and follows it slowly.",
    ),
)


def alerts() -> tuple[Alert, ...]:
    """Every one: those of the promises, then the causes."""
    return (*(alert for promise in PROMISES for alert in _burning(promise)), *CAUSES)


def _burning(promise: Promise) -> tuple[Alert, Alert]:
    words = f"{{{{ $value | humanizePercentage }}}} {promise.what}; {promise.allowed:.1%} may."
    return (
        Alert(
            f"{promise.alert}Fast",
            "page",
            " or ".join(_burns(promise, burn) for burn in FAST),
            "2m",
            f"Too many {promise.what}.",
            f"{words} At this pace a month's allowance is gone within days.",
        ),
        Alert(
            f"{promise.alert}Slow",
            "ticket",
            " or ".join(_burns(promise, burn) for burn in SLOW),
            "15m",
            f"More than promised {promise.what}.",
            f"{words} At this pace a month's allowance does not last a month.",
        ),
    )


def _burns(promise: Promise, burn: Burn) -> str:
    limit = round(burn.factor * promise.allowed, 6)
    of = f"job:{promise.series}:ratio_rate"
    enough = f"job:{promise.series}_events:rate{burn.long} * 3600 * {HOURS[burn.long]} > {promise.least}"
    return f"({of}{burn.long} > {limit} and {of}{burn.short} > {limit} and {enough})"


def recorded() -> dict[str, str]:
    """Name of a series to its expression."""
    found: dict[str, str] = {}
    for promise in PROMISES:
        for window in WINDOWS:
            bad, every = (text.replace("WINDOW", window) for text in (promise.bad, promise.every))
            found[f"job:{promise.series}:ratio_rate{window}"] = f"({bad}) / {every}"
            if window in HOURS:
                found[f"job:{promise.series}_events:rate{window}"] = every
    submits = 'reelay_provider_attempts_total{operation="submit"'
    found[_FAILING] = (
        f'sum by (job, provider) (rate({submits},outcome!~"ok|moderation|invalid_input"}}[30m]))'
        f" / sum by (job, provider) (rate({submits}}}[30m]))"
    )
    found[_DRIFT] = (
        'sum by (job, provider) (rate(reelay_seller_cost_usd_total{outcome="delivered"}[6h]))'
        " / sum by (job, provider) (rate(reelay_expected_cost_usd_total[6h]))"
    )
    return found


def recording_file() -> dict[str, Any]:
    """What Prometheus reads; so the next one."""
    rules = [{"record": name, "expr": expr} for name, expr in recorded().items()]
    return {"groups": [{"name": "reelay-recorded", "rules": rules}]}


def to_do() -> dict[str, str]:
    """By alert, what its section of the runbook says is to be done."""
    text = Path(__file__).with_name("RUNBOOK.md").read_text(encoding="utf-8")
    found = re.findall(r"^### (Reelay\w+)$.*?^\*\*Do:\*\* (.*?)(?=\n\n|\n*\Z)", text, re.MULTILINE | re.DOTALL)
    return {name: " ".join(words.split()) for name, words in found}


def alerts_file() -> dict[str, Any]:
    rules, what = [], to_do()
    for alert in alerts():
        rule: dict[str, Any] = {"alert": alert.name, "expr": alert.expr}
        if alert.lasting:
            rule["for"] = alert.lasting
        rule["labels"] = {"severity": alert.severity}
        rule["annotations"] = {
            "summary": alert.summary,
            "description": alert.description,
            "action": what[alert.name],
            "runbook_url": f"{RUNBOOK}#{alert.name.lower()}",
        }
        rules.append(rule)
    return {"groups": [{"name": "reelay-alerts", "rules": rules}]}
