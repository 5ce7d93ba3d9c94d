"""JSON text to Structs, every mistake named by its field."""

import difflib
import re
from collections.abc import AsyncIterator, Iterable
from typing import Any, Self, TypeVar

import msgspec

from proxy.core.errors import (
    InvalidType,
    InvalidValue,
    MissingParameter,
    Overloaded,
    PayloadTooLarge,
    RequestError,
    UnknownParameter,
)

T = TypeVar("T")

MAX_JSON_PARTS = 100_000
"""
Strings, members and items of a JSON text, counted by the marks that begin or part them.

What is large by right is a data URL, one part of many megabytes; a text of a million parts would be decoded for
seconds, in which nobody else is served.
"""

_SHOWN_CHARS = 64
"""What a stranger invented is repeated to him no longer than this."""


HELD_MAX_BYTES = 256 * 1024 * 1024
"""Of all bodies that are being read, together."""
UNCOUNTED_BYTES = 64 * 1024
"""Of each of them: as much as the server keeps of it anyway. So small requests are read whoever fills the rest."""


class Hold:
    """What this process keeps of a body until it is decoded; given back at the end of the block, however that comes."""

    _all_bytes = 0
    """Of every hold in the process, beyond what is not counted."""

    def __init__(self) -> None:
        self._bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bytes > UNCOUNTED_BYTES:
            Hold._all_bytes -= self._bytes - UNCOUNTED_BYTES
        self._bytes = 0

    def take(self, size_bytes: int) -> None:
        """Raises Overloaded where all bodies together would be too much."""
        held_bytes = self._bytes + size_bytes
        if held_bytes > UNCOUNTED_BYTES:
            more = held_bytes - max(self._bytes, UNCOUNTED_BYTES)
            if Hold._all_bytes + more > HELD_MAX_BYTES:
                raise Overloaded("Too many large requests are being read at this moment.")
            Hold._all_bytes += more
        self._bytes = held_bytes


