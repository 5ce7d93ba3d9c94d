"""What the two engines say in different words."""

from typing import Any

from sqlalchemy import Text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement


class month_of(FunctionElement[str]):  # noqa: N801 - it reads as a function of SQL, as SQLAlchemy's own do
    """The month, as in 2026-11, of a moment in microseconds since the epoch; in UTC."""

    type = Text()
    inherit_cache = True


class member(FunctionElement[str]):  # noqa: N801 - the same
    """
    A member of a JSON object of strings, empty where there is none; ordered by code points.

    The name may hold neither quotation marks nor backslashes.
    """

    type = Text()
    inherit_cache = True


@compiles(month_of, "sqlite")
def _month_sqlite(element: month_of, compiler: SQLCompiler, **kw: Any) -> str:
    [at] = element.clauses
    return f"strftime('%Y-%m', {compiler.process(at, **kw)} / 1000000, 'unixepoch')"


@compiles(month_of, "postgresql")
def _month_postgresql(element: month_of, compiler: SQLCompiler, **kw: Any) -> str:
    [at] = element.clauses
    text = compiler.process(at, **kw)
    return f"to_char(to_timestamp({text} / 1000000) AT TIME ZONE 'UTC', 'YYYY-MM') COLLATE \"C\""


@compiles(member, "sqlite")
def _member_sqlite(element: member, compiler: SQLCompiler, **kw: Any) -> str:
    of, name = element.clauses
    return f"coalesce(json_extract({compiler.process(of, **kw)}, '$.\"' || {compiler.process(name, **kw)} || '\"'), '')"


@compiles(member, "postgresql")
def _member_postgresql(element: member, compiler: SQLCompiler, **kw: Any) -> str:
    of, name = element.clauses
    return f"coalesce({compiler.process(of, **kw)}::json ->> {compiler.process(name, **kw)}::text, '') COLLATE \"C\""
