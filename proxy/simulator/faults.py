"""Failures on demand: the catalogue, the markers in prompts, and those armed over the admin door."""

import random
import re
from typing import Literal

import msgspec

SELLERS = ("runflow", "runflow-legacy", "fal", "shortapi", "evolink")
BLOCKING = ("runflow-legacy",)
"""Those that answer a create when the clip is made: no id, no states to ask for, no callbacks."""
POLLED = tuple(seller for seller in SELLERS if seller not in BLOCKING)

Stage = Literal["order", "life", "poll", "file", "output", "callback"]
"""
When a fault strikes. An armed one is drawn at the create (order, life, output, callback: it then
stays with the job), at each poll, or at each download; a marked one stays with its job.
"""


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One way to fail."""

    id: str
    stage: Stage
    sentence: str
    sellers: tuple[str, ...]
    """Who can fail so."""


def _stage(stage: Stage, sentences: dict[str, str], *, sellers: tuple[str, ...] = SELLERS) -> dict[str, Fault]:
    return {id_: Fault(id=id_, stage=stage, sentence=sentence, sellers=sellers) for id_, sentence in sentences.items()}


CATALOGUE: dict[str, Fault] = {
    **_stage(
        "order",
        {
            "unauthorized": "The create is refused as if the key were wrong.",
            "no_credit": "The create is refused for want of credit, in the seller's own way.",
            "invalid": "The create is refused at once as bad input.",
            "moderation": "The create is refused at once by the content check.",
            "throttled": "The create is answered 429 without Retry-After.",
            "throttled_seconds": "The create is answered 429 with Retry-After in seconds.",
            "throttled_date": "The create is answered 429 with Retry-After as an HTTP date.",
            "error_500": "The create is answered 500 by the application, nothing stored.",
            "error_502_html": "The create is answered 502 with an ingress's HTML page, nothing stored.",
            "error_503": "The create is answered 503 by the application, nothing stored.",
            "error_503_html": "The create is answered 503 with an ingress's HTML page, nothing stored.",
            "error_504": "The create is answered 504 by the application, nothing stored.",
            "reset_before": "The connection is reset before anything is stored.",
            "reset_after": "The job is stored and will be charged, then the connection is reset without an answer; "
            "by a blocking seller once the clip is made.",
            "slow_reply": "The job is stored; the answer comes after 120 sellers' seconds, 70 real ones at the least, "
            "or after the real `delay_s` of the admin call.",
            "invalid_json": "The job is stored; the answer is a 200 whose JSON breaks off.",
            "wrong_type": "The job is stored; the answer is a 200 with an HTML page.",
        },
    ),
    **_stage("order", {"no_id": "The job is stored; the answer lacks its id."}, sellers=POLLED),
    **_stage(
        "order",
        {
            "reset_midway": "The connection is reset half way through the render, which goes on and is charged.",
            "timeout_midway": "An ingress gives up half way through the render, which goes on and is charged: "
            "504 with its HTML page.",
        },
        sellers=BLOCKING,
    ),
    **_stage(
        "life",
        {
            "moderation_late": "The render ends refused by the content check.",
            "render_failed": "The render ends as broken.",
            "no_url": "The job succeeds without a link.",
            "never_ends": "The job runs for ever.",
        },
    ),
    **_stage(
        "life",
        {
            "unknown_status": "While it runs, the job shows a status nobody has heard of.",
            "backwards": "Between 40 % and 75 % of its run the job says queued again.",
            "lost": "The seller does not know the job any more right after the create; it renders and charges unseen.",
        },
        sellers=POLLED,
    ),
    **_stage(
        "poll",
        {
            "revoked": "Polls are answered 401: all after the queue for a marked job, so many as armed otherwise.",
            "poll_500": "Polls are answered 500: the first three of a marked job, so many as armed otherwise.",
            "poll_throttled": "Polls are answered 429: the first three of a marked job, so many as armed otherwise.",
        },
        sellers=POLLED,
    ),
    **_stage(
        "file",
        {
            "url_404": "The link answers 404.",
            "html_file": "The link answers 200 with an HTML page.",
            "truncated": "The connection closes after half of the promised bytes.",
            "slow_file": "The bytes dribble: twenty parts, 1.5 sellers' seconds (or the real `delay_s`) before each.",
            "expired": "The link answers 403 as if too old; Runflow's next reading of the run gives one that works.",
        },
    ),
    **_stage(
        "output",
        {
            "smaller": "The clip is one resolution below the asked one; a 480p one has half its sides.",
            "shorter": "The clip is a second shorter than asked.",
            "longer": "The clip is a second longer than asked.",
            "dear": "The seller charges, and names where it names any, twice its price.",
        },
    ),
    **_stage("output", {"no_cost": "No answer names a price, a charge or billed units."}, sellers=POLLED),
    **_stage(
        "callback",
        {
            "cb_duplicate": "The callback comes twice.",
            "cb_early": "A callback that claims success comes before the create is answered; the true one follows.",
            "cb_lost": "The callback never comes.",
            "cb_altered": "The callback tells the opposite end under the true one's signature.",
            "cb_wrong_signature": "The callback carries a wrong signature, also where the seller signs nothing.",
            "cb_old": "The callback's times are a day old.",
            "cb_unknown_id": "The callback names a job that does not exist.",
            "cb_late": "The callback comes 600 sellers' seconds after the end.",
        },
        sellers=POLLED,
    ),
}

_MARKER = re.compile(r"\[fault:([a-z0-9_]+)(?:@([a-z-]+))?\]")


class Armed(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A fault told to strike; without `count` and `probability` it strikes always."""

    fault: str
    seller: str = "*"
    count: int | None = None
    """How many times it still strikes."""
    probability: float | None = None
    """Ratio from 0 to 1 of the chances that it takes."""
    delay_s: float | None = None
    """Real seconds; for `slow_reply` and `slow_file`."""

    def __post_init__(self) -> None:
        if self.fault not in CATALOGUE:
            raise ValueError(f"no such fault: {self.fault}")
        if self.seller not in {"*", *SELLERS}:
            raise ValueError(f"no such seller: {self.seller}")
        if self.seller != "*" and not can_fail(self.seller, self.fault):
            raise ValueError(f"{self.seller} cannot fail so: {self.fault}")


