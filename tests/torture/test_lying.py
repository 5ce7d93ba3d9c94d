"""Sellers that lie: every fault is met alone and mixed, and a video is made wherever a seller is able."""

import random
from pathlib import Path

import pytest

from proxy.simulator.faults import CATALOGUE
from tests.torture import lying
from tests.torture.lying import alone, mixed, must_be_made
from tests.torture.revived import Order
from tests.torture.verdict import table


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_video_is_made_wherever_a_seller_is_able_whatever_the_others_do(tmp_path: Path) -> None:
    lines = await lying.torture(tmp_path, "sqlite", mix=60)
    assert all(line.is_clean for line in lines), table(lines)
    assert {line.fault for line in lines} >= set(CATALOGUE)
    assert sum(line.delivered + line.failed for line in lines) == len(alone()) + 60


def test_every_fault_is_met_at_every_seller_that_can_fail_so() -> None:
    met = {(fault.id, seller) for fault, seller in lying.cases()}
    can = {(fault.id, seller) for fault in CATALOGUE.values() for seller in fault.sellers}
    assert {fault for fault, _ in met} == set(CATALOGUE)
    assert {fault for fault, _ in can - met} == {fault for fault in CATALOGUE if CATALOGUE[fault].stage == "callback"}
    assert {seller for _, seller in can - met} == {"evolink"}


def test_three_in_ten_orders_meet_a_fault_where_they_are_mixed() -> None:
    orders = mixed(random.Random(7), 2000)
    met = sum(len({fault.split("@")[1] for fault in order.faults}) for order in orders)
    assert met / sum(len(order.order) for order in orders) == pytest.approx(0.3, abs=0.02)
    # `revoked` is armed for everybody.
    assert {fault.split("@")[0] for order in orders for fault in order.faults} == set(CATALOGUE) - {
        "revoked", "reset_midway", "timeout_midway"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("faults", "made"),
    [
        ((), True),
        (("error_503@fal",), True),
        (("error_503@fal", "never_ends@evolink"), False),
        (("never_ends@fal",), False),
        (("truncated@fal",), False),
        (("expired@fal",), False),
        (("expired@runflow", "error_503@fal"), True),
        (("lost@fal",), True),
        (("lost@fal", "error_503@evolink", "moderation@runflow"), False),
        (("reset_after@fal",), True),
    ],
)
def test_video_is_owed_unless_a_seller_keeps_its_film(faults: tuple[str, ...], made: bool) -> None:
    order = ("fal", "runflow", "evolink") if "expired@runflow" in faults else ("fal", "evolink", "runflow")
    assert must_be_made(Order(name="one", faults=faults, order=order)) is made
