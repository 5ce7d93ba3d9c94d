"""
What pages and panels are, and the words their queries are made of.

What is read from the database is exported alike by every replica, so those queries take the `max`;
what a replica counts itself is added up.
"""

from typing import NamedTuple

JOB = 'job=~"$job"'
PROVIDER = f'{JOB},provider=~"$provider"'
MODEL = f'{JOB},model=~"$model"'
TENANT = f'{JOB},tenant=~"$tenant"'
SPENT = f'{MODEL},tenant=~"$tenant"'
OFFER = f'{JOB},offer=~"$provider/.*"'

REQUESTS = "reelay_http_requests_total"
VIDEOS = "reelay_videos_total"
ATTEMPTS = "reelay_provider_attempts_total"
SELLER_COST = "reelay_seller_cost_usd_total"
CHARGED = "reelay_charged_usd_total"


class Panel(NamedTuple):
    """One panel: what it shows, in which unit, by which queries."""

    title: str
    description: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    """Expression and legend."""
    width: int = 8
    """Of 24 columns."""
    stacked: bool = False
    single: bool = False
    """One big number in place of a graph."""
    signed: bool = False
    """What may be below zero: the graph does not begin there."""


class Table(NamedTuple):
    """Rows that the database itself tells; there where it is a PostgreSQL."""

    title: str
    description: str
    unit: str
    """Of the columns that have none of their own."""
    sql: str
    units: tuple[tuple[str, str], ...] = ()
    """Column to its unit."""
    width: int = 24


class Row(NamedTuple):
    """What stands together under a heading."""

    title: str
    panels: tuple[Panel | Table, ...]


class Page(NamedTuple):
    """One dashboard."""

    name: str
    """Of its file, and in its uid."""
    description: str
    choices: tuple[str, ...]
    """The variables that its queries use, of those in CHOICES."""
    rows: tuple[Row, ...]


def label_values(metric: str, label: str) -> str:
    return f"label_values({metric}{{{JOB}}}, {label})"


CHOICES = {
    "job": ("Job", "label_values(reelay_build_info, job)"),
    "provider": ("Provider", label_values(ATTEMPTS, "provider")),
    "model": ("Model", label_values("reelay_video_duration_seconds_count", "model")),
    "tenant": ("Tenant", label_values("reelay_held_usd", "tenant")),
}
"""Variable to its label and query."""


def rate(metric: str, selector: str, by: str = "", *, per_s: int = 1) -> str:
    """Events per `per_s` seconds, all replicas added up, split by the labels `by`."""
    split = f" by ({by})" if by else ""
    times = f" * {per_s}" if per_s != 1 else ""
    return f"sum{split} (rate({metric}{{{selector}}}[$__rate_interval])){times}"


def quantile(q: float, metric: str, selector: str, by: str = "") -> str:
    """The quantile over all replicas of a histogram's recent observations."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, {rate(f'{metric}_bucket', selector, labels)})"


def quantiles(metric: str, selector: str, by: str = "") -> tuple[tuple[str, str], ...]:
    """The median and what 95 in 100 stay under, with their legends."""
    name = f"{{{{{by}}}}} " if by else ""
    return tuple((quantile(q, metric, selector, by), f"{name}p{q * 100:.0f}") for q in (0.5, 0.95))


def share(part: str, whole: str) -> str:
    """A ratio of two rates; 0 and not nothing while nothing happens."""
    return f"{part} / clamp_min({whole}, 1e-9)"


def latest(metric: str, selector: str, by: str = "") -> str:
    """What every replica reads alike from the database or the disks."""
    split = f" by ({by})" if by else ""
    return f"max{split} ({metric}{{{selector}}})"


# What the customer asked to stop, and what no seller will make, is nobody's fault here.
FAILED_VIDEOS = share(rate(VIDEOS, f'{SPENT},outcome!~"completed|cancelled|moderation_blocked"'), rate(VIDEOS, SPENT))
UNKNOWN_EXPOSURE = f"sum ({latest('reelay_unknown_exposure_usd', PROVIDER, 'provider')})"
UNDER_WAY = 'state=~"queued|in_progress"'
