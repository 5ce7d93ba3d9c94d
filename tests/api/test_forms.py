"""Forms: names to structure, text to types, files to hashes, and bounds on all of it."""

import contextlib
import hashlib
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.api.documents import HELD_MAX_BYTES
from proxy.api.forms import (
    MAX_BRACKETS,
    MAX_ESCAPES,
    MAX_NAME_CHARS,
    MAX_PARTS,
    MAX_TEXT_BYTES,
    Form,
    Node,
    UploadedFile,
    coerce,
    items_of,
    nest,
    read_multipart,
    read_urlencoded,
    sniff,
)
from proxy.core.errors import InvalidType, InvalidValue, Overloaded, PayloadTooLarge, RequestError

PNG = b"\x89PNG\r\n\x1a\n" + b"pixels" * 20


class Wan(msgspec.Struct, frozen=True, kw_only=True):
    shift: int | None = None
    on: bool | None = None
    names: tuple[str, ...] | None = None


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    prompt: str | None = None
    seed: int | None = None
    flag: bool | None = None
    seconds: int | float | str | None = None
    ratio: float | None = None
    ids: list[int] | None = None
    loras: list[dict[str, str]] | None = None
    wan: Wan | None = None
    metadata: dict[str, str] | None = None
    free: Any = None


class Chunks:
    """A body that says how many of its chunks were read."""

    def __init__(self, data: bytes, step: int) -> None:
        self._chunks = [data[at : at + step] for at in range(0, len(data), step)]
        self.read = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            self.read += 1
            yield chunk


def part(name: str, data: bytes | str, *, filename: str | None = None, headers: str = "") -> bytes:
    text = data.encode() if isinstance(data, str) else data
    file = "" if filename is None else f'; filename="{filename}"'
    return f'--X\r\nContent-Disposition: form-data; name="{name}"{file}\r\n{headers}\r\n'.encode() + text + b"\r\n"


async def read(*parts: bytes, step: int = 7, max_bytes: int = 10**7) -> Form:
    return await read_multipart("X", aiter(Chunks(b"".join(parts) + b"--X--\r\n", step)), max_bytes=max_bytes)


@pytest.mark.parametrize(
    ("names", "node"),
    [
        ([("a", "1")], {"a": "1"}),
        ([("a", "1"), ("b", "2")], {"a": "1", "b": "2"}),
        ([("a", "1"), ("a", "2")], {"a": ["1", "2"]}),
        ([("a[]", "1")], {"a": ["1"]}),
        ([("a[]", "1"), ("a[]", "2")], {"a": ["1", "2"]}),
        ([("a[b]", "1"), ("a[c]", "2")], {"a": {"b": "1", "c": "2"}}),
        ([("a[b][c]", "1"), ("a[b][d]", "2")], {"a": {"b": {"c": "1", "d": "2"}}}),
        ([("a[b][]", "1"), ("a[b][]", "2")], {"a": {"b": ["1", "2"]}}),
        ([("a[0][b]", "1"), ("a[1][b]", "2")], {"a": {"0": {"b": "1"}, "1": {"b": "2"}}}),
        ([("a[][b][c]", "1"), ("a[][b][c]", "2")], {"a": [{"b": {"c": "1"}}, {"b": {"c": "2"}}]}),
    ],
)
def test_brackets_spell_the_structure(names: list[tuple[str, str]], node: dict[str, Any]) -> None:
    assert nest(names) == node


def test_columns_first_and_rows_first_are_the_same_list() -> None:
    python_order = [("loras[][id]", "a"), ("loras[][id]", "b"), ("loras[][w]", "0.5"), ("loras[][w]", "1")]
    node_order = [("loras[][id]", "a"), ("loras[][w]", "0.5"), ("loras[][id]", "b"), ("loras[][w]", "1")]

    assert nest(python_order) == nest(node_order) == {"loras": [{"id": "a", "w": "0.5"}, {"id": "b", "w": "1"}]}


