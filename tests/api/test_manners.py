"""What answers tell browsers and caches beside what they say."""

import pytest

from proxy.api.manners import with_manners

JSON = (b"content-type", b"application/json")
FILM = [(b"content-type", b"video/mp4"), (b"cache-control", b"private, no-transform")]


@pytest.mark.parametrize("said", [[], [JSON], FILM, [(b"content-type", b"text/html; charset=utf-8")]])
def test_every_answer_is_taken_for_what_it_says_and_tells_nobody_its_address(said: list[tuple[bytes, bytes]]) -> None:
    told = with_manners(said)
    assert told[: len(said)] == said
    assert [value for name, value in told if name == b"x-content-type-options"] == [b"nosniff"]
    assert [value for name, value in told if name == b"referrer-policy"] == [b"no-referrer"]


def test_caches_keep_only_what_says_so_itself() -> None:
    assert dict(with_manners([JSON]))[b"cache-control"] == b"no-store"
    assert [value for name, value in with_manners(FILM) if name == b"cache-control"] == [b"private, no-transform"]


def test_page_may_neither_load_nor_run_anything() -> None:
    policy = dict(with_manners([(b"content-type", b"text/html; charset=utf-8")]))[b"content-security-policy"]
    assert b"default-src 'none'" in policy
    assert b"script-src" not in policy
    assert b"content-security-policy" not in dict(with_manners([JSON]))
