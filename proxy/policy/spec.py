"""A request as stated, checked and filled with the defaults: the Spec, and what it wishes of the routing."""

from typing import Literal

import msgspec

from proxy.core.errors import InvalidValue, MissingParameter, ModelNotFound, PermissionDenied
from proxy.core.tenant import Tenant
from proxy.core.video import ASPECT_RATIOS, MAX_SECONDS, MIN_SECONDS, PIXELS, RESOLUTIONS, SIZES, TIERS, Ask, Spec
from proxy.policy.rules import Rules
from proxy.policy.when import MAX_SEED

MAX_PROMPT_CHARS = 32_000
MAX_END_USER_CHARS = 128
MAX_PAIRS, MAX_PAIR_KEY_CHARS, MAX_PAIR_VALUE_CHARS = 16, 64, 512

_SUFFIXES: dict[str, Literal["cheapest", "fastest"]] = {"cheapest": "cheapest", "fastest": "fastest"}
_FIELDS = ("resolution", "aspect_ratio", "seconds", "generate_audio", "content_filter", "tier", "seed", "web_search")


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """A Spec, and what the model's name said beside the model."""

    spec: Spec
    pin: str | None
    """The one provider that may be used."""
    suffix: Literal["cheapest", "fastest"] | None


class ModelName(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of `provider/model:wish`, the model by its own name."""

    model: str
    pin: str | None = None
    suffix: Literal["cheapest", "fastest"] | None = None


def settle(ask: Ask, rules: Rules, tenant: Tenant) -> Settled:
    """
    Fill what the client left open with the defaults; what it stated is remembered in `stated`.

    Raises a RequestError that names the field for whatever no offer at all could make good.
    """
    _check_prompt(ask.prompt)
    name = read_model(ask.model, rules)
    resolution, aspect_ratio = _frame(ask, rules, name.model)
    _check_values(ask)
    _check_people(ask, tenant)
    if ask.content_filter is False and not tenant.allow_filter_off:
        raise PermissionDenied("this tenant may not switch the content filter off", param="content_filter")
    defaults = rules.defaults
    stated = {field for field in _FIELDS if getattr(ask, field) is not None}
    if ask.size is not None:
        stated |= {"resolution", "aspect_ratio"}
    seconds = defaults.seconds if ask.seconds is None else ask.seconds
    spec = Spec(
        model=name.model,
        operation=ask.operation,
        prompt=ask.prompt,
        seconds=None if seconds == "auto" else seconds,
        resolution=resolution or defaults.resolution,
        aspect_ratio=aspect_ratio or defaults.aspect_ratio,
        generate_audio=defaults.generate_audio if ask.generate_audio is None else ask.generate_audio,
        # The right to switch it off is the tenant's; a default cannot give it.
        content_filter=(defaults.content_filter or not tenant.allow_filter_off)
        if ask.content_filter is None
        else ask.content_filter,
        tier=ask.tier or defaults.tier,
        seed=ask.seed,
        web_search=defaults.web_search if ask.web_search is None else ask.web_search,
        end_user_id=ask.end_user_id,
        metadata=ask.metadata,
        stated=frozenset(stated),
    )
    return Settled(spec=spec, pin=name.pin, suffix=name.suffix)


def read_model(text: str | None, rules: Rules) -> ModelName:
    """Take `provider/model:wish` apart. Without a name, the only model there is."""
    if text is None:
        if len(rules.models) != 1:
            raise MissingParameter(f"model is missing; there are: {', '.join(rules.models)}", param="model")
        return ModelName(model=rules.models[0])
    if text in rules.names:
        return ModelName(model=rules.names[text])
    stem, _, wish = text.partition(":")
    provider, slash, model = stem.rpartition("/")
    if model not in rules.names or (wish and wish not in _SUFFIXES) or (":" in text and not wish):
        raise _no_such_model(text, rules)
    if slash and not rules.expose_providers:
        raise InvalidValue("model may not name a provider here", param="model")
    if slash and provider not in rules.accounts:
        raise _no_such_model(text, rules)
    return ModelName(model=rules.names[model], pin=provider if slash else None, suffix=_SUFFIXES.get(wish))


def _no_such_model(text: str, rules: Rules) -> ModelNotFound:
    return ModelNotFound(f"there is no model {text[:128]!r}; there are: {', '.join(rules.models)}", param="model")


def _check_prompt(prompt: str) -> None:
    if not prompt.strip():
        raise InvalidValue("prompt must not be empty", param="prompt")
    if len(prompt) > MAX_PROMPT_CHARS:
        raise InvalidValue(f"prompt has {len(prompt)} characters; {MAX_PROMPT_CHARS} are the most", param="prompt")


def _frame(ask: Ask, rules: Rules, model: str) -> tuple[str | None, str | None]:
    """Resolution and aspect ratio as stated, by themselves or as `size`."""
    for field, value, good in (
        ("resolution", ask.resolution, RESOLUTIONS),
        ("aspect_ratio", ask.aspect_ratio, (*ASPECT_RATIOS, "auto")),
        ("tier", ask.tier, TIERS),
    ):
        if value is not None and value not in good:
            raise InvalidValue(f"{field} must be one of {', '.join(good)}", param=field)
    if ask.size is None:
        return ask.resolution, ask.aspect_ratio
    frame = rules.sizes.get(ask.size) or SIZES.get(ask.size)
    if frame is None:
        raise InvalidValue(f"size must be one of {', '.join(possible_sizes(rules, model))}", param="size")
    if (ask.resolution or frame[0]) != frame[0] or (ask.aspect_ratio or frame[1]) != frame[1]:
        raise InvalidValue(
            f"size {ask.size} is {frame[0]} and {frame[1]}, which contradicts resolution or aspect_ratio",
            param="size",
        )
    return frame


def possible_sizes(rules: Rules, model: str) -> list[str]:
    """Every `size` that some offer of the model makes, aliases of the rules last."""
    made = {
        (resolution, ratio)
        for offer in rules.by_model[model]
        for resolution in offer.resolutions
        for ratio in offer.aspect_ratios
    }
    sizes = [f"{width}x{height}" for key, (width, height) in PIXELS.items() if key in made]
    return sizes + [alias for alias, key in rules.sizes.items() if key in made]


def _check_values(ask: Ask) -> None:
    if ask.seconds not in {None, "auto"} and not MIN_SECONDS <= int(ask.seconds or 0) <= MAX_SECONDS:
        raise InvalidValue(
            f"seconds must be a whole number from {MIN_SECONDS} to {MAX_SECONDS}, or auto", param="seconds"
        )
    if ask.seed is not None and not 0 <= ask.seed <= MAX_SEED:
        raise InvalidValue(f"seed must be a whole number from 0 to {MAX_SEED}", param="seed")
    if len(ask.metadata) > MAX_PAIRS:
        raise InvalidValue(f"metadata may hold {MAX_PAIRS} pairs, not {len(ask.metadata)}", param="metadata")
    for key, value in ask.metadata.items():
        if not 0 < len(key) <= MAX_PAIR_KEY_CHARS or len(value) > MAX_PAIR_VALUE_CHARS:
            raise InvalidValue(
                f"metadata takes keys of 1 to {MAX_PAIR_KEY_CHARS} characters"
                f" and values of up to {MAX_PAIR_VALUE_CHARS}",
                param="metadata",
            )


def _check_people(ask: Ask, tenant: Tenant) -> None:
    if ask.end_user_id is None:
        if tenant.require_end_user_id:
            raise MissingParameter("this tenant must name its end_user_id", param="end_user_id")
        return
    if not 0 < len(ask.end_user_id) <= MAX_END_USER_CHARS:
        raise InvalidValue(f"end_user_id must have 1 to {MAX_END_USER_CHARS} characters", param="end_user_id")
