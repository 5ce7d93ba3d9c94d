"""The door to the sellers, over real sockets: what left, what did not, and what is sent once only."""

import asyncio
import gzip
import ssl
import tracemalloc
from collections.abc import AsyncIterator

import pytest

from proxy.core.account import Account
from proxy.core.errors import Interrupted, NotSent
from proxy.core.wire import Call, Reply
from proxy.outside.transport import MAX_BODY_BYTES, Transport
from tests.outside.servers import LOOPBACK_PEM, Behaviour, Names, Serve, Visit, reply

KEY = ("Authorization", "Bearer seller-key")


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    made = Transport()
    yield made
    await made.close()


def make_account(base_url: str, *, max_in_flight: int | None = None) -> Account:
    return Account(name="seller", adapter="any", base_url=base_url, api_key="seller-key", max_in_flight=max_in_flight)


AT_ONCE = 400
"""So many pieces of work a worker has under way."""
POLL = Call(method="GET", path="/v1/tasks/1")
SUBMIT = Call(method="POST", path="/v1/videos", body=b'{"prompt":"a"}')


async def send(
    transport: Transport, base_url: str, call: Call = SUBMIT, *, timeout_s: float = 5, fresh: bool = True
) -> Reply:
    return await transport.send(make_account(base_url), KEY, call, timeout_s=timeout_s, fresh=fresh)


async def answer_all(visit: Visit) -> None:
    while await visit.request():
        await visit.send(reply(b'{"id":"1"}'))


# What is sent


async def test_call_arrives_with_key_type_and_agent(transport: Transport, serve: Serve) -> None:
    server = await serve(answer_all)
    answer = await send(transport, server.url)
    assert (answer.status, answer.body) == (200, b'{"id":"1"}')
    assert answer.headers["content-type"] == "application/json"
    head, _, body = server.requests[0].decode().lower().partition("\r\n\r\n")
    lines = head.split("\r\n")
    assert lines[0] == "post /v1/videos http/1.1"
    assert "authorization: bearer seller-key" in lines
    assert "content-type: application/json" in lines
    assert any(line.startswith("user-agent: reelay/") for line in lines)
    assert body == '{"prompt":"a"}'


async def test_base_path_query_and_escapes_survive(transport: Transport, serve: Serve) -> None:
    server = await serve(answer_all)
    call = Call(method="GET", path="/v1/a%2Fb", query=(("q", "a b&c=d/é+"), ("q", "2")))
    await send(transport, server.url + "/base", call)
    target = server.requests[0].split(b" ")[1].decode()
    path, _, query = target.partition("?")
    from urllib.parse import parse_qsl

    assert path == "/base/v1/a%2Fb"
    assert parse_qsl(query) == [("q", "a b&c=d/é+"), ("q", "2")]


async def test_call_cannot_replace_the_key(transport: Transport, serve: Serve) -> None:
    server = await serve(answer_all)
    call = Call(method="GET", path="/x", headers=(("authorization", "Bearer other"), ("x-more", "1")))
    await send(transport, server.url, call)
    assert server.requests[0].count(b"seller-key") == 1
    assert b"other" not in server.requests[0]
    assert b"x-more: 1" in server.requests[0]


async def test_path_that_would_change_the_host_is_not_sent(transport: Transport, serve: Serve) -> None:
    server = await serve(answer_all)
    with pytest.raises(NotSent):
        await send(transport, "http://seller.example", Call(method="GET", path=f"@127.0.0.1:{server.port}/"))
    assert server.connections == 0


@pytest.mark.parametrize(
    "call",
    [
        Call(method="GET", path="/é"),
        Call(method="GET", path="/x#y"),
        Call(method="GET", path="/x y"),
        Call(method="GET", path="/x", query=(("q", "\ud800"),)),
        Call(method="POST", path="/x", headers=(("x-more", "\ud800"),), body=b"{}"),
    ],
    ids=ascii,
)
async def test_request_that_cannot_be_written_is_not_sent(transport: Transport, serve: Serve, call: Call) -> None:
    server = await serve(answer_all)
    with pytest.raises(NotSent):
        await send(transport, server.url, call, fresh=True)
    assert server.connections == 0


