"""Runflow's runs: the model's fields lie under `input`, and one object tells of the run from birth to file."""

import re
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from proxy.core.attempt import Accepted, Order, Progress, Result, Ticket
from proxy.core.errors import FailureKind, Garbled, OutcomeUnknown, Refusal, SellerError
from proxy.core.money import stated_microusd
from proxy.core.wire import Call, Reply
from proxy.providers.base import UNREADABLE, decode, default_refusal, json_body

_CODES: dict[str, FailureKind] = {
    "INPUT_VALIDATION_FAILED": "invalid_input",
    "INSUFFICIENT_CREDIT": "account",
    "UNAUTHORIZED": "account",
    "PERMISSION_DENIED": "account",
    "RATE_LIMITED": "throttled",
    "MODEL_UNAVAILABLE": "capacity",
}
"""Codes that Runflow prints, in answers and in failed runs alike."""

_KEY = re.compile("[a-z0-9_]+")
"""What Runflow's own library takes for a key before it sends anything."""
_ADMIN = "rf_svc_"

_CONTENT_CHECK = re.compile(
    r"content[ _-]?(policy|moderation|check|violation)|policy[ _-]?violation|moderat|nsfw|flagged"
    r"|sensitive[ _-]?(content|information|material|word)",
    re.IGNORECASE,
)
"""
How a refused prompt or film is told from a broken render.

Assumed: Runflow documents no code for it. It is expected to repeat the words of those it buys from,
which speak of a content policy or of sensitive information.
"""

_ENDED_BADLY: dict[str, FailureKind] = {
    "failed": "provider_error",
    "errored": "provider_error",
    "canceled": "cancelled",
    "cancelled": "cancelled",
}
"""The run says canceled, its callback cancelled, an older page errored."""


class _Run(Struct, frozen=True, kw_only=True):
    id: str | None = None
    run_id: str | None = None
    status_code: str | None = None
    status: str | None = None
    client_ref: str | UnsetType | None = UNSET
    cost: Any = None
    output: Raw = Raw(b"null")
    failure_code: str | None = None
    failure_message: str | None = None


class _Artifact(Struct, frozen=True, kw_only=True):
    url: str | None = None
    type: str | None = None


class _Output(Struct, frozen=True, kw_only=True):
    outputs: list[_Artifact] | None = None
    video: _Artifact | None = None
    url: str | None = None
    output_url: str | None = None
    seed: Any = None
    nsfw_detected: Any = None


class _Page(Struct, frozen=True, kw_only=True):
    items: list[_Run] | None = None
    data: list[_Run] | None = None
    runs: list[_Run] | None = None


class _Error(Struct, frozen=True, kw_only=True):
    code: str | None = None
    message: str | None = None


class _Envelope(Struct, frozen=True, kw_only=True):
    code: str | None = None
    message: str | None = None
    error: _Error | str | None = None


class Runflow:
    """`api.runflow.io`, the newer runs; no public cancel, but a lost submit can be asked for by its tag."""

    name = "runflow"
    base_url = "https://api.runflow.io"

    def authorize(self, api_key: str) -> tuple[str, str]:
        return "Authorization", f"Bearer {api_key}"

    def odd_key(self, api_key: str) -> str | None:
        return odd_key(api_key)

    def submit(self, order: Order) -> Call:
        fields: dict[str, Any] = {"input": model_fields(order), "client_ref": order.client_ref}
        if order.callback_url is not None:
            fields["callback_url"] = order.callback_url
        return Call(method="POST", path=f"/v1/models/{quote(order.seller_model)}/runs", body=json_body(fields))

    def accepted(self, reply: Reply) -> Accepted:
        """A run that failed at once is still a run: its poll tells why, and what it cost."""
        try:
            return Accepted(seller_id=_run_id(decode(reply, _Run)))
        except Garbled as exc:
            raise OutcomeUnknown(f"Runflow may have started a run: {exc}") from exc

    def poll(self, ticket: Ticket) -> Call:
        # Links to files are signed and die; every reading of the run asks for fresh ones.
        return Call(
            method="GET", path=f"/v1/runs/{quote(ticket.seller_id, safe='')}", query=(("add_signature", "true"),)
        )

    def progress(self, reply: Reply) -> Progress:
        run = decode(reply, _Run)
        status = run.status_code or run.status
        match status:
            case "queued":
                return Progress(state="queued")
            case "dispatching" | "running":
                return Progress(state="running")
            case "succeeded" | "partial_succeeded":
                return Progress(state="succeeded", result=_film(run))
            case "failed" | "errored" | "canceled" | "cancelled":
                raise _failure(run, status, reply.body)
            case _:
                raise Garbled(f"Runflow speaks of an unheard-of status {status!r}")

    def collect(self, ticket: Ticket) -> Call:
        return self.poll(ticket)

    def result(self, reply: Reply) -> Result:
        result = self.progress(reply).result
        if result is None:
            raise Garbled("Runflow's run has not ended")
        return result

    def refusal(self, reply: Reply) -> SellerError:
        return refusal_of(reply)

    def find(self, client_ref: str) -> Call:
        return Call(method="GET", path="/v1/runs", query=(("q", f"client_ref.EQ:'{client_ref}'"),))

    def found(self, reply: Reply, client_ref: str) -> Accepted | None:
        """
        The run that carries `client_ref`, or None where no run was returned.

        Runs with another tag, with several or with none mean that the filter did not hold: Garbled.
        Somebody else's film must not be adopted, and ours, on another page perhaps, not be bought again.
        """
        runs = _listed(reply)
        if not runs:
            return None
        tags = {run.client_ref for run in runs}
        untold = UNSET in tags and len(runs) > 1
        foreign = tags - {client_ref, UNSET}
        if len(tags) > 1 or untold or foreign:
            raise Garbled("Runflow returned runs that were not asked for")
        return Accepted(seller_id=_run_id(runs[0]))

    def announced(self, body: bytes) -> str | None:
        try:
            return _run_id(msgspec.json.decode(body, type=_Run))
        except (*UNREADABLE, Garbled):
            return None


