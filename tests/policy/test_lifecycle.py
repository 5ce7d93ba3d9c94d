"""The two tables: what a video may become, and who bears what a seller took."""

import itertools
from typing import get_args

import pytest

from proxy.core.video import Status, VideoFailure
from proxy.policy.lifecycle import LIVE, MOVES, Bearer, bearer

STATUSES: tuple[Status, ...] = get_args(Status)
FAILURES: tuple[VideoFailure, ...] = get_args(VideoFailure)
BOTH = (True, False)


def test_every_status_says_what_it_may_become() -> None:
    assert set(MOVES) == set(STATUSES)
    assert {after for afters in MOVES.values() for after in afters} == set(STATUSES) - {"queued"}


def test_status_never_goes_back() -> None:
    order = {"queued": 0, "in_progress": 1, "completed": 2, "failed": 2}
    assert all(order[before] < order[after] for before, afters in MOVES.items() for after in afters)


def test_ended_video_never_reopens_and_every_other_can_fail() -> None:
    assert LIVE == ("queued", "in_progress")
    for status in STATUSES:
        assert ("failed" in MOVES[status]) == (status in LIVE)
        assert bool(MOVES[status]) == (status in LIVE)


def test_video_is_delivered_only_after_it_was_taken() -> None:
    assert [status for status in STATUSES if "completed" in MOVES[status]] == ["in_progress"]


@pytest.mark.parametrize(
    ("failure", "who"),
    [
        ("cancelled", "tenant"),
        ("deadline_exceeded", "absorbed:abandoned"),
        ("outcome_unknown", "absorbed:unknown"),
        ("storage_error", "absorbed:undelivered"),
        ("provider_error", "absorbed:unknown"),
        ("no_provider_available", "absorbed:unknown"),
        ("moderation_blocked", "absorbed:unknown"),
    ],
)
def test_after_a_video_failed_its_own_reason_says_who_bears(failure: VideoFailure, who: Bearer) -> None:
    for finished, bill in itertools.product(BOTH, BOTH):
        assert bearer("failed", failure, finished=finished, bill_failed_attempts=bill) == who


def test_every_failure_has_its_bearer() -> None:
    for failure in FAILURES:
        assert bearer("failed", failure, finished=True, bill_failed_attempts=False) in get_args(Bearer)


@pytest.mark.parametrize("status", ["queued", "in_progress", "completed"])
@pytest.mark.parametrize("bill", BOTH)
def test_second_film_of_one_video_is_nobodys_bill(status: Status, bill: bool) -> None:
    assert bearer(status, None, finished=True, bill_failed_attempts=bill) == "absorbed:double"


@pytest.mark.parametrize("status", LIVE)
def test_failed_attempt_is_absorbed_unless_the_rule_bills_it(status: Status) -> None:
    assert bearer(status, None, finished=False, bill_failed_attempts=False) == "absorbed:failed_attempt"
    assert bearer(status, None, finished=False, bill_failed_attempts=True) == "tenant"


@pytest.mark.parametrize("bill", BOTH)
def test_bill_of_a_delivered_video_is_closed(bill: bool) -> None:
    assert bearer("completed", None, finished=False, bill_failed_attempts=bill) == "absorbed:failed_attempt"


def test_tenant_bears_only_its_own_cancelling_or_what_its_rule_bills() -> None:
    for status, finished, bill in itertools.product(STATUSES, BOTH, BOTH):
        failures: tuple[VideoFailure | None, ...] = FAILURES if status == "failed" else (None,)
        for failure in failures:
            if bearer(status, failure, finished=finished, bill_failed_attempts=bill) == "tenant":
                assert failure == "cancelled" or (status in LIVE and bill and not finished)
