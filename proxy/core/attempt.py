"""One purchase, or try to purchase, at one provider for a video."""

from typing import Literal

import msgspec

from proxy.core.video import Operation

AttemptState = Literal["sending", "running", "done", "refused", "failed", "unknown", "lost"]
"""
sending: written down, the call may be under way. running: accepted, the seller's id is held. done: the
seller finished and names a file. refused: not accepted. failed: accepted, then a definite end without a
file. unknown: may or may not have bought. lost: accepted, but the seller no longer knows it.
"""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What one submit asks of a seller, in our words."""

    seller_model: str
    operation: Operation
    tier: str
    prompt: str
    seconds: int | None
    """None: the seller chooses."""
    resolution: str
    aspect_ratio: str
    """`auto`: the seller chooses."""
    generate_audio: bool
    content_filter: bool
    seed: int | None
    web_search: bool
    end_user: str | None
    """As the seller may see it: already hashed or raw."""
    client_ref: str
    """Unique for this attempt; sellers that can be asked are asked by it."""
    callback_url: str | None


class Ticket(msgspec.Struct, frozen=True, kw_only=True):
    """What is needed to ask a seller about an order that it took."""

    seller_id: str
    seller_model: str


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """The seller took the order."""

    seller_id: str
    cost_microusd: int | None = None
    """What the seller says it takes, where it says so at once."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The seller's file, and what it says about it."""

    url: str
    """Fetched without any key."""
    cost_microusd: int | None = None
    """What the seller says it took; None where it does not say."""
    seed: int | None = None


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """Where an accepted order stands; a failure is raised as Refusal instead."""

    state: Literal["queued", "running", "succeeded"]
    percent: int | None = None
    """0 to 100 where the seller tells."""
    result: Result | None = None
    """Where the same answer names the file; else it is asked for with `collect`."""
    retry_after_s: float | None = None


CancelAnswer = Literal["requested", "too_late", "unknown"]
"""requested: the seller will try, and must be polled on. too_late: it had ended. unknown: it knows no such order."""
