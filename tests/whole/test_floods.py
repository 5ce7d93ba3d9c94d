"""Bodies and connections without a good end: each is bounded, holds little, and leaves no trace."""

import asyncio
import contextlib
import json
import random
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from proxy.api.patience import HEAD_MAX_BYTES, Patience
from tests.torture.bending import torn
from tests.whole.company import Company, Team, answer_to, open_company, refused, request_head

pytestmark = pytest.mark.asyncio(loop_scope="module")

DEPTH = 100_000
SLOW_CLIENTS = 200
MIB = 1024 * 1024


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Company]:
    async with open_company(tmp_path_factory.mktemp("floods")) as company:
        yield company


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def team(shop: Company) -> Team:
    return await shop.found("team")


def held_bytes(shop: Company) -> int:
    """Memory of the server."""
    status = Path(f"/proc/{shop.server.process.pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS:"))


JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
DEEP: dict[str, tuple[str, bytes]] = {
    "arrays": (JSON, b"[" * DEPTH),
    "arrays to the end": (JSON, b"[" * DEPTH + b"]" * DEPTH),
    "objects": (JSON, b'{"a":' * DEPTH),
    "objects to the end": (JSON, b'{"a":' * DEPTH + b"1" + b"}" * DEPTH),
    "metadata": (JSON, b'{"prompt":"a","metadata":{"a":' + b"[" * DEPTH + b"]" * DEPTH + b"}}"),
    "a picture": (JSON, b'{"prompt":"a","input_reference":' + b'{"a":' * DEPTH + b"1" + b"}" * DEPTH + b"}"),
    "a field nobody knows": (JSON, b'{"prompt":"a","odd":' + b"[" * DEPTH + b"]" * DEPTH + b"}"),
    "extra_body": (JSON, b'{"prompt":"a","extra_body":{"odd":' + b"[" * DEPTH + b"]" * DEPTH + b"}}"),
    "extra_body in itself": (JSON, b'{"extra_body":' * DEPTH + b"1" + b"}" * DEPTH),
    "text in a form": (FORM, b"prompt=a&metadata=" + b"[" * DEPTH + b"]" * DEPTH),
    "extra_body in a form": (FORM, b'prompt=a&extra_body={"odd":' + b"[" * DEPTH + b"]" * DEPTH + b"}"),
    "a picture in a form": (FORM, b"prompt=a&input_reference=" + b"[" * DEPTH + b"]" * DEPTH),
}


@pytest.mark.parametrize("name", DEEP)
async def test_deep_json_is_refused_at_once(shop: Company, team: Team, name: str) -> None:
    content_type, body = DEEP[name]
    before = await shop.kept()
    begun = time.monotonic()
    answer = await team.client.post("/v1/videos", content=body, headers={"content-type": content_type})
    assert time.monotonic() - begun < 2
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
    assert len(answer.content) < 1000
    assert await shop.kept() == before


async def test_deep_json_is_refused_at_the_other_doors_too(shop: Company) -> None:
    for path in ("/admin/tenants", "/admin/keys", "/admin/budgets", "/admin/prices"):
        answer = await shop.client.post(path, content=b"[" * 30_000 + b"]" * 30_000)
        assert answer.status_code == 400, path
        answer = await shop.client.post(path, content=b'{"reason":' * 5_000 + b"1" + b"}" * 5_000)
        assert answer.status_code == 400, path
    stranger = await shop.client_of()
    refused(await stranger.post("/callbacks/x", content=b"[" * DEPTH), 404, "not_found")


async def test_length_that_says_too_little_makes_no_video(shop: Company, team: Team) -> None:
    """What follows is another request: here none, and the connection ends."""
    before = await shop.kept()
    said = await answer_to(shop, request_head(team.key, "content-length: 12"), b'{"prompt": "a paper boat"}')
    assert said.startswith(b"HTTP/1.1 400 ")
    assert await shop.kept() == before


async def test_too_large_a_body_is_answered_and_left_though_it_goes_on(shop: Company, team: Team) -> None:
    chunk = b"%x\r\n%s\r\n" % (MIB, b"x" * MIB)
    held = held_bytes(shop)
    reader, writer = await asyncio.open_connection("127.0.0.1", shop.port)
    writer.write(request_head(team.key, "transfer-encoding: chunked"))
    answered_at, said = 0.0, b""

    async def hear() -> None:
        nonlocal answered_at, said
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(65536):
                answered_at, said = answered_at or time.monotonic(), said + piece

    hearing = asyncio.create_task(hear())
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(30):
            while not hearing.done():
                writer.write(chunk)
                await writer.drain()
                await asyncio.sleep(0.05 if answered_at else 0)
    assert time.monotonic() - answered_at < Patience().linger_s + 3
    assert said.startswith(b"HTTP/1.1 413 ")
    assert json.loads(said.partition(b"\r\n\r\n")[2])["error"]["code"] == "payload_too_large"
    assert held_bytes(shop) - held < 60 * MIB
    writer.close()
    await hearing


