"""A create request means the same in every encoding, and no body is worse than a clear refusal."""

import contextlib
import warnings
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode

import httpx2
import msgspec
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.api.bodies import CreateRequest, ListQuery, UnknownFields, parse_list_query, read_create, read_json
from proxy.core.errors import (
    InvalidType,
    InvalidValue,
    MissingParameter,
    PayloadTooLarge,
    RequestError,
    UnknownParameter,
    Unsupported,
    UnsupportedMediaType,
)
from proxy.core.video import RoutingWish

JSON = "application/json"
MULTIPART = "multipart/form-data; boundary=X"
URLENCODED = "application/x-www-form-urlencoded"
PNG = b"\x89PNG\r\n\x1a\npixels"
URL = "https://example.com/a.png"


class Chunks:
    """A body that says how many of its chunks were read."""

    def __init__(self, data: bytes, step: int = 1000) -> None:
        self._chunks = [data[at : at + step] for at in range(0, len(data), step)]
        self.read = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            self.read += 1
            yield chunk


async def create(
    content_type: str | None, data: bytes, *, unknown_fields: UnknownFields = "refuse", step: int = 1000
) -> CreateRequest:
    return await read_create(
        content_type, aiter(Chunks(data, step)), max_bytes=2_000_000, unknown_fields=unknown_fields
    )


async def from_json(fields: Any, *, unknown_fields: UnknownFields = "refuse") -> CreateRequest:
    return await create(JSON, msgspec.json.encode(fields), unknown_fields=unknown_fields)


def multipart(*parts: tuple[str, str | bytes]) -> bytes:
    """Text parts, and files for bytes."""
    body = b""
    for name, value in parts:
        file = '; filename="a.png"' if isinstance(value, bytes) else ""
        data = value.encode() if isinstance(value, str) else value
        body += f'--X\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + data + b"\r\n"
    return body + b"--X--\r\n"


async def refusal_of(content_type: str | None, data: bytes) -> RequestError:
    with pytest.raises(RequestError) as caught:
        await create(content_type, data)
    return caught.value


FIELDS: dict[str, Any] = {
    "prompt": '{"not": "decoded"}',
    "model": "seedance-2.0",
    "seconds": 5,
    "generate_audio": True,
    "content_filter": False,
    "seed": 42,
    "metadata": {"stage": "preview", "2026": "5"},
    "routing": {"only": ["fal", "evolink"], "max_price_usd": "1.10", "max_wait_s": 30, "allow_fallbacks": False},
    "reference_images": [{"image_url": URL}, {"image_url": URL + "?2"}],
}

BRACKETS = [
    ("prompt", '{"not": "decoded"}'),
    ("model", "seedance-2.0"),
    ("seconds", "5"),
    ("generate_audio", "true"),
    ("content_filter", "0"),
    ("seed", "42"),
    ("metadata[stage]", "preview"),
    ("metadata[2026]", "5"),
    ("routing[only][]", "fal"),
    ("routing[only][]", "evolink"),
    ("routing[max_price_usd]", "1.10"),
    ("routing[max_wait_s]", "30"),
    ("routing[allow_fallbacks]", "false"),
    ("reference_images[][image_url]", URL),
    ("reference_images[][image_url]", URL + "?2"),
]

JSON_TEXT = [
    *BRACKETS[:6],
    ("metadata", '{"2026": "5", "stage": "preview"}'),
    (
        "routing",
        '{"only": ["fal", "evolink"], "max_price_usd": 1.10, "max_wait_s": 30, "allow_fallbacks": false}',
    ),
    ("reference_images", f'["{URL}", {{"image_url": "{URL}?2"}}]'),
]

INDEXED = [
    *BRACKETS[:8],
    ("routing[only][1]", "evolink"),
    ("routing[only][0]", "fal"),
    *BRACKETS[10:13],
    ("reference_images[0][image_url]", URL),
    ("reference_images[1][image_url]", URL + "?2"),
]


@pytest.mark.parametrize("parts", [BRACKETS, JSON_TEXT, INDEXED, list(reversed(JSON_TEXT))])
async def test_forms_mean_what_the_json_means(parts: list[tuple[str, str]]) -> None:
    wanted = await from_json(FIELDS)

    assert await create(MULTIPART, multipart(*parts), step=9) == wanted
    assert await create(URLENCODED, urlencode(parts).encode()) == wanted
    assert wanted.ask.routing == RoutingWish(
        only=("fal", "evolink"), max_price_microusd=1_100_000, max_wait_s=30, allow_fallbacks=False
    )
    assert wanted.ask.operation == "reference-to-video"


