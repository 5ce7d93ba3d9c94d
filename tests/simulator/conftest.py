"""A sandbox on a real socket, its clock moved by hand."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.simulator.film import READY_MADE, Films
from tests.simulator.shopping import Letterbox, Shopper, opened


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ready-made clip, made once for all tests."""
    folder = tmp_path_factory.mktemp("films")

    async def make() -> None:
        studio = Films(folder, ready_made=True)
        await studio.clip(READY_MADE)
        studio.close()

    asyncio.run(make())
    return folder


@pytest.fixture
def folder(tmp_path: Path, films: Path) -> Path:
    shutil.copytree(films, tmp_path / "films")
    return tmp_path


@pytest.fixture
async def shopper(folder: Path) -> AsyncIterator[Shopper]:
    """A sandbox whose time stands still until stepped, with one clip for everything."""
    async with opened(folder, ready_made_clip=True) as shopper:
        await shopper.admin("clock", {"manual": True})
        yield shopper


@pytest.fixture
async def letterbox() -> AsyncIterator[Letterbox]:
    box = Letterbox()
    server = await asyncio.start_server(box.receive, "127.0.0.1", 0)
    box.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    async with server:
        yield box
