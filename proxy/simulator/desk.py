"""The way of every create and every poll, whichever wire they came over; where faults strike."""

import functools
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import msgspec

from proxy.simulator.base import Polled, Refusal, Seller
from proxy.simulator.callbacks import Callbacks
from proxy.simulator.clock import Clock
from proxy.simulator.exchange import HTML, Answer, Asked, Refused, html_answer
from proxy.simulator.faults import CATALOGUE, Faults, can_fail, marked
from proxy.simulator.job import Job, Order
from proxy.simulator.jobs import Jobs
from proxy.simulator.ledger import Ledger
from proxy.simulator.switches import Switches

SLOW_REPLY_S = 120.0
SLOW_REPLY_MIN_S = 70.0
"""Real seconds: longer than clients wait, on a fast clock too."""

RETRY_AFTER_S = 20.0
MARKED_POLLS = 3

_RESET = Answer(status=0, reset=True)

_MIDWAY = {"reset_midway": _RESET, "timeout_midway": html_answer(504, "Gateway Time-out")}

_ORDINARY: dict[str, Refusal] = {
    "throttled": "throttled",
    "throttled_seconds": "throttled",
    "throttled_date": "throttled",
    "error_500": "error_500",
    "error_503": "error_503",
    "error_504": "error_504",
}

_SENTENCES: dict[Refusal, str] = {
    "unauthorized": "The API key is missing or invalid",
    "no_credit": "The balance is exhausted",
    "invalid": "The input is invalid",
    "moderation": "The prompt was refused by the content check",
    "throttled": "Too many requests, slow down",
    "error_500": "Something broke on our side",
    "error_503": "The service is unavailable for the moment",
    "error_504": "The request took too long",
    "unknown": "There is no such job",
}


