"""Sellers are named where their wires are spoken, and nowhere else."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PROXY = Path(__file__).parents[2] / "proxy"
ROOMS_THAT_MAY = {"providers", "simulator", "catalog"}
# Hosts and keys hold the names too: queue.fal.run, FAL_KEY, api.runflow.io. A letter beside `fal` makes
# another word of it, an underscore or a dot does not.
NAMES = re.compile(r"(?<![a-z])fal(?![a-z])|runflow|shortapi|evolink", re.IGNORECASE)


def files(root: Path) -> Iterator[Path]:
    """Those in the rooms that may name nobody."""
    for path in sorted(root.rglob("*")):
        parts = path.relative_to(root).parts
        if path.is_file() and parts[0] not in ROOMS_THAT_MAY and "__pycache__" not in parts:
            yield path


def lines_of(path: Path) -> list[str]:
    """No line for a picture or a film, whose bytes may spell anything."""
    data = path.read_bytes()
    try:
        return [] if b"\0" in data else data.decode().splitlines()
    except UnicodeDecodeError:
        return []


def mentions(root: Path) -> list[str]:
    """`file:line: text` of each line that names a seller; a file's own name counts as line 0."""
    found = []
    for path in files(root):
        place = path.relative_to(root.parent)
        if NAMES.search(path.name):
            found.append(f"{place}:0: {path.name}")
        numbered = enumerate(lines_of(path), 1)
        found += [f"{place}:{number}: {line.strip()}" for number, line in numbered if NAMES.search(line)]
    return found


def test_no_room_but_the_sellers_own_names_a_seller() -> None:
    found = mentions(PROXY)
    assert not found, "sellers are named outside their rooms:\n" + "\n".join(found)


def test_search_looks_at_the_rooms_it_should() -> None:
    rooms = {path.relative_to(PROXY).parts[0] for path in files(PROXY)}
    assert {"core", "policy"} <= rooms
    assert not rooms & ROOMS_THAT_MAY


@pytest.mark.parametrize(
    "line",
    [
        "if name == 'fal':",
        "# fal's queue",
        "FAL_KEY",
        "https://queue.fal.run",
        "fal_client",
        "RunFlow",
        "EVOLINK_API_KEY",
    ],
)
def test_seller_is_found_in_any_dress(line: str) -> None:
    assert NAMES.search(line)


@pytest.mark.parametrize("line", ["fallback", "false", "it falls", "default", "OFFAL", "a flow that runs", "short API"])
def test_ordinary_words_are_left_alone(line: str) -> None:
    assert not NAMES.search(line)


def test_each_mention_is_reported_with_its_file_and_line(tmp_path: Path) -> None:
    root = tmp_path / "proxy"
    for room in ("core", "providers"):
        (root / room).mkdir(parents=True)
        (root / room / "evolink.txt").write_text("quiet\nask fal first\n")
        (root / room / "film.mp4").write_bytes(b"\0\nfal\n")
        (root / room / "font.bin").write_bytes(b"\xff\nfal\n")
    assert mentions(root) == ["proxy/core/evolink.txt:0: evolink.txt", "proxy/core/evolink.txt:2: ask fal first"]
