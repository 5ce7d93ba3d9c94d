"""The page that answers: does it work, for whom, at what cost?"""

from dashboards.panels import (
    ATTEMPTS,
    CHARGED,
    FAILED_VIDEOS,
    JOB,
    MODEL,
    PROVIDER,
    REQUESTS,
    SPENT,
    TENANT,
    UNDER_WAY,
    UNKNOWN_EXPOSURE,
    VIDEOS,
    Page,
    Panel,
    Row,
    latest,
    quantile,
    quantiles,
    rate,
    share,
)

ANSWER_TIME = "reelay_http_request_duration_seconds"

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
        ((share(rate(REQUESTS, f'{JOB},code_class="5xx"'), rate(REQUESTS, JOB)), "5xx"),),
        width=4,
        single=True,
    ),
    Panel(
        "Videos under way",
        "Videos accepted and not ended yet, as the database has them.",
        "short",
        ((f"sum ({latest('reelay_videos', f'{JOB},{UNDER_WAY}', 'state')})", "videos"),),
        width=4,
        single=True,
    ),
    Panel(
        "Failed videos",
        "Share of the videos ended that failed; cancelled ones and refused prompts count as no failure.",
        "percentunit",
        ((FAILED_VIDEOS, "failed"),),
        width=4,
        single=True,
    ),
    Panel(
        "Charged per hour",
        "What tenants are being charged, as US dollars per hour at the present rate.",
        "currencyUSD",
        ((rate(CHARGED, SPENT, per_s=3600), "charged"),),
        width=4,
        single=True,
    ),
    Panel(
        "Unknown exposure",
        "What the attempts of unknown outcome would cost if all of them had bought.",
        "currencyUSD",
        ((UNKNOWN_EXPOSURE, "exposure"),),
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
        "Time to the last byte of the answer, without what a client wished to wait; downloads are part of it.",
        "s",
        quantiles(ANSWER_TIME, JOB),
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
    Panel(
        "Refused by a limit",
        "Requests per minute that were one too many: in this minute, or of videos under way.",
        "cpm",
        ((rate("reelay_rate_limited_total", TENANT, "tenant, reason", per_s=60), "{{tenant}} {{reason}}"),),
        width=12,
        stacked=True,
    ),
    Panel(
        "Videos by outcome",
        "Videos that reached their end, per minute, by `completed` or the code of the failure.",
        "cpm",
        ((rate(VIDEOS, SPENT, "outcome", per_s=60), "{{outcome}}"),),
        width=12,
        stacked=True,
    ),
)

TRADE = (
    Panel(
        "Time to ready",
        "Time from accept until our copy of the file was in place, by model. Failed videos are not in it.",
        "s",
        quantiles("reelay_video_duration_seconds", MODEL, "model"),
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
        "Charged by tenant",
        "US dollars per hour charged to each tenant; all but the oldest tenants read `other`.",
        "currencyUSD",
        ((rate(CHARGED, SPENT, "tenant", per_s=3600), "{{tenant}}"),),
        stacked=True,
    ),
)

ENGINE_ROOM = (
    Panel(
        "Store errors",
        "Per minute, units of work that the database did not do, and files that their storage did not take or give.",
        "cpm",
        ((rate("reelay_store_errors_total", JOB, "store", per_s=60), "{{store}}"),),
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
        "Clock set",
        "By how much time here is ahead of the clock, where that was set back; below 0: behind it. 0 is right.",
        "s",
        ((latest("reelay_clock_ahead_seconds", JOB), "ahead"),),
        signed=True,
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
    Panel(
        "Leases lost",
        "State changes per minute given up because another worker held the work by then.",
        "cpm",
        ((rate("reelay_job_lease_lost_total", JOB, per_s=60), "lost"),),
    ),
)

PAGE = Page(
    "overview",
    "Requests, videos, money and what all of it stands on.",
    ("job", "provider", "model", "tenant"),
    (
        Row("At a glance", AT_A_GLANCE),
        Row("API", API),
        Row("Trade", TRADE),
        Row("Engine room", ENGINE_ROOM),
    ),
)
