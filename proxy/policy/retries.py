"""
How much may be asked again of a seller: a share of what it is asked for the first time, and a few on top.

Each video by itself asks again rarely; a thousand of them that one outage has stopped would be a storm, and
keep down the seller that they wait for.
"""

from collections import deque

from proxy.core.clock import SECOND_US

LENGTH_US = 10 * SECOND_US
"""What is counted is counted for so long."""
SHARE = 5
"""One call in so many may be one that was made before."""
FLOOR = 20
"""So many may be whatever the traffic is, in each `LENGTH_US`: a seller that comes back is found out by them."""
PUT_OFF_US = 10 * SECOND_US
"""How long a question waits that may not be asked again; by then what went badly now is forgotten."""


class Retries:
    """
    Calls of one kind to one seller in the last ten seconds; times are microseconds.

    What is asked again costs only where it goes badly, or until it has gone well: a seller that is well
    again works off what has waited as fast as it answers.
    """

    def __init__(self) -> None:
        self._firsts: deque[int] = deque()
        self._agains: deque[int] = deque()
        """Those that went badly, or whose end nobody knows yet."""

    def first(self, at_us: int) -> None:
        """Something was asked that nobody had to wait for."""
        self._forget(at_us)
        self._firsts.append(at_us)

    def room(self, at_us: int) -> int:
        """How many more may be asked again at this moment."""
        self._forget(at_us)
        return max(0, FLOOR + len(self._firsts) // SHARE - len(self._agains))

    def again(self, at_us: int) -> None:
        """Something was asked again."""
        self._agains.append(at_us)

    def went_well(self) -> None:
        """Something that was asked again was answered."""
        if self._agains:
            self._agains.pop()

    def _forget(self, at_us: int) -> None:
        for times in (self._firsts, self._agains):
            while times and times[0] <= at_us - LENGTH_US:
                times.popleft()


def put_off_us(chance: float) -> int:
    """`PUT_OFF_US`, give or take a half: what was put off together does not come back together."""
    return int(PUT_OFF_US * (0.5 + chance))
