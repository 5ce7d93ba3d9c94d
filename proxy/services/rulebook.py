"""Puts new rules in force under a house at work: whole, between two steps, or not at all."""

import asyncio
from collections.abc import Callable

import structlog

from proxy.core.errors import ConfigError, ReelayError
from proxy.policy.overrides import lay_over
from proxy.policy.rules import Rules
from proxy.services.house import House, LastReload
from proxy.services.vanished import bring_back, still_owed
from proxy.store import prices, videos
from proxy.store.base import Tx

_log = structlog.get_logger("reelay.rules")


async def reload(house: House, read: Callable[[], Rules]) -> bool:
    """
    Reads the rules, in a thread, and puts them in force; False where the old ones stay.

    Never raises what is wrong with the rules: that is logged, measured and kept for the operator to see.
    """
    try:
        await put_in_force(house, await asyncio.to_thread(read))
    except Exception as exc:  # noqa: BLE001 - whatever is in that file, the server goes on
        if not isinstance(exc, ReelayError):
            _log.exception("reload.broke")
        why = " ".join(str(exc).split()) if isinstance(exc, ReelayError) else "the rules could not be read"
        house.last_reload = LastReload(at=house.clock(), error=why)
        house.metrics.rules_read(in_force_at_us=None)
        _log.error("rules.refused", why=why, in_force=house.rules.rules_hash[:12])
        return False
    _log.info("rules.reloaded", in_force=house.rules.rules_hash[:12], rules=len(house.rules.rules))
    for what in house.rules.warnings:
        _log.warning("rules.warning", what=what)
    return True


async def put_in_force(house: House, rules: Rules) -> None:
    """
    From now on everything is decided by these rules; what was planned before keeps its plan.

    Raises ConfigError where somebody could no longer be asked about what he owes, Overloaded where the
    database does not tell; the rules in force stay then.
    """
    before, after = house.rules.accounts, rules.accounts
    for name in before.keys() & after.keys():
        if before[name].adapter != after[name].adapter:
            # Its orders, and the offers of plans already made, are in the other seller's words.
            raise ConfigError(
                f"the provider {name} may not change its adapter from {before[name].adapter} to {after[name].adapter}"
                " under a server at work; give the new account a name of its own"
            )
    gone, come = before.keys() - after.keys(), after.keys() - before.keys()

    def unit(tx: Tx) -> int:
        owed = videos.owed_providers(tx) & gone
        if owed:
            raise ConfigError(still_owed(sorted(owed)))
        return bring_back(tx, come)

    if gone or come:
        # A write: whoever began an attempt at one that is gone has done so before, or finds him gone.
        returned = await house.store.write(unit)
        if returned:
            _log.warning("attempts.remarked", running_again=returned)
            house.due.set()
    # Nothing is awaited from here on, so that whoever reads twice within one step reads the same.
    house.written, house.rules = rules, lay_over(rules, house.overrides)
    house.last_reload = LastReload(at=house.clock(), error=None)
    house.rules_since = house.last_reload.at
    house.metrics.set_names(
        providers=list(after), models=rules.models, offers=list(rules.offers), rules=[rule.name for rule in rules.rules]
    )
    house.metrics.rules_read(in_force_at_us=house.rules_since)


async def reprice(house: House) -> None:
    """
    From now on the prices hold that operators have set in the database, as it is at this moment.

    Never raises what is wrong with the database: that is logged, and the prices in force stay.
    """
    async with house.repricing:
        try:
            found = tuple(await house.store.read(prices.live_overrides))
        except ReelayError as exc:
            _log.warning("prices.not_read", why=str(exc), in_force=len(house.overrides))
            return
        except Exception:  # noqa: BLE001 - the prices in force are better than none
            _log.exception("prices.not_read", in_force=len(house.overrides))
            return
        if found == house.overrides:
            return
        house.overrides, house.rules = found, lay_over(house.written, found)
        house.rules_since = house.clock()
    _log.info("prices.in_force", overrides=len(found), book_hash=house.rules.book_hash[:12])
    for what in house.rules.warnings[len(house.written.warnings) :]:
        _log.warning("rules.warning", what=what)
