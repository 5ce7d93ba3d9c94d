"""Databases on both engines, for whoever asks; and the order of all tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.databases import ENGINES, Database, file_in, server

# How long an example takes says more of what else the machine does than of us.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """Each test that asks for it runs on each."""
    name: str = request.param
    return name


@pytest.fixture
def database(engine: str, tmp_path: Path) -> Iterator[Database]:
    """Empty, and this test's alone."""
    if engine == "sqlite":
        yield file_in(tmp_path)
        return
    url = server().new()
    yield Database(place=url, folder=tmp_path)
    server().give_back(url)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first, so that no process is left alone with it in the end."""
    items.sort(key=lambda item: "/whole/" not in item.nodeid)
