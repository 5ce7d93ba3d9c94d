"""The page that answers: does it work, for whom, at what cost?"""

from dashboards.panels import JOB, MODEL, PROVIDER, TENANT, Panel, label_values, latest, quantile, rate, share

REQUESTS = "reelay_http_requests_total"
ANSWER_TIME = "reelay_http_request_duration_seconds"
VIDEOS = "reelay_videos_total"
ATTEMPTS = "reelay_provider_attempts_total"
SELLER_TIME = "reelay_provider_request_duration_seconds"

FAILED_REQUESTS = f'{JOB},code_class="5xx"'
MOVED = f'{JOB},from_provider=~"$provider"'
SUBMITS = f'{PROVIDER},operation="submit"'
UNDER_WAY = f'{JOB},state=~"queued|in_progress"'
SPENT = f'{MODEL},tenant=~"$tenant"'
# What the customer asked to stop, and what no seller will make, is nobody's fault here.
OWN_FAULT = f'{SPENT},outcome!~"completed|cancelled|moderation_blocked"'

AT_A_GLANCE = (
    Panel(
        "Requests",
        "Requests answered per second, over all routes.",
        "reqps",
        ((rate(REQUESTS, JOB), "requests"),),
        width=4,
        single=True,
    ),
    Panel(
        "Server errors",
        "Share of requests answered with a 5xx status.",
        "percentunit",
        ((share(rate(REQUESTS, FAILED_REQUESTS), rate(REQUESTS, JOB)), "5xx"),),
        width=4,
        single=True,
    ),
    Panel(
        "Videos under way",
        "Videos accepted and not ended yet, as the database has them.",
        "short",
        ((f"sum ({latest('reelay_videos', UNDER_WAY, 'state')})", "videos"),),
        width=4,
        single=True,
    ),
    Panel(
        "Failed videos",
        "Share of the videos ended that failed; cancelled ones and refused prompts count as no failure.",
        "percentunit",
        ((share(rate(VIDEOS, OWN_FAULT), rate(VIDEOS, SPENT)), "failed"),),
        width=4,
        single=True,
    ),
    Panel(
        "Charged per hour",
        "What tenants are being charged, as US dollars per hour at the present rate.",
        "currencyUSD",
        ((rate("reelay_charged_usd_total", SPENT, per_s=3600), "charged"),),
        width=4,
        single=True,
    ),
    Panel(
        "Unknown exposure",
        "What the attempts of unknown outcome would cost if all of them had bought.",
        "currencyUSD",
        ((f"sum ({latest('reelay_unknown_exposure_usd', PROVIDER, 'provider')})", "exposure"),),
        width=4,
        single=True,
    ),
)

API = (
    Panel(
        "Requests by status",
        "Requests answered per second by class of status; `other` is neither 2xx, 4xx nor 5xx.",
        "reqps",
        ((rate(REQUESTS, JOB, "code_class"), "{{code_class}}"),),
        stacked=True,
    ),
    Panel(
        "Requests by route",
        "Requests answered per second by route and method; paths that we do not have read `other`.",
        "reqps",
        ((rate(REQUESTS, JOB, "method, route"), "{{method}} {{route}}"),),
        stacked=True,
    ),
    Panel(
        "Errors by route",
        "Requests per second that were answered with a 4xx or 5xx status, by route and class.",
        "reqps",
        ((rate(REQUESTS, f'{JOB},code_class=~"4xx|5xx"', "route, code_class"), "{{code_class}} {{route}}"),),
    ),
    Panel(
        "Latency",
        "Time to the last byte of the answer. Downloads and creates that wait for the video are part of it.",
        "s",
        ((quantile(0.5, ANSWER_TIME, JOB), "p50"), (quantile(0.95, ANSWER_TIME, JOB), "p95")),
    ),
    Panel(
        "Latency by route, p95",
        "Time to the last byte that 95 in 100 requests stay under, by route and method.",
        "s",
        ((quantile(0.95, ANSWER_TIME, JOB, "method, route"), "{{method}} {{route}}"),),
    ),
    Panel(
        "Requests in progress",
        "Requests begun and not yet answered in full, over all replicas.",
        "short",
        ((f"sum (reelay_http_requests_in_progress{{{JOB}}})", "in progress"),),
    ),
)

VIDEO = (
    Panel(
        "Videos by outcome",
        "Videos that reached their end, per minute, by `completed` or the code of the failure.",
        "cpm",
        ((rate(VIDEOS, SPENT, "outcome", per_s=60), "{{outcome}}"),),
        width=12,
        stacked=True,
    ),
    Panel(
        "Time to ready",
        "Time from accept until our copy of the file was in place, by model. Failed videos are not in it.",
        "s",
        (
            (quantile(0.5, "reelay_video_duration_seconds", MODEL, "model"), "{{model}} p50"),
            (quantile(0.95, "reelay_video_duration_seconds", MODEL, "model"), "{{model}} p95"),
        ),
        width=12,
    ),
    Panel(
        "Videos by state",
        "Videos in each state, as the database has them.",
        "short",
        ((latest("reelay_videos", JOB, "state"), "{{state}}"),),
        width=12,
    ),
    Panel(
        "Oldest video by state",
        "Time since accept of the oldest video in each state; past the deadline of the rules something is stuck.",
        "s",
        ((latest("reelay_video_oldest_age_seconds", JOB, "state"), "{{state}}"),),
        width=12,
    ),
)

