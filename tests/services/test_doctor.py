"""Whether a seller answers, by one question that buys nothing."""

import msgspec
import pytest

from proxy.core.account import Account
from proxy.core.errors import Interrupted, NotSent, SellerError
from proxy.core.wire import Call, Reply
from proxy.providers.registry import load_adapters
from proxy.services.doctor import Finding, Seller, look_at
from tests.services.rehearsal import ScriptedFetcher, ScriptedTransport, reply

ACCOUNT = Account(name="first", adapter="fal", base_url="http://127.0.0.1:1", api_key="id:key")


async def look(answer: Reply | SellerError, account: Account = ACCOUNT) -> Finding:
    async def script(_: str, __: Call) -> Reply:
        if isinstance(answer, SellerError):
            raise answer
        return answer

    transport, fetcher = ScriptedTransport(script), ScriptedFetcher(b"")
    adapter = load_adapters()[account.adapter]
    found = await look_at(Seller(account=account, adapter=adapter, transport=transport, fetcher=fetcher))
    assert {method for _, method, _ in transport.calls} <= {"GET"}
    await transport.close()
    await fetcher.close()
    return found


@pytest.mark.parametrize(
    ("answer", "verdict", "told"),
    [
        (reply(404, {"detail": "no such request"}), "ok", "and does not refuse the key"),
        (reply(200, {"status": "COMPLETED"}), "ok", "and does not refuse the key"),
        (reply(401, {"detail": "no such key"}), "fail", "and refuses the key: no such key"),
        (reply(403, {"detail": "User is locked"}), "fail", "and refuses the key: User is locked"),
        (reply(502, None), "warn", "but with status 502"),
        (NotSent("no connection to first"), "fail", "127.0.0.1: no connection to first"),
        (Interrupted("no answer from first within 10 s"), "fail", "127.0.0.1: no answer from first within 10 s"),
    ],
)
async def test_answer_says_how_the_seller_is(answer: Reply | SellerError, verdict: str, told: str) -> None:
    found = await look(answer)
    assert (found.verdict, found.subject) == (verdict, "provider first")
    assert told in found.detail


async def test_host_that_nobody_knows_is_told_without_asking() -> None:
    found = await look(
        Interrupted("never asked"), msgspec.structs.replace(ACCOUNT, base_url="https://no.such.host.invalid")
    )
    assert found.verdict == "fail"
    assert found.detail.startswith("no.such.host.invalid cannot be resolved: ")


async def test_provider_that_is_switched_off_is_looked_at_all_the_same() -> None:
    found = await look(reply(404, {"detail": "x"}), msgspec.structs.replace(ACCOUNT, enabled=False))
    assert (found.verdict, found.detail.endswith("; it is switched off")) == ("ok", True)


@pytest.mark.parametrize(
    ("answer", "verdict", "told"),
    [
        (reply(404, {"code": "NOT_FOUND", "message": "no such page"}), "ok", "; only an order shows whether it takes"),
        (reply(401, {"code": "UNAUTHORIZED", "message": "no such key"}), "fail", "and refuses the key: no such key"),
        (reply(503, None), "warn", "but with status 503"),
    ],
)
async def test_seller_that_cannot_be_asked_about_orders_is_asked_whether_it_is_there(
    answer: Reply, verdict: str, told: str
) -> None:
    found = await look(answer, msgspec.structs.replace(ACCOUNT, adapter="runflow-legacy"))
    assert (found.verdict, told in found.detail) == (verdict, True), found.detail
