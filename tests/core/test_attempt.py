"""An attempt knows whether it may still cost, and what its seller calls it."""

from typing import Any, get_args

import pytest

from proxy.core.attempt import Attempt, AttemptState, Ticket

ENDED = {"refused", "failed"}


def make_attempt(**fields: Any) -> Attempt:
    defaults: dict[str, Any] = {
        "video_id": "video_1",
        "number": 1,
        "offer": "p/m/standard/text-to-video",
        "provider": "p",
        "seller_model": "seller/seedance",
        "state": "running",
        "client_ref": "video_1-1",
        "started_at": 0,
        "possible_microusd": 1,
    }
    return Attempt(**defaults | fields)


@pytest.mark.parametrize("state", get_args(AttemptState))
def test_attempt_is_open_until_a_definite_end_without_a_file(state: AttemptState) -> None:
    assert make_attempt(state=state).open == (state not in ENDED)


def test_ticket_is_what_the_seller_is_asked_by() -> None:
    assert make_attempt(seller_id="s-1").ticket == Ticket(seller_id="s-1", seller_model="seller/seedance")


def test_attempt_without_the_sellers_id_cannot_be_asked_about() -> None:
    with pytest.raises(ValueError, match="video_1/1 holds no seller's id"):
        _ = make_attempt().ticket