PROVIDERS = (
    Panel(
        "Submits by outcome",
        "Orders sent to sellers per minute, by provider and what came of each.",
        "cpm",
        (
            (
                f"{rate(ATTEMPTS, SUBMITS, 'provider, outcome', per_s=60)} > 0",
                "{{provider}} {{outcome}}",
            ),
        ),
        stacked=True,
    ),
    Panel(
        "Exchanges by operation",
        "Exchanges with sellers per second, by provider and what was asked.",
        "reqps",
        ((rate(ATTEMPTS, PROVIDER, "provider, operation"), "{{provider}} {{operation}}"),),
        stacked=True,
    ),
    Panel(
        "Exchanges that went wrong",
        "Share of the exchanges with each provider, of whatever operation, that did not end well.",
        "percentunit",
        (
            (
                share(
                    rate(ATTEMPTS, f'{PROVIDER},outcome!="ok"', "provider"),
                    rate(ATTEMPTS, PROVIDER, "provider"),
                ),
                "{{provider}}",
            ),
        ),
    ),
    Panel(
        "Seller latency",
        "Time of an exchange with each provider, over all operations.",
        "s",
        (
            (quantile(0.5, SELLER_TIME, PROVIDER, "provider"), "{{provider}} p50"),
            (quantile(0.95, SELLER_TIME, PROVIDER, "provider"), "{{provider}} p95"),
        ),
    ),
    Panel(
        "Seller latency by operation, p95",
        "Time that 95 in 100 exchanges stay under, by provider and operation; more than 10 s reads as 10 s.",
        "s",
        ((quantile(0.95, SELLER_TIME, PROVIDER, "provider, operation"), "{{provider}} {{operation}}"),),
    ),
    Panel(
        "Decisions",
        "Videos accepted per minute, by the rule that matched and the provider that is tried first.",
        "cpm",
        (
            (
                f"{rate('reelay_route_decisions_total', PROVIDER, 'rule, provider', per_s=60)} > 0",
                "{{rule}}: {{provider}}",
            ),
        ),
        stacked=True,
    ),
    Panel(
        "Fallbacks",
        "Videos that moved on to another provider, per minute, by where from and where to.",
        "cpm",
        (
            (
                rate("reelay_fallbacks_total", MOVED, "from_provider, to_provider", per_s=60),
                "{{from_provider}} → {{to_provider}}",
            ),
        ),
    ),
    Panel(
        "Fallbacks by reason",
        "Videos that moved on to another provider, per minute, by why the one before did not deliver.",
        "cpm",
        ((rate("reelay_fallbacks_total", MOVED, "reason", per_s=60), "{{reason}}"),),
        stacked=True,
    ),
    Panel(
        "Possible double purchases",
        "Submits per minute sent elsewhere although this provider may have bought already.",
        "cpm",
        ((rate("reelay_possible_double_total", PROVIDER, "provider", per_s=60), "{{provider}}"),),
    ),
)

MONEY = (
    Panel(
        "Charged by tenant",
        "US dollars per hour charged to each tenant; all but the oldest tenants read `other`.",
        "currencyUSD",
        ((rate("reelay_charged_usd_total", SPENT, "tenant", per_s=3600), "{{tenant}}"),),
        stacked=True,
    ),
    Panel(
        "Charged by model",
        "US dollars per hour charged for each model.",
        "currencyUSD",
        ((rate("reelay_charged_usd_total", SPENT, "model", per_s=3600), "{{model}}"),),
        stacked=True,
    ),
    Panel(
        "Seller cost",
        "US dollars per hour that each provider took, delivered or not.",
        "currencyUSD",
        (
            (
                rate("reelay_seller_cost_usd_total", f'{PROVIDER},model=~"$model"', "provider", per_s=3600),
                "{{provider}}",
            ),
        ),
        stacked=True,
    ),
    Panel(
        "Absorbed",
        "US dollars per hour that sellers took and no tenant is charged for, by reason.",
        "currencyUSD",
        ((rate("reelay_absorbed_usd_total", JOB, "reason", per_s=3600), "{{reason}}"),),
        stacked=True,
    ),
    Panel(
        "Held",
        "US dollars held for videos whose cost is not known yet, by tenant.",
        "currencyUSD",
        ((latest("reelay_held_usd", TENANT, "tenant"), "{{tenant}}"),),
        stacked=True,
    ),
    Panel(
        "Costs that differ",
        "Deliveries per hour whose seller says it took another amount than its price makes, by provider.",
        "short",
        ((rate("reelay_cost_differences_total", PROVIDER, "provider", per_s=3600), "{{provider}}"),),
        stacked=True,
    ),
    Panel(
        "Ledger drift",
        "US dollars by which the books differ in themselves: nothing but zero is right; `reelay audit` says where.",
        "currencyUSD",
        ((latest("reelay_ledger_drift_usd", JOB), "drift"),),
    ),
    Panel(
        "Books last compared",
        "Seconds since postings, holds and reports were last compared.",
        "s",
        ((f"time() - {latest('reelay_ledger_last_check_timestamp_seconds', JOB)}", "ago"),),
    ),
    Panel(
        "Unknown exposure by provider",
        "US dollars that the attempts of unknown outcome would cost if all of them had bought.",
        "currencyUSD",
        ((latest("reelay_unknown_exposure_usd", PROVIDER, "provider"), "{{provider}}"),),
        stacked=True,
    ),
)

