"""Runflow's wire: runs under a model's path, a search by own tag, signed links, callbacks signed on wish."""

import hashlib
import hmac
import re
import secrets
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from proxy.simulator.base import Courier, Letter, Refusal
from proxy.simulator.desk import Desk
from proxy.simulator.exchange import Answer, Asked, Refused, json_answer
from proxy.simulator.files import FileHost
from proxy.simulator.job import Job, Order, State
from proxy.simulator.ledger import Billing
from proxy.simulator.prices import dollars
from proxy.simulator.runflow_fields import FAILURES, FIELDS, bad, error, read_fields, refusal, typed

MODELS = {
    "bytedance/seedance/2.0/text-to-video": "standard",
    "bytedance/seedance/2.0/fast/text-to-video": "fast",
}
STATUSES = ("queued", "dispatching", "running", "succeeded", "partial_succeeded", "failed", "canceled")
SIBLINGS = {"input", "callback_url", "metadata", "client_ref"}
RESOLUTIONS = {"standard": ("480p", "720p", "1080p"), "fast": ("480p", "720p")}
UNDER = "input."
"""Where the model's fields stand in the body."""
ADMIN_KEY = "rf_svc_"
DISPATCHING_SHARE = 0.1
"""What of a run goes by before it says that it runs."""

_EVENTS: dict[str, tuple[str, str]] = {
    "succeeded": ("run.completed", "succeeded"),
    "failed": ("run.failed", "failed"),
    "cancelled": ("run.cancelled", "cancelled"),
}

_BY_REF = re.compile(r"client_ref\.EQ:'([^']*)'")


class Secret(msgspec.Struct, kw_only=True):
    """A secret that signs callbacks."""

    id: str
    key: str
    label: str | None
    plain: str
    created_at: float


