"""A database is brought to this version's schema, all or nothing; what cannot be is refused in one line."""

import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from proxy.core.errors import ConfigError
from proxy.store.migrations import FOLDER, HEAD, migrate, revision_of, works_beside
from proxy.store.videos import encode
from tests import newer
from tests.databases import ENGINES, Database, server
from tests.policy.policies import make_spec
from tests.store import expanding
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
        connection.execute("UPDATE facts SET value = '9999' WHERE name = 'schema_beside'")
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


@pytest.fixture
def place(engine: str, path: Path) -> Iterator[Path | str]:
    """A database at this version's schema, which a test may bring to another."""
    if engine == "sqlite":
        yield path
        return
    yield server().new()


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def database_at(place: Path | str, folder: Path) -> Database:
    return Database(place=place, folder=folder)


def test_version_works_on_beside_a_newer_one_that_expands_the_schema(place: Path | str, tmp_path: Path) -> None:
    """Or else a process that is started again during a deployment would stay away."""
    assert newer.migrate(newer.write_version(tmp_path / "next", newer.EXPANDS, newer.INDEXES), place) == ""
    assert (revision_of(place), works_beside(place)) == (f"{int(HEAD) + 2:04d}", True)
    migrate(place)
    assert revision_of(place) == f"{int(HEAD) + 2:04d}"


def test_version_stays_away_from_a_newer_one_that_contracts_the_schema(place: Path | str, tmp_path: Path) -> None:
    drops = 'op.drop_column("videos", "footage")'
    assert newer.migrate(newer.write_version(tmp_path / "next", drops, beside=newer.NEXT), place) == ""
    assert not works_beside(place)
    with pytest.raises(ConfigError, match=f"schema {newer.NEXT}, which is newer"):
        migrate(place)


def test_all_processes_that_are_started_at_once_find_the_schema_of_the_newest(
    place: Path | str, tmp_path: Path
) -> None:
    versions = [
        newer.write_version(tmp_path / "next", newer.EXPANDS),
        newer.write_version(tmp_path / "after", newer.EXPANDS, newer.INDEXES),
    ]
    processes = [newer.Migrating(version, place) for version in versions * 2]
    assert [process.end() for process in processes] == [""] * 4
    assert revision_of(place) == f"{int(HEAD) + 2:04d}"
    assert mood_index(place, tmp_path) == [(True,)]


def mood_index(place: Path | str, folder: Path) -> list[tuple[Any, ...]]:
    """Whether it is valid, where there is such a thing; empty: no index."""
    if isinstance(place, Path):
        return outside(place, "SELECT 1 FROM sqlite_master WHERE name = 'videos_by_mood'")
    query = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('videos_by_mood')"
    return database_at(place, folder).rows(query)


# The rule for revisions


def found_in(folder: Path, tmp_path: Path) -> list[str]:
    return expanding.mistakes(folder, Database(place=server().bare(), folder=tmp_path))


def test_every_revision_leaves_the_version_before_at_work_or_says_that_it_does_not(tmp_path: Path) -> None:
    assert found_in(FOLDER, tmp_path) == []
    assert found_in(newer.write_version(tmp_path / "next", newer.EXPANDS, newer.INDEXES), tmp_path) == []


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ('op.drop_column("videos", "footage")', "videos.footage is gone"),
        ('op.alter_column("videos", "prompt", new_column_name="text")', "videos.prompt is gone"),
        ('op.drop_table("lanes")', "lanes.provider is gone"),
        (
            'op.alter_column("videos", "metadata", nullable=False)',
            "videos.metadata was bytea, null YES, and is bytea, null NO",
        ),
        (
            'op.alter_column("work", "nudged", type_=sa.Text())',
            "work.nudged was bigint, null NO, and is text, null NO",
        ),
        ('op.add_column("work", sa.Column("why", sa.Text(), nullable=False))', "work.why has to be given"),
        ('op.create_check_constraint("some", "work", "due_at > 0")', "some on work is new"),
        ('op.create_index("one", "work", ["owner"], unique=True)', "one on work is unique"),
        ('op.create_index("one", "work", ["owner"])', "one is not built by build_index"),
        ('op.execute("DROP TRIGGER admin_log_no_update ON admin_log")', "admin_log_no_update on admin_log is another"),
        ('op.execute("UPDATE videos SET progress = 1")', "changes rows: UPDATE videos SET progress = 1"),
        (
            newer.EXPANDS + newer.INDEXES,
            f"an index on a table that is in use stands alone in its revision, not in {newer.NEXT}_to_come.py",
        ),
    ],
)
def test_revision_that_would_stop_the_version_before_is_found(tmp_path: Path, body: str, found: str) -> None:
    assert f"{newer.NEXT}: {found}" in found_in(newer.write_version(tmp_path / "next", body), tmp_path)
    if found.endswith(("is gone", "has to be given")):
        assert found_in(newer.write_version(tmp_path / "own", body, beside=newer.NEXT), tmp_path) == []