@pytest.mark.parametrize(
    "same",
    [
        {**FIELDS, "seconds": "5"},
        {**FIELDS, "seconds": 5.0},
        {**{name: value for name, value in FIELDS.items() if name != "seconds"}, "duration": "5"},
        {**FIELDS, "size": None, "callback_url": None},
        {**FIELDS, "metadata": {"2026": "5", "stage": "preview"}},
        {**FIELDS, "routing": {**FIELDS["routing"], "max_price_usd": 1.1, "ignore": []}},
        {**FIELDS, "reference_images": [URL, URL + "?2"], "reference_videos": []},
        {"prompt": FIELDS["prompt"], "extra_body": FIELDS},
        dict(reversed(FIELDS.items())),
    ],
)
async def test_equal_content_has_one_fingerprint(same: dict[str, Any]) -> None:
    assert (await from_json(same)).fingerprint == (await from_json(FIELDS)).fingerprint


@pytest.mark.parametrize(
    "other",
    [
        {**FIELDS, "prompt": "a"},
        {**FIELDS, "seconds": 6},
        {**FIELDS, "size": "1280x720"},
        {**FIELDS, "metadata": {"stage": "preview"}},
        {**FIELDS, "routing": {**FIELDS["routing"], "max_price_usd": "1.11"}},
        {**FIELDS, "routing": None},
        {**FIELDS, "reference_images": [URL + "?2", URL]},
        {**FIELDS, "reference_images": None},
    ],
)
async def test_other_content_has_another_fingerprint(other: dict[str, Any]) -> None:
    assert (await from_json(other)).fingerprint != (await from_json(FIELDS)).fingerprint


async def test_a_file_counts_in_the_fingerprint_by_its_bytes() -> None:
    prints = [
        (await create(MULTIPART, multipart(("prompt", "a"), ("input_reference", data)))).fingerprint
        for data in (PNG, PNG, PNG + b"!")
    ]

    assert prints[0] == prints[1] != prints[2]


async def test_a_number_keeps_every_digit() -> None:
    text = b'{"prompt": "a", "routing": {"max_price_usd": 123456.123457}, "extra_body": {"seed": 4294967295}}'

    ask = (await create(JSON, text)).ask

    assert ask.routing.max_price_microusd == 123_456_123_457
    assert ask.seed == 4_294_967_295


async def test_an_uploaded_image_makes_the_operation_and_is_recorded() -> None:
    request = await create(MULTIPART, multipart(("prompt", "a"), ("input_reference", PNG), ("end_image", PNG)), step=3)

    assert (request.ask.operation, request.ask.operation_param) == ("image-to-video", "input_reference")
    assert [(file.field, file.size_bytes, file.kind) for file in request.files] == [
        ("input_reference", len(PNG), "png"),
        ("end_image", len(PNG), "png"),
    ]


@pytest.mark.parametrize(
    "parts",
    [
        [("reference_images[]", PNG), ("reference_images[]", PNG)],
        [("reference_images", PNG), ("reference_images", PNG)],
        [("reference_images[0]", PNG), ("reference_images[1]", PNG)],
    ],
)
async def test_reference_files_come_under_any_list_name(parts: list[tuple[str, str | bytes]]) -> None:
    request = await create(MULTIPART, multipart(("prompt", "a"), *parts))

    assert request.ask.operation == "reference-to-video"
    assert len(request.files) == 2


@pytest.mark.parametrize(
    "part",
    [
        ("reference_videos", URL),
        ("reference_videos[]", URL),
        ("reference_videos[0]", URL),
        ("reference_videos[video_url]", URL),
        ("reference_videos[][video_url]", URL),
        ("reference_videos", f'{{"video_url": "{URL}"}}'),
        ("reference_videos", f'["{URL}"]'),
    ],
)
async def test_a_single_reference_is_a_list_of_one_in_a_form(part: tuple[str, str]) -> None:
    wanted = await from_json({"prompt": "a", "reference_videos": [URL]})

    assert await create(MULTIPART, multipart(("prompt", "a"), part)) == wanted


