"""How full a local disk is."""

import asyncio
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from proxy.outside.base import Room, StorageFailed

PATIENCE_S: Final = 2.0
_THREADS: Final = ThreadPoolExecutor(4, thread_name_prefix="disk")
"""Their own: a disk that hangs keeps its threads."""


class LocalDisk:
    """The disk under a folder, whoever uses it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def room(self) -> Room:
        try:
            async with asyncio.timeout(PATIENCE_S):
                usage = await asyncio.get_running_loop().run_in_executor(_THREADS, shutil.disk_usage, self._folder)
        except TimeoutError as exc:
            raise StorageFailed(f"it says nothing for {PATIENCE_S:g} s") from exc
        except OSError as exc:
            raise StorageFailed(os.strerror(exc.errno or 0)) from exc
        return Room(free_bytes=usage.free, used_bytes=usage.total - usage.free)
