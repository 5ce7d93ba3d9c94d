"""ShortAPI's wire: two routes, a `code` inside a 200, states as numbers, the money taken at once."""

import uuid
from typing import Any, NoReturn

import msgspec

from proxy.simulator.base import Courier, Letter, Refusal
from proxy.simulator.desk import Desk
from proxy.simulator.exchange import Answer, Asked, Refused, json_answer
from proxy.simulator.files import FileHost
from proxy.simulator.job import Job, Order, State
from proxy.simulator.ledger import Billing
from proxy.simulator.prices import dollars

MODEL = "bytedance/seedance-2.0/text-to-video"
MODES = {"std": "standard", "fast": "fast"}
RATIOS = ("21:9", "16:9", "9:16", "4:3", "1:1", "3:4")
ARGS = {"mode", "prompt", "duration", "aspect_ratio"}
RESOLUTION = "720p"
"""Nothing in the request asks for it; nothing on the seller's page says so."""

GENERAL, UNSTABLE = 1, 3000

_REFUSALS: dict[Refusal, tuple[int, int, int]] = {
    "unauthorized": (200, 401, GENERAL),
    "no_credit": (200, 402, GENERAL),
    "invalid": (200, 400, GENERAL),
    "moderation": (200, 400, GENERAL),
    "throttled": (429, 429, GENERAL),
    "error_500": (500, 500, UNSTABLE),
    "error_503": (503, 503, UNSTABLE),
    "error_504": (504, 504, UNSTABLE),
    "unknown": (200, 404, GENERAL),
}
"""Status as the seller mostly is, status with `shortapi_http_errors`, and the code in the body."""

_INFOS: dict[Refusal, str] = {
    "unauthorized": "invalid api key",
    "no_credit": "insufficient balance",
    "moderation": "content policy: the prompt was refused",
    "throttled": "rate limit exceeded",
    "error_500": "upstream unstable, try again later",
    "error_503": "upstream unstable, try again later",
    "error_504": "upstream unstable, try again later",
    "unknown": "job not found",
}

_STATUSES = {"queued": 0, "running": 1, "succeeded": 2, "failed": 3, "cancelled": 4, "unheard_of": -1}

_ERRORS = {"moderation_late": "content policy", "render_failed": "generation failed"}


class Shortapi:
    """The seller."""

    name = "shortapi"
    scheme = "Bearer"
    billing: Billing = "at_create"
    link_life_s = 3_600.0
    signs_links = False
    courier = Courier(waits_s=(1.0, 2.0), timeout_s=10.0, repeats_on_4xx=True)

    def __init__(self, *, desk: Desk, files: FileHost) -> None:
        self._desk = desk
        self._files = files

    async def answer(self, asked: Asked) -> Answer:
        match asked.method, asked.path.strip("/"):
            case "POST", "api/v1/job/create":
                return await self._create(asked)
            case "GET", "api/v1/job/query":
                job = self._desk.look(self, asked, asked.query.get("id", ""))
                return json_answer(200, self._shown(job, state=self._desk.jobs.view(job).state, id_=job.id))
            case _:
                return json_answer(404, {"code": GENERAL, "info": "no such route"})

    async def _create(self, asked: Asked) -> Answer:
        fields = asked.fields() or {}
        args = fields.get("args")
        prompt = args.get("prompt") if isinstance(args, dict) else None
        return await self._desk.order(self, asked, prompt=prompt, read=lambda: self._read(asked, fields))

    def _read(self, asked: Asked, fields: dict[str, Any]) -> Order:
        limit = self._desk.switches.shortapi_in_flight
        if limit is not None and self._desk.jobs.unfinished(self.name, self._desk.account(self, asked)) >= limit:
            raise Refused(self.refuse("throttled", ""))
        if fields.get("model") != MODEL:
            self._bad("invalid model")
        args = fields.get("args")
        if not isinstance(args, dict):
            raise Refused(self.refuse("invalid", "args is required"))
        if self._desk.switches.shortapi_refuses_unknown and (unknown := sorted(set(args) - ARGS)):
            self._bad(f"unknown args: {', '.join(unknown)}")
        prompt = args.get("prompt")
        if not isinstance(prompt, str) or not prompt.strip():
            self._bad("prompt is required")
        mode, seconds, ratio = args.get("mode", "std"), args.get("duration", 5), args.get("aspect_ratio", "16:9")
        if not isinstance(mode, str) or mode not in MODES:
            self._bad("invalid mode")
        if type(seconds) is not int or not 4 <= seconds <= 15:
            self._bad("duration must be an integer from 4 to 15")
        if ratio not in RATIOS:
            self._bad("invalid aspect_ratio")
        url = fields.get("callback_url")
        if url is not None and not isinstance(url, str):
            self._bad("invalid callback_url")
        return Order(
            prompt=prompt,
            model=MODEL,
            tier=MODES[mode],
            resolution=RESOLUTION,
            aspect_ratio=ratio,
            seconds=seconds,
            audio=True,
            callback_url=url or None,
        )

    def _bad(self, info: str) -> NoReturn:
        raise Refused(self.refuse("invalid", info))

    def refuse(self, why: Refusal, message: str) -> Answer:
        usual, by_switch, code = _REFUSALS[why]
        status = by_switch if self._desk.switches.shortapi_http_errors else usual
        return json_answer(status, {"code": code, "info": _INFOS.get(why, message)})

    def new_id(self) -> str:
        return f"job-{uuid.uuid4().hex[:16]}"

    def receipt(self, job: Job) -> Answer:
        data = self._amount(job)
        if self._desk.switches.shortapi_id_on_top:
            return json_answer(200, {"code": 0, "job_id": job.id, "data": data})
        return json_answer(200, {"code": 0, "data": {"job_id": job.id, **data}})

    def receipt_without_id(self, job: Job) -> Answer:
        return json_answer(200, {"code": 0, "data": self._amount(job)})

    @staticmethod
    def _amount(job: Job) -> dict[str, str]:
        return {} if "no_cost" in job.faults else {"amount": dollars(job.price_microusd, places=2)}

    def _shown(self, job: Job, *, state: str, id_: str) -> dict[str, Any]:
        data: dict[str, Any] = {"id": id_, "status": _STATUSES[state]}
        if state == "succeeded":
            link = self._files.link(job, life_s=self.link_life_s, signed=False)
            data["result"] = {"videos": [] if "no_url" in job.faults else [{"url": link}]}
        if state in {"failed", "cancelled"}:
            data["error"] = _ERRORS.get(job.fate, "generation failed")
            data["refunded"] = True
            if "no_cost" not in job.faults:
                data["credit"] = dollars(job.price_microusd, places=2)
        return {"code": 0, "data": data}

    def letter(self, job: Job, *, id_: str, state: State, sent_at: float) -> Letter:
        del sent_at  # nothing in this callback tells a time
        return Letter(headers={}, body=msgspec.json.encode(self._shown(job, state=state, id_=id_)))
