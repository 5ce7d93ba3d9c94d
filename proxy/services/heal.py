"""A submit of unknown end: what its seller says when asked for it, and what becomes of one that was taken after all."""

import time

import msgspec

from proxy.core.account import Account
from proxy.core.attempt import Accepted, Attempt, Result
from proxy.core.clock import SECOND_US
from proxy.core.errors import Garbled, SellerError
from proxy.policy.fallback import FIND_AT_S
from proxy.policy.retries import put_off_us
from proxy.providers.base import Adapter, Finds
from proxy.services import settle
from proxy.services.due import wake
from proxy.services.house import House
from proxy.services.settle import Moved
from proxy.services.told import tell
from proxy.store import videos, work
from proxy.store.base import Tx
from proxy.store.videos import Video
from proxy.store.work import Claim

FIND_TIMEOUT_S = 15.0
FIND_AGAIN_US = 10 * SECOND_US
RESTORED = "The database was restored from a backup; this order may have been sent before."
NOT_BOUGHT = "An operator found that the provider never took the order."
SEARCH_US = 72 * 3600 * SECOND_US
"""How long after its start an attempt is looked for where the seller's answers say nothing."""


def taken(attempt: Attempt, seller_id: str | None, *, at: int) -> Attempt:
    """The attempt as one that its seller has accepted, whatever had been thought of it before."""
    return msgspec.structs.replace(
        attempt,
        state="running",
        seller_id=seller_id,
        accepted_at=at,
        rendering_at=None,
        failure_kind=None,
        seller_code=None,
        message=None,
        ended_at=None,
        retry_at=None,
        cost_microusd=None,
        cost_stated=0,
        bearer=None,
        missing=0,
        missing_since=None,
    )


def finished(attempt: Attempt, result: Result, *, at: int) -> Attempt:
    """The attempt as one whose film its seller has made: it may only be fetched from now on, never bought again."""
    stated = result.cost_microusd is not None
    return msgspec.structs.replace(
        attempt,
        state="done",
        ended_at=at,
        link=result.url,
        missing=0,
        missing_since=None,
        cost_microusd=result.cost_microusd if stated else attempt.cost_microusd,
        cost_stated=int(stated or bool(attempt.cost_stated)),
    )


def is_free(tx: Tx, attempt: Attempt, seller_id: str) -> bool:
    """Whether no other attempt holds this id of the seller's."""
    holder = videos.attempt_by_seller_id(tx, attempt.provider, seller_id)
    return holder is None or (holder.video_id, holder.number) == (attempt.video_id, attempt.number)


def adopt(tx: Tx, attempt: Attempt, seller_id: str) -> bool:
    """An attempt turns out to have bought, and is polled from now on; False where another holds that id."""
    if not is_free(tx, attempt, seller_id):
        return False
    videos.save_attempt(tx, taken(attempt, seller_id, at=tx.now_us))
    videos.start(tx, attempt.video_id)
    work.ensure(tx, attempt.video_id, attempt.number, tx.now_us)
    return True


def doubt(tx: Tx, attempt: Attempt) -> None:
    """Writes down an attempt that may have been made before the database was restored; its seller is asked for it."""
    unknown = msgspec.structs.replace(attempt, state="unknown", message=RESTORED, missing_since=tx.now_us)
    videos.insert_attempt(tx, unknown)
    work.ensure(tx, attempt.video_id, attempt.number, tx.now_us + FIND_AT_S[0] * SECOND_US)


