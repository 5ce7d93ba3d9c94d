"""What is sent to fal, and the answers that no recording shows."""

import json
from typing import Any

import msgspec
import pytest

from proxy.core.attempt import Order, Ticket
from proxy.core.errors import OutcomeUnknown, Refusal
from proxy.core.wire import Call, Reply
from proxy.providers.base import Announces, Cancels, Finds
from proxy.providers.fal import Fal

STANDARD = "bytedance/seedance-2.0/text-to-video"
FAST = "bytedance/seedance-2.0/fast/text-to-video"


def make_order(**changes: Any) -> Order:
    order = Order(
        seller_model=STANDARD,
        operation="text-to-video",
        tier="standard",
        prompt='A man stops and says: "Remember this."',
        seconds=5,
        resolution="720p",
        aspect_ratio="16:9",
        generate_audio=True,
        content_filter=True,
        seed=None,
        web_search=False,
        end_user=None,
        client_ref="video_0198a0-1",
        callback_url=None,
    )
    return msgspec.structs.replace(order, **changes)


def make_ticket(seller_model: str = STANDARD, seller_id: str = "11111111-2222") -> Ticket:
    return Ticket(seller_id=seller_id, seller_model=seller_model)


def sent(call: Call) -> Any:
    assert call.body is not None
    return json.loads(call.body)


def make_reply(status: int, body: object, **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status=status, headers=named, body=json.dumps(body).encode())


def test_key_is_sent_as_a_key_not_as_a_bearer() -> None:
    assert Fal().authorize("id:secret") == ("Authorization", "Key id:secret")


def test_order_is_the_whole_body_with_every_choice_explicit() -> None:
    call = Fal().submit(make_order())
    assert (call.method, call.path, call.query, call.headers) == ("POST", f"/{STANDARD}", (), ())
    assert sent(call) == {
        "prompt": 'A man stops and says: "Remember this."',
        "resolution": "720p",
        "duration": "5",
        "aspect_ratio": "16:9",
        "generate_audio": True,
    }


def test_fast_tier_is_another_path() -> None:
    call = Fal().submit(make_order(seller_model=FAST, tier="fast", resolution="480p", aspect_ratio="9:16", seconds=15))
    assert call.path == f"/{FAST}"
    assert sent(call)["duration"] == "15"
    assert (sent(call)["resolution"], sent(call)["aspect_ratio"]) == ("480p", "9:16")


def test_sellers_choice_is_asked_for_in_words() -> None:
    fields = sent(Fal().submit(make_order(seconds=None, aspect_ratio="auto")))
    assert (fields["duration"], fields["aspect_ratio"]) == ("auto", "auto")


def test_seed_is_a_number_and_zero_is_one() -> None:
    assert sent(Fal().submit(make_order(seed=0)))["seed"] == 0


def test_silence_is_asked_for() -> None:
    assert sent(Fal().submit(make_order(generate_audio=False)))["generate_audio"] is False


def test_end_user_is_named_only_when_the_account_says_so() -> None:
    assert sent(Fal().submit(make_order(end_user="5f2a")))["end_user_id"] == "5f2a"


def test_callback_stands_in_the_query_not_yet_encoded() -> None:
    call = Fal().submit(make_order(callback_url="https://proxy.example/callbacks/v-1-x?a=b&c"))
    assert call.query == (("fal_webhook", "https://proxy.example/callbacks/v-1-x?a=b&c"),)
    assert "callback_url" not in sent(call)


def test_fals_own_repeats_are_left_on() -> None:
    assert "x-fal-no-retry" not in {name.lower() for name, _ in Fal().submit(make_order()).headers}


@pytest.mark.parametrize("seller_model", [STANDARD, FAST])
def test_an_order_is_asked_for_under_two_segments_only(seller_model: str) -> None:
    fal, ticket = Fal(), make_ticket(seller_model)
    path = "/bytedance/seedance-2.0/requests/11111111-2222"
    assert fal.poll(ticket) == Call(method="GET", path=f"{path}/status")
    assert fal.collect(ticket) == Call(method="GET", path=path)
    assert fal.cancel(ticket) == Call(method="PUT", path=f"{path}/cancel")


