"""What is sent to ShortAPI, and the answers that no recording shows."""

from typing import Any

import msgspec
import pytest

from proxy.core.attempt import Order, Ticket
from proxy.core.errors import Garbled, OutcomeUnknown, Refusal
from proxy.core.wire import Reply
from proxy.providers.base import Announces, Cancels, Finds
from proxy.providers.shortapi import ShortAPI

SELLER = ShortAPI()
TICKET = Ticket(seller_id="job-7f3a", seller_model="bytedance/seedance-2.0/text-to-video")
ORDER = Order(
    seller_model="bytedance/seedance-2.0/text-to-video",
    operation="text-to-video",
    tier="standard",
    prompt="a paper boat in rain",
    seconds=5,
    resolution="720p",
    aspect_ratio="16:9",
    generate_audio=True,
    content_filter=True,
    seed=None,
    web_search=False,
    end_user=None,
    client_ref="video_1-1",
    callback_url=None,
)


def make_order(**changes: Any) -> Order:
    return msgspec.structs.replace(ORDER, **changes)


def answer(body: Any, *, status: int = 200) -> Reply:
    return Reply(status=status, headers={}, body=msgspec.json.encode(body))


def sent(order: Order) -> Any:
    body = SELLER.submit(order).body
    assert body is not None
    return msgspec.json.decode(body)


def test_key_travels_as_bearer() -> None:
    assert SELLER.authorize("ak-1") == ("Authorization", "Bearer ak-1")


def test_standard_order_is_mode_std() -> None:
    call = SELLER.submit(ORDER)
    assert (call.method, call.path, call.query, call.headers) == ("POST", "/api/v1/job/create", (), ())
    assert sent(ORDER) == {
        "model": "bytedance/seedance-2.0/text-to-video",
        "args": {"mode": "std", "prompt": "a paper boat in rain", "duration": 5, "aspect_ratio": "16:9"},
    }


def test_fast_order_is_mode_fast_of_the_same_model() -> None:
    assert sent(make_order(tier="fast", seconds=15, aspect_ratio="9:16")) == {
        "model": "bytedance/seedance-2.0/text-to-video",
        "args": {"mode": "fast", "prompt": "a paper boat in rain", "duration": 15, "aspect_ratio": "9:16"},
    }


def test_what_it_has_no_field_for_is_not_sent() -> None:
    odd = make_order(
        resolution="480p", generate_audio=False, content_filter=False, seed=7, web_search=True, end_user="u-1"
    )
    assert sent(odd) == sent(ORDER)


def test_tier_that_it_does_not_sell_is_never_sent_as_another() -> None:
    with pytest.raises(KeyError, match="mini"):
        SELLER.submit(make_order(tier="mini"))


def test_callback_stands_beside_the_args() -> None:
    order = make_order(callback_url="https://proxy.example/callbacks/t-1")
    assert sent(order) == {**sent(ORDER), "callback_url": "https://proxy.example/callbacks/t-1"}


def test_file_is_asked_for_by_the_same_query_as_the_state() -> None:
    call = SELLER.poll(TICKET)
    assert (call.method, call.path, call.query, call.body) == ("GET", "/api/v1/job/query", (("id", "job-7f3a"),), None)
    assert SELLER.collect(TICKET) == call


def test_it_announces_but_neither_cancels_nor_finds() -> None:
    assert isinstance(SELLER, Announces)
    assert not isinstance(SELLER, Cancels | Finds)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Too many requests", "throttled"),
        ("concurrency limit reached", "throttled"),
        ("rejected by content policy", "moderation"),
        ("this violates our policies", "moderation"),
        ("output blocked by moderation", "moderation"),
        ("NSFW detected", "moderation"),
        ("Unauthorized", "account"),
        ("authentication failed", "account"),
        ("not enough credits", "account"),
        ("account balance too low", "account"),
        ("invalid model", "invalid_input"),
        ("duration out of range", "invalid_input"),
    ],
)
def test_text_of_a_refused_submit_names_its_kind(text: str, kind: str) -> None:
    with pytest.raises(Refusal) as caught:
        SELLER.accepted(answer({"code": 1, "info": text}))
    assert (caught.value.kind, str(caught.value), caught.value.cost_microusd) == (kind, text, 0)


