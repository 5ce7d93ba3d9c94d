"""The fields of a create request, and what they ask for."""

import hashlib
import re
from collections.abc import Mapping, Sized
from decimal import ROUND_FLOOR, Decimal
from typing import Any, Literal, TypeVar

import msgspec

from proxy.api.documents import unknown_parameter
from proxy.api.forms import UploadedFile, items_of
from proxy.core.errors import InvalidType, InvalidValue, MissingParameter, Unsupported
from proxy.core.money import MICRO
from proxy.core.video import ASPECT_RATIOS, RESOLUTIONS, TIERS, Ask, Operation, RoutingWish, Sort
from proxy.policy.when import MAX_SEED

T = TypeVar("T")
MaybeText = TypeVar("MaybeText", bound=str | None)

MAX_PROMPT_CHARS = 32_000
MAX_WORD_CHARS = 128
MAX_END_USER_CHARS = 128
MAX_METADATA_PAIRS, MAX_METADATA_KEY_CHARS, MAX_METADATA_VALUE_CHARS = 16, 64, 512
MAX_URL_CHARS = 20_971_520
MAX_ITEMS = 100
"""In any list of media or of providers; sellers take far fewer."""
MAX_SECONDS_ASKED = 100_000
"""Far more than anybody sells; which lengths are for sale is said by the plan."""
MAX_PRICE_USD = 1_000_000
MAX_WAIT_S = 31_536_000

_SORTS: tuple[Sort, ...] = ("price", "latency", "balanced")


class RoutingBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    The request's `routing` object.

    An unknown name in here is refused even where unknown fields are otherwise only reported: a
    misspelt `max_price_usd` would spend money.
    """

    sort: str | None = None
    only: tuple[str, ...] | None = None
    ignore: tuple[str, ...] | None = None
    order: tuple[str, ...] | None = None
    max_price_usd: Decimal | None = None
    max_wait_s: int | None = None
    allow_fallbacks: bool | None = None


class CreateBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of a create request; null is the same as leaving a field out, for forms cannot say null."""

    prompt: str | None = None
    model: str | None = None
    seconds: int | float | str | None = None
    duration: int | float | str | None = None
    size: str | None = None
    resolution: str | None = None
    aspect_ratio: str | None = None
    generate_audio: bool | None = None
    seed: int | None = None
    content_filter: bool | None = None
    tier: str | None = None
    web_search: bool | None = None
    end_user_id: str | None = None
    user: str | None = None
    metadata: dict[str, str] | None = None
    callback_url: str | None = None
    routing: RoutingBody | None = None
    input_reference: Any = None
    end_image: Any = None
    reference_images: Any = None
    reference_videos: Any = None
    reference_audios: Any = None


class MediaField(msgspec.Struct, frozen=True, kw_only=True):
    """How a field names pictures, films or sounds."""

    url_key: str
    many: bool
    operation: Operation


MEDIA_FIELDS: dict[str, MediaField] = {
    "input_reference": MediaField(url_key="image_url", many=False, operation="image-to-video"),
    "end_image": MediaField(url_key="image_url", many=False, operation="image-to-video"),
    "reference_images": MediaField(url_key="image_url", many=True, operation="reference-to-video"),
    "reference_videos": MediaField(url_key="video_url", many=True, operation="reference-to-video"),
    "reference_audios": MediaField(url_key="audio_url", many=True, operation="reference-to-video"),
}

CREATE_FIELDS = CreateBody.__struct_fields__
NOT_SOLD = {
    "characters": "characters are not available here",
    "video": "a source video belongs to edits and extensions, not to a create",
}
"""OpenAI's own fields that no offer can honour, and the sentence that says so."""


class Medium(msgspec.Struct, frozen=True, kw_only=True):
    """One picture, film or sound that the request brings or names."""

    field: str
    source: Literal["file", "url", "file_id"]
    digest: str
    """SHA-256 of the file's bytes, or of the text that names it."""


def media_of(stated: Mapping[str, Any]) -> tuple[Medium, ...]:
    """
    What each media field names, in the order of `MEDIA_FIELDS`.

    Values are as decoded from JSON, or a form's nodes with files among them. Raises InvalidType,
    InvalidValue or UnknownParameter.
    """
    return tuple(
        medium
        for name, field in MEDIA_FIELDS.items()
        if stated.get(name) is not None
        for medium in _media(name, field, stated[name])
    )


