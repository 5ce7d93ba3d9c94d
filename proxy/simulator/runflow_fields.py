"""What Runflow's two APIs have in common: the envelope of a no, and how they read a model's fields."""

from typing import Any, NoReturn

from proxy.simulator.base import Refusal
from proxy.simulator.exchange import Answer, Refused, json_answer
from proxy.simulator.job import Order

FIELDS = {"prompt", "aspect_ratio", "duration", "resolution", "generate_audio", "seed", "end_user_id"}
RATIOS = ("auto", "21:9", "16:9", "4:3", "1:1", "3:4", "9:16")
DURATIONS = ("auto", *(str(seconds) for seconds in range(4, 16)))

_REFUSALS: dict[Refusal, tuple[int, str]] = {
    "unauthorized": (401, "UNAUTHORIZED"),
    "no_credit": (402, "INSUFFICIENT_CREDIT"),
    "invalid": (422, "VALIDATION_ERROR"),
    "moderation": (422, "CONTENT_POLICY_VIOLATION"),
    "throttled": (429, "RATE_LIMITED"),
    "error_500": (500, "INTERNAL_ERROR"),
    "error_503": (503, "MODEL_UNAVAILABLE"),
    "error_504": (504, "GATEWAY_TIMEOUT"),
    "unknown": (404, "RUN_NOT_FOUND"),
}

FAILURES = {
    "moderation_late": ("CONTENT_POLICY_VIOLATION", "The output was refused by the provider's content check."),
    "render_failed": ("PROVIDER_ERROR", "The provider could not render this run."),
}
"""Code and message of a render without a clip, by its fate."""


def error(status: int, code: str, message: str, errors: list[dict[str, str]] | None = None) -> Answer:
    return json_answer(status, {"code": code, "message": message, "errors": errors})


def refusal(why: Refusal, message: str) -> Answer:
    status, code = _REFUSALS[why]
    return error(status, code, "Rate limit exceeded" if why == "throttled" else message)


def bad(field: str, message: str) -> NoReturn:
    raise Refused(error(422, "VALIDATION_ERROR", f"{field}: {message}", [{"field": field, "message": message}]))


def one_of(given: dict[str, Any], name: str, allowed: tuple[str, ...], default: str, *, under: str) -> str:
    value = given.get(name, default)
    if value not in allowed:
        bad(f"{under}{name}", f"{name} must be one of {', '.join(allowed)}")
    return str(value)


def typed(given: dict[str, Any], name: str, shape: type, *, default: Any, under: str) -> Any:
    value = given.get(name, default)
    if value is not default and type(value) is not shape:
        bad(f"{under}{name}", f"{name} must be of type {shape.__name__}")
    return value


def read_fields(
    given: dict[str, Any], *, under: str, model: str, tier: str, resolutions: tuple[str, ...], takes_numbers: bool
) -> Order:
    """
    The order that a model's fields make, all but its seed, which the two APIs type differently.

    `under` is what goes before a field's name in a complaint. Raises Refused.
    """
    prompt = given.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        bad(f"{under}prompt", "prompt is required")
    if takes_numbers and type(given.get("duration")) is int:
        given = {**given, "duration": str(given["duration"])}
    seconds = one_of(given, "duration", DURATIONS, "auto", under=under)
    ratio = one_of(given, "aspect_ratio", RATIOS, "auto", under=under)
    return Order(
        prompt=prompt,
        model=model,
        tier=tier,
        resolution=one_of(given, "resolution", resolutions, "720p", under=under),
        aspect_ratio=None if ratio == "auto" else ratio,
        seconds=None if seconds == "auto" else int(seconds),
        audio=typed(given, "generate_audio", bool, default=True, under=under),
        extra={"end_user_id": typed(given, "end_user_id", str, default=None, under=under)},
    )
