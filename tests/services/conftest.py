"""Houses on real database files, for the tests in this folder."""

from collections.abc import AsyncIterator

import pytest

from tests.databases import Database
from tests.outside.films import make_film
from tests.services.rehearsal import Rehearsal, rehearse


@pytest.fixture(scope="session")
def film() -> bytes:
    """Four seconds of 720p, as most of these tests order."""
    return make_film(seconds=4, width_px=1280, height_px=720)


@pytest.fixture
async def house(database: Database, film: bytes) -> AsyncIterator[Rehearsal]:
    """Waits where a submit's end is unknown, as is the default."""
    async with rehearse(database, film) as rehearsal:
        yield rehearsal


@pytest.fixture
async def bold(database: Database, film: bytes) -> AsyncIterator[Rehearsal]:
    """Buys elsewhere where a submit's end is unknown."""
    async with rehearse(database, film, on_unknown="fallback") as rehearsal:
        yield rehearsal
