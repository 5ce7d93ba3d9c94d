"""Verbs that look after what is kept, on a database that nobody else has open."""

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from click.testing import CliRunner

from proxy.cli import reelay
from proxy.core.errors import ConfigError

RULES = """
version: 1
providers:
  first: {adapter: ADAPTER, api_key: "${FIRST_KEY}"}
rules: [{name: default, strategy: cheapest}]
""".replace("ADAPTER", "fal")


class Office:
    """Verbs in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rules = folder / "rules.yaml"
        self.rules.write_text(RULES)
        self.database = folder / "data" / "reelay.db"
        self._env = {
            "REELAY_DATABASE_URL": f"sqlite:///{self.database}",
            "REELAY_STORAGE_URL": f"file:{folder}/films",
            "REELAY_RULES": str(self.rules),
            "COLUMNS": "100",
        }

    def says(self, *arguments: str, **env: str) -> str:
        done = CliRunner().invoke(reelay, arguments, env=self._env | env, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    def refuses(self, *arguments: str, **env: str) -> str:
        with pytest.raises(ConfigError) as caught:
            CliRunner().invoke(reelay, arguments, env=self._env | env, catch_exceptions=False)
        return str(caught.value)


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield Office(tmp_path)
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_nothing_to_prune_is_told(office: Office) -> None:
    assert office.says("prune").splitlines() == [
        "0 expired films, 0 bytes, were removed.",
        "0 prompts were erased.",
        "0 idempotency keys and 0 outcomes were dropped.",
        "0 films that no video refers to, 0 bytes, were removed.",
    ]
    assert "would be removed" in office.says("prune", "--dry-run")


def test_film_of_another_database_is_told_and_left_alone(office: Office) -> None:
    film = office.folder / "films" / "default" / "video_0123abc-1-1.mp4"
    film.parent.mkdir(parents=True)
    film.write_bytes(b"film")
    os.utime(film, (1_790_000_000, 1_790_000_000))
    told = json.loads(office.says("prune", "--json"))
    assert told == {
        "dry_run": False,
        "files": 0,
        "file_bytes": 0,
        "files_stuck": 0,
        "prompts": 0,
        "idempotency_keys": 0,
        "outcomes": 0,
        "left_behind": {"files": 0, "file_bytes": 0, "not_ours": 1},
    }
    assert film.exists()
    assert "1 films of videos that this database does not know are left alone." in office.says("prune")


def test_rules_that_cannot_be_read_prune_nothing(office: Office) -> None:
    office.rules.write_text(RULES + "retention: {files_days: 0}\n")
    assert "files_days" in office.refuses("prune")
