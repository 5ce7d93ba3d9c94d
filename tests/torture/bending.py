"""What is nearly right: trees, bytes and films with a few things bent, by dice that can be thrown again."""

import random
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from tests.outside.films import make_film

_DEEP: Any = "deep"
for _ in range(150):
    _DEEP = [_DEEP]
ODD: list[Any] = [
    None, True, False, 0, -1, 1, 5, 0.1, -0.5, 1e300, 2**31, 2**63, 2**64, -(2**63) - 1, 10**40, "", " ", "0", "-1",
    "1e999", "1e-999", "0x10", "1_000", "NaN", "Infinity", "0.1234567", "9" * 12, "\0", "a\nb", "ÿ\u2028\U0001f98a",
    "x" * 5_000, "2026-02-30", "16:9", "on", "auto", "https://[", "${FAL_KEY}", "${NOBODY}", [], {}, [[]], {"": None},
    {"a": [1, {"b": 2}]}, _DEEP,
]  # fmt: skip


def _places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    keys = tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        yield from _places(tree[key], (*path, key))


def bent(tree: Any, dice: random.Random) -> Any:
    """The tree with one to three things that are missing, doubled, renamed, moved, or something else."""
    for _ in range(dice.randint(1, 3)):
        tree = _bent_at(tree, dice.choice(list(_places(tree))), dice)
    return tree


def _bent_at(tree: Any, path: tuple[Any, ...], dice: random.Random) -> Any:
    if path:
        key, *rest = path
        changed = tree.copy()
        if rest or dice.random() < 0.5:
            changed[key] = _bent_at(tree[key], tuple(rest), dice)
            return changed
        value = changed.pop(key)
        what = dice.random()
        if what < 0.3:
            return changed
        if isinstance(changed, list):
            return [*changed, value, value] if what < 0.6 else [*changed, dice.choice(ODD)]
        changed[str(dice.choice(ODD)) if what < 0.6 else f"{key}x"] = value
        return changed
    numeral = isinstance(tree, int | float) and not isinstance(tree, bool)
    ways: list[Any] = [dice.choice(ODD), [tree], {"value": tree}, str(tree)]
    return dice.choice([*ways, -tree, tree * 10**9] if numeral else ways)


def torn(data: bytes, dice: random.Random) -> bytes:
    """Bytes with one to three pieces that are cut out, doubled, overwritten or put in."""
    for _ in range(dice.randint(1, 3)):
        begin = dice.randrange(len(data) + 1)
        end = min(len(data), begin + dice.choice([0, 1, 1, 4, 40]))
        piece = dice.choice([b"", data[begin:end] * 2, dice.randbytes(end - begin), dice.choice(SCRAPS)])
        data = data[:begin] + piece + data[end:]
    return data


SCRAPS = [
    *(
        b"\0",
        b"\xff",
        b"\xed\xa0\x80",
        b"\xef\xbb\xbf",
        b"\\u0000",
        b"\\ud800",
        b"\r\n",
        b"\x85",
        b"\xe2\x80\xa8",
        b"\t",
    ),
    *(b"&a ", b"*a", b"<<: *a", b"!!python/name:os.system ", b"!!binary ", b"!x:null ", b"%YAML 9.9\n---\n", b"---\n"),
    *(b"? ", b"- - - ", b"{", b"}", b"[", b"]", b"'", b'"', b"|\n", b">", b"@", b"`", b"#", b": ", b",", b"...\n"),
    *(b"-", b"--X", b"--X--\r\n", b"%00", b"%ff", b"&", b"=", b"1e999", b"9" * 5000, b"[" * 1500, b"- " * 3000),
]


_BOX = re.compile(
    rb"moov|mdat|trak|mdia|minf|stbl|stts|stsz|stsc|stco|ctts|stss|mvhd|tkhd|mdhd|elst|edts|hdlr|stsd|avc1|ftyp|free"
)
_NUMBERS = [number.to_bytes(4, "big") for number in (0, 1, 8, 2**20, 2**31 - 1, 2**31, 2**32 - 1)]


@cache
def _films() -> tuple[bytes, ...]:
    return make_film(moov_first=True), make_film(audio=False, moov_first=True), make_film(audio=False)


def bent_film(dice: random.Random) -> bytes:
    """One whose boxes are of another size or kind, stand inside themselves, or name other numbers."""
    film = dice.choice(_films())
    for _ in range(dice.randint(1, 4)):
        boxes = list(_BOX.finditer(film))
        if not boxes or dice.random() < 0.2:
            return torn(film, dice)
        box = dice.choice(boxes)
        at = box.start()
        way = dice.random()
        if way < 0.3:
            film = film[: at - 4] + dice.choice(_NUMBERS) + film[at:]
        elif way < 0.7:
            field = at + 4 + 4 * dice.randrange(8)
            film = film[:field] + dice.choice(_NUMBERS) + film[field + 4 :]
        elif way < 0.8:
            film = film[:at] + dice.choice(boxes)[0] + film[at + 4 :]
        elif way < 0.9:
            size = int.from_bytes(film[at - 4 : at], "big")
            film = film[: at - 4] + film[at - 4 : at - 4 + size] * dice.choice([2, 2, 50]) + film[at - 4 + size :]
        else:
            nested = (dice.choice(_NUMBERS) + box[0]) * 2_000
            film = film[: at - 4] + nested + film[at - 4 :]
    return film