@pytest.mark.parametrize("content_type", [JSON, "application/json; charset=utf-8", "Application/JSON", None, ""])
async def test_json_is_recognised(content_type: str | None) -> None:
    assert (await create(content_type, b' {"prompt": "a"}')).ask.prompt == "a"


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/xml",
        "multipart/mixed; boundary=X",
        "application/json; charset=utf-16",
        "nonsense",
        "x" * 5000,
    ],
)
async def test_other_types_are_refused_unread(content_type: str) -> None:
    body = Chunks(b'{"prompt": "a"}')

    with pytest.raises(UnsupportedMediaType):
        await read_create(content_type, aiter(body), max_bytes=1000, unknown_fields="refuse")

    assert body.read == 0


@pytest.mark.parametrize("data", [b"", b"prompt=a", b"--X\r\n"])
async def test_without_a_type_only_an_object_is_recognised(data: bytes) -> None:
    assert type(await refusal_of(None, data)) is UnsupportedMediaType


@pytest.mark.parametrize("content_type", [JSON, "multipart/form-data"])
async def test_a_boundary_is_recovered_from_the_first_line(content_type: str) -> None:
    data = multipart(("prompt", "a"), ("seed", "1"))

    assert await create(content_type, data) == await create(MULTIPART, data)


async def test_fields_lost_under_a_forced_json_header_are_explained() -> None:
    refusal = await refusal_of(JSON, multipart(("input_reference", PNG)))

    assert (type(refusal), refusal.param) == (MissingParameter, "prompt")
    assert "do not force that header" in str(refusal)


@pytest.mark.parametrize("content_type", [JSON, "multipart/form-data"])
@pytest.mark.parametrize("data", [b"--", b"--X", b"--\r\n", b"--" + b"X" * 300 + b"\r\n", b"--X\r\nbroken"])
async def test_a_boundary_that_cannot_be_recovered_is_a_clear_refusal(content_type: str, data: bytes) -> None:
    refusal = await refusal_of(content_type, data)

    assert type(refusal) is InvalidValue
    assert "multipart body" in str(refusal)


@pytest.mark.parametrize(
    ("text", "refusal", "param"),
    [
        (b"{}", MissingParameter, "prompt"),
        (b'{"prompt": null}', MissingParameter, "prompt"),
        (b'{"prompt": ["a"]}', InvalidType, "prompt"),
        (b'{"prompt": "a", "seconds": true}', InvalidType, "seconds"),
        (b'{"prompt": "a", "seconds": 5.5}', InvalidValue, "seconds"),
        (b'{"prompt": "a", "seconds": 1e400}', InvalidValue, "seconds"),
        (b'{"prompt": "a", "seed": "1"}', InvalidType, "seed"),
        (b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}", InvalidValue, "seed"),
        (b'{"prompt": "a", "generate_audio": "true"}', InvalidType, "generate_audio"),
        (b'{"prompt": "a", "metadata": {"ok": "x", "bad": 5}}', InvalidType, "metadata.bad"),
        (b'{"prompt": "a", "metadata": []}', InvalidType, "metadata"),
        (b'{"prompt": "a", "routing": {"sorted": "price"}}', UnknownParameter, "routing.sorted"),
        (b'{"prompt": "a", "routing": {"max_price_usd": true}}', InvalidType, "routing.max_price_usd"),
        (b'{"prompt": "a", "routing": {"max_price_usd": "x"}}', InvalidValue, "routing.max_price_usd"),
        (b'{"prompt": "a", "routing": {"only": "fal"}}', InvalidType, "routing.only"),
        (b'{"prompt": "a", "sed": 1}', UnknownParameter, "sed"),
        (b'{"prompt": "a", "extra_body": {"sed": 1}}', UnknownParameter, "sed"),
        (b'{"prompt": "a", "extra_body": {"extra_body": {}}}', UnknownParameter, "extra_body"),
        (b'{"prompt": "a", "extra_body": []}', InvalidType, "extra_body"),
        (b'{"prompt": "a", "extra_body": {"seed": "x"}}', InvalidType, "seed"),
        (b'{"prompt": "a", "characters": []}', Unsupported, "characters"),
        (b'{"prompt": "a", "video": {"id": "video_1"}}', Unsupported, "video"),
        (b'{"prompt": "a", "callback_url": "https://a"}', Unsupported, "callback_url"),
        (b'{"prompt": "a", "input_reference": {}}', InvalidValue, "input_reference"),
        (b'{"prompt": "a\\u0000"}', InvalidValue, "prompt"),
        (b'{"prompt": "a", "metadata": {"k": "\\u0000"}}', InvalidValue, "metadata.k"),
        (b'{"prompt": "a", "metadata": {"\\u0000": "v"}}', InvalidValue, "metadata"),
        (b'{"prompt": "a", "routing": {"only": ["\\u0000"]}}', InvalidValue, "routing.only[0]"),
        (b'{"prompt": "a", "zz": ' + b"[" * 100_000 + b"}", InvalidValue, None),
        (b'{"prompt": "a", "end_image": ' + b"[" * 100_000 + b"}", InvalidValue, None),
        (b'{"prompt": "\\udc00"}', InvalidValue, None),
        (b'{"prompt": "\xff"}', InvalidValue, None),
        (b'{"prompt": ', InvalidValue, None),
        (b"", InvalidValue, None),
        (b"[]", InvalidType, None),
        (b'"a"', InvalidType, None),
    ],
)
async def test_each_mistake_in_json_names_its_field(
    text: bytes, refusal: type[RequestError], param: str | None
) -> None:
    caught = await refusal_of(JSON, text)

    assert (type(caught), caught.param) == (refusal, param)


