"""
Follows an attempt: polls it, looks for a lost one, asks the seller to stop. A callback only makes a poll due.

Nothing here moves a video on but a typed, definite answer; whatever cannot be read is asked again.
"""

import time
from collections.abc import Callable, Sequence

import msgspec
import structlog

from proxy.core.account import Account
from proxy.core.attempt import Accepted, Attempt, Progress
from proxy.core.clock import SECOND_US
from proxy.core.errors import Garbled, Interrupted, NotSent, OutcomeUnknown, Refusal, SellerError
from proxy.core.offer import Candidate
from proxy.core.wire import Call, Reply
from proxy.policy.fallback import FIND_AT_S, poll_interval_s
from proxy.providers.base import Adapter, Announces, Cancels, Finds, retry_after_s
from proxy.services import settle
from proxy.services.house import House
from proxy.services.settle import Moved
from proxy.services.told import tell
from proxy.store import videos, work
from proxy.store.base import Tx
from proxy.store.videos import Video
from proxy.store.work import Claim, Next

_log = structlog.get_logger("reelay.attempt")

POLL_TIMEOUT_S = 15.0
LOST_AFTER = 5
LOST_AFTER_US = 120 * SECOND_US
"""So many times in a row, over so long, must a seller deny an order before it counts as lost."""
TRAIL_US = 72 * 3600 * SECOND_US
"""How long an attempt is polled after its video has ended without it."""
SWITCHED_OFF_PAUSE_US = 60 * SECOND_US


class Missing(SellerError):
    """The seller says that it knows no such order."""


Answer = Progress | SellerError
Reader = Callable[[Adapter, Reply], Answer]


async def attend(house: House, claim: Claim, video: Video, attempt: Attempt) -> Attempt | None:
    """
    One look at an attempt that is due.

    Returns the attempt where its film is ready to be copied now. Raises LeaseLost.
    """
    if attempt.state in {"unknown", "lost"}:
        await _look_for(house, claim, attempt)
    elif attempt.state == "running":
        return await _poll(house, claim, video, attempt)
    else:
        await house.store.write(lambda tx: work.done(tx, attempt.video_id, attempt.number))
    return None


# Polling


async def _poll(house: House, claim: Claim, video: Video, attempt: Attempt) -> Attempt | None:
    desk = house.desk(attempt.provider)
    now = house.clock()
    if desk is None:
        await _again(house, claim, now + SWITCHED_OFF_PAUSE_US)
        return None
    if not video.live and now > (video.ended_at or now) + TRAIL_US:
        await _abandon(house, claim, attempt)
        return None
    if now < house.pace.get(attempt.provider, 0):
        await _again(house, claim, house.pace[attempt.provider] + int(house.chance() * SECOND_US))
        return None
    house.metrics.poll_lag(provider=attempt.provider, seconds=max(0, now - claim.due_at) / SECOND_US)
    account, adapter = desk
    if not video.live and attempt.cancel_asked_at is None and isinstance(adapter, Cancels):
        attempt = await _ask_to_stop(house, account, adapter, attempt)
    answer = await _progress(house, account, adapter, attempt)
    return await _act(house, claim, video, attempt, answer)


async def _progress(house: House, account: Account, adapter: Adapter, attempt: Attempt) -> Answer:
    """Where the order stands; the file's link is asked for at once where the seller keeps it elsewhere."""
    answer = await _ask(house, account, adapter, adapter.poll(attempt.ticket), "poll", _read_progress)
    if isinstance(answer, Progress) and answer.state == "succeeded" and answer.result is None:
        return await _ask(house, account, adapter, adapter.collect(attempt.ticket), "poll", _read_result)
    return answer


async def _ask(house: House, account: Account, adapter: Adapter, call: Call, operation: str, read: Reader) -> Answer:
    begun = time.perf_counter()
    answer: Answer
    try:
        reply = await house.transport.send(
            account, adapter.authorize(account.api_key or ""), call, timeout_s=POLL_TIMEOUT_S
        )
        _keep_pace(house, account.name, reply)
        answer = read(adapter, reply)
    except SellerError as exc:
        answer = exc
    house.metrics.exchange(
        provider=account.name, operation=operation, outcome=_word(answer), seconds=time.perf_counter() - begun
    )
    return answer


def _read_progress(adapter: Adapter, reply: Reply) -> Answer:
    if 200 <= reply.status < 300:
        return adapter.progress(reply)
    return _not_answered(adapter, reply)


_SAYS_NOTHING = frozenset({401, 402, 403, 429, 503})


