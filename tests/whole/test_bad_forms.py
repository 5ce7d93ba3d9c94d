"""Forms and chunks that are wrong: each mistake is named, and none leaves a trace."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.whole.company import (
    Company,
    Team,
    answer_to,
    chunked,
    chunks,
    leaves_no_trace,
    open_company,
    refused,
    request_head,
)
from tests.whole.test_metrics_run import scrape

pytestmark = pytest.mark.asyncio(loop_scope="module")

FORM = "application/x-www-form-urlencoded"
URLENCODED = {"content-type": FORM}
BODIES: dict[str, bytes] = {
    "application/json": b'{"prompt": "a paper boat"}',
    FORM: b"prompt=a+paper+boat",
    "multipart/form-data; boundary=X": (
        b'--X\r\nContent-Disposition: form-data; name="prompt"\r\n\r\na paper boat\r\n--X--\r\n'
    ),
}
MAX_BODY_BYTES = 24 * 1024 * 1024


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Company]:
    async with open_company(tmp_path_factory.mktemp("forms")) as company:
        yield company


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def team(shop: Company) -> Team:
    return await shop.found("team")


REFUSED: dict[str, tuple[str | bytes, str, str | None, str]] = {
    # name: form, code, param, a word of the message
    "nothing": ("", "missing_parameter", "prompt", ""),
    "only signs": ("&&", "missing_parameter", "prompt", ""),
    "no prompt": ("seed=1", "missing_parameter", "prompt", ""),
    "a prompt without a value": ("prompt", "invalid_value", "prompt", "empty"),
    "two prompts": ("prompt=a&prompt=b", "invalid_value", "prompt", "more than once"),
    "twice the same": ("prompt=a&seed=1&seed=1", "invalid_value", "seed", "more than once"),
    "a member twice": ("prompt=a&metadata[a]=1&metadata[a]=2", "invalid_value", "metadata.a", "more than once"),
    "a wish twice": ("prompt=a&routing[sort]=price&routing[sort]=price", "invalid_value", "routing.sort", "more"),
    "text and object": ("prompt=a&routing=x&routing[sort]=price", "invalid_value", "routing", "contradict"),
    "seed no number": ("prompt=a&seed=lucky", "invalid_type", "seed", "integer"),
    "seed a fraction": ("prompt=a&seed=4.5", "invalid_type", "seed", "integer"),
    "seed after a plus": ("prompt=a&seed=+5", "invalid_type", "seed", "integer"),
    "seed in other digits": ("prompt=a&seed=%D9%A1", "invalid_type", "seed", "integer"),
    "seed of thirty digits": ("prompt=a&seed=" + "9" * 30, "invalid_value", "seed", "4294967295"),
    "seed of forty digits": ("prompt=a&seed=" + "9" * 40, "invalid_type", "seed", "integer"),
    "seed empty": ("prompt=a&seed=", "invalid_type", "seed", "integer"),
    "sound neither": ("prompt=a&generate_audio=loud", "invalid_type", "generate_audio", "true or false"),
    "wait no number": ("prompt=a&routing[max_wait_s]=long", "invalid_type", "routing.max_wait_s", "integer"),
    "price no number": ("prompt=a&routing[max_price_usd]=much", "invalid_value", "routing.max_price_usd", ""),
    "price not finite": ("prompt=a&routing[max_price_usd]=NaN", "invalid_value", "routing.max_price_usd", ""),
    "price beyond all": ("prompt=a&routing[max_price_usd]=1e999999", "invalid_value", "routing.max_price_usd", ""),
    "routing a word": ("prompt=a&routing=evolink", "invalid_type", "routing", "object"),
    "metadata a word": ("prompt=a&metadata=x", "invalid_type", "metadata", "object"),
    "metadata too deep": ("prompt=a&metadata[a][b]=1", "invalid_type", "metadata.a", "string"),
    "metadata broken": ("prompt=a&metadata=%7B%22a%22", "invalid_value", "metadata", "JSON"),
    "metadata a number in JSON": ("prompt=a&metadata=%7B%22a%22%3A5%7D", "invalid_type", "metadata.a", "string"),
    "a field nobody knows": ("prompt=a&negative_prompt=rain", "unknown_parameter", "negative_prompt", ""),
    "a field misspelt": ("prompt=a&aspect_ration=1:1", "unknown_parameter", "aspect_ration", "aspect_ratio"),
    "an object nobody knows": ("prompt=a&camera[zoom]=2", "unknown_parameter", "camera", ""),
    "a wish nobody knows": ("prompt=a&routing[max_price]=1", "unknown_parameter", "routing.max_price", "max_price_usd"),
    "a name without an end": ("prompt=a&metadata[stage=b", "invalid_value", "metadata[stage", "brackets"),
    "no name": ("prompt=a&=b", "invalid_value", "", "name"),
    "a name that is no name": ("prompt=a&__proto__[x]=1", "invalid_value", "__proto__[x]", ""),
    "six brackets": ("prompt=a&metadata[a][b][c][d][e][f]=1", "invalid_value", "metadata[a][b][c][d][e][f]", "5"),
    "two hundred fields": ("prompt=a" + "&seed=1" * 200, "invalid_value", None, "200"),
    "two megabytes of text": ("prompt=" + "a" * (2 << 20), "invalid_value", "prompt", "1048576"),
    "two megabytes of names": ("prompt=a&" + "a" * (2 << 20) + "=1", "invalid_value", "a" * 64, "256"),
    "NUL": ("prompt=a%00b", "invalid_value", "prompt", "NUL"),
    "escaped Latin-1": ("prompt=caf%E9", "invalid_value", None, "UTF-8"),
    "bare Latin-1": (b"prompt=caf\xe9", "invalid_value", None, "UTF-8"),
    "half a surrogate": ("prompt=%ED%A0%80", "invalid_value", None, "UTF-8"),
    "JSON after all": ('{"prompt": "a"}', "invalid_value", None, "application/json"),
    "a picture's address": (
        "prompt=a&input_reference[image_url]=https%3A%2F%2Fexample.com%2Fa.png",
        "unsupported_request",
        "input_reference",
        "text-to-video",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_mistake_in_a_form_is_named_and_leaves_no_trace(shop: Company, team: Team, name: str) -> None:
    form, code, param, word = REFUSED[name]
    answer = await leaves_no_trace(shop, team.client, content=form, headers=URLENCODED)
    message = refused(answer, 400, code, param)
    assert word in message
    assert len(message) < 600
    quoted = await team.client.post("/v1/videos/quote", content=form, headers=URLENCODED)
    assert quoted.json() == answer.json()


async def test_form_in_another_alphabet_is_not_understood(shop: Company, team: Team) -> None:
    headers = {"content-type": f"{FORM}; charset=iso-8859-1"}
    refused(
        await leaves_no_trace(shop, team.client, content="prompt=a", headers=headers), 415, "unsupported_media_type"
    )


@pytest.mark.parametrize("content_type", BODIES)
async def test_empty_body_in_chunks_is_refused(shop: Company, team: Team, content_type: str) -> None:
    before = await shop.kept()
    said = await answer_to(
        shop, request_head(team.key, "transfer-encoding: chunked", content_type=content_type), b"0\r\n\r\n"
    )
    assert said.startswith(b"HTTP/1.1 400 ")
    assert json.loads(said.partition(b"\r\n\r\n")[2])["error"]["type"] == "invalid_request_error"
    assert await shop.kept() == before


@pytest.mark.parametrize("content_type", BODIES)
async def test_body_of_any_encoding_is_refused_at_the_limit(shop: Company, team: Team, content_type: str) -> None:
    """Said beforehand, it is refused unread; without a length, where it goes beyond."""
    before = await shop.kept()
    start = b"input_reference=" if content_type == FORM else BODIES[content_type].partition(b"a paper boat")[0]
    endless = b"".join(chunks(start.replace(b"prompt", b"input_reference") + b"x" * (MAX_BODY_BYTES + 1), 1 << 20))
    for line, sent in ((f"content-length: {MAX_BODY_BYTES + 1}", b""), ("transfer-encoding: chunked", endless)):
        said = await answer_to(shop, request_head(team.key, line, content_type=content_type), sent)
        assert said.startswith(b"HTTP/1.1 413 "), said
        assert json.loads(said.partition(b"\r\n\r\n")[2])["error"]["code"] == "payload_too_large"
    assert await shop.kept() == before


async def break_off(shop: Company, sent: bytes) -> None:
    """A client that says no more; nobody answers it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", shop.port)
    writer.write(sent)
    await writer.drain()
    writer.write_eof()
    async with asyncio.timeout(10):
        assert await reader.read() == b""
    writer.close()


