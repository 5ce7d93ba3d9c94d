"""Verbs that look after what is kept, on a database that nobody else has open."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.office import RULES, Office, open_office


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    with open_office(tmp_path) as office:
        yield office


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
