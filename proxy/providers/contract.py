"""
What every adapter keeps, as checks without a network, for the built-in ones and for those of other packages alike.

With pytest, for an adapter `Lantern` whose recordings lie beside the test:

    @pytest.mark.parametrize("check", checks(Lantern, Path(__file__).parent / "recordings"), ids=str)
    def test_lantern_keeps_the_contract(check: Check) -> None:
        check()

With anything else, call each of them.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import msgspec

from proxy.core.attempt import Accepted, Order, Ticket
from proxy.core.errors import Garbled, OutcomeUnknown, Refusal, SellerError
from proxy.core.wire import Call, Reply
from proxy.providers.base import UNREADABLE, Adapter, Announces, Cancels, Finds, Judges, Polls

Question = Literal["accepted", "progress", "result", "refusal", "verdict", "cancelled", "found", "announced"]

# What a recording is


class Recorded(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The seller's answer: either a `body`, sent as JSON, or a `text`, sent as it is."""

    status: int
    headers: dict[str, str]
    body: Any = msgspec.UNSET
    text: str | None = None

    def as_reply(self) -> Reply:
        body = msgspec.json.encode(self.body) if self.text is None else self.text.encode()
        return Reply(
            status=self.status, headers={name.lower(): value for name, value in self.headers.items()}, body=body
        )


class Answer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of `returns` (the name of a Struct, or null), `value` (a plain word, or null) and `raises`."""

    returns: str | msgspec.UnsetType | None = msgspec.UNSET
    value: str | msgspec.UnsetType | None = msgspec.UNSET
    raises: Literal["Refusal", "OutcomeUnknown", "Garbled"] | msgspec.UnsetType = msgspec.UNSET
    """Also of an error that is returned, as `refusal` and `verdict` do."""
    fields: dict[str, Any] = msgspec.field(default_factory=dict)
    """Of what is returned or raised; those that are not written are free."""


class Recording(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One answer that a seller can give, and what its adapter must make of it: one JSON file."""

    kind: str
    """One of KINDS, or whatever else the seller can say."""
    question: Question
    """The adapter's method that reads it."""
    source: str
    """Where this is from: a page, a client, a guess."""
    sure: Literal["seen", "documented", "derived", "assumed"]
    reply: Recorded
    answer: Answer
    client_ref: str | None = None
    """For `found`: the tag that was asked for."""


KINDS = frozenset({"done", "refused", "throttled", "account", "broken", "unheard_of"})
"""Kinds of answers that every seller can give and every adapter has on record."""

KINDS_OF_POLLS = frozenset({"accepted", "queued", "running"})
"""Those of one that is asked how an order stands."""

ORDER = Order(
    seller_model="owner/model/text-to-video",
    operation="text-to-video",
    tier="standard",
    prompt='A fox says: "Good night." 🦊',
    seconds=5,
    resolution="720p",
    aspect_ratio="16:9",
    generate_audio=True,
    content_filter=True,
    seed=None,
    web_search=False,
    end_user=None,
    client_ref="video_0198a0-1",
    callback_url="https://proxy.example/callbacks/a-1-b?c=d&e",
)
"""What the checks order, unless they are told otherwise."""

# What a check is


class ContractBroken(AssertionError):
    """A promise that an adapter does not keep."""


class Check(msgspec.Struct, frozen=True):
    """One promise; called, it raises ContractBroken, or whatever the adapter itself raises."""

    promise: str
    run: Callable[[], None]

    def __call__(self) -> None:
        self.run()

    def __str__(self) -> str:
        return self.promise


def checks(make: Callable[[], Adapter], recordings: Path, *, order: Order = ORDER) -> list[Check]:
    """
    Everything that is promised of the adapter that `make` makes; `recordings` is a folder of JSON files.

    `order` is one that its seller would take, where that is not ORDER.
    """
    adapter, files = make(), sorted(recordings.glob("*.json"))
    found: dict[str, Callable[[], None]] = {
        "every kind of answer is on record": partial(_every_kind, adapter, files),
        "every question is on record": partial(_every_question, adapter, files),
        "only a seller that is asked again is promised to be": partial(_asked_again, adapter, files),
        "no call carries a key or a host": partial(_no_key_and_no_host, adapter, order),
        "the base URL is the seller's own host without a slash": partial(_own_host, adapter),
        "the same order makes the same call": partial(_same_call, adapter, make(), order),
        "a submit is a POST of the prompt as it is": partial(_post_of_prompt, adapter, order),
        "polls change nothing at the seller": partial(_polls_only_ask, adapter, order),
        "a page of an ingress may have bought": partial(_page_of_ingress, adapter),
        "a seller too busy to say more has refused": partial(_too_busy, adapter),
        "nonsense is never an answer": partial(_nonsense, adapter),
    }
    for file in files:
        found[f"{file.stem} is answered as written"] = partial(_answered_as_written, adapter, file)
    return [Check(promise, run) for promise, run in found.items()]