def odd_key(api_key: str) -> str | None:
    """For both of Runflow's interfaces, which share their keys."""
    if not _KEY.fullmatch(api_key):
        return "Runflow's keys are small letters, digits and underscores"
    return "this is a key of Runflow's administration, which renders nothing" if api_key.startswith(_ADMIN) else None


def model_fields(order: Order) -> dict[str, Any]:
    """What the model itself is told, by names that both of Runflow's interfaces share."""
    fields: dict[str, Any] = {
        "prompt": order.prompt,
        "aspect_ratio": order.aspect_ratio,
        "duration": "auto" if order.seconds is None else str(order.seconds),
        "resolution": order.resolution,
        "generate_audio": order.generate_audio,
    }
    if order.seed is not None:
        fields["seed"] = order.seed
    if order.end_user is not None:
        fields["end_user_id"] = order.end_user
    return fields


def refusal_of(reply: Reply) -> SellerError:
    """A reply that is not 2xx, by the codes that Runflow prints."""
    code, message = _words(reply.body)
    kind = _CODES.get(code or "")
    # Only where the fields are judged: an account that was flagged is no matter of the prompt.
    if reply.status in {400, 422} and _CONTENT_CHECK.search(f"{code} {message}"):
        kind = "moderation"
    return default_refusal(reply, message or f"status {reply.status}", kind=kind, seller_code=code)


def _run_id(run: _Run) -> str:
    """The run's id: `id` in the object, `run_id` in the callback and for some clients. Raises Garbled."""
    run_id = run.id or run.run_id
    if not run_id:
        raise Garbled("Runflow's answer names no run")
    return run_id


def _cost(run: _Run) -> int | None:
    """
    What Runflow says it took, in micro-dollars; None where it says nothing that can be read.

    An unreadable amount is unknown, not an error: a film that is delivered and paid for is not lost
    over its bill.
    """
    try:
        return stated_microusd(run.cost)
    except ValueError:
        return None


def _film(run: _Run) -> Result:
    try:
        output = msgspec.json.decode(run.output, type=_Output | None) or _Output()
    except UNREADABLE as exc:
        raise Garbled(f"unreadable output of a run that succeeded: {exc}") from exc
    url = _video_url(output)
    if url is not None:
        return Result(url=url, cost_microusd=_cost(run), seed=output.seed if type(output.seed) is int else None)
    if output.nsfw_detected is True:
        raise Refusal("moderation", "the film was withheld as unsafe", cost_microusd=_cost(run))
    raise Refusal("provider_error", "the run succeeded without a video", cost_microusd=_cost(run))


def _video_url(output: _Output) -> str | None:
    """The first video; then the places where Runflow's own client still looks, so that no paid film is missed."""
    urls = [artifact.url for artifact in output.outputs or () if artifact.type in {"video", None}]
    urls += [output.video.url if output.video else None, output.url, output.output_url]
    return next((url for url in urls if url), None)


def _failure(run: _Run, status: str, body: bytes) -> Refusal:
    """
    The end of a run without a file; failed runs are not billed, a cancelled one may be.

    The words of the content check go before any code: the sellers behind Runflow name it a failed
    validation too.
    """
    outer, inner = _words(body), _words(bytes(run.output))
    code = run.failure_code or outer[0] or inner[0]
    message = run.failure_message or outer[1] or inner[1]
    kind = _CODES.get(code or "", _ENDED_BADLY[status])
    if _ENDED_BADLY[status] != "cancelled" and _CONTENT_CHECK.search(f"{code} {message}"):
        kind = "moderation"
    unbilled = run.cost is None and _ENDED_BADLY[status] != "cancelled"
    return Refusal(kind, message or status, seller_code=code, cost_microusd=0 if unbilled else _cost(run))


def _words(body: bytes) -> tuple[str | None, str]:
    """Code and message of an error in any of its three shapes; nothing where there is none."""
    try:
        envelope = msgspec.json.decode(body, type=_Envelope)
    except UNREADABLE:
        return None, ""
    match envelope.error:
        case _Error(code=code, message=message):
            return code or envelope.code, message or envelope.message or ""
        case str(message):
            return envelope.code, message
        case _:
            return envelope.code, envelope.message or ""


def _listed(reply: Reply) -> list[_Run]:
    """Runs of a list; how it is wrapped is not documented, an answer without any list is Garbled."""
    if reply.body.lstrip().startswith(b"["):
        return decode(reply, list[_Run])
    page = decode(reply, _Page)
    for runs in (page.items, page.data, page.runs):
        if runs is not None:
            return runs
    raise Garbled("Runflow's answer lists no runs")
