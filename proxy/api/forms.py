"""
Form bodies to nested fields: multipart, read as a stream, and urlencoded.

A form has text and files, no types. `nest` gives it the structure that the brackets in its names
spell, `coerce` the types of the Struct that it stands for; after that it is a JSON document like any
other.
"""

import functools
import hashlib
import re
from collections.abc import AsyncIterator, Iterable
from typing import Any, Literal, TypeAlias
from urllib.parse import parse_qsl

import msgspec
from msgspec import inspect
from multipart import MultipartError, MultipartSegment, ParserError, PushMultipartParser

from proxy.api.documents import Hold, Meter, collect, decode
from proxy.core.errors import InvalidType, InvalidValue

MAX_PARTS = 200
MAX_NAME_CHARS = 256
MAX_BRACKETS = 5
MAX_TEXT_BYTES = 1 << 20
"""Of all text together; what stands in a file field, a data URL perhaps, is bounded by the body alone."""

FILE_FIELDS = frozenset(
    {"input_reference", "end_image", "reference_images", "reference_videos", "reference_audios", "video"}
)

MAX_ESCAPES = 200_000
"""Of an urlencoded form: each takes a microsecond. The longest prompt has less, a large data URL more."""

_FORBIDDEN_NAMES = frozenset({"__proto__", "constructor", "prototype"})
_NAME = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")
_HEAD_BYTES = 32

FileKind = Literal["png", "jpeg", "webp", "gif", "heic", "avif", "mp4", "mov", "webm", "mp3", "wav"]


class UploadedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file part; its bytes were counted and hashed, and not kept."""

    field: str
    """The part's whole name, brackets included."""
    filename: str | None
    size_bytes: int
    sha256: str
    kind: FileKind | None
    """By its first bytes, whatever the part declared; None: not known."""


Leaf: TypeAlias = str | UploadedFile
Node: TypeAlias = "str | UploadedFile | list[Node] | dict[str, Node]"
_Path: TypeAlias = tuple[str, ...]


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """A form body, nested but not yet typed."""

    fields: dict[str, Node]
    files: tuple[UploadedFile, ...] = ()


async def read_multipart(boundary: str, body: AsyncIterator[bytes], *, max_bytes: int) -> Form:
    """Raises PayloadTooLarge without reading on, InvalidValue for a body that is broken or out of bounds."""
    with Hold() as hold:
        meter, parts = Meter(max_bytes), _Parts(hold)
        try:
            parser = _Parser(boundary, max_segment_count=MAX_PARTS)
            async for chunk in _from_its_boundary(boundary, body, meter):
                parts.take(parser.parse(chunk))
            parser.close()
        except MultipartError as exc:
            raise InvalidValue(f"The multipart body cannot be read: {exc.args[0]}.") from exc
    return Form(fields=nest(parts.leaves), files=tuple(leaf for _, leaf in parts.leaves if not isinstance(leaf, str)))


async def _from_its_boundary(boundary: str, body: AsyncIterator[bytes], meter: Meter) -> AsyncIterator[bytes]:
    """
    The body in chunks that are not empty, the first of which holds the whole first boundary.

    Nothing may stand before that, which no client of ours sends: whether the parser takes it as the end of
    a preamble depends on how the network cuts the body.
    """
    begins, held = f"\r\n--{boundary}".encode(), b""
    async for chunk in body:
        meter.count(chunk)
        held += chunk
        if begins and len(held) >= len(begins):
            if not held.startswith((begins, begins[2:])):
                raise InvalidValue("The multipart body cannot be read: it does not begin with its boundary.")
            begins = b""
        if held and not begins:
            yield held
            held = b""
    if held:
        yield held


async def read_urlencoded(body: AsyncIterator[bytes], *, max_bytes: int) -> Form:
    """Raises PayloadTooLarge without reading on, InvalidValue for a body that is broken or out of bounds."""
    with Hold() as hold:
        return _urlencoded(await collect(body, hold, max_bytes=max_bytes))


