"""EvoLink's wire: a task with the tier in the model's name, credits, unsigned callbacks after the billing."""

import ipaddress
import time
import uuid
from typing import Any, NoReturn
from urllib.parse import urlsplit

import msgspec

from proxy.simulator.base import Courier, Letter, Refusal
from proxy.simulator.desk import Desk
from proxy.simulator.exchange import Answer, Asked, Refused, json_answer
from proxy.simulator.files import FileHost
from proxy.simulator.job import Job, Order, State
from proxy.simulator.ledger import Billing
from proxy.simulator.prices import price_millicredits

TEXT_MODELS = {
    "seedance-2.0-text-to-video": "standard",
    "seedance-2.0-fast-text-to-video": "fast",
    "seedance-2.0-mini-text-to-video": "mini",
}
OTHER_MODELS = {
    f"seedance-2.0-{tier}{mode}-to-video" for tier in ("", "fast-", "mini-") for mode in ("image", "reference")
}
QUALITIES = ("480p", "720p", "1080p")
RATIOS = ("16:9", "9:16", "1:1", "4:3", "3:4", "21:9", "adaptive")
FIELDS = {
    "model",
    "prompt",
    "duration",
    "quality",
    "aspect_ratio",
    "generate_audio",
    "content_filter",
    "model_params",
    "callback_url",
}
MEDIA_FIELDS = ("image_urls", "video_urls", "audio_urls")
CALLBACK_URL_CHARACTERS = 2048
ID_PREFIX = "task-unified-"

_REFUSALS: dict[Refusal, tuple[int, str, int | str]] = {
    "unauthorized": (401, "authentication_error", 401),
    "no_credit": (402, "insufficient_quota_error", 402),
    "invalid": (400, "invalid_request_error", "invalid_parameters"),
    "moderation": (400, "invalid_request_error", "content_policy_violation"),
    "throttled": (429, "rate_limit_error", 429),
    "error_500": (500, "internal_server_error", 500),
    "error_503": (503, "service_unavailable_error", "service_unavailable"),
    "error_504": (504, "upstream_error", 504),
    "unknown": (404, "not_found_error", "resource_not_found"),
}
"""Status, type, and a code that is now a number, now a word."""

_STATUSES = {
    "queued": "pending",
    "running": "processing",
    "succeeded": "completed",
    "failed": "failed",
    "cancelled": "cancelled",
    "unheard_of": "hibernating",
}

_TASK_ERRORS = {
    "moderation_late": ("content_policy_violation", "The generated content did not pass the safety review."),
    "render_failed": ("service_error", "The generation service failed."),
}


