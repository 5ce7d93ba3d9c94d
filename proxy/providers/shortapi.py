"""
ShortAPI: one route to create a job, one to query it, and HTTP 200 for almost everything.

Seen in its own page: both routes, the fields, `code` 0, `amount` as text, status 2. Seen in clients
alone: the other status numbers, `error`, `refunded`, code 1 (general) and 3000 (upstream unstable).
Guessed: every other word for a refusal. Its error codes are not published, so the text of a refusal
decides between throttled, moderation and account, and what fits none of them is invalid_input. That
nothing was bought is certain in each case; only the word may be off.
"""

import re
from decimal import Decimal
from typing import Any

import msgspec

from proxy.core.attempt import Accepted, Order, Progress, Result, Ticket
from proxy.core.errors import FailureKind, Garbled, OutcomeUnknown, Refusal, SellerError
from proxy.core.money import stated_microusd
from proxy.core.wire import Call, Reply
from proxy.providers.base import UNREADABLE, decode, default_refusal, json_body, retry_after_s

_MODES = {"standard": "std", "fast": "fast"}

# Code 1 says nothing. Those of three figures are HTTP's: sellers of this kind put them into the body.
_CODES: dict[str, FailureKind] = {
    "401": "account",
    "402": "account",
    "403": "account",
    "429": "throttled",
    "3000": "capacity",
}

# In this order: "API key exceeded its rate limit" speaks of the rate, not of the key.
_WORDS: dict[FailureKind, str] = {
    "throttled": r"rate.?limit|too (many|frequent)|concurren",
    "moderation": r"polic(y|ies)|moderat|sensitive (content|word)|prohibited|nsfw|inappropriate|safety|copyright",
    "account": r"api.?key|authori[sz]|authenticat|permission|forbidden|balance|\bcredits?\b|quota|payment|funds",
}


class _Envelope(msgspec.Struct, frozen=True, kw_only=True):
    code: int | str | None = None
    info: Any = None
    message: Any = None
    error: Any = None

    @property
    def fine(self) -> bool:
        return str(self.code) == "0"

    @property
    def text(self) -> str:
        return _text(self.info, self.message, self.error)

    @property
    def kind(self) -> FailureKind | None:
        """What code and text name; None where they name nothing."""
        return _CODES.get(str(self.code)) or _kind_of(self.text)

    @property
    def seller_code(self) -> str | None:
        return None if self.code is None else str(self.code)


class _Ids(msgspec.Struct, frozen=True, kw_only=True):
    """Under `data` in the seller's schema, on top in its sample programs."""

    job_id: int | str | None = None
    id: int | str | None = None
    data: "_Ids | None" = None


class _Price(msgspec.Struct, frozen=True, kw_only=True):
    amount: Decimal | None = None
    """USD as text or number; the unit is assumed."""


class _Priced(msgspec.Struct, frozen=True, kw_only=True):
    data: _Price = _Price()


class _Job(msgspec.Struct, frozen=True, kw_only=True):
    status: int | str
    error: Any = None
    refunded: Any = None

    @property
    def cost_microusd(self) -> int | None:
        """What a job without a file took: nothing if it says so, else unknown."""
        return 0 if self.refunded is True else None


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    data: _Job


class _Clip(msgspec.Struct, frozen=True, kw_only=True):
    url: str = ""


class _Clips(msgspec.Struct, frozen=True, kw_only=True):
    videos: tuple[_Clip, ...] | None = None


class _Done(msgspec.Struct, frozen=True, kw_only=True):
    result: _Clips | None = None


class _DoneAnswer(msgspec.Struct, frozen=True, kw_only=True):
    data: _Done


