"""How full a local disk is."""

import os
import shutil
from pathlib import Path

from proxy.outside.base import Room, StorageFailed, in_thread


class LocalDisk:
    """The disk under a folder, whoever uses it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def room(self) -> Room:
        try:
            usage = await in_thread(shutil.disk_usage, self._folder)
        except OSError as exc:
            raise StorageFailed(os.strerror(exc.errno or 0)) from exc
        return Room(free_bytes=usage.free, used_bytes=usage.total - usage.free)
