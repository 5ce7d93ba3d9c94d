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
        "0 idempotency keys, 0 outcomes and 0 counters were dropped.",
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
        "counters": 0,
        "left_behind": {"files": 0, "file_bytes": 0, "not_ours": 1},
    }
    assert film.exists()
    assert "1 films of videos that this database does not know are left alone." in office.says("prune")


def test_rules_that_cannot_be_read_prune_nothing(office: Office) -> None:
    office.rules.write_text(RULES + "retention: {files_days: 0}\n")
    assert "files_days" in office.refuses("prune")


def test_backup_says_what_else_has_to_be_kept(office: Office) -> None:
    office.says("tenants", "create", "films")
    target = office.folder / "copy.db"
    told = office.says("backup", str(target)).splitlines()
    assert told == [
        f"{target} holds the database as it is now, {target.stat().st_size} bytes.",
        f"Keep a copy of {office.folder}/data/secret too, elsewhere: without it no API key opens anything.",
        f"Films are not in it; they lie in file:{office.folder}/films.",
    ]
    assert office.refuses("backup", str(target)) == f"{target} is there already; a backup overwrites nothing"
    other = office.says("backup", str(office.folder / "other.db"), REELAY_SECRET="a-secret-of-tests-only")
    assert "Keep REELAY_SECRET too" in other


def test_backup_of_nothing_makes_nothing(office: Office) -> None:
    told = office.refuses("backup", str(office.folder / "copy.db"))
    assert told == f"there is no database at {office.database}"
    assert not office.database.parent.exists()


def test_postgresql_is_backed_up_by_its_own_means(office: Office) -> None:
    env = {"REELAY_DATABASE_URL": "postgresql://reelay@127.0.0.1/reelay", "REELAY_SECRET": "s" * 16}
    assert "its own pg_dump" in office.refuses("backup", str(office.folder / "copy.db"), **env)