async def look_for(house: House, claim: Claim, attempt: Attempt) -> None:
    """One ask for an attempt of unknown end, where its seller can be asked. Raises LeaseLost."""
    desk = house.desk(attempt.provider)
    over = attempt.state == "lost" or attempt.asks >= len(FIND_AT_S)
    if over or house.clock() > attempt.started_at + SEARCH_US or (desk and not isinstance(desk[1], Finds)):
        await house.store.write(lambda tx: _stop_looking(tx, claim, attempt))
        return
    answer: Accepted | SellerError | None = Garbled("nobody can ask this provider just now")
    if desk is not None and isinstance(desk[1], Finds):
        asked = (attempt.video_id, attempt.number)
        if not house.retrying.take_about(asked, attempt.provider, "find"):
            house.metrics.put_off(provider=attempt.provider, operation="find")
            await house.store.write(lambda tx: work.again(tx, claim, tx.now_us + put_off_us(house.chance())))
            return
        answer = await _find(house, desk[0], desk[1], desk[1], attempt)
        house.retrying.heard_about(asked, attempt.provider, "find", well=not isinstance(answer, SellerError))
    video, moved = await house.store.write(lambda tx: _keep_found(tx, house, claim, attempt.number, answer))
    tell(house, video, moved)
    house.due.set()


def _stop_looking(tx: Tx, claim: Claim, attempt: Attempt) -> None:
    """Unless a callback has named the seller's id meanwhile: then there is something to poll."""
    videos.take(tx, attempt.video_id)
    work.check(tx, claim)
    now_is = videos.attempt_of(tx, attempt.video_id, attempt.number)
    if now_is is not None and now_is.state == attempt.state:
        work.done(tx, attempt.video_id, attempt.number)
    else:
        work.again(tx, claim, tx.now_us)


async def _find(
    house: House, account: Account, adapter: Adapter, finder: Finds, attempt: Attempt
) -> Accepted | SellerError | None:
    begun = time.perf_counter()
    found: Accepted | SellerError | None
    try:
        reply = await house.transport.send(
            account,
            adapter.authorize(account.api_key or ""),
            finder.find(attempt.client_ref),
            timeout_s=FIND_TIMEOUT_S,
        )
        ok = 200 <= reply.status < 300
        found = finder.found(reply, attempt.client_ref) if ok else Garbled(f"status {reply.status}")
    except SellerError as exc:
        found = exc
    outcome = "garbled" if isinstance(found, SellerError) else "ok"
    house.metrics.exchange(
        provider=account.name, operation="find", outcome=outcome, seconds=time.perf_counter() - begun
    )
    return found


def _keep_found(
    tx: Tx, house: House, claim: Claim, number: int, answer: Accepted | SellerError | None
) -> tuple[Video, Moved]:
    moved = Moved()
    video, attempt = videos.take_attempt(tx, claim.video_id, number)
    work.check(tx, claim)
    if attempt.state != "unknown":
        work.again(tx, claim, tx.now_us)  # a callback has named the seller's id meanwhile
    elif answer is None:
        _deny(tx, claim, video, attempt, moved)
    elif isinstance(answer, SellerError) or not adopt(tx, attempt, answer.seller_id):
        # An ask that failed does not count: "no such order" is believed only after three that did not.
        work.again(tx, claim, tx.now_us + int(FIND_AGAIN_US * (1 + house.chance())))
    else:
        work.again(tx, claim, tx.now_us)
    return video, moved


def _deny(tx: Tx, claim: Claim, video: Video, attempt: Attempt, moved: Moved) -> None:
    """The seller knows no such order; the third time that is believed."""
    asked = msgspec.structs.replace(attempt, asks=attempt.asks + 1)
    if asked.asks < len(FIND_AT_S):
        videos.save_attempt(tx, asked)
        since = attempt.missing_since or attempt.started_at
        work.again(tx, claim, max(tx.now_us, since + FIND_AT_S[asked.asks] * SECOND_US))
        return
    refused = msgspec.structs.replace(
        asked,
        state="refused",
        failure_kind="capacity",
        message="The submit was lost on its way: the provider knows no such order.",
        ended_at=tx.now_us,
        retry_at=tx.now_us,
        cost_microusd=0,
    )
    settle.conclude(tx, video, refused, moved, finished=False)
    work.done(tx, video.id, attempt.number)
    wake(tx, video.id)