async def test_few_packed_bytes_take_no_more_memory_than_the_longest_answer(transport: Transport, serve: Serve) -> None:
    bomb = gzip.compress(bytes(300_000_000), 9)

    async def burst(visit: Visit) -> None:
        await visit.request()
        await visit.send(reply(bomb, headers="content-encoding: gzip\r\n"))

    server = await serve(burst)
    tracemalloc.start()
    try:
        with pytest.raises(Interrupted):
            await send(transport, server.url)
        assert tracemalloc.get_traced_memory()[1] < 6 * MAX_BODY_BYTES
    finally:
        tracemalloc.stop()


async def test_redirect_is_an_answer_and_is_not_followed(transport: Transport, serve: Serve) -> None:
    elsewhere = await serve(answer_all)

    async def redirect(visit: Visit) -> None:
        await visit.request()
        await visit.send(reply(b"", status="307 Temporary Redirect", headers=f"location: {elsewhere.url}/\r\n"))

    server = await serve(redirect)
    answer = await send(transport, server.url)
    assert (answer.status, answer.headers["location"]) == (307, f"{elsewhere.url}/")
    assert elsewhere.connections == 0


async def test_cookies_are_not_kept(transport: Transport, serve: Serve) -> None:
    async def bake(visit: Visit) -> None:
        while await visit.request():
            await visit.send(reply(headers="set-cookie: a=1; Path=/\r\n"))

    server = await serve(bake)
    await send(transport, server.url, POLL)
    await send(transport, server.url, POLL)
    assert b"cookie" not in server.requests[1].lower()


async def test_packed_answer_is_unpacked(transport: Transport, serve: Serve) -> None:
    async def pack(visit: Visit) -> None:
        await visit.request()
        await visit.send(reply(gzip.compress(b'{"a":1}'), headers="content-encoding: gzip\r\n"))

    server = await serve(pack)
    assert (await send(transport, server.url)).body == b'{"a":1}'


# Certainly nothing left


async def test_refused_port_is_not_sent(transport: Transport, closed_port: int) -> None:
    with pytest.raises(NotSent):
        await send(transport, f"http://127.0.0.1:{closed_port}")


async def test_unknown_name_is_not_sent() -> None:
    transport = Transport(resolver=Names())
    with pytest.raises(NotSent):
        await send(transport, "http://nosuch.example")
    await transport.close()


async def test_untrusted_certificate_is_not_sent(transport: Transport, serve: Serve) -> None:
    server = await serve(answer_all, tls=True)
    with pytest.raises(NotSent):
        await send(transport, server.url)
    assert server.requests == []


async def test_certificate_for_another_name_is_not_sent(serve: Serve) -> None:
    server = await serve(answer_all, tls=True)
    transport = Transport(
        ssl_context=ssl.create_default_context(cafile=LOOPBACK_PEM), resolver=Names(other_example="127.0.0.1")
    )
    with pytest.raises(NotSent):
        await send(transport, server.at("other.example"))
    assert (await send(transport, server.url)).status == 200
    await transport.close()


async def test_plain_http_behind_https_is_not_sent(transport: Transport, serve: Serve) -> None:
    async def answer_plainly(visit: Visit) -> None:
        await visit.reader.read(1)
        await visit.send(reply(b"", status="400 Bad Request"))

    server = await serve(answer_plainly)
    with pytest.raises(NotSent):
        await send(transport, server.url.replace("http:", "https:"))


async def test_connection_closed_during_the_handshake_is_not_sent(transport: Transport, serve: Serve) -> None:
    async def slam(visit: Visit) -> None:
        await visit.reader.read(1)

    server = await serve(slam)
    with pytest.raises(NotSent):
        await send(transport, server.url.replace("http:", "https:"))


async def test_no_free_connection_in_time_is_not_sent(serve: Serve) -> None:
    asked = asyncio.Event()

    async def stall(visit: Visit) -> None:
        await visit.request()
        asked.set()
        await asyncio.sleep(60)

    server = await serve(stall)
    transport = Transport(pool_timeout_s=0.3)
    account = make_account(server.url, max_in_flight=1)
    first = asyncio.create_task(transport.send(account, KEY, SUBMIT, timeout_s=60, fresh=True))
    await asked.wait()
    with pytest.raises(NotSent):
        await transport.send(account, KEY, SUBMIT, timeout_s=60, fresh=True)
    assert server.connections == 1
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await transport.close()


