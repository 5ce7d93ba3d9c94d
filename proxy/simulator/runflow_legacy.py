"""
Runflow's older wire: one route, which answers when the clip is made.

A client that leaves meanwhile leaves its order behind: the clip is made and charged, and there is nobody
to ask for it. The seller's page shows the request and the link in the answer; what else the answer holds
is taken from fal's, and every no from the newer API of the same host.
"""

import re
import uuid
from typing import Any

import msgspec

from proxy.simulator.base import Refusal
from proxy.simulator.desk import Desk
from proxy.simulator.exchange import Answer, Asked, Refused, json_answer
from proxy.simulator.files import FileHost
from proxy.simulator.job import Job, Order
from proxy.simulator.ledger import Billing
from proxy.simulator.runflow_fields import FAILURES, FIELDS, bad, error, read_fields, refusal, typed

MODEL = "bytedance/seedance/2.0/text-to-video"
RESOLUTIONS = ("480p", "720p")

_FAILURE_STATUS = {"moderation_late": 422, "render_failed": 500}

_SEED = re.compile(r"-?[0-9]{1,18}")
"""A text on the way in and a number on the way out."""


class RunflowLegacy:
    """The seller."""

    name = "runflow-legacy"
    scheme = "Bearer"
    billing: Billing = "on_success"
    link_life_s = 3_600.0
    signs_links = False

    def __init__(self, *, desk: Desk, files: FileHost) -> None:
        self._desk = desk
        self._files = files

    async def answer(self, asked: Asked) -> Answer:
        match asked.method, asked.path.strip("/").split("/"):
            case "POST", ["v1", "run", *model]:
                fields = asked.fields() or {}
                return self._desk.order_and_wait(
                    self, asked, prompt=fields.get("prompt"), read=lambda: self._read(asked, "/".join(model), fields)
                )
            case _:
                self._desk.account(self, asked)
                return error(404, "NOT_FOUND", f"No route {asked.method} {asked.path}")

    def _read(self, asked: Asked, model: str, fields: dict[str, Any]) -> Order:
        if model != MODEL:
            raise Refused(self.refuse("unknown", f"Model {model} not found"))
        if asked.fields() is None:
            raise Refused(error(400, "MALFORMED_BODY", "The body must be a JSON object"))
        for name in fields:
            if name not in FIELDS:
                bad(name, "unknown field; model fields stand at the top")
        order = read_fields(
            fields,
            under="",
            model=MODEL,
            tier="standard",
            resolutions=RESOLUTIONS,
            takes_numbers=self._desk.switches.runflow_takes_numbers,
        )
        return msgspec.structs.replace(order, seed=_seed(fields))

    def refuse(self, why: Refusal, message: str) -> Answer:
        return refusal(why, message)

    def new_id(self) -> str:
        """For the books; the wire names none."""
        return str(uuid.uuid4())

    def receipt(self, job: Job) -> Answer:
        if job.state != "succeeded":
            return error(_FAILURE_STATUS[job.fate], *FAILURES[job.fate])
        link = self._files.link(job, life_s=self.link_life_s, signed=self.signs_links)
        facts = {"content_type": "video/mp4", "file_name": "video.mp4", "file_size": self._files.size_bytes(job)}
        if self._desk.switches.runflow_legacy_link_only:
            return json_answer(200, {"video": {} if "no_url" in job.faults else {"url": link}})
        return json_answer(200, {"video": {} if "no_url" in job.faults else {"url": link, **facts}, "seed": job.seed})


def _seed(fields: dict[str, Any]) -> int | None:
    seed = typed(fields, "seed", str, default=None, under="")
    if seed is None:
        return None
    if not _SEED.fullmatch(seed):
        bad("seed", "seed must hold a whole number")
    return int(seed)
