"""A playable clip of every size and length, made once and kept."""

import array
import asyncio
import functools
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import av
import msgspec

FRAMES_PER_SECOND = 24
_AUDIO_RATE_HZ = 48_000
_AUDIO_BLOCK = 1024
"""Samples of one AAC frame; ten waves fit, so equal blocks join without a click."""

READY_MADE_BYTES = 65_536

PIXELS: dict[str, dict[str, tuple[int, int]]] = {
    "21:9": {"480p": (992, 432), "720p": (1470, 630), "1080p": (2206, 946)},
    "16:9": {"480p": (864, 496), "720p": (1280, 720), "1080p": (1920, 1080)},
    "4:3": {"480p": (752, 560), "720p": (1112, 834), "1080p": (1664, 1248)},
    "1:1": {"480p": (640, 640), "720p": (960, 960), "1080p": (1440, 1440)},
    "3:4": {"480p": (560, 752), "720p": (834, 1112), "1080p": (1248, 1664)},
    "9:16": {"480p": (496, 864), "720p": (720, 1280), "1080p": (1080, 1920)},
}
"""Width and height by aspect ratio and resolution, as the model makes them."""


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """All that tells two clips apart."""

    width_px: int
    height_px: int
    frames: int
    has_audio: bool

    @property
    def seconds(self) -> float:
        return self.frames / FRAMES_PER_SECOND

    @property
    def file_name(self) -> str:
        sound = "audio" if self.has_audio else "silent"
        return f"{self.width_px}x{self.height_px}-{self.frames}-{sound}.mp4"


READY_MADE = Shape(width_px=1280, height_px=720, frames=121, has_audio=True)


def shape_of(*, resolution: str, aspect_ratio: str, seconds: int, has_audio: bool, smaller: bool = False) -> Shape:
    """The clip a seller makes; the model adds one frame. `smaller` is one resolution below the asked one."""
    if smaller:
        width_px, height_px = _smaller(aspect_ratio, resolution)
    else:
        width_px, height_px = PIXELS[aspect_ratio][resolution]
    return Shape(width_px=width_px, height_px=height_px, frames=FRAMES_PER_SECOND * seconds + 1, has_audio=has_audio)


def _smaller(aspect_ratio: str, resolution: str) -> tuple[int, int]:
    below = {"1080p": "720p", "720p": "480p"}.get(resolution)
    if below:
        return PIXELS[aspect_ratio][below]
    width_px, height_px = PIXELS[aspect_ratio]["480p"]
    return width_px // 2, height_px // 2


class Films:
    """The clips in a folder; made one after another in a thread, so that no event loop waits."""

    def __init__(self, folder: Path, *, ready_made: bool = False) -> None:
        self._folder = folder
        self._ready_made = ready_made
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="film")
        self._making: dict[str, asyncio.Future[bytes]] = {}
        self._clips: dict[str, bytes] = {}

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)

    def order(self, shape: Shape) -> "asyncio.Future[bytes] | None":
        """Starts making a clip; None when it is there already."""
        name = self._name(shape)
        if name in self._clips:
            return None
        if name not in self._making:
            made = asyncio.get_running_loop().run_in_executor(self._thread, self._make, shape)
            made.add_done_callback(lambda done: self._made(name, done))
            self._making[name] = made
        return self._making[name]

    def when_ready(self, shape: Shape, then: Callable[[], None]) -> None:
        """Calls back once the clip is there; never, if it cannot be made."""
        making = self.order(shape)
        if making is None:
            then()
        else:
            making.add_done_callback(lambda done: None if done.cancelled() or done.exception() else then())

    async def clip(self, shape: Shape) -> bytes:
        """The file's bytes, made first where needed."""
        making = self.order(shape)
        if making is not None:
            await asyncio.shield(making)
        return self._clips[self._name(shape)]

    def size_bytes(self, shape: Shape) -> int | None:
        """None while it is being made."""
        clip = self._clips.get(self._name(shape))
        if clip is not None:
            return len(clip)
        path = self._folder / self._name(shape)
        return path.stat().st_size if path.exists() else None

    async def idle(self) -> None:
        """Returns when no clip is being made."""
        while self._making:
            await asyncio.wait(list(self._making.values()))

    def _name(self, shape: Shape) -> str:
        return "ready-made.mp4" if self._ready_made else shape.file_name

    def _made(self, name: str, done: "asyncio.Future[bytes]") -> None:
        del self._making[name]
        if not done.cancelled() and done.exception() is None:
            self._clips[name] = done.result()

    def _make(self, shape: Shape) -> bytes:
        path = self._folder / self._name(shape)
        if not path.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_suffix(".part")
            encode(READY_MADE if self._ready_made else shape, unfinished)
            if self._ready_made:
                _pad(unfinished, READY_MADE_BYTES)
            unfinished.replace(path)
        return path.read_bytes()


