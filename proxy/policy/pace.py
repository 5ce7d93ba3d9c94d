"""
How long an offer takes, learned from the films it delivered: decayed histograms, and what to expect by them.

Waiting in the seller's queue and rendering are kept apart: the queue changes by the hour and does not
depend on the film's length, the render does.
"""

from collections.abc import Mapping
from math import ceil, log
from typing import Literal, Protocol

import msgspec

from proxy.core.attempt import Attempt
from proxy.core.clock import SECOND_US
from proxy.core.offer import Offer

Part = Literal["queue", "render"]

HALF_LIFE_US = 6 * 3600 * SECOND_US
"""After so long a sample weighs half."""
MOST_WEIGHT = 200.0
"""No more than the worth of so many samples is remembered: where many come, old ones go sooner."""
ENOUGH = 8.0
"""With less than the worth of so many samples the catalogue's figure holds."""
AUTO = 0
"""Stands for the length of film that the seller chose."""

_GROWTH = 1.1
"""Each bucket ends at so many times the end of the one before; its middle is within 5 % of all it holds."""
_LEAST_S = 0.01
_GONE = 0.001


class Histogram(msgspec.Struct, frozen=True, array_like=True):
    """
    Seconds, in buckets that grow by a tenth; every change is a new value.

    What is under 10 ms counts as 10 ms.
    """

    at: int = 0
    """The weights are those of this moment, in microseconds, UTC."""
    buckets: dict[int, float] = {}
    """Number of a bucket to its weight."""

    def add(self, seconds: float, at: int) -> "Histogram":
        """One more sample; it may be older than others."""
        number = ceil(log(max(seconds, _LEAST_S) / _LEAST_S, _GROWTH))
        return self.merge(Histogram(at, {number: 1.0}))

    def merge(self, other: "Histogram") -> "Histogram":
        """The samples of both."""
        at = max(self.at, other.at)
        buckets = _weights(self, at)
        for number, weight in _weights(other, at).items():
            buckets[number] = buckets.get(number, 0.0) + weight
        scale = min(1.0, MOST_WEIGHT / max(sum(buckets.values()), _GONE))
        return Histogram(at, {number: weight * scale for number, weight in buckets.items() if weight > _GONE})

    def weight(self, at: int) -> float:
        """How many samples of `at` it is worth."""
        return float(sum(self.buckets.values())) * _decay(max(0, at - self.at))

    def percentile(self, ratio: float) -> float:
        """
        Seconds that this share of the samples, by weight, stays within; 0 where there is none.

        Time plays no part: all weights fade alike.
        """
        left, seconds = ratio * sum(self.buckets.values()), 0.0
        for number in sorted(self.buckets):
            seconds = float(_LEAST_S * 2 * _GROWTH**number / (_GROWTH + 1))
            left -= self.buckets[number]
            if left <= 0:
                break
        return seconds

    def encoded(self) -> bytes:
        return msgspec.msgpack.encode(self)


def _weights(histogram: Histogram, at: int) -> dict[int, float]:
    """Of each bucket at a moment that is not before its own."""
    share = _decay(at - histogram.at)
    return {number: weight * share for number, weight in histogram.buckets.items()}


def _decay(age_us: int) -> float:
    return float(0.5 ** (age_us / HALF_LIFE_US))


def read_histogram(content: bytes) -> Histogram:
    return msgspec.msgpack.decode(content, type=Histogram)


def times_of(attempt: Attempt) -> dict[Part, float] | None:
    """
    Seconds of queue and of render of a film that was made; None where there is none.

    They count from the start of the submit: some sellers queue before they answer. Where no poll saw
    the render begin, all of it counts as render.
    """
    if attempt.state != "done" or attempt.ended_at is None:
        return None
    begun_at = attempt.started_at if attempt.rendering_at is None else attempt.rendering_at
    return {
        "queue": (begun_at - attempt.started_at) / SECOND_US,
        "render": (attempt.ended_at - begun_at) / SECOND_US,
    }


class LearnedTimes(Protocol):
    """What a decision asks of everything that was learned."""

    def expected_s(self, offer: Offer, resolution: str, seconds: int | None) -> float | None:
        """From accept to file; None: too little is known, and the catalogue's figure holds."""
        ...


class Learned:
    """
    Histograms by offer, resolution, seconds of film and part, as they weigh at one moment.

    To be made anew when a histogram has changed, or its moment is long past. What was asked once is
    remembered, for decisions ask the same all day.
    """

    def __init__(self, histograms: Mapping[tuple[str, str, int, Part], Histogram], at: int) -> None:
        self._at = at
        self._lengths: dict[tuple[str, str], dict[int, dict[Part, Histogram]]] = {}
        for (offer, resolution, seconds, part), histogram in histograms.items():
            self._lengths.setdefault((offer, resolution), {}).setdefault(seconds, {})[part] = histogram
        self._known: dict[tuple[str, str, int | None], float | None] = {}

    def expected_s(self, offer: Offer, resolution: str, seconds: int | None) -> float | None:
        if (offer.id, resolution) not in self._lengths:
            return None
        key = (offer.id, resolution, seconds)
        if key not in self._known:
            self._known[key] = self._work_out(offer, resolution, seconds)
        return self._known[key]

    def _work_out(self, offer: Offer, resolution: str, seconds: int | None) -> float | None:
        """
        The median of the queue and the median of the render.

        A typical time is wanted, to compare offers by; two slow tails added up, such as their 90th
        percentiles, are a time that hardly any film takes, for the two are seldom slow together.
        """
        lengths = self._lengths[offer.id, resolution]
        exact = lengths.get(AUTO if seconds is None else seconds, {})
        if self._weight(exact) >= ENOUGH:
            return _median(exact, "queue") + _median(exact, "render")
        # How long the films were whose length the seller chose, nobody wrote down here.
        others = {length: parts for length, parts in lengths.items() if length != AUTO}
        total = sum(self._weight(parts) for parts in others.values())
        if total < ENOUGH:
            return None
        wanted_s = offer.expected_time_s(resolution, offer.max_seconds if seconds is None else seconds)
        expected_s = 0.0
        for length, parts in others.items():
            stated_s = offer.expected_time_s(resolution, length)
            render_s = _median(parts, "render") * (wanted_s / stated_s if stated_s else 1.0)
            expected_s += (_median(parts, "queue") + render_s) * self._weight(parts) / total
        return expected_s

    def _weight(self, parts: Mapping[Part, Histogram]) -> float:
        return parts["render"].weight(self._at) if "render" in parts else 0.0


def _median(parts: Mapping[Part, Histogram], part: Part) -> float:
    return parts[part].percentile(0.5) if part in parts else 0.0
