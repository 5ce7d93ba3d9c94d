"""`reelay doctor`: everything that has to be right before videos can be bought, one finding each."""

import asyncio
import contextlib
import shutil
import stat
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import msgspec

from proxy.core.clock import system_clock
from proxy.core.errors import ConfigError, ReelayError
from proxy.core.ids import time_hex
from proxy.core.money import microusd_up, parse_usd, usd_text
from proxy.opening import can_be_written, open_store, owed_but_vanished, read_rules
from proxy.outside.assets import Fetcher
from proxy.outside.storage import open_storage
from proxy.outside.transport import Transport
from proxy.policy.rules import Rules
from proxy.providers.facts import facts_of
from proxy.providers.registry import load_adapters
from proxy.providers.trial import Fact, Seen, judge
from proxy.services.doctor import Finding, Seller, look_at
from proxy.services.trial_order import Ended, Purchase, buy_once, cheapest
from proxy.settings import Settings, WithFiles, exposures, read_settings, unknown_names
from proxy.store import migrations
from proxy.telemetry.logs import Redaction

LEAST_FREE_BYTES = 1024**3
"""A day of short films for a small team."""


async def checkup(env: Mapping[str, str]) -> AsyncIterator[Finding]:
    """Findings as they are made. Buys nothing; the only file it makes is a probe in the storage, which it deletes."""
    try:
        settings = read_settings(env)
    except ConfigError as exc:
        yield _fail("settings", exc)
        return
    for finding in _settings(settings, env):
        yield finding
    rules, findings = _rules(settings, env)
    for finding in findings:
        yield finding
    async for finding in _database(settings, rules):
        yield finding
    async for finding in _storage(settings):
        yield finding
    if rules is not None:
        async for finding in _providers(rules):
            yield finding


def _ok(subject: str, detail: str) -> Finding:
    return Finding(verdict="ok", subject=subject, detail=detail)


def _fail(subject: str, exc: ReelayError) -> Finding:
    return Finding(verdict="fail", subject=subject, detail=str(exc))


def _settings(settings: Settings, env: Mapping[str, str]) -> list[Finding]:
    doubts = [*unknown_names(env), *exposures(settings)]
    return [Finding(verdict="warn", subject="settings", detail=doubt) for doubt in doubts] or [_ok("settings", "fine")]


def _rules(settings: Settings, env: Mapping[str, str]) -> tuple[Rules | None, list[Finding]]:
    try:
        rules = read_rules(settings.rules, WithFiles(env))
    except ConfigError as exc:
        return None, [_fail("rules", exc)]
    findings = [_ok("rules", f"{settings.rules}: {len(rules.rules)} rules, {len(rules.offers)} offers")]
    findings += [Finding(verdict="warn", subject="rules", detail=warning) for warning in rules.warnings]
    if not any(account.on for account in rules.accounts.values()):
        findings.append(Finding(verdict="fail", subject="rules", detail="no provider is usable: no key is set"))
    return rules, findings


async def _database(settings: Settings, rules: Rules | None) -> AsyncIterator[Finding]:
    place = settings.database
    name = place if isinstance(place, Path) else "PostgreSQL"
    if isinstance(place, Path) and not place.exists():
        yield _ok("database", f"{name} will be made by the first start")
        return
    try:
        revision = migrations.revision_of(place)
        if revision != migrations.HEAD and not migrations.works_beside(place):
            has = "no schema yet" if revision is None else f"schema {revision}"
            yield Finding(verdict="warn", subject="database", detail=f"{name} has {has}: `reelay migrate`")
            return
        async with open_store(settings) as store:
            vanished = [] if rules is None else await owed_but_vanished(store, rules)
    except ConfigError as exc:
        yield _fail("database", exc)
        return
    yield _ok("database", f"{name} at schema {revision}")
    for provider in vanished:
        yield Finding(verdict="fail", subject="database", detail=f"attempts are owed to {provider}, not in the rules")
    secret = settings.data_folder / "secret"
    if settings.secret is None and secret.exists() and stat.S_IMODE(secret.stat().st_mode) & 0o077:
        yield Finding(verdict="warn", subject="database", detail=f"{secret} can be read by others: chmod 600")


