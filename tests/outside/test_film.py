"""What counts as a film, and how it is measured."""

import contextlib
import io
import random
from pathlib import Path

import pytest

from proxy.outside.film import Measured, NotAFilm, begins_like_a_film, measure
from tests.outside.films import make_film, make_sound


def test_film_is_measured_by_its_picture() -> None:
    film = make_film(seconds=2, width_px=128, height_px=64)
    assert begins_like_a_film(film)
    assert measure(io.BytesIO(film)) == Measured(duration_ms=2042, width_px=128, height_px=64, has_audio=True)


def test_silent_film_has_no_audio() -> None:
    assert not measure(io.BytesIO(make_film(audio=False))).has_audio


def test_film_is_measured_from_a_path(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    path.write_bytes(make_film())
    assert measure(str(path)).duration_ms == 1042


def test_film_that_breaks_off_is_no_film() -> None:
    film = make_film(moov_first=True)
    for end in range(0, len(film), 29):
        with pytest.raises(NotAFilm):
            measure(io.BytesIO(film[:end]))


def test_film_that_breaks_off_before_its_tables_is_no_film() -> None:
    film = make_film()
    for end in range(0, film.index(b"moov"), 29):
        with pytest.raises(NotAFilm):
            measure(io.BytesIO(film[:end]))


def test_broken_bytes_raise_nothing_else() -> None:
    film = make_film(moov_first=True)
    chance = random.Random(1)
    for _ in range(300):
        broken = bytearray(film)
        for _ in range(20):
            broken[chance.randrange(len(broken))] = chance.randrange(256)
        with contextlib.suppress(NotAFilm):
            measure(io.BytesIO(bytes(broken)))


@pytest.mark.parametrize("content", [b"", b"<!doctype html><title>404</title>", b'{"error":"expired"}' * 100])
def test_page_is_no_film(content: bytes) -> None:
    assert not begins_like_a_film(content)
    with pytest.raises(NotAFilm):
        measure(io.BytesIO(content))


def test_sound_alone_is_no_film() -> None:
    with pytest.raises(NotAFilm):
        measure(io.BytesIO(make_sound()))


def test_playlist_is_not_followed(tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    film.write_bytes(make_film())
    listing = tmp_path / "list.mp4"
    listing.write_text(f"ffconcat version 1.0\nfile {film.name}\n")
    with pytest.raises(NotAFilm):
        measure(str(listing))


def test_missing_file_is_not_called_a_bad_film(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        measure(str(tmp_path / "none.mp4"))