class Evolink:
    """The seller."""

    name = "evolink"
    scheme = "Bearer"
    billing: Billing = "reserved"
    link_life_s = 86_400.0
    signs_links = False
    courier = Courier(waits_s=(1.0, 2.0, 4.0), timeout_s=10.0, lag_s=5.0, repeats_on_4xx=True)

    def __init__(self, *, desk: Desk, files: FileHost, allow_private_callbacks: bool) -> None:
        self._desk = desk
        self._files = files
        self._allow_private_callbacks = allow_private_callbacks

    async def answer(self, asked: Asked) -> Answer:
        match asked.method, asked.path.strip("/").split("/"):
            case "POST", ["v1", "videos", "generations"]:
                return await self._create(asked)
            case "GET", ["v1", "tasks", id_]:
                return self._query(asked, id_)
            case "GET", ["v1", "credits"]:
                self._desk.account(self, asked)
                return json_answer(200, {"success": True, "data": {"remaining_credits": 100_000.0}})
            case _:
                raise Refused(self.refuse("unknown", f"No route {asked.method} {asked.path}"))

    async def _create(self, asked: Asked) -> Answer:
        fields = asked.fields() or {}
        return await self._desk.order(self, asked, prompt=fields.get("prompt"), read=lambda: self._read(asked, fields))

    def _read(self, asked: Asked, fields: dict[str, Any]) -> Order:
        if asked.fields() is None:
            self._bad("body", "The request body must be a JSON object")
        limit = self._desk.switches.evolink_in_flight
        if limit is not None and self._desk.jobs.unfinished(self.name, self._desk.account(self, asked)) >= limit:
            raise Refused(self.refuse("throttled", "Too many tasks at once"))
        tier = self._tier(fields.get("model"))
        self._known(fields)
        prompt = fields.get("prompt")
        if not isinstance(prompt, str) or not prompt.strip():
            self._bad("prompt", "prompt is required")
        quality = self._one_of(fields, "quality", QUALITIES, "720p")
        if quality == "1080p" and tier != "standard":
            self._bad("quality", f"1080p is not supported by {fields['model']}")
        ratio = self._one_of(fields, "aspect_ratio", RATIOS, "16:9")
        return Order(
            prompt=prompt,
            model=fields["model"],
            tier=tier,
            resolution=quality,
            aspect_ratio=None if ratio == "adaptive" else ratio,
            seconds=self._duration(fields),
            audio=self._switch(fields, "generate_audio"),
            content_filter=self._switch(fields, "content_filter"),
            callback_url=self._callback_url(fields.get("callback_url")),
            extra={"model_params": self._model_params(fields.get("model_params"), tier)},
        )

    def _bad(self, param: str, message: str) -> NoReturn:
        raise Refused(self._error("invalid", message, param=param))

    def _tier(self, model: object) -> str:
        if not isinstance(model, str) or (model not in TEXT_MODELS and model not in OTHER_MODELS):
            self._bad("model", f"Unknown model {model!r}")
        if model in OTHER_MODELS:
            denied = {"code": "model_access_denied", "type": "permission_error", "message": f"No access to {model}"}
            raise Refused(json_answer(403, {"error": denied}))
        return TEXT_MODELS[model]

    def _known(self, fields: dict[str, Any]) -> None:
        for name in fields:
            if name in MEDIA_FIELDS:
                self._bad(name, f"{name} is not supported by text-to-video models")
            if name not in FIELDS and not self._desk.switches.evolink_ignores_unknown:
                self._bad(name, f"Unknown parameter {name}")

    def _one_of(self, fields: dict[str, Any], name: str, allowed: tuple[str, ...], default: str) -> str:
        value = fields.get(name, default)
        if value not in allowed:
            self._bad(name, f"{name} must be one of {', '.join(allowed)}")
        return str(value)

    def _duration(self, fields: dict[str, Any]) -> int:
        value = fields.get("duration", 5)
        if type(value) is not int or not 4 <= value <= 15:
            self._bad("duration", "duration must be an integer from 4 to 15")
        return value

    def _switch(self, fields: dict[str, Any], name: str) -> bool:
        value = fields.get(name, True)
        if not isinstance(value, bool):
            self._bad(name, f"{name} must be a boolean")
        return value

    def _model_params(self, params: object, tier: str) -> dict[str, Any]:
        if params is None:
            return {}
        if not isinstance(params, dict) or any(name != "web_search" for name in params):
            self._bad("model_params", "model_params knows web_search only")
        if not isinstance(params.get("web_search", False), bool):
            self._bad("model_params", "web_search must be a boolean")
        if params.get("web_search") and tier == "mini":
            self._bad("model_params", "web_search is not supported by mini models")
        return params

    def _callback_url(self, url: object) -> str | None:
        if url is None:
            return None
        if not isinstance(url, str) or len(url) > CALLBACK_URL_CHARACTERS:
            self._bad("callback_url", f"callback_url must be a URL of at most {CALLBACK_URL_CHARACTERS} characters")
        parts = urlsplit(url)
        if not parts.hostname or parts.scheme not in {"http", "https"}:
            self._bad("callback_url", "callback_url must be an HTTPS URL")
        if not self._allow_private_callbacks:
            if parts.scheme != "https":
                self._bad("callback_url", "Only HTTPS callbacks are supported")
            if _is_private(parts.hostname or ""):
                self._bad("callback_url", "Callbacks to private addresses are prohibited")
        return url

    def _query(self, asked: Asked, id_: str) -> Answer:
        if not id_.startswith(ID_PREFIX):
            self._desk.account(self, asked)
            error = {
                "code": "invalid_task_id",
                "message": f"Task ID must start with {ID_PREFIX}",
                "type": "invalid_request_error",
                "param": "task_id",
            }
            return json_answer(400, {"error": error})
        job = self._desk.look(self, asked, id_)
        return json_answer(200, self._task(job, state=self._desk.jobs.view(job).state, id_=job.id))

    def refuse(self, why: Refusal, message: str) -> Answer:
        return self._error(why, message)

    @staticmethod
    def _error(why: Refusal, message: str, *, param: str | None = None) -> Answer:
        status, kind, code = _REFUSALS[why]
        error = {"code": code, "message": message, "type": kind}
        if param is not None:
            error["param"] = param
        return json_answer(status, {"error": error})

    def new_id(self) -> str:
        return f"{ID_PREFIX}{int(time.time())}-{uuid.uuid4().hex[:8]}"

    def _created(self, job: Job) -> dict[str, Any]:
        body: dict[str, Any] = {
            "created": int(job.created_at),
            "id": job.id,
            "model": job.model,
            "object": "video.generation.task",
            "progress": 0,
            "status": "pending",
            "task_info": {"can_cancel": True, "estimated_time": 165, "video_duration": job.seconds},
            "type": "video",
        }
        if "no_cost" not in job.faults:
            credit = price_millicredits(
                job.tier, job.resolution, seconds=job.seconds, content_filter=job.content_filter
            ) * (2 if "dear" in job.faults else 1)
            body["usage"] = {
                "billing_rule": "per_second",
                "credits_reserved": credit / 1000,
                "user_group": "default",
            }
        return body

    def receipt(self, job: Job) -> Answer:
        return json_answer(200, self._created(job))

    def receipt_without_id(self, job: Job) -> Answer:
        return json_answer(200, {name: value for name, value in self._created(job).items() if name != "id"})

    def _task(self, job: Job, *, state: str, id_: str) -> dict[str, Any]:
        view = self._desk.jobs.view(job)
        task: dict[str, Any] = {
            "created": int(job.created_at),
            "id": id_,
            "model": job.model,
            "object": "video.generation.task",
            "progress": 100 if state in {"succeeded", "failed", "cancelled"} else int(view.share * 99),
            "status": _STATUSES[state],
            "task_info": {"can_cancel": state == "queued"},
            "type": "video",
        }
        if state == "succeeded":
            link = self._files.link(job, life_s=self.link_life_s, signed=False)
            task["results"] = [] if "no_url" in job.faults else [link]
        if state == "failed":
            code, message = _TASK_ERRORS.get(job.fate, ("unknown_error", "The task failed."))
            task["error"] = {"code": code, "message": message, "type": "task_error"}
        return task

    def letter(self, job: Job, *, id_: str, state: State, sent_at: float) -> Letter:
        task = self._task(job, state=state, id_=id_)
        if "cb_old" in job.faults:
            task["created"] = int(sent_at)
        return Letter(headers={}, body=msgspec.json.encode(task))


def _is_private(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return False
