"""Which budgets apply, what they leave, and which shares are reached."""

from typing import Any

import pytest

from proxy.core.budget import Budget, CounterKey
from proxy.policy.budgets import WHOLE, applying, bounds, counter_of, crossed, standing
from tests.policy.policies import AT_US


def budget(name: str, scope: Any = "tenant", subject: str = "", **fields: Any) -> Budget:
    row: dict[str, Any] = {"period": "month", "limit_microusd": 100, "shadow": 0, "warn_at": "", "created_at": 0}
    return Budget(id=name, tenant_id="acme", scope=scope, subject=subject, **row | fields)


WHOLE_TENANT = budget("tenant")
A_KEY = budget("key", "key", "key_1")
ANNS = budget("ann", "end_user", "ann")
ANNS_DAY = budget("ann-day", "end_user", "ann", period="day")
EACH = budget("each", "each_end_user")
EACH_DAY = budget("each-day", "each_end_user", period="day")
NOBODYS = budget("nobody", "no_end_user")
EVERY = [WHOLE_TENANT, A_KEY, ANNS, EACH, EACH_DAY, NOBODYS]


@pytest.mark.parametrize(
    ("key_id", "end_user", "names"),
    [
        ("key_1", "ann", ["tenant", "key", "ann", "each-day"]),
        ("key_2", "ann", ["tenant", "ann", "each-day"]),
        ("key_2", "bob", ["tenant", "each", "each-day"]),
        ("key_2", None, ["tenant", "nobody"]),
        (None, None, ["tenant", "nobody"]),
    ],
)
def test_budget_of_ones_own_stands_in_the_place_of_everybodys_of_the_same_period(
    key_id: str | None, end_user: str | None, names: list[str]
) -> None:
    assert [one.id for one in applying(EVERY, key_id=key_id, end_user=end_user)] == names


@pytest.mark.parametrize("one", [*EVERY, ANNS_DAY], ids=lambda one: one.id)
@pytest.mark.parametrize("end_user", ["ann", None])
def test_budget_bounds_what_is_counted_for_it(one: Budget, end_user: str | None) -> None:
    if applying([one], key_id="key_1", end_user=end_user):
        assert bounds(one, counter_of(one, end_user=end_user, at_us=AT_US))
    other = CounterKey("other", "tenant", "", one.period, 0)
    assert not bounds(one, other)
    assert not bounds(one, CounterKey("acme", "key", "key_9", one.period, 0))
    assert not bounds(one, CounterKey("acme", "tenant", "", "total", 0))


def test_tightest_budget_leaves_least_and_shadows_do_not_count() -> None:
    those = [
        budget("wide", limit_microusd=1000),
        budget("narrow", period="day"),
        budget("seen", shadow=1, limit_microusd=1),
    ]
    used = {counter_of(those[0], end_user=None, at_us=AT_US): 950, counter_of(those[1], end_user=None, at_us=AT_US): 20}
    found = standing(those, used, end_user=None, at_us=AT_US)
    assert (found.left_microusd, found.used) == (50, 0.95)
    assert found.tightest is those[0]
    assert standing([], {}, end_user=None, at_us=AT_US).left_microusd is None


def test_budget_below_what_was_spent_leaves_nothing() -> None:
    one = budget("lowered")
    found = standing([one], {counter_of(one, end_user=None, at_us=AT_US): 250}, end_user=None, at_us=AT_US)
    assert (found.left_microusd, found.used) == (0, 2.5)
    assert standing([budget("none", limit_microusd=0)], {}, end_user=None, at_us=AT_US).used == 1.0


@pytest.mark.parametrize(
    ("before", "after", "shadow", "shares"),
    [
        (0, 49, 0, []),
        (0, 50, 0, ["0.5"]),
        (50, 60, 0, []),
        (10, 90, 0, ["0.5", "0.8"]),
        (90, 100, 1, []),
        (90, 101, 1, [WHOLE]),
        (101, 110, 1, [WHOLE]),
    ],
)
def test_share_is_told_when_it_is_reached(before: int, after: int, shadow: int, shares: list[str]) -> None:
    found = crossed(budget("warned", warn_at="0.5 0.8", shadow=shadow), before=before, after=after, at_us=AT_US)
    assert [one.share for one in found] == shares