@pytest.mark.parametrize("content_type", BODIES)
async def test_body_that_breaks_off_is_no_request(shop: Company, team: Team, content_type: str) -> None:
    """Though it may look whole, as JSON does, it was to go on; nor is its Idempotency-Key used up."""
    head = request_head(team.key, "idempotency-key: k-1", "transfer-encoding: chunked", content_type=content_type)
    body = BODIES[content_type]
    before = await shop.kept()
    for sent in (b"".join(chunks(body, 7)), b"%x\r\n%s" % (len(body) + 5, body)):
        await break_off(shop, head + sent)
    assert await shop.kept() == before


async def test_client_that_breaks_off_is_not_taken_for_a_fault_of_ours(shop: Company, team: Team) -> None:
    """No stack trace in the log and no 500 in the metrics, which a client could fill at will."""
    await break_off(shop, request_head(team.key, "content-length: 99") + b'{"prompt"')
    requests = "reelay_http_requests_total"
    async with asyncio.timeout(10):
        while not (seen := await scrape(shop)).sum(requests, route="/v1/videos", code_class="4xx"):
            await asyncio.sleep(0.02)
    assert seen.sum(requests, code_class="5xx") == 0
    assert '"level":"error"' not in (shop.folder / f"serve-{shop.port}.log").read_text()


@pytest.mark.parametrize("content_type", BODIES)
async def test_lengths_that_cannot_be_trusted_are_refused(shop: Company, team: Team, content_type: str) -> None:
    """Two lengths that differ are how one request is smuggled behind another."""
    body = BODIES[content_type]
    before = await shop.kept()
    for line, sent in (
        ("content-length: 3\r\ntransfer-encoding: chunked", chunked(body, len(body))),
        ("transfer-encoding: chunked", b"zz\r\n" + body + b"\r\n0\r\n\r\n"),
        ("content-length: 3\r\ncontent-length: 4", body),
        ("content-length: -1", body),
    ):
        said = await answer_to(shop, request_head(team.key, line, content_type=content_type), sent)
        assert said.startswith(b"HTTP/1.1 400 "), (line, said)
    assert await shop.kept() == before
