"""What a play seller is: one wire, its prices' habits, its callbacks' habits."""

from typing import Literal, Protocol

import msgspec

from proxy.simulator.exchange import Answer, Asked
from proxy.simulator.job import Job, State
from proxy.simulator.ledger import Billing

Refusal = Literal[
    "unauthorized", "no_credit", "invalid", "moderation", "throttled", "error_500", "error_503", "error_504", "unknown"
]
"""What a wire has a form of its own for; `unknown` is a job that it does not know."""


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """A callback as it goes out."""

    headers: dict[str, str]
    body: bytes


class Courier(msgspec.Struct, frozen=True, kw_only=True):
    """How stubbornly a seller calls back. All in sellers' seconds."""

    waits_s: tuple[float, ...]
    """Before each further try."""
    timeout_s: float
    lag_s: float = 0.0
    """Between the end of the job and the first try."""
    repeats_on_4xx: bool
    signature_header: str = "x-signature"
    """The seller's own, or the one that a forger would think of."""


class Seller(Protocol):
    """One wire."""

    name: str
    scheme: str
    """The word before the key."""
    billing: Billing
    link_life_s: float
    signs_links: bool

    async def answer(self, asked: Asked) -> Answer:
        """Raises Refused for a no."""
        ...

    def refuse(self, why: Refusal, message: str) -> Answer: ...

    def new_id(self) -> str: ...

    def receipt(self, job: Job) -> Answer:
        """The answer to a create, as the job stands."""
        ...


class Polled(Seller, Protocol):
    """One that answers a create at once, with an id to ask by, and calls back."""

    courier: Courier

    def receipt_without_id(self, job: Job) -> Answer: ...

    def letter(self, job: Job, *, id_: str, state: State, sent_at: float) -> Letter:
        """The callback for an end, true or not; `sent_at` in the wall's epoch seconds."""
        ...