async def test_slow_clients_hold_little_and_are_left(shop: Company, team: Team) -> None:
    """Half of them send a byte of a head, half one of a body, every second; others are served meanwhile."""
    await team.client.get("/v1/models")
    held, begun = held_bytes(shop), time.monotonic()
    starts = (b"GET /v1/models HTTP/1.1\r\nx: ", request_head(team.key, "content-length: 20000000"))
    pairs = [await asyncio.open_connection("127.0.0.1", shop.port) for _ in range(SLOW_CLIENTS)]
    for place, (_, writer) in enumerate(pairs):
        writer.write(starts[place % 2])
    heads = pairs[::2]
    while any(not reader.at_eof() for reader, _ in heads):
        for reader, writer in pairs:
            if not reader.at_eof():
                writer.write(b"x")
        asked = time.monotonic()
        assert (await team.client.get("/v1/models")).status_code == 200
        assert time.monotonic() - asked < 1
        assert time.monotonic() - begun < Patience().head_s + 10
        await asyncio.gather(*(heard_end(reader) for reader, _ in heads))
    assert time.monotonic() - begun > Patience().head_s
    assert held_bytes(shop) - held < 20 * MIB
    for _, writer in pairs:
        writer.close()


async def heard_end(reader: asyncio.StreamReader) -> None:
    """Waits for a second at most."""
    with contextlib.suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(1):
            assert await reader.read(1) == b""


BENT = 800
_ANSWER = re.compile(rb"HTTP/1\.1 (\d{3}) [A-Za-z -]+\r\n((?:[a-z-]+: [^\r\n]*\r\n)+)\r\n")


def refused_or_answered(said: bytes) -> set[int]:
    """The statuses of the answers that these bytes are, one after the other; each refusal is in the envelope."""
    statuses = set()
    while said := said.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n"):
        head = _ANSWER.match(said)
        assert head is not None, said[:500]
        length = re.search(rb"content-length: (\d+)\r\n", head[2])
        end = head.end() + (int(length[1]) if length else 0)
        body, said = said[head.end() : end], said[end:]
        statuses.add(int(head[1]))
        if int(head[1]) >= 400 and body:
            assert set(json.loads(body)) == {"error"}, body
    return statuses


async def test_bent_requests_get_whole_answers_or_an_end_and_leave_no_trace(shop: Company, team: Team) -> None:
    """From the same dice each time; nothing that is bent may be bought either."""
    wish = b'{"prompt":"a paper boat"}'
    quote = request_head(team.key).replace(b"/v1/videos ", b"/v1/videos/quote ", 1).removesuffix(b"\r\n")
    whole = [
        quote + b"content-length: %d\r\n\r\n%s" % (len(wish), wish),
        quote + b"transfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\nx: y\r\n\r\n" % (len(wish), wish),
        quote + b"connection: Upgrade\r\nupgrade: h2c\r\ncontent-length: %d\r\n\r\n%s" % (len(wish), wish),
        quote + b"expect: 100-continue\r\ncontent-length: %d\r\n\r\n%s" % (len(wish), wish),
        b"GET http://a/healthz?a=%00 HTTP/1.1\r\nhost: a\r\n\r\n",
        b"CONNECT a:80 HTTP/1.1\r\nhost: a\r\n\r\n",
    ]
    dice = random.Random(7)
    before, statuses = await shop.kept(), set[int]()
    sent = [torn(b"".join(dice.choices(whole, k=dice.randint(1, 3))), dice) for _ in range(BENT)]

    async def ask(request: bytes) -> set[int]:
        reader, writer = await asyncio.open_connection("127.0.0.1", shop.port)
        writer.write(request + b"\r\n\r\n")
        said = b""
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(1):
                while piece := await reader.read(65536):
                    said += piece
        writer.transport.abort()
        return refused_or_answered(said)

    for start in range(0, BENT, 100):
        statuses.update(*await asyncio.gather(*(ask(request) for request in sent[start : start + 100])))
    assert {200, 400, 401, 404} <= statuses
    assert not [status for status in statuses if status >= 500]
    assert await shop.kept() == before
    assert '"level":"error"' not in (shop.folder / f"serve-{shop.port}.log").read_text()


async def test_endless_head_is_refused(shop: Company) -> None:
    held = held_bytes(shop)
    for start in (b"GET /", b"GET / HTTP/1.1\r\nx: "):
        said = await answer_to(shop, start, b"x" * (16 * HEAD_MAX_BYTES))
        assert said.startswith(b"HTTP/1.1 400 ")
        assert json.loads(said.partition(b"\r\n\r\n")[2])["error"]["code"] == "invalid_value"
    assert held_bytes(shop) - held < 10 * MIB
