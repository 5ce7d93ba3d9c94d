"""Callbacks, really posted, with each seller's patience and every way to go wrong."""

import asyncio
import time
from collections.abc import Callable, Mapping

import httpx

from proxy.simulator.base import Letter, Polled
from proxy.simulator.clock import Clock
from proxy.simulator.faults import Faults
from proxy.simulator.job import Job, State

AT_ONCE = 32
LATE_S = 600.0
OLD_S = 86_400.0
MIN_TIMEOUT_S = 2.0
"""Real seconds that a receiver gets, however fast the sellers' clock."""

_OPPOSITE: dict[State, State] = {"succeeded": "failed", "failed": "succeeded", "cancelled": "succeeded"}

_SHOWN = frozenset({"cb_altered", "cb_wrong_signature", "cb_old", "cb_unknown_id", "cb_late"})
"""Faults that each letter shows."""


class Callbacks:
    """The mail room of all sellers that call back."""

    def __init__(
        self, *, sellers: Mapping[str, Polled], clock: Clock, faults: Faults, on_change: Callable[[Job], None]
    ) -> None:
        self._sellers = sellers
        self._clock = clock
        self._faults = faults
        self._on_change = on_change
        self._client: httpx.AsyncClient | None = None
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._under_way: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Leaves what is under way for the next start."""
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    def announce(self, job: Job) -> None:
        """Starts telling the end of a job, or goes on where an earlier run stopped."""
        if job.callback_url is None:
            return
        if "cb_lost" in job.faults:
            self._faults.note(job.seller, "cb_lost")
            return
        job.callback_open = True
        self._spawn(self._deliver(job, again=False))

    def redeliver(self, job: Job) -> None:
        """Tells the end once more."""
        job.callback_tries = 0
        self._spawn(self._deliver(job, again=True))

    async def early(self, job: Job) -> None:
        """Claims success of a job that has only just been accepted."""
        await self._post(job, self._letter(job, state="succeeded"))

    def _spawn(self, delivery: "asyncio.Coroutine[None, None, None]") -> None:  # type: ignore[name-defined]
        task = asyncio.create_task(delivery)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _deliver(self, job: Job, *, again: bool) -> None:
        courier = self._sellers[job.seller].courier
        if not again and job.ended_v is not None:
            lag_s = courier.lag_s + (LATE_S if "cb_late" in job.faults else 0.0)
            await self._clock.sleep(job.ended_v + lag_s - self._clock.now_s())
        waits_s = (0.0, *courier.waits_s)[job.callback_tries :]
        for wait_s in waits_s:
            await self._clock.sleep(wait_s)
            status = await self._post(job, self._letter(job, state=job.state))
            for id_ in _SHOWN & job.faults.keys():
                self._faults.note(job.seller, id_)
            job.callback_tries += 1
            refused = status is not None and 300 <= status < 500
            if (status is not None and 200 <= status < 300) or (refused and not courier.repeats_on_4xx):
                break
        if "cb_duplicate" in job.faults and not again:
            self._faults.note(job.seller, "cb_duplicate")
            await self._post(job, self._letter(job, state=job.state))
        job.callback_open = False
        self._on_change(job)

    def _letter(self, job: Job, *, state: State) -> Letter:
        seller = self._sellers[job.seller]
        sent_at = time.time() - (OLD_S if "cb_old" in job.faults else 0.0)
        id_ = seller.new_id() if "cb_unknown_id" in job.faults else job.id
        letter = seller.letter(job, id_=id_, state=state, sent_at=sent_at)
        if "cb_altered" in job.faults:
            forged = seller.letter(job, id_=id_, state=_OPPOSITE.get(state, "succeeded"), sent_at=sent_at)
            return Letter(headers=letter.headers, body=forged.body)
        if "cb_wrong_signature" in job.faults:
            return Letter(headers={**letter.headers, seller.courier.signature_header: "0" * 64}, body=letter.body)
        return letter

    async def _post(self, job: Job, letter: Letter) -> int | None:
        """The receiver's status, or None where nobody answered."""
        assert job.callback_url is not None, "only jobs with a callback come here"
        if self._client is None:
            self._client = httpx.AsyncClient(trust_env=False, follow_redirects=False)
        timeout_s = max(MIN_TIMEOUT_S, self._clock.real_s(self._sellers[job.seller].courier.timeout_s))
        status = None
        try:
            async with self._slots:
                reply = await self._client.post(
                    job.callback_url,
                    content=letter.body,
                    headers={"content-type": "application/json", **letter.headers},
                    timeout=timeout_s,
                )
            status = reply.status_code
        except (httpx.HTTPError, httpx.InvalidURL):
            pass
        job.callback_log.append({"at": time.time(), "status": status})
        return status