async def _storage(settings: Settings) -> AsyncIterator[Finding]:
    try:
        storage = open_storage(settings.storage_url)
        await storage.check()
        room = await storage.room()
    except ReelayError as exc:
        yield _fail("storage", exc)
        return
    yield _ok("storage", f"{settings.storage_url} can be written")
    if room is not None:
        yield _disk("disk of the storage", room.free_bytes)
    if isinstance(settings.database, Path):
        folder = next(parent for parent in settings.database.absolute().parents if parent.exists())
        yield _disk("disk of the database", shutil.disk_usage(folder).free)


def _disk(subject: str, free_bytes: int) -> Finding:
    finding = _ok(subject, f"{free_bytes / 1024**3:.1f} GiB free")
    return finding if free_bytes >= LEAST_FREE_BYTES else msgspec.structs.replace(finding, verdict="warn")


async def _providers(rules: Rules) -> AsyncIterator[Finding]:
    """All at once; those without a key are told by the rules."""
    async with _sellers(rules) as sellers:
        asked = [look_at(seller) for seller in sellers.values() if seller.account.api_key is not None]
        for finding in await asyncio.gather(*asked):
            yield finding


@contextlib.asynccontextmanager
async def _sellers(rules: Rules, fetcher: Fetcher | None = None) -> AsyncIterator[dict[str, Seller]]:
    """Those whose adapter is installed, by provider."""
    adapters = load_adapters()
    transport = Transport()
    fetcher = fetcher or Fetcher()
    try:
        yield {
            account.name: Seller(
                account=account, adapter=adapters[account.adapter], transport=transport, fetcher=fetcher
            )
            for account in rules.accounts.values()
            if account.adapter in adapters
        }
    finally:
        await transport.close()
        await fetcher.close()


# One paid order


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """How a paid trial went and what it showed; nothing secret is in it."""

    ended: Ended
    judged: tuple[tuple[Fact, Seen], ...]

    @property
    def good(self) -> bool:
        return self.ended.word == "delivered" and all(seen.verdict != "broken" for _, seen in self.judged)


class PreparedTrial(msgspec.Struct, frozen=True, kw_only=True):
    """A purchase that was found to fit the limit; nothing is bought yet."""

    purchase: Purchase
    rules: Rules
    provider: str
    settings: Settings
    out: Path | None


def prepare_trial(env: Mapping[str, str], provider: str, max_usd: str, out: Path | None) -> PreparedTrial:
    """Raises ConfigError where there is no such provider, no key, no place for the film, or a price above `max_usd`."""
    settings = read_settings(env)
    rules = read_rules(settings.rules, WithFiles(env))
    purchase = cheapest(rules, provider, system_clock())
    account = rules.accounts[provider]
    if account.api_key is None:
        raise ConfigError(f"the key of the provider {provider} is not set")
    if account.adapter not in load_adapters():
        raise ConfigError(f"the provider {provider} needs the adapter {account.adapter!r}, which is not installed")
    try:
        limit = microusd_up(parse_usd(max_usd))
    except ValueError as exc:
        raise ConfigError(f"--max-usd: {exc}") from exc
    if purchase.at_most_microusd > limit:
        raise ConfigError(
            f"{purchase.offer.id} may cost up to ${usd_text(purchase.at_most_microusd)}, more than --max-usd {max_usd}"
        )
    if out is not None and not can_be_written(out):
        raise ConfigError(f"--out {out} cannot be written")
    return PreparedTrial(purchase=purchase, rules=rules, provider=provider, settings=settings, out=out)


async def run_trial(trial: PreparedTrial, tell: Callable[[str], None]) -> Report:
    """Buys, once. Never raises what the seller does."""
    account = trial.rules.accounts[trial.provider]
    redact = Redaction([account.api_key or ""]).text
    reference = f"reelay-doctor-{time_hex(system_clock())}"
    async with _sellers(trial.rules, Fetcher(trial.settings.allow_media_networks)) as sellers:
        seller = sellers[trial.provider]
        ended = await buy_once(
            seller, trial.purchase, client_ref=reference, out=trial.out, tell=lambda line: tell(redact(line))
        )
    judged = tuple(
        (fact, msgspec.structs.replace(seen, detail=redact(seen.detail)))
        for fact, seen in judge(facts_of(account.adapter), ended.trial)
    )
    return Report(ended=msgspec.structs.replace(ended, sentence=redact(ended.sentence)), judged=judged)
