"""The page that answers: is anything stuck, late or unknown?"""

from dashboards.panels import (
    FAILED_VIDEOS,
    JOB,
    MODEL,
    PROVIDER,
    REQUESTS,
    SPENT,
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
)

CREATES = f'{JOB},route="/v1/videos",method="POST"'

QUEUE = (
    Panel(
        "Videos under way",
        "Videos accepted and not ended yet, by state, as the database has them.",
        "short",
        ((latest("reelay_videos", f"{JOB},{UNDER_WAY}", "state"), "{{state}}"),),
        stacked=True,
    ),
    Panel(
        "Oldest video",
        "Time since accept of the oldest video in each state; past the deadline of the rules something is stuck.",
        "s",
        ((latest("reelay_video_oldest_age_seconds", f"{JOB},{UNDER_WAY}", "state"), "{{state}}"),),
    ),
    Panel(
        "Creates",
        "Requests for a new video per minute, by class of answer.",
        "cpm",
        ((rate(REQUESTS, CREATES, "code_class", per_s=60), "{{code_class}}"),),
        stacked=True,
    ),
)

WORK = (
    Panel(
        "Poll lag",
        "How long after their due time polls begin; when it grows, the workers are behind.",
        "s",
        tuple((quantile(q, "reelay_poll_lag_seconds", PROVIDER), f"p{q * 100:.0f}") for q in (0.5, 0.95, 0.99)),
        width=6,
    ),
    Panel(
        "Due work",
        "Rows of work that are due and that nobody has claimed.",
        "short",
        ((latest("reelay_due_work", JOB), "due"),),
        width=6,
    ),
    Panel(
        "Overdue work",
        "How long the first row of work that is due has been waiting for somebody to claim it.",
        "s",
        ((latest("reelay_work_overdue_seconds", JOB), "overdue"),),
        width=6,
    ),
    Panel(
        "Leases lost",
        "State changes per minute given up because another worker held the work by then.",
        "cpm",
        ((rate("reelay_job_lease_lost_total", JOB, per_s=60), "lost"),),
        width=6,
    ),
)

ENDS = (
    Panel(
        "Videos by outcome",
        "Videos that reached their end, per minute, by `completed` or the code of the failure.",
        "cpm",
        ((rate(VIDEOS, SPENT, "outcome", per_s=60), "{{outcome}}"),),
        stacked=True,
    ),
    Panel(
        "Failed videos",
        "Share of the videos ended that failed; cancelled ones and refused prompts count as no failure.",
        "percentunit",
        ((FAILED_VIDEOS, "failed"),),
    ),
    Panel(
        "Time to ready",
        "Time from accept until our copy of the file was in place, by model. Failed videos are not in it.",
        "s",
        quantiles("reelay_video_duration_seconds", MODEL, "model"),
    ),
)

UNKNOWN = (
    Panel(
        "Unknown exposure",
        "What the attempts of unknown outcome would cost if all of them had bought.",
        "currencyUSD",
        ((UNKNOWN_EXPOSURE, "exposure"),),
    ),
    Panel(
        "Unknown attempts",
        "Attempts of which nobody can tell yet whether they bought; each waits for its deadline or an operator.",
        "short",
        ((latest("reelay_unknown_attempts", PROVIDER, "provider"), "{{provider}}"),),
        stacked=True,
    ),
    Panel(
        "Callbacks that healed",
        "Callbacks per minute that named the order of an attempt whose outcome was unknown, by provider.",
        "cpm",
        ((rate("reelay_callbacks_total", f'{PROVIDER},outcome="healed"', "provider", per_s=60), "{{provider}}"),),
    ),
)

PAGE = Page(
    "videos",
    "What is under way, how late it is, how it ends, and what nobody can tell.",
    ("job", "provider", "model", "tenant"),
    (
        Row("Queue", QUEUE),
        Row("Work", WORK),
        Row("Ends", ENDS),
        Row("Unknown", UNKNOWN),
    ),
)
