"""Verbs run in this process, each in a folder of its own."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import structlog
from click.testing import CliRunner

from proxy.cli import reelay
from proxy.core.errors import ReelayError

RULES = """
version: 1
providers:
  first: {adapter: ADAPTER, api_key: "${FIRST_KEY}"}
rules: [{name: default, strategy: cheapest}]
""".replace("ADAPTER", "fal")


class Office:
    """A folder in which verbs are run, with rules, a database and a place for films."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rules = folder / "rules.yaml"
        self.rules.write_text(RULES)
        self.database = folder / "data" / "reelay.db"
        self.env = {
            "REELAY_DATABASE_URL": f"sqlite:///{self.database}",
            "REELAY_STORAGE_URL": f"file:{folder}/films",
            "REELAY_RULES": str(self.rules),
            "COLUMNS": "100",
        }

    def says(self, *arguments: str, **env: str) -> str:
        done = CliRunner().invoke(reelay, arguments, env=self.env | env, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    def refuses(self, *arguments: str, **env: str) -> str:
        with pytest.raises(ReelayError) as caught:
            CliRunner().invoke(reelay, arguments, env=self.env | env, catch_exceptions=False)
        return str(caught.value)


@contextmanager
def open_office(folder: Path) -> Iterator[Office]:
    """Verbs send their log where this test's output goes, which ends with the test."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield Office(folder)
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
