"""Ranges, conditions and headers of a download."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.api.ranges import (
    Part,
    Portion,
    Unsatisfiable,
    Whole,
    content_headers,
    not_modified,
    parse_range,
    strong_etag,
)

ETAG = strong_etag("ab12")


@pytest.mark.parametrize(
    ("header", "portion"),
    [
        (None, Whole()),
        ("bytes=0-99", Part(0, 100)),
        ("Bytes=0-99", Part(0, 100)),
        (" bytes= 0-99 ", Part(0, 100)),
        ("bytes=100-", Part(100, 1000)),
        ("bytes=0-", Part(0, 1000)),
        ("bytes=-100", Part(900, 1000)),
        ("bytes=-5000", Part(0, 1000)),
        ("bytes=999-999", Part(999, 1000)),
        ("bytes=990-5000", Part(990, 1000)),
        ("bytes=00000000000000000000000000010-11", Part(10, 12)),
        ("bytes=0-" + "9" * 6000, Part(0, 1000)),
        ("bytes=-" + "9" * 6000, Part(0, 1000)),
        ("bytes=1000-", Unsatisfiable()),
        ("bytes=1000-2000", Unsatisfiable()),
        ("bytes=" + "9" * 6000 + "-", Unsatisfiable()),
        ("bytes=-0", Unsatisfiable()),
        ("bytes=5-4", Whole()),
        ("bytes=-", Whole()),
        ("bytes=", Whole()),
        ("bytes", Whole()),
        ("", Whole()),
        ("bytes=a-b", Whole()),
        ("bytes=0-9x", Whole()),
        ("bytes=--5", Whole()),
        ("bytes=+1-5", Whole()),
        ("bytes=٣-٤", Whole()),
        ("bytes=0-9,20-29", Whole()),
        ("lines=0-9", Whole()),
    ],
)
def test_range_reads_as_the_rfc_has_it(header: str | None, portion: Portion) -> None:
    assert parse_range(header, 1000, None, ETAG) == portion


@pytest.mark.parametrize(
    ("header", "portion"),
    [("bytes=0-", Unsatisfiable()), ("bytes=-5", Whole()), ("bytes=-0", Unsatisfiable()), (None, Whole())],
)
def test_empty_file_has_no_part(header: str | None, portion: Portion) -> None:
    assert parse_range(header, 0, None, ETAG) == portion


@pytest.mark.parametrize(
    ("if_range", "portion"),
    [
        (ETAG, Part(0, 10)),
        (f" {ETAG} ", Part(0, 10)),
        ('"other"', Whole()),
        (f"W/{ETAG}", Whole()),
        ("Sat, 21 Nov 2026 05:30:00 GMT", Whole()),
        ("", Whole()),
    ],
)
def test_resumed_download_of_another_file_gets_the_whole(if_range: str, portion: Portion) -> None:
    assert parse_range("bytes=0-9", 1000, if_range, ETAG) == portion


def test_unsatisfiable_range_of_another_file_is_whole() -> None:
    assert parse_range("bytes=5000-", 1000, '"other"', ETAG) == Whole()


@given(st.text(max_size=40) | st.from_regex(r"bytes=[0-9 ,-]{0,20}", fullmatch=True), st.integers(0, 2000))
def test_any_range_lies_within_the_file(header: str, size: int) -> None:
    portion = parse_range(header, size, None, ETAG)

    if isinstance(portion, Part):
        assert 0 <= portion.start < portion.end <= size


@given(st.integers(1, 300), st.integers(1, 50))
def test_parts_side_by_side_make_the_file(size: int, step: int) -> None:
    data = bytes(number % 251 for number in range(size))
    pieces = []
    for start in range(0, size, step):
        portion = parse_range(f"bytes={start}-{start + step - 1}", size, ETAG, ETAG)
        assert isinstance(portion, Part)
        pieces.append(data[portion.start : portion.end])

    assert b"".join(pieces) == data


@pytest.mark.parametrize(
    ("if_none_match", "same"),
    [
        (None, False),
        (ETAG, True),
        (f"W/{ETAG}", True),
        (f'"x", {ETAG}', True),
        (f'W/"x",W/{ETAG} , "y"', True),
        ("*", True),
        (" * ", True),
        ('"x"', False),
        ("ab12", False),
        ("", False),
        ('"x*"', False),
    ],
)
def test_a_file_that_the_client_holds_is_not_sent_again(if_none_match: str | None, same: bool) -> None:
    assert not_modified(if_none_match, ETAG) is same


def test_headers_of_the_whole() -> None:
    headers = content_headers(Whole(), size=1000, etag=ETAG, media_type="video/mp4", filename="video_1.mp4")

    assert headers == {
        "accept-ranges": "bytes",
        "etag": '"ab12"',
        "cache-control": "private, no-transform",
        "content-type": "video/mp4",
        "content-disposition": 'inline; filename="video_1.mp4"',
        "content-length": "1000",
    }


def test_headers_of_a_part_say_which() -> None:
    headers = content_headers(Part(100, 200), size=1000, etag=ETAG, media_type="video/mp4")

    assert headers["content-range"] == "bytes 100-199/1000"
    assert headers["content-length"] == "100"
    assert "content-disposition" not in headers


def test_headers_of_a_refused_range_tell_the_size() -> None:
    headers = content_headers(Unsatisfiable(), size=1000, etag=ETAG, media_type="video/mp4")

    assert headers["content-range"] == "bytes */1000"
    assert "content-length" not in headers
    assert "content-type" not in headers


def test_each_portion_knows_its_status() -> None:
    assert [Whole().status, Part(0, 1).status, Unsatisfiable().status] == [200, 206, 416]
