"""fal.ai's queue: the input is the whole body; everything else stands in the path, the query and the headers."""

import re
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import UNSET, Struct, UnsetType

from proxy.core.attempt import Accepted, CancelAnswer, Order, Progress, Result, Ticket
from proxy.core.errors import FailureKind, Garbled, OutcomeUnknown, Refusal, SellerError
from proxy.core.wire import Call, Reply
from proxy.providers.base import UNREADABLE, decode, default_refusal, json_body, retry_after_s

_KEY = re.compile("[^:]+:[^:]+")
_REQUEST_ERRORS: dict[str, FailureKind] = {
    "request_timeout": "capacity",
    "startup_timeout": "capacity",
    "runner_scheduling_failure": "capacity",
    "runner_connection_timeout": "capacity",
    "runner_connection_refused": "capacity",
    "runner_connection_error": "capacity",
    "runner_disconnected": "provider_error",
    "runner_incomplete_response": "provider_error",
    "runner_server_error": "provider_error",
    "internal_error": "provider_error",
    "client_disconnected": "provider_error",
    "client_cancelled": "cancelled",
    "bad_request": "invalid_input",
}
"""What fal's own machinery says of a request, in `X-Fal-Error-Type` or `error_type`."""

_MODEL_ERRORS: dict[str, FailureKind] = {
    "content_policy_violation": "moderation",
    "generation_timeout": "seller_timeout",
    "no_media_generated": "provider_error",
    "downstream_service_error": "provider_error",
    "downstream_service_unavailable": "provider_error",
    "internal_server_error": "provider_error",
}
"""What the model says in `detail[].type`; every other type there names a field that it will not take."""

_NEVER_CHARGED = frozenset(_REQUEST_ERRORS) - {"client_disconnected", "client_cancelled"}
"""Request errors other than those of status 499, which may end a render that was under way and is billed."""

_CANCEL_ANSWERS: dict[str, CancelAnswer] = {
    "CANCELLATION_REQUESTED": "requested",
    "ALREADY_COMPLETED": "too_late",
    "NOT_FOUND": "unknown",
}


class _Queued(Struct, frozen=True, kw_only=True):
    request_id: str


class _Status(Struct, frozen=True, kw_only=True):
    status: str
    error: Any = None
    error_type: str | None = None


class _File(Struct, frozen=True, kw_only=True):
    url: str | None = None


class _Film(Struct, frozen=True, kw_only=True):
    video: _File | UnsetType | None = UNSET
    seed: Any = UNSET


class _Detail(Struct, frozen=True, kw_only=True):
    type: str = ""
    msg: str = ""


class _Problem(Struct, frozen=True, kw_only=True):
    detail: list[_Detail] | str | None = None
    error_type: str | None = None


class Fal:
    """
    `queue.fal.run`; the model id is the path, so the tier is too.

    fal speaks of COMPLETED for good and bad ends alike, and tells only at the result which it was.
    """

    name = "fal"
    base_url = "https://queue.fal.run"

    def authorize(self, api_key: str) -> tuple[str, str]:
        return "Authorization", f"Key {api_key}"

    def odd_key(self, api_key: str) -> str | None:
        return None if _KEY.fullmatch(api_key) else "fal's keys are an id and a secret with a colon between them"

    def submit(self, order: Order) -> Call:
        # `X-Fal-No-Retry` is not sent. fal repeats a broken run under the same request id, and runs that
        # ended in a 5xx are never charged: its repeats cannot buy twice. Without them a full runner pool
        # would end a queued order, and the next purchase, at another seller, would be ours to pay.
        return Call(
            method="POST",
            path=f"/{quote(order.seller_model)}",
            query=(("fal_webhook", order.callback_url),) if order.callback_url is not None else (),
            body=json_body(_input(order)),
        )

    def accepted(self, reply: Reply) -> Accepted:
        try:
            queued = decode(reply, _Queued)
        except Garbled as exc:
            raise OutcomeUnknown(f"fal may have queued the order: {exc}") from exc
        if not queued.request_id:
            raise OutcomeUnknown("fal may have queued the order: the answer names no request")
        return Accepted(seller_id=queued.request_id)

    def poll(self, ticket: Ticket) -> Call:
        return Call(method="GET", path=f"{_request_path(ticket)}/status")

    def progress(self, reply: Reply) -> Progress:
        status = decode(reply, _Status)
        match status.status:
            case "IN_QUEUE":
                return Progress(state="queued")
            case "IN_PROGRESS":
                return Progress(state="running")
            case "COMPLETED":
                return _completed(reply, status)
            case other:
                raise Garbled(f"fal speaks of an unheard-of status {other!r}")

    def collect(self, ticket: Ticket) -> Call:
        return Call(method="GET", path=_request_path(ticket))

    def result(self, reply: Reply) -> Result:
        """The film; its cost is not stated, `x-fal-billable-units` counts units of no fixed price."""
        film = decode(reply, _Film)
        if film.video is UNSET and film.seed is UNSET:
            # Some speak of a result that is not ready in a 2xx; nothing here says that the render ended.
            raise Garbled("fal's answer is not the model's output")
        if not film.video or not film.video.url:
            raise Refusal("provider_error", "fal finished without a video")
        # A delivered film is not lost over an odd seed.
        return Result(url=film.video.url, seed=film.seed if type(film.seed) is int else None)

    def refusal(self, reply: Reply) -> SellerError:
        named = self.verdict(reply)
        unclear = reply.status == 408 or (reply.status >= 500 and reply.status != 503)
        if isinstance(named, Refusal) and unclear and not _PROOFS & reply.headers.keys():
            # What a model says of a render that ended is no proof that this submit did not start one.
            return OutcomeUnknown(f"status {reply.status}: {named}")
        return named

    def verdict(self, reply: Reply) -> SellerError:
        problem = _problem(reply)
        if isinstance(problem.detail, list) and problem.detail:
            return _model_refusal(reply, problem.detail)
        message = (isinstance(problem.detail, str) and problem.detail) or f"status {reply.status}"
        if "still in progress" in message.lower():
            # Asked too early. This must not look like the end of an order that is being made.
            return Garbled(f"fal is not ready: {message}")
        error_type = _own_error_type(reply, problem)
        kind = _REQUEST_ERRORS.get(error_type or "")
        if error_type is None or kind is None:
            return default_refusal(reply, message, seller_code=error_type)
        return _request_refusal(reply, kind, message, error_type)

    def cancel(self, ticket: Ticket) -> Call:
        return Call(method="PUT", path=f"{_request_path(ticket)}/cancel")

    def cancelled(self, reply: Reply) -> CancelAnswer:
        word = decode(reply, _Status).status
        if word not in _CANCEL_ANSWERS:
            raise Garbled(f"fal answers a cancel with an unheard-of {word!r}")
        return _CANCEL_ANSWERS[word]

    def announced(self, body: bytes) -> str | None:
        """The queue's id; `gateway_request_id` names one of fal's own tries and cannot be asked for."""
        try:
            return msgspec.json.decode(body, type=_Queued).request_id or None
        except UNREADABLE:
            return None


