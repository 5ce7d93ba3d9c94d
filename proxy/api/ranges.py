"""Which bytes of a file a client wants (RFC 9110, sections 13 and 14): conditions, one range, headers."""

import re
from typing import ClassVar, TypeAlias

import msgspec


class Whole(msgspec.Struct, frozen=True):
    """Everything: no range was asked for, or none that binds us."""

    status: ClassVar[int] = 200


class Part(msgspec.Struct, frozen=True):
    """The bytes from `start` up to and without `end`, both counted from 0; never empty."""

    status: ClassVar[int] = 206

    start: int
    end: int


class Unsatisfiable(msgspec.Struct, frozen=True):
    """A range that lies wholly beyond the file."""

    status: ClassVar[int] = 416


Portion: TypeAlias = Whole | Part | Unsatisfiable

_RANGE = re.compile(r"bytes=[ \t]*([0-9]*)-([0-9]*)[ \t]*", re.IGNORECASE)
_ETAG = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
_BEYOND_ANY_FILE = 10**18


def strong_etag(sha256: str) -> str:
    """The same for the same bytes, and for no others."""
    return f'"{sha256}"'


def parse_range(header: str | None, size: int, if_range: str | None, etag: str) -> Portion:
    """
    What to send of a file of `size` bytes whose strong ETag is `etag`.

    A unit or syntax that we do not know is ignored, as the RFC has it; so are several ranges at once,
    which a server may answer with the whole, and a range whose `If-Range` names another file. A date
    there names another file, for we send none.
    """
    if header is None or (if_range is not None and if_range.strip() != etag):
        return Whole()
    match = _RANGE.fullmatch(header.strip())
    if match is None or match[1] == match[2] == "":
        return Whole()
    if match[1] == "":
        return _suffix(_position(match[2]), size)
    first = _position(match[1])
    last = _position(match[2]) if match[2] else _BEYOND_ANY_FILE
    if last < first:
        return Whole()
    if first >= size:
        return Unsatisfiable()
    return Part(first, min(last + 1, size))


def _suffix(length: int, size: int) -> Portion:
    if length == 0:
        return Unsatisfiable()
    # An empty file has a last part, but Content-Range cannot say so.
    return Part(max(0, size - length), size) if size else Whole()


def _position(digits: str) -> int:
    """The number, or one beyond any file where it is too long to be worth reading."""
    significant = digits.lstrip("0")
    return int(significant or "0") if len(significant) <= 18 else _BEYOND_ANY_FILE


def not_modified(if_none_match: str | None, etag: str) -> bool:
    """Whether the client holds this very file already, so that 304 is the answer; a `W/` does not matter here."""
    if if_none_match is None:
        return False
    if if_none_match.strip() == "*":
        return True
    return any(f'"{match[2]}"' == etag for match in _ETAG.finditer(if_none_match))


def content_headers(
    portion: Portion, *, size: int, etag: str, media_type: str, filename: str | None = None
) -> dict[str, str]:
    """
    Headers of the answer with `portion.status`, names in lower case.

    `filename` is ours, plain ASCII without quotes. Nothing here may be compressed on its way: a
    range of something compressed is useless, hence `no-transform`.
    """
    headers = {"accept-ranges": "bytes", "etag": etag, "cache-control": "private, no-transform"}
    if isinstance(portion, Unsatisfiable):
        return headers | {"content-range": f"bytes */{size}"}
    headers["content-type"] = media_type
    if filename is not None:
        headers["content-disposition"] = f'inline; filename="{filename}"'
    if isinstance(portion, Whole):
        return headers | {"content-length": str(size)}
    return headers | {
        "content-range": f"bytes {portion.start}-{portion.end - 1}/{size}",
        "content-length": str(portion.end - portion.start),
    }
