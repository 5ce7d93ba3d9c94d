"""Whether bytes are a film, and how long and large it is."""

from typing import Any, Protocol

import msgspec

from proxy.core.errors import SellerError


class NotAFilm(SellerError):
    """What lies where a film is due cannot be played: a web page, an error text, half a file."""


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What the film itself says, whatever was asked for."""

    duration_ms: int
    """Of the picture; sound may run a little longer."""
    width_px: int
    height_px: int
    has_audio: bool


class SeekableFile(Protocol):
    """As much of a binary file as reading a film takes."""

    def read(self, size: int, /) -> bytes: ...

    def seek(self, offset: int, whence: int = ..., /) -> int: ...

    def tell(self) -> int: ...


def begins_like_a_film(first: bytes) -> bool:
    """Whether an MP4's first box is there: four bytes of length, then `ftyp`."""
    return first[4:8] == b"ftyp"


def measure(source: str | SeekableFile) -> Measured:
    """
    Reads the film's tables, not its pictures; takes about a millisecond, and blocks.

    Raises NotAFilm, also where the tables name bytes that are not there.
    """
    # FFmpeg's libraries take 19 MB and 140 ms, and a process that never finishes a film needs none of them.
    import av  # noqa: PLC0415
    import av.error  # noqa: PLC0415

    try:
        # Left to guess, FFmpeg would also take a playlist, and open whatever that names.
        with av.open(source, format="mp4") as container:
            return _read(container)
    except (av.error.FFmpegError, ValueError) as exc:
        if isinstance(exc, OSError):
            # FFmpeg's "no such file" and the like speak of the storage, not of the film.
            raise
        raise NotAFilm(f"the film cannot be read: {type(exc).__name__}") from exc


def _read(container: Any) -> Measured:
    if not container.streams.video:
        raise NotAFilm("there is no picture in the film")
    video = container.streams.video[0]
    # There is no codec where the tables break off before they name it.
    codec = video.codec_context
    if not (codec and codec.width and codec.height and video.duration and video.time_base):
        raise NotAFilm("the film does not say how long or large it is")
    if not len(video.index_entries) or _end_bytes(container) > container.size:
        raise NotAFilm("the film breaks off")
    return Measured(
        duration_ms=round(video.duration * video.time_base * 1000),
        width_px=codec.width,
        height_px=codec.height,
        has_audio=bool(container.streams.audio),
    )


def _end_bytes(container: Any) -> int:
    """Where the last picture or sound ends, by the film's own tables."""
    streams = (*container.streams.video, *container.streams.audio)
    return max(int(entry.pos + entry.size) for stream in streams for entry in stream.index_entries)
