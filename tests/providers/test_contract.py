"""What every adapter keeps: its recordings are answered as written, and its calls carry no key and no host."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from proxy.core.attempt import Order, Ticket
from proxy.core.errors import Garbled, OutcomeUnknown, Refusal, SellerError
from proxy.core.wire import Call, Reply
from proxy.providers.base import Adapter, Announces, Cancels, Finds, Judges
from proxy.providers.registry import builtin

RECORDINGS = Path(__file__).parent / "recordings"
ADAPTERS = builtin()
REQUIRED_KINDS = frozenset(
    {"accepted", "queued", "running", "done", "refused", "throttled", "account", "broken", "unheard_of"}
)
ABILITIES: dict[str, type] = {"cancelled": Cancels, "found": Finds, "announced": Announces}
ERRORS: dict[str, type[SellerError]] = {"Refusal": Refusal, "OutcomeUnknown": OutcomeUnknown, "Garbled": Garbled}


class Recorded(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    status: int
    headers: dict[str, str]
    body: Any = msgspec.UNSET
    text: str | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of `returns` (the name of a Struct, or null), `value` (a plain word, or null) and `raises`."""

    returns: str | msgspec.UnsetType | None = msgspec.UNSET
    value: str | msgspec.UnsetType | None = msgspec.UNSET
    raises: str | msgspec.UnsetType = msgspec.UNSET
    fields: dict[str, Any] = msgspec.field(default_factory=dict)


