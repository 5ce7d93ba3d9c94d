"""What is sent to EvoLink, and the answers that no recording shows."""

from typing import Any

import msgspec
import pytest

from proxy.core.attempt import Order, Ticket
from proxy.core.errors import Garbled, OutcomeUnknown, Refusal
from proxy.core.wire import Reply
from proxy.providers.base import Announces, Cancels, Finds
from proxy.providers.evolink import EvoLink

SELLER = EvoLink()
TICKET = Ticket(seller_id="task-unified-1774857405-abc12345", seller_model="seedance-2.0-text-to-video")
ORDER = Order(
    seller_model="seedance-2.0-text-to-video",
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
PLAIN = {
    "model": "seedance-2.0-text-to-video",
    "prompt": "a paper boat in rain",
    "duration": 5,
    "quality": "720p",
    "aspect_ratio": "16:9",
    "generate_audio": True,
    "content_filter": True,
}


def make_order(**changes: Any) -> Order:
    return msgspec.structs.replace(ORDER, **changes)


def answer(body: Any, *, status: int = 200) -> Reply:
    return Reply(status=status, headers={}, body=msgspec.json.encode(body))


def sent(order: Order) -> Any:
    body = SELLER.submit(order).body
    assert body is not None
    return msgspec.json.decode(body)


def test_key_travels_as_bearer() -> None:
    assert SELLER.authorize("sk-1") == ("Authorization", "Bearer sk-1")


def test_plain_order_states_every_choice() -> None:
    call = SELLER.submit(ORDER)
    assert (call.method, call.path, call.query, call.headers) == ("POST", "/v1/videos/generations", (), ())
    assert sent(ORDER) == PLAIN


@pytest.mark.parametrize(
    ("tier", "model", "resolution"),
    [
        ("standard", "seedance-2.0-text-to-video", "1080p"),
        ("fast", "seedance-2.0-fast-text-to-video", "720p"),
        ("mini", "seedance-2.0-mini-text-to-video", "480p"),
    ],
)
def test_tier_is_in_the_name_of_the_model_and_nowhere_else(tier: str, model: str, resolution: str) -> None:
    order = make_order(tier=tier, seller_model=model, resolution=resolution)
    assert sent(order) == {**PLAIN, "model": model, "quality": resolution}


def test_ratio_left_to_the_seller_is_called_adaptive() -> None:
    assert sent(make_order(aspect_ratio="auto")) == {**PLAIN, "aspect_ratio": "adaptive"}


def test_filter_off_and_silence_are_said_outright() -> None:
    order = make_order(content_filter=False, generate_audio=False)
    assert sent(order) == {**PLAIN, "content_filter": False, "generate_audio": False}


def test_web_search_is_a_parameter_of_the_model_and_only_where_asked() -> None:
    assert sent(make_order(web_search=True)) == {**PLAIN, "model_params": {"web_search": True}}


def test_callback_is_named_where_there_is_one() -> None:
    url = "https://proxy.example/callbacks/t-1"
    assert sent(make_order(callback_url=url)) == {**PLAIN, "callback_url": url}


def test_what_it_has_no_field_for_is_not_sent() -> None:
    assert sent(make_order(seed=7, end_user="u-1")) == PLAIN


def test_file_is_asked_for_by_the_same_query_as_the_state() -> None:
    call = SELLER.poll(TICKET)
    assert (call.method, call.path) == ("GET", "/v1/tasks/task-unified-1774857405-abc12345")
    assert (call.query, call.body) == ((), None)
    assert SELLER.collect(TICKET) == call


def test_odd_id_cannot_lead_to_another_route() -> None:
    odd = Ticket(seller_id="../credits?a b", seller_model="seedance-2.0-text-to-video")
    assert SELLER.poll(odd).path == "/v1/tasks/..%2Fcredits%3Fa%20b"


def test_it_announces_but_neither_cancels_nor_finds() -> None:
    assert isinstance(SELLER, Announces)
    assert not isinstance(SELLER, Cancels | Finds)


def test_reserved_credits_are_no_cost_in_dollars() -> None:
    assert SELLER.accepted(answer({"id": "t", "usage": {"credits_reserved": 67.5}})).cost_microusd is None


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"[]", b"null", b"{}", b'{"id":""}', b'{"id":null}', b'{"id":5}'])
def test_submit_that_cannot_be_read_is_unknown_and_not_garbled(body: bytes) -> None:
    with pytest.raises(OutcomeUnknown):
        SELLER.accepted(Reply(status=201, headers={}, body=body))


