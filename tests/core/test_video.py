"""Sizes and shapes: the table of pixels has every pair, and reads backwards."""

from fractions import Fraction
from typing import get_args

import msgspec
import pytest

from proxy.core.video import ASPECT_RATIOS, PIXELS, RESOLUTIONS, SIZES, Ask, RoutingWish, Spec, Status, VideoFailure

SPEC = Spec(
    model="seedance-2.0",
    operation="text-to-video",
    prompt="a paper boat in rain",
    seconds=5,
    resolution="720p",
    aspect_ratio="16:9",
    generate_audio=True,
    content_filter=True,
    tier="standard",
)


def test_every_resolution_has_a_size_for_every_aspect_ratio() -> None:
    assert list(PIXELS) == [(resolution, ratio) for resolution in RESOLUTIONS for ratio in ASPECT_RATIOS]


def test_a_size_names_one_resolution_and_aspect_ratio() -> None:
    assert len(SIZES) == len(PIXELS), "no size stands for two"
    for key, (width, height) in PIXELS.items():
        assert SIZES[f"{width}x{height}"] == key


@pytest.mark.parametrize("key", PIXELS)
def test_size_has_the_shape_that_its_aspect_ratio_says(key: tuple[str, str]) -> None:
    width, height = PIXELS[key]
    across, down = (int(part) for part in key[1].split(":"))
    assert abs(Fraction(width, height) / Fraction(across, down) - 1) < Fraction(1, 40)
    assert width % 2 == height % 2 == 0, "codecs halve both"


def test_turned_aspect_ratio_has_the_turned_size() -> None:
    for resolution in RESOLUTIONS:
        for ratio in ("16:9", "4:3"):
            turned = ":".join(reversed(ratio.split(":")))
            assert PIXELS[resolution, turned] == PIXELS[resolution, ratio][::-1]


def test_larger_resolution_has_more_pixels_in_every_shape() -> None:
    for ratio in ASPECT_RATIOS:
        areas = [width * height for width, height in (PIXELS[resolution, ratio] for resolution in RESOLUTIONS)]
        assert areas == sorted(areas)
        assert len(set(areas)) == len(areas)


def test_spec_says_its_size() -> None:
    assert SPEC.size == "1280x720"
    assert msgspec.structs.replace(SPEC, aspect_ratio="auto").size == "auto"
    assert SIZES[SPEC.size] == ("720p", "16:9")


def test_ask_that_states_nothing_leaves_everything_open() -> None:
    ask = Ask(prompt="x")
    assert ask.routing == RoutingWish()
    assert {name for name in ask.__struct_fields__ if getattr(ask, name)} == {"prompt", "operation", "routing"}


def test_two_asks_do_not_share_their_metadata() -> None:
    assert Ask(prompt="x").metadata is not Ask(prompt="y").metadata


def test_words_of_openai_and_no_fifth() -> None:
    assert get_args(Status) == ("queued", "in_progress", "completed", "failed")
    assert len(get_args(VideoFailure)) == 7
