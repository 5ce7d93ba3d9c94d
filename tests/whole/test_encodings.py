"""A create as forms and in chunks, over a real socket: the same content is the same request, however it is written."""

import asyncio
import json
from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import pytest
import pytest_asyncio

from tests.whole.company import Company, Team, answer_to, chunked, open_company, refused, request_head

pytestmark = pytest.mark.asyncio(loop_scope="module")

FORM = "application/x-www-form-urlencoded"
URLENCODED = {"content-type": FORM}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Company]:
    async with open_company(tmp_path_factory.mktemp("encodings")) as company:
        yield company


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def team(shop: Company) -> Team:
    return await shop.found("team")


_numbers = count(1)


def new_key() -> str:
    """An Idempotency-Key that was never used."""
    return f"k-{next(_numbers)}"


# Urlencoded


async def test_urlencoded_fields_are_typed_and_nested_by_what_they_stand_for(team: Team) -> None:
    form = (
        "prompt=a+paper+boat&model=seedance-2.0&seconds=4&resolution=480p&aspect_ratio=9:16&generate_audio=false"
        "&seed=42&tier=standard&user=u-1&metadata[stage]=preview&metadata[year]=2026"
        "&routing[only][]=evolink&routing[only][]=fal&routing[max_price_usd]=1&routing[allow_fallbacks]=false"
    )
    quote = await team.client.post("/v1/videos/quote", content=form, headers=URLENCODED)
    answer = await team.client.post("/v1/videos", content=form, headers=URLENCODED)

    assert answer.status_code == 200, answer.text
    video = answer.json()
    assert {name: video[name] for name in ("prompt", "seconds", "size", "generate_audio", "seed", "tier")} == {
        "prompt": "a paper boat", "seconds": "4", "size": "496x864", "generate_audio": False, "seed": 42,
        "tier": "standard",
    }  # fmt: skip
    assert (video["end_user_id"], video["metadata"]) == ("u-1", {"stage": "preview", "year": "2026"})
    assert video["routing"]["quoted_usd"] == "0.367600"
    assert {one["provider"] for one in quote.json()["candidates"]} == {"evolink", "fal"}


BOAT: dict[str, Any] = {"prompt": "a paper boat"}

