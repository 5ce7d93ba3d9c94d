"""The contract of adapters: every built-in one keeps it, and one that does not is found out."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from proxy.core.attempt import Done, Order, Progress, Result
from proxy.core.errors import OutcomeUnknown, Refusal, SellerError
from proxy.core.wire import Call
from proxy.providers.base import Adapter
from proxy.providers.contract import ORDER, Check, ContractBroken, checks
from proxy.providers.registry import builtin
from proxy.providers.runflow import Runflow
from proxy.providers.runflow_legacy import RunflowLegacy

RECORDINGS = Path(__file__).parent / "recordings"
EVERY_CHECK = [
    pytest.param(check, id=f"{name}-{check}")
    for name, adapter in builtin().items()
    for check in checks(type(adapter), RECORDINGS / name)
]


@pytest.mark.parametrize("check", EVERY_CHECK)
def test_built_in_adapter_keeps_the_contract(check: Check) -> None:
    check()


def test_order_of_the_sellers_own_is_what_the_checks_send() -> None:
    sent: list[Order] = []

    def spy(_: Any, order: Order) -> Call:
        sent.append(order)
        return RunflowLegacy().submit(order)

    order = msgspec.structs.replace(ORDER, tier="fast", prompt="a seal")
    for check in checks(spoiled(RunflowLegacy, submit=spy), RECORDINGS / "runflow-legacy", order=order):
        check()
    assert sent
    assert all(one is order for one in sent)


def test_every_folder_of_recordings_has_its_adapter() -> None:
    assert {folder.name for folder in RECORDINGS.iterdir()} == set(builtin())


def broken(make: Callable[[], Adapter], folder: Path) -> dict[str, str]:
    """Promises that are not kept, and what is said of each."""
    found = {}
    for check in checks(make, folder):
        try:
            check()
        except (ContractBroken, SellerError) as exc:
            found[check.promise] = str(exc)
    return found


# Adapters


def to(path: str, **more: Any) -> Callable[..., Call]:
    return lambda *_: Call(
        method="POST", path=path, body=json.dumps({"prompt": 'A fox says: "Good night." 🦊'}).encode(), **more
    )


def spoiled(base: type[Adapter], **change: Any) -> type[Adapter]:
    return type("Spoiled", (base,), change)


def _counted(self: Any, order: Order) -> Call:
    self.sent = getattr(self, "sent", 0) + 1
    return Call(method="POST", path=f"/{self.sent}", body=json.dumps(order.prompt).encode())


def _remembers_the_key(self: Any, api_key: str) -> tuple[str, str]:
    self.key = api_key
    return "Authorization", f"Bearer {api_key}"


SPOILED: list[tuple[type[Adapter], str, str]] = [
    (spoiled(RunflowLegacy, submit=to("run")), "no call carries a key or a host", "run is no path"),
    (spoiled(RunflowLegacy, submit=to("//elsewhere.example/run")), "no call carries a key or a host", "is no path"),
    (spoiled(RunflowLegacy, submit=to("/https://elsewhere")), "no call carries a key or a host", "is one part of"),
    (
        spoiled(Runflow, poll=lambda _, ticket: Call(method="GET", path=f"/runs/{ticket.seller_id}")),
        "no call carries a key or a host",
        "what a seller's id holds is one part of /runs/made/up?id",
    ),
    (
        spoiled(RunflowLegacy, submit=to("/run", headers=(("AUTHORIZATION", "x"),))),
        "no call carries a key or a host",
        "/run carries the header of a key",
    ),
    (
        spoiled(
            RunflowLegacy,
            authorize=_remembers_the_key,
            submit=lambda self, order: Call(
                method="POST", path="/run", query=(("key", getattr(self, "key", "")), ("p", order.prompt))
            ),
        ),
        "no call carries a key or a host",
        "/run carries the key itself",
    ),
    (
        spoiled(RunflowLegacy, authorize=lambda *_: ("x-key", "always the same")),
        "no call carries a key or a host",
        "another key is another header",
    ),
    (
        spoiled(RunflowLegacy, base_url="http://api.example"),
        "the base URL is the seller's own host without a slash",
        "http://api.example is no https",
    ),
    (
        spoiled(RunflowLegacy, base_url="https://api.example/"),
        "the base URL is the seller's own host without a slash",
        "ends with a slash",
    ),
    (
        spoiled(RunflowLegacy, submit=_counted),
        "the same order makes the same call",
        "it depends on more than the order",
    ),
    (
        spoiled(RunflowLegacy, submit=lambda *_: Call(method="PUT", path="/run")),
        "a submit is a POST of the prompt as it is",
        "PUT is no POST",
    ),
    (
        spoiled(RunflowLegacy, submit=lambda *_: Call(method="POST", path="/run", body=b'{"texts": ["a fox"]}')),
        "a submit is a POST of the prompt as it is",
        "the prompt is not in it",
    ),
    (spoiled(Runflow, collect=to("/runs/x")), "polls change nothing at the seller", "GET alone"),
    (
        spoiled(RunflowLegacy, refusal=lambda *_: Refusal("provider_error", "no")),
        "a page of an ingress may have bought",
        "500 is read as Refusal",
    ),
    (
        spoiled(RunflowLegacy, refusal=lambda *_: Refusal("throttled", "no", retry_after_s=3.0, cost_microusd=0)),
        "a seller too busy to say more has refused",
        "503 without a word is read as Refusal",
    ),
    (
        spoiled(Runflow, refusal=lambda *_: Refusal("throttled", "no", cost_microusd=0)),
        "a seller too busy to say more has refused",
        "429 is read as Refusal",
    ),
    (
        spoiled(RunflowLegacy, accepted=lambda *_: Done(result=Result(url="https://x/a.mp4"))),
        "nonsense is never an answer",
        "b'' is read as Done",
    ),
    (
        spoiled(Runflow, progress=lambda *_: Progress(state="running")),
        "nonsense is never an answer",
        "b'' is read as Progress",
    ),
    (spoiled(Runflow, announced=lambda *_: "run-1"), "nonsense is never an answer", "b'' announces an order"),
    (
        spoiled(RunflowLegacy, announced=lambda *_: None),
        "only a seller that is asked again is promised to be",
        "without `Polls` nobody can follow an order that is found",
    ),
    (
        spoiled(RunflowLegacy, announced=lambda *_: None),
        "every question is on record",
        "nothing is on record for: announced",
    ),
]


@pytest.mark.parametrize(("make", "promise", "said"), SPOILED, ids=[f"{no}-{row[1]}" for no, row in enumerate(SPOILED)])
def test_promise_that_is_not_kept_is_told(make: type[Adapter], promise: str, said: str) -> None:
    folder = RECORDINGS / make.name
    assert said in broken(make, folder)[promise]


# Recordings

GOOD: dict[str, Any] = {
    "kind": "done",
    "question": "accepted",
    "source": "a page",
    "sure": "documented",
    "reply": {"status": 200, "headers": {}, "body": {"video": {"url": "https://cdn.example/x.mp4"}}},
    "answer": {"returns": "Done", "fields": {"seller_id": None, "result": {"url": "https://cdn.example/x.mp4"}}},
}
PAGE: dict[str, Any] = {"status": 502, "headers": {}, "text": "<html>"}
FOUND: dict[str, Any] = {"question": "found", "client_ref": "a", "answer": {"returns": None}}
AS_WRITTEN = "one is answered as written"


def broken_by(folder: Path, make: type[Adapter] = RunflowLegacy, **change: Any) -> dict[str, str]:
    """What is found where this is the only recording."""
    (folder / "one.json").write_text(json.dumps(GOOD | change))
    return broken(make, folder)


def test_good_recording_is_kept_and_the_missing_ones_are_told(tmp_path: Path) -> None:
    assert broken_by(tmp_path) == {
        "every kind of answer is on record": (
            "nothing is on record for: account, broken, refused, throttled, unheard_of"
        ),
        "every question is on record": "nothing is on record for: refusal",
    }
    assert "accepted, account, broken, queued" in broken(Runflow, tmp_path)["every kind of answer is on record"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sure": "very"}, "one.json is no recording: Invalid enum value 'very'"),
        ({"remark": "x"}, "one.json is no recording: Object contains unknown field `remark`"),
        ({"source": ""}, "it does not say where it is from"),
        ({"reply": {"status": 200, "headers": {}}}, "either a body or a text"),
        ({"reply": {"status": 200, "headers": {}, "body": 1, "text": "1"}}, "either a body or a text"),
        ({"answer": {}}, "one answer, of one form"),
        ({"answer": {"returns": "Done", "raises": "Refusal"}}, "one answer, of one form"),
        ({"reply": PAGE}, "every status but 2xx goes to `refusal`"),
        ({"question": "refusal"}, "`refusal` and `verdict` get no 2xx"),
        ({"answer": {"raises": "OutcomeUnknown"}}, "OutcomeUnknown is written, not Done("),
        ({"answer": {"value": "done"}}, "'done' is written, not Done("),
        ({"answer": {"returns": None}}, "null is written, not Done("),
        ({"answer": {"returns": "Accepted"}}, "Accepted is written, not Done("),
        ({"answer": {"returns": "Done", "fields": {"seller_id": "x"}}}, "{'seller_id': 'x'} is written"),
        ({"answer": {"returns": "Done", "fields": {"id": None}}}, "{'id': None} is written, not Done("),
        ({"reply": PAGE, "question": "refusal"}, "is written, not OutcomeUnknown("),
        (
            {
                "reply": PAGE,
                "question": "refusal",
                "answer": {"raises": "OutcomeUnknown", "fields": {"kind": "account"}},
            },
            "{'kind': 'account'} is written, not {}",
        ),
        (FOUND, "it cannot be asked for `found`"),
    ],
)
def test_recording_that_does_not_hold_is_told(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    assert said in broken_by(tmp_path, **change)[AS_WRITTEN]


def test_acceptance_that_nobody_can_follow_is_told(tmp_path: Path) -> None:
    told = broken_by(tmp_path, answer={"returns": "Accepted"})
    said = "without `Polls` nobody can follow what is accepted in: one"
    assert told["only a seller that is asked again is promised to be"] == said


@pytest.mark.parametrize(
    ("spoilt", "change", "said"),
    [
        ({"accepted": lambda *_: Refusal("account", "no")}, {}, "only `refusal` and `verdict` return errors: Refusal("),
        (
            {"refusal": lambda self, reply: self.accepted(reply)},
            {"reply": PAGE, "question": "refusal", "answer": {"raises": "OutcomeUnknown"}},
            "it names an error, and raises none: OutcomeUnknown(",
        ),
        (
            {"refusal": lambda *_: OutcomeUnknown("")},
            {"reply": PAGE, "question": "refusal", "answer": {"raises": "OutcomeUnknown"}},
            "an error says what was wrong",
        ),
    ],
)
def test_errors_are_raised_or_returned_where_they_belong(
    tmp_path: Path, spoilt: dict[str, Any], change: dict[str, Any], said: str
) -> None:
    assert said in broken_by(tmp_path, spoiled(RunflowLegacy, **spoilt), **change)[AS_WRITTEN]
