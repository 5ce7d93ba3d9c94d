"""
One paid order at one seller, to see what its wire does.

It goes straight through adapter and transport, beside database and ledger. It is sent once and never
again, whatever happens to it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from proxy.core.account import Account
from proxy.core.attempt import Accepted, Done, Order, Progress, Ticket
from proxy.core.clock import as_datetime
from proxy.core.errors import (
    ConfigError,
    Garbled,
    Interrupted,
    NotSent,
    OutcomeUnknown,
    PriceMissing,
    Refusal,
    SellerError,
)
from proxy.core.money import usd_text
from proxy.core.offer import Offer
from proxy.core.video import RESOLUTIONS, Spec
from proxy.core.wire import Call, Reply
from proxy.outside.film import measure
from proxy.policy.fallback import FIND_AT_S, poll_interval_s
from proxy.policy.prices import quote, rate
from proxy.policy.rules import Rules
from proxy.providers.base import Finds, Polls
from proxy.providers.trial import Clip, Exchange, Step, Trial
from proxy.services.doctor import Seller

ASK_TIMEOUT_S = 15.0
LOOK_EVERY_S = 3.0
"""At the most between two polls, so that no state of an order is missed."""
READ_AGAIN_S = 1.5
PATIENCE = 6
"""So many times the expected time is waited for a film, and no less than LEAST_PATIENCE_S."""
LEAST_PATIENCE_S = 900.0

Sleep = Callable[[float], Awaitable[object]]

PROMPT = 'A paper boat sails a rain-swept street past a lantern. A child says: "Go!"'
SEED = 7
TRIAL_SECONDS = 4


class Purchase(msgspec.Struct, frozen=True, kw_only=True):
    """What would be bought, and for how much."""

    offer: Offer
    spec: Spec
    price_microusd: int
    at_most_microusd: int
    """The price, or 1.25 times it where nobody printed it."""
    expected_s: float


End = Literal["delivered", "not bought", "failed", "unknown", "unfinished", "not fetched"]


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How the order went, in one word and one sentence."""

    word: End
    sentence: str
    trial: Trial


def cheapest(rules: Rules, provider: str, at_us: int) -> Purchase:
    """The provider's cheapest short film of its smallest size. Raises ConfigError where it has none with a price."""
    if provider not in rules.accounts:
        raise ConfigError(f"there is no provider {provider!r}; there are: {', '.join(rules.accounts)}")
    day = as_datetime(at_us).date().isoformat()
    offers = [offer for offer in rules.offers.values() if offer.provider == provider]
    found = [one for offer in offers if (one := _purchase(offer, rules.accounts[provider], day)) is not None]
    if not found:
        raise ConfigError(f"the provider {provider} has no offer of text-to-video with a price")
    return min(found, key=lambda one: one.at_most_microusd)


def _purchase(offer: Offer, account: Account, day: str) -> Purchase | None:
    resolution = min(offer.resolutions, key=RESOLUTIONS.index)
    ratio = "16:9" if "16:9" in offer.aspect_ratios else offer.aspect_ratios[0]
    seconds = min(max(TRIAL_SECONDS, offer.min_seconds), offer.max_seconds)
    spec = Spec(
        model=offer.model,
        operation="text-to-video",
        prompt=PROMPT,
        seconds=seconds,
        resolution=resolution,
        aspect_ratio=ratio,
        generate_audio=offer.audio != "never",
        content_filter=True,
        tier=offer.tier,
        seed=SEED if offer.seed else None,
    )
    try:
        rated = rate(offer, spec, day, discount=account.discount)
    except PriceMissing:
        return None
    priced = quote(rated, seconds, "0")
    return Purchase(
        offer=offer,
        spec=spec,
        price_microusd=priced.seller_microusd,
        at_most_microusd=priced.hold_microusd,
        expected_s=offer.expected_time_s(resolution, seconds),
    )


class _Record:
    """What was exchanged so far."""

    def __init__(self, seller: Seller, purchase: Purchase, order: Order, sleep: Sleep) -> None:
        self._sleep = sleep
        self._seller = seller
        self._exchanges: list[Exchange] = []
        self._links: list[str] = []
        self._linked_at_s = 0
        self._order = order
        self._purchase = purchase
        self.clip: Clip | None = None
        self.waited_s = 0.0

    async def wait(self, seconds: float) -> None:
        await self._sleep(seconds)
        self.waited_s += seconds

    async def ask(self, step: Step, call: Call) -> Reply:
        """Never raises Interrupted for what is only asked: a question that broke is Garbled like an odd answer."""
        try:
            reply = await self._seller.send(call, timeout_s=ASK_TIMEOUT_S)
        except SellerError as exc:
            raise Garbled(str(exc)) from exc
        self.note(step, reply)
        return reply

    def note(self, step: Step, reply: Reply) -> None:
        self._exchanges.append(Exchange(step=step, reply=reply))

    def forget(self) -> None:
        self._exchanges.clear()

    def note_link(self, url: str) -> None:
        self._linked_at_s = self._linked_at_s or int(time.time())
        self._links.append(url)

    @property
    def trial(self) -> Trial:
        return Trial(
            order=self._order,
            price_microusd=self._purchase.price_microusd,
            link_lifetime_s=self._purchase.offer.link_lifetime_s,
            exchanges=tuple(self._exchanges),
            links=tuple(self._links),
            linked_at_s=self._linked_at_s,
            clip=self.clip,
        )

    def ended(self, word: End, sentence: str) -> Ended:
        return Ended(word=word, sentence=sentence, trial=self.trial)