@pytest.mark.parametrize(
    ("parts", "refusal", "param"),
    [
        ([], MissingParameter, "prompt"),
        ([("prompt", "a"), ("prompt", "b")], InvalidValue, "prompt"),
        ([("prompt", PNG)], InvalidType, "prompt"),
        ([("prompt", "a\0")], InvalidValue, "prompt"),
        ([("prompt", "a"), ("seed", "x")], InvalidType, "seed"),
        ([("prompt", "a"), ("seed", "")], InvalidType, "seed"),
        ([("prompt", "a"), ("seed", "1"), ("seed", "2")], InvalidValue, "seed"),
        ([("prompt", "a"), ("generate_audio", "yes")], InvalidType, "generate_audio"),
        ([("prompt", "a"), ("metadata", "text")], InvalidType, "metadata"),
        ([("prompt", "a"), ("metadata", "{")], InvalidValue, "metadata"),
        ([("prompt", "a"), ("metadata[a]", PNG)], InvalidType, "metadata.a"),
        ([("prompt", "a"), ("routing[sorted]", "price")], UnknownParameter, "routing.sorted"),
        ([("prompt", "a"), ("sed", "1")], UnknownParameter, "sed"),
        ([("prompt", "a"), ("last_frame", PNG)], UnknownParameter, "last_frame"),
        ([("prompt", "a"), ("video", PNG)], Unsupported, "video"),
        ([("prompt", "a"), ("extra_body", "{")], InvalidValue, "extra_body"),
        ([("prompt", "a"), ("extra_body", "[]")], InvalidType, "extra_body"),
        ([("prompt", "a"), ("extra_body", "{}"), ("extra_body", "{}")], InvalidType, "extra_body"),
        ([("prompt", "a"), ("extra_body", PNG)], InvalidType, "extra_body"),
        ([("prompt", "a"), ("input_reference", PNG), ("input_reference", PNG)], InvalidValue, "input_reference"),
        ([("prompt", "a"), ("input_reference", PNG), ("input_reference", URL)], InvalidValue, "input_reference"),
        ([("prompt", "a"), ("input_reference", PNG), ("reference_videos", URL)], InvalidValue, "reference_videos"),
        ([("prompt", "a"), ("input_reference[image_url]", PNG)], InvalidType, "input_reference.image_url"),
        ([("prompt", "a"), ("input_reference", "{")], InvalidValue, "input_reference"),
        (
            [("prompt", "a"), ("reference_images[0]", URL), ("reference_images[2]", URL)],
            InvalidType,
            "reference_images",
        ),
    ],
)
async def test_each_mistake_in_a_form_names_its_field(
    parts: list[tuple[str, str | bytes]], refusal: type[RequestError], param: str
) -> None:
    caught = await refusal_of(MULTIPART, multipart(*parts))

    assert (type(caught), caught.param) == (refusal, param)