def _urlencoded(data: bytes) -> Form:
    if data.lstrip()[:1] == b"{":
        raise InvalidValue("The body looks like JSON, but Content-Type says it is a form; send application/json.")
    if data.count(b"&") >= MAX_PARTS:
        raise InvalidValue(f"The form has more than {MAX_PARTS} fields.")
    if data.count(b"%") + data.count(b"+") > MAX_ESCAPES:
        raise InvalidValue(
            f"The form has more than {MAX_ESCAPES} escapes; send multipart/form-data or application/json."
        )
    try:
        pairs = parse_qsl(data.decode(), keep_blank_values=True, errors="strict")
    except UnicodeDecodeError as exc:
        raise InvalidValue("The form is not valid UTF-8.") from exc
    budget = _TextBudget()
    for name, text in pairs:
        budget.spend(name, len(text.encode()))
    return Form(fields=nest(pairs))


class _Parser(PushMultipartParser):  # type: ignore[misc]  # the library has no types
    """The library's own looks for a stray line feed, and at the length, only where the network cut a header."""

    def _on_segment_headerline(self, line: bytes) -> None:
        if b"\n" in line:
            raise ParserError("Invalid line break in segment header")
        if len(line) >= self.max_header_size:
            raise ParserError("Maximum segment header length exceeded")
        super()._on_segment_headerline(line)


class _TextBudget:
    def __init__(self) -> None:
        self._left_bytes = MAX_TEXT_BYTES

    def spend(self, name: str, size_bytes: int) -> None:
        if _base(name) in FILE_FIELDS:
            return
        self._left_bytes -= size_bytes
        if self._left_bytes < 0:
            raise InvalidValue(f"The form has more than {MAX_TEXT_BYTES} bytes of text.", param=_shown(name))


class _Parts:
    """Turns the parser's events into leaves: text is kept, files are hashed as they pass."""

    def __init__(self, hold: Hold) -> None:
        self._hold = hold
        self.leaves: list[tuple[str, Leaf]] = []
        self._budget = _TextBudget()
        self._segment: MultipartSegment | None = None
        self._text: list[bytes] | None = None
        self._digest = hashlib.sha256()
        self._head = b""

    def take(self, events: Iterable[MultipartSegment | bytes | None]) -> None:
        for event in events:
            if event is None:
                self._end()
            elif isinstance(event, bytes):
                self._grow(event)
            else:
                self._begin(event)

    def _begin(self, segment: MultipartSegment) -> None:
        self._segment = segment
        self._text = None if _is_file(segment) else []
        self._digest, self._head = hashlib.sha256(), b""

    def _grow(self, data: bytes) -> None:
        assert self._segment is not None, "the parser names a part before it gives its bytes"
        if self._text is not None:
            self._budget.spend(self._segment.name, len(data))
            self._hold.take(len(data))
            self._text.append(data)
            return
        self._digest.update(data)
        if len(self._head) < _HEAD_BYTES:
            self._head += data[:_HEAD_BYTES]

    def _end(self) -> None:
        segment = self._segment
        assert segment is not None, "the parser names a part before it ends it"
        if self._text is not None:
            self.leaves.append((segment.name, _part_text(segment, b"".join(self._text))))
        elif segment.filename or segment.size:  # A browser sends an empty one where no file was chosen.
            self.leaves.append((segment.name, self._file(segment)))

    def _file(self, segment: MultipartSegment) -> UploadedFile:
        return UploadedFile(
            field=segment.name,
            filename=segment.filename or None,
            size_bytes=segment.size,
            sha256=self._digest.hexdigest(),
            kind=sniff(self._head),
        )


def _is_file(segment: MultipartSegment) -> bool:
    """
    Whether a part is a file: it has a file's name, or stands in a file field and is no text.

    Ruby's SDK gives an in-memory file no name, and writes text/plain on every scalar.
    """
    if segment.filename is not None:
        return True
    declared = segment.content_type
    return _base(segment.name) in FILE_FIELDS and declared is not None and not declared.startswith("text/")