def _read_result(adapter: Adapter, reply: Reply) -> Answer:
    if 200 <= reply.status < 300:
        return Progress(state="succeeded", percent=100, result=adapter.result(reply))
    if reply.status in _SAYS_NOTHING or reply.status == 404:
        return _not_answered(adapter, reply)
    return adapter.refusal(reply)


def _not_answered(adapter: Adapter, reply: Reply) -> Answer:
    """A poll that failed says nothing of the order, but for an application that denies it."""
    named = adapter.refusal(reply)
    if reply.status == 404 and isinstance(named, Refusal):
        return Missing(str(named))
    kind = f"{named.kind}: " if isinstance(named, Refusal) else ""
    return Garbled(f"status {reply.status}: {kind}{named}")


def _word(answer: Answer) -> str:
    match answer:
        case Progress():
            return "ok"
        case Refusal():
            return answer.kind
        case Missing():
            return "lost"
        case NotSent():
            return "not_sent"
        case Interrupted():
            return "interrupted"
        case OutcomeUnknown():
            return "unknown"
        case _:
            return "garbled"


def _keep_pace(house: House, provider: str, reply: Reply) -> None:
    if reply.status == 429:
        pause_s = retry_after_s(reply) or 5.0
        house.pace[provider] = house.clock() + int(min(pause_s, 300.0) * SECOND_US)


async def _act(house: House, claim: Claim, video: Video, attempt: Attempt, answer: Answer) -> Attempt | None:
    if isinstance(answer, Progress):
        if answer.result is not None:
            return await _finished(house, claim, attempt, answer)
        await _moved_on(house, claim, video, attempt, answer)
    elif isinstance(answer, Refusal):
        await _failed(house, claim, attempt, answer)
    elif isinstance(answer, Missing):
        await _missing(house, claim, video, attempt, answer)
    else:
        _log.warning("poll.unclear", video=video.id, attempt=attempt.number, provider=attempt.provider, why=str(answer))
        await _again(house, claim, _next_poll(house, video, attempt))
    return None


class _Unchanged(msgspec.Struct, frozen=True):
    """A poll that found nothing new but, perhaps, progress."""

    next: Next
    percent: int | None


def _note_many(tx: Tx, items: Sequence[_Unchanged]) -> list[None]:
    work.again_many(tx, [item.next for item in items])
    forward = [(item.next.claim.video_id, item.percent) for item in items if item.percent]
    if forward:
        videos.advance_many(tx, [(video_id, percent) for video_id, percent in forward if percent])
    return [None] * len(items)


async def _moved_on(house: House, claim: Claim, video: Video, attempt: Attempt, answer: Progress) -> None:
    due_at = _next_poll(house, video, attempt)
    if answer.retry_after_s is not None:
        due_at = max(due_at, house.clock() + int(answer.retry_after_s * SECOND_US))
    # A seller's 100 % without a file is not yet the customer's.
    percent = None if answer.percent is None or answer.percent <= video.progress else min(answer.percent, 99)
    if attempt.missing:
        found = msgspec.structs.replace(attempt, missing=0, missing_since=None)
        await house.store.write(lambda tx: videos.save_attempt(tx, found))
    await house.store.write_grouped(_note_many, _Unchanged(Next(claim=claim, due_at=due_at), percent))


async def _again(house: House, claim: Claim, due_at: int) -> None:
    await house.store.write_grouped(_note_many, _Unchanged(Next(claim=claim, due_at=due_at), None))


def _next_poll(house: House, video: Video, attempt: Attempt) -> int:
    candidate = _candidate(video, attempt)
    expected_s = candidate.expected_s if video.live else 60.0
    return house.clock() + int(poll_interval_s(expected_s, house.chance()) * SECOND_US)


def _candidate(video: Video, attempt: Attempt) -> Candidate:
    return settle.candidate_of(video.read_plan(), attempt)


async def _finished(house: House, claim: Claim, attempt: Attempt, answer: Progress) -> Attempt:
    """The seller made the film: from now on it may only be fetched, never bought again."""
    result = answer.result
    assert result is not None, "asked for above"
    stated = result.cost_microusd is not None or bool(attempt.cost_stated)
    done = msgspec.structs.replace(
        attempt,
        state="done",
        ended_at=house.clock(),
        link=result.url,
        cost_microusd=result.cost_microusd if result.cost_microusd is not None else attempt.cost_microusd,
        cost_stated=int(stated),
    )

    def unit(tx: Tx) -> None:
        now_is = videos.attempt_of(tx, attempt.video_id, attempt.number)
        if now_is is not None and now_is.state == "running":
            videos.save_attempt(tx, done)  # evidence, whoever holds the lease
        work.check(tx, claim)

    await house.store.write(unit)
    return done


