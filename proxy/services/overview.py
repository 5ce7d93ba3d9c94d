"""What operators look at: attempts that need them, and how each provider has done lately."""

from typing import Literal, get_args

import msgspec

from proxy.core.attempt import Attempt, AttemptState
from proxy.core.clock import SECOND_US, iso
from proxy.core.errors import InvalidValue
from proxy.core.money import usd_text
from proxy.core.offer import Offer
from proxy.policy.pace import LearnedTimes
from proxy.policy.rules import Rules
from proxy.services.house import House
from proxy.services.pulse import Pulse
from proxy.store import videos
from proxy.store.base import Store, Tx

STATES: tuple[str, ...] = get_args(AttemptState)
HOUR_US = 3600 * SECOND_US


class AttemptLine(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt as an operator sees it."""

    video: str
    attempt: int
    tenant: str
    video_status: str
    state: str
    provider: str
    offer: str
    seller_id: str | None
    age_s: int
    started_at: str
    possible_cost_usd: str
    """What it may have cost, where nobody knows."""
    cost_usd: str | None
    message: str | None


async def attempts_in(store: Store, state: str, *, most: int, now_us: int) -> list[AttemptLine]:
    """
    The oldest attempts in a state; `unknown` lists those that were lost too, for both may have cost.

    Raises InvalidValue for a state that does not exist.
    """
    if state not in STATES:
        raise InvalidValue(f"'state' is one of {', '.join(STATES)}.", param="state")
    states = ("unknown", "lost") if state == "unknown" else (state,)

    def unit(tx: Tx) -> list[tuple[Attempt, str, str]]:
        rows = [row for one in states for row in videos.attempts_in_state(tx, one, most=most)]
        return sorted(rows, key=lambda row: row[0].started_at)[:most]

    found = await store.read(unit)
    return [attempt_line(attempt, tenant, status, now_us) for attempt, tenant, status in found]


def attempt_line(attempt: Attempt, tenant: str, status: str, now_us: int) -> AttemptLine:
    """`status` is its video's."""
    return AttemptLine(
        video=attempt.video_id,
        attempt=attempt.number,
        tenant=tenant,
        video_status=status,
        state=attempt.state,
        provider=attempt.provider,
        offer=attempt.offer,
        seller_id=attempt.seller_id,
        age_s=(now_us - attempt.started_at) // SECOND_US,
        started_at=iso(attempt.started_at),
        possible_cost_usd=usd_text(attempt.possible_microusd),
        cost_usd=None if attempt.cost_microusd is None else usd_text(attempt.cost_microusd),
        message=attempt.message,
    )


class Exposure(msgspec.Struct, frozen=True, kw_only=True):
    """Attempts that nobody can tell the end of: unknown and lost."""

    attempts: int
    oldest_at: int
    """When the oldest was sent, in microseconds; 0 where there is none."""
    possible_microusd: int
    """What they may have cost."""


async def unknown_exposure(store: Store) -> Exposure:
    """Of all providers together."""

    def unit(tx: Tx) -> Exposure:
        by_provider = videos.unknown_by_provider(tx).values()
        oldest = [
            attempt.started_at
            for state in ("unknown", "lost")
            for attempt, _, _ in videos.attempts_in_state(tx, state, most=1)
        ]
        return Exposure(
            attempts=sum(count for count, _ in by_provider),
            oldest_at=min(oldest, default=0),
            possible_microusd=sum(microusd for _, microusd in by_provider),
        )

    return await store.read(unit)


class ProviderLine(msgspec.Struct, frozen=True, kw_only=True):
    """One provider: whether it is on, and its attempts of the last hour."""

    provider: str
    adapter: str
    on: bool
    why_off: str | None
    attempts: int
    delivered: int
    failed: int
    unknown: int
    under_way: int
    unknown_total: int
    """Attempts of unknown end, however old."""
    unknown_exposure_usd: str
    breakers: dict[str, str]
    """Offers that are not asked as usual just now: `open` or `half_open`."""


async def provider_health(store: Store, rules: Rules, pulse: Pulse, *, now_us: int) -> list[ProviderLine]:
    """Every provider that the rules name."""
    unwell = {(offer.provider, offer.id): pulse.standing(offer.id).state for offer in rules.offers.values()}

    def unit(tx: Tx) -> list[ProviderLine]:
        recent = {row[0]: row[1:] for row in videos.recent_ends(tx, since=now_us - HOUR_US)}
        unknown = videos.unknown_by_provider(tx)
        lines = []
        for account in rules.accounts.values():
            attempts, delivered, failed, lately_unknown, under_way = recent.get(account.name, (0, 0, 0, 0, 0))
            total, exposure = unknown.get(account.name, (0, 0))
            why_off = None if account.on else "switched off" if not account.enabled else "its key is not set"
            lines.append(
                ProviderLine(
                    provider=account.name,
                    adapter=account.adapter,
                    on=account.on,
                    why_off=why_off,
                    attempts=attempts,
                    delivered=delivered,
                    failed=failed,
                    unknown=lately_unknown,
                    under_way=under_way,
                    unknown_total=total,
                    unknown_exposure_usd=usd_text(exposure),
                    breakers={
                        offer: state
                        for (provider, offer), state in unwell.items()
                        if provider == account.name and state != "closed"
                    },
                )
            )
        return lines

    return await store.read(unit)


def offers_asked(rules: Rules) -> list[Offer]:
    """Those of providers that are on."""
    return [offer for offer in rules.offers.values() if rules.accounts[offer.provider].on]


def expected_times(rules: Rules, learned: LearnedTimes) -> dict[str, tuple[float | None, float]]:
    """
    Of each offer that is asked, the seconds from accept to file as learned and as the catalogue states them.

    Of a film by the defaults of the rules, or what the offer can make that comes next to it; None: too
    little was learned.
    """
    times = {}
    for offer in offers_asked(rules):
        wanted = rules.defaults
        resolution = wanted.resolution if wanted.resolution in offer.resolutions else offer.resolutions[0]
        seconds = min(max(wanted.seconds or offer.max_seconds, offer.min_seconds), offer.max_seconds)
        times[offer.id] = (
            learned.expected_s(offer, resolution, seconds),
            offer.expected_time_s(resolution, seconds),
        )
    return times


class RulesInForce(msgspec.Struct, frozen=True, kw_only=True):
    """By which rules is decided, since when, and how the last try to change them went."""

    object: Literal["rules"] = "rules"
    rules_hash: str
    book_hash: str
    since: str
    rules: tuple[str, ...]
    warnings: tuple[str, ...]
    last_reload_at: str | None
    """None: they were read at the start and never since."""
    last_reload_error: str | None
    """None: they are the file's, as it then was."""


def rules_in_force(house: House) -> RulesInForce:
    rules, last = house.rules, house.last_reload
    return RulesInForce(
        rules_hash=rules.rules_hash,
        book_hash=rules.book_hash,
        since=iso(house.rules_since),
        rules=tuple(rule.name for rule in rules.rules),
        warnings=rules.warnings,
        last_reload_at=None if last is None else iso(last.at),
        last_reload_error=None if last is None else last.error,
    )