def _part_text(segment: MultipartSegment, data: bytes) -> str:
    param = _shown(segment.name)
    if (segment.charset or "utf-8").lower() not in {"utf-8", "utf8", "us-ascii", "ascii"}:
        raise InvalidValue(f"The part {param!r} must be UTF-8.", param=param)
    try:
        return data.decode()
    except UnicodeDecodeError as exc:
        raise InvalidValue(f"The part {param!r} is not valid UTF-8.", param=param) from exc


_SIGNATURES: tuple[tuple[int, bytes, FileKind], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "png"),
    (0, b"\xff\xd8\xff", "jpeg"),
    (0, b"GIF8", "gif"),
    (8, b"WEBP", "webp"),
    (8, b"WAVE", "wav"),
    (4, b"ftypqt  ", "mov"),
    (4, b"ftypheic", "heic"),
    (4, b"ftypmif1", "heic"),
    (4, b"ftypavif", "avif"),
    (4, b"ftyp", "mp4"),
    (0, b"\x1aE\xdf\xa3", "webm"),
    (0, b"ID3", "mp3"),
    (0, b"\xff\xfb", "mp3"),
)


def sniff(head: bytes) -> FileKind | None:
    """What a file is, by its first 32 bytes: SDKs declare octet-stream for whatever they are given."""
    return next((kind for at, magic, kind in _SIGNATURES if head[at : at + len(magic)] == magic), None)


def nest(leaves: Iterable[tuple[str, Leaf]]) -> dict[str, Node]:
    """
    Flat names to the structure that they spell.

    `a[b]` is a member, `a[]` appends, a repeated name is a list, `a[][b]` are columns that make a list
    of objects. `a[0]` stays a member named "0" until `coerce` knows what `a` is. Raises InvalidValue
    for names out of bounds and for those that contradict each other.
    """
    branches: dict[str, list[tuple[_Path, Leaf]]] = {}
    for name, leaf in leaves:
        base, *path = _steps(name)
        branches.setdefault(base, []).append((tuple(path), leaf))
    return {base: _grow(base, branch) for base, branch in branches.items()}


def _steps(name: str) -> list[str]:
    param = _shown(name)
    if len(name) > MAX_NAME_CHARS:
        raise InvalidValue(f"A field name is longer than {MAX_NAME_CHARS} characters.", param=param)
    match = _NAME.fullmatch(name)
    if match is None or not name.isprintable():
        raise InvalidValue(f"{param!r} is no field name: its brackets do not match, or it is empty.", param=param)
    steps = [match[1], *match[2][1:-1].split("][")] if match[2] else [match[1]]
    if len(steps) > MAX_BRACKETS + 1:
        raise InvalidValue(f"{param!r} has more than {MAX_BRACKETS} brackets.", param=param)
    if not _FORBIDDEN_NAMES.isdisjoint(steps):
        raise InvalidValue(f"{param!r} is not a permitted name.", param=param)
    return steps


def _grow(where: str, branch: list[tuple[_Path, Leaf]]) -> Node:
    kinds = {"value" if not path else "member" if path[0] else "item" for path, _ in branch}
    if len(kinds) > 1:
        raise InvalidValue(f"{where!r} is given in ways that contradict each other.", param=where)
    if kinds == {"value"}:
        return branch[0][1] if len(branch) == 1 else [leaf for _, leaf in branch]
    if kinds == {"item"}:
        return _items(where, [(path[1:], leaf) for path, leaf in branch])
    members: dict[str, list[tuple[_Path, Leaf]]] = {}
    for path, leaf in branch:
        members.setdefault(path[0], []).append((path[1:], leaf))
    return {key: _grow(f"{where}.{key}", member) for key, member in members.items()}