class ShortAPI:
    """Resolution, audio, seed and filter cannot be chosen; length and ratio must be."""

    name = "shortapi"
    base_url = "https://api.shortapi.ai"

    def authorize(self, api_key: str) -> tuple[str, str]:
        return "Authorization", f"Bearer {api_key}"

    def submit(self, order: Order) -> Call:
        fields: dict[str, Any] = {
            "model": order.seller_model,
            "args": {
                "mode": _MODES[order.tier],
                "prompt": order.prompt,
                "duration": order.seconds,
                "aspect_ratio": order.aspect_ratio,
            },
        }
        if order.callback_url is not None:
            fields["callback_url"] = order.callback_url
        return Call(method="POST", path="/api/v1/job/create", body=json_body(fields))

    def accepted(self, reply: Reply) -> Accepted:
        """Any `code` but 0 is a definite no, unless an id beside it contradicts."""
        try:
            envelope = decode(reply, _Envelope)
        except Garbled as exc:
            raise OutcomeUnknown(str(exc)) from exc
        ids = _ids(reply.body)
        seller_id = (ids.data or ids).job_id or ids.job_id
        if envelope.fine or envelope.code is None:
            if not seller_id:
                raise OutcomeUnknown("an answer without a job id")
            return Accepted(seller_id=str(seller_id), cost_microusd=_amount_microusd(reply))
        if seller_id:
            raise OutcomeUnknown(f"a job id beside code {envelope.code}: {envelope.text}")
        raise Refusal(
            envelope.kind or "invalid_input",
            envelope.text,
            seller_code=envelope.seller_code,
            retry_after_s=retry_after_s(reply),
            cost_microusd=0,
        )

    def poll(self, ticket: Ticket) -> Call:
        return Call(method="GET", path="/api/v1/job/query", query=(("id", ticket.seller_id),))

    def progress(self, reply: Reply) -> Progress:
        envelope = decode(reply, _Envelope)
        if not envelope.fine:
            raise _query_trouble(envelope)
        job = decode(reply, _Answer).data
        match str(job.status):
            case "0":
                return Progress(state="queued")
            case "1":
                return Progress(state="running")
            case "2":
                return Progress(state="succeeded", percent=100, result=_file(reply, job))
            case "3" | "4":
                # Nobody knows how 3 and 4 differ; both are ends without a file.
                text = _text(job.error, envelope.info, envelope.message)
                blocked = _kind_of(text) == "moderation"
                raise Refusal(
                    "moderation" if blocked else "provider_error",
                    text,
                    seller_code=str(job.status),
                    cost_microusd=job.cost_microusd,
                )
            case unheard_of:
                raise Garbled(f"status {unheard_of!r} was never heard of")

    def collect(self, ticket: Ticket) -> Call:
        return self.poll(ticket)

    def result(self, reply: Reply) -> Result:
        progress = self.progress(reply)
        if progress.result is None:
            raise Garbled(f"asked for the file of a job that is {progress.state}")
        return progress.result

    def refusal(self, reply: Reply) -> SellerError:
        try:
            envelope = decode(reply, _Envelope)
        except Garbled as exc:
            return default_refusal(reply, str(exc))
        # Where HTTP names the class itself, the guessed words add nothing.
        kind = None if reply.status in {401, 402, 429, 503} else envelope.kind
        return default_refusal(reply, envelope.text, kind=kind, seller_code=envelope.seller_code)

    def announced(self, body: bytes) -> str | None:
        """The body is assumed to be what a query would answer; the seller prints none."""
        ids = _ids(body)
        inner = ids.data or ids
        seller_id = inner.job_id or inner.id or ids.job_id or ids.id
        return str(seller_id) if seller_id else None


def _ids(body: bytes) -> _Ids:
    """Empty where the body has another shape: then there is no id in it either."""
    try:
        return msgspec.json.decode(body, type=_Ids)
    except UNREADABLE:
        return _Ids()


def _amount_microusd(reply: Reply) -> int | None:
    """None also for a broken figure: it must not lose a job that was accepted."""
    try:
        return stated_microusd(decode(reply, _Priced).data.amount)
    except (Garbled, ValueError):
        return None


def _query_trouble(envelope: _Envelope) -> Garbled:
    """A refused query says nothing of the job, whatever its reason: it is asked again."""
    return Garbled(f"the query was answered with code {envelope.code}: {envelope.text}")


def _file(reply: Reply, job: _Job) -> Result:
    clips = decode(reply, _DoneAnswer).data.result or _Clips()
    urls = [clip.url for clip in clips.videos or () if clip.url]
    if not urls:
        raise Refusal("provider_error", "done, but without a file", seller_code="2", cost_microusd=job.cost_microusd)
    return Result(url=urls[0])


def _kind_of(text: str) -> FailureKind | None:
    return next((kind for kind, words in _WORDS.items() if re.search(words, text, re.IGNORECASE)), None)


def _text(*values: Any) -> str:
    """The first that says something; what is no text is shown as JSON."""
    said = next((value for value in values if value), "no reason given")
    return said if isinstance(said, str) else msgspec.json.encode(said).decode()