def test_an_odd_id_stays_one_segment() -> None:
    assert Fal().collect(make_ticket(seller_id="a/b?c#d")).path.endswith("/requests/a%2Fb%3Fc%23d")


def test_a_model_id_of_one_segment_is_asked_for_as_it_is() -> None:
    assert Fal().collect(make_ticket(seller_model="app")).path == "/app/requests/11111111-2222"


def test_urls_of_a_reply_never_become_paths() -> None:
    accepted = Fal().accepted(
        make_reply(200, {"request_id": "r", "status_url": "https://evil.example/steal", "status": "IN_QUEUE"})
    )
    assert Fal().poll(make_ticket(seller_id=accepted.seller_id)).path == "/bytedance/seedance-2.0/requests/r/status"


def test_an_empty_id_may_have_bought() -> None:
    with pytest.raises(OutcomeUnknown):
        Fal().accepted(make_reply(200, {"request_id": ""}))


def test_an_empty_id_in_a_callback_is_none() -> None:
    assert Fal().announced(b'{"request_id":""}') is None


@pytest.mark.parametrize("seed", [True, 1.5, None, "7", [7]])
def test_an_odd_seed_does_not_lose_the_film(seed: object) -> None:
    result = Fal().result(make_reply(200, {"video": {"url": "https://v3.fal.media/a.mp4"}, "seed": seed}))
    assert (result.url, result.seed) == ("https://v3.fal.media/a.mp4", None)


def test_header_outweighs_the_word_in_the_body() -> None:
    reply = make_reply(503, {"detail": "x", "error_type": "internal_error"}, x_fal_error_type="runner_connection_error")
    refusal = Fal().refusal(reply)
    assert isinstance(refusal, Refusal)
    assert (refusal.kind, refusal.seller_code) == ("capacity", "runner_connection_error")


def test_proof_in_the_header_stands_without_a_readable_body() -> None:
    refusal = Fal().refusal(Reply(status=502, headers={"x-fal-error-type": "runner_incomplete_response"}, body=b"\0"))
    assert isinstance(refusal, Refusal)
    assert (refusal.kind, refusal.cost_microusd) == ("provider_error", 0)


def test_empty_detail_list_says_no_more_than_its_status() -> None:
    assert isinstance(Fal().refusal(make_reply(500, {"detail": []})), OutcomeUnknown)


def test_list_of_unknown_types_below_500_is_read_by_its_status() -> None:
    refusal = Fal().refusal(make_reply(403, {"detail": [{"type": "locked", "msg": "Exhausted balance"}]}))
    assert isinstance(refusal, Refusal)
    assert (refusal.kind, refusal.seller_code, refusal.cost_microusd) == ("account", "locked", 0)


def test_refused_start_repeats_its_wait() -> None:
    reply = make_reply(503, {"detail": "full"}, x_fal_error_type="runner_scheduling_failure", retry_after="9")
    refusal = Fal().refusal(reply)
    assert isinstance(refusal, Refusal)
    assert refusal.retry_after_s == 9.0


def test_error_without_words_keeps_its_type() -> None:
    with pytest.raises(Refusal, match="internal_error"):
        Fal().progress(make_reply(200, {"status": "COMPLETED", "error_type": "internal_error"}))


@pytest.mark.parametrize(("status", "details"), [(422, [{}]), (500, [{"type": "generation_timeout"}]), (403, [{}])])
def test_models_reason_without_words_says_its_status(status: int, details: list[dict[str, str]]) -> None:
    assert f"status {status}" in str(Fal().verdict(make_reply(status, {"detail": details})))


def test_empty_detail_says_its_status() -> None:
    reply = make_reply(499, {"detail": "", "error_type": "client_cancelled"})
    assert str(Fal().verdict(reply)) == "status 499"


def test_abilities() -> None:
    assert isinstance(Fal(), Cancels)
    assert isinstance(Fal(), Announces)
    assert not isinstance(Fal(), Finds)


@pytest.mark.parametrize(
    ("key", "odd"),
    [("3f2c-11:ab12", None), ("ab12", "an id and a secret"), (":ab12", "an id and a secret"), ("a:b:c", "an id and")],
)
def test_key_of_another_form_is_odd(key: str, odd: str | None) -> None:
    told = Fal().odd_key(key)
    assert told is None if odd is None else odd in (told or "")
    assert key not in (told or "")
