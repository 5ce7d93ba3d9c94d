"""What the API answers: OpenAI's objects, all their keys in their order, then ours."""

from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from proxy.core.attempt import AttemptState
from proxy.core.offer import ExclusionReason, PriceBasis
from proxy.core.video import Operation, Status

# Names like `Usage` would say too little beside the core's words, and `object` shadows nothing: the
# wire wants both. Amounts are decimal strings in USD, null where they are not known, and never 0 for that.


class VideoError(msgspec.Struct, frozen=True, kw_only=True):
    """Why a video failed."""

    code: str
    message: str


class UsageObject(msgspec.Struct, frozen=True, kw_only=True):
    """What the tenant got and pays."""

    duration_seconds: float | None = None
    """Measured; None until the file is in place."""
    cost_usd: str | None = None
    """None until settled."""
    refunded_usd: str | msgspec.UnsetType = msgspec.UNSET
    """What was given back of it."""


class AttemptObject(msgspec.Struct, frozen=True, kw_only=True):
    """One try at one provider, as a tenant may see it."""

    provider: str | None
    """None where providers are not exposed."""
    status: AttemptState
    error_code: str | None = None
    cost_usd: str | None = None
    """What the seller took, which is not what the tenant pays."""
    started_at: int
    """Unix seconds."""
    ended_at: int | None = None


class ChangeObject(msgspec.Struct, frozen=True, kw_only=True):
    """A stated field that a rule changed."""

    asked: Any
    given: Any


class RoutingObject(msgspec.Struct, frozen=True, kw_only=True):
    """How the seller was chosen, and what came of it."""

    rule: str
    strategy: str
    provider: str | None = None
    """Who makes or made it; None before the first submit, and where providers are not exposed."""
    quoted_usd: str | None = None
    changed: dict[str, ChangeObject] = msgspec.field(default_factory=dict)
    attempts: tuple[AttemptObject, ...] = ()


class VideoObject(msgspec.Struct, frozen=True, kw_only=True):
    """A video; the first thirteen keys are OpenAI's."""

    id: str
    object: Literal["video"] = "video"
    model: str
    status: Status
    progress: int
    created_at: int
    """Unix seconds, as the other times."""
    completed_at: int | None = None
    expires_at: int | None = None
    prompt: str | None = None
    """None once erased."""
    size: str
    seconds: str
    remixed_from_video_id: str | None = None
    error: VideoError | None = None
    resolution: str
    aspect_ratio: str
    generate_audio: bool
    seed: int | None = None
    content_filter: bool
    tier: str
    end_user_id: str | None = None
    metadata: dict[str, str] = msgspec.field(default_factory=dict)
    usage: UsageObject = UsageObject()
    routing: RoutingObject
    warnings: tuple[str, ...] | UnsetType = UNSET
    """Present only where there is something to warn of."""
    sandbox: Literal[True] | UnsetType = UNSET
    """Present only where no real seller was asked."""


class VideoList(msgspec.Struct, frozen=True, kw_only=True):
    """A page; all five keys, always: SDKs disagree about a missing one."""

    object: Literal["list"] = "list"
    data: tuple[VideoObject, ...]
    first_id: str | None
    last_id: str | None
    has_more: bool


def video_page(videos: tuple[VideoObject, ...], *, has_more: bool) -> VideoList:
    """The list's envelope around one page; an empty page never says that there is more."""
    if not videos:
        return VideoList(data=(), first_id=None, last_id=None, has_more=False)
    return VideoList(data=videos, first_id=videos[0].id, last_id=videos[-1].id, has_more=has_more)


