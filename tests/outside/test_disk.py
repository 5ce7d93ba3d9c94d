"""How full a local disk is."""

import shutil
from pathlib import Path

import pytest

from proxy.outside.base import StorageFailed
from proxy.outside.disk import LocalDisk


async def test_room_is_what_the_system_says(tmp_path: Path) -> None:
    usage = shutil.disk_usage(tmp_path)
    disk = LocalDisk(tmp_path)
    assert await disk.free_bytes() == pytest.approx(usage.free, rel=0.05)
    assert await disk.used_ratio() == pytest.approx(1 - usage.free / usage.total, abs=0.05)


async def test_folder_that_is_not_there_has_no_disk_to_tell_of(tmp_path: Path) -> None:
    with pytest.raises(StorageFailed, match="No such file"):
        await LocalDisk(tmp_path / "gone").used_ratio()
