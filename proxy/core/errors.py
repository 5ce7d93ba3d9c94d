"""
Everything that can go wrong, each class something the caller would do differently.

ReelayError
├── RequestError            the client asked for something it cannot have; nothing was bought
│   ├── InvalidValue, InvalidType, MissingParameter, UnknownParameter
│   ├── Unsupported         no offer can do this; the message says what is possible
│   ├── ModelNotFound, NotFound
│   ├── InvalidApiKey, PermissionDenied
│   ├── InsufficientQuota, RateLimited
│   └── PayloadTooLarge, MethodNotAllowed, UnsupportedMediaType
├── NoProviderAvailable     nobody is switched on
├── Overloaded              come back in `retry_after_s`; nothing was kept
│   └── CommitUnknown       nobody can say whether it was kept
├── ConfigError             the operator's mistake: one clear line, exit 2
├── PriceMissing            no price was in force; never guessed
├── LeaseLost               another worker holds this work now; nothing of ours may be written
└── SellerError             what an exchange with a seller can end in
    ├── NotSent             certainly no byte left
    ├── Interrupted         bytes may have left, no answer was read
    ├── Refusal             the seller's definite no, or its definite failure
    ├── OutcomeUnknown      a submit that may have bought
    └── Garbled             an answer that says nothing we know
"""

from typing import Literal

FailureKind = Literal[
    "throttled", "capacity", "provider_error", "seller_timeout", "account", "invalid_input", "moderation", "cancelled"
]
"""
Why a seller did not deliver, in one word; policy decides on this word alone.

throttled: too many requests. capacity: it cannot be reached or is full just now. provider_error: the
render broke. seller_timeout: the seller's own clock ran out. account: key, credit or permission.
invalid_input: it will not take these fields. moderation: it will not make this content. cancelled:
it stopped because we, or its operator, asked.
"""


class ReelayError(Exception):
    """The root; `code` is stable and may be shown."""

    code = "internal_error"


class RequestError(ReelayError):
    """The client's mistake; `param` names the field at fault, if one does."""

    code = "invalid_value"

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class InvalidValue(RequestError):
    code = "invalid_value"


class InvalidType(RequestError):
    code = "invalid_type"


class MissingParameter(RequestError):
    code = "missing_parameter"


class UnknownParameter(RequestError):
    code = "unknown_parameter"


class Unsupported(RequestError):
    code = "unsupported_request"


class ModelNotFound(RequestError):
    code = "model_not_found"


class NotFound(RequestError):
    code = "not_found"


class InvalidApiKey(RequestError):
    code = "invalid_api_key"


class PermissionDenied(RequestError):
    code = "permission_denied"


class InsufficientQuota(RequestError):
    code = "insufficient_quota"


class RateLimited(RequestError):
    """
    Too many requests, or too many videos under way, of this key or tenant just now.

    `limit` is how many requests a minute may have, None where something else is too much.
    """

    code = "rate_limit_exceeded"

    def __init__(self, message: str, *, retry_after_s: int, limit: int | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.limit = limit


class PayloadTooLarge(RequestError):
    code = "payload_too_large"


class MethodNotAllowed(RequestError):
    code = "method_not_allowed"


class UnsupportedMediaType(RequestError):
    code = "unsupported_media_type"


class NoProviderAvailable(ReelayError):
    code = "no_provider_available"


class Overloaded(ReelayError):
    """Not now: queue full, draining, disk full, or a commit that failed."""

    code = "server_is_overloaded"

    def __init__(self, message: str, *, retry_after_s: int = 5) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class CommitUnknown(Overloaded):
    """Nobody can say whether the request was kept; asked again without a key, it may be kept twice."""


class ConfigError(ReelayError):
    """The operator's mistake; the message is the one line that is shown."""

    code = "config_error"


class PriceMissing(ReelayError):
    code = "no_price"


class LeaseLost(ReelayError):
    code = "lease_lost"


class SellerError(ReelayError):
    code = "provider_error"


class NotSent(SellerError):
    """No connection was made: refused, unresolved, untrusted, or no free one in time."""


class Interrupted(SellerError):
    """The exchange broke after bytes may have left."""


class Refusal(SellerError):
    """
    The seller's definite no before, or definite failure after, it accepted.

    `seller_code` is the seller's own word; `cost_microusd` what it took all the same, None if it
    does not say; `retry_after_s` what it asked us to wait.
    """

    def __init__(
        self,
        kind: FailureKind,
        message: str,
        *,
        seller_code: str | None = None,
        retry_after_s: float | None = None,
        cost_microusd: int | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.seller_code = seller_code
        self.retry_after_s = retry_after_s
        self.cost_microusd = cost_microusd


class OutcomeUnknown(SellerError):
    """A submit whose end nobody can tell from the answer; it may have bought."""

    code = "outcome_unknown"


class Garbled(SellerError):
    """An answer that cannot be read, or a status never heard of; counted and asked again."""
