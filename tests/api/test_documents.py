"""JSON to Structs: every mistake has a class, a field and a sentence."""

import asyncio
import contextlib
import enum
import time
from collections.abc import AsyncIterator
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.api.documents import (
    HELD_MAX_BYTES,
    MAX_JSON_PARTS,
    UNCOUNTED_BYTES,
    Hold,
    collect,
    decode,
    decode_members,
    read_json,
    refuse_length,
)
from proxy.core.errors import (
    InvalidType,
    InvalidValue,
    MissingParameter,
    Overloaded,
    PayloadTooLarge,
    RequestError,
    UnknownParameter,
)


class Limit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    amount_usd: str
    period: Literal["day", "month"] = "month"


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    count: int | None = None
    active: bool = True
    tags: tuple[str, ...] = ()
    labels: dict[str, str] | None = None
    limits: list[Limit] | None = None
    anything: Any = None
    code: msgspec.UnsetType | int = msgspec.UNSET
    short: str = msgspec.field(default="", name="brief")


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    counts: dict[str, int]


class Colour(enum.Enum):
    RED = "red"


class Sized(msgspec.Struct, frozen=True, kw_only=True):
    name: str = msgspec.field(default="")
    pair: tuple[int, int] = (0, 0)


class Chunks:
    """A body that says how many of its chunks were read."""

    def __init__(self, *chunks: bytes) -> None:
        self._chunks = list(chunks)
        self.read = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            self.read += 1
            yield chunk


@pytest.mark.parametrize("announced", ["101", "9" * 5000])
def test_length_beyond_the_limit_is_refused_as_announced(announced: str) -> None:
    with pytest.raises(PayloadTooLarge):
        refuse_length(announced, max_bytes=100)


@pytest.mark.parametrize("announced", [None, "0", "100", "many", "-1", ""])
def test_length_within_the_limit_or_unsaid_is_read_and_counted(announced: str | None) -> None:
    refuse_length(announced, max_bytes=100)


def test_good_text_becomes_the_struct() -> None:
    text = b'{"name": "a", "limits": [{"amount_usd": "1.00", "period": "day"}], "labels": {"x": "y"}, "brief": "s"}'

    settings = decode(text, Settings)

    assert settings.limits == [Limit(amount_usd="1.00", period="day")]
    assert settings.labels == {"x": "y"}
    assert settings.short == "s"


@pytest.mark.parametrize(
    ("text", "refusal", "param", "words"),
    [
        (b"{}", MissingParameter, "name", "Missing required parameter: 'name'."),
        (b'{"name": 1}', InvalidType, "name", "must be a string, not an integer"),
        (b'{"name": null}', InvalidType, "name", "must be a string, not null"),
        (b'{"name": "a", "count": 1.5}', InvalidType, "count", "must be an integer, not a decimal number"),
        (b'{"name": "a", "active": "yes"}', InvalidType, "active", "must be true or false, not a string"),
        (b'{"name": "a", "tags": ["b", 1]}', InvalidType, "tags[1]", "must be a string"),
        (b'{"name": "a", "labels": {"x": "y", "z": 1}}', InvalidType, "labels.z", "must be a string"),
        (b'{"name": "a", "labels": {"z": 1}, broken', InvalidType, "labels", "must be a string"),
        (b'{"name": "a", "limits": [{}]}', MissingParameter, "limits[0].amount_usd", "Missing"),
        (b'{"name": "a", "limits": [{"amount": "1"}]}', UnknownParameter, "limits[0].amount", "'amount_usd'"),
        (b'{"name": "a", "limits": [{"amount_usd": "1", "period": "year"}]}', InvalidValue, None, "day, month"),
        (b'{"name": "a", "nmae": 1}', UnknownParameter, "nmae", "Did you mean 'name'?"),
        (b'{"name": "a", "breif": 1}', UnknownParameter, "breif", "Did you mean 'brief'?"),
        (b'{"name": "a", "zzzzzzzz": 1}', UnknownParameter, "zzzzzzzz", "Unknown parameter: 'zzzzzzzz'."),
        (b'{"name": "a", "x` - at `$.y": 1}', UnknownParameter, None, "Unknown parameter"),
        (b'{"name": "a", "' + b"x" * 500 + b'": 1}', UnknownParameter, "x" * 64, "Unknown parameter"),
        (b'{"name": "a", "anything": 1e999}', InvalidValue, "anything", "Number out of range"),
        (b'{"name": "a", "count": ' + b"9" * 5000 + b"}", InvalidValue, "count", "out of range"),
        (b"[]", InvalidType, None, "The body must be an object, not an array"),
        (b"null", InvalidType, None, "The body must be an object, not null"),
        (b"", InvalidValue, None, "is empty"),
        (b" \n", InvalidValue, None, "is empty"),
        (b'{"name": "a"', InvalidValue, None, "not valid JSON"),
        (b'{"name" "a"}', InvalidValue, None, "expected ':' (byte 8)"),
        (b'{"name": "a"} x', InvalidValue, None, "trailing characters (byte 15)"),
        (b'{"name": "\xff"}', InvalidValue, None, "not valid UTF-8"),
        (b'{"name": "\\ud800"}', InvalidValue, None, "not valid JSON"),
        (b'{"name": "a\x00"}', InvalidValue, None, "not valid JSON"),
        (b'{"name": "a", "anything": ' + b"[" * 90_000, InvalidValue, None, "nested too deeply"),
    ],
)
def test_each_mistake_has_its_class_field_and_sentence(
    text: bytes, refusal: type[RequestError], param: str | None, words: str
) -> None:
    with pytest.raises(RequestError) as caught:
        decode(text, Settings)

    assert type(caught.value) is refusal
    assert words in str(caught.value)
    if param is not None or refusal not in {InvalidValue, UnknownParameter}:
        assert caught.value.param == param