async def _failed(house: House, claim: Claim, attempt: Attempt, answer: Refusal) -> None:
    """A definite end without a film: the next offer's turn, if the video is still live."""

    def unit(tx: Tx) -> tuple[Video, Moved]:
        work.check(tx, claim)
        moved = Moved()
        video = videos.by_id(tx, attempt.video_id)
        assert video is not None, "videos are never removed"
        failed = msgspec.structs.replace(
            attempt,
            state="failed",
            ended_at=tx.now_us,
            failure_kind=answer.kind,
            seller_code=answer.seller_code,
            message=str(answer),
            cost_microusd=answer.cost_microusd,
            cost_stated=0,
        )
        settle.conclude(tx, video, failed, moved, finished=False)
        work.done(tx, attempt.video_id, attempt.number)
        if video.live:
            work.ensure(tx, video.id, 0, tx.now_us)
        return video, moved

    video, moved = await house.store.write(unit)
    _log.info("attempt.failed", video=video.id, attempt=attempt.number, provider=attempt.provider, kind=answer.kind)
    tell(house, video, moved)
    house.due.set()


async def _missing(house: House, claim: Claim, video: Video, attempt: Attempt, answer: Missing) -> None:
    now = house.clock()
    since = attempt.missing_since if attempt.missing_since is not None else now
    denied = msgspec.structs.replace(attempt, missing=attempt.missing + 1, missing_since=since)
    lost = denied.missing >= LOST_AFTER and now - since >= LOST_AFTER_US
    if lost:
        denied = msgspec.structs.replace(denied, state="lost", message=str(answer))

    def unit(tx: Tx) -> None:
        work.check(tx, claim)
        videos.save_attempt(tx, denied)
        if lost:
            work.done(tx, attempt.video_id, attempt.number)
            work.nudge(tx, attempt.video_id, 0)
        else:
            work.again(tx, claim, _next_poll(house, video, attempt))

    await house.store.write(unit)
    if lost:
        _log.error("attempt.lost", video=video.id, attempt=attempt.number, provider=attempt.provider)
        house.due.set()


async def _abandon(house: House, claim: Claim, attempt: Attempt) -> None:
    """Three days after its video ended nobody asks any more; its cost stays unknown."""

    def unit(tx: Tx) -> tuple[Video, Moved]:
        work.check(tx, claim)
        moved = Moved()
        video = videos.by_id(tx, attempt.video_id)
        assert video is not None, "videos are never removed"
        lost = msgspec.structs.replace(attempt, state="failed", failure_kind="seller_timeout", ended_at=tx.now_us)
        settle.conclude(tx, video, lost, moved, finished=False)
        work.done(tx, attempt.video_id, attempt.number)
        return video, moved

    video, moved = await house.store.write(unit)
    tell(house, video, moved)


# A submit of unknown end


async def _look_for(house: House, claim: Claim, attempt: Attempt) -> None:
    desk = house.desk(attempt.provider)
    if desk is None or not isinstance(desk[1], Finds) or attempt.state == "lost" or attempt.asks >= len(FIND_AT_S):
        await house.store.write(lambda tx: work.done(tx, attempt.video_id, attempt.number))
        return
    account, finder = desk
    assert isinstance(finder, Finds), "checked above"
    answer = await _find(house, account, desk[1], finder, attempt)
    await house.store.write(lambda tx: _keep_found(tx, house, claim, attempt, answer))
    house.due.set()


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
            timeout_s=POLL_TIMEOUT_S,
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


def _keep_found(tx: Tx, house: House, claim: Claim, attempt: Attempt, answer: Accepted | SellerError | None) -> None:
    work.check(tx, claim)
    now_is = videos.attempt_of(tx, attempt.video_id, attempt.number)
    if now_is is None or now_is.state != "unknown":
        work.again(tx, claim, tx.now_us)  # a callback has named the seller's id meanwhile
    elif isinstance(answer, Accepted):
        adopt(tx, attempt, answer.seller_id)
    elif isinstance(answer, SellerError):
        # An ask that failed does not count: "no such order" is believed only after three that did not.
        work.again(tx, claim, tx.now_us + int(10 * SECOND_US * (1 + house.chance())))
    else:
        asked = msgspec.structs.replace(attempt, asks=attempt.asks + 1)
        if asked.asks < len(FIND_AT_S):
            videos.save_attempt(tx, asked)
            work.again(tx, claim, max(tx.now_us, attempt.started_at + FIND_AT_S[asked.asks] * SECOND_US))
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
        video = videos.by_id(tx, attempt.video_id)
        assert video is not None, "videos are never removed"
        settle.conclude(tx, video, refused, Moved(), finished=False)
        work.done(tx, attempt.video_id, attempt.number)
        work.nudge(tx, attempt.video_id, 0)


