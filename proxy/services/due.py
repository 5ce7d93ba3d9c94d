"""A video's own row of work, number 0: what to buy next, and who ends its hold."""

from proxy.store import videos, work
from proxy.store.base import Tx


def wake(tx: Tx, video_id: str) -> None:
    """Has the video looked at as soon as nobody holds it, also where nothing was left to do for it."""
    if not work.nudge(tx, video_id, 0):
        work.add(tx, [(video_id, 0, tx.now_us)])


def leave(tx: Tx, video_id: str) -> None:
    """
    Nothing more is bought for a video that is over.

    A submit under way keeps the row: should its process die, only the next holder can call it unknown.
    """
    if any(attempt.state == "sending" for attempt in videos.attempts_of(tx, video_id)):
        work.nudge(tx, video_id, 0)
    else:
        work.done(tx, video_id, 0)