async def buy_once(
    seller: Seller,
    purchase: Purchase,
    *,
    client_ref: str,
    out: Path | None,
    tell: Callable[[str], None],
    sleep: Sleep = asyncio.sleep,
) -> Ended:
    """Submits one order, follows it to its film and measures that; `tell` gets a sentence at each step."""
    order = _order(purchase, client_ref)
    record = _Record(seller, purchase, order, sleep)
    try:
        return await _buy(seller, purchase, order, record, out=out, tell=tell)
    except asyncio.CancelledError:
        most = f"${usd_text(purchase.at_most_microusd)}"
        tell(f"Stopped. The order may have been taken; then it goes on, and may cost up to {most}.")
        raise


async def _buy(
    seller: Seller, purchase: Purchase, order: Order, record: _Record, *, out: Path | None, tell: Callable[[str], None]
) -> Ended:
    most = f"${usd_text(purchase.at_most_microusd)}"
    if not isinstance(seller.adapter, Polls):
        tell("Ordered; this seller answers when the film is made.")
    end = await _submit(seller, order, purchase.offer.submit_timeout_s, record)
    if isinstance(end, Refusal):
        record.forget()  # what a refusal looks like says nothing of a good order
        return record.ended("not bought", f"The seller did not take the order ({end.kind}): {end}. Nothing was bought.")
    if isinstance(end, OutcomeUnknown):
        tell(f"No clear answer to the order: {end}")
        found = await _look_for(seller, order, record)
        if found is None:
            return record.ended(
                "unknown",
                f"Nobody can say whether the order was taken; it may have cost up to {most}, and it is not sent again. "
                "Look for it in the seller's own list.",
            )
        end = found
    if isinstance(end, Done):
        return await _fetch(seller, record, end.result.url, out=out, tell=tell)
    tell(f"Taken as {end.seller_id}.")
    ticket = Ticket(seller_id=end.seller_id, seller_model=order.seller_model)
    adapter = seller.adapter
    if not isinstance(adapter, Polls):
        return record.ended("unfinished", f"The order {end.seller_id} cannot be asked about; it may cost up to {most}.")
    await _ask_aside(adapter, ticket, order, record)
    return await _follow(seller, adapter, ticket, purchase, record, out=out, tell=tell)


def _order(purchase: Purchase, client_ref: str) -> Order:
    spec = purchase.spec
    return Order(
        seller_model=purchase.offer.seller_model,
        operation=spec.operation,
        tier=spec.tier,
        prompt=spec.prompt,
        seconds=spec.seconds,
        resolution=spec.resolution,
        aspect_ratio=spec.aspect_ratio,
        generate_audio=spec.generate_audio,
        content_filter=spec.content_filter,
        seed=spec.seed,
        web_search=False,
        end_user=None,
        client_ref=client_ref,
        callback_url=None,
    )


async def _submit(
    seller: Seller, order: Order, timeout_s: float, record: _Record
) -> Accepted | Done | Refusal | OutcomeUnknown:
    """The one place here that buys."""
    try:
        reply = await seller.send(seller.adapter.submit(order), timeout_s=timeout_s, fresh=True)
    except NotSent as exc:
        return Refusal("capacity", str(exc))
    except Interrupted as exc:
        return OutcomeUnknown(str(exc))
    record.note("create", reply)
    try:
        end = seller.adapter.accepted(reply) if 200 <= reply.status < 300 else seller.adapter.refusal(reply)
    except SellerError as exc:
        end = exc
    return end if isinstance(end, Accepted | Done | Refusal) else OutcomeUnknown(str(end))


async def _look_for(seller: Seller, order: Order, record: _Record) -> Accepted | None:
    """By our own tag, at a seller that can be asked; a few times, for the order may show late."""
    finder = seller.adapter
    if not isinstance(finder, Finds):
        return None
    for at_s in FIND_AT_S:
        await record.wait(at_s - record.waited_s)
        try:
            found = finder.found(await record.ask("find", finder.find(order.client_ref)), order.client_ref)
        except SellerError:
            continue
        if found is not None:
            return found
    return None