def adopt(tx: Tx, attempt: Attempt, seller_id: str) -> bool:
    """An attempt of unknown end turns out to have bought; False where another attempt holds that id."""
    holder = videos.attempt_by_seller_id(tx, attempt.provider, seller_id)
    if holder is not None and (holder.video_id, holder.number) != (attempt.video_id, attempt.number):
        return False
    running = msgspec.structs.replace(
        attempt, state="running", seller_id=seller_id, accepted_at=tx.now_us, missing=0, missing_since=None
    )
    videos.save_attempt(tx, running)
    videos.start(tx, attempt.video_id)
    work.ensure(tx, attempt.video_id, attempt.number, tx.now_us)
    return True


# Stopping


async def _ask_to_stop(house: House, account: Account, adapter: Cancels, attempt: Attempt) -> Attempt:
    """Once; whatever it answers, the order is polled to its end, for it may be billed."""
    assert isinstance(adapter, Cancels), "asked only of those that can"
    begun, outcome = time.perf_counter(), "ok"
    try:
        keyed: Adapter = house.adapters[account.adapter]
        reply = await house.transport.send(
            account,
            keyed.authorize(account.api_key or ""),
            adapter.cancel(attempt.ticket),
            timeout_s=POLL_TIMEOUT_S,
            fresh=True,
        )
        answer = adapter.cancelled(reply)
        _log.info("attempt.cancel_asked", video=attempt.video_id, attempt=attempt.number, answer=answer)
    except SellerError as exc:
        outcome = _word(exc)
        _log.warning("attempt.cancel_unclear", video=attempt.video_id, attempt=attempt.number, why=str(exc))
    house.metrics.exchange(
        provider=account.name, operation="cancel", outcome=outcome, seconds=time.perf_counter() - begun
    )
    asked = msgspec.structs.replace(attempt, cancel_asked_at=house.clock())
    await house.store.write(lambda tx: videos.save_attempt(tx, asked))
    return asked


# Callbacks


async def called_back(house: House, token: str, body: bytes) -> bool:
    """
    Makes a poll due; believes nothing of the body but, for an attempt of unknown end, the seller's id.

    False for a token that is not ours.
    """
    named = house.secrets.read_callback_token(token)
    if named is None:
        house.metrics.callbacks(provider="other", outcome="refused")
        return False
    video_id, number = named
    provider, outcome = await house.store.write(lambda tx: _heed(tx, house, video_id, number, body))
    house.metrics.callbacks(provider=provider, outcome=outcome)
    if outcome == "healed":
        _log.info("attempt.healed", video=video_id, attempt=number, provider=provider)
    house.due.set()
    return True


def _heed(tx: Tx, house: House, video_id: str, number: int, body: bytes) -> tuple[str, str]:
    attempt = videos.attempt_of(tx, video_id, number)
    if attempt is None:
        return "other", "ignored"
    if attempt.state in {"running", "done"}:
        return attempt.provider, "accepted" if work.nudge(tx, video_id, number) else "ignored"
    if attempt.state not in {"unknown", "sending"}:
        return attempt.provider, "ignored"
    desk = house.desk(attempt.provider)
    seller_id = desk[1].announced(body) if desk is not None and isinstance(desk[1], Announces) else None
    if seller_id is None:
        return attempt.provider, "ignored"
    if attempt.state == "unknown":
        return attempt.provider, "healed" if adopt(tx, attempt, seller_id) else "refused"
    # The submit is still under way; should its answer be lost, this id tells what became of it.
    if videos.attempt_by_seller_id(tx, attempt.provider, seller_id) is not None:
        return attempt.provider, "refused"
    videos.save_attempt(tx, msgspec.structs.replace(attempt, seller_id=seller_id))
    return attempt.provider, "accepted"


async def fresh_link(house: House, attempt: Attempt) -> str | None:
    """The seller's link, asked for again; None where it gives none now."""
    desk = house.desk(attempt.provider)
    if desk is None:
        return None
    account, adapter = desk
    answer = await _ask(house, account, adapter, adapter.collect(attempt.ticket), "poll", _read_result)
    return answer.result.url if isinstance(answer, Progress) and answer.result is not None else None
