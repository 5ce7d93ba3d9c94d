"""The migrations together give exactly the tables that are written down; what is append-only is never changed."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, create_engine

from proxy.store.sqlite import connect
from proxy.store.tables import APPEND_ONLY, metadata

Shape = dict[str, Any]


@pytest.fixture(scope="module")
def written_down(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database made from tables.py alone."""
    path = tmp_path_factory.mktemp("tables") / "tables.db"
    engine = create_engine(URL.create("sqlite", database=str(path)))
    metadata.create_all(engine)
    engine.dispose()
    return path


def shape_of(path: Path) -> Shape:
    """Everything that SQLite knows of its tables but their rows, triggers and order of columns."""
    with closing(sqlite3.connect(path)) as connection:
        tables = connection.execute(
            "SELECT name, strict FROM pragma_table_list WHERE schema = 'main' AND type = 'table'"
        )
        return {
            name: {
                "strict": strict,
                "columns": sorted(columns(connection, name)),
                "indexes": sorted(indexes(connection, name)),
                "foreign_keys": sorted(foreign_keys(connection, name)),
            }
            for name, strict in tables.fetchall()
            if name not in {"sqlite_schema", "alembic_version"}
        }


def columns(connection: sqlite3.Connection, table: str) -> Iterator[tuple[Any, ...]]:
    """Name, type, whether it must be given, default, place in the primary key."""
    query = "SELECT name, type, \"notnull\", coalesce(dflt_value, ''), pk FROM pragma_table_info(?)"
    yield from connection.execute(query, [table])


def indexes(connection: sqlite3.Connection, table: str) -> Iterator[tuple[Any, ...]]:
    """Name, unique or not, why it is there, its columns in order, and its condition."""
    for name, unique, origin in connection.execute('SELECT name, "unique", origin FROM pragma_index_list(?)', [table]):
        (sql,) = connection.execute("SELECT coalesce(sql, '') FROM sqlite_master WHERE name = ?", [name]).fetchone()
        condition = re.sub(r"\s+", " ", sql.partition(" WHERE ")[2])
        parts = connection.execute("SELECT name, desc FROM pragma_index_xinfo(?) WHERE key ORDER BY seqno", [name])
        # An index that a constraint brings has a name by its order among them.
        yield (name if origin == "c" else "", unique, origin, tuple(parts.fetchall()), condition)


def foreign_keys(connection: sqlite3.Connection, table: str) -> Iterator[tuple[Any, ...]]:
    yield from connection.execute(
        'SELECT "from", "table", "to", on_update, on_delete FROM pragma_foreign_key_list(?)', [table]
    )


def test_migrations_together_give_the_tables_that_are_written_down(path: Path, written_down: Path) -> None:
    migrated, drawn = shape_of(path), shape_of(written_down)
    assert set(migrated) == set(metadata.tables) == set(drawn)
    for table in metadata.tables:
        assert migrated[table] == drawn[table], table


def test_shapes_would_tell_a_difference(tmp_path: Path) -> None:
    shapes = []
    for number, sql in enumerate(
        [
            "CREATE TABLE a (x TEXT NOT NULL) STRICT",
            "CREATE TABLE a (x TEXT NOT NULL)",
            "CREATE TABLE a (x TEXT) STRICT",
            "CREATE TABLE a (x INTEGER NOT NULL) STRICT",
            "CREATE TABLE a (x TEXT NOT NULL) STRICT; CREATE INDEX i ON a (x)",
            "CREATE TABLE a (x TEXT NOT NULL) STRICT; CREATE UNIQUE INDEX i ON a (x)",
            "CREATE TABLE a (x TEXT NOT NULL) STRICT; CREATE INDEX i ON a (x) WHERE x = 'y'",
            "CREATE TABLE a (x TEXT NOT NULL PRIMARY KEY) STRICT",
            "CREATE TABLE a (x TEXT NOT NULL REFERENCES b) STRICT",
        ]
    ):
        path = tmp_path / f"{number}.db"
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(sql)
        shapes.append(shape_of(path))
    assert all(one != other for place, one in enumerate(shapes) for other in shapes[:place])


def test_every_table_is_strict_and_every_row_has_a_name(path: Path) -> None:
    for table, shape in shape_of(path).items():
        assert shape["strict"] == 1, table
        assert any(primary for *_, primary in shape["columns"]), table


# Append only

ROWS = {
    "ledger_transactions": "INSERT INTO ledger_transactions (id, kind, video_id, attempt_no, at, tenant_id, model,"
    " book_hash, rules_hash) VALUES ('t', 'hold', 'v', 0, 1, 'acme', 'm', 'b', 'r')",
    "ledger_postings": "INSERT INTO ledger_postings VALUES ('t', 'credits:acme', -5)",
    "closings": "INSERT INTO closings VALUES ('1969-12', 0, 1, 'cli')",
    "statements": "INSERT INTO statements VALUES ('1969-12-1', 'acme', '1969-12', x'7b7d')",
    "admin_log": "INSERT INTO admin_log (id, at, actor, action, subject) VALUES ('a', 1, 'cli', 'x', 'y')",
}
CHANGES = {
    "ledger_transactions": "UPDATE ledger_transactions SET at = at",
    "ledger_postings": "UPDATE ledger_postings SET amount_microusd = 0",
    "closings": "UPDATE closings SET ends_at = 0",
    "statements": "UPDATE statements SET document = x''",
    "admin_log": "UPDATE admin_log SET reason = 'better so'",
}


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(connect(path)) as connection:
        connection.execute(
            "INSERT INTO tenants (id, name, markup, allow_filter_off, require_end_user_id, created_at)"
            " VALUES ('acme', 'Acme', '0', 0, 0, 1)"
        )
        for sql in ROWS.values():
            connection.execute(sql)
        yield connection


@pytest.mark.parametrize("table", APPEND_ONLY)
def test_row_of_the_books_is_never_changed_nor_removed(connection: sqlite3.Connection, table: str) -> None:
    before = connection.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608 - a name of ours
    for change in (CHANGES[table], f"DELETE FROM {table}"):  # noqa: S608 - the same
        with pytest.raises(sqlite3.IntegrityError, match=f"{table} is append-only"):
            connection.execute(change)
    assert connection.execute(f"SELECT * FROM {table}").fetchall() == before  # noqa: S608 - the same


def test_books_are_the_only_tables_that_refuse_a_change(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        triggers = connection.execute("SELECT name, tbl_name FROM sqlite_master WHERE type = 'trigger'").fetchall()
    refused = [(f"{table}_no_{verb}", table) for table in APPEND_ONLY for verb in ("update", "delete")]
    others = [("ledger_transactions_no_closed", "ledger_transactions")]
    others += [(f"settlements_no_{verb}", "settlements") for verb in ("update", "delete")]
    assert sorted(triggers) == sorted([*refused, *others])
    assert set(APPEND_ONLY) == set(ROWS) == set(CHANGES)
