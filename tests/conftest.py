"""Databases on both engines, for whoever asks."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.databases import ENGINES, Database, Templates


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Templates]:
    """A server is started only when the first test asks for one."""
    templates = Templates(tmp_path_factory.mktemp("templates"))
    yield templates
    templates.close()


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """Each test that asks for it runs on each."""
    name: str = request.param
    return name


@pytest.fixture
def database(engine: str, templates: Templates, tmp_path: Path) -> Iterator[Database]:
    """Empty, and this test's alone."""
    made = templates.make(engine, tmp_path)
    yield made
    templates.give_back(made)
