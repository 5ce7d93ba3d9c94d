"""A client that takes too long or never ends is left; whoever waits for us is not."""

import asyncio
import contextlib
import resource
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
import pytest
import structlog.testing
import uvicorn

from proxy.api.patience import (
    CONNECTIONS_MAX,
    FILES_MAX,
    HEAD_MAX_BYTES,
    UNREAD_STEP_BYTES,
    BoundedProtocol,
    Patience,
    files_most,
    hurry_all,
)

FILM = b"f" * 8_000_000
"""More than the system takes from us for a client that does not read."""
LONGER_S = 3.0
"""Than any patience here, and than an answer takes."""


MOST = 20
"""Clients at once."""


class Hasty(BoundedProtocol):
    patience = Patience(head_s=0.5, body_s=1.0, linger_s=0.3, unread_s=0.5, idle_s=0.3)
    most = MOST


class Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def on_tick(self, counter: int) -> bool:
        hurry_all(self.server_state.connections)
        return await super().on_tick(counter)


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Reads the body, unless the path says otherwise, and tells its length; `/wait` and `/film` take their time."""
    length, more = 0, scope["path"] != "/unread"
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        length, more = length + len(message["body"]), message["more_body"]
    if scope["path"] == "/wait":
        await asyncio.sleep(1.5)
    if scope["path"] == "/headers":
        body = b"".join(b"%s=%s;" % header for header in scope["headers"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})
        return
    body = FILM if scope["path"] in ("/film", "/film/last") else b"%d" % length
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    if scope["path"] == "/film":
        for start in range(0, len(body), 65536):
            await send({"type": "http.response.body", "body": body[start : start + 65536], "more_body": True})
    else:
        await send({"type": "http.response.body", "body": body})


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        yield listening


@pytest.fixture
def port(server: Server, listening: socket.socket) -> int:  # noqa: ARG001  # it has to run
    number: int = listening.getsockname()[1]
    return number


@pytest.fixture
async def server(listening: socket.socket) -> AsyncIterator[Server]:
    config = uvicorn.Config(application, http=Hasty, ws="none", lifespan="off", log_config=None, timeout_keep_alive=60)
    server = Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    yield server
    server.should_exit = True
    await serving


async def heard(port: int, *sent: bytes, every_s: float = 0.0, endless: bytes = b"") -> tuple[bytes, float]:
    """All that a client hears that sends so until the connection ends, and for how long it stood, in seconds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    loop = asyncio.get_running_loop()
    begun = loop.time()

    async def talk() -> None:
        with contextlib.suppress(ConnectionError):
            for piece in sent:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(every_s)
            while endless:
                writer.write(endless)
                await writer.drain()
                await asyncio.sleep(every_s)

    talking = asyncio.create_task(talk())
    said = b""
    try:
        async with asyncio.timeout(20):
            with contextlib.suppress(ConnectionError):
                while piece := await reader.read(65536):
                    said += piece
        return said, loop.time() - begun
    finally:
        talking.cancel()
        writer.close()


HEAD = b"POST / HTTP/1.1\r\nhost: a\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "endless"),
    [
        (b"", b""),
        (b"", b"\r\n"),
        (b"GET / HT", b""),
        (b"GET / HTTP/1.1\r\nx: ", b"x"),
        (HEAD + b"content-length: 1000\r\n\r\n", b""),
        (HEAD + b"content-length: 1000\r\n\r\n", b"x"),
        (CHUNKED, b"1\r\nx\r\n"),
        (CHUNKED + b"0\r\n", b"x: y\r\n"),
    ],
    ids=[
        "says nothing",
        "empty lines",
        "broken off",
        "slow head",
        "silent",
        "slow body",
        "slow chunks",
        "slow trailer",
    ],
)
async def test_slow_request_ends_without_an_answer(port: int, sent: bytes, endless: bytes) -> None:
    said, stood_s = await heard(port, sent, every_s=0.05, endless=endless)
    assert said == b""
    assert stood_s < LONGER_S


@pytest.mark.parametrize(
    ("sent", "endless"),
    [
        (b"GET /", b"x" * 16384),
        (b"GET / HTTP/1.1\r\nx: ", b"x" * 16384),
        (b"GET / HTTP/1.1\r\n", b"x: y\r\n" * 2800),
        (CHUNKED + b"0\r\n", b"x: y\r\n" * 2800),
        (CHUNKED + b"5;x=", b"x" * 16384),
    ],
    ids=["address", "header", "headers", "trailers", "chunk's extension"],
)
async def test_what_has_no_end_beside_the_body_is_refused(port: int, sent: bytes, endless: bytes) -> None:
    said, stood_s = await heard(port, sent, every_s=0.005, endless=endless)
    head, _, body = said.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"x-content-type-options: nosniff" in head
    error = msgspec.json.decode(body)["error"]
    assert (error["code"], str(HEAD_MAX_BYTES) in error["message"]) == ("invalid_value", True)
    assert stood_s < LONGER_S