def _media(name: str, field: MediaField, value: Any) -> list[Medium]:
    if not field.many:
        if isinstance(value, list):
            raise InvalidType(f"{name!r} must be one image, not a list.", param=name)
        return [_medium(name, name, field, value)]
    items = items_of(value)
    if items is None:
        raise InvalidType(f"{name!r} must be an array.", param=name)
    _count(name, items)
    return [_medium(name, f"{name}[{no}]", field, item) for no, item in enumerate(items)]


def _medium(name: str, where: str, field: MediaField, value: Any) -> Medium:
    if isinstance(value, UploadedFile):
        if not value.size_bytes:
            raise InvalidValue(f"The file in {where!r} is empty.", param=where)
        return Medium(field=name, source="file", digest=value.sha256)
    if isinstance(value, str):
        return _link(name, where, value)
    if not isinstance(value, dict):
        raise InvalidType(f"{where!r} must be a file, a URL or an object with {field.url_key!r}.", param=where)
    return _reference(name, where, field, value)


def _reference(name: str, where: str, field: MediaField, value: dict[str, Any]) -> Medium:
    keys = (field.url_key, "file_id")
    if odd := next((key for key in value if key not in keys), None):
        raise unknown_parameter(odd, keys, inside=where)
    stated = [(key, value[key]) for key in keys if value.get(key) is not None]
    if len(stated) != 1:
        raise InvalidValue(f"{where!r} must have exactly one of {keys[0]!r} and {keys[1]!r}.", param=where)
    key, text = stated[0]
    if not isinstance(text, str):
        raise InvalidType(f"'{where}.{key}' must be a string.", param=f"{where}.{key}")
    if key == "file_id":
        return Medium(field=name, source="file_id", digest=_digest(_word(f"{where}.{key}", text, MAX_WORD_CHARS)))
    return _link(name, f"{where}.{key}", text)


def _link(name: str, where: str, text: str) -> Medium:
    if not re.match(r"(https?://|data:)[!-~]", text, re.IGNORECASE) or not text.isprintable():
        raise InvalidValue(f"{where!r} must be an http, https or data URL.", param=where)
    if len(text) > MAX_URL_CHARS:
        raise InvalidValue(f"{where!r} is longer than {MAX_URL_CHARS} characters.", param=where)
    return Medium(field=name, source="url", digest=_digest(text))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def build_ask(body: CreateBody, media: tuple[Medium, ...]) -> Ask:
    """What the client stated, aliases resolved and bounds checked; what could be sold is not asked here."""
    if body.callback_url is not None:
        raise Unsupported(
            "'callback_url' is not available yet; read the video until it has ended.", param="callback_url"
        )
    operation, operation_param = _operation(media)
    return Ask(
        prompt=_prompt(body.prompt),
        model=_word("model", body.model, MAX_WORD_CHARS),
        seconds=_seconds(body),
        size=_word("size", body.size, MAX_WORD_CHARS),
        resolution=_one_of("resolution", body.resolution, RESOLUTIONS),
        aspect_ratio=_one_of("aspect_ratio", body.aspect_ratio, (*ASPECT_RATIOS, "auto")),
        generate_audio=body.generate_audio,
        seed=_within("seed", body.seed, 0, MAX_SEED),
        content_filter=body.content_filter,
        tier=_one_of("tier", body.tier, TIERS),
        web_search=body.web_search,
        operation=operation,
        operation_param=operation_param,
        end_user_id=_end_user_id(body),
        metadata=_metadata(body.metadata),
        routing=RoutingWish() if body.routing is None else _routing(body.routing),
    )


def _prompt(prompt: str | None) -> str:
    if prompt is None:
        raise MissingParameter("Missing required parameter: 'prompt'.", param="prompt")
    if not prompt or prompt.isspace():
        raise InvalidValue("'prompt' must not be empty.", param="prompt")
    if len(prompt) > MAX_PROMPT_CHARS:
        raise InvalidValue(f"'prompt' is longer than {MAX_PROMPT_CHARS} characters.", param="prompt")
    return prompt


def _seconds(body: CreateBody) -> int | Literal["auto"] | None:
    if body.duration is None:
        return None if body.seconds is None else _whole_seconds("seconds", body.seconds)
    duration = _whole_seconds("duration", body.duration)
    if body.seconds is not None and _whole_seconds("seconds", body.seconds) != duration:
        raise InvalidValue("'duration' is another name for 'seconds', and here they differ.", param="duration")
    return duration


