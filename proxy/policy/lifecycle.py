"""A video's states and who bears what a seller took, as two tables."""

from typing import Literal

from proxy.core.video import Status, VideoFailure

MOVES: dict[Status, frozenset[Status]] = {
    "queued": frozenset({"in_progress", "failed"}),
    "in_progress": frozenset({"completed", "failed"}),
    "completed": frozenset(),
    "failed": frozenset(),
}
"""Status to those it may become; the public status never goes back and an ended video never reopens."""

LIVE: tuple[Status, ...] = tuple(status for status, after in MOVES.items() if after)

Bearer = Literal[
    "tenant",
    "absorbed:failed_attempt",
    "absorbed:abandoned",
    "absorbed:unknown",
    "absorbed:undelivered",
    "absorbed:double",
]

_AFTER_FAILURE: dict[VideoFailure, Bearer] = {
    "cancelled": "tenant",
    "deadline_exceeded": "absorbed:abandoned",
    "outcome_unknown": "absorbed:unknown",
    "storage_error": "absorbed:undelivered",
    # The video had failed elsewhere while this purchase was still unknown.
    "provider_error": "absorbed:unknown",
    "no_provider_available": "absorbed:unknown",
    "moderation_blocked": "absorbed:unknown",
}


def bearer(status: Status, failure: VideoFailure | None, *, finished: bool, bill_failed_attempts: bool) -> Bearer:
    """
    Who bears what a seller took for an attempt that is not the one delivered.

    `finished`: the seller made the film. `failure` is the video's own, where it failed. A customer who
    cancelled bears it, at most the hold.
    """
    if status == "failed" and failure is not None:
        return _AFTER_FAILURE[failure]
    if finished:
        return "absorbed:double"
    return "tenant" if bill_failed_attempts and status != "completed" else "absorbed:failed_attempt"
