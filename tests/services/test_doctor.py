"""Whether a seller answers, by one question that buys nothing."""

import msgspec
import pytest

from proxy.core.account import Account
from proxy.core.errors import Interrupted, NotSent, SellerError
from proxy.core.wire import Call, Reply
from proxy.providers.registry import load_adapters
from proxy.services.doctor import Look, Seller, look_at
from tests.services.rehearsal import ScriptedFetcher, ScriptedTransport, reply

NOW_US = 1_795_239_000_500_000
"""2026-11-21, half a second behind 05:30:00 UTC."""
ACCOUNT = Account(name="first", adapter="fal", base_url="http://127.0.0.1:1", api_key="id:key")


async def look(answer: Reply | SellerError, account: Account = ACCOUNT) -> Look:
    async def script(_: str, __: Call) -> Reply:
        if isinstance(answer, SellerError):
            raise answer
        return answer

    transport, fetcher = ScriptedTransport(script), ScriptedFetcher(b"")
    adapter = load_adapters()[account.adapter]
    seen = await look_at(Seller(account=account, adapter=adapter, transport=transport, fetcher=fetcher), lambda: NOW_US)
    assert {method for _, method, _ in transport.calls} <= {"GET"}
    await transport.close()
    await fetcher.close()
    return seen


@pytest.mark.parametrize(
    ("answer", "verdict", "told"),
    [
        (reply(404, {"detail": "no such request"}), "ok", "and does not refuse the key"),
        (reply(200, {"status": "COMPLETED"}), "ok", "and does not refuse the key"),
        (reply(401, {"detail": "no such key"}), "problem", "and refuses the key: no such key"),
        (reply(403, {"detail": "User is locked"}), "problem", "and refuses the key: User is locked"),
        (reply(502, None), "warning", "but with status 502"),
        (NotSent("no connection to first"), "problem", "127.0.0.1: no connection to first"),
        (Interrupted("no answer from first within 10 s"), "problem", "127.0.0.1: no answer from first within 10 s"),
    ],
)
async def test_answer_says_how_the_seller_is(answer: Reply | SellerError, verdict: str, told: str) -> None:
    found = (await look(answer)).finding
    assert (found.verdict, found.subject) == (verdict, "provider first")
    assert (found.advice is None) == (verdict == "ok")
    assert told in found.detail


async def test_host_that_nobody_knows_is_told_without_asking() -> None:
    elsewhere = msgspec.structs.replace(ACCOUNT, base_url="https://no.such.host.invalid")
    found = (await look(Interrupted("never asked"), elsewhere)).finding
    assert found.verdict == "problem"
    assert found.detail.startswith("no.such.host.invalid cannot be resolved: ")


async def test_provider_that_is_switched_off_is_looked_at_all_the_same() -> None:
    found = (await look(reply(404, {"detail": "x"}), msgspec.structs.replace(ACCOUNT, enabled=False))).finding
    assert (found.verdict, found.detail.endswith("; it is switched off")) == ("ok", True)


@pytest.mark.parametrize(
    ("answer", "verdict", "told"),
    [
        (reply(404, {"code": "NOT_FOUND", "message": "no such page"}), "ok", "; only an order shows whether it takes"),
        (reply(401, {"code": "UNAUTHORIZED", "message": "no such key"}), "problem", "and refuses the key: no such key"),
        (reply(503, None), "warning", "but with status 503"),
    ],
)
async def test_seller_that_cannot_be_asked_about_orders_is_asked_whether_it_is_there(
    answer: Reply, verdict: str, told: str
) -> None:
    found = (await look(answer, msgspec.structs.replace(ACCOUNT, adapter="runflow-legacy"))).finding
    assert (found.verdict, told in found.detail) == (verdict, True), found.detail


@pytest.mark.parametrize(
    ("date", "ahead_us"),
    [
        ("Sat, 21 Nov 2026 05:30:00 GMT", 0),
        ("Sat, 21 Nov 2026 05:29:58 GMT", 1_500_000),
        ("Sat, 21 Nov 2026 05:30:04 GMT", -3_500_000),
        ("Sat, 21 Nov 2026 05:29:50 -0000", 9_500_000),
        ("yesterday", None),
        ("Mon, 01 Jan 99999999999 00:00:00 GMT", None),
        (None, None),
    ],
)
async def test_sellers_clock_is_told_as_exactly_as_whole_seconds_can(date: str | None, ahead_us: int | None) -> None:
    answer = reply(404, {"detail": "x"})
    headers = answer.headers | ({} if date is None else {"date": date})
    assert (await look(msgspec.structs.replace(answer, headers=headers))).ahead_us == ahead_us
