"""Looks at sellers from outside: whether each answers, and takes its key. Buys nothing."""

import asyncio
import socket
import time
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from proxy.core.account import Account
from proxy.core.attempt import Ticket
from proxy.core.errors import Refusal, SellerError
from proxy.core.wire import Call, Reply
from proxy.outside.assets import Fetcher
from proxy.outside.transport import Transport
from proxy.providers.base import Adapter, Polls

RESOLVE_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 10.0
NOBODYS_ID = "00000000-0000-4000-8000-000000000000"

Verdict = Literal["ok", "warn", "fail"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a check-up."""

    verdict: Verdict
    subject: str
    detail: str


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


async def look_at(seller: Seller) -> Finding:
    """
    Asks for an order that nobody made; buys nothing. For an account whose key is set.

    Where the seller cannot be asked about orders, only whether it answers at all; its key is then proven
    by an order alone.
    """
    account = seller.account
    subject = f"provider {account.name}"
    host = urlsplit(account.base_url).hostname or ""
    try:
        async with asyncio.timeout(RESOLVE_TIMEOUT_S):
            await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError) as exc:
        return Finding(verdict="fail", subject=subject, detail=f"{host} cannot be resolved: {exc or 'no answer'}")
    begun = time.perf_counter()
    try:
        reply = await seller.send(_question(seller.adapter), timeout_s=ANSWER_TIMEOUT_S)
    except SellerError as exc:
        return Finding(verdict="fail", subject=subject, detail=f"{host}: {exc}")
    took = f"{host} answers in {(time.perf_counter() - begun) * 1000:.0f} ms"
    refused = seller.adapter.refusal(reply) if reply.status >= 300 else None
    if reply.status >= 500:
        return Finding(verdict="warn", subject=subject, detail=f"{took}, but with status {reply.status}")
    if isinstance(refused, Refusal) and refused.kind == "account":
        return Finding(verdict="fail", subject=subject, detail=f"{took} and refuses the key: {refused}")
    asked = isinstance(seller.adapter, Polls)
    key = " and does not refuse the key" if asked else "; only an order shows whether it takes the key"
    off = "" if account.enabled else "; it is switched off"
    return Finding(verdict="ok", subject=subject, detail=f"{took}{key}{off}")


def _question(adapter: Adapter) -> Call:
    """One that changes nothing at the seller."""
    if isinstance(adapter, Polls):
        return adapter.poll(Ticket(seller_id=NOBODYS_ID, seller_model="doctor/doctor"))
    return Call(method="GET", path="/")
