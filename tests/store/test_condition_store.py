"""How a database is, seen from beside whoever has it open."""

import sqlite3
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from proxy.core.clock import SECOND_US, system_clock
from proxy.core.errors import ConfigError
from proxy.store.condition import look_at_file, look_at_server
from proxy.store.sqlite import connect
from tests.databases import file_in, server
from tests.ports import free_port


def test_file_is_told_with_its_log_and_as_free(tmp_path: Path) -> None:
    path = file_in(tmp_path).place
    assert isinstance(path, Path)
    with closing(connect(path)) as writer:
        writer.execute("INSERT INTO facts VALUES ('a', 'b')")
        seen = look_at_file(path)
        assert (seen.journal_mode, seen.locked) == ("wal", None)
        assert seen.size_bytes == path.stat().st_size
        assert seen.log_bytes == path.with_name("reelay.db-wal").stat().st_size > 0
        writer.execute("BEGIN IMMEDIATE")
        assert look_at_file(path).locked == "database is locked"


def test_file_that_cannot_be_written_says_why(tmp_path: Path) -> None:
    path = file_in(tmp_path).place
    assert isinstance(path, Path)
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as reader:
        reader.execute("SELECT 1")
    with pytest.raises(ConfigError, match="gone cannot be opened: unable to open database file"):
        look_at_file(tmp_path / "gone")
    assert not (tmp_path / "gone").exists()


def test_server_is_told_with_what_stands_still_on_it() -> None:
    url = server().new()
    seen = look_at_server(url, system_clock)
    assert (seen.writable, seen.idle_s, seen.waiting) == (True, 0, 0)
    assert abs(seen.ahead_us) < SECOND_US
    assert 2 < seen.connections_left <= seen.connections_most
    assert seen.version.startswith(f"{seen.version_number // 10_000}.")
    with psycopg.connect(url) as idle, psycopg.connect(url) as other:
        idle.execute("SELECT pg_sleep(1)")  # the transaction began before it, and stands still after it
        assert look_at_server(url, system_clock).connections_left == seen.connections_left - 2
        other.rollback()
        idle.rollback()
    server().give_back(url)


def test_server_that_does_not_answer_is_one_line_without_the_password() -> None:
    with pytest.raises(ConfigError) as caught:
        look_at_server(f"postgresql://reelay:hush@127.0.0.1:{free_port()}/reelay", system_clock)
    assert "hush" not in str(caught.value)
    assert "\n" not in str(caught.value)
