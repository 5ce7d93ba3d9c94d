"""
Buys: decides what a video needs next and submits it.

The attempt is written down as `sending` before the call and gets its end after. A submit has three
ends: refused, accepted, unknown; only a refusal allows another seller at once.
"""

import asyncio
import time

import msgspec
import structlog

from proxy.core.account import Account
from proxy.core.attempt import Accepted, Attempt, Done, Order
from proxy.core.clock import SECOND_US
from proxy.core.errors import Interrupted, LeaseLost, NotSent, OutcomeUnknown, Overloaded, Refusal, SellerError
from proxy.core.offer import Candidate, Offer, Plan
from proxy.policy.fallback import FIND_AT_S, Try, Wait, backoff_s, next_step, poll_interval_s
from proxy.policy.health import Health
from proxy.providers.base import Adapter, Finds
from proxy.services import lanes, settle
from proxy.services.due import leave
from proxy.services.heal import NOT_BOUGHT, RESTORED, adopt, doubt, finished, is_free, taken
from proxy.services.house import House
from proxy.services.settle import Moved, erased
from proxy.services.told import note, tell
from proxy.store import tenants, videos, work
from proxy.store.base import Tx
from proxy.store.videos import Video
from proxy.store.work import Claim

_log = structlog.get_logger("reelay.attempt")

LEASE_MARGIN_US = 30 * SECOND_US
"""A lease outlasts the submit by this much, so that nobody else acts while an answer may still come."""

KEEP_AGAIN_S = 0.5
"""Between two tries to keep an answer that the database would not take."""