def _keep(kept: object, otherwise: str) -> None:
    if not kept:
        raise ContractBroken(otherwise)


# Recordings


def _read(file: Path) -> Recording:
    try:
        return msgspec.json.decode(file.read_bytes(), type=Recording)
    except UNREADABLE as exc:
        raise ContractBroken(f"{file.name} is no recording: {exc}") from exc


_NAMING = ("refusal", "verdict")
"""Questions whose answer is an error that is returned."""
_OF_2XX = ("accepted", "progress", "result", "found")


_ABILITIES: dict[str, type] = {
    "progress": Polls,
    "result": Polls,
    "verdict": Judges,
    "cancelled": Cancels,
    "found": Finds,
    "announced": Announces,
}
"""Questions that only some can be asked."""


def _says_what_it_is(recording: Recording) -> None:
    _keep(recording.source, "it does not say where it is from")
    reply, answer = recording.reply, recording.answer
    _keep((reply.body is msgspec.UNSET) == (reply.text is not None), "either a body or a text")
    forms = [answer.returns, answer.value, answer.raises]
    _keep(forms.count(msgspec.UNSET) == 2, "one answer, of one form: `returns`, `value` or `raises`")
    good = 200 <= reply.status < 300
    _keep(good or recording.question not in _OF_2XX, "every status but 2xx goes to `refusal`")
    _keep(not good or recording.question not in _NAMING, "`refusal` and `verdict` get no 2xx")


def _answered_as_written(adapter: Adapter, file: Path) -> None:
    recording = _read(file)
    _says_what_it_is(recording)
    able = isinstance(adapter, _ABILITIES.get(recording.question, object))
    _keep(able, f"it cannot be asked for `{recording.question}`")
    answer, naming = recording.answer, recording.question in _NAMING
    try:
        value = _ask(adapter, recording)
    except SellerError as error:
        _keep(not naming, f"it names an error, and raises none: {error!r}")
        _is_error(error, answer)
        return
    if isinstance(value, SellerError):
        _keep(naming, f"only `refusal` and `verdict` return errors: {value!r}")
        _is_error(value, answer)
        return
    _keep(answer.raises is msgspec.UNSET, f"{answer.raises} is written, not {value!r}")
    if answer.value is not msgspec.UNSET:
        _keep(value == answer.value, f"{answer.value!r} is written, not {value!r}")
    elif answer.returns is None:
        _keep(value is None, f"null is written, not {value!r}")
    else:
        _keep(type(value).__name__ == answer.returns, f"{answer.returns} is written, not {value!r}")
        _keep(_agrees(msgspec.to_builtins(value), answer.fields), f"{answer.fields} is written, not {value!r}")


def _ask(adapter: Adapter, recording: Recording) -> object:
    """Puts the recording's question; what is raised is for the caller to catch."""
    reply = recording.reply.as_reply()
    match recording.question:
        case "announced":
            return cast("Announces", adapter).announced(reply.body)
        case "found":
            return cast("Finds", adapter).found(reply, recording.client_ref or "")
        case question:
            return getattr(adapter, question)(reply)


def _is_error(error: SellerError, answer: Answer) -> None:
    _keep(type(error).__name__ == answer.raises, f"{answer.raises} is written, not {error!r}")
    _keep(_agrees(vars(error), answer.fields), f"{answer.fields} is written, not {vars(error)}")
    _keep(str(error), "an error says what was wrong")