def test_wrong_word_is_named_by_its_whole_path() -> None:
    with pytest.raises(InvalidValue) as caught:
        decode(b'{"name": "a", "limits": [{"amount_usd": "1", "period": "year"}]}', Settings)

    assert caught.value.param == "limits[0].period"


def test_a_length_that_does_not_fit_is_a_value_not_a_type() -> None:
    with pytest.raises(InvalidValue) as caught:
        decode(b'{"pair": [1]}', Sized)

    assert caught.value.param == "pair"


def test_words_are_listed_wherever_they_stand() -> None:
    with pytest.raises(InvalidValue, match=r"'\[0\]\[0\]' must be one of a, b\."):
        decode(b'[["x"]]', list[list[Literal["a", "b"]]])


def test_words_are_listed_inside_a_map_too() -> None:
    with pytest.raises(InvalidValue, match="must be one of a, b"):
        decode(b'{"labels": {"x": "c"}}', dict[str, dict[str, Literal["a", "b"]]])


@pytest.mark.parametrize(
    ("shape", "text", "param"),
    [
        (Counted, b'{"counts": {"a": 1, "b": "x"}}', "counts.b"),
        (Counted, b'{"counts": {"a": 1.5}}', "counts.a"),
        (Counted, b'{"counts": {"a": 1, "b": 9e999}}', "counts"),
        (dict[str, int], b'{"a": 1, "b": null}', "b"),
        (dict[str, dict[str, int]], b'{"a": {"b": "x"}}', "[...]"),
    ],
)
def test_the_odd_member_of_a_map_is_named_where_it_can_be(shape: Any, text: bytes, param: str) -> None:
    with pytest.raises(RequestError) as caught:
        decode(text, shape)

    assert caught.value.param == param


def test_odd_words_without_known_choices_are_still_refused() -> None:
    with pytest.raises(InvalidValue, match="one of the permitted values"):
        decode(b'["x"]', list[Colour])


def test_members_keep_their_own_text() -> None:
    members = decode_members(b'{"price": 0.10, "n": 1e2}')

    assert {name: bytes(raw) for name, raw in members.items()} == {"price": b"0.10", "n": b"1e2"}


def test_mistake_in_a_fields_text_names_the_field() -> None:
    with pytest.raises(InvalidValue, match="text in 'routing' is not valid JSON") as broken:
        decode(b"{", Settings, param="routing")
    with pytest.raises(InvalidType) as misfit:
        decode(b'{"name": 1}', Settings, param="routing")

    assert broken.value.param == "routing"
    assert misfit.value.param == "routing.name"


