"""
Follows an attempt: polls it, asks the seller to stop. A callback only makes a poll due.

Nothing here moves a video on but a typed, definite answer; whatever cannot be read is asked again.
"""

import time
from collections.abc import Sequence
from typing import Any

import msgspec
import structlog

from proxy.core.account import Account
from proxy.core.attempt import Attempt, Progress
from proxy.core.clock import SECOND_US
from proxy.core.errors import LeaseLost, Refusal, SellerError
from proxy.core.offer import Candidate
from proxy.core.wire import without_nul
from proxy.policy.fallback import GiveUp, next_step, poll_interval_s
from proxy.policy.retries import put_off_us
from proxy.providers.base import Adapter, Announces, Cancels
from proxy.services import settle
from proxy.services.asking import POLL_TIMEOUT_S, Answer, Missing, progress_of, word_for
from proxy.services.dispatch import give_up
from proxy.services.due import wake
from proxy.services.heal import adopt, finished, is_free, look_for
from proxy.services.house import House
from proxy.services.settle import Moved
from proxy.services.told import note, tell
from proxy.store import videos, work
from proxy.store.base import Tx
from proxy.store.videos import Video
from proxy.store.work import Claim, Next

_log = structlog.get_logger("reelay.attempt")

LOST_AFTER = 5
LOST_AFTER_US = 120 * SECOND_US
"""So many times in a row, over so long, must a seller deny an order before it counts as lost."""
TRAIL_US = 72 * 3600 * SECOND_US
"""How long an attempt is polled after its video has ended without it."""
SWITCHED_OFF_PAUSE_US = 60 * SECOND_US


async def attend(house: House, claim: Claim, video: Video, attempt: Attempt) -> Attempt | None:
    """
    One look at an attempt that is due.

    Returns the attempt where its film is ready to be copied now. Raises LeaseLost.
    """
    if attempt.state in {"unknown", "lost"}:
        await look_for(house, claim, attempt)
    elif attempt.state == "running":
        return await _poll(house, claim, video, attempt)
    elif attempt.state == "sending":
        await _out_of_time(house, claim)
    else:
        await house.store.write(lambda tx: _leave_alone(tx, claim, attempt))
    return None


def _leave_alone(tx: Tx, claim: Claim, attempt: Attempt) -> None:
    """An attempt that is over needs nothing more, unless it has turned out to run meanwhile."""
    _, now_is = videos.take_attempt(tx, claim.video_id, claim.attempt_no)
    work.check(tx, claim)
    if now_is.state == attempt.state:
        work.done(tx, claim.video_id, claim.attempt_no)
    else:
        work.again(tx, claim, tx.now_us)


async def _out_of_time(house: House, claim: Claim) -> None:
    """The deadline of a video whose submit is still under way; what that is answered concerns the money alone."""

    def unit(tx: Tx) -> tuple[Video, Moved]:
        video, now_is = videos.take_attempt(tx, claim.video_id, claim.attempt_no)
        work.check(tx, claim)
        attempts, plan, moved = videos.attempts_of(tx, video.id), video.read_plan(), Moved()
        if now_is.state != "sending":
            work.again(tx, claim, tx.now_us)  # the answer came just now, and may be a film to be copied
            return video, moved
        work.done(tx, video.id, claim.attempt_no)
        if video.live:
            step = next_step(plan.candidates, plan.fallback, attempts, now_us=tx.now_us, deadline_us=video.deadline_at)
            if isinstance(step, GiveUp):
                moved = give_up(tx, video, step.code, step.message)
        return video, moved

    video, moved = await house.store.write(unit)
    tell(house, video, moved)


# Polling


async def _poll(house: House, claim: Claim, video: Video, attempt: Attempt) -> Attempt | None:
    desk = house.poller(attempt.provider)
    now = house.clock()
    if not video.live and now > (video.ended_at or now) + TRAIL_US:
        await _abandon(house, claim, attempt)
        return None
    if desk is None:
        # Without its key, or under another adapter by now, nobody can ask; that may change back.
        await _again(house, claim, now + SWITCHED_OFF_PAUSE_US)
        return None
    if now < house.pace.get(attempt.provider, 0):
        await _again(house, claim, house.pace[attempt.provider] + int(house.chance() * SECOND_US))
        return None
    asked = (attempt.video_id, attempt.number)
    if not house.retrying.take_about(asked, attempt.provider, "poll"):
        house.metrics.put_off(provider=attempt.provider, operation="poll")
        await _again(house, claim, now + put_off_us(house.chance()))
        return None
    house.metrics.poll_lag(provider=attempt.provider, seconds=max(0, now - claim.due_at) / SECOND_US)
    account, adapter = desk
    if not video.live and attempt.cancel_asked_at is None and isinstance(adapter, Cancels):
        attempt = await _ask_to_stop(house, claim, account, adapter, attempt)
    answer = await progress_of(house, account, adapter, attempt)
    well = isinstance(answer, Progress | Refusal | Missing)
    house.retrying.heard_about(asked, attempt.provider, "poll", well=well)
    return await _act(house, claim, video, attempt, answer)


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
        what = word_for(answer)
        _log.warning("poll.unclear", video=video.id, attempt=attempt.number, provider=attempt.provider, what=what)
        await _again(house, claim, _next_poll(house, video, attempt))
    return None


