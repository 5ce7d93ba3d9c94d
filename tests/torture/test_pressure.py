"""An outage is no storm for the seller, a flood no end for the server; everything accepted ends as it should."""

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.torture import pressure
from tests.torture.pressure import OUTAGES, Outage
from tests.torture.revived import Revived
from tests.torture.verdict import table


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("outage", OUTAGES[1:3], ids=lambda outage: outage.name)
async def test_seller_in_trouble_is_left_in_peace_and_used_again_once_it_is_well(
    tmp_path: Path, outage: Outage
) -> None:
    async with AsyncExitStack() as stack:
        stage = Revived(tmp_path, stack)
        await stage.start_sellers(speed=pressure.SPEED)
        tally = await pressure.meet(stage, tmp_path / "outage", "sqlite", outage, many=150)
        assert tally.is_clean, table([tally])


@pytest.mark.long
@pytest.mark.timeout(500)
async def test_flood_of_creates_is_answered_and_what_was_accepted_comes_to_its_end(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        stage = Revived(tmp_path, stack)
        await stage.start_sellers(speed=pressure.SPEED)
        tally = await pressure.flood(stage, tmp_path / "flood", "sqlite", crowd=1000)
        assert tally.is_clean, table([tally])
        assert tally.delivered > 0