async def test_top_level_wins_over_extra_body() -> None:
    wanted = await from_json({"prompt": "a", "seed": 1, "tier": "fast", "input_reference": URL})
    extra = {"seed": 2, "tier": "fast", "input_reference": URL + "?other"}
    stated = {"prompt": "a", "seed": 1, "input_reference": URL}
    brackets = [("extra_body[seed]", "2"), ("extra_body[tier]", "fast"), ("extra_body[input_reference]", URL + "?o")]
    texts = [("prompt", "a"), ("seed", "1"), ("input_reference", URL)]

    assert await from_json({**stated, "extra_body": extra}) == wanted
    assert await create(MULTIPART, multipart(*texts, ("extra_body", msgspec.json.encode(extra).decode()))) == wanted
    assert await create(MULTIPART, multipart(*texts, *brackets)) == wanted


async def test_an_empty_extra_body_says_nothing() -> None:
    assert await from_json({"prompt": "a", "extra_body": None}) == await from_json({"prompt": "a", "characters": None})


async def test_unknown_fields_are_reported_where_so_configured() -> None:
    data = msgspec.json.encode({"prompt": "a", "sed": 1, "odd": {"x": [1]}, "extra_body": {"tier": "fast"}})
    form = multipart(("prompt", "a"), ("sed", "1"), ("odd[x][]", "1"), ("tier", "fast"))

    request = await create(JSON, data, unknown_fields="report")

    assert request.ask.tier == "fast"
    assert len(request.warnings) == 2
    assert "'sed'" in request.warnings[0]
    assert "Did you mean 'seed'?" in request.warnings[0]
    assert request == await create(MULTIPART, form, unknown_fields="report")


@pytest.mark.parametrize(
    ("fields", "refusal"),
    [
        ({"prompt": "a", "routing": {"max_price": "1"}}, UnknownParameter),
        ({"prompt": "a", "characters": [{"id": "c"}]}, Unsupported),
        ({"prompt": "a", "sed": 1, "seed": "x"}, InvalidType),
        ({"prompt": "a", **{f"odd{number}": 1 for number in range(21)}}, InvalidValue),
    ],
)
async def test_reporting_lets_nothing_else_pass(fields: dict[str, Any], refusal: type[RequestError]) -> None:
    with pytest.raises(refusal):
        await from_json(fields, unknown_fields="report")


async def test_a_backslash_before_u0000_is_text() -> None:
    assert (await create(JSON, b'{"prompt": "a \\\\u0000"}')).ask.prompt == "a \\u0000"


@pytest.mark.parametrize(
    ("content_type", "head"),
    [
        (JSON, b'{"prompt": "'),
        (None, b'{"prompt": "'),
        (URLENCODED, b"prompt="),
        (MULTIPART, multipart(("input_reference", PNG))[:-12]),
    ],
)
async def test_reading_stops_at_the_limit(content_type: str | None, head: bytes) -> None:
    body = Chunks(head + b"x" * 100_000, 100)

    with pytest.raises(PayloadTooLarge):
        await read_create(content_type, aiter(body), max_bytes=1050, unknown_fields="refuse")

    assert body.read == 11


def sdk_requests(method: str, **fields: Any) -> list[tuple[str, bytes]]:
    """What OpenAI's own SDK sends: content type and body."""
    sent = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        sent.append((request.headers["content-type"], request.read()))
        return httpx2.Response(200, json={"id": "video_1"})

    client = openai.OpenAI(
        api_key="k", base_url="http://proxy/v1", http_client=httpx2.Client(transport=httpx2.MockTransport(answer))
    )
    with client, warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        if method == "create":
            client.videos.create(**fields)
        else:
            client.post("/videos", cast_to=object, **fields)
    return sent


async def test_the_sdks_form_means_what_its_json_means() -> None:
    extra = {name: value for name, value in FIELDS.items() if name not in {"prompt", "model", "seconds"}}
    ((form_type, form),) = sdk_requests(
        "create", prompt=FIELDS["prompt"], model="seedance-2.0", seconds="5", extra_body=extra
    )
    ((json_type, text),) = sdk_requests("post", body=FIELDS)

    assert form_type.startswith("multipart/form-data")
    assert json_type == JSON
    assert await create(form_type, form) == await create(json_type, text) == await from_json(FIELDS)


