"""The tree speaks of itself alone: nothing of how or where it was written, and no drawer for odds and ends."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("proxy", "tests", "dashboards")
BESIDE_THEM = frozenset(
    {
        "pyproject.toml",
        "Dockerfile",
        "routing_rules.yaml",
        "README.md",
        "Makefile",
        "uv.lock",
        "CHANGELOG.md",
        "LICENSE",
    }
)
MADE_HERE = frozenset({"data", "dist", "demo.mp4"})
"""What serving, building and the demo leave behind; git ignores it."""

DRAWERS = re.compile(r"(?:^|_)(?:utils?|helpers?|common|managers?|misc)(?:_|\.|$)")
NOT_OURS_TO_SAY = re.compile(
    r"(?<![\w.-])/(?:work|root|home/\w+)/"
    r"|\b(?:issue|pull request|ticket) ?#?\d|(?<![\w&/#:])(?<![:] )#\d{1,5}\b"
    r"|\bsessions? \d|\b(?:this|that|earlier|previous|last|next) session\b",
    re.IGNORECASE,
)


def files() -> Iterator[Path]:
    for name in (*ROOMS, *BESIDE_THEM, ".ci", ".github", ".gitignore", ".dockerignore"):
        place = ROOT / name
        inside = sorted(place.rglob("*")) if place.is_dir() else [place]
        yield from (each for each in inside if each.is_file() and "__pycache__" not in each.parts)


def lines_of(path: Path) -> list[str]:
    """None of a film, a picture or a font."""
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        return []


def test_nothing_tells_how_or_where_it_was_written() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in files()
        if path != Path(__file__) and path.name != "uv.lock"
        for number, line in enumerate(lines_of(path), 1)
        if NOT_OURS_TO_SAY.search(line)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "line",
    [
        "see " + "/wo" + "rk/x",
        "issue 12",
        "fixes #12",
        "(#7)",
        "ticket #3",
        "in session 4",
        "an earlier session",
        "/root/x",
    ],
)
def test_word_too_many_is_found(line: str) -> None:
    assert NOT_OURS_TO_SAY.search(line)


@pytest.mark.parametrize(
    "line", ["store/work/x", "#fff", "color: #222", "&#39;", "a session of the pool", "the work", "https://a/work/b"]
)
def test_ordinary_words_are_left_alone(line: str) -> None:
    assert not NOT_OURS_TO_SAY.search(line)


def test_no_file_is_a_drawer_for_odds_and_ends() -> None:
    assert not [str(path.relative_to(ROOT)) for path in files() if DRAWERS.search(path.name)]


def test_top_of_the_tree_holds_what_it_should() -> None:
    here = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    assert here <= {*ROOMS, *BESIDE_THEM, *MADE_HERE}
