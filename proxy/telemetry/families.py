"""How a metric's series are kept few: label values from closed sets, and an allowance for each metric."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import product
from threading import Lock
from typing import Final, Generic, TypeVar, get_args

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric

OTHER: Final = "other"
ANY: Final[frozenset[str]] = frozenset()
"""Stands for a set of label values that the caller has closed already."""

M = TypeVar("M", Counter, Histogram)


def named(words: object) -> frozenset[str]:
    """The values of a Literal."""
    return frozenset(get_args(words))


def closed(value: str, known: Collection[str]) -> str:
    return value if value in known else OTHER


def summed(numbers: Mapping[str, float], label: Callable[[str], str], zeros: Iterable[str] = ()) -> dict[str, float]:
    """Numbers by label value, those that share one added up; the `zeros` are there in any case."""
    sums: dict[str, float] = dict.fromkeys(zeros, 0.0)
    for name, number in numbers.items():
        sums[label(name)] = sums.get(label(name), 0.0) + number
    return sums


class Family(Generic[M]):
    """
    The children of one labelled metric: known values only, and not more than its allowance.

    A combination beyond `at_most` gives up the labels named in `sheds`, which then read `other`; what
    is left is a small closed set.
    """

    def __init__(
        self, metric: M, labels: Mapping[str, frozenset[str]], *, at_most: int, sheds: Collection[str]
    ) -> None:
        self._metric: M = metric
        self._labels = dict(labels)
        self._shed = tuple(name in sheds for name in labels)
        self._at_most = at_most
        self._children: dict[tuple[str, ...], M] = {}
        self._lock = Lock()
        self.close(labels)

    def close(self, labels: Mapping[str, frozenset[str]]) -> None:
        """
        Closes those of these labels that the metric has to other values.

        A series with a value that is known no more ends, so that there is room for those to come.
        """
        with self._lock:
            self._labels |= {name: values for name, values in labels.items() if name in self._labels}
            self._sets = tuple(self._labels.values())
            for values in [values for values in self._children if values != self._reduced(values)]:
                del self._children[values]
                self._metric.remove(*values)
            known = set(product(*self._sets)) | self._children.keys()
            if len(known) <= self._at_most:
                # At zero from the start, so that rate() sees the first event as a step.
                self._children |= {values: self._metric.labels(*values) for values in known}

    def _reduced(self, values: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(
            value if known is ANY else closed(value, known) for value, known in zip(values, self._sets, strict=True)
        )

    def child(self, *values: str) -> M:
        """The child for these values, or for what they are reduced to."""
        return self._children.get(values) or self._admit(values)

    def _admit(self, values: tuple[str, ...]) -> M:
        # Only what a combination becomes is remembered: strangers must not fill the memory either.
        with self._lock:
            reduced = self._reduced(values)
            if reduced not in self._children and len(self._children) >= self._at_most:
                reduced = tuple(OTHER if shed else value for value, shed in zip(reduced, self._shed, strict=True))
            if reduced not in self._children:
                self._children[reduced] = self._metric.labels(*reduced)
            return self._children[reduced]


class Registry(CollectorRegistry):
    """Leaves out the `_created` series, which would double the counters and which nobody reads."""

    def collect(self) -> Iterator[Metric]:
        for metric in super().collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric

    def render(self, accept: str | None) -> tuple[bytes, str]:
        """The exposition and its content type, OpenMetrics where `accept` asks for it."""
        encode, content_type = choose_encoder(accept or "")
        if content_type.startswith("application/openmetrics-text"):
            return encode(_Apart(self)), content_type
        return encode(self), content_type


class _Apart:
    """
    Keeps a counter and a gauge of the same stem apart in OpenMetrics.

    There a counter's family is named without its `_total`, so that `x_total` and `x` would be one
    family of two types, which a strict reader refuses. Such a counter is sent untyped.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        metrics = list(self._registry.collect())
        others = {metric.name for metric in metrics if metric.type != "counter"}
        for metric in metrics:
            if metric.type == "counter" and metric.name in others:
                metric.name, metric.type = f"{metric.name}_total", "unknown"
            yield metric