class Recording(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One answer that a seller can give, and what its adapter must make of it."""

    kind: str
    question: str
    source: str
    sure: str
    reply: Recorded
    answer: Answer
    client_ref: str | None = None

    def as_reply(self) -> Reply:
        text = self.reply.text
        body = json.dumps(self.reply.body) if text is None else text
        headers = {name.lower(): value for name, value in self.reply.headers.items()}
        return Reply(status=self.reply.status, headers=headers, body=body.encode())


def read(path: Path) -> Recording:
    return msgspec.json.decode(path.read_bytes(), type=Recording)


def recordings(adapter: str) -> list[Path]:
    return sorted((RECORDINGS / adapter).glob("*.json"))


NAMING = {"refusal", "verdict"}
"""Questions whose answer is an error that is returned."""

EVERY_RECORDING = [pytest.param(name, path, id=f"{name}/{path.stem}") for name in ADAPTERS for path in recordings(name)]


def make_order(**changes: Any) -> Order:
    order = Order(
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
    return msgspec.structs.replace(order, **changes)


def ask(adapter: Adapter, recording: Recording) -> object:
    """Puts the recording's question; what is raised is for the caller to catch."""
    reply = recording.as_reply()
    questions: dict[str, Callable[[], object]] = {
        "accepted": lambda: adapter.accepted(reply),
        "progress": lambda: adapter.progress(reply),
        "result": lambda: adapter.result(reply),
        "refusal": lambda: adapter.refusal(reply),
        "verdict": lambda: cast("Judges", adapter).verdict(reply),
        "cancelled": lambda: cast("Cancels", adapter).cancelled(reply),
        "found": lambda: cast("Finds", adapter).found(reply, recording.client_ref or ""),
        "announced": lambda: cast("Announces", adapter).announced(reply.body),
    }
    return questions[recording.question]()


def agrees(actual: Any, expected: Any) -> bool:
    """Whether every recorded field is there with its value; fields that were not recorded are free."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        return all(name in actual and agrees(actual[name], value) for name, value in expected.items())
    return bool(actual == expected and type(actual) is type(expected))


def check_error(error: SellerError, answer: Answer) -> None:
    assert isinstance(answer.raises, str), f"unexpected {error!r}"
    assert type(error) is ERRORS[answer.raises], repr(error)
    assert agrees(vars(error), answer.fields), (vars(error), answer.fields)
    assert str(error), "an error says what was wrong"


def calls(adapter: Adapter, order: Order) -> list[Call]:
    ticket = Ticket(seller_id="made/up?id", seller_model=order.seller_model)
    asked = [adapter.submit(order), adapter.poll(ticket), adapter.collect(ticket)]
    if isinstance(adapter, Cancels):
        asked.append(adapter.cancel(ticket))
    if isinstance(adapter, Finds):
        asked.append(adapter.find(order.client_ref))
    return asked


@pytest.mark.parametrize(("name", "path"), EVERY_RECORDING)
def test_recording_is_answered_as_written(name: str, path: Path) -> None:
    recording = read(path)
    answer = recording.answer
    try:
        value = ask(ADAPTERS[name], recording)
    except SellerError as error:
        assert recording.question not in NAMING, "they name an error, they raise none"
        check_error(error, answer)
        return
    if isinstance(value, SellerError):
        assert recording.question in NAMING
        check_error(value, answer)
        return
    assert answer.raises is msgspec.UNSET, f"{answer.raises} was expected, not {value!r}"
    if answer.value is not msgspec.UNSET:
        assert value == answer.value
    elif answer.returns is None:
        assert value is None
    else:
        assert type(value).__name__ == answer.returns
        assert agrees(msgspec.to_builtins(value), answer.fields), (value, answer.fields)


@pytest.mark.parametrize("name", ADAPTERS)
def test_adapter_has_every_kind_of_recording(name: str) -> None:
    kinds = {read(path).kind for path in recordings(name)}
    assert kinds >= REQUIRED_KINDS, f"{name} lacks {sorted(REQUIRED_KINDS - kinds)}"


@pytest.mark.parametrize("name", ADAPTERS)
def test_adapter_answers_every_question_on_record(name: str) -> None:
    questions = {read(path).question for path in recordings(name)}
    assert questions >= {"accepted", "progress", "result", "refusal"}
    for question, ability in ABILITIES.items():
        assert (question in questions) == isinstance(ADAPTERS[name], ability), question


@pytest.mark.parametrize(("name", "path"), EVERY_RECORDING)
def test_recording_says_what_it_is(name: str, path: Path) -> None:
    recording = read(path)
    assert recording.source, f"{name} does not say where it has this from"
    assert recording.sure in {"seen", "documented", "derived", "assumed"}
    assert (recording.reply.body is msgspec.UNSET) == (recording.reply.text is not None), "either a body or a text"
    answer = recording.answer
    assert [answer.returns, answer.value, answer.raises].count(msgspec.UNSET) == 2, "one answer, of one form"
    if recording.question in {"accepted", "progress", "result", "found"}:
        assert 200 <= recording.reply.status < 300, "every other status goes to refusal"
    if recording.question in NAMING:
        assert not 200 <= recording.reply.status < 300


def test_every_folder_of_recordings_has_its_adapter() -> None:
    assert {folder.name for folder in RECORDINGS.iterdir()} == set(ADAPTERS)


@pytest.mark.parametrize("name", ADAPTERS)
def test_no_call_carries_a_key_or_a_host(name: str) -> None:
    adapter = ADAPTERS[name]
    header, value = adapter.authorize("sk_made_up")
    assert "sk_made_up" in value
    for call in calls(adapter, make_order()):
        assert call.path.startswith("/")
        assert not call.path.startswith("//")
        assert "://" not in call.path
        assert not {"?", "#", " "} & set(call.path), "what a seller's id holds stays one part of the path"
        assert header.lower() not in {sent.lower() for sent, _ in call.headers}
        assert "authorization" not in {sent.lower() for sent, _ in call.headers}
        assert "sk_made_up" not in repr(call)


@pytest.mark.parametrize("name", ADAPTERS)
def test_base_url_is_the_sellers_own_host_without_a_slash(name: str) -> None:
    assert ADAPTERS[name].name == name
    assert ADAPTERS[name].base_url.startswith("https://")
    assert not ADAPTERS[name].base_url.endswith("/")


@pytest.mark.parametrize("name", ADAPTERS)
def test_the_same_order_makes_the_same_call(name: str) -> None:
    first, second = builtin()[name], builtin()[name]
    assert calls(first, make_order()) == calls(first, make_order()) == calls(second, make_order())


@pytest.mark.parametrize("name", ADAPTERS)
def test_submit_is_a_post_of_the_prompt_as_it_is(name: str) -> None:
    call = ADAPTERS[name].submit(make_order())
    assert call.method == "POST"
    assert call.body is not None
    assert make_order().prompt in values(json.loads(call.body))


@pytest.mark.parametrize("name", ADAPTERS)
def test_polls_change_nothing_at_the_seller(name: str) -> None:
    ticket = Ticket(seller_id="x", seller_model="owner/model/text-to-video")
    assert ADAPTERS[name].poll(ticket).method == "GET"
    assert ADAPTERS[name].collect(ticket).method == "GET"


@pytest.mark.parametrize("name", ADAPTERS)
@pytest.mark.parametrize("status", [500, 502, 504, 408])
def test_a_page_of_an_ingress_may_have_bought(name: str, status: int) -> None:
    page = Reply(status=status, headers={}, body=b"<html><body>nginx</body></html>")
    assert type(ADAPTERS[name].refusal(page)) is OutcomeUnknown


@pytest.mark.parametrize("name", ADAPTERS)
@pytest.mark.parametrize(("status", "kind"), [(429, "throttled"), (503, "capacity")])
def test_a_seller_too_busy_to_say_more_has_refused(name: str, status: int, kind: str) -> None:
    refusal = ADAPTERS[name].refusal(Reply(status=status, headers={"retry-after": "3"}, body=b""))
    assert isinstance(refusal, Refusal)
    assert (refusal.kind, refusal.retry_after_s, refusal.cost_microusd) == (kind, 3.0, 0)


@pytest.mark.parametrize("name", ADAPTERS)
@pytest.mark.parametrize("body", [b"", b"null", b"[]", b'"text"', b"\xff\xfe", b"{", b"<html>"])
def test_nonsense_is_never_an_answer(name: str, body: bytes) -> None:
    adapter, reply = ADAPTERS[name], Reply(status=200, headers={}, body=body)
    with pytest.raises(OutcomeUnknown):
        adapter.accepted(reply)
    for question in (adapter.progress, adapter.result):
        with pytest.raises(Garbled):
            question(reply)
    if isinstance(adapter, Announces):
        assert adapter.announced(body) is None


def values(body: object) -> list[object]:
    """Every value in a decoded body, however deep."""
    if isinstance(body, dict):
        return [found for value in body.values() for found in values(value)]
    return [body]
