"""What of the rule for revisions can be seen: whom they leave at work, and what they do to tables that are in use."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from alembic import command
from alembic.config import Config
from alembic.script import Script, ScriptDirectory
from sqlalchemy import Engine, event

from tests.databases import Database

LAST_FREE = "0008"
"""The last revision from before there was a rule."""

_COLUMNS = (
    "SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns"
    " WHERE table_schema = 'public'"
)
_CONSTRAINTS = (
    "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
    " WHERE connamespace = 'public'::regnamespace AND contype <> 'n'"
)
_TRIGGERS = "SELECT tgrelid::regclass::text, tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal"
_INDEXES = "SELECT indrelid::regclass::text, indexrelid::regclass::text, indisunique FROM pg_index WHERE indislive"
_CHANGES_ROWS = re.compile(r"(INSERT INTO|UPDATE|DELETE FROM) (?!alembic_version|facts\b)", re.IGNORECASE)
_BUILDS_INDEX = re.compile(
    r"CREATE (UNIQUE )?INDEX (?P<beside>CONCURRENTLY )?(IF NOT EXISTS )?(?P<name>\w+) ON (?P<of>\w+)"
)


class Shape(msgspec.Struct):
    """Each by table and name."""

    columns: dict[tuple[str, str], tuple[Any, ...]]
    constraints: dict[tuple[str, str], tuple[Any, ...]]
    triggers: dict[tuple[str, str], tuple[Any, ...]]
    indexes: dict[tuple[str, str], tuple[Any, ...]]

    @property
    def tables(self) -> set[str]:
        return {table for table, _ in self.columns}


def shape_of(database: Database) -> Shape:
    queries = (_COLUMNS, _CONSTRAINTS, _TRIGGERS, _INDEXES)
    return Shape(*({(row[0], row[1]): row[2:] for row in database.rows(query)} for query in queries))


def mistakes(folder: Path, database: Database) -> list[str]:
    """What is wrong with the revisions of these migrations, tried on a PostgreSQL database without any table."""
    config = Config()
    config.set_main_option("script_location", str(folder))
    config.attributes["place"] = database.place
    scripts = [one for one in ScriptDirectory.from_config(config).walk_revisions() if one.revision > LAST_FREE]
    command.upgrade(config, LAST_FREE)
    found, least = [], LAST_FREE
    for script in reversed(scripts):
        before, said = shape_of(database), list[str]()

        def listen(*asked: Any, said: list[str] = said) -> None:
            said.append(asked[2])

        event.listen(Engine, "before_cursor_execute", listen)
        try:
            command.upgrade(config, script.revision)
        finally:
            event.remove(Engine, "before_cursor_execute", listen)
        beside = getattr(script.module, "beside", None)
        if beside is None or not least <= beside <= script.revision:
            found.append(f"{script.revision}: beside is {beside}, not from {least} to {script.revision}")
            continue
        least = beside
        if beside < script.revision:
            found += [f"{script.revision}: {one}" for one in _of_expanding(before, shape_of(database))]
            found += [f"{script.revision}: {one}" for one in _of_waiting(script, before, said)]
    return found


def _of_expanding(before: Shape, after: Shape) -> Iterator[str]:
    """What a version that knows only the old tables could stumble over."""
    for (table, name), (type_, nullable, _) in before.columns.items():
        now = after.columns.get((table, name))
        if now is None:
            yield f"{table}.{name} is gone"
        elif now[0] != type_ or now[1] < nullable:
            yield f"{table}.{name} was {type_}, null {nullable}, and is {now[0]}, null {now[1]}"
    for (table, name), (_, nullable, default) in after.columns.items():
        if table in before.tables and (table, name) not in before.columns and nullable == "NO" and default is None:
            yield f"{table}.{name} has to be given"
    for kind in ("constraints", "triggers"):
        old, new = getattr(before, kind), getattr(after, kind)
        yield from (
            f"{name} on {table} is another" for table, name in old if new.get((table, name)) != old[table, name]
        )
        yield from (f"{name} on {table} is new" for table, name in new.keys() - old if table in before.tables)
    for (table, name), (unique,) in after.indexes.items():
        if unique and table in before.tables and (table, name) not in before.indexes:
            yield f"{name} on {table} is unique"


def _of_waiting(script: Script, before: Shape, said: list[str]) -> Iterator[str]:
    """What would keep others waiting."""
    yield from (f"changes rows: {one}" for one in said if _CHANGES_ROWS.match(one.strip()))
    built = [one for one in map(_BUILDS_INDEX.match, said) if one and one["of"] in before.tables]
    yield from (f"{one['name']} is not built by build_index" for one in built if not one["beside"])
    if built and any(re.match(r"(ALTER|CREATE|DROP) (TABLE|TRIGGER|FUNCTION)", one.strip()) for one in said):
        yield f"an index on a table that is in use stands alone in its revision, not in {Path(script.path).name}"