async def test_the_sdks_file_is_recognised_by_its_bytes() -> None:
    ((content_type, body),) = sdk_requests("create", prompt="a", input_reference=PNG)

    request = await create(content_type, body)

    assert [(file.filename, file.kind) for file in request.files] == [("upload", "png")]
    assert request.ask.operation == "image-to-video"


async def test_the_sdks_file_under_a_forced_json_header_is_explained() -> None:
    ((content_type, body),) = sdk_requests(
        "create", prompt="a", input_reference=PNG, extra_headers={"Content-Type": JSON}
    )

    assert content_type == JSON
    assert "do not force that header" in str(await refusal_of(content_type, body))


async def test_admin_bodies_are_read_by_the_same_words() -> None:
    class Budget(msgspec.Struct, forbid_unknown_fields=True):
        limit_usd: str

    assert (await read_json(aiter(Chunks(b'{"limit_usd": "5"}')), Budget, max_bytes=100)).limit_usd == "5"
    with pytest.raises(UnknownParameter):
        await read_json(aiter(Chunks(b'{"limit": "5"}')), Budget, max_bytes=100)


_WORDS = st.sampled_from([*FIELDS, "extra_body", "input_reference", "sed", "only", "image_url", "user", "characters"])
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_WORDS, inner, max_size=4),
    max_leaves=10,
)


@given(st.dictionaries(_WORDS, _VALUES) | _VALUES, st.sampled_from(["refuse", "report"]))
async def test_any_json_is_read_or_refused(fields: Any, unknown_fields: UnknownFields) -> None:
    with contextlib.suppress(RequestError):
        await from_json(fields, unknown_fields=unknown_fields)


_STEPS = st.sampled_from(["", "[]", "[0]", "[only]", "[image_url]", "[seed]"])
_TEXTS = st.text(max_size=10) | st.sampled_from(['{"a": 1}', "[1", "5", "true", URL, "null"]) | st.just(PNG)


@given(
    st.lists(st.tuples(st.builds("{}{}{}".format, _WORDS, _STEPS, _STEPS), _TEXTS), max_size=8),
    st.sampled_from(["refuse", "report"]),
)
async def test_any_form_is_read_or_refused(parts: list[tuple[str, str | bytes]], unknown_fields: UnknownFields) -> None:
    with contextlib.suppress(RequestError):
        await create(MULTIPART, multipart(("prompt", "a"), *parts), unknown_fields=unknown_fields)


@given(
    st.sampled_from([JSON, MULTIPART, URLENCODED, None, "multipart/form-data", "multipart/form-data; boundary="])
    | st.text(max_size=30),
    st.binary(max_size=60) | st.sampled_from([b"--X\r\n", b"--X--", b'{"prompt"', multipart(("prompt", "a"))]),
)
async def test_any_body_under_any_type_is_read_or_refused(content_type: str | None, data: bytes) -> None:
    with contextlib.suppress(RequestError):
        await create(content_type, data, step=7)


@pytest.mark.parametrize(
    ("limit", "order", "after", "query"),
    [
        (None, None, None, ListQuery(limit=20, order="desc", after=None)),
        ("0", "asc", "video_1", ListQuery(limit=0, order="asc", after="video_1")),
        ("100", "desc", None, ListQuery(limit=100, order="desc", after=None)),
        ("007", None, None, ListQuery(limit=7, order="desc", after=None)),
    ],
)
def test_a_list_query_is_read(limit: str | None, order: str | None, after: str | None, query: ListQuery) -> None:
    assert parse_list_query(limit, order, after) == query


@pytest.mark.parametrize(
    ("limit", "order", "after", "param"),
    [
        ("101", None, None, "limit"),
        ("-1", None, None, "limit"),
        ("ten", None, None, "limit"),
        ("", None, None, "limit"),
        ("1.0", None, None, "limit"),
        ("\u0665", None, None, "limit"),
        ("9" * 5000, None, None, "limit"),
        (None, "DESC", None, "order"),
        (None, "", None, "order"),
        (None, None, "", "after"),
        (None, None, "v" * 200, "after"),
    ],
)
def test_a_broken_list_query_names_its_parameter(
    limit: str | None, order: str | None, after: str | None, param: str
) -> None:
    with pytest.raises(InvalidValue) as caught:
        parse_list_query(limit, order, after)

    assert caught.value.param == param