def _input(order: Order) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "prompt": order.prompt,
        "resolution": order.resolution,
        "duration": "auto" if order.seconds is None else str(order.seconds),
        "aspect_ratio": order.aspect_ratio,
        "generate_audio": order.generate_audio,
    }
    if order.seed is not None:
        fields["seed"] = order.seed
    if order.end_user is not None:
        fields["end_user_id"] = order.end_user
    return fields


def _request_path(ticket: Ticket) -> str:
    """
    Where an order is asked for: under the first two segments of the model id alone; the whole id gives a 405.

    It is computed, not taken from the reply's URLs, so that no answer can send the key elsewhere.
    """
    app = "/".join(ticket.seller_model.split("/")[:2])
    return f"/{quote(app)}/requests/{quote(ticket.seller_id, safe='')}"


def _completed(reply: Reply, status: _Status) -> Progress:
    """
    Finished, well or badly; a failure that names no known type is explained by the result alone.

    It is asked for there, lest a prompt that was refused look like a render that broke.
    """
    error_type = status.error_type or ""
    message = str(status.error or error_type)
    if kind := _REQUEST_ERRORS.get(error_type):
        raise _request_refusal(reply, kind, message, error_type)
    if kind := _MODEL_ERRORS.get(error_type):
        raise Refusal(kind, message, seller_code=error_type)
    return Progress(state="succeeded")


def _problem(reply: Reply) -> _Problem:
    try:
        return decode(reply, _Problem)
    except Garbled:
        return _Problem()


_PROOFS = frozenset({"x-fal-error-type", "x-fal-request-timeout-type"})
"""Headers that only fal itself sends, and only for a request that it did not take on."""


def _own_error_type(reply: Reply, problem: _Problem) -> str | None:
    """
    The word for a request error, if the answer is proven to be fal's own.

    A 5xx may come from an ingress; only the header proves it, and a body alone counts below 500.
    """
    proven = reply.headers.get("x-fal-error-type")
    if proven is None and "x-fal-request-timeout-type" in reply.headers:
        # The wait for a start ran out, so nothing was started.
        proven = "request_timeout"
    return proven or (problem.error_type if reply.status < 500 else None)


def _request_refusal(reply: Reply, kind: FailureKind, message: str, error_type: str) -> Refusal:
    return Refusal(
        kind,
        message,
        seller_code=error_type,
        retry_after_s=retry_after_s(reply),
        cost_microusd=0 if error_type in _NEVER_CHARGED else None,
    )


def _model_refusal(reply: Reply, details: list[_Detail]) -> SellerError:
    """
    The model's own list of what was wrong: it ran, and it ended.

    Among several entries the content check speaks first. A 5xx is never charged; a 422 may be.
    """
    known = sorted((d for d in details if d.type in _MODEL_ERRORS), key=lambda d: _MODEL_ERRORS[d.type] != "moderation")
    first = (known or details)[0]
    message = first.msg or f"status {reply.status}"
    if not known and reply.status != 422:
        return default_refusal(reply, message, seller_code=first.type or None)
    kind = _MODEL_ERRORS.get(first.type, "invalid_input")
    return Refusal(kind, message, seller_code=first.type or None, cost_microusd=0 if reply.status >= 500 else None)