async def test_seller_that_takes_its_time_keeps_nobody_waiting_for_a_connection(serve: Serve) -> None:
    """A wait of our own would be told as the seller's, and speak against it."""
    come, everybody = 0, asyncio.Event()

    async def answer_once_all_are_here(visit: Visit) -> None:
        nonlocal come
        await visit.request()
        come += 1
        if come == AT_ONCE:
            everybody.set()
        await everybody.wait()
        await visit.send(reply(b'{"id":"1"}'))

    server = await serve(answer_once_all_are_here)
    transport = Transport()
    account = make_account(server.url)
    await asyncio.gather(*(transport.send(account, KEY, SUBMIT, timeout_s=60, fresh=True) for _ in range(AT_ONCE)))
    await transport.close()


# Bytes may have left


async def close_at_once(visit: Visit) -> None:
    """Never reads."""


async def reset_at_once(visit: Visit) -> None:
    visit.reset()


async def close_after_request(visit: Visit) -> None:
    await visit.request()


async def reset_after_request(visit: Visit) -> None:
    await visit.request()
    visit.reset()


async def close_within_head(visit: Visit) -> None:
    await visit.request()
    await visit.send(b"HTTP/1.1 200 OK\r\ncontent-")


async def close_within_body(visit: Visit) -> None:
    await visit.request()
    await visit.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc")


async def reset_within_body(visit: Visit) -> None:
    await close_within_body(visit)
    await asyncio.sleep(0.05)
    visit.reset()


async def close_within_chunk(visit: Visit) -> None:
    await visit.request()
    await visit.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n64\r\nabc")


async def speak_no_http(visit: Visit) -> None:
    await visit.request()
    await visit.send(b"220 mail.example ESMTP\r\n\r\n")


async def send_broken_packing(visit: Visit) -> None:
    await visit.request()
    await visit.send(reply(b"not gzip", headers="content-encoding: gzip\r\n"))


async def send_too_much(visit: Visit) -> None:
    await visit.request()
    await visit.send(reply(b"x" * (MAX_BODY_BYTES + 1)))


async def unpack_to_too_much(visit: Visit) -> None:
    await visit.request()
    await visit.send(reply(gzip.compress(b"x" * (MAX_BODY_BYTES + 1)), headers="content-encoding: gzip\r\n"))


async def pack_many_times(visit: Visit) -> None:
    await visit.request()
    packed = gzip.compress(gzip.compress(bytes(200_000_000), 1))
    await visit.send(reply(packed, headers="content-encoding: gzip, gzip\r\n"))


async def stop_within_packing(visit: Visit) -> None:
    await visit.request()
    await visit.send(reply(gzip.compress(b'{"a": 1}' * 1000)[:-20], headers="content-encoding: gzip\r\n"))


BREAKS = (
    close_at_once,
    reset_at_once,
    close_after_request,
    reset_after_request,
    close_within_head,
    close_within_body,
    reset_within_body,
    close_within_chunk,
    speak_no_http,
    send_broken_packing,
    send_too_much,
    unpack_to_too_much,
    pack_many_times,
    stop_within_packing,
)


@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
@pytest.mark.parametrize("behaviour", BREAKS)
async def test_broken_exchange_is_interrupted(
    transport: Transport, serve: Serve, behaviour: Behaviour, method: str, fresh: bool
) -> None:
    server = await serve(behaviour)
    body = None if method in {"GET", "DELETE"} else b"{}"
    with pytest.raises(Interrupted):
        await send(transport, server.url, Call(method=method, path="/", body=body), fresh=fresh)
    if fresh or method != "GET":
        assert server.connections == 1


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc"])
async def test_answer_that_does_not_come_in_time_is_interrupted(
    transport: Transport, serve: Serve, said: bytes
) -> None:
    async def stall(visit: Visit) -> None:
        await visit.request()
        await visit.send(said)
        await asyncio.sleep(60)

    server = await serve(stall)
    with pytest.raises(Interrupted):
        await send(transport, server.url, timeout_s=0.2)