class Runflow:
    """The seller."""

    name = "runflow"
    scheme = "Bearer"
    billing: Billing = "on_success"
    link_life_s = 3_600.0
    signs_links = True
    courier = Courier(waits_s=(1.0, 2.0), timeout_s=10.0, repeats_on_4xx=False, signature_header="runflow-signature")

    def __init__(self, *, desk: Desk, files: FileHost) -> None:
        self._desk = desk
        self._files = files
        self.secrets: list[Secret] = []
        """Oldest first; the newest of a key signs."""
        self.on_secret: Callable[[], None] = lambda: None

    async def answer(self, asked: Asked) -> Answer:
        match asked.method, asked.path.strip("/").split("/"):
            case "POST", ["v1", "models", *model, "runs"]:
                return await self._create(asked, "/".join(model))
            case "GET", ["v1", "runs"]:
                return self._search(asked)
            case "GET", ["v1", "runs", "statuses"]:
                self._desk.account(self, asked)
                return json_answer(200, list(STATUSES))
            case "GET", ["v1", "runs", id_]:
                job = self._desk.look(self, asked, id_)
                return json_answer(200, self._run(job))
            case "GET", ["v1", "runs", id_, "callback"]:
                return self._callback_history(self._desk.look(self, asked, id_))
            case "POST", ["v1", "runs", id_, "callback-redeliveries"]:
                return self._redeliver(self._desk.look(self, asked, id_))
            case "POST", ["v1", "admin", "runs", id_, "cancellation"]:
                return self._cancel(asked, id_)
            case _:
                return self._aside(asked)

    def _aside(self, asked: Asked) -> Answer:
        """The routes that are about no run."""
        match asked.method, asked.path.strip("/").split("/"):
            case "POST", ["v1", "callback-secrets"]:
                return self._new_secret(asked)
            case "GET", ["v1", "callback-secrets"]:
                key = self._desk.account(self, asked)
                mine = [secret for secret in self.secrets if secret.key == key]
                return json_answer(200, {"items": [self._secret(secret) for secret in mine]})
            case "GET", ["v1", "billing", "balance"]:
                self._desk.account(self, asked)
                return json_answer(200, {"balance_cents": 100_000, "currency": "USD"})
            case "GET", ["v1", "health"] | ["v1", "readiness"]:
                return json_answer(200, {"status": "ok"})
            case _:
                return error(404, "NOT_FOUND", f"No route {asked.method} {asked.path}")

    async def _create(self, asked: Asked, model: str) -> Answer:
        fields = asked.fields() or {}
        given = fields.get("input")
        prompt = given.get("prompt") if isinstance(given, dict) else None
        return await self._desk.order(self, asked, prompt=prompt, read=lambda: self._read(asked, model, fields))

    def _read(self, asked: Asked, model: str, fields: dict[str, Any]) -> Order:
        if model not in MODELS:
            raise Refused(self.refuse("unknown", f"Model {model} not found"))
        if asked.fields() is None:
            raise Refused(error(400, "MALFORMED_BODY", "The body must be a JSON object"))
        self._siblings(fields)
        given = fields.get("input")
        if not isinstance(given, dict):
            bad("input", "input is required and must be an object")
        for name in given:
            if name not in FIELDS:
                bad(f"{UNDER}{name}", "unknown field")
        tier = MODELS[model]
        order = read_fields(
            given,
            under=UNDER,
            model=model,
            tier=tier,
            resolutions=RESOLUTIONS[tier],
            takes_numbers=self._desk.switches.runflow_takes_numbers,
        )
        return msgspec.structs.replace(
            order,
            seed=typed(given, "seed", int, default=None, under=UNDER),
            client_ref=fields.get("client_ref"),
            callback_url=fields.get("callback_url"),
            extra={
                **order.extra,
                "input": given,
                "metadata": fields.get("metadata"),
                "request_id": str(uuid.uuid4()),
            },
        )

    def _siblings(self, fields: dict[str, Any]) -> None:
        for name in fields:
            if name not in SIBLINGS:
                bad(name, "unknown field; model fields belong under input")
        for name, shape in (("callback_url", str), ("metadata", dict), ("client_ref", str)):
            if fields.get(name) is not None and not isinstance(fields[name], shape):
                bad(name, "wrong type")

    def _search(self, asked: Asked) -> Answer:
        key = self._desk.account(self, asked)
        found = _BY_REF.fullmatch(asked.query.get("q", ""))
        if found is None:
            bad("q", "only client_ref.EQ:'...' is known here")
        self._desk.jobs.run_due()
        jobs = self._desk.jobs.by_ref(self.name, key, found.group(1))
        runs = [self._run(job) for job in jobs if "lost" not in job.faults]
        return json_answer(200, {"items": runs, "total": len(runs), "page": 1, "page_size": 50})

    def _cancel(self, asked: Asked, id_: str) -> Answer:
        self._desk.account(self, asked)
        if not asked.headers["authorization"].partition(" ")[2].startswith(ADMIN_KEY):
            return error(403, "PERMISSION_DENIED", "Only admin keys may cancel a run")
        job = self._desk.jobs.find(self.name, id_)
        if job is None:
            return self.refuse("unknown", f"Run {id_} not found")
        changed = self._desk.jobs.cancel(job, completes=False)
        return json_answer(201 if changed else 200, self._run(job))

    def _callback_history(self, job: Job) -> Answer:
        return json_answer(
            200,
            {
                "run_id": job.id,
                "url": job.callback_url,
                "is_automatic": True,
                "attempt_count": len(job.callback_log),
                "max_attempts": 1 + len(self.courier.waits_s),
                "next_attempt_at": None,
                "failure_reason_code": None,
                "attempts": [{"at": _stamp(one["at"]), "status_code": one["status"]} for one in job.callback_log],
            },
        )

    def _redeliver(self, job: Job) -> Answer:
        if not job.has_ended or job.callback_url is None:
            return error(409, "CONFLICT", "The run has not ended or has no callback")
        self._desk.callbacks.redeliver(job)
        return json_answer(201, {"run_id": job.id, "is_automatic": False})

    def _new_secret(self, asked: Asked) -> Answer:
        key = self._desk.account(self, asked)
        label = (asked.fields() or {}).get("label")
        if label is not None and (not isinstance(label, str) or len(label) > 255):
            bad("label", "at most 255 characters")
        secret = Secret(
            id=_uuid7(), key=key, label=label, plain=f"whsec_{secrets.token_urlsafe(24)}", created_at=time.time()
        )
        self.secrets.append(secret)
        self.on_secret()
        return json_answer(201, {**self._secret(secret), "plain_secret": secret.plain})

    def _secret(self, secret: Secret) -> dict[str, Any]:
        return {
            "id": secret.id,
            "org_id": "org_sandbox",
            "key_prefix": secret.plain[:12],
            "is_current": secret is self._signing(secret.key),
            "label": secret.label,
            "disabled_at": None,
            "last_used_at": None,
            "created_at": _stamp(secret.created_at),
            "updated_at": _stamp(secret.created_at),
        }

    def _signing(self, key: str) -> Secret | None:
        return next((secret for secret in reversed(self.secrets) if secret.key == key), None)

    def refuse(self, why: Refusal, message: str) -> Answer:
        return refusal(why, message)

    def new_id(self) -> str:
        return _uuid7()

    def receipt(self, job: Job) -> Answer:
        return json_answer(201, self._run(job))

    def receipt_without_id(self, job: Job) -> Answer:
        return json_answer(201, {name: value for name, value in self._run(job).items() if name != "id"})

    def _status(self, job: Job) -> str:
        view = self._desk.jobs.view(job)
        if view.state == "running" and view.share < DISPATCHING_SHARE:
            return "dispatching"
        return {"cancelled": "canceled", "unheard_of": "hibernating"}.get(view.state, view.state)

    def _run(self, job: Job) -> dict[str, Any]:
        """The whole object: nulls rather than missing keys."""
        code, message = FAILURES[job.fate] if job.state == "failed" else (None, None)
        return {
            "id": job.id,
            "flow_id": None,
            "model_id": job.model,
            "comfyui_workflow_id": None,
            "target_type": "model",
            "target_version": None,
            "org_id": "org_sandbox",
            "status_code": self._status(job),
            "source_code": "api",
            "input": job.extra["input"],
            "output": self._output(job) if job.state == "succeeded" else None,
            "context": None,
            "duration_ms": _duration_ms(job),
            "cost": _cost(job),
            "cost_breakdown": None,
            "nodes_total": None,
            "nodes_completed": None,
            "resolved_template_id": None,
            "batch_id": None,
            "client_ref": job.client_ref,
            "jurisdiction_code": None,
            "flow_version_id": None,
            "request_id": job.extra["request_id"],
            "created_by": None,
            "created_at": _stamp(job.created_at),
            "started_at": _stamp(job.started_at),
            "completed_at": _stamp(job.ended_at),
            "callback_url": job.callback_url,
            "metadata": job.extra["metadata"],
            "has_logs": False,
            "has_node_runs": False,
            "links": None,
            "failure_code": code,
            "failure_message": message,
            "failure_stage_code": "inference" if code else None,
            "node_runs": None,
            "logs": None,
        }

    def _output(self, job: Job) -> dict[str, Any]:
        shape = job.shape
        clip = {
            "url": self._files.link(job, life_s=self.link_life_s, signed=True),
            "type": "video",
            "width": shape.width_px,
            "height": shape.height_px,
            "duration": round(shape.seconds, 2),
        }
        return {
            "outputs": [] if "no_url" in job.faults else [clip],
            "seed": job.seed,
            "nsfw_detected": None,
            "timing": {"inference_ms": round(job.run_s * 1000)},
        }

    def letter(self, job: Job, *, id_: str, state: State, sent_at: float) -> Letter:
        event, status = _EVENTS[state]
        old = "cb_old" in job.faults
        body = msgspec.json.encode(
            {
                "event": event,
                "run_id": id_,
                "status": status,
                "output": self._output(job) if state == "succeeded" else None,
                "duration_ms": _duration_ms(job),
                "created_at": _stamp(sent_at if old else job.created_at),
                "completed_at": _stamp(sent_at if old else job.ended_at),
                "metadata": job.extra["metadata"],
            }
        )
        headers = {"Runflow-Request-Id": job.extra["request_id"]}
        secret = self._signing(job.key)
        if secret is not None:
            headers["Runflow-Signature"] = hmac.new(secret.plain.encode(), body, hashlib.sha256).hexdigest()
        return Letter(headers=headers, body=body)


def _cost(job: Job) -> str | None:
    """What was charged; unknown before the end."""
    if not job.has_ended or "no_cost" in job.faults:
        return None
    return dollars(job.charged_microusd) if job.state == "succeeded" else "0"


def _duration_ms(job: Job) -> int | None:
    if job.ended_v is None:
        return None
    return round((job.ended_v - job.accepted_v) * 1000)


def _stamp(at: float | None) -> str | None:
    """ISO 8601 with `+00:00`, never `Z`."""
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds")


def _uuid7() -> str:
    milliseconds = int(time.time() * 1000)
    bits = milliseconds << 80 | 0x7 << 76 | secrets.randbits(12) << 64 | 0b10 << 62 | secrets.randbits(62)
    return str(uuid.UUID(int=bits))
