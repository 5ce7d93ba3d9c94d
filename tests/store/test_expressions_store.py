"""Both engines say the same of a moment's month and of a member of an object."""

import pytest
from sqlalchemy import BigInteger, Text, bindparam, cast, select

from proxy.store.base import Statement, Store
from proxy.store.expressions import member, month_of

_MONTH = Statement(select(month_of(cast(bindparam("at"), BigInteger))))
_MEMBER = Statement(select(member(cast(bindparam("of"), Text), bindparam("name"))))


@pytest.mark.parametrize(
    ("at", "month"),
    [
        (0, "1970-01"),
        (1_795_996_799_999_999, "2026-11"),
        (1_796_083_199_999_999, "2026-11"),
        (1_796_083_200_000_000, "2026-12"),
        (4_102_444_800_000_000, "2100-01"),
    ],
)
async def test_month_changes_at_its_first_microsecond(store: Store, at: int, month: str) -> None:
    assert await store.read(lambda tx: tx.one(_MONTH, at=at)) == (month,)


@pytest.mark.parametrize(
    ("of", "name", "found"),
    [
        ('{"team":"ads"}', "team", "ads"),
        ('{"team":"ads"}', "Team", ""),
        ('{"a.b":"1","a":"2","$x":"3","[0]":"4"}', "a.b", "1"),
        ('{"a.b":"1","a":"2","$x":"3","[0]":"4"}', "$x", "3"),
        ('{"a.b":"1","a":"2","$x":"3","[0]":"4"}', "[0]", "4"),
        ('{"Maß":"Zoë \\u2615"}', "Maß", "Zoë ☕"),
        ('{"0":"zero"}', "0", "zero"),
        (None, "team", ""),
        ("{}", "team", ""),
    ],
)
async def test_member_is_found_by_its_very_name(store: Store, of: str | None, name: str, found: str) -> None:
    assert await store.read(lambda tx: tx.one(_MEMBER, of=of, name=name)) == (found,)