@pytest.mark.parametrize(
    "text",
    [
        b'{"name":"a","labels":{' + b",".join(b'"%d":"1"' % no for no in range(MAX_JSON_PARTS // 4)) + b',"z":[1]}}',
        b'{"name":"a","tags":[' + b'"",' * MAX_JSON_PARTS + b'""]}',
        b'{"name":"a","anything":[' + b"1," * MAX_JSON_PARTS + b"1]}",
        b'{"name":"a","anything":[' + b"[]," * (MAX_JSON_PARTS // 2) + b"{}]}",
        b'{"name":"a","limits":[' + b"{}," * (MAX_JSON_PARTS // 2) + b"{}]}",
    ],
    ids=["members", "strings", "numbers", "lists", "objects"],
)
def test_text_of_too_many_parts_is_refused_undecoded(text: bytes) -> None:
    with pytest.raises(InvalidValue, match=f"The body has more than {MAX_JSON_PARTS} JSON strings") as body:
        decode(text, Settings)
    with pytest.raises(InvalidValue, match="The text in 'routing' has more than") as field:
        decode_members(text, param="routing")

    assert (body.value.param, field.value.param) == (None, "routing")


def test_text_of_many_parts_is_decoded() -> None:
    tags = b",".join([b'""'] * (MAX_JSON_PARTS // 4))

    assert len(decode(b'{"name":"%s","tags":[%s]}' % (b"x" * 10_000_000, tags), Settings).tags) == MAX_JSON_PARTS // 4


@pytest.mark.parametrize(
    "text",
    [
        b'{"name":"a","%s":1}' % (b"x" * 20_000_000),
        b'{"name":"a","%s":1}' % (b" - at `$" * 2_000_000),
        b'{"name":"a","limits":[{"%s":1}]}' % (b" - at `$" * 2_000_000),
    ],
    ids=["long", "like a path", "like a path, inside"],
)
def test_long_name_is_refused_at_once(text: bytes) -> None:
    begun = time.process_time()
    with pytest.raises(RequestError) as caught:
        decode(text, Settings)

    assert time.process_time() - begun < 0.8
    assert len(str(caught.value)) < 300


async def read_whole(body: AsyncIterator[bytes], *, max_bytes: int) -> bytes:
    with Hold() as hold:
        return await collect(body, hold, max_bytes=max_bytes)


async def test_body_is_joined_whole() -> None:
    assert await read_whole(aiter(Chunks(b"ab", b"", b"c")), max_bytes=3) == b"abc"
    assert await read_whole(aiter(Chunks()), max_bytes=3) == b""


async def test_reading_stops_at_the_chunk_that_is_too_much() -> None:
    body = Chunks(*[b"x" * 10] * 100)

    with pytest.raises(PayloadTooLarge, match="25 bytes"):
        await read_whole(aiter(body), max_bytes=25)

    assert body.read == 3


LARGE = b"x" * (HELD_MAX_BYTES // 4 + UNCOUNTED_BYTES)


async def test_all_bodies_together_are_bounded_and_small_ones_are_let_through() -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            assert await collect(aiter(Chunks(LARGE)), stack.enter_context(Hold()), max_bytes=HELD_MAX_BYTES)
        with pytest.raises(Overloaded, match="Too many large requests"):
            await read_whole(aiter(Chunks(b"x" * UNCOUNTED_BYTES, b"x")), max_bytes=HELD_MAX_BYTES)
        assert await read_whole(aiter(Chunks(b"x" * UNCOUNTED_BYTES)), max_bytes=HELD_MAX_BYTES)
    assert await read_whole(aiter(Chunks(LARGE)), max_bytes=HELD_MAX_BYTES)


class Broken:
    """A body that ends otherwise than well, or not at all."""

    def __init__(self, end: BaseException | None) -> None:
        self._end = end
        self.held = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield LARGE
        yield LARGE
        self.held.set()
        if self._end is not None:
            raise self._end
        await asyncio.Event().wait()


@pytest.mark.parametrize("end", [None, InvalidValue("The body broke off."), RuntimeError()], ids=repr)
async def test_room_is_given_back_however_a_body_ends(end: BaseException | None) -> None:
    for _ in range(3):
        body = Broken(end)
        reading = asyncio.create_task(read_json(aiter(body), Settings, max_bytes=HELD_MAX_BYTES))
        await body.held.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError if end is None else type(end)):
            await reading
    with pytest.raises(PayloadTooLarge):
        await read_whole(aiter(Chunks(LARGE, LARGE, LARGE)), max_bytes=len(LARGE) * 2)
    with pytest.raises(InvalidValue):
        await read_json(aiter(Chunks(LARGE)), Settings, max_bytes=HELD_MAX_BYTES)
    with Hold() as hold:
        assert await collect(aiter(Chunks(*[LARGE] * 3)), hold, max_bytes=HELD_MAX_BYTES)


async def test_read_json_reads_and_decodes() -> None:
    assert await read_json(aiter(Chunks(b'{"name"', b':"a"}')), Settings, max_bytes=100) == Settings(name="a")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["name", "labels", "limits", "x"]), inner)
    ),
    max_leaves=12,
)


@given(_JSON)
def test_any_json_is_decoded_or_refused(value: Any) -> None:
    with contextlib.suppress(RequestError):
        decode(msgspec.json.encode(value), Settings)


@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_or_refused(data: bytes) -> None:
    with contextlib.suppress(RequestError):
        decode(data, Settings)
