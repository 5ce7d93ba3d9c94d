"""
An operator says what became of an attempt that nobody could tell the end of.

Not bought: it counts as refused, at no cost, and its video goes on. Bought under an id that is known:
it is adopted and polled like any other. Bought, but nobody can name the order: it has failed, at the
cost that is given or else at the dearest possible; its film will never come, so a video that still
lives waits for it no longer and moves on by its rule. Who gave a wrong id says it again, as long as
the attempt runs by it.
"""

import re

import msgspec

from proxy.core.attempt import Attempt
from proxy.core.errors import InvalidValue, NotFound
from proxy.core.ids import NewId
from proxy.core.money import ABSURD_USD, MICRO, parse_usd, usd_text
from proxy.services import acts, settle
from proxy.services.due import wake
from proxy.services.heal import NOT_BOUGHT, is_free, taken
from proxy.services.settle import Moved
from proxy.services.watch import TRAIL_US
from proxy.store import tenants, videos, work
from proxy.store.base import Store, Tx
from proxy.store.videos import Video


class Finding(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an operator found out, at the seller's desk or on its bill."""

    bought: bool
    reason: str
    """Kept in the admins' log."""
    seller_id: str | None = None
    """The order's id at the seller, where it was bought."""
    cost_usd: str | None = None
    """What the seller took, in whole micro-dollars; None: nobody knows."""


class Resolved(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt, and its video, as they are from now on."""

    video: Video
    attempt: Attempt
    moved: Moved


async def resolve(store: Store, new_id: NewId, *, actor: str, video_id: str, number: int, finding: Finding) -> Resolved:
    """
    The attempt as the finding has it.

    Raises NotFound for no such attempt; InvalidValue for one that is neither unknown nor lost nor runs by an id
    that was given here, for an id that another attempt holds or that nobody would ask for any more, and for an
    amount that cannot be.
    """
    cost = _checked(finding)

    def unit(tx: Tx) -> Resolved:
        video, before = _unresolved(tx, video_id, number)
        moved = Moved()
        if not finding.bought:
            _deny(tx, video, before, moved)
        elif finding.seller_id is not None:
            _adopt(tx, video, before, finding.seller_id, cost)
        else:
            _write_off(tx, video, before, cost, moved)
        after = videos.attempt_of(tx, video_id, number)
        now = videos.by_id(tx, video_id)
        assert after is not None, "attempts are never removed"
        assert now is not None, "nor are videos"
        acts.record(
            tx,
            new_id,
            at=tx.now_us,
            actor=actor,
            action=_ACTION,
            subject=_subject(video_id, number),
            before=_shown(before),
            after=_shown(after),
            reason=finding.reason,
        )
        return Resolved(video=now, attempt=after, moved=moved)

    return await store.write(unit)


_ACTION = "attempt.resolve"


def _subject(video_id: str, number: int) -> str:
    return f"{video_id}/{number}"


def _checked(finding: Finding) -> int | None:
    """The cost in micro-dollars, where one is given."""
    acts.check_text("reason", finding.reason, acts.REASON_MAX_CHARS)
    if not finding.reason.strip():
        raise InvalidValue("'reason' says how this was found out.", param="reason")
    if not finding.bought and (finding.seller_id is not None or finding.cost_usd is not None):
        given = "seller_id" if finding.seller_id is not None else "cost_usd"
        raise InvalidValue("What was not bought has neither an id nor a cost.", param=given)
    if finding.seller_id is not None and not re.fullmatch(r"[!-~]{1,200}", finding.seller_id):
        raise InvalidValue("'seller_id' has 1 to 200 visible ASCII characters.", param="seller_id")
    return None if finding.cost_usd is None else _microusd(finding.cost_usd)


def _microusd(text: str) -> int:
    try:
        usd = parse_usd(text)
    except ValueError:
        raise InvalidValue("'cost_usd' is an amount such as \"0.96\".", param="cost_usd") from None
    if not 0 <= usd <= ABSURD_USD:
        raise InvalidValue(f"'cost_usd' lies between 0 and {ABSURD_USD}.", param="cost_usd")
    if usd * MICRO % 1:
        raise InvalidValue("'cost_usd' is a whole number of micro-dollars: six places at most.", param="cost_usd")
    return int(usd * MICRO)


def _unresolved(tx: Tx, video_id: str, number: int) -> tuple[Video, Attempt]:
    video = videos.take(tx, video_id)
    attempt = videos.attempt_of(tx, video_id, number)
    if video is None or attempt is None:
        raise NotFound(f"There is no attempt {number} of a video {video_id[:80]!r}.")
    adopted = attempt.state == "running" and tenants.was_done(tx, _ACTION, _subject(video_id, number))
    if attempt.state not in {"unknown", "lost"} and not adopted:
        can = "only one that is unknown or lost, or runs by an id that was given here, can be resolved"
        raise InvalidValue(f"This attempt is {attempt.state}; {can}.")
    return video, attempt


def _deny(tx: Tx, video: Video, attempt: Attempt, moved: Moved) -> None:
    """As if the seller had said so itself, when it was asked (heal.py)."""
    refused = msgspec.structs.replace(
        attempt,
        state="refused",
        failure_kind="capacity",
        message=NOT_BOUGHT,
        ended_at=tx.now_us,
        retry_at=tx.now_us,
        cost_microusd=0,
        cost_stated=0,
    )
    settle.conclude(tx, video, refused, moved, finished=False)
    _go_on(tx, refused)


def _adopt(tx: Tx, video: Video, attempt: Attempt, seller_id: str, cost_microusd: int | None) -> None:
    if not is_free(tx, attempt, seller_id):
        raise InvalidValue("Another attempt holds this id of the provider's.", param="seller_id")
    if not video.live and tx.now_us > (video.ended_at or tx.now_us) + TRAIL_US:
        hours = TRAIL_US // 3_600_000_000
        raise InvalidValue(
            f"The video ended more than {hours} hours ago, so nobody would ask for this order; name its cost instead.",
            param="seller_id",
        )
    running = msgspec.structs.replace(
        taken(attempt, seller_id, at=tx.now_us),
        cost_microusd=cost_microusd,
        cost_stated=int(cost_microusd is not None),
    )
    videos.save_attempt(tx, running)
    videos.start(tx, video.id)
    work.ensure(tx, video.id, attempt.number, tx.now_us)


def _write_off(tx: Tx, video: Video, attempt: Attempt, cost_microusd: int | None, moved: Moved) -> None:
    failed = msgspec.structs.replace(
        attempt,
        state="failed",
        failure_kind="provider_error",
        message="An operator found that the provider took the order; its film cannot be asked for.",
        accepted_at=attempt.accepted_at or tx.now_us,
        ended_at=tx.now_us,
        cost_microusd=attempt.possible_microusd if cost_microusd is None else cost_microusd,
        cost_stated=int(cost_microusd is not None),
    )
    # Whoever pays for it counts the film as made: that it went astray between the seller and us is no failed
    # render, for which a rule may bill the tenant.
    settle.conclude(tx, video, failed, moved, finished=True)
    videos.start(tx, video.id)
    _go_on(tx, failed)


def _go_on(tx: Tx, attempt: Attempt) -> None:
    """Nothing more is asked of the seller; what comes next for the video is looked at now."""
    work.done(tx, attempt.video_id, attempt.number)
    wake(tx, attempt.video_id)


def _shown(attempt: Attempt) -> dict[str, str | None]:
    return {
        "state": attempt.state,
        "seller_id": attempt.seller_id,
        "cost_usd": None if attempt.cost_microusd is None else usd_text(attempt.cost_microusd),
        "bearer": attempt.bearer,
    }
