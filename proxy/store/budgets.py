"""Budgets, and the counters of what is held and charged against them."""

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import and_, bindparam, case, delete, func, insert, or_, select, update

from proxy.core.budget import Budget, CounterKey, Period, period_begin, period_end
from proxy.store.base import Statement, Tx, as_structs, fields_of, of_several, several_ids
from proxy.store.tables import budget_counters, budgets, tenants, videos

_BUDGET = Budget.__struct_fields__
_columns = [budgets.c[name] for name in _BUDGET]
_INSERT = Statement(insert(budgets).values({name: bindparam(name) for name in _BUDGET}))
_UPDATE = Statement(
    update(budgets)
    .where(budgets.c.id == bindparam("of_id"))
    .values(
        {name: bindparam(name) for name in ("limit_microusd", "shadow", "warn_at", "raise_microusd", "raise_until")}
    )
)
_DELETE = Statement(delete(budgets).where(budgets.c.id == bindparam("of_id")))
_DROP_OF_USER = Statement(
    delete(budgets).where(
        budgets.c.tenant_id == bindparam("tenant_id"),
        budgets.c.scope == "end_user",
        budgets.c.subject == bindparam("surrogate"),
    )
)
_ANY = Statement(select(budgets.c.id).where(budgets.c.tenant_id == bindparam("tenant_id")).limit(1))
_ANY_AT_ALL = Statement(select(budgets.c.id).limit(1))
_TAKE = Statement(select(*_columns).where(budgets.c.id == bindparam("of_id")).with_for_update())
_OF_TENANT = Statement(
    select(*_columns).where(budgets.c.tenant_id == bindparam("tenant_id")).order_by(budgets.c.created_at, budgets.c.id)
)
_SUBJECTS = [f"subject_{place}" for place in range(32)]
_BOUNDING = Statement(
    select(*_columns)
    .where(
        budgets.c.tenant_id.in_(several_ids()),
        or_(
            budgets.c.scope.not_in(["key", "end_user"]),
            budgets.c.subject.in_([bindparam(name) for name in _SUBJECTS]),
        ),
    )
    .order_by(budgets.c.created_at, budgets.c.id)
)
_ALL = Statement(select(*_columns).order_by(budgets.c.tenant_id, budgets.c.created_at, budgets.c.id))
_OF_WHOLE_TENANTS = Statement(
    select(*_columns, func.coalesce(budget_counters.c.used_microusd, 0))
    .outerjoin(
        budget_counters,
        and_(
            budget_counters.c.tenant_id == budgets.c.tenant_id,
            budget_counters.c.whose == "tenant",
            budget_counters.c.subject == "",
            budget_counters.c.period == budgets.c.period,
            budget_counters.c.begins_at
            == case(
                (budgets.c.period == "day", bindparam("day")),
                (budgets.c.period == "month", bindparam("month")),
                else_=0,
            ),
        ),
    )
    .where(budgets.c.scope == "tenant", budgets.c.shadow == 0)
)
_SHARE_TENANTS = Statement(
    select(tenants.c.id).where(tenants.c.id.in_(several_ids())).order_by(tenants.c.id).with_for_update(read=True)
)
# Not the stronger lock: whoever ends a hold takes a share of the tenant's key, and would be waited for in a circle.
_KEEP_STILL = Statement(
    select(tenants.c.id).where(tenants.c.id == bindparam("tenant_id")).with_for_update(key_share=True)
)


def keep_still(tx: Tx, tenant_id: str) -> None:
    """Nothing of this tenant is accepted, and none of its budgets made or removed, until this unit is kept."""
    tx.one(_KEEP_STILL, tenant_id=tenant_id)


def insert_budget(tx: Tx, budget: Budget) -> None:
    """A new budget, in a unit that keeps its tenant still."""
    tx.run(_INSERT, **fields_of(budget))


def save_budget(tx: Tx, budget: Budget) -> None:
    """What may be changed of a budget, as it now is."""
    values = fields_of(budget)
    names = ("limit_microusd", "shadow", "warn_at", "raise_microusd", "raise_until")
    tx.run(_UPDATE, of_id=budget.id, **{name: values[name] for name in names})


def delete_budget(tx: Tx, budget_id: str) -> None:
    """It bounds nothing any more."""
    tx.run(_DELETE, of_id=budget_id)


def drop_end_user(tx: Tx, tenant_id: str, surrogate: str) -> None:
    """The budgets of somebody whose name is erased, and what was counted against them."""
    tx.run(_DROP_OF_USER, tenant_id=tenant_id, surrogate=surrogate)
    tx.run(_DROP_COUNTERS_OF_USER, tenant_id=tenant_id, surrogate=surrogate)


def take_budget(tx: Tx, budget_id: str) -> Budget | None:
    """The budget, which nobody else changes until this unit is kept."""
    rows = as_structs(Budget, tx.rows(_TAKE, of_id=budget_id))
    return rows[0] if rows else None