@pytest.mark.parametrize(
    ("names", "param"),
    [
        (["a[][b]", "a[][b]", "a[][c]"], "a"),
        (["a[]", "a[][b]"], "a"),
        (["a[][b][]"], "a"),
        (["x[a][][b]", "x[a][][b]", "x[a][][c]"], "x.a"),
        (["a", "a[b]"], "a"),
        (["a", "a[]"], "a"),
        (["a[]", "a[b]"], "a"),
        (["a[b]", "a[b][c]"], "a.b"),
        (["a["], "a["),
        (["a]"], "a]"),
        (["a[b"], "a[b"),
        (["a[b]c"], "a[b]c"),
        (["a[[b]]"], "a[[b]]"),
        (["[a]"], "[a]"),
        ([""], ""),
        (["a\n"], "a\n"),
        (["__proto__[x]"], "__proto__[x]"),
        (["a[constructor]"], "a[constructor]"),
        (["a[b][prototype]"], "a[b][prototype]"),
        (["a" + "[b]" * (MAX_BRACKETS + 1)], "a[b][b][b][b][b][b]"),
        (["a" * (MAX_NAME_CHARS + 1)], "a" * 64),
    ],
)
def test_names_that_contradict_or_break_the_bounds_are_refused(names: list[str], param: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        nest([(name, "1") for name in names])

    assert caught.value.param == param


def test_ragged_list_advises_json_text() -> None:
    with pytest.raises(InvalidValue, match="JSON text"):
        nest([("loras[][id]", "a"), ("loras[][id]", "b"), ("loras[][w]", "1")])


def test_names_at_the_bounds_pass() -> None:
    nest([("a" + "[b]" * MAX_BRACKETS, "1"), ("c" * MAX_NAME_CHARS, "1")])


@pytest.mark.parametrize(
    ("node", "items"),
    [
        (["a"], ["a"]),
        ({"0": "a", "1": "b"}, ["a", "b"]),
        ({"1": "b", "0": "a"}, ["a", "b"]),
        ({"0": "a", "2": "b"}, None),
        ({"1": "a"}, None),
        ({"00": "a"}, None),
        ({"a": "b"}, None),
        ("a", None),
    ],
)
def test_an_index_counts_from_zero_without_a_gap(node: Node, items: list[Node] | None) -> None:
    assert items_of(node) == items


@pytest.mark.parametrize(
    ("fields", "document"),
    [
        ({"prompt": '{"x": 1}'}, {"prompt": '{"x": 1}'}),
        ({"prompt": "true"}, {"prompt": "true"}),
        ({"seed": "42"}, {"seed": 42}),
        ({"seed": "-007"}, {"seed": -7}),
        ({"seed": "4.5"}, {"seed": "4.5"}),
        ({"seed": "x"}, {"seed": "x"}),
        ({"seed": "٤"}, {"seed": "٤"}),
        ({"flag": "true"}, {"flag": True}),
        ({"flag": "False"}, {"flag": False}),
        ({"flag": "1"}, {"flag": True}),
        ({"flag": "0"}, {"flag": False}),
        ({"flag": "yes"}, {"flag": "yes"}),
        ({"seconds": "5"}, {"seconds": "5"}),
        ({"ratio": "1"}, {"ratio": "1"}),
        ({"ids": ["1", "2"]}, {"ids": [1, 2]}),
        ({"ids": {"0": "1", "1": "2"}}, {"ids": [1, 2]}),
        ({"ids": "1"}, {"ids": [1]}),
        ({"ids": "[1, 2]"}, {"ids": [1, 2]}),
        ({"wan": {"shift": "8", "on": "true", "names": "a"}}, {"wan": {"shift": 8, "on": True, "names": ["a"]}}),
        ({"wan": '{"shift": 8}'}, {"wan": {"shift": 8}}),
        ({"wan": {"names": '["a", "b"]'}}, {"wan": {"names": ["a", "b"]}}),
        ({"wan": {"odd": "8"}}, {"wan": {"odd": "8"}}),
        ({"wan": "text"}, {"wan": "text"}),
        ({"metadata": {"0": "a", "1": "5"}}, {"metadata": {"0": "a", "1": "5"}}),
        ({"metadata": ' {"a": "b"}'}, {"metadata": {"a": "b"}}),
        ({"loras": [{"id": "a"}, {"id": "1"}]}, {"loras": [{"id": "a"}, {"id": "1"}]}),
        ({"free": "{1"}, {"free": "{1"}),
        ({"free": ["1"]}, {"free": ["1"]}),
        ({"unknown": {"a": ["1"]}}, {"unknown": {"a": ["1"]}}),
        ({"prompt": {"a": "b"}}, {"prompt": {"a": "b"}}),
    ],
)
def test_text_takes_the_type_of_its_target(fields: dict[str, Node], document: dict[str, Any]) -> None:
    assert msgspec.json.decode(msgspec.json.encode(coerce(fields, Shape))) == document


@pytest.mark.parametrize(
    ("fields", "refusal", "param"),
    [
        ({"prompt": ["a", "b"]}, InvalidValue, "prompt"),
        ({"wan": {"shift": ["1", "2"]}}, InvalidValue, "wan.shift"),
        ({"wan": '{"shift": '}, InvalidValue, "wan"),
        ({"wan": {"names": "[1"}}, InvalidValue, "wan.names"),
        ({"metadata": "{" + '"a":{' * 100_000}, InvalidValue, "metadata"),
    ],
)
def test_text_that_cannot_be_meant_is_refused(fields: dict[str, Node], refusal: type[RequestError], param: str) -> None:
    with pytest.raises(refusal) as caught:
        coerce(fields, Shape)

    assert caught.value.param == param


async def test_a_file_where_text_belongs_is_refused() -> None:
    form = await read(part("wan[shift]", PNG, filename="a.png"))

    with pytest.raises(InvalidType) as caught:
        coerce(form.fields, Shape)

    assert caught.value.param == "wan.shift"


@pytest.mark.parametrize("step", [1, 3, 64, 10_000])
async def test_parts_are_read_however_they_are_cut(step: int) -> None:
    form = await read(
        part("prompt", "ein Schiff ü\r\n--Y"),
        part("empty", ""),
        part("input_reference", PNG, filename="a.png", headers="Content-Type: application/octet-stream\r\n"),
        step=step,
    )

    file = UploadedFile(
        field="input_reference",
        filename="a.png",
        size_bytes=len(PNG),
        sha256=hashlib.sha256(PNG).hexdigest(),
        kind="png",
    )
    assert form == Form(fields={"prompt": "ein Schiff ü\r\n--Y", "empty": "", "input_reference": file}, files=(file,))


@pytest.mark.parametrize(
    ("name", "filename", "headers", "is_file"),
    [
        ("input_reference", "a.png", "", True),
        ("input_reference", None, "Content-Type: image/png\r\n", True),
        ("input_reference", None, "Content-Type: application/octet-stream\r\n", True),
        ("reference_images[]", None, "Content-Type: image/png\r\n", True),
        ("input_reference", None, "Content-Type: text/plain\r\n", False),
        ("input_reference", None, "", False),
        ("prompt", None, "Content-Type: text/plain; charset=UTF-8\r\n", False),
        ("prompt", None, "Content-Type: application/octet-stream\r\n", False),
        ("metadata", None, "Content-Type: application/json\r\n", False),
        ("prompt", "a.txt", "Content-Type: text/plain\r\n", True),
    ],
)
async def test_a_part_is_a_file_by_its_name_or_by_its_type_in_a_file_field(
    name: str, filename: str | None, headers: str, is_file: bool
) -> None:
    form = await read(part(name, "https://a/b.png", filename=filename, headers=headers))

    assert bool(form.files) is is_file


async def test_a_file_field_left_empty_in_a_browser_was_not_stated() -> None:
    form = await read(part("input_reference", b"", filename=""), part("prompt", "a"))

    assert form == Form(fields={"prompt": "a"})


async def test_a_named_file_without_bytes_is_there() -> None:
    form = await read(part("input_reference", b"", filename="a.png"))

    assert [file.size_bytes for file in form.files] == [0]


async def test_several_files_of_one_name_are_a_list() -> None:
    form = await read(
        part("reference_images[]", PNG, filename="a.png"), part("reference_images[]", PNG, filename="b.png")
    )

    assert form.fields == {"reference_images": list(form.files)}
    assert [file.filename for file in form.files] == ["a.png", "b.png"]


async def test_file_and_object_for_one_field_contradict_each_other() -> None:
    with pytest.raises(InvalidValue) as caught:
        await read(part("input_reference", PNG, filename="a.png"), part("input_reference[file_id]", "x"))

    assert caught.value.param == "input_reference"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"--X",
        b"--X\r\n",
        b"nothing",
        b'--X\r\nContent-Disposition: form-data; name="a"\r\n\r\nunended',
        b'--X\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--X',
        b"--X\r\nContent-Type: text/plain\r\n\r\n1\r\n--X--",
        b'--X\nContent-Disposition: form-data; name="a"\n\n1\n--X--',
        b"--X\r\nno header\r\n\r\n1\r\n--X--",
        b'--X\r\n\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--X--',
        b'--X\r\nContent-Disposition: form-data;\n name="a"\r\n\r\n1\r\n--X--',
        b'preamble without an end--X\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--X--',
        b'--X\r\nContent-Disposition: form-data; name="\xff"\r\n\r\n1\r\n--X--',
        b"--X\r\n" + b"A: b\r\n" * 9 + b"\r\n1\r\n--X--",
        b"--X\r\nA: " + b"b" * 9000 + b"\r\n\r\n1\r\n--X--",
        b'--X\r\nContent-Disposition: form-data; name="a"\r\nContent-Length: 5\r\n\r\n1\r\n--X--',
    ],
)
async def test_a_broken_multipart_body_is_the_same_refusal_however_it_is_cut(data: bytes) -> None:
    said = set()
    for step in (1, 11, 10_000):
        with pytest.raises(InvalidValue, match="multipart body") as caught:
            await read_multipart("X", aiter(Chunks(data, step)), max_bytes=10**6)
        said.add(str(caught.value))
    assert len(said) == 1