class Meter:
    """Counts a body while it is read. Raises PayloadTooLarge at the first chunk beyond `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._read_bytes = 0

    def count(self, chunk: bytes) -> None:
        self._read_bytes += len(chunk)
        if self._read_bytes > self._max_bytes:
            raise _too_large(self._max_bytes)


def refuse_unknown(names: Iterable[str], good: tuple[str, ...]) -> None:
    """A misspelt name would otherwise tell of more, or of another time, than was asked for. Raises UnknownParameter."""
    for name in names:
        if name not in good:
            raise unknown_parameter(name, good)


def limit_of(text: str | None, usual: int, most: int) -> int:
    """How many items are asked for. Raises InvalidValue."""
    if text is None:
        return usual
    if not re.fullmatch("[0-9]{1,6}", text) or not 0 < int(text) <= most:
        raise InvalidValue(f"'limit' must be a whole number from 1 to {most}.", param="limit")
    return int(text)


def refuse_length(announced: str | None, *, max_bytes: int) -> None:
    """Raises PayloadTooLarge for a Content-Length beyond `max_bytes`, before anything of the body is read."""
    if announced is not None and announced.isdecimal() and int(announced[:20]) > max_bytes:
        raise _too_large(max_bytes)


def _too_large(max_bytes: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The body is larger than the {max_bytes} bytes that are accepted here.")


async def collect(body: AsyncIterator[bytes], hold: Hold, *, max_bytes: int) -> bytes:
    """The whole body. Raises PayloadTooLarge or Overloaded without reading on."""
    meter, chunks = Meter(max_bytes), []
    async for chunk in body:
        meter.count(chunk)
        hold.take(len(chunk))
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def read_json(body: AsyncIterator[bytes], shape: type[T], *, max_bytes: int) -> T:
    """A JSON body as `shape`. Raises RequestError for what the client sent, Overloaded where there is no room."""
    with Hold() as hold:
        data = await collect(body, hold, max_bytes=max_bytes)
        value = decode(data, shape)
        if b"\\u0000" in data:
            refuse_nul(msgspec.to_builtins(value))
    return value


def refuse_nul(node: Any, where: str = "") -> None:
    """A text with a NUL in it cannot be stored by PostgreSQL, and means nothing to anybody."""
    if isinstance(node, str) and "\0" in node:
        raise InvalidValue(f"{where!r} contains a NUL character.", param=where)
    if isinstance(node, dict):
        for key, value in node.items():
            refuse_nul(key, where)
            refuse_nul(value, f"{where}.{key}" if where else key)
    if isinstance(node, list | tuple):
        for no, item in enumerate(node):
            refuse_nul(item, f"{where}[{no}]")


def decode(data: bytes, shape: type[T], *, param: str | None = None) -> T:
    """
    JSON text as `shape`.

    `param` is the field in which the text stood, None for the body itself. Raises InvalidValue for text
    that is no JSON, or has more than MAX_JSON_PARTS; InvalidType, MissingParameter, UnknownParameter or
    InvalidValue where it does not fit.
    """
    if len(data) > MAX_JSON_PARTS and _has_too_many_parts(data):
        where = f"The text in {param!r}" if param else "The body"
        raise InvalidValue(f"{where} has more than {MAX_JSON_PARTS} JSON strings, members and items.", param=param)
    try:
        return msgspec.json.decode(data, type=shape)
    except msgspec.ValidationError as exc:
        raise _misfit(str(exc), data, shape, param) from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise _broken(exc, data, param) from exc


def _has_too_many_parts(data: bytes) -> bool:
    """From mark to mark, for that is ten times as quick as to count them where a part is large."""
    left = MAX_JSON_PARTS
    for mark in (b'"', b",", b"[", b"{"):
        at = data.find(mark)
        while at >= 0:
            left -= 1
            if left < 0:
                return True
            at = data.find(mark, at + 1)
    return False


def decode_members(data: bytes, *, param: str | None = None) -> dict[str, msgspec.Raw]:
    """The members of a JSON object, each still as its own text, so that no number loses a digit."""
    return decode(data, dict[str, msgspec.Raw], param=param)


def unknown_parameter(name: str, good: Iterable[str], *, inside: str | None = None) -> UnknownParameter:
    """The refusal of a name that nobody knows, with the nearest one that is known."""
    shown = name[:_SHOWN_CHARS]
    param = f"{inside}.{shown}" if inside else shown
    near = difflib.get_close_matches(shown, good, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UnknownParameter(f"Unknown parameter: {param!r}.{hint}", param=param)


def _broken(exc: Exception, data: bytes, param: str | None) -> InvalidValue:
    where = f"The text in {param!r}" if param else "The body"
    if not data.strip():
        return InvalidValue(f"{where} is empty; JSON is expected.", param=param)
    if isinstance(exc, UnicodeDecodeError):
        return InvalidValue(f"{where} is not valid UTF-8.", param=param)
    if isinstance(exc, RecursionError):
        return InvalidValue(f"{where} is nested too deeply.", param=param)
    reason = str(exc).removeprefix("JSON is malformed: ")
    return InvalidValue(f"{where} is not valid JSON: {reason}.", param=param)


_TYPES = re.compile(r"Expected `(?P<wanted>[^`]+)`, got `(?P<given>[^`]+)`")
_FIELD = re.compile(r"Object (?P<fault>contains unknown|missing required) field `(?P<name>.*)`", re.DOTALL)
_WORDS = {
    "array": "an array",
    "bool": "true or false",
    "decimal": "a decimal number",
    "float": "a decimal number",
    "int": "an integer",
    "null": "null",
    "object": "an object",
    "str": "a string",
}


def _misfit(message: str, data: bytes, shape: Any, param: str | None) -> RequestError:
    """The decoder's complaint in our words: its messages have a form that its own tests fix."""
    text, path = _text_and_path(message)
    types = _TYPES.fullmatch(text)
    shown = _odd_member(path, data, types["given"]) if types else path.removesuffix("[...]")
    where = ".".join(part for part in (param, shown) if part) or None
    subject = repr(where) if where else "The body"
    if types:
        return InvalidType(f"{subject} must be {_wanted(types['wanted'])}, not {_word(types['given'])}.", param=where)
    if field := _FIELD.fullmatch(text):
        return _field_fault(field["fault"], field["name"], _kind_at(shape, path), where)
    if text.startswith("Invalid enum value"):
        return InvalidValue(f"{subject} must be one of {_choices(_kind_at(shape, path))}.", param=where)
    return InvalidValue(f"{subject}: {text[:_SHOWN_CHARS]}.", param=where)


