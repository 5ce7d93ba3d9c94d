"""
How sellers did lately, heard from every process and told to every one, once each half second.

What happens in this process counts here at once. The rest is at most two beats old.
"""

import asyncio
import threading
from collections.abc import Sequence

import structlog

from proxy.core.attempt import Attempt, Outcome
from proxy.core.clock import SECOND_US, Clock
from proxy.core.errors import ReelayError
from proxy.core.video import Spec
from proxy.policy.health import LATE_US, Health, Standing, outcome_of
from proxy.policy.pace import AUTO, Histogram, Learned, read_histogram, times_of
from proxy.store import health, moments
from proxy.store.base import Store, Tx
from proxy.store.health import TimesKey

_log = structlog.get_logger("reelay.pulse")

BEAT_S = 0.5
RELEARN_US = 30 * SECOND_US
"""How old the learned times may be that were heard from other processes."""
MEMORY_US = 15 * 60 * SECOND_US
"""What a process that starts hears of the time before it."""


class Pulse:
    """The health and the times of every offer, as this process knows them."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self.health: dict[str, Health] = {}
        """By offer; one that is not there is well."""
        self._changing = threading.Lock()
        """Held while `health` is changed: probes are begun in threads of the store."""
        self.times = Learned({}, 0)
        self._heard_at = 0
        self._learned_at = 0
        self._outcomes: list[Outcome] = []
        """Not yet told to the other processes; the same for the samples."""
        self._samples: dict[TimesKey, Histogram] = {}

    def note(self, attempt: Attempt, spec: Spec) -> None:
        """An attempt has reached the state that it is in; to be told after the commit."""
        now = self._clock()
        outcome = outcome_of(attempt, at=now)
        if outcome is not None:
            self._hear(outcome)
            self._outcomes.append(outcome)
        for part, seconds in (times_of(attempt) or {}).items():
            key = (attempt.offer, spec.resolution, AUTO if spec.seconds is None else spec.seconds, part)
            self._samples[key] = self._samples.get(key, Histogram()).add(seconds, now)

    def probing(self, offer: str, now_us: int) -> bool:
        """
        Whether a request may go there now; where the offer is not well, no other may for a while then.

        To be asked in the unit that writes the request down: of many units that are kept together one goes.
        """
        with self._changing:
            known = self.health.get(offer)
            if known is None:
                return True
            if known.standing(now_us).free_at > now_us:
                return False
            self.health[offer] = known.probing(now_us)
            return True

    def standing(self, offer: str) -> Standing:
        return self.health.get(offer, Health()).standing(self._clock())

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.beat()
            except ReelayError as exc:
                _log.warning("pulse.missed", why=str(exc))
            except Exception:  # noqa: BLE001 - a pulse that stopped would leave every breaker as it is
                _log.exception("pulse.broke")
            await asyncio.sleep(BEAT_S)

    async def beat(self) -> None:
        """Tells what happened here, and hears what happened elsewhere."""
        await self._tell()
        if not self._store.alone:
            # One that started after a clock was set forward is ahead of those that had started before.
            self._store.not_before(await self._store.read(moments.latest))
        now = self._clock()
        since = max(now - MEMORY_US, self._heard_at - LATE_US)
        for outcome in await self._store.read(lambda tx: health.outcomes_since(tx, since)):
            self._hear(outcome)
        self._heard_at = now
        if now - self._learned_at >= RELEARN_US:
            await self._relearn(now)

    async def _tell(self) -> None:
        fresh, self._outcomes = self._outcomes, []
        samples, self._samples = self._samples, {}
        if not fresh and not samples:
            return
        try:
            await self._store.write(lambda tx: _keep(tx, fresh, samples))
        except ReelayError:
            self._outcomes = [*fresh, *self._outcomes]
            raise

    async def _relearn(self, now: int) -> None:
        learned = await self._store.read(health.all_times)
        self.times = Learned({key: read_histogram(content) for key, content in learned.items()}, now)
        self._learned_at = now

    def _hear(self, outcome: Outcome) -> None:
        with self._changing:
            self.health[outcome.offer] = self.health.get(outcome.offer, Health()).heard(outcome)


def _keep(tx: Tx, fresh: Sequence[Outcome], samples: dict[TimesKey, Histogram]) -> None:
    health.add_outcomes(tx, fresh)
    for key, sample in sorted(samples.items(), key=lambda one: one[0]):
        known = health.take_times(tx, key)
        whole = sample if known is None else read_histogram(known).merge(sample)
        health.save_times(tx, key, whole.encoded())
