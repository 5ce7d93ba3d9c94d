"""fal's wire: a queue that takes anything and tells what was wrong only in the result."""

import time
import uuid
from datetime import UTC, datetime
from typing import Any, NoReturn

import msgspec

from proxy.simulator.base import Courier, Letter, Refusal
from proxy.simulator.desk import Desk
from proxy.simulator.exchange import Answer, Asked, Refused, json_answer
from proxy.simulator.files import FileHost
from proxy.simulator.job import Job, Order, State
from proxy.simulator.ledger import Billing

APP = ("bytedance", "seedance-2.0")
ENDPOINTS = {
    "bytedance/seedance-2.0/text-to-video": "standard",
    "bytedance/seedance-2.0/fast/text-to-video": "fast",
}
FIELDS = {"prompt", "resolution", "duration", "aspect_ratio", "generate_audio", "seed", "end_user_id"}
RESOLUTIONS = ("480p", "720p")
RATIOS = ("auto", "21:9", "16:9", "4:3", "1:1", "3:4", "9:16")
DURATIONS = ("auto", *(str(seconds) for seconds in range(4, 16)))

QUEUE_STEP_S = 5.0
"""How long a place in the queue is taken to last."""

JWKS_X = "A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg"
WEBHOOK_USER = "user_sim"

_REFUSALS: dict[Refusal, tuple[int, str | None]] = {
    "unauthorized": (401, None),
    "no_credit": (403, None),
    "throttled": (429, None),
    "error_500": (500, "internal_error"),
    "error_503": (503, "runner_scheduling_failure"),
    "error_504": (504, "startup_timeout"),
    "unknown": (404, None),
}

Detail = list[dict[str, Any]]