class Faults:
    """Those armed; draws are repeatable by seed."""

    def __init__(self, *, seed: int) -> None:
        self._armed: list[Armed] = []
        self._dice = random.Random(seed)
        self.struck: dict[str, dict[str, int]] = {}
        """By seller, how often orders, polls, downloads and callbacks were answered or made as a fault has it."""

    def note(self, seller: str, fault: str) -> None:
        """It strikes at this moment."""
        counts = self.struck.setdefault(seller, {})
        counts[fault] = counts.get(fault, 0) + 1

    @property
    def armed(self) -> list[Armed]:
        return self._armed

    def arm(self, armed: Armed) -> None:
        self._armed.append(armed)

    def disarm(self) -> None:
        self._armed.clear()

    def draw(self, seller: str, *stages: Stage) -> dict[str, float | None]:
        """The armed faults that strike now, each with its delay; their counts go down."""
        if not self._armed:
            return {}
        struck: dict[str, float | None] = {}
        for armed in self._armed:
            fault = CATALOGUE[armed.fault]
            meant = armed.seller in {"*", seller} and seller in fault.sellers and fault.stage in stages
            if meant and self._strikes(armed):
                struck[armed.fault] = armed.delay_s
        self._armed = [armed for armed in self._armed if armed.count is None or armed.count > 0]
        return struck

    def _strikes(self, armed: Armed) -> bool:
        if armed.probability is not None and self._dice.random() >= armed.probability:
            return False
        if armed.count is not None:
            armed.count -= 1
        return True


def can_fail(seller: str, fault: str) -> bool:
    return fault in CATALOGUE and seller in CATALOGUE[fault].sellers


def marked(prompt: str, seller: str) -> list[str]:
    """
    The faults that a prompt asks of this seller, whether it can fail so or not.

    A mark without a name is for those who can; one that nobody knows is for everybody.
    """
    if "[fault:" not in prompt:
        return []
    return [
        id_
        for id_, whom in _MARKER.findall(prompt)
        if whom == seller or (not whom and (id_ not in CATALOGUE or can_fail(seller, id_)))
    ]