def of_tenant(tx: Tx, tenant_id: str) -> list[Budget]:
    """From the oldest."""
    return as_structs(Budget, tx.rows(_OF_TENANT, tenant_id=tenant_id))


def are_there(tx: Tx, tenant_id: str) -> bool:
    """Whether the tenant has budgets."""
    return tx.one(_ANY, tenant_id=tenant_id) is not None


def every(tx: Tx) -> list[Budget]:
    """Tenant by tenant, from the oldest."""
    return as_structs(Budget, tx.rows(_ALL))


def of_whole_tenants(tx: Tx, now_us: int) -> list[tuple[Budget, int]]:
    """Those that bound all of a tenant's spending, with the micro-dollars used of each in its present period."""
    begins = {"day": period_begin("day", now_us), "month": period_begin("month", now_us)}
    rows = tx.rows(_OF_WHOLE_TENANTS, **begins)
    return [(Budget(*row[:-1]), int(row[-1])) for row in rows]


def bounding(tx: Tx, tenant_ids: Sequence[str], subjects: Collection[str]) -> dict[str, list[Budget]]:
    """By tenant, those for everybody or for one of these keys and end users; a tenant may have thousands for others."""
    asked = sorted(subjects) or [""]
    found: dict[str, Budget] = {}
    for start in range(0, len(asked), len(_SUBJECTS)):
        some = asked[start : start + len(_SUBJECTS)]
        named = dict(zip(_SUBJECTS, some + some[:1] * (len(_SUBJECTS) - len(some)), strict=True))
        rows = of_several(tx, _BOUNDING, tenant_ids, **named)
        found |= {budget.id: budget for budget in as_structs(Budget, rows)}
    by_tenant: dict[str, list[Budget]] = {}
    for budget in found.values():
        by_tenant.setdefault(budget.tenant_id, []).append(budget)
    return by_tenant


def share(tx: Tx, tenant_ids: Sequence[str], subjects: Collection[str]) -> dict[str, list[Budget]]:
    """
    The same for a unit that accepts.

    None is made until this unit is kept: a new one has to find all that is accepted. That is why it takes
    two statements, the second of which sees what the first has waited for.
    """
    of_several(tx, _SHARE_TENANTS, tenant_ids)
    if tx.one(_ANY_AT_ALL) is None:
        return {}
    return bounding(tx, tenant_ids, subjects)


# Counters

_KEY = CounterKey._fields
_key_columns = [budget_counters.c[name] for name in _KEY]
_MOST = 9
"""Three whose, three periods: the counters of one video."""


def _is(suffix: str) -> object:
    return and_(*(budget_counters.c[name] == bindparam(f"{name}{suffix}") for name in _KEY))


_several = or_(*(_is(f"_{place}") for place in range(_MOST)))  # type: ignore[arg-type]  # each is a condition
_USED = Statement(select(*_key_columns, budget_counters.c.used_microusd).where(_several))
_EVERY = Statement(select(*_key_columns, budget_counters.c.used_microusd).order_by(*_key_columns))
_DROP_COUNTERS_OF_USER = Statement(
    delete(budget_counters).where(
        budget_counters.c.tenant_id == bindparam("tenant_id"),
        budget_counters.c.whose == "end_user",
        budget_counters.c.subject == bindparam("surrogate"),
    )
)
_OF_PERIOD = Statement(
    select(*_key_columns)
    .where(budget_counters.c.tenant_id == bindparam("tenant_id"), budget_counters.c.period == bindparam("period"))
    .order_by(*_key_columns)
    .with_for_update()
)
_DROP = Statement(delete(budget_counters).where(_is("")))  # type: ignore[arg-type]  # the same
_TAKE_COUNTERS = Statement(
    select(*_key_columns, budget_counters.c.used_microusd).where(_several).order_by(*_key_columns).with_for_update()
)
_INSERT_COUNTER = Statement(
    insert(budget_counters).values({name: bindparam(name) for name in (*_KEY, "used_microusd")})
)
_ADD = Statement(
    update(budget_counters)
    .where(_is(""))  # type: ignore[arg-type]  # the same
    .values(used_microusd=budget_counters.c.used_microusd + bindparam("by"))
)
_is_old = or_(
    and_(budget_counters.c.period == "day", budget_counters.c.begins_at < bindparam("before_day")),
    and_(budget_counters.c.period == "month", budget_counters.c.begins_at < bindparam("before_month")),
)
_OLD = Statement(select(*_key_columns).where(_is_old).limit(bindparam("most")))
_OLD_COUNT = Statement(select(func.count()).select_from(budget_counters).where(_is_old))


def _parameters(keys: Sequence[CounterKey]) -> dict[str, str | int]:
    padded = [*keys, *[keys[0]] * (_MOST - len(keys))]
    return {f"{name}_{place}": value for place, key in enumerate(padded) for name, value in key._asdict().items()}


