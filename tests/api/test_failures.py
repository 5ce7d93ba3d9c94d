"""Every error has one status, OpenAI's envelope and the headers that keep clients from useless retries."""

import json
from typing import Any

import pytest
from litestar import Request
from litestar.exceptions import (
    HTTPException,
    InternalServerException,
    MethodNotAllowedException,
    NotFoundException,
)

from proxy.api.failures import answer_framework, answer_known, answer_unknown
from proxy.core import errors

REQUEST: Request[Any, Any, Any] = Request({"type": "http", "headers": []})  # type: ignore[arg-type]  # nothing of it is read

STATUSES: dict[type[errors.RequestError], tuple[int, str]] = {
    errors.InvalidValue: (400, "invalid_request_error"),
    errors.InvalidType: (400, "invalid_request_error"),
    errors.MissingParameter: (400, "invalid_request_error"),
    errors.UnknownParameter: (400, "invalid_request_error"),
    errors.Unsupported: (400, "invalid_request_error"),
    errors.ModelNotFound: (404, "invalid_request_error"),
    errors.NotFound: (404, "invalid_request_error"),
    errors.InvalidApiKey: (401, "authentication_error"),
    errors.PermissionDenied: (403, "permission_error"),
    errors.InsufficientQuota: (429, "insufficient_quota"),
    errors.PayloadTooLarge: (413, "invalid_request_error"),
    errors.MethodNotAllowed: (405, "invalid_request_error"),
    errors.UnsupportedMediaType: (415, "invalid_request_error"),
}


def body_of(answer: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(answer.content)
    assert set(body) == {"error"}
    return body["error"]  # type: ignore[no-any-return]  # JSON


def headers_of(answer: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in answer.headers.items()}


def test_table_knows_every_refusal_of_a_request() -> None:
    assert set(STATUSES) | {errors.RateLimited} == set(errors.RequestError.__subclasses__())


@pytest.mark.parametrize("kind", STATUSES, ids=lambda kind: kind.__name__)
def test_refusal_says_what_was_wrong(kind: type[errors.RequestError]) -> None:
    answer = answer_known(REQUEST, kind("so it is", param="field"))
    status, type_ = STATUSES[kind]
    assert answer.status_code == status
    assert body_of(answer) == {"message": "so it is", "type": type_, "param": "field", "code": kind.code}


def test_quota_is_not_worth_a_retry() -> None:
    assert headers_of(answer_known(REQUEST, errors.InsufficientQuota("spent")))["x-should-retry"] == "false"


@pytest.mark.parametrize(("told_s", "sent_s"), [(0, "1"), (7, "7"), (3600, "60")])
def test_wait_is_told_within_what_every_sdk_obeys(told_s: int, sent_s: str) -> None:
    for error in (errors.Overloaded("full", retry_after_s=told_s), errors.RateLimited("fast", retry_after_s=told_s)):
        assert headers_of(answer_known(REQUEST, error))["retry-after"] == sent_s
    assert answer_known(REQUEST, errors.Overloaded("full")).status_code == 503


def test_rate_is_told_as_openai_tells_it() -> None:
    headers = headers_of(answer_known(REQUEST, errors.RateLimited("fast", retry_after_s=12, limit=100)))
    told = {name: value for name, value in headers.items() if name.startswith("x-ratelimit-")}
    assert told == {
        "x-ratelimit-limit-requests": "100",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "12s",
    }
    other = headers_of(answer_known(REQUEST, errors.RateLimited("too many under way", retry_after_s=12)))
    assert not any(name.startswith("x-ratelimit-") for name in other)


def test_nobody_to_buy_from_is_503() -> None:
    answer = answer_known(REQUEST, errors.NoProviderAvailable("all off"))
    assert (answer.status_code, body_of(answer)["code"]) == (503, "no_provider_available")


@pytest.mark.parametrize(
    "error", [errors.Garbled("secret"), errors.PriceMissing("secret"), errors.LeaseLost("secret"), ValueError("secret")]
)
def test_what_is_not_the_clients_business_is_an_internal_error(error: Exception) -> None:
    answer = answer_known(REQUEST, error) if isinstance(error, errors.ReelayError) else answer_unknown(REQUEST, error)
    assert answer.status_code == 500
    assert body_of(answer) == {
        "message": "internal error",
        "type": "server_error",
        "param": None,
        "code": "internal_error",
    }


def test_frameworks_own_refusals_look_like_ours() -> None:
    not_found = answer_framework(REQUEST, NotFoundException())
    assert (not_found.status_code, body_of(not_found)["code"]) == (404, "not_found")
    method = answer_framework(REQUEST, MethodNotAllowedException(headers={"allow": "GET"}))
    assert (method.status_code, body_of(method)["code"], headers_of(method)["allow"]) == (
        405,
        "method_not_allowed",
        "GET",
    )
    odd = answer_framework(REQUEST, HTTPException(status_code=418, detail="secret"))
    assert (odd.status_code, body_of(odd)["code"]) == (400, "invalid_value")
    assert "secret" not in body_of(odd)["message"]
    broken = answer_framework(REQUEST, HTTPException(status_code=500, detail="secret"))
    assert (broken.status_code, body_of(broken)["message"]) == (500, "internal error")


def test_body_that_broke_off_is_the_clients_doing() -> None:
    left = answer_framework(REQUEST, InternalServerException("client disconnected prematurely"))
    other = answer_framework(REQUEST, InternalServerException("stream consumed"))
    assert (left.status_code, body_of(left)["code"]) == (400, "invalid_value")
    assert (other.status_code, body_of(other)["code"]) == (500, "internal_error")
