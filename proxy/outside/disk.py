"""How full a local disk is."""

import os
import shutil
from pathlib import Path
from typing import Any

from proxy.outside.base import StorageFailed, in_thread


class LocalDisk:
    """The disk under a folder, whoever uses it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def free_bytes(self) -> int:
        """What is ours to fill. Raises StorageFailed."""
        return int((await self._usage()).free)

    async def used_ratio(self) -> float:
        """0 to 1; what is kept back for root counts as used, for it is not ours to fill. Raises StorageFailed."""
        usage = await self._usage()
        return float(1 - usage.free / usage.total)

    async def _usage(self) -> Any:
        try:
            return await in_thread(shutil.disk_usage, self._folder)
        except OSError as exc:
            raise StorageFailed(os.strerror(exc.errno or 0)) from exc