async def test_trickled_answer_cannot_outlast_the_timeout(transport: Transport, serve: Serve) -> None:
    async def trickle(visit: Visit) -> None:
        await visit.request()
        await visit.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        while True:
            await visit.send(b"x")
            await asyncio.sleep(0.02)

    server = await serve(trickle)
    with pytest.raises(Interrupted):
        await send(transport, server.url, timeout_s=0.3)


async def test_send_after_close_opens_anew(transport: Transport, serve: Serve) -> None:
    server = await serve(answer_all)
    await send(transport, server.url, POLL)
    await transport.close()
    assert (await send(transport, server.url, POLL)).status == 200


async def test_close_during_an_exchange_is_interrupted(transport: Transport, serve: Serve) -> None:
    asked = asyncio.Event()

    async def stall(visit: Visit) -> None:
        await visit.request()
        asked.set()
        await asyncio.sleep(60)

    server = await serve(stall)
    call = asyncio.create_task(send(transport, server.url))
    await asked.wait()
    await transport.close()
    with pytest.raises(Interrupted):
        await call


@pytest.mark.parametrize("behaviour", [close_after_request, speak_no_http, send_too_much])
async def test_no_error_shows_the_key(transport: Transport, serve: Serve, behaviour: Behaviour) -> None:
    server = await serve(behaviour)
    with pytest.raises(Interrupted) as caught:
        await send(transport, server.url)
    error: BaseException | None = caught.value
    while error is not None:
        assert "seller-key" not in f"{error!s} {error!r}"
        error = error.__cause__


# Connections: reused by polls, new for submits, and nothing twice


async def test_polls_share_a_connection_and_submits_do_not(transport: Transport, serve: Serve) -> None:
    server = await serve(answer_all)
    for _ in range(3):
        await send(transport, server.url, POLL, fresh=False)
    assert server.connections == 1
    for _ in range(3):
        await send(transport, server.url, SUBMIT, fresh=True)
    assert server.connections == 4


async def drop_second_request(visit: Visit) -> None:
    """The first request on each connection is answered; the connection drops under the second."""
    await visit.request()
    await visit.send(reply())
    await visit.request()


async def test_poll_on_a_dropped_idle_connection_is_repeated(transport: Transport, serve: Serve) -> None:
    server = await serve(drop_second_request)
    await send(transport, server.url, POLL, fresh=False)
    assert (await send(transport, server.url, POLL, fresh=False)).status == 200
    assert len(server.requests) == 3


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_nothing_but_a_poll_is_ever_sent_twice(transport: Transport, serve: Serve, method: str) -> None:
    server = await serve(drop_second_request)
    await send(transport, server.url, POLL, fresh=False)
    with pytest.raises(Interrupted):
        await send(transport, server.url, Call(method=method, path="/", body=b"{}"), fresh=False)
    assert [request.split(b" ")[0].decode() for request in server.requests] == ["GET", method]


async def test_submit_does_not_meet_an_idle_connection(transport: Transport, serve: Serve) -> None:
    server = await serve(drop_second_request)
    await send(transport, server.url, POLL, fresh=False)
    assert (await send(transport, server.url, SUBMIT, fresh=True)).status == 200


async def test_connection_closed_while_idle_is_not_used_again(transport: Transport, serve: Serve) -> None:
    async def answer_once(visit: Visit) -> None:
        await visit.request()
        await visit.send(reply())

    server = await serve(answer_once)
    for _ in range(3):
        await send(transport, server.url, SUBMIT, fresh=False)
        await asyncio.sleep(0.05)
    assert (server.connections, len(server.requests)) == (3, 3)


async def test_changed_limit_takes_a_pool_of_its_own(transport: Transport, serve: Serve) -> None:
    server = await serve(answer_all)
    for limit in (1, 2, 1):
        await transport.send(make_account(server.url, max_in_flight=limit), KEY, POLL, timeout_s=5)
    assert server.connections == 2
