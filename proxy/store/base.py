"""How a unit of work speaks to the database, whichever engine runs it."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any, Literal, Protocol, TypeVar

import msgspec
from sqlalchemy import BindParameter, Dialect, bindparam
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.visitors import iterate

from proxy.core.clock import Clock

T = TypeVar("T")
A = TypeVar("A")
R = TypeVar("R")
Row = TypeVar("Row", bound=msgspec.Struct)


ROWS_MAX = 32
"""Rows that one statement inserts: each number of rows is a statement of its own, and the driver keeps so many."""

_ROW = re.compile(r"\((\?|\$\d+(::[A-Z]+)?)(, (\?|\$\d+(::[A-Z]+)?))*\)")
"""The values of an insert that are parameters alone, in either dialect."""


class _Text:
    """A statement in one dialect, whose parameters the driver counts."""

    def __init__(self, sql: str, order: tuple[str, ...], constants: dict[str, Any]) -> None:
        self.sql = sql
        self._order = order
        self._constants = constants
        """What the dialect adds, as SQLite an offset to each limit."""
        head, _, row = sql.rpartition(" VALUES ")
        self._row = row if head.startswith("INSERT") and _ROW.fullmatch(row) else None
        """What an insert repeats for each row, where it is the end of the statement: `(?, ?)`."""
        self._longer: dict[int, str] = {1: sql}
        self._fields = attrgetter(*order) if len(order) > 1 and not constants else None
        """Takes the parameters from a Struct, where all of them are its fields."""

    def parameters(self, values: Mapping[str, Any] | msgspec.Struct) -> tuple[Any, ...]:
        """Of one run; a Struct gives its fields."""
        if isinstance(values, msgspec.Struct):
            if self._fields is not None:
                return self._fields(values)
            values = fields_of(values)
        every = {**self._constants, **values} if self._constants else values
        return tuple([every[name] for name in self._order])

    def of_rows(self, count: int) -> str | None:
        """The same insert for several rows at once; None for a statement that takes one."""
        if self._row is None:
            return None
        found = self._longer.get(count)
        return found or self._longer.setdefault(count, self.sql + "".join(self._rows_after_first(self._row, count)))

    def _rows_after_first(self, row: str, count: int) -> Iterator[str]:
        width = len(self._order)
        for start in range(width, width * count, width):
            yield ", " + re.sub(r"\$(\d+)", lambda found, start=start: f"${int(found[1]) + start}", row)  # type: ignore[misc]  # the default binds the loop's value


class Statement:
    """
    A Core statement, compiled once for each dialect and run on the driver's own cursor.

    Every value that changes is a `bindparam` with a name; all must be given at each run. Constants are
    spelled out: only so can SQLite use an index over just the rows that have them.
    """

    def __init__(self, core: ClauseElement) -> None:
        self._core = core
        self._texts: dict[Dialect, _Text] = {}
        for part in iterate(core):
            if isinstance(part, BindParameter):
                # One without a name of its own is a constant. SQLAlchemy spells out none where a bind lacks its value.
                part.literal_execute, part.required = part.unique, False

    def text(self, dialect: Dialect) -> _Text:
        found = self._texts.get(dialect)
        return found or self._texts.setdefault(dialect, self._compile(dialect))

    def _compile(self, dialect: Dialect) -> _Text:
        compiled: SQLCompiler = self._core.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})  # type: ignore[assignment]  # a statement's compiler, not a type's
        constants = {name: value for name, value in compiled.params.items() if value is not None}
        return _Text(str(compiled), tuple(compiled.positiontup or ()), constants)


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A state that a video, its hold or one of its attempts has reached."""

    what: Literal["video", "hold", "attempt"]
    video_id: str
    attempt_no: int
    """0: of the video as a whole."""
    state: str
    was: str | None
    """None: there was nothing before."""
    tenant_id: str | None
    request_id: str | None
    """Of the request that asked for the video."""
    facts: dict[str, str | int]
    """What else a line about it tells; neither words of the customer's nor of the seller's."""


