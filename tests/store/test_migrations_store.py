"""A database is brought to this version's schema, all or nothing; what cannot be is refused in one line."""

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from proxy.core.errors import ConfigError
from proxy.store.migrations import FOLDER, HEAD, migrate, revision_of
from proxy.store.videos import encode
from tests.databases import ENGINES, Database, server
from tests.policy.policies import make_spec
from tests.store.rows import AT, PLAN, outside

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


def upgraded(place: Path | str, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    config.attributes["place"] = place
    command.upgrade(config, revision)


@pytest.mark.parametrize("engine", ENGINES)
def test_costs_from_before_there_were_reports_by_rule_are_told_by_what_their_videos_say(
    tmp_path: Path, engine: str
) -> None:
    place: Path | str = tmp_path / "old.db" if engine == "sqlite" else server().bare()
    upgraded(place, "0005")
    database = Database(place=place, folder=tmp_path)
    spec, plan = encode(make_spec()), encode(PLAN)
    database.write("INSERT INTO tenants VALUES ('acme', 'Acme', '0', 0, 0, 1)")
    database.write(
        "INSERT INTO videos (id, tenant_id, end_user, status, model, spec, metadata, plan, progress, created_at,"
        " deadline_at, hold, hold_microusd, charged_microusd, delivered_no, key_id)"
        " VALUES ('video_1', 'acme', 'eu_1', 'completed', 'seedance-2.0', ?, ?, ?, 1, 1, 2, 'posted', 9, 7, 2, 'k')",
        spec, b'{"team":"ads"}', plan,
    )  # fmt: skip
    for number, cost, bearer in ((1, 3, "absorbed:failed_attempt"), (2, 5, "tenant")):
        database.write(
            "INSERT INTO attempts (video_id, number, offer, provider, seller_model, state, client_ref, started_at,"
            " possible_microusd, cost_microusd, cost_stated, bearer, asks, missing, fetches)"
            " VALUES ('video_1', ?, 'p/m', 'p', 'm', 'done', 'r', 1, 9, ?, ?, ?, 0, 0, 0)",
            number, cost, number - 1, bearer,
        )  # fmt: skip
    for number, kind, seconds in ((0, "hold", None), (1, "absorb", None), (2, "post", 4)):
        database.write(
            "INSERT INTO ledger_transactions (id, kind, video_id, attempt_no, at, tenant_id, end_user, provider, model,"
            " book_hash, rules_hash, billed_seconds)"
            " VALUES (?, ?, 'video_1', ?, ?, 'acme', 'eu_1', 'p', 'seedance-2.0', 'b', 'r', ?)",
            f"video_1/{number}/{kind}", kind, number, AT, seconds,
        )  # fmt: skip
    for place_of, account, amount in (
        ("1/absorb", "absorbed:failed_attempt", 3), ("1/absorb", "provider:p:payable", -3),
        ("2/post", "tenant:acme:spend", 7), ("2/post", "provider:p:payable", -5), ("2/post", "tenant:acme:markup", -2),
    ):  # fmt: skip
        database.write("INSERT INTO ledger_postings VALUES (?, ?, ?)", f"video_1/{place_of}", account, amount)
    migrate(place)
    kinds = ("standard", "text-to-video", "720p", "default", "k", "eu_1", '{"team":"ads"}')
    found = database.rows(
        "SELECT kind, outcome, tier, operation, resolution, rule, key_id, end_user, metadata, seconds,"
        " charged_microusd, seller_microusd, assumed_microusd, markup_microusd, absorbed_microusd, at_dearest_microusd"
        " FROM settlements ORDER BY id"
    )
    assert found == [
        ("absorb", "failed_attempt", *kinds, 0, 0, 3, 3, 0, 3, 0),
        ("post", "delivered", *kinds, 4, 7, 5, 0, 2, 0, 7),
    ]
