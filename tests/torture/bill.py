"""
What a tenant owes for a video, by the rules that its stage has written and the seller's own record of the film.

Shares nothing with what Reelay works its charges out by: two readings of one contract.
"""

from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import Any

import msgspec
import yaml

from tests.torture.revived import Order

NAMES_NO_DOLLARS = ("evolink", "fal", "runflow-legacy")
"""Sellers whose answers say what was used, but not what they take for it."""
RESOLUTIONS = ("480p", "720p", "1080p")


class Prices(msgspec.Struct, frozen=True, kw_only=True):
    """Of every offer on a stage, for clips with nothing but a prompt to them."""

    prices: dict[tuple[str, str], dict[str, Any]]
    """By provider and resolution, as written."""

    @classmethod
    def of(cls, folder: Path) -> "Prices":
        rules = yaml.safe_load((folder / "routing_rules.yaml").read_text())
        return cls(
            prices={
                (name, price["resolution"]): price
                for name, provider in rules["providers"].items()
                for offer in provider["offers"]
                if offer["tier"] == "standard"
                for price in sorted(offer["prices"], key=lambda one: str(one["starts"]))
            }
        )

    def of_delivered(self, order: Order, provider: str, jobs: Sequence[dict[str, Any]], markup: Decimal) -> int | None:
        """
        Micro-dollars; None where that seller made no film.

        What was asked counts; less length or size lowers the price, more does not raise it. Of a derived price
        the seller's own figure takes the place, but what lacks something never costs more for it.
        """
        job = next((job for job in jobs if (job["seller"], job["state"]) == (provider, "succeeded")), None)
        if job is None:
            return None
        faults = job["faults"]
        seconds = order.seconds - ("shorter" in faults)
        size = RESOLUTIONS.index(order.resolution)
        smaller = size - 1 if "smaller" in faults and size else size
        usd = self._per_second(provider, smaller, size) * seconds
        is_derived = self.prices[provider, order.resolution]["basis"] == "derived"
        if is_derived and provider not in NAMES_NO_DOLLARS and "no_cost" not in faults:
            named = Decimal(kept_microusd(job)) / 1_000_000
            other = {"smaller", "shorter", "longer"} & {*faults}
            usd = min(usd, named) if other else named
        return _microusd(usd * (1 + markup))

    def _per_second(self, provider: str, smallest: int, asked: int) -> Decimal:
        """Of the smallest size that has a price, and that is as large at the least."""
        known = [self.prices.get((provider, one)) for one in RESOLUTIONS[smallest : asked + 1]]
        return next(Decimal(price["usd_per_second"]) for price in known if price is not None)

    @staticmethod
    def of_cancelled(jobs: Sequence[dict[str, Any]], markup: Decimal) -> int:
        """Micro-dollars: what sellers kept for what its customer wanted no more."""
        return sum(_microusd(Decimal(kept_microusd(job)) / 1_000_000 * (1 + markup)) for job in jobs)


def _microusd(usd: Decimal) -> int:
    return int((usd * 1_000_000).quantize(Decimal(1), rounding=ROUND_HALF_EVEN))


def kept_microusd(job: dict[str, Any]) -> int:
    """What its seller took and did not give back."""
    return int(job["charged_microusd"] - job["refunded_microusd"])


def is_film(data: bytes) -> bool:
    """Whether it begins as an MP4 file does."""
    return data[4:8] == b"ftyp"
