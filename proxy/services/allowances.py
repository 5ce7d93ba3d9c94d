"""Budgets as operators make and change them, each change with a row that says who did it."""

import re
from typing import Any

import msgspec

from proxy.core.budget import MAX_LIMIT_MICROUSD, Budget, BudgetScope, Period
from proxy.core.clock import Clock
from proxy.core.errors import InvalidValue, MissingParameter, NotFound
from proxy.core.ids import NewId
from proxy.core.money import exact_microusd
from proxy.policy.budgets import bounds, counter_of
from proxy.services.accounts import UNIX_MAX_S, known_tenant
from proxy.services.acts import REASON_MAX_CHARS, Clerk, check_text
from proxy.services.budgets import taken
from proxy.store import budgets, tenants
from proxy.store.base import Store, Tx

SHARES_MOST = 10
END_USER_MAX_CHARS = 128
_SHARE = re.compile(r"0?\.[0-9]{1,4}|1(\.0{1,4})?")


class BudgetWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A budget to be made."""

    tenant: str
    """Id or name."""
    scope: BudgetScope = "tenant"
    key: str | None = None
    """The key's id, where the scope is `key`."""
    end_user_id: str | None = None
    """The end user's own name, where the scope is `end_user`."""
    period: Period
    limit_usd: str
    shadow: bool = False
    warn_at: tuple[str, ...] = ()
    """Shares of the limit, as in "0.8"."""
    reason: str | None = None


class BudgetChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may be set of a budget; None leaves it as it is."""

    limit_usd: str | None = None
    shadow: bool | None = None
    warn_at: tuple[str, ...] | None = None
    raise_usd: str | None = None
    """On top of the limit until `raise_until`; "0" ends it."""
    raise_until: int | None = None
    """Unix seconds."""
    reason: str | None = None


class Allowance(msgspec.Struct, frozen=True, kw_only=True):
    """A budget, and what is used of it at this moment."""

    budget: Budget
    end_user_id: str | None
    """By its own name; None where the budget is nobody's in particular, or the name was erased."""
    used_microusd: int | None
    """None for one that is each end user's own."""


class Treasurer:
    """Every change goes through here, from HTTP and from the command line."""

    def __init__(self, store: Store, clock: Clock, new_id: NewId) -> None:
        self._store = store
        self._clock = clock
        self._new_id = new_id
        self._clerk = Clerk(clock, new_id)

    async def list(self, tenant: str | None = None) -> list[Allowance]:
        """Of one tenant, by id or name, or of all. Raises NotFound."""

        def unit(tx: Tx) -> list[Allowance]:
            found = budgets.every(tx) if tenant is None else budgets.of_tenant(tx, known_tenant(tx, tenant).id)
            return [_allowance(tx, one) for one in found]

        return await self._store.read(unit)

    async def create(self, actor: str, wish: BudgetWish) -> Allowance:
        """Counts what its period has seen already. Raises NotFound, InvalidValue, MissingParameter."""
        check_text("reason", wish.reason, REASON_MAX_CHARS)
        check_text("end_user_id", wish.end_user_id, END_USER_MAX_CHARS)
        limit, warn_at = _limit("limit_usd", wish.limit_usd), _shares(wish.warn_at)
        _check_subject(wish)
        at = self._clock()

        def unit(tx: Tx) -> Allowance:
            tenant = tenants.find_tenant(tx, wish.tenant)
            if tenant is None:
                raise NotFound(f"There is no tenant {wish.tenant[:80]!r}.", param="tenant")
            budgets.keep_still(tx, tenant.id)
            budget = Budget(
                id=f"budget_{self._new_id(at)}",
                tenant_id=tenant.id,
                scope=wish.scope,
                subject=self._subject(tx, tenant.id, wish, at),
                period=wish.period,
                limit_microusd=limit,
                shadow=int(wish.shadow),
                warn_at=warn_at,
                created_at=at,
            )
            _check_unlike(budget, budgets.of_tenant(tx, tenant.id))
            budgets.insert_budget(tx, budget)
            if budget.scope != "each_end_user":
                key = counter_of(budget, end_user=budget.subject or None, at_us=at)
                taken(tx, [key])
            self._clerk.record(tx, actor, "budget.create", budget.id, None, budget, wish.reason)
            return _allowance(tx, budget)

        return await self._store.write(unit)

    def _subject(self, tx: Tx, tenant_id: str, wish: BudgetWish, at: int) -> str:
        if wish.key is not None:
            if all(key.id != wish.key for key in tenants.keys(tx, tenant_id)):
                raise NotFound(f"The tenant has no key {wish.key[:80]!r}.", param="key")
            return wish.key
        if wish.end_user_id is not None:
            known = tenants.take_surrogate(tx, tenant_id, wish.end_user_id)
            if known is None:
                known = self._new_id(at)
                tenants.insert_end_user(tx, tenant_id, wish.end_user_id, known)
            return known
        return ""

    async def change(self, actor: str, budget_id: str, wish: BudgetChange) -> Allowance:
        """Holds for whatever is accepted after it, everywhere. Raises NotFound, InvalidValue, MissingParameter."""
        check_text("reason", wish.reason, REASON_MAX_CHARS)
        fields = _changed(wish)
        if not fields:
            raise MissingParameter("A change says what to change.")

        def unit(tx: Tx) -> Allowance:
            before = _known(tx, budget_id)
            after = msgspec.structs.replace(before, **fields)
            budgets.save_budget(tx, after)
            self._clerk.record(tx, actor, "budget.change", after.id, before, after, wish.reason)
            return _allowance(tx, after)

        return await self._store.write(unit)

    async def remove(self, actor: str, budget_id: str, reason: str | None = None) -> None:
        """It bounds nothing of what is accepted after it, everywhere. Raises NotFound."""
        check_text("reason", reason, REASON_MAX_CHARS)

        def unit(tx: Tx) -> None:
            before = _known(tx, budget_id)
            budgets.keep_still(tx, before.tenant_id)
            budgets.delete_budget(tx, budget_id)
            # Without a budget nobody counts there, and one to come would find too little.
            left = budgets.of_tenant(tx, before.tenant_id)
            counted = budgets.counters_of_tenant(tx, before.tenant_id, before.period)
            budgets.drop_counters(tx, [key for key in counted if not any(bounds(one, key) for one in left)])
            self._clerk.record(tx, actor, "budget.remove", budget_id, before, None, reason)

        await self._store.write(unit)