class _Unchanged(msgspec.Struct, frozen=True):
    """A poll that found nothing new but, perhaps, progress."""

    next: Next
    percent: int | None = None
    begun: bool = False
    """The seller was found to render."""


def _note_many(tx: Tx, items: Sequence[_Unchanged]) -> list[None]:
    # Videos first, as everywhere: who holds a video may be waiting for its row of work.
    videos.take_several(tx, [item.next.claim.video_id for item in items if item.begun or item.percent])
    videos.advance_many(tx, [(item.next.claim.video_id, item.percent) for item in items if item.percent])
    videos.begin_rendering(tx, [(item.next.claim.video_id, item.next.claim.attempt_no) for item in items if item.begun])
    work.again_many(tx, [item.next for item in items])
    return [None] * len(items)


async def _moved_on(house: House, claim: Claim, video: Video, attempt: Attempt, answer: Progress) -> None:
    due_at = _next_poll(house, video, attempt)
    if answer.retry_after_s is not None:
        due_at = max(due_at, house.clock() + int(answer.retry_after_s * SECOND_US))
    # A seller's 100 % without a file is not yet the customer's.
    percent = None if answer.percent is None or answer.percent <= video.progress else min(answer.percent, 99)
    if attempt.missing:
        await _save(house, claim, missing=0, missing_since=None)
    begun = answer.state == "running" and attempt.rendering_at is None
    await house.store.write_grouped(_note_many, _Unchanged(Next(claim=claim, due_at=due_at), percent, begun))


async def _save(house: House, claim: Claim, **fields: Any) -> Attempt:
    """The attempt with these fields changed. Raises LeaseLost: another worker may know better by now."""

    def unit(tx: Tx) -> Attempt:
        _, now_is = videos.take_attempt(tx, claim.video_id, claim.attempt_no)
        work.check(tx, claim)
        changed = msgspec.structs.replace(now_is, **fields)
        videos.save_attempt(tx, changed)
        return changed

    return await house.store.write(unit)


async def _again(house: House, claim: Claim, due_at: int) -> None:
    await house.store.write_grouped(_note_many, _Unchanged(Next(claim=claim, due_at=due_at)))


def _next_poll(house: House, video: Video, attempt: Attempt) -> int:
    candidate = _candidate(video, attempt)
    expected_s = candidate.expected_s if video.live else 60.0
    return house.clock() + int(poll_interval_s(expected_s, house.chance()) * SECOND_US)


def _candidate(video: Video, attempt: Attempt) -> Candidate:
    return settle.candidate_of(video.read_plan(), attempt)


def _is_that(now_is: Attempt, asked: Attempt) -> bool:
    """Whether an answer still concerns it: an operator may have found that it was another order, or none."""
    return now_is.state == "running" and now_is.seller_id == asked.seller_id


async def _finished(house: House, claim: Claim, attempt: Attempt, answer: Progress) -> Attempt | None:
    """The seller made the film: from now on it may only be fetched, never bought again. Raises LeaseLost."""
    result = answer.result
    assert result is not None, "asked for above"

    def unit(tx: Tx) -> tuple[Video, Attempt | LeaseLost, Moved]:
        video, now_is = videos.take_attempt(tx, attempt.video_id, attempt.number)
        moved = Moved()
        if _is_that(now_is, attempt):
            now_is = finished(now_is, result, at=tx.now_us)
            videos.save_attempt(tx, now_is)  # evidence, whoever holds the lease
            moved.attempts.append(now_is)
        try:
            work.check(tx, claim)
        except LeaseLost as exc:
            return video, exc, moved  # raised in here, it would undo what was saved
        if now_is.state != "done":
            work.again(tx, claim, tx.now_us)
        return video, now_is, moved

    video, done, moved = await house.store.write(unit)
    tell(house, video, moved)
    if isinstance(done, LeaseLost):
        raise done
    return done if done.state == "done" else None


