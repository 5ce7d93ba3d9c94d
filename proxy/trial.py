"""`reelay doctor --live`: one paid order at a seller, and what it shows of the seller's wire."""

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import msgspec

from proxy.core.clock import system_clock
from proxy.core.errors import ConfigError
from proxy.core.ids import time_hex
from proxy.core.money import microusd_up, parse_usd, usd_text
from proxy.opening import can_be_written, read_rules
from proxy.outside.assets import Fetcher
from proxy.outside.transport import Transport
from proxy.policy.rules import Rules
from proxy.providers.facts import facts_of
from proxy.providers.registry import load_adapters
from proxy.providers.trial import Fact, Seen, judge
from proxy.services.doctor import Seller
from proxy.services.trial_order import Ended, Purchase, buy_once, cheapest
from proxy.settings import Settings, WithFiles, read_settings
from proxy.telemetry.logs import Redaction


@contextlib.asynccontextmanager
async def open_sellers(rules: Rules, fetcher: Fetcher | None = None) -> AsyncIterator[dict[str, Seller]]:
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
    async with open_sellers(trial.rules, Fetcher(trial.settings.allow_media_networks)) as sellers:
        seller = sellers[trial.provider]
        ended = await buy_once(
            seller, trial.purchase, client_ref=reference, out=trial.out, tell=lambda line: tell(redact(line))
        )
    judged = tuple(
        (fact, msgspec.structs.replace(seen, detail=redact(seen.detail)))
        for fact, seen in judge(facts_of(account.adapter), ended.trial)
    )
    return Report(ended=msgspec.structs.replace(ended, sentence=redact(ended.sentence)), judged=judged)
