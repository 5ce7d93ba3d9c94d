"""The stage of the tests in this folder."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.whole.stage import Stage


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """Nothing runs yet: the test starts sellers and server as it needs them."""
    async with AsyncExitStack() as stack:
        yield Stage(tmp_path, stack)