async def _failed(house: House, claim: Claim, attempt: Attempt, answer: Refusal) -> None:
    """A definite end without a film: the next offer's turn, if the video is still live."""

    def unit(tx: Tx) -> tuple[Video, Moved]:
        moved = Moved()
        video, now_is = videos.take_attempt(tx, attempt.video_id, attempt.number)
        work.check(tx, claim)
        if not _is_that(now_is, attempt):
            work.again(tx, claim, tx.now_us)  # somebody else has heard another answer
            return video, moved
        failed = msgspec.structs.replace(
            now_is,
            state="failed",
            ended_at=tx.now_us,
            failure_kind=answer.kind,
            seller_code=answer.seller_code,
            message=house.clean(str(answer)),
            # What the seller took at accept it has taken, unless it says otherwise now.
            cost_microusd=now_is.cost_microusd if answer.cost_microusd is None else answer.cost_microusd,
        )
        moved.attempts.append(failed)
        settle.conclude(tx, video, failed, moved, finished=False)
        work.done(tx, attempt.video_id, attempt.number)
        if video.live:
            wake(tx, video.id)
        return video, moved

    video, moved = await house.store.write(unit)
    tell(house, video, moved)
    house.due.set()


async def _missing(house: House, claim: Claim, video: Video, attempt: Attempt, answer: Missing) -> None:
    def unit(tx: Tx) -> Attempt | None:
        now, now_is = videos.take_attempt(tx, attempt.video_id, attempt.number)
        work.check(tx, claim)
        if not _is_that(now_is, attempt):
            work.again(tx, claim, tx.now_us)
            return None
        since = tx.now_us if now_is.missing_since is None else now_is.missing_since
        denied = msgspec.structs.replace(now_is, missing=now_is.missing + 1, missing_since=since)
        if denied.missing < LOST_AFTER or tx.now_us - since < LOST_AFTER_US:
            videos.save_attempt(tx, denied)
            work.again(tx, claim, _next_poll(house, video, attempt))
            return None
        message = None if now.erased else house.clean(str(answer))
        denied = msgspec.structs.replace(denied, state="lost", message=message)
        videos.save_attempt(tx, denied)
        work.done(tx, attempt.video_id, attempt.number)
        wake(tx, attempt.video_id)
        return denied

    lost = await house.store.write(unit)
    if lost is not None:
        note(house, video, lost)
        house.due.set()


async def _abandon(house: House, claim: Claim, attempt: Attempt) -> None:
    """Three days after its video ended nobody asks any more; its cost stays unknown."""

    def unit(tx: Tx) -> tuple[Video, Moved]:
        moved = Moved()
        video, now_is = videos.take_attempt(tx, attempt.video_id, attempt.number)
        work.check(tx, claim)
        if now_is.state != "running":
            work.again(tx, claim, tx.now_us)  # the film has turned up after all, and is billed
            return video, moved
        lost = msgspec.structs.replace(
            now_is,
            state="failed",
            failure_kind="seller_timeout",
            ended_at=tx.now_us,
            # What was named at accept is no sign that a film was made, or that it was kept.
            cost_microusd=None,
            cost_stated=0,
        )
        settle.conclude(tx, video, lost, moved, finished=False)
        work.done(tx, attempt.video_id, attempt.number)
        return video, moved

    video, moved = await house.store.write(unit)
    tell(house, video, moved)


# Stopping


async def _ask_to_stop(house: House, claim: Claim, account: Account, adapter: Cancels, attempt: Attempt) -> Attempt:
    """Until it is answered; whatever that says, the order is polled to its end, for it may be billed."""
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
        outcome = word_for(exc)
        _log.warning("attempt.cancel_unclear", video=attempt.video_id, attempt=attempt.number, what=word_for(exc))
    house.metrics.exchange(
        provider=account.name, operation="cancel", outcome=outcome, seconds=time.perf_counter() - begun
    )
    if outcome != "ok":
        return attempt  # asked again before the next poll: a film that is not stopped has to be paid
    return await _save(house, claim, cancel_asked_at=house.clock())


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
    house.due.set()
    return True


def _heed(tx: Tx, house: House, video_id: str, number: int, body: bytes) -> tuple[str, str]:
    videos.take(tx, video_id)
    attempt = videos.attempt_of(tx, video_id, number)
    if attempt is None:
        return "other", "ignored"
    if attempt.state in {"running", "done"}:
        return attempt.provider, "accepted" if work.nudge(tx, video_id, number) else "ignored"
    seller_id = _announced(house, attempt, body)
    if seller_id is None or attempt.state == "failed":
        return attempt.provider, "ignored"
    if attempt.state != "sending":
        # Also one that was refused, by an ingress before the seller perhaps, or that the seller denied to know.
        return attempt.provider, "healed" if adopt(tx, attempt, seller_id) else "refused"
    # The submit is still under way; should its answer be lost, this id tells what became of it.
    if not is_free(tx, attempt, seller_id):
        return attempt.provider, "refused"
    videos.save_attempt(tx, msgspec.structs.replace(attempt, seller_id=seller_id))
    return attempt.provider, "accepted"


def _announced(house: House, attempt: Attempt, body: bytes) -> str | None:
    desk = house.desk(attempt.provider)
    return desk[1].announced(without_nul(body)) if desk is not None and isinstance(desk[1], Announces) else None
