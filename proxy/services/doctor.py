"""Looks at sellers from outside: whether each answers, and takes its key. Buys nothing."""

import asyncio
import socket
import time
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from proxy.core.account import Account
from proxy.core.attempt import Ticket
from proxy.core.clock import SECOND_US, Clock
from proxy.core.errors import Refusal, SellerError
from proxy.core.wire import Call, Reply
from proxy.outside.assets import Fetcher
from proxy.outside.transport import Transport
from proxy.providers.base import Adapter, Polls

RESOLVE_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 10.0
NOBODYS_ID = "00000000-0000-4000-8000-000000000000"

Verdict = Literal["ok", "warning", "problem"]
DATE_GRAIN_US = SECOND_US
"""A Date header tells whole seconds."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at."""

    verdict: Verdict
    subject: str
    detail: str
    """What is so."""
    advice: str | None = None
    """What to do about it; None: nothing."""


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """How a seller is, seen from outside."""

    finding: Finding
    ahead_us: int | None
    """By how much this machine's clock is at least ahead of the seller's; below zero: behind; None: it told no time."""


class Seller(msgspec.Struct, frozen=True, kw_only=True):
    """An account, its wire and the ways to it."""

    account: Account
    adapter: Adapter
    transport: Transport
    fetcher: Fetcher

    async def send(self, call: Call, *, timeout_s: float, fresh: bool = False) -> Reply:
        """Raises NotSent or Interrupted."""
        authorization = self.adapter.authorize(self.account.api_key or "")
        return await self.transport.send(self.account, authorization, call, timeout_s=timeout_s, fresh=fresh)


async def look_at(seller: Seller, clock: Clock) -> Look:
    """
    Asks for an order that nobody made; buys nothing. For an account whose key is set.

    Where the seller cannot be asked about orders, only whether it answers at all; its key is then proven
    by an order alone.
    """
    host = urlsplit(seller.account.base_url).hostname or ""
    try:
        async with asyncio.timeout(RESOLVE_TIMEOUT_S):
            await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError) as exc:
        why = f"{host} cannot be resolved: {exc or 'no answer'}"
        return _seen(seller, "problem", why, "mend this machine's DNS, or the provider's base_url")
    begun, asked_us = time.perf_counter(), clock()
    try:
        reply = await seller.send(_question(seller.adapter), timeout_s=ANSWER_TIMEOUT_S)
    except SellerError as exc:
        return _seen(seller, "problem", f"{host}: {exc}", "look at the network, at TLS and at the provider's base_url")
    took = f"{host} answers in {(time.perf_counter() - begun) * 1000:.0f} ms"
    finding = _judged(seller, reply, took).finding
    return Look(finding=finding, ahead_us=_ahead_us(reply, asked_us, clock()))


def _judged(seller: Seller, reply: Reply, took: str) -> Look:
    refused = seller.adapter.refusal(reply) if reply.status >= 300 else None
    if reply.status >= 500:
        return _seen(
            seller, "warning", f"{took}, but with status {reply.status}", "ask again later; see its status page"
        )
    if isinstance(refused, Refusal) and refused.kind == "account":
        return _seen(seller, "problem", f"{took} and refuses the key: {refused}", "set a key that it takes")
    asked = isinstance(seller.adapter, Polls)
    key = " and does not refuse the key" if asked else "; only an order shows whether it takes the key"
    return _seen(seller, "ok", f"{took}{key}{'' if seller.account.enabled else '; it is switched off'}")


def _seen(seller: Seller, verdict: Verdict, detail: str, advice: str | None = None) -> Look:
    subject = f"provider {seller.account.name}"
    return Look(finding=Finding(verdict=verdict, subject=subject, detail=detail, advice=advice), ahead_us=None)


def _ahead_us(reply: Reply, asked_us: int, answered_us: int) -> int | None:
    try:
        told = parsedate_to_datetime(reply.headers["date"])
        told_us = int(told.replace(tzinfo=told.tzinfo or UTC).timestamp()) * SECOND_US
    except (KeyError, ValueError, OverflowError):
        return None
    if asked_us >= told_us + DATE_GRAIN_US:
        return asked_us - told_us - DATE_GRAIN_US
    return min(0, answered_us - told_us)


def _question(adapter: Adapter) -> Call:
    """One that changes nothing at the seller."""
    if isinstance(adapter, Polls):
        return adapter.poll(Ticket(seller_id=NOBODYS_ID, seller_model="doctor/doctor"))
    return Call(method="GET", path="/")
