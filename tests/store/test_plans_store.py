"""No statement goes through a table that grows for ever, whatever SQLite knows of what is in it."""

import importlib
import pkgutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import proxy.store
from proxy.store.base import Statement
from proxy.store.sqlite import DIALECT

SMALL = {
    "admin_log",
    "api_keys",
    "budgets",
    "closings",
    "lanes",
    "learned_times",
    "price_overrides",
    "statements",
    "tenants",
}
"""They grow with what operators do, with what is sold and with months, not with what is bought."""

OVER_SOME = {"videos_held", "attempts_in_flight", "places_by_provider", "settlements_that_differ"}
"""Indexes over what is under way alone, or what is rare."""

WHOLE = {
    "proxy.store.ledger._BALANCES": "the audit adds up everything",
    "proxy.store.audit._UNBALANCED": "the same",
    "proxy.store.audit._CHARGES": "the same, page by page",
    "proxy.store.audit._UNLIKE": "the same",
    "proxy.store.budgets._EVERY": "the same",
    "proxy.store.work._RELEASE_ALL": "once a start",
}


def _statements() -> Iterator[tuple[str, Statement]]:
    for found in pkgutil.iter_modules(proxy.store.__path__, "proxy.store."):
        for name, value in vars(importlib.import_module(found.name)).items():
            whole = f"{found.name}.{name}"
            if isinstance(value, Statement):
                yield whole, value
            elif isinstance(value, dict):
                for key, one in value.items():
                    if isinstance(one, Statement):
                        yield f"{whole}[{key}]", one


STATEMENTS = dict(_statements())


def test_statements_were_found() -> None:
    assert len(STATEMENTS) > 80
    assert WHOLE.keys() <= STATEMENTS.keys()


def _plan(path: Path, name: str) -> list[str]:
    sql = STATEMENTS[name].text(DIALECT).sql
    with closing(sqlite3.connect(path)) as database:
        return [row[3] for row in database.execute(f"explain query plan {sql}", [None] * sql.count("?"))]


@pytest.mark.parametrize("name", [name for name in STATEMENTS if name not in WHOLE])
def test_statement_finds_its_rows_by_an_index(path: Path, name: str) -> None:
    with closing(sqlite3.connect(path)) as database:
        tables = {row[0] for row in database.execute("select name from sqlite_schema where type = 'table'")}
    for step in _plan(path, name):
        words = step.split(" ")
        if words[0] == "SCAN" and words[1] in tables - SMALL:
            assert words[-1] in OVER_SOME, step


def test_who_is_at_a_provider_is_counted_without_reading_a_row(path: Path) -> None:
    """It is, before every send there: a look at all that ever went there would take longer from day to day."""
    counting = "SEARCH attempts USING COVERING INDEX attempts_in_flight (provider=? AND state=?)"
    assert _plan(path, "proxy.store.lanes._COUNT") == [counting]
    assert _plan(path, "proxy.store.lanes._IN_FLIGHT")[0] == counting.replace("COVERING ", "")