class Desk:
    """What all wires share: accounts, faults, the order book, polls."""

    def __init__(
        self,
        *,
        clock: Clock,
        jobs: Jobs,
        ledger: Ledger,
        faults: Faults,
        callbacks: Callbacks,
        switches: Switches,
    ) -> None:
        self._clock = clock
        self.jobs = jobs
        self._ledger = ledger
        self._faults = faults
        self.callbacks = callbacks
        self.switches = switches
        self.revoked: set[str] = set()
        """Names of keys that are refused."""

    def refuse(self, seller: Seller, why: Refusal, message: str | None = None) -> Answer:
        return seller.refuse(why, message or _SENTENCES[why])

    def account(self, seller: Seller, asked: Asked) -> str:
        """The name of the key that a request carries. Raises Refused for none, a wrong scheme or a revoked one."""
        scheme, _, key = asked.headers.get("authorization", "").partition(" ")
        name = key_name(key.strip()) if scheme == seller.scheme and key.strip() else None
        if name is None or name in self.revoked:
            raise Refused(self.refuse(seller, "unauthorized"))
        return name

    async def order(self, seller: Polled, asked: Asked, *, prompt: object, read: Callable[[], Order]) -> Answer:
        """A create from the key to the receipt. `read` raises Refused for input that the seller will not take."""
        job, faults = self._accept(seller, asked, prompt=prompt, read=read)
        if "cb_early" in faults and job.callback_url is not None:
            self._faults.note(seller.name, "cb_early")
            await self.callbacks.early(job)
        if "no_id" in faults:
            self._faults.note(seller.name, "no_id")
            return self._spoilt(seller, seller.receipt_without_id(job), faults)
        return self._spoilt(seller, seller.receipt(job), faults)

    def order_and_wait(self, seller: Seller, asked: Asked, *, prompt: object, read: Callable[[], Order]) -> Answer:
        """The same at a blocking seller, whose receipt follows when the job has ended; the job waits for nobody."""
        job, faults = self._accept(seller, asked, prompt=prompt, read=read)
        return Answer(status=0, later=self._at_the_end(seller, job, faults))

    async def _at_the_end(self, seller: Seller, job: Job, faults: dict[str, float | None]) -> Answer:
        for id_, broken in _MIDWAY.items():
            if id_ in faults:
                await self._clock.sleep(job.queue_s + job.run_s / 2)
                self._faults.note(seller.name, id_)
                return broken
        await self.jobs.ended(job)
        return self._spoilt(seller, seller.receipt(job), faults) if job.has_ended else _RESET

    def _accept(
        self, seller: Seller, asked: Asked, *, prompt: object, read: Callable[[], Order]
    ) -> tuple[Job, dict[str, float | None]]:
        """The job that a create makes, and the faults that are to strike."""
        key = self.account(seller, asked)
        self._ledger.ordered(seller.name, key)
        faults = self._struck(seller, prompt)
        self._refuse_unread(seller, faults)
        order = read()
        for why in ("no_credit", "invalid", "moderation"):
            if why in faults:
                self._faults.note(seller.name, why)
                raise Refused(self.refuse(seller, why))
        job = self.jobs.accept(
            order,
            seller=seller.name,
            key=key,
            id_=seller.new_id(),
            origin=asked.origin,
            faults={id_: delay_s for id_, delay_s in faults.items() if CATALOGUE[id_].stage != "order"},
        )
        self._ledger.accepted(job)
        return job, faults

    def _struck(self, seller: Seller, prompt: object) -> dict[str, float | None]:
        """The faults of a create: those of its prompt and the armed ones. Raises Refused for an unknown marker."""
        wanted = marked(prompt, seller.name) if isinstance(prompt, str) else []
        unknown = [id_ for id_ in wanted if not can_fail(seller.name, id_)]
        if unknown:
            raise Refused(self.refuse(seller, "invalid", f"The sandbox knows no fault {unknown[0]!r} of this seller"))
        armed = self._faults.draw(seller.name, "order", "life", "output", "callback")
        return {**dict.fromkeys(wanted), **armed}

    def _refuse_unread(self, seller: Seller, faults: dict[str, float | None]) -> None:
        """Raises Refused for the faults that strike before the body is looked at."""
        if "reset_before" in faults:
            self._faults.note(seller.name, "reset_before")
            raise Refused(_RESET)
        if "unauthorized" in faults:
            self._faults.note(seller.name, "unauthorized")
            raise Refused(self.refuse(seller, "unauthorized"))
        for id_, page in (("error_502_html", (502, "Bad Gateway")), ("error_503_html", (503, "Service Unavailable"))):
            if id_ in faults:
                self._faults.note(seller.name, id_)
                raise Refused(html_answer(*page))
        for id_, why in _ORDINARY.items():
            if id_ in faults:
                self._faults.note(seller.name, id_)
                raise Refused(self._with_retry_after(self.refuse(seller, why), id_))

    def _with_retry_after(self, answer: Answer, fault: str) -> Answer:
        wait_s = max(1, round(self._clock.real_s(RETRY_AFTER_S)))
        if fault == "throttled_seconds":
            value = str(wait_s)
        elif fault == "throttled_date":
            value = format_datetime(datetime.now(UTC) + timedelta(seconds=wait_s), usegmt=True)
        else:
            return answer
        return msgspec.structs.replace(answer, headers=(*answer.headers, ("retry-after", value)))

    def _spoilt(self, seller: Seller, receipt: Answer, faults: dict[str, float | None]) -> Answer:
        """The answer to an order that is stored, as the faults leave it."""
        for id_ in ("reset_after", "invalid_json", "wrong_type", "slow_reply"):
            if id_ in faults:
                self._faults.note(seller.name, id_)
        if "reset_after" in faults:
            return _RESET
        if "invalid_json" in faults:
            receipt = msgspec.structs.replace(receipt, status=200, body=receipt.body[: len(receipt.body) // 2])
        if "wrong_type" in faults:
            page = html_answer(200, "OK")
            receipt = Answer(status=200, body=page.body, content_type=HTML)
        if "slow_reply" in faults:
            told_s = faults["slow_reply"]
            wait_s = max(SLOW_REPLY_MIN_S, self._clock.real_s(SLOW_REPLY_S)) if told_s is None else told_s
            receipt = msgspec.structs.replace(receipt, wait_s=wait_s)
        return receipt

    def look(self, seller: Seller, asked: Asked, id_: str) -> Job:
        """The job that a poll asks for, brought up to now. Raises Refused where the poll is not answered."""
        key = self.account(seller, asked)
        self.jobs.run_due()
        job = self.jobs.find(seller.name, id_)
        struck = self._faults.draw(seller.name, "poll")
        if job is not None and job.key == key:
            job.polls += 1
            self._refuse_poll(seller, job, struck)
            if "lost" not in job.faults:
                return job
        raise Refused(self.refuse(seller, "unknown", f"There is no job {id_}"))

    def _refuse_poll(self, seller: Seller, job: Job, struck: dict[str, float | None]) -> None:
        first = job.polls <= MARKED_POLLS
        if "revoked" in struck or ("revoked" in job.faults and job.state != "queued"):
            self._faults.note(seller.name, "revoked")
            # A key revoked half way is a plain 401 at every seller, also where bad keys are told inside a 200.
            answer = self.refuse(seller, "unauthorized")
            raise Refused(msgspec.structs.replace(answer, status=401))
        for fault, why in _POLL_FAULTS.items():
            if fault in struck or (first and fault in job.faults):
                self._faults.note(seller.name, fault)
                raise Refused(self.refuse(seller, why))


_POLL_FAULTS: dict[str, Refusal] = {"poll_500": "error_500", "poll_throttled": "throttled"}


@functools.lru_cache(maxsize=1024)
def key_name(key: str) -> str:
    """A key's name in the books: the same for the same key, and no way back."""
    return "key_" + hashlib.sha256(key.encode()).hexdigest()[:12]