class Fal:
    """The seller."""

    name = "fal"
    scheme = "Key"
    billing: Billing = "on_success"
    link_life_s = 7 * 86_400.0
    signs_links = False
    courier = Courier(
        waits_s=(10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1200.0, 1740.0, 2240.0),
        timeout_s=15.0,
        repeats_on_4xx=True,
        signature_header="X-Fal-Webhook-Signature",
    )

    def __init__(self, *, desk: Desk, files: FileHost) -> None:
        self._desk = desk
        self._files = files

    async def answer(self, asked: Asked) -> Answer:
        parts = asked.path.strip("/").split("/")
        if parts == [".well-known", "jwks.json"]:
            key = {"kty": "OKP", "crv": "Ed25519", "x": JWKS_X, "use": "sig", "alg": "EdDSA"}
            return json_answer(200, {"keys": [key]})
        if "requests" in parts[3:]:
            # Only the first two segments of the endpoint's id go before `requests`.
            return json_answer(405, {"detail": "Method Not Allowed"})
        match asked.method, parts:
            case "POST", _ if "/".join(parts) in ENDPOINTS:
                return await self._create(asked, "/".join(parts))
            case "GET", [owner, app, "requests", id_, "status"] if (owner, app) == APP:
                return self._status(asked, id_)
            case "GET", [owner, app, "requests", id_] if (owner, app) == APP:
                return self._result(asked, id_)
            case "PUT", [owner, app, "requests", id_, "cancel"] if (owner, app) == APP:
                return self._cancel(asked, id_)
            case _, [owner, app, "requests", _, *_] if (owner, app) == APP:
                return json_answer(405, {"detail": "Method Not Allowed"})
            case _:
                return json_answer(404, {"detail": f"Application '{'/'.join(parts)}' not found"})

    async def _create(self, asked: Asked, endpoint: str) -> Answer:
        fields = asked.fields() or {}
        return await self._desk.order(
            self, asked, prompt=fields.get("prompt"), read=lambda: self._read(asked, endpoint, fields)
        )

    def _read(self, asked: Asked, endpoint: str, fields: dict[str, Any]) -> Order:
        if asked.fields() is None:
            raise Refused(_flat(400, "bad_request", "The body must be a JSON object"))
        self._queue_has_room(asked)
        flaw = self._flaw(fields)
        known = {} if flaw else fields
        seconds, ratio = str(known.get("duration", "auto")), known.get("aspect_ratio", "auto")
        prompt = fields.get("prompt")
        return Order(
            prompt=prompt if isinstance(prompt, str) else "",
            model=endpoint,
            tier=ENDPOINTS[endpoint],
            resolution=known.get("resolution", "720p"),
            aspect_ratio=None if ratio == "auto" else ratio,
            seconds=None if seconds == "auto" else int(seconds),
            audio=known.get("generate_audio", True),
            seed=known.get("seed"),
            callback_url=asked.query.get("fal_webhook"),
            extra={"link_life_s": _link_life_s(asked)},
            flaw=flaw or None,
            start_within_s=_start_within_s(asked),
        )

    def _queue_has_room(self, asked: Asked) -> None:
        limit = asked.query.get("fal_max_queue_length")
        if limit is not None and limit.isdecimal():
            waiting = self._desk.jobs.waiting(self.name, self._desk.account(self, asked))
            if waiting > int(limit):
                raise Refused(self.refuse("throttled", "The queue is longer than fal_max_queue_length"))

    def _flaw(self, fields: dict[str, Any]) -> Detail:
        """All that is wrong with the input; the queue does not mind, the result will."""
        found: Detail = []
        prompt = fields.get("prompt")
        if prompt is None:
            found.append(_detail("prompt", "Field required", "missing"))
        elif not isinstance(prompt, str):
            found.append(_detail("prompt", "Input should be a valid string", "value_error", prompt))
        elif not prompt.strip():
            found.append(_detail("prompt", "Prompt must not be empty", "sequence_too_short", prompt))
        duration = fields.get("duration")
        if type(duration) is int and self._desk.switches.fal_takes_numbers:
            fields = {**fields, "duration": str(duration)}
        for name, allowed in (("resolution", RESOLUTIONS), ("duration", DURATIONS), ("aspect_ratio", RATIOS)):
            if name in fields and fields[name] not in allowed:
                found.append(_detail(name, f"Input should be one of {', '.join(allowed)}", "one_of", fields[name]))
        for name, shape in (("generate_audio", bool), ("seed", int), ("end_user_id", str)):
            if fields.get(name) is not None and type(fields[name]) is not shape:
                found.append(_detail(name, f"Input should be a valid {shape.__name__}", "value_error", fields[name]))
        found += [
            _detail(name, "Extra inputs are not permitted", "value_error", fields[name])
            for name in fields
            if name not in FIELDS
        ]
        return found

    def _status(self, asked: Asked, id_: str) -> Answer:
        job = self._desk.look(self, asked, id_)
        view = self._desk.jobs.view(job)
        body: dict[str, Any] = {"status": "COMPLETED", "request_id": job.id, **_links(job)}
        if view.state == "queued":
            ahead = max(0, self._desk.jobs.waiting(self.name, job.key) - 1) if view.wait_s == 0 else 0
            body |= {"status": "IN_QUEUE", "queue_position": int(view.wait_s / QUEUE_STEP_S) + ahead}
            return self._shown(job, 202, body)
        wants_logs = asked.query.get("logs", "").lower() in {"1", "true"}
        body["logs"] = _logs(job, share=view.share) if wants_logs else None
        if view.state in {"running", "unheard_of"}:
            body["status"] = "IN_PROGRESS" if view.state == "running" else "HIBERNATING"
            return self._shown(job, 202, body)
        body["metrics"] = {"inference_time": round(job.run_s, 2)} if view.state == "succeeded" else {}
        error = _request_error(job)
        if error is not None:
            body |= {"error": error[2], "error_type": error[1]}
        return self._shown(job, 200, body)

    def _result(self, asked: Asked, id_: str) -> Answer:
        job = self._desk.look(self, asked, id_)
        if not job.has_ended:
            return self._shown(job, 400, {"detail": "Request is still in progress"})
        error = _request_error(job)
        if error is not None:
            status, kind, text = error
            headers = {"X-Fal-Request-Timeout-Type": "user"} if kind == "request_timeout" else {}
            headers["X-Fal-Error-Type"] = kind
            return self._shown(job, status, {"detail": text, "error_type": kind}, headers)
        if job.state == "failed":
            return self._shown(job, 422, {"detail": _rejection(job)})
        headers = {} if "no_cost" in job.faults else {"x-fal-billable-units": _units(job)}
        return self._shown(job, 200, self._payload(job), headers)

    def _payload(self, job: Job) -> dict[str, Any]:
        link = self._files.link(job, life_s=self.link_life_s, signed=False)
        file = {
            "url": link,
            "content_type": "video/mp4",
            "file_name": "video.mp4",
            "file_size": self._files.size_bytes(job),
        }
        return {"video": {} if "no_url" in job.faults else file, "seed": job.seed}

    def _cancel(self, asked: Asked, id_: str) -> Answer:
        try:
            job = self._desk.look(self, asked, id_)
        except Refused as no:
            return json_answer(404, {"status": "NOT_FOUND"}) if no.answer.status == 404 else no.answer
        if self._desk.jobs.cancel(job, completes=self._desk.switches.fal_cancel_completes):
            return self._shown(job, 202, {"status": "CANCELLATION_REQUESTED"})
        return self._shown(job, 400, {"status": "ALREADY_COMPLETED"})

    @staticmethod
    def _shown(job: Job, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> Answer:
        return json_answer(status, body, {"x-fal-request-id": job.id, **(headers or {})})

    def refuse(self, why: Refusal, message: str) -> Answer:
        if why == "no_credit":
            message = "User is locked. Reason: Exhausted balance. Top up your balance to go on."
        if why == "invalid":
            return json_answer(422, {"detail": [_detail("prompt", message, "value_error")]})
        if why == "moderation":
            return json_answer(422, {"detail": [_policy(message)]})
        status, kind = _REFUSALS[why]
        if kind is None:
            return json_answer(status, {"detail": message})
        return _flat(status, kind, message)

    def new_id(self) -> str:
        return str(uuid.uuid4())

    def _created(self, job: Job) -> dict[str, Any]:
        body: dict[str, Any] = {"status": "IN_QUEUE", "request_id": job.id}
        if job.callback_url is not None:
            body["gateway_request_id"] = job.id
        return {**body, **_links(job), "queue_position": int(job.queue_s / QUEUE_STEP_S)}

    def receipt(self, job: Job) -> Answer:
        return self._shown(job, 200, self._created(job))

    def receipt_without_id(self, job: Job) -> Answer:
        # The links would give the id away.
        return json_answer(200, {"status": "IN_QUEUE", "queue_position": int(job.queue_s / QUEUE_STEP_S)})

    def letter(self, job: Job, *, id_: str, state: State, sent_at: float) -> Letter:
        """
        The webhook, without its signature.

        fal signs with Ed25519, which the standard library does not have.
        """
        body: dict[str, Any] = {"request_id": id_, "gateway_request_id": id_}
        if state == "succeeded":
            body |= {"status": "OK", "payload": self._payload(job)}
        else:
            status = 422
            payload: dict[str, Any] = {"detail": _rejection(job)}
            error = _request_error(job)
            if error is not None:
                status, payload = error[0], {"detail": error[2]}
            body |= {"status": "ERROR", "error": f"Invalid status code: {status}", "payload": payload}
        headers = {
            "X-Fal-Webhook-Request-Id": id_,
            "X-Fal-Webhook-User-Id": WEBHOOK_USER,
            "X-Fal-Webhook-Timestamp": str(int(sent_at)),
        }
        return Letter(headers=headers, body=msgspec.json.encode(body))


def _links(job: Job) -> dict[str, str]:
    url = f"{job.origin}/fal/{'/'.join(APP)}/requests/{job.id}"
    return {"response_url": url, "status_url": f"{url}/status", "cancel_url": f"{url}/cancel"}


def _logs(job: Job, *, share: float) -> list[dict[str, str]]:
    frames = 24 * job.seconds
    stamp = datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    message = f"frame {int(frames * share)}/{frames}"
    return [{"message": message, "level": "INFO", "source": "USER", "timestamp": stamp}]


def _flat(status: int, kind: str, text: str) -> Answer:
    return json_answer(status, {"detail": text, "error_type": kind}, {"X-Fal-Error-Type": kind})


def _detail(field: str, message: str, kind: str, given: Any = None) -> dict[str, Any]:
    detail = {
        "loc": ["body", field],
        "msg": message,
        "type": kind,
        "url": f"https://docs.fal.ai/errors#{kind}",
        "ctx": {},
        "input": given,
    }
    return {name: value for name, value in detail.items() if value is not None}


def _policy(message: str) -> dict[str, Any]:
    return {
        **_detail("prompt", message, "content_policy_violation"),
        "ctx": {"extra_info": {"reason": "partner_validation_failed"}},
    }


def _rejection(job: Job) -> Detail:
    """What the model has against a job."""
    return job.flaw or [_policy("The content could not be processed: it was flagged by a content checker.")]


def _request_error(job: Job) -> tuple[int, str, str] | None:
    """Status, type and text of an end that the model had no part in."""
    if job.state == "cancelled":
        return 499, "client_cancelled", "Request was cancelled by the client"
    if job.state == "failed" and job.fate == "render_failed":
        return 503, "runner_disconnected", "Runner disconnected"
    if job.state == "failed" and job.fate == "start_timeout":
        return 504, "request_timeout", "Request was not started in time"
    return None


def _units(job: Job) -> str:
    """Seconds billed."""
    return str(job.seconds * (2 if "dear" in job.faults else 1))


def _start_within_s(asked: Asked) -> float | None:
    text = asked.headers.get("x-fal-request-timeout")
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if seconds <= 1:
        _bad_header("X-Fal-Request-Timeout must be a number above 1")
    return seconds


def _link_life_s(asked: Asked) -> float:
    text = asked.headers.get("x-fal-object-lifecycle-preference")
    if text is None:
        return Fal.link_life_s
    try:
        wish = msgspec.json.decode(text)["expiration_duration_seconds"]
        return float(wish)
    except (msgspec.DecodeError, KeyError, TypeError, ValueError):
        _bad_header("X-Fal-Object-Lifecycle-Preference is not readable")


def _bad_header(message: str) -> NoReturn:
    raise Refused(_flat(400, "bad_request", message))