async def test_a_boundary_that_cannot_be_one_is_refused() -> None:
    with pytest.raises(InvalidValue, match="multipart body"):
        await read_multipart("a\nb", aiter(Chunks(b"x", 1)), max_bytes=10)


@pytest.mark.parametrize(
    "broken",
    [part("a", b"\xff"), part("a", "x", headers="Content-Type: text/plain; charset=utf-16\r\n"), part("", "x")],
)
async def test_a_part_that_cannot_be_read_is_refused(broken: bytes) -> None:
    with pytest.raises(InvalidValue):
        await read(broken)


async def test_what_follows_the_last_boundary_is_ignored() -> None:
    data = part("a", "1") + b"--X--\r\nepilogue"

    assert (await read_multipart("X", aiter(Chunks(data, 5)), max_bytes=1000)).fields == {"a": "1"}


async def test_an_upload_over_the_limit_is_left_unread() -> None:
    data = part("input_reference", b"x" * 1_000_000, filename="a.png") + b"--X--\r\n"
    body = Chunks(data, 1000)

    with pytest.raises(PayloadTooLarge):
        await read_multipart("X", aiter(body), max_bytes=10_500)

    assert body.read == 11


async def test_too_much_text_is_left_unread() -> None:
    body = Chunks(part("prompt", "x" * (3 * MAX_TEXT_BYTES)) + b"--X--\r\n", MAX_TEXT_BYTES // 4)

    with pytest.raises(InvalidValue) as caught:
        await read_multipart("X", aiter(body), max_bytes=10**8)

    assert caught.value.param == "prompt"
    assert body.read == 5


async def test_a_data_url_may_be_longer_than_other_text() -> None:
    url = "data:image/png;base64," + "A" * MAX_TEXT_BYTES

    form = await read(part("input_reference[image_url]", url), step=65536)

    assert form.fields == {"input_reference": {"image_url": url}}


async def test_too_many_parts_are_refused() -> None:
    await read(*[part("a", "1")] * MAX_PARTS, step=500)
    with pytest.raises(InvalidValue, match="multipart body"):
        await read(*[part("a", "1")] * (MAX_PARTS + 1), step=500)


async def test_urlencoded_reads_like_multipart() -> None:
    pairs = [("prompt", "a & b = ü"), ("wan[shift]", "8"), ("ids[]", "1"), ("ids[]", "2"), ("empty", "")]
    data = urlencode(pairs).encode()

    form = await read_urlencoded(aiter(Chunks(data, 5)), max_bytes=1000)

    assert form == await read(*[part(name, text) for name, text in pairs])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b'{"prompt": "a"}', "looks like JSON"),
        (b"a=%FF", "UTF-8"),
        (b"a=\xff", "UTF-8"),
        (b"&".join([b"a=1"] * (MAX_PARTS + 1)), "more than 200"),
        (b"prompt=" + b"x" * (MAX_TEXT_BYTES + 1), "bytes of text"),
        (b"a[=1", "no field name"),
    ],
)
async def test_a_broken_urlencoded_body_is_a_clear_refusal(data: bytes, words: str) -> None:
    with pytest.raises(InvalidValue, match=words):
        await read_urlencoded(aiter(Chunks(data, 100_000)), max_bytes=10**7)


