"""Failures on demand: the catalogue, the markers in prompts, and those armed over the admin door."""

import random
import re
from typing import Literal

import msgspec

SELLERS = ("runflow", "fal", "shortapi", "evolink")

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


def _stage(stage: Stage, sentences: dict[str, str]) -> dict[str, Fault]:
    return {id_: Fault(id=id_, stage=stage, sentence=sentence) for id_, sentence in sentences.items()}


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
            "reset_after": "The job is stored and will be charged, then the connection is reset without an answer.",
            "slow_reply": "The job is stored; the answer comes after 120 sellers' seconds, 70 real ones at the least, "
            "or after the real `delay_s` of the admin call.",
            "invalid_json": "The job is stored; the answer is a 200 whose JSON breaks off.",
            "wrong_type": "The job is stored; the answer is a 200 with an HTML page.",
            "no_id": "The job is stored; the answer lacks its id.",
        },
    ),
    **_stage(
        "life",
        {
            "moderation_late": "The render ends refused by the content check.",
            "render_failed": "The render ends as broken.",
            "unknown_status": "While it runs, the job shows a status nobody has heard of.",
            "backwards": "Between 40 % and 75 % of its run the job says queued again.",
            "no_url": "The job succeeds without a link.",
            "never_ends": "The job runs for ever.",
            "lost": "The seller does not know the job any more right after the create; it renders and charges unseen.",
        },
    ),
    **_stage(
        "poll",
        {
            "revoked": "Polls are answered 401: all after the queue for a marked job, so many as armed otherwise.",
            "poll_500": "Polls are answered 500: the first three of a marked job, so many as armed otherwise.",
            "poll_throttled": "Polls are answered 429: the first three of a marked job, so many as armed otherwise.",
        },
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
            "no_cost": "No answer names a price, a charge or billed units.",
            "dear": "The seller charges, and names, twice its price.",
        },
    ),
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
    ),
}

_MARKER = re.compile(r"\[fault:([a-z0-9_]+)(?:@([a-z]+))?\]")


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


class Faults:
    """Those armed; draws are repeatable by seed."""

    def __init__(self, *, seed: int) -> None:
        self._armed: list[Armed] = []
        self._dice = random.Random(seed)

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
            if armed.seller in {"*", seller} and CATALOGUE[armed.fault].stage in stages and self._strikes(armed):
                struck[armed.fault] = armed.delay_s
        self._armed = [armed for armed in self._armed if armed.count is None or armed.count > 0]
        return struck

    def _strikes(self, armed: Armed) -> bool:
        if armed.probability is not None and self._dice.random() >= armed.probability:
            return False
        if armed.count is not None:
            armed.count -= 1
        return True


def marked(prompt: str, seller: str) -> list[str]:
    """The faults that a prompt asks of this seller, known or not."""
    if "[fault:" not in prompt:
        return []
    return [id_ for id_, whom in _MARKER.findall(prompt) if whom in {"", seller}]
