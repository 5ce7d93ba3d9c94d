"""While too many videos wait nothing is accepted, and it is seen soon where there is room again."""

import asyncio
from pathlib import Path

import pytest

from proxy.core.errors import Overloaded
from proxy.services.room import look_at_the_line, watched_room
from tests.services.rehearsal import FalOrder, Rehearsal
from tests.services.test_disks import cramp


async def test_nobody_is_accepted_behind_a_line_that_is_full(house: Rehearsal) -> None:
    house.answers(FalOrder())
    first = await house.accept()
    await look_at_the_line(house.house, most=2)
    second = await house.accept()
    await look_at_the_line(house.house, most=2)
    with pytest.raises(Overloaded) as caught:
        await house.accept()
    assert 1 <= caught.value.retry_after_s <= 60
    await house.cancel(second)
    await look_at_the_line(house.house, most=2)
    await house.accept()
    await house.settle()
    assert (await house.video(first)).status == "in_progress", "what was accepted goes on"


async def test_video_that_a_seller_has_taken_waits_no_more(house: Rehearsal) -> None:
    house.answers(FalOrder())
    await house.accept()
    await look_at_the_line(house.house, most=1)
    assert house.house.full == {"line"}
    await house.settle()
    await look_at_the_line(house.house, most=1)
    assert house.house.full == set()


async def test_room_is_looked_at_again_and_again(house: Rehearsal, tmp_path: Path) -> None:
    disk = cramp(house, tmp_path)
    async with watched_room(house.house, every_s=0.01), asyncio.timeout(5):
        assert house.house.full == {"files"}
        disk.ratio = 0.1
        while house.house.full:
            await asyncio.sleep(0.01)
        disk.ratio = 0.99
        while not house.house.full:
            await asyncio.sleep(0.01)
