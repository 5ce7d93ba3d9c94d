"""What is sent to Runflow, and the answers that no recording shows."""

import json
from typing import Any

import msgspec
import pytest

from proxy.core.attempt import Accepted, Order, Ticket
from proxy.core.errors import Garbled, OutcomeUnknown, Refusal
from proxy.core.wire import Call, Reply
from proxy.providers.base import Announces, Cancels, Finds
from proxy.providers.runflow import Runflow

STANDARD = "bytedance/seedance/2.0/text-to-video"
FAST = "bytedance/seedance/2.0/fast/text-to-video"
REF = "video_0198a0-1"


def make_order(**changes: Any) -> Order:
    order = Order(
        seller_model=STANDARD,
        operation="text-to-video",
        tier="standard",
        prompt="A street musician plays the violin.",
        seconds=5,
        resolution="720p",
        aspect_ratio="16:9",
        generate_audio=True,
        content_filter=True,
        seed=None,
        web_search=False,
        end_user=None,
        client_ref=REF,
        callback_url=None,
    )
    return msgspec.structs.replace(order, **changes)


def sent(call: Call) -> Any:
    assert call.body is not None
    return json.loads(call.body)


def make_reply(body: object, status: int = 200) -> Reply:
    return Reply(status=status, headers={}, body=json.dumps(body).encode())


def failed(**fields: object) -> Refusal:
    """What a run that failed with these fields is read as."""
    with pytest.raises(Refusal) as caught:
        Runflow().progress(make_reply({"id": "r", "status_code": "failed", **fields}))
    return caught.value


def test_key_is_sent_as_a_bearer() -> None:
    assert Runflow().authorize("rf_live_1") == ("Authorization", "Bearer rf_live_1")


def test_fields_lie_under_input_and_the_tag_beside_it() -> None:
    call = Runflow().submit(make_order())
    assert (call.method, call.path, call.query, call.headers) == ("POST", f"/v1/models/{STANDARD}/runs", (), ())
    assert sent(call) == {
        "input": {
            "prompt": "A street musician plays the violin.",
            "aspect_ratio": "16:9",
            "duration": "5",
            "resolution": "720p",
            "generate_audio": True,
        },
        "client_ref": REF,
    }


def test_fast_tier_is_another_path() -> None:
    call = Runflow().submit(make_order(seller_model=FAST, tier="fast", resolution="480p", seconds=4))
    assert call.path == f"/v1/models/{FAST}/runs"
    assert (sent(call)["input"]["duration"], sent(call)["input"]["resolution"]) == ("4", "480p")


def test_full_hd_is_asked_for() -> None:
    assert sent(Runflow().submit(make_order(resolution="1080p")))["input"]["resolution"] == "1080p"


def test_sellers_choice_is_asked_for_in_words() -> None:
    fields = sent(Runflow().submit(make_order(seconds=None, aspect_ratio="auto")))["input"]
    assert (fields["duration"], fields["aspect_ratio"]) == ("auto", "auto")


def test_seed_is_a_number_in_the_newer_runs() -> None:
    assert sent(Runflow().submit(make_order(seed=42)))["input"]["seed"] == 42


def test_silence_is_asked_for() -> None:
    assert sent(Runflow().submit(make_order(generate_audio=False)))["input"]["generate_audio"] is False


def test_end_user_is_named_only_when_the_account_says_so() -> None:
    assert sent(Runflow().submit(make_order(end_user="5f2a")))["input"]["end_user_id"] == "5f2a"


def test_callback_stands_beside_the_input() -> None:
    body = sent(Runflow().submit(make_order(callback_url="https://proxy.example/callbacks/v-1-x")))
    assert body["callback_url"] == "https://proxy.example/callbacks/v-1-x"
    assert "callback_url" not in body["input"]


def test_every_reading_of_a_run_asks_for_signed_links() -> None:
    ticket = Ticket(seller_id="0198a000-0000", seller_model=FAST)
    expected = Call(method="GET", path="/v1/runs/0198a000-0000", query=(("add_signature", "true"),))
    assert Runflow().poll(ticket) == Runflow().collect(ticket) == expected


def test_an_odd_id_stays_one_segment() -> None:
    assert Runflow().poll(Ticket(seller_id="a/b?c", seller_model=STANDARD)).path == "/v1/runs/a%2Fb%3Fc"


def test_a_lost_submit_is_asked_for_by_its_tag() -> None:
    assert Runflow().find(REF) == Call(method="GET", path="/v1/runs", query=(("q", f"client_ref.EQ:'{REF}'"),))


def test_found_run_carries_the_tag() -> None:
    reply = make_reply({"items": [{"id": "r", "client_ref": REF}]})
    assert Runflow().found(reply, REF) == Accepted(seller_id="r")


def test_found_run_without_the_field_is_believed_when_alone() -> None:
    assert Runflow().found(make_reply({"items": [{"id": "r"}]}), REF) == Accepted(seller_id="r")


