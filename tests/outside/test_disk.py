"""How full a local disk is."""

import shutil
from pathlib import Path

import pytest

from proxy.outside.base import Room, StorageFailed
from proxy.outside.disk import LocalDisk


async def test_room_is_what_the_system_says(tmp_path: Path) -> None:
    usage = shutil.disk_usage(tmp_path)
    room = await LocalDisk(tmp_path).room()
    assert room.free_bytes == pytest.approx(usage.free, rel=0.05)
    assert room.free_bytes + room.used_bytes == usage.total
    assert room.used_ratio == pytest.approx(1 - usage.free / usage.total, abs=0.05)


def test_disk_without_any_room_is_used_as_a_whole() -> None:
    assert Room(free_bytes=0, used_bytes=7).used_ratio == 1


async def test_folder_that_is_not_there_has_no_disk_to_tell_of(tmp_path: Path) -> None:
    with pytest.raises(StorageFailed, match="No such file"):
        await LocalDisk(tmp_path / "gone").room()
