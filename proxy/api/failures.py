"""Every error as status and envelope, in one table; nothing else here knows an HTTP status of ours."""

from typing import Any

import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, InternalServerException

from proxy.api.schemas import error_body
from proxy.core import errors

_log = structlog.get_logger("reelay.http")

STATUSES: dict[type[errors.ReelayError], tuple[int, str]] = {
    errors.InvalidApiKey: (401, "authentication_error"),
    errors.PermissionDenied: (403, "permission_error"),
    errors.NotFound: (404, "invalid_request_error"),
    errors.ModelNotFound: (404, "invalid_request_error"),
    errors.MethodNotAllowed: (405, "invalid_request_error"),
    errors.PayloadTooLarge: (413, "invalid_request_error"),
    errors.UnsupportedMediaType: (415, "invalid_request_error"),
    errors.InsufficientQuota: (429, "insufficient_quota"),
    errors.RateLimited: (429, "rate_limit_error"),
    errors.RequestError: (400, "invalid_request_error"),
    errors.NoProviderAvailable: (503, "service_unavailable_error"),
    errors.Overloaded: (503, "service_unavailable_error"),
}
"""Class to status and OpenAI's `type`; the nearest base class counts."""

_FRAMEWORK: dict[int, tuple[type[errors.RequestError], str]] = {
    404: (errors.NotFound, "There is nothing at this address."),
    405: (errors.MethodNotAllowed, "This address does not take that method."),
    413: (errors.PayloadTooLarge, "The body is too large."),
    415: (errors.UnsupportedMediaType, "This content type is not understood."),
}

_CLIENT_LEFT = "client disconnected prematurely"
"""The framework's words for a body that broke off; its status is a 500, as if that were a fault of ours."""


def answer_known(_: Request[Any, Any, Any], error: errors.ReelayError) -> Response[bytes]:
    """One of ours: what it says may be shown, unless it is not the client's business."""
    for kind in type(error).__mro__:
        if kind in STATUSES:
            status, type_ = STATUSES[kind]
            break
    else:
        return answer_unknown(_, error)
    headers = {}
    if isinstance(error, errors.InsufficientQuota | errors.CommitUnknown):
        headers["x-should-retry"] = "false"
    if isinstance(error, errors.Overloaded | errors.RateLimited):
        headers["retry-after"] = str(min(60, max(1, error.retry_after_s)))
    if isinstance(error, errors.RateLimited) and error.limit is not None:
        headers["x-ratelimit-limit-requests"] = str(error.limit)
        headers["x-ratelimit-remaining-requests"] = "0"
        headers["x-ratelimit-reset-requests"] = f"{headers['retry-after']}s"
    if isinstance(error, errors.NoProviderAvailable):
        headers["retry-after"] = "30"
    param = error.param if isinstance(error, errors.RequestError) else None
    return envelope(status, str(error), type_, param, error.code, headers)


def answer_framework(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """What the framework refused by itself."""
    if isinstance(error, InternalServerException) and error.detail == _CLIENT_LEFT:
        return answer_known(request, errors.InvalidValue("The body broke off before its end."))
    if error.status_code >= 500:
        return answer_unknown(request, error)
    kind, message = _FRAMEWORK.get(error.status_code, (errors.InvalidValue, "The request could not be read."))
    answer = answer_known(request, kind(message))
    for name, value in (error.headers or {}).items():
        answer.set_header(name.lower(), value)  # which methods there are, where that was the fault
    return answer


def answer_unknown(_: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Ours to mend: "internal error" outside, everything in the log."""
    _log.error("http.broke", exc_info=error)
    return envelope(500, "internal error", "server_error", None, errors.ReelayError.code, {})


def envelope(
    status: int, message: str, type_: str, param: str | None, code: str, headers: dict[str, str]
) -> Response[bytes]:
    return Response(
        error_body(message, type_, param, code), status_code=status, media_type="application/json", headers=headers
    )


HANDLERS: dict[Any, Any] = {
    errors.ReelayError: answer_known,
    HTTPException: answer_framework,
    Exception: answer_unknown,
}