WORK = (
    Panel(
        "Breakers",
        "Offers that are passed over just now because they failed: 2 open, 1 half-open, 0 asked as usual.",
        "short",
        ((latest("reelay_breaker_state", JOB, "offer"), "{{offer}}"),),
    ),
    Panel(
        "Retries put off",
        "Calls per minute that were to be made again but had to wait: so many fail that more would be a storm.",
        "cpm",
        (
            (
                rate("reelay_retries_put_off_total", PROVIDER, "provider, operation", per_s=60),
                "{{provider}} {{operation}}",
            ),
        ),
    ),
    Panel(
        "Poll lag",
        "How long after their due time polls begin; when it grows, the workers are behind.",
        "s",
        tuple((quantile(q, "reelay_poll_lag_seconds", PROVIDER), f"p{q * 100:.0f}") for q in (0.5, 0.95, 0.99)),
    ),
    Panel(
        "Due work",
        "Rows of work that are due and that nobody has claimed.",
        "short",
        ((latest("reelay_due_work", JOB), "due"),),
    ),
    Panel(
        "Overdue work",
        "How long the first row of work that is due has been waiting for somebody to claim it.",
        "s",
        ((latest("reelay_work_overdue_seconds", JOB), "overdue"),),
    ),
    Panel(
        "Store errors",
        "Per minute, units of work that the database did not do, and files that their storage did not take or give.",
        "cpm",
        ((rate("reelay_store_errors_total", JOB, "store", per_s=60), "{{store}}"),),
    ),
    Panel(
        "Clock set",
        "By how much time here is ahead of the clock, where that was set back; below 0: behind it. 0 is right.",
        "s",
        ((latest("reelay_clock_ahead_seconds", JOB), "ahead"),),
    ),
    Panel(
        "Leases lost",
        "State changes per minute given up because another worker held the work by then.",
        "cpm",
        ((rate("reelay_job_lease_lost_total", JOB, per_s=60), "lost"),),
    ),
    Panel(
        "Unknown attempts",
        "Attempts of which nobody can tell yet whether they bought; each waits for its deadline or an operator.",
        "short",
        ((latest("reelay_unknown_attempts", PROVIDER, "provider"), "{{provider}}"),),
    ),
    Panel(
        "Callbacks",
        "Sellers' callbacks per minute; `healed` named the order of an attempt whose outcome was unknown.",
        "cpm",
        ((rate("reelay_callbacks_total", PROVIDER, "provider, outcome", per_s=60), "{{provider}} {{outcome}}"),),
    ),
    Panel(
        "Storage",
        "Bytes that the database and the files take, and that can still be written where they lie.",
        "decbytes",
        (
            (latest("reelay_store_free_bytes", JOB, "store"), "{{store}} free"),
            (latest("reelay_store_used_bytes", JOB, "store"), "{{store}} used"),
        ),
    ),
    Panel(
        "Rules taken",
        "1 where every replica could put in force the rules that it read last; 0 where one keeps older ones.",
        "short",
        ((f"min (reelay_config_last_reload_success{{{JOB}}})", "taken"),),
    ),
    Panel(
        "Age of the rules",
        "How long the rules in force have been in force, where they are the oldest.",
        "s",
        ((f"time() - min (reelay_config_last_reload_timestamp_seconds{{{JOB}}})", "oldest"),),
    ),
)

ROWS = (
    ("At a glance", AT_A_GLANCE),
    ("API", API),
    ("Videos", VIDEO),
    ("Providers", PROVIDERS),
    ("Money", MONEY),
    ("Work and storage", WORK),
)

CHOICES = (
    ("job", "Job", "label_values(reelay_build_info, job)"),
    ("provider", "Provider", label_values(ATTEMPTS, "provider")),
    ("model", "Model", label_values("reelay_video_duration_seconds_count", "model")),
    ("tenant", "Tenant", label_values("reelay_held_usd", "tenant")),
)
"""Variables: name, label, query."""
