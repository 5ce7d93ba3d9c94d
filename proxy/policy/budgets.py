"""Which budgets apply to a request, and what they leave of it."""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

import msgspec

from proxy.core.budget import Budget, CounterKey, Period, period_begin

WHOLE = "1"
"""The share at which a budget in shadow mode would have begun to refuse."""


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How the budgets stand that apply to a request; shadow ones do not count here."""

    left_microusd: int | None = None
    """What the tightest leaves; None where there is none."""
    used: float | None = None
    """The highest ratio of a limit that is used up or held."""
    tightest: Budget | None = None


UNBOUND = Standing()
"""No budget applies."""


class Crossed(msgspec.Struct, frozen=True, kw_only=True):
    """A share of a limit that one more video has reached."""

    budget: Budget
    share: str
    """A decimal string; WHOLE for one in shadow mode that would have refused."""


def applying(budgets: Iterable[Budget], *, key_id: str | None, end_user: str | None) -> list[Budget]:
    """
    Those of a tenant's budgets that a request must keep; `end_user` is a surrogate.

    One to an end user's own name stands in the place of the one for each end user, period by period.
    """
    every = list(budgets)
    own = {one.period for one in every if one.scope == "end_user" and end_user is not None and one.subject == end_user}
    return [one for one in every if _applies(one, key_id, end_user, own)]


def _applies(budget: Budget, key_id: str | None, end_user: str | None, own: set[Period]) -> bool:
    match budget.scope:
        case "tenant":
            return True
        case "key":
            return budget.subject == key_id
        case "end_user":
            return end_user is not None and budget.subject == end_user
        case "each_end_user":
            return end_user is not None and budget.period not in own
        case "no_end_user":
            return end_user is None


def counter_of(budget: Budget, *, end_user: str | None, at_us: int) -> CounterKey:
    """Where the spending is counted that this budget bounds at that moment."""
    begins_at = period_begin(budget.period, at_us)
    if budget.scope == "tenant":
        return CounterKey(budget.tenant_id, "tenant", "", budget.period, begins_at)
    if budget.scope == "key":
        return CounterKey(budget.tenant_id, "key", budget.subject, budget.period, begins_at)
    return CounterKey(budget.tenant_id, "end_user", end_user or "", budget.period, begins_at)


def bounds(budget: Budget, key: CounterKey) -> bool:
    """Whether the budget is about what is counted there."""
    if budget.tenant_id != key.tenant_id or budget.period != key.period:
        return False
    match budget.scope:
        case "tenant" | "key" | "end_user":
            return (budget.scope, budget.subject) == (key.whose, key.subject)
        case "each_end_user":
            return key.whose == "end_user" and key.subject != ""
        case "no_end_user":
            return key.whose == "end_user" and key.subject == ""


def standing(
    budgets: Sequence[Budget], used: Mapping[CounterKey, int], *, end_user: str | None, at_us: int
) -> Standing:
    """`used`: micro-dollars held and charged by counter; one that is not there counts nothing yet."""
    found = UNBOUND
    for budget in budgets:
        if budget.shadow:
            continue
        limit, spent = budget.limit_at(at_us), used.get(counter_of(budget, end_user=end_user, at_us=at_us), 0)
        left, ratio = max(0, limit - spent), spent / limit if limit else 1.0
        if found.left_microusd is None or left < found.left_microusd:
            found = msgspec.structs.replace(found, left_microusd=left, tightest=budget)
        if found.used is None or ratio > found.used:
            found = msgspec.structs.replace(found, used=ratio)
    return found


def crossed(budget: Budget, *, before: int, after: int, at_us: int) -> list[Crossed]:
    """The shares that are reached by going from `before` to `after` micro-dollars."""
    limit = budget.limit_at(at_us)
    shares = [share for share in budget.warn_at.split() if before < limit * Decimal(share) <= after]
    if budget.shadow and after > limit:
        shares.append(WHOLE)
    return [Crossed(budget=budget, share=share) for share in shares]
