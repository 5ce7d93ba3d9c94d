"""The customer's job: what is asked, what is settled on, what came out."""

from typing import Literal

import msgspec

Status = Literal["queued", "in_progress", "completed", "failed"]
"""OpenAI's four words and no fifth."""

VideoFailure = Literal[
    "moderation_blocked",
    "provider_error",
    "deadline_exceeded",
    "cancelled",
    "outcome_unknown",
    "no_provider_available",
    "storage_error",
]

Operation = Literal["text-to-video", "image-to-video", "reference-to-video"]
Sort = Literal["price", "latency", "balanced"]

RESOLUTIONS = ("480p", "720p", "1080p")
"""From small to large."""
ASPECT_RATIOS = ("21:9", "16:9", "4:3", "1:1", "3:4", "9:16")
TIERS = ("standard", "fast", "mini")
MIN_SECONDS, MAX_SECONDS = 4, 15

PIXELS: dict[tuple[str, str], tuple[int, int]] = {
    ("480p", "21:9"): (992, 432),
    ("480p", "16:9"): (864, 496),
    ("480p", "4:3"): (752, 560),
    ("480p", "1:1"): (640, 640),
    ("480p", "3:4"): (560, 752),
    ("480p", "9:16"): (496, 864),
    ("720p", "21:9"): (1470, 630),
    ("720p", "16:9"): (1280, 720),
    ("720p", "4:3"): (1112, 834),
    ("720p", "1:1"): (960, 960),
    ("720p", "3:4"): (834, 1112),
    ("720p", "9:16"): (720, 1280),
    ("1080p", "21:9"): (2206, 946),
    ("1080p", "16:9"): (1920, 1080),
    ("1080p", "4:3"): (1664, 1248),
    ("1080p", "1:1"): (1440, 1440),
    ("1080p", "3:4"): (1248, 1664),
    ("1080p", "9:16"): (1080, 1920),
}
"""Width and height of each (resolution, aspect ratio) as the model makes them."""

SIZES: dict[str, tuple[str, str]] = {f"{w}x{h}": key for key, (w, h) in PIXELS.items()}
"""OpenAI's `size` to (resolution, aspect ratio)."""


class RoutingWish(msgspec.Struct, frozen=True, kw_only=True):
    """The request's own `routing` object; what is None was not stated."""

    sort: Sort | None = None
    only: tuple[str, ...] | None = None
    ignore: tuple[str, ...] | None = None
    order: tuple[str, ...] | None = None
    max_price_microusd: int | None = None
    max_wait_s: int | None = None
    allow_fallbacks: bool | None = None


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """A request as the client stated it; what is None was left open."""

    prompt: str
    model: str | None = None
    """May carry a provider before it (`<provider>/…`) or a wish behind it (`…:cheapest`)."""
    seconds: int | Literal["auto"] | None = None
    size: str | None = None
    resolution: str | None = None
    aspect_ratio: str | None = None
    generate_audio: bool | None = None
    seed: int | None = None
    content_filter: bool | None = None
    tier: str | None = None
    web_search: bool | None = None
    operation: Operation = "text-to-video"
    operation_param: str | None = None
    """The field that made the operation other than text-to-video."""
    end_user_id: str | None = None
    metadata: dict[str, str] = msgspec.field(default_factory=dict)
    callback_url: str | None = None
    routing: RoutingWish = RoutingWish()


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """What the customer wants, every field settled: by the client, the rule or the defaults."""

    model: str
    """Canonical: aliases, pins and suffixes are resolved."""
    operation: Operation
    prompt: str
    seconds: int | None
    """Whole seconds; None is `auto`, the seller chooses."""
    resolution: str
    aspect_ratio: str
    """`auto`: the seller chooses."""
    generate_audio: bool
    content_filter: bool
    tier: str
    seed: int | None = None
    web_search: bool = False
    input_video_s: int = 0
    """Of all reference videos together, rounded up."""
    end_user_id: str | None = None
    metadata: dict[str, str] = msgspec.field(default_factory=dict)
    stated: frozenset[str] = frozenset()
    """Names of the fields that the client stated; those are requirements."""

    @property
    def size(self) -> str:
        """`WxH`, or `auto` where the seller chooses the ratio."""
        if self.aspect_ratio == "auto":
            return "auto"
        width, height = PIXELS[self.resolution, self.aspect_ratio]
        return f"{width}x{height}"


class Footage(msgspec.Struct, frozen=True, kw_only=True):
    """Our copy of the file, as measured."""

    key: str
    """Where it lies in the storage."""
    size_bytes: int
    sha256: str
    duration_ms: int
    width_px: int
    height_px: int
    has_audio: bool