SAME: dict[str, tuple[str | bytes, dict[str, Any]]] = {
    # name: form, the JSON that it stands for
    "plus is a space": ("prompt=a+paper+boat", BOAT),
    "percent twenty is one too": ("prompt=a%20paper%20boat", BOAT),
    "signs of the form itself": ("prompt=a%2Bb%26c%3Dd%25+%5Be%5D", {"prompt": "a+b&c=d% [e]"}),
    "a percent sign that escapes nothing": ("prompt=100%+paper", {"prompt": "100% paper"}),
    "a second equals sign": ("prompt=a=b", {"prompt": "a=b"}),
    "a semicolon parts nothing": ("prompt=a;seed=1", {"prompt": "a;seed=1"}),
    "escaped UTF-8": ("prompt=caf%C3%A9+%f0%9f%8e%ac", {"prompt": "café 🎬"}),
    "bare UTF-8": ("prompt=café+🎬".encode(), {"prompt": "café 🎬"}),
    "UTF-8 in a name": ("prompt=a&metadata[caf%C3%A9]=b", {"prompt": "a", "metadata": {"café": "b"}}),
    "line ends": ("prompt=a%0D%0Ab%0Ac", {"prompt": "a\r\nb\nc"}),
    "empty fields": ("&&prompt=a+paper+boat&", BOAT),
    "another order": ("seed=1&prompt=a+paper+boat", {**BOAT, "seed": 1}),
    "escaped brackets": ("prompt=a&metadata%5Bstage%5D=preview", {"prompt": "a", "metadata": {"stage": "preview"}}),
    "text that looks like another type": ("prompt=true&metadata[n]=5", {"prompt": "true", "metadata": {"n": "5"}}),
    "text that looks like JSON": ("prompt=%7B%22a%22%3A1%7D", {"prompt": '{"a":1}'}),
    "true": ("prompt=a&generate_audio=true", {"prompt": "a", "generate_audio": True}),
    "True, as Python says it": ("prompt=a&generate_audio=True", {"prompt": "a", "generate_audio": True}),
    "1 for true": ("prompt=a&generate_audio=1", {"prompt": "a", "generate_audio": True}),
    "0 for false": ("prompt=a&generate_audio=0", {"prompt": "a", "generate_audio": False}),
    "a number": ("prompt=a&seed=4294967295", {"prompt": "a", "seed": 4294967295}),
    "a number with noughts before it": ("prompt=a&seed=007", {"prompt": "a", "seed": 7}),
    "seconds": ("prompt=a&seconds=5", {"prompt": "a", "seconds": 5}),
    "seconds as text": ("prompt=a&seconds=5.0", {"prompt": "a", "seconds": "5"}),
    "a price": ("prompt=a&routing[max_price_usd]=2.50", {"prompt": "a", "routing": {"max_price_usd": 2.5}}),
    "a wait": ("prompt=a&routing[max_wait_s]=600", {"prompt": "a", "routing": {"max_wait_s": 600}}),
    "a list by brackets": (
        "prompt=a&routing[only][]=fal&routing[only][]=evolink",
        {"prompt": "a", "routing": {"only": ["fal", "evolink"]}},
    ),
    "a list by repetition": (
        "prompt=a&routing[only]=fal&routing[only]=evolink", {"prompt": "a", "routing": {"only": ["fal", "evolink"]}},
    ),
    "a list by number": (
        "prompt=a&routing[only][1]=evolink&routing[only][0]=fal",
        {"prompt": "a", "routing": {"only": ["fal", "evolink"]}},
    ),
    "a list of one": ("prompt=a&routing[only]=evolink", {"prompt": "a", "routing": {"only": ["evolink"]}}),
    "a list as JSON text": (
        "prompt=a&routing[only]=%5B%22fal%22,%22evolink%22%5D",
        {"prompt": "a", "routing": {"only": ["fal", "evolink"]}},
    ),
    "an object as JSON text": (
        "prompt=a&metadata=%7B%22stage%22%3A+%22caf%C3%A9%22%7D", {"prompt": "a", "metadata": {"stage": "café"}},
    ),
    "an SDK's extra_body": ("prompt=a&extra_body[tier]=fast", {"prompt": "a", "tier": "fast"}),
    "the alias of a field": ("prompt=a&user=u-1", {"prompt": "a", "end_user_id": "u-1"}),
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
async def test_form_and_json_of_the_same_content_are_one_request(shop: Company, team: Team, name: str) -> None:
    form, fields = SAME[name]
    key = new_key()
    first = await team.client.post("/v1/videos", content=form, headers={**URLENCODED, "idempotency-key": key})
    assert first.status_code == 200, first.text
    assert first.json()["prompt"] == fields["prompt"]
    before = (await shop.kept())["videos"]
    again = await team.client.post("/v1/videos", json=fields, headers={"idempotency-key": key})
    assert again.status_code == 200, again.text
    assert again.json()["id"] == first.json()["id"]
    assert (await shop.kept())["videos"] == before
    other = {**fields, "prompt": fields["prompt"] + "!"}
    refused(await team.client.post("/v1/videos", json=other, headers={"idempotency-key": key}), 400, "invalid_value")


@pytest.mark.parametrize(
    "content_type", [f"{FORM}; charset=UTF-8", f"{FORM};charset=utf-8", "Application/X-WWW-Form-URLencoded"]
)
async def test_form_is_a_form_however_its_type_is_written(team: Team, content_type: str) -> None:
    answer = await team.client.post("/v1/videos/quote", content="prompt=a", headers={"content-type": content_type})
    assert answer.status_code == 200, answer.text


# Chunks

MULTIPART = "multipart/form-data; boundary=X"

FIELDS = {"prompt": "café 🎬 + paper", "metadata": {"stage": "preview"}, "routing": {"only": ["evolink"]}, "seed": 7}

BODIES: dict[str, bytes] = {
    "application/json": json.dumps(FIELDS, ensure_ascii=False).encode(),
    FORM: b"prompt=caf%C3%A9+\xf0\x9f\x8e\xac+%2B+paper&metadata[stage]=preview&routing%5Bonly%5D[]=evolink&seed=7",
    MULTIPART: "".join(
        f'--X\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'
        for name, text in (
            ("prompt", "café 🎬 + paper"),
            ("metadata[stage]", "preview"),
            ("routing[only][]", "evolink"),
            ("seed", "7"),
        )
    ).encode()
    + b"--X--\r\n",
}


@pytest.mark.parametrize("content_type", BODIES)
async def test_body_in_chunks_is_the_request_that_it_is_in_one_piece(
    shop: Company, team: Team, content_type: str
) -> None:
    key, body = new_key(), BODIES[content_type]
    headers = {"content-type": content_type, "idempotency-key": key}
    whole = await team.client.post("/v1/videos", content=body, headers=headers)
    assert whole.status_code == 200, whole.text
    before = (await shop.kept())["videos"]
    head = request_head(team.key, f"idempotency-key: {key}", "transfer-encoding: chunked", content_type=content_type)
    extended = b"%X;name=value\r\n%s\r\n0\r\nx-checksum: 1\r\n\r\n" % (len(body), body)
    for sent in (chunked(body, 1), chunked(body, 7), chunked(body, len(body)), extended):
        said = await answer_to(shop, head, sent)
        assert said.startswith(b"HTTP/1.1 200 "), said
        assert json.loads(said.partition(b"\r\n\r\n")[2])["id"] == whole.json()["id"]
    assert (await shop.kept())["videos"] == before


async def test_encodings_in_chunks_are_one_request(shop: Company, team: Team) -> None:
    key = new_key()
    first = await team.client.post("/v1/videos", json=FIELDS, headers={"idempotency-key": key})
    for content_type, body in BODIES.items():
        head = request_head(
            team.key, f"idempotency-key: {key}", "transfer-encoding: chunked", content_type=content_type
        )
        said = await answer_to(shop, head, chunked(body, 5))
        assert json.loads(said.partition(b"\r\n\r\n")[2])["id"] == first.json()["id"], content_type


async def test_client_that_streams_slowly_is_waited_for(team: Team) -> None:
    async def drops(body: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(body), 40):
            yield body[start : start + 40]
            await asyncio.sleep(0.02)

    for content_type, body in BODIES.items():
        answer = await team.client.post("/v1/videos", content=drops(body), headers={"content-type": content_type})
        assert "content-length" not in answer.request.headers
        assert answer.status_code == 200, answer.text
        assert {name: answer.json()[name] for name in ("prompt", "metadata", "seed")} == {
            name: FIELDS[name] for name in ("prompt", "metadata", "seed")
        }
