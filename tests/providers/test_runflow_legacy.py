"""What is sent to Runflow's older interface, and the answers that no recording shows."""

from typing import Any

import msgspec
import pytest

from proxy.core.errors import OutcomeUnknown, Refusal
from proxy.core.wire import Reply
from proxy.providers import contract
from proxy.providers.base import Announces, Cancels, Finds, Polls
from proxy.providers.runflow_legacy import RunflowLegacy

SELLER = RunflowLegacy()
ORDER = msgspec.structs.replace(
    contract.ORDER,
    seller_model="bytedance/seedance/2.0/text-to-video",
    prompt="a paper boat in rain",
    callback_url=None,
)
FIELDS = {
    "prompt": "a paper boat in rain",
    "duration": "5",
    "resolution": "720p",
    "aspect_ratio": "16:9",
    "generate_audio": True,
}


def sent(**changes: Any) -> Any:
    body = SELLER.submit(msgspec.structs.replace(ORDER, **changes)).body
    assert body is not None
    return msgspec.json.decode(body)


def reply(status: int, body: Any) -> Reply:
    return Reply(status=status, headers={}, body=msgspec.json.encode(body))


def test_key_travels_as_bearer() -> None:
    assert SELLER.authorize("rf_live_1") == ("Authorization", "Bearer rf_live_1")


def test_fields_of_the_model_are_the_body() -> None:
    call = SELLER.submit(ORDER)
    assert (call.method, call.path) == ("POST", "/v1/run/bytedance/seedance/2.0/text-to-video")
    assert (call.query, call.headers) == ((), ())
    assert sent() == FIELDS


def test_seed_goes_as_text() -> None:
    assert sent(seed=42) == {**FIELDS, "seed": "42"}
    assert sent(seed=0)["seed"] == "0"


def test_length_and_ratio_may_be_left_to_the_seller() -> None:
    assert sent(seconds=None, aspect_ratio="auto") == {**FIELDS, "duration": "auto", "aspect_ratio": "auto"}


def test_end_user_is_sent_where_there_is_one() -> None:
    assert sent(end_user="u-1") == {**FIELDS, "end_user_id": "u-1"}


def test_what_it_has_no_field_for_is_not_sent() -> None:
    odd = sent(content_filter=False, web_search=True, callback_url="https://proxy.example/callbacks/t-1")
    assert odd == FIELDS


def test_it_can_be_asked_nothing_afterwards() -> None:
    assert not isinstance(SELLER, Polls | Cancels | Finds | Announces)


@pytest.mark.parametrize("seed", ["42", True, 4.2, None, [42]])
def test_seed_of_another_form_does_not_lose_the_film(seed: Any) -> None:
    done = SELLER.accepted(reply(200, {"video": {"url": "https://cdn.example/x.mp4"}, "seed": seed}))
    assert (done.result.url, done.result.seed) == ("https://cdn.example/x.mp4", None)


@pytest.mark.parametrize("name", [7, "", None, ["run-1"]])
def test_id_of_another_form_does_not_lose_the_film(name: Any) -> None:
    assert SELLER.accepted(reply(200, {"video": {"url": "https://x/a.mp4"}, "id": name})).seller_id is None


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"{}", b'{"video":{}}', b'{"video":{"url":""}}', b'{"video":"https://x"}']
)
def test_answer_without_a_film_may_have_bought_one(body: bytes) -> None:
    with pytest.raises(OutcomeUnknown, match="Runflow may have made a film"):
        SELLER.accepted(Reply(status=200, headers={}, body=body))


@pytest.mark.parametrize("status", [408, 500, 501, 502, 503, 504, 520, 524])
@pytest.mark.parametrize("body", [{"code": "INTERNAL_ERROR", "message": "x"}, "<html>", {"error": "x"}, {}])
def test_whatever_breaks_an_answer_may_have_bought(status: int, body: Any) -> None:
    assert type(SELLER.refusal(reply(status, body))) is OutcomeUnknown


def test_model_that_is_switched_off_has_not_bought_and_may_be_asked_again() -> None:
    refusal = SELLER.refusal(reply(503, {"code": "MODEL_UNAVAILABLE", "message": "switched off"}))
    assert isinstance(refusal, Refusal)
    assert (refusal.kind, refusal.cost_microusd) == ("capacity", 0)


@pytest.mark.parametrize(
    ("key", "odd"),
    [("rf_live_ab12", None), ("rf_svc_ab12", "administration"), ("rf_live_Ab-12", "small letters, digits")],
)
def test_key_of_another_form_is_odd(key: str, odd: str | None) -> None:
    told = SELLER.odd_key(key)
    assert told is None if odd is None else odd in (told or "")
    assert key not in (told or "")