class VideoDeleted(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["video.deleted"] = "video.deleted"
    deleted: Literal[True] = True


class SecondsRange(msgspec.Struct, frozen=True, kw_only=True):
    min: int
    max: int
    auto: bool
    """Whether the seller may choose."""


class Abilities(msgspec.Struct, frozen=True, kw_only=True):
    """What at least one offer of a model can do."""

    operations: tuple[Operation, ...]
    tiers: tuple[str, ...]
    resolutions: tuple[str, ...]
    aspect_ratios: tuple[str, ...]
    seconds: SecondsRange
    audio_switch: bool
    seed: bool
    filter_switch: bool
    web_search: bool


class ModelPrice(msgspec.Struct, frozen=True, kw_only=True):
    """What the tenant would pay for a second of one offer."""

    provider: str | None
    """None where providers are not exposed."""
    operation: Operation
    tier: str
    resolution: str
    usd_per_second: str
    """Where the seller bills tokens, of the dearest aspect ratio."""
    basis: PriceBasis


class ModelObject(msgspec.Struct, frozen=True, kw_only=True):
    """A model; the first four keys are OpenAI's."""

    id: str
    object: Literal["model"] = "model"
    created: int
    """Unix seconds."""
    owned_by: str
    aliases: tuple[str, ...] = ()
    abilities: Abilities | None = None
    prices: tuple[ModelPrice, ...] = ()


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    """SDKs read one page of models and no second."""

    object: Literal["list"] = "list"
    data: tuple[ModelObject, ...]


class CandidateObject(msgspec.Struct, frozen=True, kw_only=True):
    """One offer that could make the video, in the order of trying."""

    provider: str | None
    """None where providers are not exposed, as `offer` and `reason`."""
    offer: str | None
    tier: str
    price_usd: str
    """What the tenant would pay."""
    price_basis: PriceBasis
    expected_seconds: float
    """From accept to file."""
    reason: str | None
    """Why it ranks here."""


class ExcludedObject(msgspec.Struct, frozen=True, kw_only=True):
    """One offer that could not, and the part that it cannot meet."""

    provider: str
    offer: str
    reason: ExclusionReason
    detail: str


class PassedOverObject(msgspec.Struct, frozen=True, kw_only=True):
    """A rule that stands before the one that matched, and the keys of its `when` that do not hold."""

    rule: str
    unmet: tuple[str, ...]


class BudgetQuote(msgspec.Struct, frozen=True, kw_only=True):
    """What a budget leaves before a video, and while the video is under way."""

    left_usd: str
    left_after_usd: str


class QuoteObject(msgspec.Struct, frozen=True, kw_only=True):
    """What a create would do with the same body."""

    object: Literal["video.quote"] = "video.quote"
    model: str
    resolution: str
    aspect_ratio: str
    size: str
    seconds: str
    generate_audio: bool
    content_filter: bool
    tier: str
    seed: int | None
    rule: str
    strategy: str
    max_attempts: int
    """So many candidates, the first ones, would be kept."""
    hold_usd: str
    changed: dict[str, ChangeObject]
    candidates: tuple[CandidateObject, ...]
    excluded: tuple[ExcludedObject, ...]
    """Empty where providers are not exposed."""
    passed_over: tuple[PassedOverObject, ...] = ()
    """The same."""
    budget: BudgetQuote | None = None
    """Of the tightest budget that applies; null without one."""
    warnings: tuple[str, ...] | UnsetType = UNSET
    """Present only where there is something to warn of."""


class TenantObject(msgspec.Struct, frozen=True, kw_only=True):
    object: Literal["tenant"] = "tenant"
    id: str
    name: str
    markup: str
    allow_filter_off: bool
    require_end_user_id: bool
    requests_per_minute: int | None
    """Null where there is no limit."""
    videos_in_flight: int | None
    """The same."""
    created_at: int


class BudgetObject(msgspec.Struct, frozen=True, kw_only=True):
    """A budget, and how it stands in the period of this moment."""

    object: Literal["budget"] = "budget"
    id: str
    tenant: str
    scope: str
    key: str | None
    end_user_id: str | None
    """Null too where the name was erased."""
    period: str
    limit_usd: str
    shadow: bool
    warn_at: tuple[str, ...]
    raise_usd: str | None
    """Null where there is none, or no more."""
    raise_until: int | None
    used_usd: str | None
    """Held and charged; null where it is each end user's own."""
    left_usd: str | None
    created_at: int


class BudgetRemoved(msgspec.Struct, frozen=True, kw_only=True):
    object: Literal["budget.removed"] = "budget.removed"
    id: str
    removed: Literal[True] = True


class PriceSet(msgspec.Struct, frozen=True, kw_only=True):
    """A price that an operator set over those of catalogue and rules."""

    object: Literal["price.set"] = "price.set"
    id: str
    """Of the price too, as bills name it."""
    provider: str
    model: str
    tier: str
    operation: str
    resolution: str
    with_video: bool
    usd_per_second: str | None
    usd_per_million_tokens: str | None
    starts: str
    source: str
    basis: PriceBasis
    created_at: int


class PriceRemoved(msgspec.Struct, frozen=True, kw_only=True):
    object: Literal["price.removed"] = "price.removed"
    id: str
    removed: Literal[True] = True


class EndUserErased(msgspec.Struct, frozen=True, kw_only=True):
    """What is left of an end user: the surrogate, under which the ledger's rows stay."""

    object: Literal["end_user.erased"] = "end_user.erased"
    tenant: str
    end_user: str
    videos: int
    """Deleted just now."""


class KeyObject(msgspec.Struct, frozen=True, kw_only=True):
    """An API key; times are Unix seconds."""

    object: Literal["api_key"] = "api_key"
    id: str
    tenant: str
    name: str
    last4: str
    scopes: tuple[str, ...]
    requests_per_minute: int | None
    """Of this key alone; null where there is no limit."""
    videos_in_flight: int | None
    """The same."""
    created_at: int
    expires_at: int | None
    revoked_at: int | None
    last_used_at: int | None
    key: str | UnsetType = UNSET
    """The key itself, in the answer that made it and nowhere else."""


class KeyRevoked(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["api_key.revoked"] = "api_key.revoked"
    deleted: Literal[True] = True


class ErrorObject(msgspec.Struct, frozen=True, kw_only=True):
    """All four keys, always."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorEnvelope(msgspec.Struct, frozen=True, kw_only=True):
    error: ErrorObject


def error_body(message: str, type: str, param: str | None, code: str | None) -> bytes:  # noqa: A002  # the wire's word
    """OpenAI's envelope as JSON."""
    return msgspec.json.encode(ErrorEnvelope(error=ErrorObject(message=message, type=type, param=param, code=code)))
