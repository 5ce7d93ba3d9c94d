"""
EvoLink: a task per video, tier and mode both in the model's name.

Its documentation is good. Not in it: a way to cancel, whether `cancelled` is a status or only a
reason for a callback, and what a cancelled task costs. Credits are no dollars, so no cost is read;
that a failed task is free is documented.
"""

from typing import Any
from urllib.parse import quote

import msgspec

from proxy.core.attempt import Accepted, Order, Progress, Result, Ticket
from proxy.core.errors import FailureKind, Garbled, OutcomeUnknown, Refusal, SellerError
from proxy.core.wire import Call, Reply
from proxy.providers.base import UNREADABLE, decode, default_refusal, json_body

# What `error.code` of a failed task means; a word not in here is a failure all the same.
_TASK_KINDS: dict[str, FailureKind] = {
    "content_policy_violation": "moderation",
    "invalid_parameters": "invalid_input",
    "image_processing_error": "invalid_input",
    "image_dimension_mismatch": "invalid_input",
    "request_cancelled": "cancelled",
    "generation_failed_no_content": "provider_error",
    "service_error": "provider_error",
    "generation_timeout": "seller_timeout",
    "resource_exhausted": "capacity",
    "service_unavailable": "capacity",
    "quota_exceeded": "account",
    "resource_not_found": "provider_error",
    "unknown_error": "provider_error",
}

# What `error.type` of an HTTP error means. Those of 500 and 502 have no word: they may have bought.
_HTTP_KINDS: dict[str, FailureKind] = {
    "invalid_request_error": "invalid_input",
    "authentication_error": "account",
    "insufficient_quota_error": "account",
    "permission_error": "account",
    "not_found_error": "invalid_input",
    "request_too_large_error": "invalid_input",
    "rate_limit_error": "throttled",
    "service_unavailable_error": "capacity",
}

_NOTHING = msgspec.Raw(b"null")


class _Created(msgspec.Struct, frozen=True, kw_only=True):
    id: str = ""


class _Fault(msgspec.Struct, frozen=True, kw_only=True):
    code: int | str | None = None
    """A word, the number of the HTTP status, or that number as text."""
    message: str | None = None
    type: str | None = None

    @property
    def word(self) -> str | None:
        """The seller's own, rather than a number that HTTP says already."""
        named = self.code if isinstance(self.code, str) and not self.code.isdigit() else None
        return named or self.type or (None if self.code is None else str(self.code))

    @property
    def text(self) -> str:
        return self.message or self.word or "no reason given"


class _Failure(msgspec.Struct, frozen=True, kw_only=True):
    error: msgspec.Raw = _NOTHING


class _Task(msgspec.Struct, frozen=True, kw_only=True):
    status: str
    progress: Any = None
    results: tuple[str, ...] | None = None
    error: msgspec.Raw = _NOTHING

    @property
    def percent(self) -> int | None:
        known = isinstance(self.progress, int | float) and 0 <= self.progress <= 100
        return int(self.progress) if known else None


class _Output(msgspec.Struct, frozen=True, kw_only=True):
    video_url: str | None = None


class _Outputs(msgspec.Struct, frozen=True, kw_only=True):
    """Named by one text of the seller alone; read only where `results` is empty."""

    output: _Output | None = None


class EvoLink:
    """Length is always chosen by us; there is no seed."""

    name = "evolink"
    base_url = "https://api.evolink.ai"

    def authorize(self, api_key: str) -> tuple[str, str]:
        return "Authorization", f"Bearer {api_key}"

    def submit(self, order: Order) -> Call:
        fields: dict[str, Any] = {
            "model": order.seller_model,
            "prompt": order.prompt,
            "duration": order.seconds,
            "quality": order.resolution,
            "aspect_ratio": "adaptive" if order.aspect_ratio == "auto" else order.aspect_ratio,
            "generate_audio": order.generate_audio,
            "content_filter": order.content_filter,
        }
        if order.web_search:
            fields["model_params"] = {"web_search": True}
        if order.callback_url is not None:
            fields["callback_url"] = order.callback_url
        return Call(method="POST", path="/v1/videos/generations", body=json_body(fields))

    def accepted(self, reply: Reply) -> Accepted:
        try:
            created = decode(reply, _Created)
        except Garbled as exc:
            raise OutcomeUnknown(str(exc)) from exc
        if not created.id:
            raise OutcomeUnknown("an answer without a task id")
        return Accepted(seller_id=created.id)

    def poll(self, ticket: Ticket) -> Call:
        return Call(method="GET", path=f"/v1/tasks/{quote(ticket.seller_id, safe='')}")

    def progress(self, reply: Reply) -> Progress:
        task = decode(reply, _Task)
        match task.status:
            case "pending":
                return Progress(state="queued", percent=task.percent)
            case "processing":
                return Progress(state="running", percent=task.percent)
            case "completed":
                return Progress(state="succeeded", percent=task.percent, result=_file(reply, task))
            case "failed":
                fault = _fault(task.error)
                raise Refusal(
                    _TASK_KINDS.get(str(fault.code), "provider_error"),
                    fault.text,
                    seller_code=fault.word,
                    cost_microusd=0,
                )
            case "cancelled":
                fault = _fault(task.error)
                raise Refusal("cancelled", fault.text, seller_code=fault.word)
            case unheard_of:
                raise Garbled(f"status {unheard_of!r} was never heard of")

    def collect(self, ticket: Ticket) -> Call:
        return self.poll(ticket)

    def result(self, reply: Reply) -> Result:
        progress = self.progress(reply)
        if progress.result is None:
            raise Garbled(f"asked for the file of a task that is {progress.state}")
        return progress.result

    def refusal(self, reply: Reply) -> SellerError:
        try:
            fault = _fault(decode(reply, _Failure).error)
        except Garbled as exc:
            return default_refusal(reply, str(exc))
        blocked = "content_policy_violation" in {fault.code, fault.type}
        kind = "moderation" if blocked else _HTTP_KINDS.get(str(fault.type))
        return default_refusal(reply, fault.text, kind=kind, seller_code=fault.word)

    def announced(self, body: bytes) -> str | None:
        """The body is the task as a query would show it."""
        try:
            return msgspec.json.decode(body, type=_Created).id or None
        except UNREADABLE:
            return None


def _file(reply: Reply, task: _Task) -> Result:
    url = next((url for url in task.results or () if url), None)
    if url is None:
        output = decode(reply, _Outputs).output or _Output()
        url = output.video_url
    if not url:
        raise Refusal("provider_error", "completed, but without a file", seller_code=task.status)
    return Result(url=url)


def _fault(raw: msgspec.Raw) -> _Fault:
    """Never fails: that something went wrong is known already, only the word for it may be unreadable."""
    try:
        return msgspec.json.decode(raw, type=_Fault | None) or _Fault()
    except UNREADABLE:
        return _Fault(message=f"an error that cannot be read: {bytes(raw)[:200].decode(errors='replace')}")
