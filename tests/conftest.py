"""What tests in the top folder share."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from tests.office import Office


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    """Verbs send their log where this test's output goes, which ends with the test."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield Office(tmp_path)
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
