"""The state machine common to all sellers: queued, running, one of three ends."""

import asyncio
import hashlib
import heapq
import itertools
import random
import uuid
from collections import deque
from collections.abc import Callable, Iterator

from proxy.simulator.clock import Clock
from proxy.simulator.film import Films
from proxy.simulator.job import Fate, Job, Order, State, View

AUTO_SECONDS = (6, 7, 8, 9, 11, 13)
AUTO_RATIOS = ("3:4", "4:3", "21:9", "1:1")
"""What `auto` may become: nothing that a client would have guessed."""

QUEUE_S = (5.0, 15.0)
RUN_S = (60.0, 150.0)
FLAW_RUN_S = 1.0
"""Bad input is found without rendering."""

BACKWARDS_SHARE = (0.4, 0.75)

_Step = Callable[[Job, float], None]


class Jobs:
    """Every seller's jobs, and the sellers' time that moves them on."""

    def __init__(self, *, clock: Clock, films: Films, seed: int) -> None:
        self._clock = clock
        self._films = films
        self._seed = seed
        self._ticks = itertools.count()
        self.running_at_once: dict[str, int] = {}
        """By seller, for each of its accounts; one that is not named runs all at once."""
        self.on_change: Callable[[Job], None] = lambda _job: None
        self.on_end: Callable[[Job], None] = lambda _job: None
        self.on_due: Callable[[], None] = lambda: None
        """Called when the next due instant may have come nearer."""
        self._ends: dict[tuple[str, str], asyncio.Event] = {}
        self.clear()

    def clear(self) -> None:
        """Forgets every job."""
        self._by_id: dict[tuple[str, str], Job] = {}
        self._by_file: dict[str, Job] = {}
        self._by_ref: dict[tuple[str, str, str], list[Job]] = {}
        self._numbers: dict[str, int] = {}
        self._due: list[tuple[float, int, Job, _Step]] = []
        self._unfinished: dict[tuple[str, str], int] = {}
        self._running: dict[tuple[str, str], int] = {}
        self._waiting: dict[tuple[str, str], deque[Job]] = {}
        for end in self._ends.values():
            end.set()
        self._ends.clear()

    def __iter__(self) -> Iterator[Job]:
        return iter(self._by_id.values())

    def find(self, seller: str, id_: str) -> Job | None:
        return self._by_id.get((seller, id_))

    def knows(self, job: Job) -> bool:
        """False for one that was forgotten while something still held it."""
        return self._by_id.get((job.seller, job.id)) is job

    def by_file(self, file_id: str) -> Job | None:
        return self._by_file.get(file_id)

    def by_ref(self, seller: str, key: str, client_ref: str) -> list[Job]:
        return self._by_ref.get((seller, key, client_ref), [])

    def unfinished(self, seller: str, key: str) -> int:
        """How many of an account's jobs have not ended."""
        return self._unfinished.get((seller, key), 0)

    def waiting(self, seller: str, key: str) -> int:
        """How many of an account's jobs have not started."""
        return self.unfinished(seller, key) - self._running.get((seller, key), 0)

    @property
    def next_due_s(self) -> float | None:
        """Sellers' time of the next move."""
        return self._due[0][0] if self._due else None

    def accept(
        self, order: Order, *, seller: str, key: str, id_: str, origin: str, faults: dict[str, float | None]
    ) -> Job:
        """Stores an order; its times and whatever it left open follow from the seed and its number."""
        number = self._numbers.get(seller, 0) + 1
        dice = random.Random(f"{self._seed}:{seller}:{number}")
        auto_seconds, auto_ratio = dice.choice(AUTO_SECONDS), dice.choice(AUTO_RATIOS)
        queue_s, run_s, own_seed = dice.uniform(*QUEUE_S), dice.uniform(*RUN_S), dice.randrange(2**31)
        now_v = self._clock.now_s()
        job = Job(
            seller=seller,
            id=id_,
            key=key,
            number=number,
            file_id=hashlib.blake2b(uuid.uuid4().bytes, digest_size=12).hexdigest(),
            origin=origin,
            prompt=order.prompt,
            model=order.model,
            tier=order.tier,
            resolution=order.resolution,
            aspect_ratio=order.aspect_ratio or auto_ratio,
            seconds=order.seconds or auto_seconds,
            audio=order.audio,
            content_filter=order.content_filter,
            seed=own_seed if order.seed is None else order.seed,
            client_ref=order.client_ref,
            callback_url=order.callback_url,
            extra=order.extra,
            flaw=order.flaw,
            faults=faults,
            fate=_fate(order, faults),
            accepted_v=now_v,
            queue_s=queue_s,
            run_s=FLAW_RUN_S if order.flaw else run_s,
            give_up_v=None if order.start_within_s is None else now_v + order.start_within_s,
            created_at=self._clock.wall_s(now_v),
        )
        self._enter(job)
        self._order_film(job)
        self.on_change(job)
        return job

    def restore(self, job: Job) -> None:
        """Takes up a job of an earlier run where its time has brought it."""
        self._enter(job)
        if not job.has_ended:
            self._order_film(job)

    def _enter(self, job: Job) -> None:
        self._by_id[job.seller, job.id] = job
        self._by_file[job.file_id] = job
        self._numbers[job.seller] = max(self._numbers.get(job.seller, 0), job.number)
        if job.client_ref is not None:
            self._by_ref.setdefault((job.seller, job.key, job.client_ref), []).append(job)
        if job.has_ended:
            return
        account = job.seller, job.key
        self._unfinished[account] = self._unfinished.get(account, 0) + 1
        if job.started_v is not None:
            self._running[account] = self._running.get(account, 0) + 1
            self._plan_end(job)
            return
        self._plan(job.accepted_v + job.queue_s, job, self._arrive)
        if job.give_up_v is not None:
            self._plan(job.give_up_v, job, self._give_up)

    def _order_film(self, job: Job) -> None:
        if _makes_film(job):
            self._films.order(job.shape)

    def _plan(self, at_v: float, job: Job, step: _Step) -> None:
        if not self.knows(job):
            return
        heapq.heappush(self._due, (at_v, next(self._ticks), job, step))
        if self._due[0][2] is job:
            self.on_due()

    def run_due(self) -> None:
        """Makes every move whose time has come."""
        now_v = self._clock.now_s()
        while self._due and self._due[0][0] <= now_v:
            at_v, _, job, step = heapq.heappop(self._due)
            step(job, at_v)

    def _arrive(self, job: Job, at_v: float) -> None:
        """The queue is passed; the job starts if its account has room."""
        if job.state != "queued":
            return
        account = job.seller, job.key
        if self._running.get(account, 0) < self.running_at_once.get(job.seller, 1 << 30):
            self._start(job, at_v)
        else:
            self._waiting.setdefault(account, deque()).append(job)

    def _start(self, job: Job, at_v: float) -> None:
        account = job.seller, job.key
        self._running[account] = self._running.get(account, 0) + 1
        job.state, job.started_v, job.started_at = "running", at_v, self._clock.wall_s(at_v)
        self._plan_end(job)
        self.on_change(job)

    def _plan_end(self, job: Job) -> None:
        if job.fate != "never_ends" and job.started_v is not None:
            self._plan(job.started_v + job.run_s, job, self._finish)

    def _give_up(self, job: Job, at_v: float) -> None:
        if job.state == "queued":
            job.fate = "start_timeout"
            self._end(job, "failed", at_v)

    def _finish(self, job: Job, at_v: float) -> None:
        if job.state != "running":
            return
        if _makes_film(job) and self._films.size_bytes(job.shape) is None:
            # No success before the clip can be fetched, however fast the clock runs.
            self._films.when_ready(job.shape, lambda: self._plan(at_v, job, self._finish))
            return
        self._end(job, "succeeded" if job.fate == "succeeded" else "failed", at_v)

    def cancel(self, job: Job, *, completes: bool | None) -> bool:
        """
        Asks a job to stop; False if it has ended.

        A queued job stops at once. A running one may finish all the same: by a coin that its number
        throws, or as `completes` says.
        """
        if job.has_ended:
            return False
        if job.state == "running":
            coin = random.Random(f"{self._seed}:{job.seller}:{job.number}:cancel").random() < 0.5
            if coin if completes is None else completes:
                return True
        self._end(job, "cancelled", self._clock.now_s())
        return True

    def _end(self, job: Job, state: State, at_v: float) -> None:
        account = job.seller, job.key
        ran = job.state == "running"
        job.state, job.ended_v, job.ended_at = state, at_v, self._clock.wall_s(at_v)
        self._unfinished[account] -= 1
        if ran:
            self._running[account] -= 1
            self._start_next(account, at_v)
        self.on_end(job)
        self.on_change(job)
        if (end := self._ends.pop((job.seller, job.id), None)) is not None:
            end.set()

    async def ended(self, job: Job) -> None:
        """Returns when a job has ended, or is forgotten before."""
        if self.knows(job) and not job.has_ended:
            await self._ends.setdefault((job.seller, job.id), asyncio.Event()).wait()

    def _start_next(self, account: tuple[str, str], at_v: float) -> None:
        queue = self._waiting.get(account)
        while queue:
            job = queue.popleft()
            if job.state == "queued":
                self._start(job, at_v)
                return

    def view(self, job: Job) -> View:
        """The job as it shows itself now."""
        now_v = self._clock.now_s()
        if job.state == "queued":
            return View(state="queued", share=0.0, wait_s=max(0.0, job.accepted_v + job.queue_s - now_v))
        if job.state != "running" or job.started_v is None:
            return View(state=job.state, share=1.0, wait_s=0.0)
        share = min(0.99, max(0.0, (now_v - job.started_v) / job.run_s))
        if "unknown_status" in job.faults:
            return View(state="unheard_of", share=share, wait_s=0.0)
        if "backwards" in job.faults and BACKWARDS_SHARE[0] <= share < BACKWARDS_SHARE[1]:
            return View(state="queued", share=0.0, wait_s=5.0)
        return View(state="running", share=share, wait_s=0.0)


def _fate(order: Order, faults: dict[str, float | None]) -> Fate:
    if order.flaw:
        return "invalid"
    for fate in ("moderation_late", "render_failed", "never_ends"):
        if fate in faults:
            return fate
    return "succeeded"


def _makes_film(job: Job) -> bool:
    return job.fate == "succeeded"