def _whole_seconds(param: str, value: float | str) -> int | Literal["auto"]:
    if value == "auto":
        return "auto"
    if isinstance(value, str):
        match = re.fullmatch(r"([0-9]{1,9})(\.0+)?", value)
        whole: int | None = int(match[1]) if match else None
    else:
        whole = int(value) if isinstance(value, int) or value.is_integer() else None
    if whole is None or not 0 < whole <= MAX_SECONDS_ASKED:
        raise InvalidValue(f"{param!r} must be a whole number of seconds above 0, or 'auto'.", param=param)
    return whole


def _end_user_id(body: CreateBody) -> str | None:
    end_user_id = _word("end_user_id", body.end_user_id, MAX_END_USER_CHARS)
    if body.user is None:
        return end_user_id
    user = _word("user", body.user, MAX_END_USER_CHARS)
    if end_user_id not in {None, user}:
        raise InvalidValue("'user' is another name for 'end_user_id', and here they differ.", param="user")
    return user


def _metadata(metadata: dict[str, str] | None) -> dict[str, str]:
    if not metadata:
        return {}
    if len(metadata) > MAX_METADATA_PAIRS:
        raise InvalidValue(f"'metadata' has more than {MAX_METADATA_PAIRS} pairs.", param="metadata")
    for key, value in metadata.items():
        if not 0 < len(key) <= MAX_METADATA_KEY_CHARS:
            raise InvalidValue(
                f"A key of 'metadata' must have 1 to {MAX_METADATA_KEY_CHARS} characters.", param="metadata"
            )
        if len(value) > MAX_METADATA_VALUE_CHARS:
            param = f"metadata.{key}"
            raise InvalidValue(f"{param!r} is longer than {MAX_METADATA_VALUE_CHARS} characters.", param=param)
    return metadata


def _routing(body: RoutingBody) -> RoutingWish:
    return RoutingWish(
        sort=_one_of("routing.sort", body.sort, _SORTS),
        only=_names("routing.only", body.only),
        ignore=_names("routing.ignore", body.ignore),
        order=_names("routing.order", body.order),
        max_price_microusd=_price_microusd(body.max_price_usd),
        max_wait_s=_within("routing.max_wait_s", body.max_wait_s, 1, MAX_WAIT_S),
        allow_fallbacks=body.allow_fallbacks,
    )


def _names(param: str, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Names of providers. An empty list says nothing: SDKs drop it from a form, and JSON means the same."""
    if not names:
        return None
    _count(param, names)
    for no, name in enumerate(names):
        _word(f"{param}[{no}]", name, MAX_WORD_CHARS)
    return names


def _price_microusd(usd: Decimal | None) -> int | None:
    """Rounded down, so that no price above the limit passes: prices are whole micro-dollars too."""
    if usd is None:
        return None
    param = "routing.max_price_usd"
    if not usd.is_finite() or not 0 < usd <= MAX_PRICE_USD:
        raise InvalidValue(f"{param!r} must be above 0 and at most {MAX_PRICE_USD}.", param=param)
    return int((usd * MICRO).to_integral_value(rounding=ROUND_FLOOR))


def _operation(media: tuple[Medium, ...]) -> tuple[Operation, str | None]:
    if not media:
        return "text-to-video", None
    first, last = media[0].field, media[-1].field
    operation = MEDIA_FIELDS[first].operation
    if MEDIA_FIELDS[last].operation != operation:
        raise InvalidValue(f"{last!r} cannot be combined with {first!r}.", param=last)
    return operation, first


def _word(param: str, text: MaybeText, max_chars: int) -> MaybeText:
    if text is None:
        return text
    if not text or text.isspace():
        raise InvalidValue(f"{param!r} must not be empty.", param=param)
    if len(text) > max_chars:
        raise InvalidValue(f"{param!r} is longer than {max_chars} characters.", param=param)
    return text


def _count(param: str, items: Sized) -> None:
    if len(items) > MAX_ITEMS:
        raise InvalidValue(f"{param!r} has more than {MAX_ITEMS} items.", param=param)


def _one_of(param: str, text: str | None, words: tuple[T, ...]) -> T | None:
    if text is None:
        return None
    for word in words:
        if word == text:
            return word
    raise InvalidValue(f"{param!r} must be one of {', '.join(map(str, words))}.", param=param)


def _within(param: str, number: int | None, least: int, most: int) -> int | None:
    if number is not None and not least <= number <= most:
        raise InvalidValue(f"{param!r} must be between {least} and {most}.", param=param)
    return number
