"""Small films that really play."""

import tempfile
from pathlib import Path
from typing import Any

import av


def make_film(
    *, seconds: int = 1, width_px: int = 64, height_px: int = 48, audio: bool = True, moov_first: bool = False
) -> bytes:
    """An MP4 of black pictures, 24 a second and one more as the sellers' are, and silence where asked."""
    with tempfile.TemporaryDirectory() as folder:
        # Moving the tables to the front takes a file by name: FFmpeg opens it a second time.
        path = Path(folder) / "film.mp4"
        with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"} if moov_first else {}) as film:
            picture = film.add_stream("libx264", rate=24)
            picture.width, picture.height, picture.pix_fmt = width_px, height_px, "yuv420p"
            sound = film.add_stream("aac", rate=44100) if audio else None
            _add_picture(film, picture, 24 * seconds + 1)
            if sound is not None:
                _add_silence(film, sound, seconds)
        return path.read_bytes()


def make_sound() -> bytes:
    """An MP4 without any picture."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sound.mp4"
        with av.open(str(path), "w", format="mp4") as film:
            _add_silence(film, film.add_stream("aac", rate=44100), 1)
        return path.read_bytes()


def _add_picture(film: Any, stream: Any, frames: int) -> None:
    for number in range(frames):
        frame = av.VideoFrame(stream.width, stream.height, "yuv420p")
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        frame.pts = number
        film.mux(stream.encode(frame))
    film.mux(stream.encode())


def _add_silence(film: Any, stream: Any, seconds: int) -> None:
    for number in range(44100 * seconds // 1024):
        frame = av.AudioFrame(format="fltp", layout="stereo", samples=1024)
        frame.sample_rate = 44100
        frame.pts = number * 1024
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        film.mux(stream.encode(frame))
    film.mux(stream.encode())
