"""Every statement speaks both engines' language, is given all its values, and says what it is for."""

import inspect
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import psycopg
import pytest
from sqlalchemy import bindparam, insert, select

from proxy.store import health, lanes, ledger, tenants, upkeep, videos, work
from proxy.store.base import ROWS_MAX, Statement, Store, Tx, as_structs, fields_of
from proxy.store.postgres import DIALECT as POSTGRESQL
from proxy.store.sqlite import DIALECT as SQLITE
from proxy.store.tables import facts
from tests.databases import Database

MODULES = (health, lanes, ledger, tenants, upkeep, videos, work)


def statements_in(module: ModuleType) -> Iterator[tuple[str, Statement]]:
    """Those that stand alone in a module, and those that stand in a table of several."""
    for name, value in vars(module).items():
        if isinstance(value, Statement):
            yield name, value
        elif isinstance(value, dict):
            yield from ((f"{name}[{key}]", each) for key, each in value.items() if isinstance(each, Statement))


def statement_functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    for module in MODULES:
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if function.__module__ == module.__name__ and not name.startswith("_"):
                parameters = list(inspect.signature(function).parameters)
                if parameters[:1] == ["tx"]:
                    yield f"{module.__name__}.{name}", function


EVERY = [each for module in MODULES for _, each in statements_in(module)]


def understood(database: Database, statement: Statement) -> None:
    """Raises where the engine would refuse the statement, whatever its values."""
    if isinstance(database.place, Path):
        text = statement.text(SQLITE)
        with closing(sqlite3.connect(database.place)) as connection:
            connection.execute(f"EXPLAIN {text.sql}", [None] * text.sql.count("?"))
        return
    with psycopg.connect(database.place) as server:
        server.execute(f"PREPARE this AS {statement.text(POSTGRESQL).sql}".encode())


def test_every_statement_is_understood_by_both_engines(database: Database) -> None:
    for statement in EVERY:
        understood(database, statement)


def test_every_room_of_the_store_has_statements() -> None:
    for module in MODULES:
        assert list(statements_in(module)), module
    assert len(EVERY) > 40


@pytest.mark.parametrize(("name", "function"), [pytest.param(*each, id=each[0]) for each in statement_functions()])
def test_statement_function_says_in_a_line_what_it_is_for(name: str, function: Callable[..., Any]) -> None:
    text = inspect.getdoc(function)
    assert text, f"{name} does not say what it is for"
    first = text.splitlines()[0]
    assert first[0].isupper()
    assert first[-1] in ".;", f"{name}: {first!r}"


def test_claims_of_several_processes_pass_each_other_by() -> None:
    (claim,) = [each for name, each in statements_in(work) if name == "_CLAIM"]
    assert "FOR UPDATE SKIP LOCKED" in claim.text(POSTGRESQL).sql
    assert "FOR UPDATE" not in claim.text(SQLITE).sql


# A unit's side

BY_NAME = Statement(select(facts.c.value).where(facts.c.name == bindparam("name")))
EVERYTHING = Statement(select(facts.c.name, facts.c.value).where(facts.c.name != "schema_beside"))
BY_NAMES = Statement(select(facts.c.name).where(facts.c.name.in_(["a", "b"]), facts.c.value == bindparam("value")))


async def test_values_are_given_by_name(store: Store) -> None:
    await store.write(lambda tx: tenants.set_fact(tx, "a", "1"))
    assert await store.read(lambda tx: tx.one(BY_NAME, name="a")) == ("1",)
    assert await store.read(lambda tx: tx.one(BY_NAME, name="b")) is None
    assert await store.read(lambda tx: tx.rows(BY_NAMES, value="1")) == [("a",)]
    assert await store.read(lambda tx: tx.rows(BY_NAMES, value="2")) == []


async def test_value_that_is_not_given_is_an_error(store: Store) -> None:
    for statement in (BY_NAME, BY_NAMES):
        with pytest.raises(KeyError):
            await store.read(lambda tx, statement=statement: tx.rows(statement))  # type: ignore[misc]  # the default binds the loop's value


INSERT = Statement(insert(facts).values(name=bindparam("name"), value=bindparam("value")))
INSERT_ONES = Statement(insert(facts).values(name=bindparam("name"), value="1"))


@pytest.mark.parametrize("count", [1, 2, ROWS_MAX - 1, ROWS_MAX, ROWS_MAX + 1, 3 * ROWS_MAX + 5])
async def test_however_many_rows_are_written_as_they_were_given(store: Store, count: int) -> None:
    given = {f"a{number:03}": str(number) for number in range(count)}
    ones = {f"b{number:03}": "1" for number in range(count)}

    def unit(tx: Tx) -> None:
        tx.run_many(INSERT, [{"value": value, "name": name} for name, value in given.items()])
        tx.run_many(INSERT_ONES, ({"name": name} for name in ones))

    await store.write(unit)
    assert dict(await store.read(lambda tx: tx.rows(EVERYTHING))) == given | ones


class Pair(msgspec.Struct, frozen=True):
    name: str
    value: str


async def test_struct_is_written_as_its_fields(store: Store) -> None:
    several = [Pair(name=name, value=name.upper()) for name in "abc"]
    await store.write(lambda tx: tx.run_many(INSERT, several))
    assert dict(await store.read(lambda tx: tx.rows(EVERYTHING))) == {"a": "A", "b": "B", "c": "C"}


async def test_many_of_nothing_is_nothing(store: Store) -> None:
    def unit(tx: Tx) -> None:
        work.add(tx, [])
        videos.insert_many(tx, [])
        ledger.write_many(tx, [])

    await store.write(unit)


def test_row_and_struct_are_the_same_by_the_order_of_fields() -> None:
    pair = Pair(name="a", value="1")
    assert fields_of(pair) == {"name": "a", "value": "1"}
    assert as_structs(Pair, [("a", "1")]) == [pair]


def test_row_of_another_width_is_an_error() -> None:
    with pytest.raises(ValueError, match="1 columns are no Pair"):
        as_structs(Pair, [("a",)])