async def _ask_aside(adapter: Polls, ticket: Ticket, order: Order, record: _Record) -> None:
    """Questions that cost nothing, whose answers facts are judged by."""
    stranger = msgspec.structs.replace(ticket, seller_id=_another(ticket.seller_id))
    calls: list[tuple[Step, Call]] = [("stranger", adapter.poll(stranger))]
    if adapter.collect(ticket) != adapter.poll(ticket):
        calls.insert(0, ("early", adapter.collect(ticket)))
    if isinstance(adapter, Finds):
        calls.append(("find", adapter.find(order.client_ref)))
    for step, call in calls:
        try:
            await record.ask(step, call)
        except SellerError:
            continue  # the fact stays unseen


def _another(seller_id: str) -> str:
    """An id of the same form that is most likely nobody's."""
    end = "0000" if not seller_id.endswith("0000") else "1111"
    return seller_id[: -len(end)] + end


async def _follow(
    seller: Seller,
    adapter: Polls,
    ticket: Ticket,
    purchase: Purchase,
    record: _Record,
    *,
    out: Path | None,
    tell: Callable[[str], None],
) -> Ended:
    give_up_at_s = record.waited_s + max(LEAST_PATIENCE_S, PATIENCE * purchase.expected_s)
    told = ""
    while record.waited_s < give_up_at_s:
        await record.wait(min(LOOK_EVERY_S, poll_interval_s(purchase.expected_s, 0.5)))
        try:
            progress = await _look(adapter, ticket, record)
        except Refusal as exc:
            return record.ended("failed", f"The order was taken and ended without a film ({exc.kind}): {exc}.")
        except SellerError as exc:
            tell(f"No clear answer: {exc}")
            continue
        if progress.result is not None:
            again = adapter, ticket
            return await _fetch(seller, record, progress.result.url, again=again, out=out, tell=tell)
        if progress.state != told:
            told = progress.state
            tell(f"The order is {told}.")
    most = f"${usd_text(purchase.at_most_microusd)}"
    return record.ended("unfinished", f"The order {ticket.seller_id} still runs; it may yet cost up to {most}.")


async def _look(adapter: Polls, ticket: Ticket, record: _Record) -> Progress:
    """As the server polls. Raises Refusal for a definite end, Garbled for everything to be asked again."""
    reply = await record.ask("poll", adapter.poll(ticket))
    if not 200 <= reply.status < 300:
        raise Garbled(f"status {reply.status}: {adapter.refusal(reply)}")
    progress = adapter.progress(reply)
    if progress.state == "succeeded" and progress.result is None:
        reply = await record.ask("file", adapter.collect(ticket))
        if not 200 <= reply.status < 300:
            raise adapter.refusal(reply)
        return Progress(state="succeeded", result=adapter.result(reply))
    if progress.result is not None:
        record.note("file", reply)
    return progress


async def _fetch(
    seller: Seller,
    record: _Record,
    url: str,
    *,
    again: tuple[Polls, Ticket] | None = None,
    out: Path | None,
    tell: Callable[[str], None],
) -> Ended:
    """`again`: who can be asked for another link to the same film."""
    tell("The film is ready; fetching it.")
    record.note_link(url)
    if again is not None:
        await _read_again(*again, record)
    try:
        record.clip = await _measured(seller, url, out)
    except (SellerError, OSError) as exc:
        return record.ended("not fetched", f"The film was made, and most likely paid for, but not fetched: {exc}.")
    return record.ended("delivered", "The film is here.")


async def _read_again(adapter: Polls, ticket: Ticket, record: _Record) -> None:
    # Links that are signed in the same second may well be the same.
    await record.wait(READ_AGAIN_S)
    with suppress(SellerError):  # the link at hand is good enough
        record.note_link(adapter.result(await record.ask("file", adapter.collect(ticket))).url)


async def _measured(seller: Seller, url: str, out: Path | None) -> Clip:
    account = seller.account
    trusted = (urlsplit(account.base_url).hostname or "", *account.asset_hosts)
    with TemporaryDirectory(prefix="reelay-doctor-") as folder:
        path = out or Path(folder) / "film.mp4"
        async with seller.fetcher.open(url, trusted) as download:
            content_type = download.content_type
            with path.open("wb") as file:
                async for chunk in download.chunks:
                    await asyncio.to_thread(file.write, chunk)
        film = await asyncio.to_thread(measure, str(path))
    return Clip(
        duration_ms=film.duration_ms,
        width_px=film.width_px,
        height_px=film.height_px,
        has_audio=film.has_audio,
        content_type=content_type,
    )
