"""What an adapter is: an order in the seller's words, and what its answers mean. All pure."""

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol, TypeVar, runtime_checkable

import msgspec

from proxy.core.attempt import Accepted, CancelAnswer, Done, Order, Progress, Result, Ticket
from proxy.core.errors import FailureKind, Garbled, OutcomeUnknown, Refusal, SellerError
from proxy.core.wire import Call, Reply

T = TypeVar("T")


class Adapter(Protocol):
    """
    One seller's wire: how an order is sent, and what the answer to it says.

    It sees no client, clock, setting, log or price. What only some sellers can is a Protocol of its own,
    `Polls` first: only one that answers with the film itself does without.
    """

    name: str
    base_url: str
    """The seller's own host; an account may name another."""

    def authorize(self, api_key: str) -> tuple[str, str]:
        """The header that carries the key: name and value."""
        ...

    def submit(self, order: Order) -> Call: ...

    def accepted(self, reply: Reply) -> Accepted | Done:
        """
        Reads a 2xx; `Accepted` only where the seller can be asked again.

        Raises Refusal for a definite no inside a 2xx, OutcomeUnknown for an answer that cannot be read.
        """
        ...

    def refusal(self, reply: Reply) -> SellerError:
        """
        Names a reply that is not 2xx: Refusal, or OutcomeUnknown where a submit may have bought.

        The service reads it by what it asked. A poll is asked again whatever its status. For `collect`
        a Refusal is the definite end, but for a status that says nothing of the order: 401, 402, 403,
        404, 429 and 503 are asked again.
        """
        ...


@runtime_checkable
class Polls(Adapter, Protocol):
    """
    A seller that takes an order, and is asked how it stands.

    `progress` and `result` read replies with a 2xx status. Bad news inside a 2xx is raised.
    """

    def poll(self, ticket: Ticket) -> Call: ...

    def progress(self, reply: Reply) -> Progress:
        """
        Raises Refusal for a definite end without a file, Garbled for what it does not know.

        A query that was itself refused inside a 2xx says nothing of the order: Garbled.
        """
        ...

    def collect(self, ticket: Ticket) -> Call:
        """Asks for the file of an order that succeeded; may be asked again for a fresh link."""
        ...

    def result(self, reply: Reply) -> Result:
        """Raises Refusal where success turns out to have no file, Garbled for what it does not know."""
        ...


@runtime_checkable
class Cancels(Protocol):
    """A seller that can be asked to stop."""

    def cancel(self, ticket: Ticket) -> Call: ...

    def cancelled(self, reply: Reply) -> CancelAnswer:
        """Reads any status. Raises Garbled for what it does not know."""
        ...


@runtime_checkable
class Finds(Protocol):
    """A seller that can say whether a lost submit arrived."""

    def find(self, client_ref: str) -> Call: ...

    def found(self, reply: Reply, client_ref: str) -> Accepted | None:
        """None: no such order. Raises Garbled where the answer cannot be read or names another order."""
        ...


@runtime_checkable
class Judges(Protocol):
    """A seller whose file is asked for by itself, so that a refusal to give it is a verdict on the order."""

    def verdict(self, reply: Reply) -> SellerError:
        """Names a reply to `collect` that is not 2xx; Refusal is the definite end of an order that was taken."""
        ...


@runtime_checkable
class Announces(Protocol):
    """A seller whose callback names its own id."""

    def announced(self, body: bytes) -> str | None:
        """The id and nothing else; None where the body names none."""
        ...


@runtime_checkable
class KnowsKeys(Protocol):
    """A seller whose keys have a form that is known."""

    def odd_key(self, api_key: str) -> str | None:
        """What is odd about a key, told without it; None: nothing."""
        ...


UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises for bytes that are no such JSON; the last for one nested beyond sense."""


def decode(reply: Reply, shape: type[T]) -> T:
    """The body as `shape`, fields added by the seller ignored. Raises Garbled."""
    try:
        return msgspec.json.decode(reply.body, type=shape)
    except UNREADABLE as exc:
        raise Garbled(f"unreadable answer with status {reply.status}: {exc}") from exc


def is_readable(reply: Reply) -> bool:
    """Whether the body is a JSON object: an answer of the application, not of some ingress before it."""
    try:
        return isinstance(msgspec.json.decode(reply.body), dict)
    except UNREADABLE:
        return False


def json_body(fields: dict[str, Any]) -> bytes:
    return msgspec.json.encode(fields)


LONGEST_WAIT_S = 86_400.0
"""No seller's word keeps us away for longer."""


def retry_after_s(reply: Reply) -> float | None:
    """
    `Retry-After` in seconds, a date counted from the reply's own `Date`; None where absent or odd.

    At most LONGEST_WAIT_S.
    """
    text = reply.headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        return min(LONGEST_WAIT_S, float(text))
    try:
        then = parsedate_to_datetime(text)
        sent = parsedate_to_datetime(reply.headers.get("date", ""))
    except (TypeError, ValueError, OverflowError):
        return None
    return min(LONGEST_WAIT_S, max(0.0, (_aware(then) - _aware(sent)).total_seconds()))


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


_KINDS: dict[int, FailureKind] = {
    401: "account",
    402: "account",
    403: "account",
    429: "throttled",
    503: "capacity",
}


def default_refusal(
    reply: Reply, message: str, *, kind: FailureKind | None = None, seller_code: str | None = None
) -> SellerError:
    """
    The common meaning of a status that is not 2xx; `kind` overrides the word, never the certainty.

    429 and 503 are refusals whoever sent them; any other 4xx but 408 only with a readable body; the
    rest may have bought.
    """
    certain = reply.status in {429, 503} or (400 <= reply.status < 500 and reply.status != 408 and is_readable(reply))
    if not certain:
        return OutcomeUnknown(f"status {reply.status}: {message}")
    return Refusal(
        kind or _KINDS.get(reply.status, "invalid_input"),
        message,
        seller_code=seller_code,
        retry_after_s=retry_after_s(reply),
        cost_microusd=0,
    )