class Send(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt that is written down and may now be sent."""

    video: Video
    attempt: Attempt
    candidate: Candidate
    order: Order
    instead_of: Attempt | None
    """The attempt before it, where this is a fallback."""
    beside: Attempt | None
    """An earlier attempt that may have bought too."""
    again: bool
    """Whether the video had to wait for it."""


End = Accepted | Done | Refusal | OutcomeUnknown
"""How a submit may end; `Done` is an acceptance that brings the film with it."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """What a video that was due needs now."""

    video: Video
    what: Send | Moved | None
    """To be sent; or changed instead; or nothing for the moment."""
    orphans: tuple[Attempt, ...] = ()
    """Attempts whose process died, as they are now."""
    put_off: tuple[str, ...] = ()
    """Providers that may not be asked again just now."""


async def advance(house: House, claim: Claim) -> None:
    """One step of a video that is due: submits, waits, or gives up. Raises LeaseLost."""
    step = await house.store.write(lambda tx: _next(tx, house, claim))
    note(house, step.video, *step.orphans)
    for provider in step.put_off:
        house.metrics.put_off(provider=provider, operation="submit")
    if isinstance(step.what, Moved):
        tell(house, step.video, step.what)
    elif step.what is not None:
        end = await _submit(house, step.what)
        if step.what.again and _is_answer(end):
            house.retrying.went_well(step.what.candidate.provider, "submit")
        await _record(house, step.what, claim, end)


def _next(tx: Tx, house: House, claim: Claim) -> Step:
    video = videos.take(tx, claim.video_id)
    assert video is not None, "work refers to a video"
    work.check(tx, claim)
    before = videos.attempts_of(tx, video.id)
    attempts = [_orphan(tx, house, attempt) for attempt in before]
    orphans = tuple(now for was, now in zip(before, attempts, strict=True) if was is not now)
    put_off: list[str] = []
    what = _step(tx, house, video, attempts, claim, put_off)
    return Step(video=video, what=what, orphans=orphans, put_off=tuple(put_off))


def _step(
    tx: Tx, house: House, video: Video, attempts: list[Attempt], claim: Claim, put_off: list[str]
) -> Send | Moved | None:
    if not video.live:
        return _tidy(tx, video, attempts, claim)
    plan, full = video.read_plan(), list[str]()
    again = _has_waited(video, attempts, claim)
    lanes.lock(tx, house, [candidate.provider for candidate in plan.candidates])
    while True:
        kept = [candidate for candidate in plan.candidates if candidate.provider not in full]
        health = _health(house, plan)
        step = next_step(
            kept,
            plan.fallback,
            attempts,
            now_us=tx.now_us,
            deadline_us=video.deadline_at,
            health=health,
        )
        if not isinstance(step, Try):
            break
        provider, offer = step.candidate.provider, step.candidate.offer
        if not _admitted(tx, house, video, provider):
            full.append(provider)
        elif not house.retrying.take(provider, "submit", again=again):
            full.append(provider)
            put_off.append(provider)
        elif offer not in health or house.pulse.probing(offer, tx.now_us):
            break
    # Where somebody who has room can be asked, or something else is waited for, a place would keep others out.
    lanes.wait_at(tx, video, [] if isinstance(step, Try) else full)
    if isinstance(step, Try):
        return _begin(tx, house, video, attempts, step.candidate, claim, again=again)
    if full:
        work.again(tx, claim, step.until_us if isinstance(step, Wait) else video.deadline_at)
        return None
    if isinstance(step, Wait):
        work.again(tx, claim, step.until_us)
        return None
    return give_up(tx, video, step.code, step.message)


def _has_waited(video: Video, attempts: list[Attempt], claim: Claim) -> bool:
    """Whether this was due later than it came up: for a pause, for a place, or for a seller to be well again."""
    return claim.due_at > max([video.created_at, *(attempt.ended_at or 0 for attempt in attempts)])


def _is_answer(end: "End") -> bool:
    """Whether the seller is there and takes orders, be it not this one."""
    return isinstance(end, Accepted | Done) or (
        isinstance(end, Refusal) and end.kind in {"invalid_input", "moderation"}
    )


def _health(house: House, plan: Plan) -> dict[str, Health]:
    """Of the plan's offers that have failed lately, where their accounts have breakers."""
    accounts, known = house.rules.accounts, house.pulse.health
    return {
        one.offer: known[one.offer]
        for one in plan.candidates
        if one.offer in known and ((account := accounts.get(one.provider)) is None or account.breaker)
    }


def _admitted(tx: Tx, house: House, video: Video, provider: str) -> bool:
    account = house.rules.accounts.get(provider)
    return account is None or lanes.admitted(tx, account, video)


def _orphan(tx: Tx, house: House, attempt: Attempt) -> Attempt:
    """A submit that nobody is waiting for any more may have bought: its worker is gone, we hold its lease."""
    if attempt.state != "sending":
        return attempt
    return _become_unknown(tx, house, attempt, "The process that sent it ended before the answer was kept.")


def _become_unknown(tx: Tx, house: House, attempt: Attempt, message: str) -> Attempt:
    """To unknown, or to running where a callback has named the seller's id meanwhile."""
    if attempt.seller_id is not None and adopt(tx, attempt, attempt.seller_id):
        return taken(attempt, attempt.seller_id, at=tx.now_us)
    attempt = msgspec.structs.replace(attempt, state="unknown", message=house.clean(message), missing_since=tx.now_us)
    desk = house.desk(attempt.provider)
    if desk is None or isinstance(desk[1], Finds):
        work.ensure(tx, attempt.video_id, attempt.number, tx.now_us + FIND_AT_S[0] * SECOND_US)
    videos.save_attempt(tx, attempt)
    return attempt


def _tidy(tx: Tx, video: Video, attempts: list[Attempt], claim: Claim) -> Moved:
    """A video that is over: its hold ends when nothing can be billed any more."""
    moved = Moved()
    if video.hold == "held" and not settle.close(tx, video, moved):
        late = tx.now_us >= video.deadline_at
        if late or not any(attempt.state in {"unknown", "lost"} for attempt in attempts):
            # Whatever still runs ends the hold itself when it ends.
            work.done(tx, video.id, 0)
        else:
            work.again(tx, claim, video.deadline_at)
    else:
        work.done(tx, video.id, 0)
    return moved


def give_up(tx: Tx, video: Video, code: str, message: str, *, cancelled: bool = False) -> Moved:
    """Fails a live video and ends its hold where that can be; what still runs at sellers is polled on."""
    moved = Moved()
    if not videos.fail(tx, video.id, code, message, at=tx.now_us, cancelled=cancelled):
        return moved
    moved.ended = code
    lanes.wait_at(tx, video, [])
    after = videos.by_id(tx, video.id)
    assert after is not None, "it was there a moment ago"
    if settle.close(tx, after, moved):
        leave(tx, video.id)
    for attempt in videos.attempts_of(tx, video.id):
        if attempt.state in {"running", "done"}:
            work.nudge(tx, video.id, attempt.number)
    return moved


def _begin(
    tx: Tx, house: House, video: Video, attempts: list[Attempt], candidate: Candidate, claim: Claim, *, again: bool
) -> Send | None:
    attempt = drafted(video.id, len(attempts) + 1, candidate, at=tx.now_us)
    if _is_doubtful(house, video, attempts, candidate.offer):
        doubt(tx, attempt)
        work.again(tx, claim, tx.now_us)
        return None
    desk = house.desk(candidate.provider)
    if desk is None or not desk[0].on:
        refused = msgspec.structs.replace(
            attempt,
            state="refused",
            failure_kind="account",
            message="The provider is switched off.",
            ended_at=tx.now_us,
            cost_microusd=0,
        )
        videos.insert_attempt(tx, refused)
        work.again(tx, claim, tx.now_us)
        return None
    videos.insert_attempt(tx, attempt)
    timeout_us = int(candidate.submit_timeout_s * SECOND_US)
    work.extend(tx, [claim], lease_us=timeout_us + 2 * LEASE_MARGIN_US)
    if tx.now_us + timeout_us > video.deadline_at:
        # The video's own row is held until the answer; its deadline must not wait for that.
        work.ensure(tx, video.id, attempt.number, video.deadline_at)
    return Send(
        video=video,
        attempt=attempt,
        candidate=candidate,
        order=_order(tx, house, video, attempt, candidate, desk[0]),
        instead_of=attempts[-1] if attempts else None,
        beside=next((one for one in attempts if one.state in {"unknown", "lost"}), None),
        again=again,
    )


def drafted(video_id: str, number: int, candidate: Candidate, *, at: int) -> Attempt:
    """A send as it is written down before it happens."""
    dearest = candidate.seller_microusd if candidate.basis == "listed" else -(-candidate.seller_microusd * 5 // 4)
    return Attempt(
        video_id=video_id,
        number=number,
        offer=candidate.offer,
        provider=candidate.provider,
        seller_model=candidate.seller_model,
        state="sending",
        client_ref=f"{video_id}-{number}",
        started_at=at,
        possible_microusd=dearest,
    )


def _is_doubtful(house: House, video: Video, attempts: list[Attempt], offer: str) -> bool:
    """Whether this send may have been made already, before the database was restored from a backup."""
    if video.created_at >= house.restored_at:
        return False
    if any(attempt.offer == offer and attempt.message == NOT_BOUGHT for attempt in attempts):
        return False
    # A rule that buys beside what is unknown has one doubt to buy beside.
    doubted = any(attempt.state == "unknown" and attempt.message == RESTORED for attempt in attempts)
    return not (doubted and video.read_plan().fallback.on_unknown == "fallback")


def _order(tx: Tx, house: House, video: Video, attempt: Attempt, candidate: Candidate, account: Account) -> Order:
    spec = video.read_spec()
    offer = house.rules.offers.get(candidate.offer)
    return Order(
        seller_model=candidate.seller_model,
        operation=spec.operation,
        tier=spec.tier,
        prompt=video.prompt or "",
        seconds=spec.seconds,
        resolution=spec.resolution,
        aspect_ratio=spec.aspect_ratio,
        generate_audio=spec.generate_audio,
        content_filter=spec.content_filter,
        seed=spec.seed,
        # The plan kept only offers that can what was stated, also one that the rules name no more.
        web_search=spec.web_search and ("web_search" in spec.stated if offer is None else offer.web_search),
        end_user=_end_user(tx, house, video, account),
        client_ref=attempt.client_ref,
        callback_url=_callback_url(house, offer, attempt),
    )


def _end_user(tx: Tx, house: House, video: Video, account: Account) -> str | None:
    if video.end_user is None or account.end_user_id == "none":
        return None
    name = tenants.end_user_name(tx, video.tenant_id, video.end_user)
    if name is None or account.end_user_id == "raw":
        return name
    return house.secrets.pseudonym(video.tenant_id, name)


def _callback_url(house: House, offer: Offer | None, attempt: Attempt) -> str | None:
    """Where the seller calls back; None where it cannot, or would refuse the address."""
    url = house.public_url
    if url is None or offer is None or offer.callbacks == "none":
        return None
    if offer.callbacks == "https" and not url.startswith("https://"):
        return None
    return f"{url}/callbacks/{house.secrets.callback_token(attempt.video_id, attempt.number)}"


async def _submit(house: House, send: Send) -> End:
    """The one place that buys. Never raises what a seller or the network does."""
    provider, timeout_s = send.candidate.provider, send.candidate.submit_timeout_s
    desk = house.desk(provider)
    if desk is None or not desk[0].on:
        return Refusal("account", "not sent: the provider was switched off just now", cost_microusd=0)
    account, adapter = desk
    lease_until = send.attempt.started_at + int(timeout_s * SECOND_US) + 2 * LEASE_MARGIN_US
    if house.clock() + timeout_s * SECOND_US + LEASE_MARGIN_US > lease_until:
        # The commit took so long that another worker might act before the answer; no fault of the seller's.
        return Refusal("throttled", "not sent: the lease had become too short", cost_microusd=0)
    if send.instead_of is not None and send.instead_of.offer != send.attempt.offer:
        reason = send.instead_of.failure_kind or send.instead_of.state
        house.metrics.fallback(from_provider=send.instead_of.provider, to_provider=provider, reason=reason)
    if send.beside is not None:
        house.metrics.double_submit_possible(provider=send.beside.provider)
    begun = time.perf_counter()
    end = await _exchange(house, account, adapter, send.order, timeout_s)
    outcome: str = end.kind if isinstance(end, Refusal) else "ok" if isinstance(end, Accepted | Done) else "unknown"
    house.metrics.exchange(provider=provider, operation="submit", outcome=outcome, seconds=time.perf_counter() - begun)
    return end


async def _exchange(house: House, account: Account, adapter: Adapter, order: Order, timeout_s: float) -> End:
    try:
        authorization, call = adapter.authorize(account.api_key or ""), adapter.submit(order)
    except Exception as exc:  # noqa: BLE001 - an order that an adapter cannot put into words has certainly not left
        _log.error("order.not_written", provider=account.name, exc_info=exc)
        return Refusal("invalid_input", "the order could not be put into the provider's words", cost_microusd=0)
    try:
        reply = await house.transport.send(account, authorization, call, timeout_s=timeout_s, fresh=True)
    except NotSent as exc:
        return Refusal("capacity", f"not connected: {exc}", cost_microusd=0)
    except Interrupted as exc:
        return OutcomeUnknown(str(exc))
    try:
        if 200 <= reply.status < 300:
            return adapter.accepted(reply)
        end = adapter.refusal(reply)
    except Refusal as exc:
        return exc
    except SellerError as exc:
        return OutcomeUnknown(str(exc))
    return end if isinstance(end, Refusal) else OutcomeUnknown(str(end))


async def _record(house: House, send: Send, claim: Claim, end: End) -> None:
    """What the seller answered is evidence and is kept, whoever holds the lease by now."""
    chance = house.chance()
    while True:
        try:
            moved, held = await house.store.write(lambda tx: _keep(tx, house, send, claim, end, chance))
            break
        except Overloaded as exc:
            # Nobody else has heard this answer: a disk that is full for a while must not lose it.
            _log.error("answer.not_kept", video=send.video.id, attempt=send.attempt.number, why=str(exc))
            await asyncio.sleep(KEEP_AGAIN_S)
    tell(house, send.video, moved)
    if not held:
        house.metrics.lease_lost()
        _log.warning("lease.lost", video=send.video.id, attempt=send.attempt.number)
    house.due.set()


def _keep(tx: Tx, house: House, send: Send, claim: Claim, end: End, chance: float) -> tuple[Moved, bool]:
    """What changed, and whether the lease was held to the end."""
    moved = Moved()
    video = videos.take(tx, send.video.id)
    attempts = videos.attempts_of(tx, send.video.id)
    assert video is not None, "videos are never removed"
    attempt = attempts[send.attempt.number - 1]
    running = False
    if isinstance(end, Accepted):
        running = _keep_accepted(tx, house, video, send, attempt, end, chance)
    elif isinstance(end, Done):
        running = _keep_done(tx, house, video, attempt, end)
    elif isinstance(end, Refusal):
        _keep_refused(tx, house, video, attempts, attempt, end, chance, moved)
    elif attempt.state == "sending":
        _become_unknown(tx, house, attempt, str(end))
    now_is = videos.attempts_of(tx, video.id)[attempt.number - 1]
    if now_is.state != attempt.state:
        moved.attempts.append(now_is)
    if video.erased:
        videos.save_attempt(tx, erased(now_is))
    return moved, _let_go(tx, video, claim, running=running)


def _keep_accepted(
    tx: Tx, house: House, video: Video, send: Send, attempt: Attempt, end: Accepted, chance: float
) -> bool:
    """Whether it is followed from now on."""
    if not _is_its_own(tx, house, attempt, end.seller_id):
        return False
    if attempt.state not in {"sending", "unknown", "refused"}:
        # A callback named the id first, and the poll has moved on; what the seller takes it says only here.
        if attempt.state == "running" and end.cost_microusd is not None and attempt.cost_microusd is None:
            told = msgspec.structs.replace(attempt, cost_microusd=end.cost_microusd, cost_stated=1)
            videos.save_attempt(tx, told)
        return True
    running = msgspec.structs.replace(
        taken(attempt, end.seller_id, at=tx.now_us),
        cost_microusd=end.cost_microusd,
        cost_stated=int(end.cost_microusd is not None),
    )
    videos.save_attempt(tx, running)
    videos.start(tx, video.id)
    after_s = poll_interval_s(send.candidate.expected_s, chance)
    due_at = tx.now_us + int(after_s * SECOND_US) if video.live else tx.now_us
    work.ensure(tx, video.id, attempt.number, due_at)
    return True


def _is_its_own(tx: Tx, house: House, attempt: Attempt, seller_id: str) -> bool:
    """Whether the id in an answer is this order's; one that another holds leaves the end unknown."""
    if is_free(tx, attempt, seller_id):
        return True
    if attempt.state == "sending":
        _become_unknown(tx, house, attempt, "The provider answered with an id that belongs to another order.")
    return False


def _keep_done(tx: Tx, house: House, video: Video, attempt: Attempt, end: Done) -> bool:
    """Whether there is something to copy, or to bill: the film was made, whatever was thought of it meanwhile."""
    if end.seller_id is not None and not _is_its_own(tx, house, attempt, end.seller_id):
        return False
    if attempt.state in {"done", "failed"}:
        return True
    if attempt.state != "running":
        attempt = taken(attempt, end.seller_id or attempt.seller_id, at=tx.now_us)
    videos.save_attempt(tx, finished(attempt, end.result, at=tx.now_us))
    videos.start(tx, video.id)
    work.ensure(tx, video.id, attempt.number, tx.now_us)
    return True


def _keep_refused(
    tx: Tx,
    house: House,
    video: Video,
    attempts: list[Attempt],
    attempt: Attempt,
    end: Refusal,
    chance: float,
    moved: Moved,
) -> None:
    if attempt.state == "sending" and attempt.seller_id is not None:
        # A callback has named the seller's id: whoever refused, the order had arrived.
        _become_unknown(tx, house, attempt, str(end))
        return
    if attempt.state not in {"sending", "unknown"}:
        return
    sends = sum(1 for other in attempts if other.offer == attempt.offer)
    # A seller that says "at once" is left for as long as one that says nothing: each send is a row of ours.
    wait_s = max(end.retry_after_s or 0.0, backoff_s(sends, chance))
    attempt = msgspec.structs.replace(
        attempt,
        state="refused",
        failure_kind=end.kind,
        seller_code=end.seller_code,
        message=house.clean(str(end)),
        ended_at=tx.now_us,
        retry_at=tx.now_us + int(wait_s * SECOND_US),
        cost_microusd=end.cost_microusd,
    )
    settle.conclude(tx, video, attempt, moved, finished=False)


def _let_go(tx: Tx, video: Video, claim: Claim, *, running: bool) -> bool:
    """Whether it was still held."""
    try:
        work.again(tx, claim, video.deadline_at if running and video.live else tx.now_us)
    except LeaseLost:
        # Whoever holds it now decided without this answer.
        work.nudge(tx, video.id, 0)
        return False
    return True
