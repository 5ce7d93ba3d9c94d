"""
Whether an offer may be asked just now: breaker arithmetic over how its last sends ended.

Each offer has two streams of outcomes, for a seller may take every order and finish none. A stream
opens when it fails, and after a pause lets real requests through, one at a time, until one goes well;
the offer is open while either stream is. Breakers only order what a plan keeps: accepting a video
never asks them.
"""

from bisect import insort
from functools import reduce
from typing import Literal

import msgspec

from proxy.core.attempt import Attempt, Outcome, Part
from proxy.core.clock import SECOND_US

COUNTED = frozenset({"capacity", "provider_error", "seller_timeout", "account"})
"""
Failures that speak against the seller.

`throttled` does not: it is the backpressure of a seller that is well, and its own time to wait is
heeded already. Nor does what the request was refused for (`invalid_input`, `moderation`), nor what was
stopped on purpose (`cancelled`).
"""

IN_A_ROW = 5
"""So many failures one after the other open a stream."""
WINDOW = 20
"""So many outcomes, once there are as many, open it if half of them failed."""
FIRST_PAUSE_US = 10 * SECOND_US
LONGEST_PAUSE_US = 30 * SECOND_US
"""A seller that comes back is asked within this time, and so in use again within a minute."""
LATE_US = 5 * SECOND_US
"""An outcome that is heard so late still finds its place in time; replicas hear of each other within 2 s."""


def outcome_of(attempt: Attempt, *, at: int) -> Outcome | None:
    """
    What the state that an attempt reached at `at` says about its seller; None: nothing.

    The first word about each part holds: a submit of unknown end that turns up later was bad all the same.
    """
    part: Part = "submit" if attempt.state in {"running", "refused", "unknown"} else "render"
    good = attempt.state in {"running", "done"}
    # Of `unknown` and `lost` there is no kind; either is a seller that did not do what it should.
    bad = attempt.state in {"unknown", "lost"} or attempt.failure_kind in COUNTED
    if attempt.state == "sending" or not (good or bad):
        return None
    return Outcome(
        video_id=attempt.video_id, attempt_no=attempt.number, part=part, offer=attempt.offer, good=good, at=at
    )


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How an offer stands at one moment."""

    state: Literal["closed", "half_open", "open"]
    free_at: int
    """From when on a request may go there: 0 where closed, else when the next probe is due."""


class _Breaker(msgspec.Struct, frozen=True):
    """A stream after the outcomes so far."""

    last: tuple[bool, ...] = ()
    """Good or not, since it last closed; the newest at the end."""
    open_until: int | None = None
    """None: closed. Once that is past, the next outcome decides."""
    pause_us: int = 0


_CLOSED = _Breaker()


def _after(breaker: _Breaker, outcome: Outcome) -> _Breaker:
    if breaker.open_until is None:
        last = (*breaker.last, outcome.good)[-WINDOW:]
        return _opened(outcome.at, FIRST_PAUSE_US) if _fails(last) else _Breaker(last)
    if outcome.at < breaker.open_until:
        # It was sent before the stream opened, and says nothing new.
        return breaker
    return _CLOSED if outcome.good else _opened(outcome.at, min(2 * breaker.pause_us, LONGEST_PAUSE_US))


def _opened(at: int, pause_us: int) -> _Breaker:
    return _Breaker((), at + pause_us, pause_us)


def _fails(last: tuple[bool, ...]) -> bool:
    in_a_row = len(last) >= IN_A_ROW and not any(last[-IN_A_ROW:])
    return in_a_row or (len(last) == WINDOW and 2 * last.count(False) >= WINDOW)


class _Stream(msgspec.Struct, frozen=True):
    """One part's outcomes, the last ones still in a row so that a late one can be put among them."""

    now: _Breaker = _CLOSED
    recent: tuple[Outcome, ...] = ()
    """By time."""
    settled: _Breaker = _CLOSED
    """After all that came before `recent`."""
    settled_at: int = -1
    known: frozenset[tuple[str, int]] = frozenset()
    """The keys of `recent`: each beat brings them all again."""

    def heard(self, outcome: Outcome) -> "_Stream":
        if outcome.at <= self.settled_at or outcome.key in self.known:
            return self
        recent = list(self.recent)
        insort(recent, outcome, key=_by_time)
        in_order = recent[-1] is outcome
        now = _after(self.now, outcome) if in_order else reduce(_after, recent, self.settled)
        old = sum(1 for other in recent if other.at < recent[-1].at - LATE_US)
        settled = reduce(_after, recent[:old], self.settled)
        settled_at = recent[old - 1].at if old else self.settled_at
        kept = tuple(recent[old:])
        return _Stream(now, kept, settled, settled_at, frozenset([other.key for other in kept]))


def _by_time(outcome: Outcome) -> tuple[int, tuple[str, int]]:
    return outcome.at, outcome.key


class Health(msgspec.Struct, frozen=True):
    """
    What is known of one offer; every change is a new value.

    Equal outcomes make it equal in every replica, in whatever order they are heard, but for the
    probes: each replica may have one of its own under way.
    """

    submit: _Stream = _Stream()
    render: _Stream = _Stream()
    probed_at: int | None = None

    def heard(self, outcome: Outcome) -> "Health":
        """An outcome that was heard before changes nothing."""
        part = self.submit if outcome.part == "submit" else self.render
        return msgspec.structs.replace(self, **{outcome.part: part.heard(outcome)})

    def probing(self, now_us: int) -> "Health":
        """After a request went there: unless the offer is closed, no other may follow for one more pause."""
        if self.standing(now_us).state == "closed":
            return self
        return msgspec.structs.replace(self, probed_at=now_us)

    def standing(self, now_us: int) -> Standing:
        opened = [stream.now for stream in (self.submit, self.render) if stream.now.open_until is not None]
        if not opened:
            return Standing(state="closed", free_at=0)
        until = max(breaker.open_until or 0 for breaker in opened)
        if now_us < until:
            return Standing(state="open", free_at=until)
        if self.probed_at is None:
            return Standing(state="half_open", free_at=until)
        # A render takes minutes: a probe that is still out does not keep others away for so long.
        again_at = self.probed_at + max(breaker.pause_us for breaker in opened)
        return Standing(state="half_open", free_at=max(until, again_at))
