"""Claims due work and gives it to the service it belongs to, until it is told to stop."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import structlog

from proxy.core.attempt import Attempt
from proxy.core.clock import SECOND_US
from proxy.core.errors import LeaseLost, Overloaded
from proxy.services.deliver import deliver
from proxy.services.dispatch import advance
from proxy.services.house import House
from proxy.services.housekeeping import keep_house_forever
from proxy.services.lanes import usher
from proxy.services.pulse import BEAT_S
from proxy.services.watch import attend
from proxy.store import videos, work
from proxy.store.base import Tx
from proxy.store.videos import Video
from proxy.store.work import Claim

_log = structlog.get_logger("reelay.worker")

LEASE_US = 45 * SECOND_US
"""How long the work of a process that died waits for another to take it over; a submit's is longer."""
RENEW_EVERY_S = 15.0
"""Leases of work that takes long, a large copy say, are made longer this often."""
IDLE_S = 1.0
"""How long to sleep at the most: another process may have made something due."""
SHORTEST_NAP_S = 0.02
"""Between two claims, so that what is due within it is claimed together."""
BEHIND_NAP_S = 0.004
"""The same where more is due than was claimed."""
EACH_TURN = 25
"""Pieces begun between two naps: more would make the requests of the same process wait for them."""

_Taken = tuple[Claim, Video | None, Attempt | None]


class Worker:
    """Runs in the server's process, or alone."""

    def __init__(self, house: House, *, owner: str, most: int = 400) -> None:
        self._house = house
        self._owner = owner
        self._most = most
        """Pieces of work under way at once."""
        self._under_way: dict[asyncio.Task[None], Claim] = {}
        self._stopping = asyncio.Event()
        self._resting = asyncio.Event()
        """Nothing more is claimed."""
        self._resting.set()

    async def run(self) -> None:
        """Until `stop`."""
        self._resting.clear()
        house = self._house
        around = (self._renew(), house.pulse.run(), self._usher(), keep_house_forever(house))
        beside = [asyncio.create_task(one) for one in around]
        try:
            while not self._stopping.is_set():
                await self._turn_safely()
        finally:
            self._resting.set()
            for task in beside:
                task.cancel()
            await asyncio.wait(beside)

    async def stop(self, *, grace_s: float) -> None:
        """Claims nothing more, lets what is under way finish, then lets go of the rest."""
        self._stopping.set()
        self._house.due.set()
        # A claim on its way to the database now still brings work, which must not be cut off half done.
        await self._resting.wait()
        if self._under_way:
            await asyncio.wait(list(self._under_way), timeout=grace_s)
        rest = dict(self._under_way)
        for task in rest:
            task.cancel()
        if rest:
            await asyncio.wait(rest, timeout=5)
        await self._let_go(list(rest.values()))

    async def _let_go(self, claims: Sequence[Claim]) -> None:
        """Leaves to others what was claimed here; a submit that was cut off is of unknown end to them."""

        def unit(tx: Tx) -> None:
            for claim in sorted(claims, key=lambda one: (one.video_id, one.attempt_no)):
                with suppress(LeaseLost):
                    work.again(tx, claim, tx.now_us)

        if not claims:
            return
        try:
            await self._house.store.write(unit)
        except Overloaded as exc:
            _log.warning("leases.not_returned", why=str(exc))

    async def _turn_safely(self) -> None:
        try:
            await self._turn()
        except Overloaded as exc:
            _log.warning("turn.postponed", why=str(exc))
            await asyncio.sleep(IDLE_S)
        except Exception:  # noqa: BLE001 - a worker that ended here would leave every video where it is
            _log.exception("turn.broke")
            await asyncio.sleep(IDLE_S)

    async def _turn(self) -> None:
        self._house.due.clear()
        room = min(EACH_TURN, self._most - len(self._under_way))
        taken = await self._claim(room) if room else []
        if self._stopping.is_set():
            await self._let_go([claim for claim, _, _ in taken])
            return
        for piece in taken:
            task = asyncio.create_task(self._do(piece))
            self._under_way[task] = piece[0]
            task.add_done_callback(lambda done: self._under_way.pop(done, None))
        await asyncio.sleep(BEHIND_NAP_S if room and len(taken) == room else SHORTEST_NAP_S)
        await self._sleep()

    async def _claim(self, room: int) -> list[_Taken]:
        # Looking first costs a read; claiming what is not there would cost a commit.
        if not await self._house.store.read_now(work.any_due):
            return []
        return await self._house.store.write(lambda tx: _take(tx, self._owner, room))

    async def _sleep(self) -> None:
        if len(self._under_way) >= self._most:
            await asyncio.wait(list(self._under_way), return_when=asyncio.FIRST_COMPLETED, timeout=IDLE_S)
            return
        next_due = await self._house.store.read_now(work.next_due)
        pause_s = IDLE_S if next_due is None else (next_due - self._house.clock()) / SECOND_US
        pause_s = min(IDLE_S, pause_s)
        if pause_s <= 0:
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(self._house.due.wait(), pause_s)

    async def _do(self, piece: _Taken) -> None:
        claim, video, attempt = piece
        number = {"attempt": claim.attempt_no} if claim.attempt_no else {}
        whose = {} if video is None else {"tenant": video.tenant_id, "request": video.request_id}
        structlog.contextvars.bind_contextvars(video=claim.video_id, **number, **whose)
        try:
            if video is None or attempt is None:
                await advance(self._house, claim)
                return
            ready: Attempt | None = attempt
            if attempt.state != "done":
                ready = await attend(self._house, claim, video, attempt)
            if ready is not None:
                await deliver(self._house, claim, video, ready)
        except LeaseLost:
            self._house.metrics.lease_lost()
            _log.warning("lease.lost")
        except asyncio.CancelledError:
            _log.info("work.interrupted")
            raise
        except Overloaded as exc:
            _log.warning("work.postponed", why=str(exc))
        except Exception:  # noqa: BLE001 - whatever broke is ours to mend, and may not stop the others
            # The lease runs out by itself and the work is taken up again; nothing is lost by waiting.
            _log.exception("work.broke")

    async def _usher(self) -> None:
        """Who waits for room at a seller is called when there is some, whoever made it."""
        while True:
            await asyncio.sleep(BEAT_S)
            try:
                await usher(self._house)
            except Overloaded as exc:
                _log.warning("usher.missed", why=str(exc))
            except Exception:  # noqa: BLE001 - without it videos would wait to their deadlines
                _log.exception("usher.broke")

    async def _renew(self) -> None:
        while True:
            held = list(self._under_way.values())
            await asyncio.sleep(RENEW_EVERY_S)
            still = set(self._under_way.values())
            old = [claim for claim in held if claim in still and claim.attempt_no]
            if not old:
                continue
            try:
                await self._house.store.write(lambda tx, old=old: work.extend(tx, old, lease_us=LEASE_US))  # type: ignore[misc]  # the default binds this turn's list
            except Overloaded as exc:
                _log.warning("leases.not_renewed", why=str(exc))
            except Exception:  # noqa: BLE001 - without it every long copy would be begun again and again
                _log.exception("renewal.broke")


def _take(tx: Tx, owner: str, room: int) -> list[_Taken]:
    claims = work.claim(tx, owner, most=room, lease_us=LEASE_US)
    followed = [claim.video_id for claim in claims if claim.attempt_no]
    of, attempts = videos.by_ids(tx, followed), videos.attempts_of_several(tx, followed)
    return [
        (claim, of.get(claim.video_id), attempts.get((claim.video_id, claim.attempt_no)))
        if claim.attempt_no
        else (claim, None, None)
        for claim in claims
    ]
