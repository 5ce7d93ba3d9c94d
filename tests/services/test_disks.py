"""While a disk is nearly full nothing is accepted, and everything that was accepted goes on."""

from pathlib import Path

import pytest

from proxy.core.errors import Overloaded
from proxy.outside.base import Room, StorageFailed
from proxy.outside.storage import Folder
from proxy.services.disks import UNSEEN_MOST, look_at_disks
from tests.services.rehearsal import FalOrder, Rehearsal


class Cramped(Folder):
    """A folder on a disk that is as full as the test says; None: it cannot be asked."""

    ratio: float | None = 0.95

    async def room(self) -> Room | None:
        if self.ratio is None:
            raise StorageFailed("Stale file handle")
        return Room(free_bytes=round(1000 * (1 - self.ratio)), used_bytes=round(1000 * self.ratio))


def cramp(house: Rehearsal, folder: Path) -> Cramped:
    disk = Cramped(folder / "videos")
    house.house.storage = house.house.disks["files"] = disk
    return disk


async def test_video_that_was_accepted_before_is_polled_copied_and_completed(house: Rehearsal, tmp_path: Path) -> None:
    order = FalOrder()
    house.answers(order)
    video_id = await house.accept(model="fal/seedance-2.0")
    waiting = await house.accept(model="fal/seedance-2.0")
    await house.settle()
    cramp(house, tmp_path)
    await look_at_disks(house.house)
    with pytest.raises(Overloaded) as caught:
        await house.accept()
    assert 1 <= caught.value.retry_after_s <= 60
    order.status = "COMPLETED"
    await house.run(20)
    assert (await house.video(video_id)).status == "completed"
    assert await house.cancel(waiting) is not None


async def test_disk_that_is_away_for_a_minute_stops_creates_until_it_is_back(house: Rehearsal, tmp_path: Path) -> None:
    disk = cramp(house, tmp_path)
    disk.ratio = 0.5
    await look_at_disks(house.house)
    for _ in range(2):
        disk.ratio = None
        for _ in range(UNSEEN_MOST - 1):
            await look_at_disks(house.house)
        assert await house.accept()
        await look_at_disks(house.house)
        with pytest.raises(Overloaded):
            await house.accept()
        disk.ratio = 0.5
        await look_at_disks(house.house)
        assert await house.accept()


async def test_disk_that_cannot_be_asked_once_stays_as_it_was(house: Rehearsal, tmp_path: Path) -> None:
    disk = cramp(house, tmp_path)
    await look_at_disks(house.house)
    disk.ratio = None
    await look_at_disks(house.house)
    assert house.house.full == {"files"}
    disk.ratio = 0.5
    await look_at_disks(house.house)
    disk.ratio = None
    await look_at_disks(house.house)
    assert house.house.full == set()


async def test_sandbox_runs_on_any_disk(house: Rehearsal, tmp_path: Path) -> None:
    cramp(house, tmp_path)
    house.house.sandbox = True
    await look_at_disks(house.house)
    assert house.house.full == set()
    await house.accept()
