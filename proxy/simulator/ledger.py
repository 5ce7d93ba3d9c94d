"""The sellers' own books: what each account ordered, owes, got back and fetched."""

from typing import Any, Literal

import msgspec

from proxy.simulator.job import Job
from proxy.simulator.prices import price_microusd

Billing = Literal["on_success", "at_create", "reserved"]
"""When a seller takes the money; `reserved`: set aside at the create, taken on success, else let go."""


class Account(msgspec.Struct, kw_only=True):
    """One key at one seller."""

    seller: str
    key: str
    """A name made from the key; the key itself is not kept."""
    ordered: int = 0
    """Creates that carried this key, the refused ones included."""
    accepted: int = 0
    reserved_microusd: int = 0
    """Set aside just now."""
    charged_microusd: int = 0
    """Taken, before refunds."""
    refunded_microusd: int = 0
    delivered: int = 0
    """Downloads that ran to the last byte."""


class Ledger:
    """Every account, kept in step with the jobs."""

    def __init__(self, billing: dict[str, Billing]) -> None:
        self._billing = billing
        self._accounts: dict[tuple[str, str], Account] = {}
        self.changed = False
        """Whether accounts moved since this was last set to False."""

    @property
    def accounts(self) -> list[Account]:
        return list(self._accounts.values())

    def restore(self, accounts: list[Account]) -> None:
        self._accounts = {(account.seller, account.key): account for account in accounts}

    def clear(self) -> None:
        self._accounts.clear()
        self.changed = True

    def _account(self, seller: str, key: str) -> Account:
        self.changed = True
        account = self._accounts.get((seller, key))
        if account is None:
            account = self._accounts[seller, key] = Account(seller=seller, key=key)
        return account

    def ordered(self, seller: str, key: str) -> None:
        self._account(seller, key).ordered += 1

    def accepted(self, job: Job) -> None:
        """Prices a new job and takes or reserves what this seller takes at once."""
        account = self._account(job.seller, job.key)
        account.accepted += 1
        if job.flaw is None:
            job.price_microusd = _price(job)
        if self._billing[job.seller] == "at_create":
            self._charge(job, account)
        elif self._billing[job.seller] == "reserved":
            job.reserved_microusd = job.price_microusd
            account.reserved_microusd += job.price_microusd

    def ended(self, job: Job) -> None:
        """Takes the money of a success, gives back or lets go that of any other end."""
        account = self._account(job.seller, job.key)
        account.reserved_microusd -= job.reserved_microusd
        job.reserved_microusd = 0
        if job.state == "succeeded" and not job.charged_microusd:
            self._charge(job, account)
        elif job.state != "succeeded" and job.charged_microusd:
            job.refunded_microusd = job.charged_microusd
            account.refunded_microusd += job.charged_microusd

    def delivered(self, job: Job) -> None:
        job.downloads += 1
        self._account(job.seller, job.key).delivered += 1

    @staticmethod
    def _charge(job: Job, account: Account) -> None:
        job.charged_microusd = job.price_microusd
        account.charged_microusd += job.price_microusd


def _price(job: Job) -> int:
    price = price_microusd(job.seller, job.tier, job.resolution, seconds=job.seconds, content_filter=job.content_filter)
    return 2 * price if "dear" in job.faults else price


def row(job: Job) -> dict[str, Any]:
    """A job as the books show it."""
    return {
        "seller": job.seller,
        "key": job.key,
        "id": job.id,
        "client_ref": job.client_ref,
        "prompt": job.prompt,
        "model": job.model,
        "tier": job.tier,
        "resolution": job.resolution,
        "aspect_ratio": job.aspect_ratio,
        "seconds": job.seconds,
        "audio": job.audio,
        "content_filter": job.content_filter,
        "seed": job.seed,
        "state": job.state,
        "faults": sorted(job.faults),
        "price_microusd": job.price_microusd,
        "reserved_microusd": job.reserved_microusd,
        "charged_microusd": job.charged_microusd,
        "refunded_microusd": job.refunded_microusd,
        "downloads": job.downloads,
        "polls": job.polls,
        "callback_tries": job.callback_tries,
        "created_at": job.created_at,
        "ended_at": job.ended_at,
    }


def totals(accounts: list[Account]) -> dict[str, int]:
    """The sums over some accounts; `paid_microusd` is what the sellers kept."""
    names = ("ordered", "accepted", "reserved_microusd", "charged_microusd", "refunded_microusd", "delivered")
    sums = {name: sum(getattr(account, name) for account in accounts) for name in names}
    return {**sums, "paid_microusd": sums["charged_microusd"] - sums["refunded_microusd"]}