class Tx:
    """One transaction, as a unit of work sees it. `now_us` is the database's clock at its beginning."""

    def __init__(self, cursor: Any, dialect: Dialect, now_us: int) -> None:
        self._cursor = cursor
        self._dialect = dialect
        self.now_us = now_us
        self.changes: list[Change] = []
        """What was reached in here, in that order."""
        self._states: dict[tuple[str, str, int], str] = {}
        self._owners: dict[str, tuple[str, str | None]] = {}

    def belongs(self, video_id: str, tenant_id: str, request_id: str | None) -> None:
        """Whose video it is, and which request asked for it."""
        self._owners[video_id] = tenant_id, request_id

    def saw(self, what: str, video_id: str, attempt_no: int, state: str) -> None:
        """Something is in that state before it is changed in here."""
        self._states[what, video_id, attempt_no] = state

    def reached(
        self, what: Literal["video", "hold", "attempt"], video_id: str, attempt_no: int, state: str, **facts: str | int
    ) -> None:
        """Notes a change of state; none where it was in that one already."""
        key = (what, video_id, attempt_no)
        was = self._states.get(key)
        if state == was:
            return
        self._states[key] = state
        tenant_id, request_id = self._owners.get(video_id, (None, None))
        self.changes.append(
            Change(
                what=what,
                video_id=video_id,
                attempt_no=attempt_no,
                state=state,
                was=was,
                tenant_id=tenant_id,
                request_id=request_id,
                facts=facts,
            )
        )

    def rows(self, statement: Statement, **values: Any) -> list[tuple[Any, ...]]:
        self._execute(statement, values)
        return self._cursor.fetchall()  # type: ignore[no-any-return]  # the driver is untyped

    def one(self, statement: Statement, **values: Any) -> tuple[Any, ...] | None:
        # What is not read to its end would keep SQLite's log from being folded in.
        rows = self.rows(statement, **values)
        return rows[0] if rows else None

    def run(self, statement: Statement, **values: Any) -> int:
        """The number of rows changed."""
        self._execute(statement, values)
        return self._cursor.rowcount  # type: ignore[no-any-return]  # the driver is untyped

    def run_many(self, statement: Statement, values: Iterable[Mapping[str, Any] | msgspec.Struct]) -> None:
        """One statement over many rows; a Struct stands for its fields."""
        text = statement.text(self._dialect)
        rows = [text.parameters(row) for row in values]
        # The driver lets go of the interpreter's lock at each step, and gets it back late on a busy server.
        for start in range(0, len(rows), ROWS_MAX):
            several = rows[start : start + ROWS_MAX]
            longer = text.of_rows(len(several))
            if longer is None:
                self._cursor.executemany(text.sql, several)
            else:
                self._cursor.execute(longer, [value for row in several for value in row])

    def _execute(self, statement: Statement, values: Mapping[str, Any]) -> None:
        text = statement.text(self._dialect)
        self._cursor.execute(text.sql, text.parameters(values))


_SEVERAL = [f"id_{place}" for place in range(32)]


def several_ids() -> list[BindParameter[str]]:
    """What a statement compares an id with that `of_several` runs."""
    return [bindparam(name) for name in _SEVERAL]


def of_several(tx: Tx, statement: Statement, ids: Sequence[str], **values: Any) -> list[tuple[Any, ...]]:
    """What it finds for however many ids, a few at a time, so that its text stays the same; each time with `values`."""
    found: list[tuple[Any, ...]] = []
    for start in range(0, len(ids), len(_SEVERAL)):
        some = list(ids[start : start + len(_SEVERAL)])
        some += some[:1] * (len(_SEVERAL) - len(some))
        found += tx.rows(statement, **dict(zip(_SEVERAL, some, strict=True)), **values)
    return found


def as_structs(shape: type[Row], rows: Sequence[tuple[Any, ...]]) -> list[Row]:
    """Rows of a select over the Struct's fields in their order. By position, which takes a tenth of the time."""
    if rows and len(rows[0]) != len(shape.__struct_fields__):
        raise ValueError(f"{len(rows[0])} columns are no {shape.__name__}")
    return [shape(*row) for row in rows]


def fields_of(row: msgspec.Struct) -> dict[str, Any]:
    """A Struct's fields as the parameters of an insert."""
    return {name: getattr(row, name) for name in row.__struct_fields__}


class Store(Protocol):
    """Runs units of work; the engine decides where and with whom together."""

    clock: Clock
    """The database's clock, as this process knows it."""

    @property
    def ahead_us(self) -> int:
        """By how much `clock` is ahead of the clock that it follows, for that was set; below zero: behind it."""
        ...

    def not_before(self, at_us: int) -> None:
        """Somebody has seen that moment already: `clock` goes on from there."""
        ...

    alone: bool
    """Whether one process serves this database at a time, so that whoever held a lease at its start is gone."""

    async def write(self, unit: Callable[[Tx], T]) -> T:
        """
        The unit's result, once it is committed.

        What the unit raises is raised here and undoes that unit alone. Raises Overloaded where the
        commit failed: nothing of the unit was kept.
        """
        ...

    async def write_grouped(self, batch: Callable[[Tx, Sequence[A]], Sequence[R]], item: A) -> R:
        """
        The same for a unit that takes many items in one statement a table.

        `batch` gets whatever items wait at that moment; should it raise, each is run by itself.
        """
        ...

    async def read_now(self, unit: Callable[[Tx], T]) -> T:
        """A read by key, a few microseconds long. Where it has several statements, each may see another moment."""
        ...

    async def read(self, unit: Callable[[Tx], T]) -> T:
        """A longer read, beside everything else, of one moment."""
        ...