def _text_and_path(message: str) -> tuple[str, str]:
    """By searches from the end: a message repeats the client's own names, whatever their length."""
    text, at, path = message.rpartition(" - at `$")
    if at and path.find("`") == len(path) - 1:
        return text, path[:-1].removeprefix(".")
    return message, ""


def _field_fault(fault: str, name: str, kind: msgspec.inspect.Type | None, inside: str | None) -> RequestError:
    if fault == "contains unknown":
        return unknown_parameter(name, _field_names(kind), inside=inside)
    param = f"{inside}.{name}" if inside else name
    return MissingParameter(f"Missing required parameter: {param!r}.", param=param)


def _wanted(types: str) -> str:
    return " or ".join(_word(name) for name in types.split(" | ") if name != "null")


def _word(name: str) -> str:
    return _WORDS.get(name, name)


_TYPE_NAMES = {str: "str", int: "int", float: "float", bool: "bool", type(None): "null", dict: "object", list: "array"}


def _odd_member(path: str, data: bytes, given: str) -> str:
    """`path`; where it ends in a map, which is all that the decoder tells, with the first member of the type given."""
    if not path.endswith("[...]"):
        return path
    path = path.removesuffix("[...]")
    try:
        node = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return path  # The text is broken too, further on than the decoder read.
    for step in path.split(".") if path else ():
        node = node.get(step) if isinstance(node, dict) else None
    members = node.items() if isinstance(node, dict) else ()
    odd = next((key for key, value in members if _TYPE_NAMES[type(value)] == given), None)
    return path if odd is None else f"{path}.{odd[:_SHOWN_CHARS]}".removeprefix(".")


def _kind_at(shape: Any, path: str) -> msgspec.inspect.Type | None:
    """What `shape` expects at a path like `routing.only[1]`; None where it says nothing."""
    kinds = _alternatives(msgspec.inspect.type_info(shape))
    for step in re.findall(r"[^.\[\]]+|(?<=\[)\.\.\.", path):
        kinds = [inner for kind in kinds for inner in _alternatives(_inside(kind, step))]
    return next((kind for kind in kinds if not isinstance(kind, msgspec.inspect.NoneType)), None)


def _alternatives(kind: msgspec.inspect.Type | None) -> list[msgspec.inspect.Type]:
    if kind is None:
        return []
    return list(kind.types) if isinstance(kind, msgspec.inspect.UnionType) else [kind]


def _inside(kind: msgspec.inspect.Type, step: str) -> msgspec.inspect.Type | None:
    if isinstance(kind, msgspec.inspect.StructType):
        return next((field.type for field in kind.fields if field.encode_name == step), None)
    if isinstance(kind, msgspec.inspect.DictType):
        return kind.value_type
    if isinstance(kind, msgspec.inspect.CollectionType | msgspec.inspect.VarTupleType):
        return kind.item_type
    return None


def _field_names(kind: msgspec.inspect.Type | None) -> list[str]:
    return [field.encode_name for field in kind.fields] if isinstance(kind, msgspec.inspect.StructType) else []


def _choices(kind: msgspec.inspect.Type | None) -> str:
    if isinstance(kind, msgspec.inspect.LiteralType):
        return ", ".join(str(value) for value in kind.values)
    return "the permitted values"
