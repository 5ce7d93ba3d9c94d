"""
One question to a seller about an order that it took, and what its answer says.

A question that was not answered says nothing of the order, whatever its status; only the seller's own
word does.
"""

import time
from collections.abc import Callable

from proxy.core.account import Account
from proxy.core.attempt import Attempt, Progress
from proxy.core.clock import SECOND_US
from proxy.core.errors import Garbled, Interrupted, NotSent, OutcomeUnknown, Refusal, SellerError
from proxy.core.wire import Call, Reply
from proxy.providers.base import Judges, Polls, retry_after_s
from proxy.services.house import House

POLL_TIMEOUT_S = 15.0
PAUSE_S, LONGEST_PAUSE_S = 5.0, 300.0
"""How long a provider that throttles polls is left in peace where it does not say, and at the most."""


class Missing(SellerError):
    """The seller says that it knows no such order."""


Answer = Progress | SellerError
Reader = Callable[[Polls, Reply], Answer]


async def progress_of(house: House, account: Account, adapter: Polls, attempt: Attempt) -> Answer:
    """Where the order stands; the file's link is asked for at once where the seller keeps it elsewhere."""
    answer = await _ask(house, account, adapter, adapter.poll(attempt.ticket), "poll", _read_progress)
    if isinstance(answer, Progress) and answer.state == "succeeded" and answer.result is None:
        return await _ask(house, account, adapter, adapter.collect(attempt.ticket), "poll", _read_result)
    return answer


async def fresh_link(house: House, attempt: Attempt) -> str | None:
    """The seller's link, asked for again; None where it gives none now, or cannot be asked at all."""
    desk = house.poller(attempt.provider)
    if desk is None or attempt.seller_id is None:
        return None
    account, adapter = desk
    answer = await _ask(house, account, adapter, adapter.collect(attempt.ticket), "poll", _read_result)
    return answer.result.url if isinstance(answer, Progress) and answer.result is not None else None


async def _ask(house: House, account: Account, adapter: Polls, call: Call, operation: str, read: Reader) -> Answer:
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
        provider=account.name, operation=operation, outcome=word_for(answer), seconds=time.perf_counter() - begun
    )
    return answer


def _read_progress(adapter: Polls, reply: Reply) -> Answer:
    if 200 <= reply.status < 300:
        return adapter.progress(reply)
    return _not_answered(adapter, reply)


_SAYS_NOTHING = frozenset({401, 402, 403, 429, 503})


def _read_result(adapter: Polls, reply: Reply) -> Answer:
    if 200 <= reply.status < 300:
        return Progress(state="succeeded", percent=100, result=adapter.result(reply))
    named = adapter.verdict(reply) if isinstance(adapter, Judges) else adapter.refusal(reply)
    told = isinstance(named, Refusal) and named.kind not in {"capacity", "throttled", "account"}
    if reply.status == 404 or (reply.status in _SAYS_NOTHING and not told):
        return _not_answered(adapter, reply)
    return named


def _not_answered(adapter: Polls, reply: Reply) -> Answer:
    """A poll that failed says nothing of the order, but for an application that denies it."""
    named = adapter.refusal(reply)
    if reply.status == 404 and isinstance(named, Refusal):
        return Missing(str(named))
    kind = f"{named.kind}: " if isinstance(named, Refusal) else ""
    return Garbled(f"status {reply.status}: {kind}{named}")


def word_for(answer: Answer) -> str:
    """What the metrics call it."""
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
        pause_s = min(retry_after_s(reply) or PAUSE_S, LONGEST_PAUSE_S)
        house.pace[provider] = house.clock() + int(pause_s * SECOND_US)