def _found(tx: Tx, statement: Statement, keys: Sequence[CounterKey]) -> dict[CounterKey, int]:
    found: dict[CounterKey, int] = {}
    for start in range(0, len(keys), _MOST):
        rows = tx.rows(statement, **_parameters(keys[start : start + _MOST]))
        found |= {CounterKey(*row[:-1]): int(row[-1]) for row in rows}
    return found


def used(tx: Tx, keys: Sequence[CounterKey]) -> dict[CounterKey, int]:
    """Micro-dollars by counter, of those that are there."""
    return _found(tx, _USED, keys)


def counters_of_tenant(tx: Tx, tenant_id: str, period: Period) -> list[CounterKey]:
    """All of that period's length, of whatever age; nobody else changes them until this unit is kept."""
    return [CounterKey(*row) for row in tx.rows(_OF_PERIOD, tenant_id=tenant_id, period=period)]


def drop_counters(tx: Tx, keys: Sequence[CounterKey]) -> int:
    """What is not counted any more; how many they were."""
    tx.run_many(_DROP, [key._asdict() for key in keys])
    return len(keys)


def every_counter(tx: Tx) -> list[tuple[CounterKey, int]]:
    """Whatever is counted, with its micro-dollars."""
    return [(CounterKey(*row[:-1]), int(row[-1])) for row in tx.rows(_EVERY)]


def take_counters(tx: Tx, keys: Sequence[CounterKey]) -> dict[CounterKey, int]:
    """The same, which nobody else changes until this unit is kept; in one order for everybody."""
    return _found(tx, _TAKE_COUNTERS, sorted(set(keys)))


def insert_counter(tx: Tx, key: CounterKey, used_microusd: int) -> None:
    """A counter that was not there; one that is breaks the unit."""
    tx.run(_INSERT_COUNTER, **key._asdict(), used_microusd=used_microusd)


def add(tx: Tx, amounts: Mapping[CounterKey, int]) -> None:
    """Micro-dollars more, or less, on counters that were taken."""
    tx.run_many(_ADD, [key._asdict() | {"by": by} for key, by in sorted(amounts.items()) if by])


_DAY_US = 86_400_000_000
_OLD_AFTER = {"before_day": 2 * _DAY_US, "before_month": 62 * _DAY_US}
"""Long after the end of the period in which it bounds anything."""


def old_counters(tx: Tx, *, most: int) -> list[CounterKey]:
    """So many of periods that are long over."""
    before = {name: tx.now_us - age_us for name, age_us in _OLD_AFTER.items()}
    return [CounterKey(*row) for row in tx.rows(_OLD, **before, most=most)]


def count_old_counters(tx: Tx) -> int:
    """How many `old_counters` there are."""
    row = tx.one(_OLD_COUNT, **{name: tx.now_us - age_us for name, age_us in _OLD_AFTER.items()})
    return 0 if row is None else int(row[0])


_counts = and_(
    videos.c.tenant_id == bindparam("tenant_id"),
    videos.c.created_at >= bindparam("begins_at"),
    videos.c.created_at < bindparam("ends_at"),
)
_WHOSE = {
    "tenant": _counts,
    "key": and_(_counts, videos.c.key_id == bindparam("subject")),
    "end_user": and_(_counts, videos.c.end_user == bindparam("subject")),
    "nobody": and_(_counts, videos.c.end_user.is_(None)),
}
_spent = func.sum(
    case((videos.c.hold == "held", videos.c.hold_microusd), else_=func.coalesce(videos.c.charged_microusd, 0))
)
_HOLD_STILL = {
    whose: Statement(
        select(videos.c.id).where(condition, videos.c.hold == "held").order_by(videos.c.id).with_for_update()
    )
    for whose, condition in _WHOSE.items()
}
_SPENT = {whose: Statement(select(func.coalesce(_spent, 0)).where(condition)) for whose, condition in _WHOSE.items()}
_NEVER = 2**62


def spent(tx: Tx, key: CounterKey, *, held_still: bool = True) -> int:
    """
    What the videos themselves say is held and charged, in micro-dollars: what the counter has to be.

    Whoever ends a hold at this moment is waited for, unless this is a look alone.
    """
    whose = "nobody" if key.whose == "end_user" and not key.subject else key.whose
    ends_at = period_end(key.period, key.begins_at)
    values: dict[str, str | int] = {
        "tenant_id": key.tenant_id,
        "begins_at": key.begins_at,
        "ends_at": _NEVER if ends_at is None else ends_at,
    }
    if whose in {"key", "end_user"}:
        values["subject"] = key.subject
    if held_still:
        tx.rows(_HOLD_STILL[whose], **values)
    row = tx.one(_SPENT[whose], **values)
    return 0 if row is None else int(row[0])
