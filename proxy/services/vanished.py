"""
Providers that vanished from the rules while attempts there were not over.

Nobody can be asked about those any more, so they count as unknown: operators see them, and the rule's
`on_unknown` decides. Once the rules name the provider again, they are polled on.
"""

from collections.abc import Callable, Collection, Iterable, Iterator

import msgspec

from proxy.core.attempt import Attempt
from proxy.services.due import wake
from proxy.store import videos, work
from proxy.store.base import Tx

MESSAGE = "The rules no longer name this provider, so nobody can ask it."

_ALL = 1_000_000_000


class Vanished(msgspec.Struct, frozen=True, kw_only=True):
    """What a start found."""

    providers: tuple[str, ...]
    """Owed attempts, but not in the rules."""
    marked: int
    """Attempts that ran there and are unknown now."""
    returned: int
    """Attempts that were unknown for this reason and are polled again."""


def mark_vanished(tx: Tx, known: Collection[str]) -> Vanished:
    """Makes running attempts of providers that are not `known` unknown, and those of returned ones running."""
    owed = videos.owed_providers(tx)
    gone = tuple(sorted(owed - set(known)))
    marked = _mark(tx, gone) if gone else 0
    return Vanished(providers=gone, marked=marked, returned=bring_back(tx, known) if owed else 0)


def still_owed(providers: Iterable[str]) -> str:
    """What is wrong with rules that do not name these, and what to do about it."""
    return (
        f"attempts are still owed to {', '.join(providers)}, which the rules name no more; "
        "put it back with `enabled: false` until they are over"
    )


def _mark(tx: Tx, gone: Collection[str]) -> int:
    marked = 0
    for attempt in _taken(tx, "running", lambda seen: seen.provider in gone):
        videos.save_attempt(tx, msgspec.structs.replace(attempt, state="unknown", message=MESSAGE))
        work.done(tx, attempt.video_id, attempt.number)
        wake(tx, attempt.video_id)
        marked += 1
    return marked


def bring_back(tx: Tx, known: Collection[str]) -> int:
    """
    Has those polled again whose provider is among the `known` once more; how many they are.

    An unknown attempt whose seller's id is held was accepted; only its provider was missing.
    """
    returned = 0
    for attempt in _taken(tx, "unknown", lambda seen: seen.seller_id is not None and seen.provider in known):
        videos.save_attempt(tx, msgspec.structs.replace(attempt, state="running", message=None))
        work.ensure(tx, attempt.video_id, attempt.number, tx.now_us)
        returned += 1
    return returned


def _taken(tx: Tx, state: str, wanted: Callable[[Attempt], bool]) -> Iterator[Attempt]:
    """The wanted attempts in a state, each with its video taken, and still in that state then."""
    seen = [attempt for attempt, _, _ in videos.attempts_in_state(tx, state, most=_ALL) if wanted(attempt)]
    for attempt in sorted(seen, key=lambda one: (one.video_id, one.number)):
        _, now_is = videos.take_attempt(tx, attempt.video_id, attempt.number)
        if now_is.state == state:
            yield now_is