@pytest.mark.parametrize(
    ("code", "kind"), [("3000", "capacity"), (402, "account"), (403, "account"), (429, "throttled")]
)
def test_known_code_is_stronger_than_the_text(code: int | str, kind: str) -> None:
    with pytest.raises(Refusal) as caught:
        SELLER.accepted(answer({"code": code, "info": "invalid model"}))
    assert (caught.value.kind, caught.value.seller_code) == (kind, str(code))


def test_refused_submit_without_a_text_says_so() -> None:
    with pytest.raises(Refusal, match="no reason given"):
        SELLER.accepted(answer({"code": -1, "info": "", "message": None}))


def test_text_that_is_an_object_is_kept_as_json() -> None:
    with pytest.raises(Refusal, match=r'\{"detail":"content policy"\}') as caught:
        SELLER.progress(answer({"code": 0, "data": {"status": 3, "error": {"detail": "content policy"}}}))
    assert caught.value.kind == "moderation"


@pytest.mark.parametrize("amount", ["", "1,20", "-1", "NaN", "Infinity", "1e400", "1e999999999", True, [], {}])
def test_broken_amount_does_not_lose_an_accepted_job(amount: Any) -> None:
    accepted = SELLER.accepted(answer({"code": 0, "data": {"job_id": "j", "amount": amount}}))
    assert (accepted.seller_id, accepted.cost_microusd) == ("j", None)


def test_amount_is_read_without_a_float() -> None:
    body = b'{"code":0,"data":{"job_id":"j","amount":0.100000499999999999999}}'
    assert SELLER.accepted(Reply(status=200, headers={}, body=body)).cost_microusd == 100_000


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"[]", b"null", b'"ok"', b'{"code":null}', b'{"code":[1]}'])
def test_submit_that_cannot_be_read_is_unknown_and_not_garbled(body: bytes) -> None:
    with pytest.raises(OutcomeUnknown):
        SELLER.accepted(Reply(status=201, headers={}, body=body))


@pytest.mark.parametrize("status", [-1, 5, 99, "", "02", "succeeded"])
def test_number_never_heard_of_settles_nothing(status: int | str) -> None:
    with pytest.raises(Garbled, match="never heard of"):
        SELLER.progress(answer({"code": 0, "data": {"status": status, "result": {"videos": [{"url": "https://x/a"}]}}}))


@pytest.mark.parametrize("result", [[], "", {"videos": "a.mp4"}, {"videos": [{"url": 1}]}])
def test_result_of_an_unknown_shape_is_asked_for_again(result: Any) -> None:
    with pytest.raises(Garbled):
        SELLER.progress(answer({"code": 0, "data": {"status": 2, "result": result}}))


@pytest.mark.parametrize("refunded", [False, "true", 1, None])
def test_only_a_plain_true_means_that_the_money_came_back(refunded: Any) -> None:
    with pytest.raises(Refusal) as caught:
        SELLER.progress(answer({"code": 0, "data": {"status": 3, "refunded": refunded}}))
    assert caught.value.cost_microusd is None


def test_policy_text_in_a_400_is_moderation() -> None:
    refusal = SELLER.refusal(answer({"code": 1, "message": "prompt rejected by content policy"}, status=400))
    assert isinstance(refusal, Refusal)
    assert refusal.kind == "moderation"


def test_status_of_http_is_stronger_than_a_guessed_word() -> None:
    refusal = SELLER.refusal(answer({"code": 1, "message": "API key policy"}, status=429))
    assert isinstance(refusal, Refusal)
    assert refusal.kind == "throttled"


def test_callback_names_its_job_wherever_the_id_stands() -> None:
    assert SELLER.announced(b'{"id":"a"}') == "a"
    assert SELLER.announced(b'{"data":{},"job_id":"b"}') == "b"
    assert SELLER.announced(b'{"data":{"id":"c"},"id":"request-1"}') == "c"
    assert SELLER.announced(b'{"data":{"id":77}}') == "77"


@pytest.mark.parametrize("body", [b"", b"\xff", b"[]", b"{}", b'{"data":null}', b'{"data":{"id":["a"]}}', b'{"id":""}'])
def test_callback_without_a_readable_id_announces_nothing(body: bytes) -> None:
    assert SELLER.announced(body) is None
