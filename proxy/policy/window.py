"""How much fits into a sliding minute, and when more will."""

from collections import deque

from proxy.core.clock import SECOND_US

LENGTH_US = 60 * SECOND_US


class Window:
    """
    The times of what was let through in the last minute, in microseconds of a clock that never goes back.

    What was let through at a moment is in it for a minute, and at the end of that minute no more.
    """

    def __init__(self) -> None:
        self._times: deque[int] = deque()

    def wait_us(self, most: int, at_us: int) -> int:
        """How long until one more fits where `most` are let through in a minute; 0: at once."""
        times = self._times
        while times and times[0] <= at_us - LENGTH_US:
            times.popleft()
        # A limit that was lowered waits for all that are beyond it.
        return 0 if len(times) < most else times[len(times) - most] + LENGTH_US - at_us

    def add(self, at_us: int) -> None:
        """One was let through."""
        self._times.append(at_us)

    def idle(self, at_us: int) -> bool:
        """Whether nothing is in it any more."""
        return not self._times or self._times[-1] <= at_us - LENGTH_US