def _known(tx: Tx, budget_id: str) -> Budget:
    found = budgets.take_budget(tx, budget_id)
    if found is None:
        raise NotFound(f"There is no budget {budget_id[:80]!r}.")
    return found


def _allowance(tx: Tx, budget: Budget) -> Allowance:
    name = used = None
    if budget.scope == "end_user":
        name = tenants.end_user_name(tx, budget.tenant_id, budget.subject)
    if budget.scope != "each_end_user":
        key = counter_of(budget, end_user=budget.subject or None, at_us=tx.now_us)
        used = budgets.used(tx, [key]).get(key, 0)
    return Allowance(budget=budget, end_user_id=name, used_microusd=used)


def _check_subject(wish: BudgetWish) -> None:
    for scope, param, given in (("key", "key", wish.key), ("end_user", "end_user_id", wish.end_user_id)):
        if wish.scope == scope and not given:
            raise MissingParameter(f"A budget of the scope '{scope}' needs '{param}'.", param=param)
        if wish.scope != scope and given is not None:
            raise InvalidValue(f"'{param}' belongs to the scope '{scope}', not to '{wish.scope}'.", param=param)


def _check_unlike(budget: Budget, others: list[Budget]) -> None:
    """Two that bound the same would be a mistake; one in shadow mode may stand beside one that is not."""
    for other in others:
        same = (other.scope, other.subject, other.period, other.shadow)
        if same == (budget.scope, budget.subject, budget.period, budget.shadow):
            raise InvalidValue(f"There is such a budget already, {other.id}.", param="period")


def _limit(param: str, text: str) -> int:
    """Exact: a part of a micro-dollar is refused, not rounded."""
    exact = exact_microusd(text, most=MAX_LIMIT_MICROUSD)
    if exact is None:
        most = MAX_LIMIT_MICROUSD // 10**6
        raise InvalidValue(f"'{param}' is USD from 0 to {most} with six decimals at most.", param=param)
    return exact


def _shares(shares: tuple[str, ...]) -> str:
    if len(shares) > SHARES_MOST or any(not _SHARE.fullmatch(one) or float(one) == 0 for one in shares):
        raise InvalidValue(f"'warn_at' has up to {SHARES_MOST} shares of the limit, such as \"0.8\".", param="warn_at")
    return " ".join({float(one): one for one in sorted(shares, key=float)}.values())


def _changed(wish: BudgetChange) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if wish.limit_usd is not None:
        fields["limit_microusd"] = _limit("limit_usd", wish.limit_usd)
    if wish.shadow is not None:
        fields["shadow"] = int(wish.shadow)
    if wish.warn_at is not None:
        fields["warn_at"] = _shares(wish.warn_at)
    if wish.raise_usd is not None:
        raised = _limit("raise_usd", wish.raise_usd)
        if raised and wish.raise_until is None:
            raise MissingParameter("A raise ends: 'raise_until' says when, in Unix seconds.", param="raise_until")
        if wish.raise_until is not None and not 0 <= wish.raise_until <= UNIX_MAX_S:
            raise InvalidValue("'raise_until' is a time in Unix seconds.", param="raise_until")
        fields["raise_microusd"] = raised
        fields["raise_until"] = wish.raise_until * 10**6 if raised and wish.raise_until is not None else None
    elif wish.raise_until is not None:
        raise MissingParameter("'raise_usd' says by how much.", param="raise_usd")
    return fields