@pytest.mark.parametrize("escape", [b"%41", b"+"])
async def test_urlencoded_body_of_too_many_escapes_is_refused_undecoded(escape: bytes) -> None:
    data = b"input_reference=" + escape * MAX_ESCAPES
    assert await read_urlencoded(aiter(Chunks(data, 100_000)), max_bytes=10**7)

    with pytest.raises(InvalidValue, match="escapes; send multipart/form-data"):
        await read_urlencoded(aiter(Chunks(data + escape, 100_000)), max_bytes=10**7)


async def test_files_that_are_not_kept_need_no_room_and_text_does() -> None:
    size_bytes = HELD_MAX_BYTES + 1_000_000
    for file, refused in (('; filename="a"', False), ("", True)):
        head = f'--X\r\nContent-Disposition: form-data; name="input_reference"{file}\r\n\r\n'.encode()
        pieces = (head, *[b"x" * 1_000_000] * (size_bytes // 1_000_000), b"\r\n--X--\r\n")
        with pytest.raises(Overloaded) if refused else contextlib.nullcontext():
            await read_multipart("X", _each(*pieces), max_bytes=2 * size_bytes)


async def _each(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def test_an_urlencoded_body_over_the_limit_is_left_unread() -> None:
    body = Chunks(b"a=" + b"x" * 1000, 10)

    with pytest.raises(PayloadTooLarge):
        await read_urlencoded(aiter(body), max_bytes=95)

    assert body.read == 10


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (PNG[:32], "png"),
        (b"\xff\xd8\xff\xe0", "jpeg"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "webp"),
        (b"RIFF\0\0\0\0WAVEfmt ", "wav"),
        (b"GIF89a", "gif"),
        (b"\0\0\0\x20ftypisom", "mp4"),
        (b"\0\0\0\x14ftypqt  ", "mov"),
        (b"\0\0\0\x14ftypheic", "heic"),
        (b"\0\0\0\x14ftypavif", "avif"),
        (b"\x1aE\xdf\xa3", "webm"),
        (b"ID3\x04", "mp3"),
        (b"\xff\xfb\x90", "mp3"),
        (b"%PDF", None),
        (b"", None),
    ],
)
def test_a_file_is_what_its_first_bytes_say(head: bytes, kind: str | None) -> None:
    assert sniff(head) == kind


_NAMES = st.text(alphabet="ab[]0_", max_size=10) | st.text(max_size=6)


@given(st.lists(st.tuples(_NAMES, st.text(max_size=8)), max_size=12))
def test_any_names_are_nested_or_refused(names: list[tuple[str, str]]) -> None:
    with contextlib.suppress(RequestError):
        coerce(nest(names), Shape)


_PIECES = st.sampled_from([b"--X", b"--", b"\r\n", b"\n", part("a[]", "1"), part("b", PNG, filename="f"), b"X", b"\0"])


@given(st.lists(_PIECES | st.binary(max_size=20), max_size=12), st.integers(1, 40))
async def test_any_bytes_are_a_form_or_refused(pieces: list[bytes], step: int) -> None:
    data = b"".join(pieces)
    with contextlib.suppress(RequestError):
        await read_multipart("X", aiter(Chunks(data, step)), max_bytes=500)
    with contextlib.suppress(RequestError):
        await read_urlencoded(aiter(Chunks(data, step)), max_bytes=500)