async def test_what_is_no_http_is_refused_in_the_envelope(port: int) -> None:
    said, _ = await heard(port, b"hello\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 400 ")
    assert msgspec.json.decode(said.partition(b"\r\n\r\n")[2])["error"]["type"] == "invalid_request_error"


# What can be read in two ways

GET = b"GET / HTTP/1.1\r\nhost: a\r\n"
NEXT = b"GET /film HTTP/1.1\r\nhost: a\r\n\r\n"
"""A request that nobody made, where it stands in a body."""


def is_refusal(said: bytes) -> bool:
    """Whether this is one answer, a 400 in the envelope with our manners."""
    head, _, body = said.partition(b"\r\n\r\n")
    return (
        head.startswith(b"HTTP/1.1 400 ")
        and said.count(b"HTTP/1.1 ") == 1
        and b"x-content-type-options: nosniff" in head
        and msgspec.json.decode(body)["error"]["code"] == "invalid_value"
    )


@pytest.mark.parametrize(
    "sent",
    [
        b"GET http://a HTTP/1.1\r\nhost: a\r\n\r\n",
        b"GET http://[::1 HTTP/1.1\r\nhost: a\r\n\r\n",
        b"GET http://a:999999/ HTTP/1.1\r\nhost: a\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nhost: a\r\n\r\n",
        b"GET ? HTTP/1.1\r\nhost: a\r\n\r\n",
        b"CONNECT a:80 HTTP/1.1\r\nhost: a\r\n\r\n",
        b"CONNECT a HTTP/1.1\r\nhost: a\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/2.0\r\nhost: a\r\n\r\n",
        b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nhost: a\r\n\r\n",
        GET + b"x: " + b"x" * 70_000 + b"\r\n\r\n",
        GET + b"x: y\r\n" * 20_000 + b"\r\n",
        GET + b"x: y\r\n z\r\n\r\n",
        GET + b"x: \0\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        GET + b"host: b\r\n\r\n",
        GET + b"authorization: Bearer a\r\nauthorization: Bearer b\r\n\r\n",
        GET + b"idempotency-key: a\r\nIdempotency-Key: a\r\n\r\n",
        HEAD + b"content-length: 3\r\ncontent-length: 3\r\n\r\nabc",
        HEAD + b"content-length: +3\r\n\r\nabc",
        HEAD + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        HEAD + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"transfer-encoding: identity\r\n\r\nabc",
        HEAD.replace(b"1.1", b"1.0") + b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        CHUNKED + b"zz\r\n",
    ],
    ids=lambda sent: repr(sent[:60]),
)
@pytest.mark.parametrize("used", [False, True], ids=["at first", "later"])
async def test_what_can_be_read_in_two_ways_is_refused_and_nothing_after_it_read(
    port: int, sent: bytes, used: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """In one write, as the network may give it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    if used:
        writer.write(HEAD + b"content-length: 3\r\n\r\nabc")
        assert (await reader.readuntil(b"\r\n\r\n3")).startswith(b"HTTP/1.1 200 ")
    writer.write(sent + NEXT)
    said = await asyncio.wait_for(reader.read(), LONGER_S)
    assert is_refusal(said), said[:300]
    writer.close()
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize("upgrade", [b"h2c", b"websocket", b"foo"])
@pytest.mark.parametrize(
    ("how", "body"),
    [(b"content-length: %d\r\n" % len(NEXT), NEXT), (b"transfer-encoding: chunked\r\n", b"1\r\nx\r\n0\r\n\r\n" + NEXT)],
    ids=["length", "chunks"],
)
@pytest.mark.parametrize("pause_s", [0.0, 0.1])
async def test_body_behind_a_wish_for_another_protocol_is_no_request(
    port: int, upgrade: bytes, how: bytes, body: bytes, pause_s: float
) -> None:
    head = HEAD + b"connection: Upgrade\r\nupgrade: %s\r\n%s\r\n" % (upgrade, how)
    sent = (head, body) if pause_s else (head + body,)
    said, _ = await heard(port, *sent, every_s=pause_s)
    assert is_refusal(said), said[:300]


@pytest.mark.parametrize("length", [b"", b"content-length: 0\r\n"])
@pytest.mark.parametrize("pause_s", [0.0, 0.1])
async def test_wish_for_another_protocol_is_not_heard_nor_what_follows(
    port: int, length: bytes, pause_s: float
) -> None:
    head = HEAD + length + b"connection: upgrade\r\nupgrade: h2c\r\n\r\n"
    said, _ = await heard(port, *((head, NEXT) if pause_s else (head + NEXT,)), every_s=pause_s)
    assert said.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in said
    assert (said.count(b"HTTP/1.1 "), said.endswith(b"\r\n\r\n0")) == (1, True)


async def test_header_is_what_stands_in_the_head_without_the_blanks_around_it(port: int) -> None:
    head = b"POST /headers HTTP/1.1\r\nhost: a\r\nx-blank: \t K 1 \t\r\ntransfer-encoding: chunked \r\n"
    trailer = b"\r\n1\r\nx\r\n0\r\nauthorization: Bearer b\r\n"
    last = b"GET /headers HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
    said, _ = await heard(port, head + trailer + b"\r\n" + last)
    first, second = said.split(b"HTTP/1.1 200 ")[1:]
    assert b"x-blank=K 1;" in first
    assert b"authorization" not in said
    assert b"x-blank" not in second


async def test_refusal_waits_until_those_who_asked_before_are_answered(port: int) -> None:
    """A 400 would else be taken for the answer to a request that was kept."""
    asked = HEAD.replace(b"/ ", b"/wait ", 1) + b"content-length: 3\r\n\r\nabc"
    for sent in (asked + b"hello\r\n\r\n", asked + asked + b"hello\r\n\r\n", asked + CHUNKED + b"zz\r\n"):
        said, _ = await heard(port, sent)
        assert said.count(b"HTTP/1.1 200 ") == sent.count(b"/wait"), sent
        assert said.count(b"HTTP/1.1 ") == sent.count(b"/wait"), sent


async def test_client_that_leaves_while_several_wait_is_no_fault(
    server: Server, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = await slow_reader(port, b"GET /film HTTP/1.1\r\nhost: a\r\n\r\n" * 3 + b"GET / HTTP/1.1\r\n")
    await reader.readexactly(1000)
    writer.transport.abort()
    assert await comes_to(server, clients=0) < LONGER_S
    await asyncio.sleep(0.1)
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_rest_of_a_body_that_was_answered_is_not_waited_for(port: int) -> None:
    head = CHUNKED.replace(b"/ ", b"/unread ", 1)
    said, stood_s = await heard(port, head, every_s=0.05, endless=b"1000\r\n" + b"x" * 4096 + b"\r\n")
    assert said.startswith(b"HTTP/1.1 200 ")
    assert said.count(b"HTTP/1.1") == 1
    assert stood_s < LONGER_S


async def test_whoever_waits_for_us_or_idles_is_left_alone(port: int) -> None:
    """Twice on one connection, with an answer and a pause that are longer than a head may take."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(2):
        writer.write(HEAD.replace(b"/ ", b"/wait ", 1) + b"content-length: 3\r\n\r\nabc")
        said = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n3"), 10)
        assert said.startswith(b"HTTP/1.1 200 ")
        await asyncio.sleep(0.8)
    writer.close()


async def test_large_body_in_small_chunks_is_read(port: int) -> None:
    body = b"1\r\nx\r\n" * 100_000
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(CHUNKED + body + b"0\r\n\r\n")
    assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n100000"), 10)
    writer.close()


# Clients who take their time


@pytest.mark.parametrize(
    "head",
    [b"GET /film HTTP/1.1\r\n", b"GET /film/last HTTP/1.1\r\n", b"GET /film/last HTTP/1.1\r\nconnection: close\r\n"],
    ids=["in parts", "at once", "and then the end"],
)
async def test_client_that_takes_nothing_is_left(server: Server, port: int, head: bytes) -> None:
    reader, writer = await slow_reader(port, head)
    with structlog.testing.capture_logs() as logs:
        assert await comes_to(server, clients=0) > Hasty.patience.unread_s - 0.1
    assert [line["reason"] for line in logs if line["event"] == "client.cut_off"] == ["unread"]
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await reader.readexactly(len(FILM))
    writer.close()


async def test_client_that_takes_a_little_all_the_time_gets_everything(port: int) -> None:
    reader, writer = await slow_reader(port, b"GET /film HTTP/1.1\r\n")
    begun = asyncio.get_running_loop().time()
    await reader.readuntil(b"\r\n\r\n")
    for _ in range(20):
        assert await reader.readexactly(len(FILM) // 20)
        await asyncio.sleep(0.1)
    assert asyncio.get_running_loop().time() - begun > 2 * Hasty.patience.unread_s
    writer.close()


async def test_client_that_takes_it_slowly_all_the_time_is_left_alone(server: Server, port: int) -> None:
    """It needs far longer for what the system keeps for it than it may take for a step."""
    reader, writer = await slow_reader(port, b"GET /film/last HTTP/1.1\r\n")
    loop = asyncio.get_running_loop()
    begun, taken = loop.time(), 0
    while loop.time() - begun < 6 * Hasty.patience.unread_s:
        taken += len(await reader.readexactly(UNREAD_STEP_BYTES))
        await asyncio.sleep(Hasty.patience.unread_s / 10)
    assert taken < len(FILM) / 2
    assert len(server.server_state.connections) == 1
    writer.close()


@pytest.mark.parametrize(
    ("sent", "reason"),
    [(b"GET / HT", "head"), (CHUNKED, "body"), (CHUNKED.replace(b"/ ", b"/unread ", 1), "linger")],
)
async def test_client_that_is_cut_off_is_told_of_in_the_log(port: int, sent: bytes, reason: str) -> None:
    with structlog.testing.capture_logs() as logs:
        await heard(port, sent)
    assert logs == [{"event": "client.cut_off", "reason": reason, "log_level": "info"}]


async def slow_reader(port: int, head: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A client for which the system keeps as little as it can."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=4096)
    writer.write(head + b"host: a\r\n\r\n")
    return reader, writer


async def comes_to(server: Server, *, clients: int) -> float:
    """After how many seconds, once there was another number."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(10):
        while len(server.server_state.connections) == clients:
            await asyncio.sleep(0.01)
        begun = loop.time()
        while len(server.server_state.connections) != clients:
            await asyncio.sleep(0.01)
    return loop.time() - begun


# Too many of them


async def test_one_client_too_many_is_told_to_come_again(port: int) -> None:
    waiting = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MOST)]
    for _, writer in waiting:
        writer.write(HEAD.replace(b"/ ", b"/wait ", 1) + b"content-length: 0\r\n\r\n")
    said, stood_s = await heard(port, HEAD + b"content-length: 3\r\n\r\nabc")
    head, _, body = said.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 5" in head
    assert b"x-content-type-options: nosniff" in head
    assert msgspec.json.decode(body)["error"]["code"] == "server_is_overloaded"
    assert stood_s < 1
    # Who is inside is served, and whoever asks whether the server is well is told.
    alive, _ = await heard(port, b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
    assert alive.startswith(b"HTTP/1.1 200 ")
    for reader, writer in waiting:
        assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n0"), 10)).startswith(b"HTTP/1.1 200 ")
        writer.close()


async def test_those_who_idle_make_room_when_it_gets_narrow(server: Server, port: int) -> None:
    """Not while there is room, and not whoever waits for an answer."""
    idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MOST * 9 // 10 - 1)]
    for reader, writer in idle:
        writer.write(HEAD + b"content-length: 0\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n0")
    await asyncio.sleep(2 * Hasty.patience.idle_s)
    assert len(server.server_state.connections) == len(idle)
    waiting, waiter = await asyncio.open_connection("127.0.0.1", port)
    last, its_writer = await asyncio.open_connection("127.0.0.1", port)
    waiter.write(HEAD.replace(b"/ ", b"/wait ", 1) + b"content-length: 0\r\n\r\n")
    its_writer.write(HEAD + b"content-length: 0\r\n\r\n")
    assert await last.readuntil(b"\r\n\r\n0")
    for reader, writer in idle:
        assert await asyncio.wait_for(reader.read(), LONGER_S) == b""
        writer.close()
    assert await asyncio.wait_for(waiting.readuntil(b"\r\n\r\n0"), LONGER_S)
    its_writer.write(HEAD + b"content-length: 0\r\n\r\n")
    assert await last.readuntil(b"\r\n\r\n0")
    waiter.close()
    its_writer.close()


def test_system_without_a_limit_on_files_leaves_room_for_clients() -> None:
    assert files_most(resource.RLIM_INFINITY) // 2 > 10_000
    assert files_most(1024) == 1024
    assert files_most(2**30) == files_most(resource.RLIM_INFINITY)
    assert 0 < CONNECTIONS_MAX <= FILES_MAX // 2


async def test_far_too_many_clients_are_told_nothing(port: int) -> None:
    waiting = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MOST + MOST // 10)]
    said, stood_s = await heard(port, HEAD)
    assert (said, stood_s < Hasty.patience.head_s) == (b"", True)
    for _, writer in waiting:
        writer.close()
