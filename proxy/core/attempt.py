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


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """The seller took the order and answered with the film: accepted and finished at once."""

    result: Result
    seller_id: str | None = None
    """None: the seller names none, and cannot be asked about the order again."""


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


class Attempt(msgspec.Struct, frozen=True):
    """The record of one send; times are microseconds UTC, None where it did not happen."""

    video_id: str
    number: int
    """From 1, in the order of sending."""
    offer: str
    provider: str
    seller_model: str
    state: AttemptState
    client_ref: str
    started_at: int
    possible_microusd: int
    """What it may have cost where nobody knows: the dearest price at this seller."""
    seller_id: str | None = None
    failure_kind: str | None = None
    """A FailureKind once refused or failed."""
    seller_code: str | None = None
    message: str | None = None
    accepted_at: int | None = None
    rendering_at: int | None = None
    """When a poll first found that the seller had begun to render."""
    ended_at: int | None = None
    retry_at: int | None = None
    """When an offer that refused as throttled or at capacity may be asked again."""
    cost_microusd: int | None = None
    """What the seller took; None is unknown."""
    cost_stated: int = 0
    """1 where the seller itself named the cost."""
    bearer: str | None = None
    """Who bears the cost once it is known: `tenant`, or the account that absorbs it."""
    asks: int = 0
    """How often an unknown one was looked for."""
    missing_since: int | None = None
    """Since when nobody knows the order: the submit's end is unknown, or the seller denies it."""
    missing: int = 0
    """How often in a row the seller said that it does not know the order, since `missing_since`."""
    cancel_asked_at: int | None = None
    link: str | None = None
    """The seller's link to the file, once done; never shown."""
    fetches: int = 0
    """How often the copy was tried."""

    @property
    def ticket(self) -> Ticket:
        """Raises ValueError where the seller's id is not known."""
        if self.seller_id is None:
            raise ValueError(f"attempt {self.video_id}/{self.number} holds no seller's id")
        return Ticket(seller_id=self.seller_id, seller_model=self.seller_model)

    @property
    def open(self) -> bool:
        """Whether it may still cost or deliver."""
        return self.state in {"sending", "running", "done", "unknown", "lost"}


Part = Literal["submit", "render"]
"""Of an attempt: until the seller has taken the order, and from then on."""


class Outcome(msgspec.Struct, frozen=True):
    """How one part of an attempt ended."""

    video_id: str
    attempt_no: int
    part: Part
    offer: str
    good: bool
    at: int
    """Microseconds, UTC."""

    @property
    def key(self) -> tuple[str, int]:
        """Names it within its offer and part."""
        return self.video_id, self.attempt_no