def test_revision_that_says_not_whom_it_leaves_at_work_is_found(tmp_path: Path, path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        ((least,),) = connection.execute("SELECT value FROM facts WHERE name = 'schema_beside'").fetchall()
    silent = newer.write_version(tmp_path / "silent", newer.EXPANDS)
    [script] = (silent / "versions").glob(f"{newer.NEXT}*")
    script.write_text(script.read_text().replace("beside =", "aside ="))
    assert found_in(silent, tmp_path) == [f"{newer.NEXT}: beside is None, not from {least} to {newer.NEXT}"]
    older = newer.write_version(tmp_path / "older", newer.EXPANDS, beside="0001")
    assert found_in(older, tmp_path) == [f"{newer.NEXT}: beside is 0001, not from {least} to {newer.NEXT}"]


# Beside traffic, which there is on PostgreSQL alone


@contextmanager
def traffic(url: str) -> Iterator[list[float]]:
    """Seconds that a look at a hot table and a write to it take, asked again and again meanwhile."""
    took, over = list[float](), threading.Event()

    def ask() -> None:
        with closing(psycopg.connect(url, autocommit=True)) as connection:
            while not over.wait(0.02):
                begun = time.monotonic()
                connection.execute("SELECT count(*) FROM videos")
                connection.execute("UPDATE videos SET progress = progress")
                took.append(time.monotonic() - begun)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield took
    finally:
        over.set()
        asking.join()


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("lock", ["ACCESS SHARE", "ROW EXCLUSIVE"])
def test_migration_that_waits_for_somebody_keeps_nobody_else_waiting(tmp_path: Path, lock: str) -> None:
    url = server().new()
    version = newer.write_version(tmp_path / "next", newer.EXPANDS, newer.INDEXES)
    query = (
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )

    def waits() -> bool:
        return database_at(url, tmp_path).rows(query) == [(1,)]

    with closing(psycopg.connect(url)) as slow, traffic(url) as took:
        slow.execute(f"LOCK TABLE videos IN {lock} MODE".encode())
        process = newer.Migrating(version, url)
        for _ in range(2):  # it gives up, and tries again
            until(waits)
            until(lambda: not waits())
        assert not process.is_over
        assert revision_of(url) == HEAD
        slow.rollback()
        assert process.end() == ""
    assert revision_of(url) == f"{int(HEAD) + 2:04d}"
    assert 0.5 < max(took) < 5, "the traffic came in the way of it"


def test_index_keeps_nobody_waiting_while_it_is_built(tmp_path: Path) -> None:
    url = server().new()
    assert newer.migrate(newer.write_version(tmp_path / "next", newer.EXPANDS), url) == ""
    with closing(psycopg.connect(url)) as slow, traffic(url) as took:
        # Older than the index, which has to wait for it.
        slow.execute("UPDATE videos SET progress = progress")
        process = newer.Migrating(newer.write_version(tmp_path / "after", newer.EXPANDS, newer.INDEXES), url)
        until(lambda: mood_index(url, tmp_path) == [(False,)])
        begun = len(took)
        time.sleep(2)  # longer than a lock is waited for
        assert len(took) > begun + 10
        assert mood_index(url, tmp_path) == [(False,)], "it is still being built"
        slow.rollback()
        assert process.end() == ""
    assert mood_index(url, tmp_path) == [(True,)]


def test_index_whose_building_was_broken_off_is_built_anew(tmp_path: Path) -> None:
    url = server().new()
    assert newer.migrate(newer.write_version(tmp_path / "next", newer.EXPANDS), url) == ""
    version = newer.write_version(tmp_path / "after", newer.EXPANDS, newer.INDEXES)
    with closing(psycopg.connect(url)) as slow:
        slow.execute("UPDATE videos SET progress = progress")
        process = newer.Migrating(version, url)
        until(lambda: mood_index(url, tmp_path) == [(False,)])
        process.kill()
        database_at(url, tmp_path).rows(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND query LIKE 'CREATE INDEX%'"
        )
    assert mood_index(url, tmp_path) == [(False,)]
    assert newer.migrate(version, url) == ""
    assert mood_index(url, tmp_path) == [(True,)]


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
