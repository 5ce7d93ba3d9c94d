"""How sellers did lately, as every process sees it: outcomes for breakers, and learned times."""

from collections.abc import Sequence
from typing import Literal

import msgspec
from sqlalchemy import Text, bindparam, exists, insert, literal_column, select, update

from proxy.core.attempt import Outcome
from proxy.store.base import Statement, Tx, as_structs, fields_of
from proxy.store.tables import BigInt, learned_times, outcomes

TimesKey = tuple[str, str, int, Literal["queue", "render"]]
"""Offer, resolution, seconds of film (0: auto) and part, the key of `learned_times`."""


_OUTCOME = Outcome.__struct_fields__
_TIMES_KEY = ("offer", "resolution", "seconds", "part")

_same = outcomes.alias("same")
_ADD = Statement(
    insert(outcomes).from_select(
        list(_OUTCOME),
        select(*[bindparam(name, type_=outcomes.c[name].type) for name in _OUTCOME]).where(
            ~exists(
                select(literal_column("1")).where(
                    _same.c.video_id == bindparam("video_id", type_=Text),
                    _same.c.attempt_no == bindparam("attempt_no", type_=BigInt),
                    _same.c.part == bindparam("part", type_=Text),
                )
            )
        ),
    )
)
_SINCE = Statement(
    select(*[outcomes.c[name] for name in _OUTCOME])
    .where(outcomes.c.at >= bindparam("since"))
    .order_by(outcomes.c.at, outcomes.c.video_id, outcomes.c.attempt_no)
)
_ALL_TIMES = Statement(select(*[learned_times.c[name] for name in _TIMES_KEY], learned_times.c.histogram))
_of_key = [learned_times.c[name] == bindparam(f"of_{name}") for name in _TIMES_KEY]
_TAKE_TIMES = Statement(select(learned_times.c.histogram).where(*_of_key).with_for_update())
_INSERT_TIMES = Statement(
    insert(learned_times).values(
        {
            **{name: bindparam(f"of_{name}") for name in _TIMES_KEY},
            "histogram": bindparam("histogram"),
            "updated_at": bindparam("updated_at"),
        }
    )
)
_UPDATE_TIMES = Statement(
    update(learned_times).where(*_of_key).values(histogram=bindparam("histogram"), updated_at=bindparam("updated_at"))
)


def add_outcomes(tx: Tx, rows: Sequence[Outcome]) -> None:
    """Outcomes that nobody has told before; of each part of an attempt the first word stays."""
    for row in sorted(rows, key=lambda row: (row.video_id, row.attempt_no, row.part)):
        tx.run(_ADD, **{**fields_of(row), "good": int(row.good)})


def outcomes_since(tx: Tx, since: int) -> list[Outcome]:
    """By time."""
    found = as_structs(Outcome, tx.rows(_SINCE, since=since))
    return [msgspec.structs.replace(one, good=bool(one.good)) for one in found]


def all_times(tx: Tx) -> dict[TimesKey, bytes]:
    """Every histogram that was learned."""
    return {(row[0], row[1], row[2], row[3]): bytes(row[4]) for row in tx.rows(_ALL_TIMES)}


def take_times(tx: Tx, key: TimesKey) -> bytes | None:
    """A histogram that nobody else changes until this unit is kept; None where there is none."""
    found = tx.one(_TAKE_TIMES, **_named(key))
    return None if found is None else bytes(found[0])


def save_times(tx: Tx, key: TimesKey, histogram: bytes) -> None:
    """A histogram as it now is."""
    values = {**_named(key), "histogram": histogram, "updated_at": tx.now_us}
    if not tx.run(_UPDATE_TIMES, **values):
        tx.run(_INSERT_TIMES, **values)


def _named(key: TimesKey) -> dict[str, object]:
    return {f"of_{name}": value for name, value in zip(_TIMES_KEY, key, strict=True)}