@pytest.mark.parametrize("status", ["", "succeeded", "Completed", "canceled", "expired"])
def test_status_never_heard_of_settles_nothing(status: str) -> None:
    with pytest.raises(Garbled, match="never heard of"):
        SELLER.progress(answer({"status": status, "results": ["https://x/a.mp4"]}))


@pytest.mark.parametrize("results", ["https://x/a.mp4", [{"url": "https://x/a.mp4"}], {}])
def test_results_of_an_unknown_shape_are_asked_for_again(results: Any) -> None:
    with pytest.raises(Garbled):
        SELLER.progress(answer({"status": "completed", "results": results}))


def test_odd_output_does_not_matter_where_results_name_the_file() -> None:
    result = SELLER.result(answer({"status": "completed", "results": ["", "https://x/a.mp4"], "output": "none"}))
    assert result.url == "https://x/a.mp4"


@pytest.mark.parametrize(("progress", "percent"), [(45, 45), (45.9, 45), (0, 0), (-1, None), (101, None), ("45", None)])
def test_percent_is_shown_only_where_it_is_one(progress: Any, percent: int | None) -> None:
    assert SELLER.progress(answer({"status": "processing", "progress": progress})).percent == percent


@pytest.mark.parametrize("error", [None, "broke", [1], {"code": {"a": 1}}, {"message": 5}])
def test_unreadable_reason_does_not_undo_a_failure(error: Any) -> None:
    with pytest.raises(Refusal) as caught:
        SELLER.progress(answer({"status": "failed", "error": error}))
    assert (caught.value.kind, caught.value.cost_microusd) == ("provider_error", 0)


@pytest.mark.parametrize("error", [b'{"message":"\xff"}', b'"\xed\xa0\x80"', b'{"code":"\xc3("}'])
def test_reason_in_another_encoding_does_not_undo_a_failure(error: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        SELLER.progress(Reply(status=200, headers={}, body=b'{"status":"failed","error":' + error + b"}"))
    assert (caught.value.kind, caught.value.cost_microusd) == ("provider_error", 0)


def test_failed_task_with_a_number_for_a_code_keeps_it() -> None:
    with pytest.raises(Refusal) as caught:
        SELLER.progress(answer({"status": "failed", "error": {"code": 5001}}))
    assert (caught.value.kind, caught.value.seller_code, str(caught.value)) == ("provider_error", "5001", "5001")


def test_error_of_a_new_type_is_read_by_its_status() -> None:
    refusal = SELLER.refusal(answer({"error": {"code": 403, "type": "region_error"}}, status=403))
    assert isinstance(refusal, Refusal)
    assert (refusal.kind, refusal.seller_code) == ("account", "region_error")


def test_readable_4xx_without_an_error_object_is_still_a_refusal() -> None:
    refusal = SELLER.refusal(answer({"detail": "no"}, status=422))
    assert isinstance(refusal, Refusal)
    assert (refusal.kind, refusal.seller_code) == ("invalid_input", None)


@pytest.mark.parametrize("body", [b"", b"\xff", b"[]", b"{}", b'{"id":""}', b'{"id":5}'])
def test_callback_without_a_readable_id_announces_nothing(body: bytes) -> None:
    assert SELLER.announced(body) is None
