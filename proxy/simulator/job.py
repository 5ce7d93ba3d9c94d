"""One job at a seller: what was ordered, what became of it."""

from typing import Any, Literal

import msgspec

from proxy.simulator.film import Shape, shape_of

State = Literal["queued", "running", "succeeded", "failed", "cancelled"]
Fate = Literal["succeeded", "moderation_late", "render_failed", "invalid", "start_timeout", "never_ends"]
"""How a job ends if nobody stops it. `invalid`: input that the seller finds wrong only now."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What a wire read from a create."""

    prompt: str
    model: str
    tier: str
    resolution: str
    aspect_ratio: str | None
    """None: the seller chooses."""
    seconds: int | None
    """None: the seller chooses."""
    audio: bool
    content_filter: bool = True
    seed: int | None = None
    client_ref: str | None = None
    callback_url: str | None = None
    extra: dict[str, Any] = msgspec.field(default_factory=dict)
    """What only this wire knows of."""
    flaw: list[dict[str, Any]] | None = None
    """What is wrong with the input, at a seller that looks only after it accepted."""
    start_within_s: float | None = None


class Job(msgspec.Struct, kw_only=True):
    """One accepted order. Names ending in `_v` are sellers' seconds, `_at` the wall's epoch seconds."""

    seller: str
    id: str
    key: str
    number: int
    """Counts this seller's jobs from 1."""
    file_id: str
    origin: str
    prompt: str
    model: str
    tier: str
    resolution: str
    aspect_ratio: str
    seconds: int
    audio: bool
    content_filter: bool
    seed: int
    client_ref: str | None
    callback_url: str | None
    extra: dict[str, Any]
    flaw: list[dict[str, Any]] | None
    faults: dict[str, float | None]
    fate: Fate
    accepted_v: float
    queue_s: float
    run_s: float
    give_up_v: float | None
    created_at: float
    state: State = "queued"
    started_v: float | None = None
    ended_v: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    price_microusd: int = 0
    reserved_microusd: int = 0
    charged_microusd: int = 0
    refunded_microusd: int = 0
    downloads: int = 0
    polls: int = 0
    links_renewed: bool = False
    """Whether a link was found too old, so that the next ones work."""
    callback_tries: int = 0
    callback_open: bool = False
    callback_log: list[dict[str, Any]] = msgspec.field(default_factory=list)

    @property
    def has_ended(self) -> bool:
        return self.state in {"succeeded", "failed", "cancelled"}

    @property
    def shape(self) -> Shape:
        """The clip that is delivered, which a fault makes other than ordered."""
        return shape_of(
            resolution=self.resolution,
            aspect_ratio=self.aspect_ratio,
            seconds=self.seconds - ("shorter" in self.faults) + ("longer" in self.faults),
            has_audio=self.audio,
            smaller="smaller" in self.faults,
        )


class View(msgspec.Struct, frozen=True, kw_only=True):
    """A job as its seller shows it just now, lies included."""

    state: Literal["queued", "running", "succeeded", "failed", "cancelled", "unheard_of"]
    share: float
    """Ratio of the run that has passed, 0 to 1."""
    wait_s: float
    """Sellers' seconds until it starts, as far as known."""
