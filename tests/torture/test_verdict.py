"""The judge says no where something is wrong: to a film that is gone, a charge too high, a budget that is passed."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.databases import whole_in
from tests.torture.__main__ import PARTS, chosen
from tests.torture.bill import Prices
from tests.torture.crash_points import SPEED, rules
from tests.torture.revived import Order, Revived
from tests.torture.verdict import judge

ORDER = Order(name="video", order=("evolink",))


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Revived]:
    """With one video that is delivered."""
    async with AsyncExitStack() as stack:
        stage = Revived(tmp_path, stack)
        await stage.start_sellers(speed=SPEED)
        await stage.move(tmp_path / "own", "sqlite", rules)
        stage.begin()
        await stage.allot("tenant", 10_000_000)
        await stage.reaches(await stage.order(ORDER))
        yield stage


async def test_judge_says_no_to_what_is_tampered_with_or_gone(stage: Revived) -> None:
    fine = await judge(stage, "nothing", within_s=30)
    assert fine.is_clean, fine.differences
    assert (fine.delivered, fine.lost) == (1, 0)

    database = whole_in(stage.folder)
    database.tamper("update videos set charged_microusd = charged_microusd - 1")
    database.tamper("update budgets set limit_microusd = 793999")
    database.tamper("update attempts set cost_microusd = null")
    [film] = stage.folder.glob("data/videos/**/*.mp4")
    film.write_bytes(bytes(len(film.read_bytes())))
    wrong = await judge(stage, "tampered with", within_s=30)
    assert (wrong.delivered, wrong.lost) == (0, 1)
    told = " ".join(wrong.differences)
    assert "video: its tenant pays 793999, and owes 794000" in told
    assert "1 videos hold or cost 793999, counted are 794000, of 793999" in told
    assert "evolink is done without a cost" in told

    film.unlink()
    gone = await judge(stage, "the film is gone", within_s=30)
    assert (gone.delivered, gone.lost) == (0, 1)


def _price(resolution: str, usd: str, basis: str) -> dict[str, str]:
    return {"resolution": resolution, "usd_per_second": usd, "basis": basis}


PRICES = Prices(
    prices={
        ("runflow", "480p"): _price("480p", "0.10", "derived"),
        ("runflow", "720p"): _price("720p", "0.30", "listed"),
        ("shortapi", "720p"): _price("720p", "0.24", "listed"),
    }
)


@pytest.mark.parametrize(
    ("seller", "resolution", "seconds", "faults", "took", "markup", "owed"),
    [
        ("runflow", "720p", 4, [], 9, "0", 1_200_000),
        ("runflow", "720p", 6, [], 9, "0.25", 2_250_000),
        ("runflow", "720p", 4, ["shorter"], 9, "0", 900_000),
        ("runflow", "720p", 4, ["longer"], 9, "0", 1_200_000),
        ("runflow", "720p", 4, ["smaller"], 9, "0", 400_000),
        ("runflow", "480p", 4, [], 450_000, "0", 450_000),
        ("runflow", "480p", 4, ["no_cost"], 450_000, "0", 400_000),
        ("runflow", "480p", 4, ["shorter"], 450_000, "0", 300_000),
        ("shortapi", "720p", 4, ["smaller"], 9, "0", 960_000),
        ("shortapi", "720p", 4, [], 9, "0.0000005", 960_000),
    ],
)
def test_tenant_owes_what_was_asked_or_less_where_less_was_delivered(
    seller: str, resolution: str, seconds: int, faults: list[str], took: int, markup: str, owed: int
) -> None:
    order = Order(name="one", seconds=seconds, resolution=resolution)
    job: dict[str, Any] = {
        "seller": seller, "state": "succeeded", "faults": faults, "charged_microusd": took, "refunded_microusd": 0
    }  # fmt: skip
    assert PRICES.of_delivered(order, seller, [job], Decimal(markup)) == owed


def test_part_that_tries_nothing_on_the_engine_asked_for_is_refused() -> None:
    with pytest.raises(ValueError, match="replicas runs nothing on sqlite"):
        chosen(["replicas"], ["sqlite"])
    assert {name for together in chosen(None, ["sqlite"]) for name, _ in together} == PARTS.keys() - {"replicas"}
