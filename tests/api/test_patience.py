"""A client that takes too long or never ends is left; whoever waits for us is not."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
import pytest
import uvicorn

from proxy.api.patience import HEAD_MAX_BYTES, BoundedProtocol, Patience, hurry_all

LONGER_S = 3.0
"""Than any patience here, and than an answer takes."""


class Hasty(BoundedProtocol):
    patience = Patience(head_s=0.5, body_s=1.0, linger_s=0.3)


class Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def on_tick(self, counter: int) -> bool:
        hurry_all(self.server_state.connections)
        return await super().on_tick(counter)


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Reads the body, unless the path says otherwise, and tells its length; `/wait` takes its time."""
    length, more = 0, scope["path"] != "/unread"
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        length, more = length + len(message["body"]), message["more_body"]
    if scope["path"] == "/wait":
        await asyncio.sleep(1.5)
    body = b"%d" % length
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
async def port() -> AsyncIterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(
            application, http=Hasty, ws="none", lifespan="off", log_config=None, timeout_keep_alive=60
        )
        server = Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        yield listening.getsockname()[1]
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
        (b"GET /", b"x" * 4096),
        (b"GET / HTTP/1.1\r\nx: ", b"x" * 4096),
        (b"GET / HTTP/1.1\r\n", b"x: y\r\n" * 700),
        (CHUNKED + b"0\r\n", b"x: y\r\n" * 700),
        (CHUNKED + b"5;x=", b"x" * 4096),
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
