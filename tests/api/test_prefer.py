"""The preference to wait, in every way that RFC 7240 lets a client write it."""

import time

import pytest

from proxy.api.prefer import preferred_wait_s


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        (["wait=10"], 10),
        (["wait=0"], 0),
        (["Wait = 10"], 10),
        (['wait="10"'], 10),
        (["respond-async, wait=100"], 100),
        (['return=minimal; foo="a, wait=1; \\" b", wait=7'], 7),
        (["handling=lenient;x; y = z ;, wait=5;why"], 5),
        (["respond-async", "wait=20"], 20),
        (["wait=5, wait=9"], 5),
        (["wait=5", "wait=9"], 5),
        ([",, ,wait=3"], 3),
        (["wait=" + "9" * 5000], 999_999_999),
        (["wait"], None),
        (["wait="], None),
        (["wait=soon, wait=5"], None),
        (["wait=-5"], None),
        (["wait=1.5"], None),
        (["wait=\u0665"], None),
        (["waiter=5"], None),
        (["return=minimal"], None),
        (["x;wait=5"], None),
        ([""], None),
        ([], None),
        (['"unfinished, wait=5'], None),
    ],
)
def test_wait_is_read_and_everything_else_is_no_preference(fields: list[str], seconds: int | None) -> None:
    assert preferred_wait_s(fields) == seconds


@pytest.mark.parametrize("text", ["a" + ";  " * 20_000 + "?", "a" + " " * 60_000 + "?", 'a="' + "\\x" * 30_000])
def test_no_header_takes_long_to_read(text: str) -> None:
    begun = time.process_time()
    assert preferred_wait_s([text]) is None
    assert time.process_time() - begun < 0.5