def _items(where: str, branch: list[tuple[_Path, Leaf]]) -> Node:
    """A list; of objects, the columns are zipped, for SDKs differ in whether rows or columns come first."""
    if not any(path for path, _ in branch):
        return [leaf for _, leaf in branch]
    columns: dict[_Path, list[Leaf]] = {}
    for path, leaf in branch:
        columns.setdefault(path, []).append(leaf)
    lengths = {len(column) for column in columns.values()}
    if len(lengths) > 1 or any(not path or "" in path for path in columns):
        raise InvalidValue(
            f"The items of {where!r} cannot be told apart; send the list as JSON text in one field.", param=where
        )
    return [_grow(f"{where}[{no}]", [(path, c[no]) for path, c in columns.items()]) for no in range(lengths.pop())]


def coerce(fields: dict[str, Node], shape: type[msgspec.Struct]) -> dict[str, Any]:
    """
    The JSON document that a form stands for, by the types of `shape`; unknown fields as they are.

    Text that does not fit stays text, for the decoder to name. Raises InvalidType for a file where text
    is expected, InvalidValue for a value that is given twice and for broken JSON text.
    """
    return {name: _value(name, node, _kinds_of(shape).get(name, inspect.AnyType())) for name, node in fields.items()}


def items_of(node: Node) -> list[Node] | None:
    """A list, or an object whose names count from 0 without a gap; None for anything else."""
    if isinstance(node, list):
        return node
    if not isinstance(node, dict) or set(node) != {str(no) for no in range(len(node))}:
        return None
    return [node[str(no)] for no in range(len(node))]


@functools.cache
def _kinds_of(shape: type[msgspec.Struct]) -> dict[str, inspect.Type]:
    kind = inspect.type_info(shape)
    assert isinstance(kind, inspect.StructType), "forms stand for objects"
    return _members(kind)


def _members(kind: inspect.StructType) -> dict[str, inspect.Type]:
    return {field.encode_name: field.type for field in kind.fields}


def _value(where: str, node: Node, kind: inspect.Type) -> Any:
    kinds = kind.types if isinstance(kind, inspect.UnionType) else (kind,)
    if isinstance(node, UploadedFile):
        raise InvalidType(f"{where!r} must be text, not a file.", param=where)
    if isinstance(node, str):
        return _text(where, node, kinds)
    collection = _first(kinds, inspect.CollectionType)
    items = items_of(node)
    if items is not None and (collection is not None or isinstance(kind, inspect.AnyType)):
        inner = collection.item_type if collection else kind
        return [_value(f"{where}[{no}]", item, inner) for no, item in enumerate(items)]
    if isinstance(node, list):
        raise InvalidValue(f"{where!r} is given more than once.", param=where)
    known, every = _member_kinds(kinds)
    return {key: _value(f"{where}.{key}", item, known.get(key, every)) for key, item in node.items()}


def _member_kinds(kinds: tuple[inspect.Type, ...]) -> tuple[dict[str, inspect.Type], inspect.Type]:
    """Types of an object's members by name, and of those without a name of their own."""
    if struct := _first(kinds, inspect.StructType):
        return _members(struct), inspect.AnyType()
    mapping = _first(kinds, inspect.DictType)
    return {}, mapping.value_type if mapping else inspect.AnyType()


def _text(where: str, text: str, kinds: tuple[inspect.Type, ...]) -> Any:
    """Text by its target's type; a text-typed field is never read as anything else, JSON least of all."""
    if _first(kinds, inspect.StrType):
        return text
    collection = _first(kinds, inspect.CollectionType)
    structured = collection or _first(kinds, inspect.StructType) or _first(kinds, inspect.DictType)
    if structured and text.lstrip()[:1] in {"{", "["}:
        return decode(text.encode(), msgspec.Raw, param=where)
    if collection:
        return [_value(f"{where}[0]", text, collection.item_type)]
    if _first(kinds, inspect.BoolType):
        return {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)
    if _first(kinds, inspect.IntType) and re.fullmatch(r"-?[0-9]{1,30}", text):
        return int(text)
    return text


def _first(kinds: tuple[inspect.Type, ...], wanted: Any) -> Any:
    return next((kind for kind in kinds if isinstance(kind, wanted)), None)


def _base(name: str) -> str:
    return name.partition("[")[0]


def _shown(name: str) -> str:
    return name[:64]