def _agrees(actual: Any, expected: Any) -> bool:
    """Whether every recorded field is there with its value; fields that were not recorded are free."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        return all(name in actual and _agrees(actual[name], value) for name, value in expected.items())
    return bool(actual == expected and type(actual) is type(expected))


def _every_kind(adapter: Adapter, files: list[Path]) -> None:
    needed = KINDS | KINDS_OF_POLLS if isinstance(adapter, Polls) else KINDS
    missing = needed - {_read(file).kind for file in files}
    _keep(not missing, f"nothing is on record for: {', '.join(sorted(missing))}")


def _every_question(adapter: Adapter, files: list[Path]) -> None:
    asked = {_read(file).question for file in files}
    able = {question for question, ability in _ABILITIES.items() if isinstance(adapter, ability)}
    missing = {"accepted", "refusal", *able} - asked
    _keep(not missing, f"nothing is on record for: {', '.join(sorted(missing))}")


def _asked_again(adapter: Adapter, files: list[Path]) -> None:
    if isinstance(adapter, Polls):
        return
    _keep(
        not isinstance(adapter, Cancels | Finds | Announces | Judges),
        "without `Polls` nobody can follow an order that is found, announced or cancelled",
    )
    promised = [file.stem for file in files if _read(file).answer.returns == Accepted.__name__]
    _keep(not promised, f"without `Polls` nobody can follow what is accepted in: {', '.join(promised)}")


# Calls

_KEY = "sk_made_up"


def _calls(adapter: Adapter, order: Order) -> Iterator[Call]:
    # An id is the seller's word and may hold anything.
    ticket = Ticket(seller_id="made/up?id", seller_model=order.seller_model)
    yield adapter.submit(order)
    if isinstance(adapter, Polls):
        yield adapter.poll(ticket)
        yield adapter.collect(ticket)
    if isinstance(adapter, Cancels):
        yield adapter.cancel(ticket)
    if isinstance(adapter, Finds):
        yield adapter.find(order.client_ref)


def _no_key_and_no_host(adapter: Adapter, order: Order) -> None:
    header, value = adapter.authorize(_KEY)
    _keep(value != adapter.authorize(f"{_KEY}_too")[1], "another key is another header")
    for call in _calls(adapter, order):
        _keep(call.path.startswith("/") and not call.path.startswith("//"), f"{call.path} is no path")
        odd = {"?", "#", " "} & set(call.path)
        _keep("://" not in call.path and not odd, f"what a seller's id holds is one part of {call.path}")
        sent = {name.lower() for name, _ in call.headers}
        _keep(not sent & {header.lower(), "authorization"}, f"{call.path} carries the header of a key")
        _keep(_KEY not in repr(call), f"{call.path} carries the key itself")


def _own_host(adapter: Adapter) -> None:
    _keep(adapter.base_url.startswith("https://"), f"{adapter.base_url} is no https")
    _keep(not adapter.base_url.endswith("/"), f"{adapter.base_url} ends with a slash")


def _same_call(adapter: Adapter, another: Adapter, order: Order) -> None:
    first, again, others = (list(_calls(one, order)) for one in (adapter, adapter, another))
    _keep(first == again == others, "it depends on more than the order")


def _post_of_prompt(adapter: Adapter, order: Order) -> None:
    call = adapter.submit(order)
    _keep(call.method == "POST", f"{call.method} is no POST")
    _keep(order.prompt in _values(msgspec.json.decode(call.body or b"null")), "the prompt is not in it, or is changed")


def _values(body: object) -> Iterator[object]:
    """Every value in a decoded body, however deep."""
    if isinstance(body, dict | list):
        for value in body.values() if isinstance(body, dict) else body:
            yield from _values(value)
    else:
        yield body


def _polls_only_ask(adapter: Adapter, order: Order) -> None:
    if isinstance(adapter, Polls):
        ticket = Ticket(seller_id="x", seller_model=order.seller_model)
        _keep(adapter.poll(ticket).method == adapter.collect(ticket).method == "GET", "they are sent again: GET alone")


# Answers that any server may give


def _page_of_ingress(adapter: Adapter) -> None:
    for status in (500, 502, 504, 408):
        named = adapter.refusal(Reply(status=status, headers={}, body=b"<html><body>nginx</body></html>"))
        _keep(type(named) is OutcomeUnknown, f"{status} is read as {named!r}")


def _too_busy(adapter: Adapter) -> None:
    """Before an order is taken; where the answer to it is the film, a bare 503 may come in the middle of a render."""
    _is_busy(adapter, 429, "throttled")
    if isinstance(adapter, Polls):
        _is_busy(adapter, 503, "capacity")
    else:
        named = adapter.refusal(Reply(status=503, headers={}, body=b""))
        _keep(type(named) is OutcomeUnknown, f"503 without a word is read as {named!r}")


def _is_busy(adapter: Adapter, status: int, kind: str) -> None:
    named = adapter.refusal(Reply(status=status, headers={"retry-after": "3"}, body=b""))
    facts = (named.kind, named.retry_after_s, named.cost_microusd) if isinstance(named, Refusal) else None
    _keep(facts == (kind, 3.0, 0), f"{status} is read as {named!r}, {facts}")


def _nonsense(adapter: Adapter) -> None:
    for body in (b"", b"null", b"[]", b'"text"', b"\xff\xfe", b"{", b"<html>"):
        reply = Reply(status=200, headers={}, body=body)
        _raises(OutcomeUnknown, adapter.accepted, reply)
        if isinstance(adapter, Polls):
            _raises(Garbled, adapter.progress, reply)
            _raises(Garbled, adapter.result, reply)
        if isinstance(adapter, Announces):
            _keep(adapter.announced(body) is None, f"{body!r} announces an order")


def _raises(wanted: type[SellerError], read: Callable[[Reply], object], reply: Reply) -> None:
    try:
        answer = read(reply)
    except wanted:
        return
    raise ContractBroken(f"{reply.body!r} is read as {answer!r}, not as {wanted.__name__}")
