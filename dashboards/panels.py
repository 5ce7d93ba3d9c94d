"""
What a panel is, and the words its queries are made of.

What is read from the database is exported alike by every replica, so those queries take the `max`;
what a replica counts itself is added up.
"""

from typing import NamedTuple

JOB = 'job=~"$job"'
PROVIDER = f'{JOB},provider=~"$provider"'
MODEL = f'{JOB},model=~"$model"'
TENANT = f'{JOB},tenant=~"$tenant"'


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


def rate(metric: str, selector: str, by: str = "", *, per_s: int = 1) -> str:
    """Events per `per_s` seconds, all replicas added up, split by the labels `by`."""
    split = f" by ({by})" if by else ""
    times = f" * {per_s}" if per_s != 1 else ""
    return f"sum{split} (rate({metric}{{{selector}}}[$__rate_interval])){times}"


def quantile(q: float, metric: str, selector: str, by: str = "") -> str:
    """The quantile over all replicas of a histogram's recent observations."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, {rate(f'{metric}_bucket', selector, labels)})"


def share(part: str, whole: str) -> str:
    """A ratio of two rates; 0 and not nothing while nothing happens."""
    return f"{part} / clamp_min({whole}, 1e-9)"


def latest(metric: str, selector: str, by: str = "") -> str:
    """What every replica reads alike from the database or the disks."""
    split = f" by ({by})" if by else ""
    return f"max{split} ({metric}{{{selector}}})"


def label_values(metric: str, label: str) -> str:
    return f"label_values({metric}{{{JOB}}}, {label})"
