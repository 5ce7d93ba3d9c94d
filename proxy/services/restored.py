"""
After a restore from a backup the database is older than the world.

Every video that lives in it may have been bought since, by a submit that it does not know. So, in one
transaction and before anything is sent, each submit that was under way is of unknown end, and each
video with nothing open at a seller gets an attempt of unknown end for the offer that came next: sellers
that can be asked are asked for it by the name that the lost submit had, operators see it, and the rule's
`on_unknown` decides.

That the next offer was not bought proves nothing of the one after it. Therefore the moment is kept, and
whatever a video from before it would buy later is doubted in the same way, instead of sent, where the
rule waits for what is unknown (dispatch.py). Attempts that ran are polled on.
"""

import msgspec

from proxy.core.clock import SECOND_US
from proxy.core.errors import ConfigError
from proxy.policy.fallback import FIND_AT_S, Try, next_step
from proxy.services.dispatch import drafted
from proxy.services.heal import RESTORED, adopt, doubt
from proxy.store import tenants, videos, work
from proxy.store.base import Tx

_ALL = 1_000_000_000
_NEVER_US = 1 << 62


class Doubted(msgspec.Struct, frozen=True, kw_only=True):
    """What counts as unknown from now on."""

    sending: int
    """Submits that were under way."""
    next_offers: int
    """Videos with nothing open, each with an attempt that may have been made."""


def look_back(tx: Tx, *, after_restore: bool) -> Doubted | None:
    """
    At every start; None where nothing is said to have been restored.

    Raises ConfigError where a copy that `reelay backup` has made is taken for the database itself.
    """
    if after_restore:
        return doubt_everything(tx)
    if tenants.fact(tx, tenants.BACKUP_AT) is not None:
        raise ConfigError(
            "this database is a backup, older than what has been bought; start it with `serve --after-restore`"
        )
    return None


def last_restore(tx: Tx) -> int:
    """Videos accepted before then may have bought what this database does not know; 0: none."""
    return int(tenants.fact(tx, tenants.RESTORED_AT) or 0)


def doubt_everything(tx: Tx) -> Doubted:
    """All of it or nothing, and a second time at once changes nothing more."""
    seen = [attempt for attempt, _, _ in videos.attempts_in_state(tx, "sending", most=_ALL)]
    sending = sorted(seen, key=lambda one: (one.video_id, one.number))
    for one in sending:
        _, attempt = videos.take_attempt(tx, one.video_id, one.number)
        if attempt.seller_id is None or not adopt(tx, attempt, attempt.seller_id):
            unknown = msgspec.structs.replace(attempt, state="unknown", message=RESTORED, missing_since=tx.now_us)
            videos.save_attempt(tx, unknown)
            work.ensure(tx, attempt.video_id, attempt.number, tx.now_us + FIND_AT_S[0] * SECOND_US)
    live = sorted(videos.live_ids(tx))
    next_offers = sum(_doubt_next(tx, video_id) for video_id, _ in live)
    # A clock that was put back must not let a video slip through.
    moment = max([tx.now_us, *(created_at + 1 for _, created_at in live)])
    tenants.put_fact(tx, tenants.RESTORED_AT, str(moment))
    tenants.drop_fact(tx, tenants.BACKUP_AT)
    return Doubted(sending=len(sending), next_offers=next_offers)


def _doubt_next(tx: Tx, video_id: str) -> bool:
    """
    Whether the video had something to be doubted.

    Its deadline does not matter: what could be bought before it may have been. Where the next offer may only
    be asked later than now, nobody has asked it yet.
    """
    video = videos.take(tx, video_id)
    assert video is not None, "videos are never removed"
    attempts = videos.attempts_of(tx, video_id)
    if any(attempt.open for attempt in attempts):
        return False
    plan = video.read_plan()
    step = next_step(plan.candidates, plan.fallback, attempts, now_us=tx.now_us, deadline_us=_NEVER_US)
    if not isinstance(step, Try):
        return False
    doubt(tx, drafted(video_id, len(attempts) + 1, step.candidate, at=tx.now_us))
    work.ensure(tx, video_id, 0, tx.now_us)
    return True