def encode(shape: Shape, path: Path) -> None:
    """Writes H.264 High in yuv420p, AAC where there is sound, the index in front so that players may start early."""
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        # Ultrafast alone would make a Constrained Baseline stream: the 8x8 transform makes it High.
        video = container.add_stream(
            "libx264",
            rate=FRAMES_PER_SECOND,
            options={
                "preset": "ultrafast",
                "profile": "high",
                "crf": "40",
                "x264-params": "8x8dct=1:cabac=1:log-level=none",
            },
        )
        video.width, video.height, video.pix_fmt = shape.width_px, shape.height_px, "yuv420p"
        audio = None
        if shape.has_audio:
            audio = container.add_stream("aac", rate=_AUDIO_RATE_HZ, layout="mono")
            audio.bit_rate = 32_000
        for number, frame in enumerate(_frames(shape)):
            frame.pts, frame.time_base = number, Fraction(1, FRAMES_PER_SECOND)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None:
            for number in range(shape.frames * _AUDIO_RATE_HZ // FRAMES_PER_SECOND // _AUDIO_BLOCK):
                container.mux(audio.encode(_tone(number)))
            container.mux(audio.encode(None))


def _frames(shape: Shape) -> Iterator[av.VideoFrame]:
    """A grey ramp that wanders to the left while its tint changes: each frame is a slice of one tape."""
    sample = av.VideoFrame(shape.width_px, shape.height_px, "yuv420p")
    luma_bytes, chroma_bytes = sample.planes[0].buffer_size, sample.planes[1].buffer_size
    row_bytes = sample.planes[0].line_size
    ramp = bytes(32 + column * 180 // row_bytes for column in range(row_bytes))
    tape = ramp * (luma_bytes // row_bytes + 1)
    steady = bytes([112]) * chroma_bytes
    for number in range(shape.frames):
        frame = av.VideoFrame(shape.width_px, shape.height_px, "yuv420p")
        start = number * 8 % row_bytes
        frame.planes[0].update(tape[start : start + luma_bytes])
        frame.planes[1].update(bytes([80 + 96 * number // shape.frames]) * chroma_bytes)
        frame.planes[2].update(steady)
        yield frame


@functools.cache
def _wave() -> bytes:
    tone = (0.2 * math.sin(20 * math.pi * sample / _AUDIO_BLOCK) for sample in range(_AUDIO_BLOCK))
    return array.array("f", tone).tobytes()


def _tone(number: int) -> av.AudioFrame:
    frame = av.AudioFrame(format="fltp", layout="mono", samples=_AUDIO_BLOCK)
    frame.sample_rate = _AUDIO_RATE_HZ
    frame.pts, frame.time_base = number * _AUDIO_BLOCK, Fraction(1, _AUDIO_RATE_HZ)
    frame.planes[0].update(_wave())
    return frame


def _pad(path: Path, size_bytes: int) -> None:
    """Grows a clip to a size by a box that players skip."""
    missing = size_bytes - path.stat().st_size
    if missing >= 8:
        with path.open("ab") as file:
            file.write(missing.to_bytes(4, "big") + b"free" + bytes(missing - 8))
