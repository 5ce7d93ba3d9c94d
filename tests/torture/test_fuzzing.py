"""Whatever comes in, only typed errors come out; here a few examples of what `make torture` sends by the thousand."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import strategies as st

from tests.torture import fuzzing
from tests.torture.strangers import Stranger, films_of, furnish, not_ours
from tests.torture.surfaces import SURFACES, Surface
from tests.torture.verdict import table
from tests.whole.company import Company, Team, open_company
from tests.whole.stage import KEY


@pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: str(surface.name))
def test_only_what_is_typed_comes_out(surface: Surface) -> None:
    tally = fuzzing.fuzz(surface, examples=25, start=0)
    assert tally.is_clean, tally.differences
    assert tally.tries >= 25


def test_what_should_not_come_out_is_told_with_its_seed_and_example() -> None:
    def check(number: int) -> None:
        raise KeyError(number) if number > 10 else ValueError

    surface = Surface(name="a sieve", sent=st.integers(11, 20), check=check)
    [told] = fuzzing.fuzz(surface, examples=5, start=3).differences
    assert told.startswith("seed 3: KeyError: 11 11")


def test_text_that_looks_like_an_escaped_nul_is_text() -> None:
    [surface] = [one for one in SURFACES if one.name == "create bodies"]
    text = b"prompt=a&routing[only][]=" + rb"\u0000fal"
    surface.take((("application/x-www-form-urlencoded", text), random.Random(0)))


_ENVELOPE = '{{"error":{{"message":"{}","type":"t","param":null,"code":"{}"}}}}'


@pytest.mark.parametrize(
    ("status", "headers", "body", "said"),
    [
        (200, {}, "whatever", []),
        (400, {}, _ENVELOPE.format("no", "invalid_value"), []),
        (404, {}, _ENVELOPE.format("no", "invalid_value"), ["a code of another status: invalid_value"]),
        (400, {}, _ENVELOPE.format("no", "bad_luck"), ["a code of another status: bad_luck"]),
        (400, {}, _ENVELOPE.format("Traceback (most recent)", "invalid_value"), ["a stack trace: in the message"]),
        (400, {}, '{"error":"no"}', ["no envelope: Expected `object`, got `str` - at `$.error`"]),
        (500, {}, _ENVELOPE.format("internal error", "internal_error"), ["a failure of ours: internal_error"]),
        (503, {"retry-after": "5"}, _ENVELOPE.format("full", "server_is_overloaded"), []),
        (503, {}, _ENVELOPE.format("full", "server_is_overloaded"), ["a failure of ours: server_is_overloaded"]),
    ],
)
def test_answer_without_our_envelope_or_with_a_failure_of_ours_is_told(
    status: int, headers: dict[str, str], body: str, said: list[str]
) -> None:
    assert not_ours(status, headers, body.encode(), "GET") == said


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Company]:
    async with open_company(tmp_path) as company:
        yield company


async def test_api_keeps_to_its_description_whoever_asks(shop: Company) -> None:
    admin = Team(id="default", name="an admin", key=KEY, client=shop.client)
    stranger = Stranger(await furnish(shop), admin, await films_of(admin))
    assert len(stranger.unasked) == len(stranger.operations)
    await asyncio.to_thread(stranger.cover, seconds=8)
    assert stranger.unasked == []
    await asyncio.to_thread(stranger.fuzz, 0, examples=1, seconds=8)
    assert stranger.tally.is_clean, table([stranger.tally])
    assert stranger.tally.tries > 100
