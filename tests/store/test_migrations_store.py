"""A database is brought to this version's schema, all or nothing; what cannot be is refused in one line."""

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from proxy.core.errors import ConfigError
from proxy.store.migrations import FOLDER, HEAD, migrate, revision_of
from tests.store.rows import outside

ROOT = Path(__file__).parents[2]
TABLES = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"


def test_head_is_the_newest_of_one_line_of_revisions() -> None:
    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    scripts = ScriptDirectory.from_config(config)
    assert scripts.get_heads() == [HEAD]
    assert len(scripts.get_bases()) == 1


def test_new_file_gets_the_schema_of_this_version(tmp_path: Path) -> None:
    path = tmp_path / "reelay.db"
    assert revision_of(path) is None
    migrate(path)
    assert revision_of(path) == HEAD
    assert ("videos",) in outside(path, TABLES)


def test_migrating_again_changes_nothing(path: Path) -> None:
    before = path.read_bytes()
    migrate(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["50% %(here)s.db", "a?mode=ro#c.db", "our films.db", "видео.db", "a:b.db"])
def test_path_is_taken_as_it_is(tmp_path: Path, name: str) -> None:
    migrate(tmp_path / name)
    assert revision_of(tmp_path / name) == HEAD
    assert [found.name for found in tmp_path.iterdir()] == [name]


def test_database_of_a_newer_version_is_refused(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(
        ConfigError, match=f"schema 9999, which is newer than this version of Reelay \\({HEAD}\\) knows"
    ):
        migrate(path)
    assert revision_of(path) == "9999"


@pytest.mark.parametrize("content", [b"hello", b"hello" * 1000, b"SQLite format 3\0" + b"\xff" * 4000])
def test_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "reelay.db"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"reelay\.db (is not a database|cannot be opened): .+"):
        migrate(path)
    assert path.read_bytes() == content


def test_path_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing" / "reelay.db"):
        with pytest.raises(ConfigError, match="cannot be opened: unable to open database file"):
            migrate(path)


def test_migration_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "somebody-elses.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE work (what TEXT)")
    with pytest.raises(ConfigError, match=f"cannot be brought to schema {HEAD}: table work already exists"):
        migrate(path)
    assert outside(path, TABLES) == [("work",)]
    assert revision_of(path) is None


def test_two_processes_may_migrate_at_once(tmp_path: Path) -> None:
    path = tmp_path / "reelay.db"
    command = "import sys, pathlib; from proxy.store.migrations import migrate; migrate(pathlib.Path(sys.argv[1]))"
    both = [subprocess.Popen([sys.executable, "-c", command, str(path)], cwd=ROOT) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    assert revision_of(path) == HEAD


def test_copy_of_a_database_is_as_good(path: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copy(path, tmp_path / "copy.db"))
    assert revision_of(copy) == HEAD