def test_found_run_of_another_is_not_adopted_and_not_called_missing() -> None:
    with pytest.raises(Garbled):
        Runflow().found(make_reply({"items": [{"id": "r", "client_ref": "j-18-1"}]}), REF)


def test_several_found_runs_without_the_field_are_nobodys() -> None:
    with pytest.raises(Garbled):
        Runflow().found(make_reply({"items": [{"id": "r"}, {"id": "s"}]}), REF)


def test_two_runs_of_one_tag_are_told_by_the_first() -> None:
    reply = make_reply({"items": [{"id": "r", "client_ref": REF}, {"id": "s", "client_ref": REF}]})
    assert Runflow().found(reply, REF) == Accepted(seller_id="r")


def test_found_run_without_an_id_is_garbled() -> None:
    with pytest.raises(Garbled):
        Runflow().found(make_reply({"items": [{"client_ref": REF}]}), REF)


def test_bare_empty_list_is_no_such_run() -> None:
    assert Runflow().found(make_reply([]), REF) is None


def test_an_empty_id_may_have_bought() -> None:
    with pytest.raises(OutcomeUnknown):
        Runflow().accepted(make_reply({"id": "", "run_id": None}))


@pytest.mark.parametrize(
    "message",
    [
        "content_policy_violation",
        "Your prompt violates our content policy",
        "Blocked by moderation",
        "InputTextSensitiveContentDetected",
        "the input may contain sensitive information",
        "output was flagged",
        "NSFW",
    ],
)
def test_words_of_a_content_check_are_moderation(message: str) -> None:
    assert failed(failure_code="UPSTREAM", failure_message=message).kind == "moderation"
    assert failed(failure_code=message).kind == "moderation"


@pytest.mark.parametrize(
    "message", ["unknown field content_filter", "aspect_ratio is case sensitive", "upstream broke", "contention"]
)
def test_other_words_are_not(message: str) -> None:
    assert failed(failure_code="UPSTREAM", failure_message=message).kind == "provider_error"


def test_failure_without_any_word_says_its_status() -> None:
    refusal = failed()
    assert (str(refusal), refusal.kind, refusal.seller_code, refusal.cost_microusd) == (
        "failed",
        "provider_error",
        None,
        0,
    )


def test_failure_speaks_from_an_envelope_in_its_output() -> None:
    refusal = failed(output={"code": "RATE_LIMITED", "message": "Rate limit exceeded", "errors": None})
    assert (refusal.kind, refusal.seller_code, str(refusal)) == ("throttled", "RATE_LIMITED", "Rate limit exceeded")


@pytest.mark.parametrize("cost", [True, "NaN", "-0.1", [], {}, "1,5"])
def test_delivered_film_is_not_lost_over_its_bill(cost: object) -> None:
    output = {"outputs": [{"url": "https://assets.example/r.mp4", "type": "video"}]}
    result = Runflow().result(make_reply({"id": "r", "status_code": "succeeded", "cost": cost, "output": output}))
    assert (result.url, result.cost_microusd) == ("https://assets.example/r.mp4", None)


def test_free_film_costs_nothing_rather_than_unknown() -> None:
    output = {"outputs": [{"url": "https://assets.example/r.mp4"}]}
    result = Runflow().result(make_reply({"id": "r", "status_code": "succeeded", "cost": "0", "output": output}))
    assert result.cost_microusd == 0


def test_pictures_are_no_film() -> None:
    output = {"outputs": [{"url": "https://assets.example/cover.png", "type": "image"}]}
    with pytest.raises(Refusal) as caught:
        Runflow().result(make_reply({"id": "r", "status_code": "succeeded", "output": output}))
    assert caught.value.kind == "provider_error"


def test_unknown_code_is_read_by_its_status() -> None:
    refusal = Runflow().refusal(make_reply({"code": "TEAPOT", "message": "no"}, status=418))
    assert isinstance(refusal, Refusal)
    assert (refusal.kind, refusal.seller_code) == ("invalid_input", "TEAPOT")


def test_code_alone_does_not_make_a_502_certain() -> None:
    refusal = Runflow().refusal(make_reply({"code": "MODEL_UNAVAILABLE", "message": "down"}, status=502))
    assert isinstance(refusal, OutcomeUnknown)


def test_abilities() -> None:
    assert isinstance(Runflow(), Finds)
    assert isinstance(Runflow(), Announces)
    assert not isinstance(Runflow(), Cancels)


@pytest.mark.parametrize(
    ("key", "odd"),
    [("rf_live_ab12", None), ("rf_svc_ab12", "administration"), ("rf_live_Ab-12", "small letters, digits")],
)
def test_key_of_another_form_is_odd(key: str, odd: str | None) -> None:
    told = Runflow().odd_key(key)
    assert told is None if odd is None else odd in (told or "")
    assert key not in (told or "")
