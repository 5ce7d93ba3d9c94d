"""What all adapters share: strict reading, the common meaning of a status, and how long a seller may keep us away."""

from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.errors import FailureKind, Garbled, OutcomeUnknown, Refusal
from proxy.core.wire import Reply
from proxy.providers.base import LONGEST_WAIT_S, decode, default_refusal, is_readable, json_body, retry_after_s


class Shape(msgspec.Struct):
    id: str


def make_reply(body: bytes = b"{}", status: int = 200, **headers: str) -> Reply:
    return Reply(status=status, headers={name.replace("_", "-"): text for name, text in headers.items()}, body=body)


# Reading


def test_fields_that_a_seller_adds_are_ignored() -> None:
    assert decode(make_reply(b'{"id": "x", "new": [1]}'), Shape) == Shape(id="x")


@pytest.mark.parametrize(
    "body", [b"", b"{", b"<html>", b"\xff", b'"\xff"', b"null", b"{}", b'{"id": 1}', b'{"id": null}', b'{"a":' * 10**5]
)
def test_answer_of_another_shape_is_garbled_and_says_its_status(body: bytes) -> None:
    with pytest.raises(Garbled, match="status 207"):
        decode(make_reply(body, 207), Shape)


@pytest.mark.parametrize("body", [b"{}", b' {"error": null} '])
def test_object_is_an_answer_of_the_application(body: bytes) -> None:
    assert is_readable(make_reply(body))


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b'"no"', b"1", b"<html>", b"\xff", b'{"a":1', b"[" * 10**5])
def test_anything_else_may_come_from_an_ingress(body: bytes) -> None:
    assert not is_readable(make_reply(body))


def test_body_is_written_as_json() -> None:
    assert json_body({"prompt": "a “fox” 🦊", "seed": None}) == '{"prompt":"a “fox” 🦊","seed":null}'.encode()


# How long to stay away


@pytest.mark.parametrize(("text", "pause_s"), [("0", 0.0), ("7", 7.0), (" 12 ", 12.0), ("1.5", 1.5), ("86400", 86400)])
def test_retry_after_in_seconds(text: str, pause_s: float) -> None:
    assert retry_after_s(make_reply(retry_after=text)) == pause_s


@pytest.mark.parametrize("text", ["86401", "9" * 400, "9999999999.5", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_no_seller_keeps_us_away_for_longer_than_a_day(text: str) -> None:
    reply = make_reply(retry_after=text, date="Sun, 06 Nov 1994 08:49:37 GMT")
    assert retry_after_s(reply) == LONGEST_WAIT_S == 86_400


@pytest.mark.parametrize(
    ("text", "pause_s"),
    [
        ("Sun, 06 Nov 1994 08:50:07 GMT", 30.0),
        ("Sun, 06 Nov 1994 08:50:07 -0000", 30.0),
        ("Sun, 06 Nov 1994 09:50:07 +0100", 30.0),
        ("Sun, 06 Nov 1994 08:00:00 GMT", 0.0),
    ],
)
def test_retry_after_as_a_date_counts_from_the_sellers_own_clock(text: str, pause_s: float) -> None:
    assert retry_after_s(make_reply(retry_after=text, date="Sun, 06 Nov 1994 08:49:37 GMT")) == pause_s


def test_date_without_the_sellers_clock_says_nothing() -> None:
    assert retry_after_s(make_reply(retry_after="Sun, 06 Nov 1994 08:50:07 GMT")) is None
    assert retry_after_s(make_reply(retry_after="Sun, 06 Nov 1994 08:50:07 GMT", date="now")) is None


ODD = ("", "-1", "1e3", "soon", "1,5", "nan", "inf", "\u0661", "Sun, 31 Feb 1994 25:61:00 GMT")
BEYOND_COUNTING = ("Mon, 01 Jan 2020 10:10:10 +99999999999999", "Sun, 06 Nov 99999 08:49:37 GMT")


@pytest.mark.parametrize("text", [*ODD, *BEYOND_COUNTING])
def test_odd_retry_after_says_nothing(text: str) -> None:
    assert retry_after_s(make_reply(retry_after=text, date="Sun, 06 Nov 1994 08:49:37 GMT")) is None


def test_no_retry_after_says_nothing() -> None:
    assert retry_after_s(make_reply()) is None


@given(st.text(), st.text())
def test_no_header_breaks_the_reading_of_retry_after(text: str, date: str) -> None:
    pause_s = retry_after_s(make_reply(retry_after=text, date=date))
    assert pause_s is None or 0 <= pause_s <= LONGEST_WAIT_S


# What a status means

READABLE, PAGE = b'{"error":"no"}', b"<html>no</html>"


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "invalid_input"), (401, "account"), (402, "account"), (403, "account"), (404, "invalid_input")],
)
def test_readable_4xx_is_a_refusal_that_cost_nothing(status: int, kind: FailureKind) -> None:
    refusal = default_refusal(make_reply(READABLE, status, retry_after="3"), "no", seller_code="E1")
    assert isinstance(refusal, Refusal)
    assert (refusal.kind, str(refusal), refusal.seller_code) == (kind, "no", "E1")
    assert (refusal.cost_microusd, refusal.retry_after_s) == (0, 3.0)


@pytest.mark.parametrize("body", [READABLE, PAGE, b""])
@pytest.mark.parametrize(("status", "kind"), [(429, "throttled"), (503, "capacity")])
def test_429_and_503_are_refusals_whoever_sent_them(status: int, kind: FailureKind, body: bytes) -> None:
    refusal = default_refusal(make_reply(body, status), "busy")
    assert isinstance(refusal, Refusal)
    assert (refusal.kind, refusal.retry_after_s, refusal.cost_microusd) == (kind, None, 0)


@pytest.mark.parametrize("status", range(300, 600))
def test_every_other_status_may_have_bought(status: int) -> None:
    for body in (READABLE, PAGE):
        certain = status in {429, 503} or (400 <= status < 500 and status != 408 and body is READABLE)
        for kind in (None, *get_args(FailureKind)):
            named = default_refusal(make_reply(body, status), "no", kind=kind)
            assert type(named) is (Refusal if certain else OutcomeUnknown), "the word never changes the certainty"
            if isinstance(named, Refusal):
                assert kind is None or named.kind == kind
            else:
                assert str(named) == f"status {status}: no"
