"""Who may ask a seller again, by the budgets of this process; what may not waits, and nothing else happens to it."""

import threading
from collections import defaultdict
from typing import Literal

from proxy.core.clock import Clock
from proxy.policy.retries import Retries

Question = Literal["submit", "poll", "find"]
Asked = tuple[str, int]
"""Video and number of the attempt."""

REMEMBERED = 50_000
"""Questions without an answer that are known as such; beyond them the oldest count as never asked."""


class Retrying:
    """By provider and by what is asked. May be used from any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._retries: defaultdict[tuple[str, Question], Retries] = defaultdict(Retries)
        self._unanswered: dict[Asked, None] = {}
        """The oldest first."""

    def take(self, provider: str, question: Question, *, again: bool) -> bool:
        """Whether it may be asked now, and then it counts; the first time it always may."""
        with self._lock:
            retries, now = self._retries[provider, question], self._clock()
            if not again:
                retries.first(now)
            elif retries.room(now):
                retries.again(now)
            else:
                return False
            return True

    def room(self, provider: str, question: Question) -> int:
        """How many may be asked again just now."""
        with self._lock:
            return self._retries[provider, question].room(self._clock())

    def went_well(self, provider: str, question: Question) -> None:
        """What was asked again has an answer."""
        with self._lock:
            self._retries[provider, question].went_well()

    # Questions about attempts, whose answers are kept nowhere else

    def take_about(self, asked: Asked, provider: str, question: Question) -> bool:
        """The same, where the question counts as asked again if the last one about this attempt had no answer."""
        return self.take(provider, question, again=asked in self._unanswered)

    def heard_about(self, asked: Asked, provider: str, question: Question, *, well: bool) -> None:
        """What came of it."""
        with self._lock:
            before = asked in self._unanswered
            if before and well:
                del self._unanswered[asked]
                self._retries[provider, question].went_well()
            elif not before and not well:
                if len(self._unanswered) >= REMEMBERED:
                    del self._unanswered[next(iter(self._unanswered))]
                self._unanswered[asked] = None
