"""Where bytes of strangers become words of ours: properties that hold whatever comes in."""

import base64
import io
import random
import re
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from functools import cache, partial
from typing import Any, TypeVar, get_args

import msgspec
import yaml
from hypothesis import strategies as st

from proxy.api.bodies import CreateRequest, read_create
from proxy.catalog import read_catalog
from proxy.core.attempt import Accepted, Done, Progress, Result
from proxy.core.errors import (
    ConfigError,
    FailureKind,
    Garbled,
    OutcomeUnknown,
    ReelayError,
    Refusal,
    RequestError,
    SellerError,
)
from proxy.core.wire import Reply
from proxy.outside.film import NotAFilm, measure
from proxy.policy.doubts import doubts
from proxy.policy.plan import decide
from proxy.policy.rules import load_rules
from proxy.providers.base import LONGEST_WAIT_S
from proxy.providers.contract import Recording
from proxy.providers.registry import builtin
from proxy.services.report import read_query
from proxy.settings import NAMES, SECRETS, read_settings
from tests.api.test_bodies import multipart
from tests.policy.policies import ADAPTERS, AT_US, ENV, decided, make_rules, make_tenant
from tests.policy.test_rules import EVERYTHING, TOP_FILE
from tests.providers.test_contract import RECORDINGS
from tests.torture.bending import ODD, bent, bent_film, torn

T = TypeVar("T")

RULES = make_rules()

DICE = st.randoms(use_true_random=False)
PATIENCE_S = 5.0
"""Of the processor, for one example: whatever takes longer can be made to take for ever."""


class Surface(msgspec.Struct, frozen=True, kw_only=True):
    """A door that takes what strangers send."""

    name: str
    sent: st.SearchStrategy[Any]
    check: Callable[[Any], None]
    """Raises whatever should not have come out."""

    def take(self, example: Any) -> None:
        begun = time.process_time()
        self.check(example)
        took_s = time.process_time() - begun
        assert took_s < PATIENCE_S, f"it took {took_s:.1f} s"


def _outcome(call: Callable[[], T], *expected: type[Exception]) -> T | Exception:
    try:
        return call()
    except expected as exc:
        return exc


# The rules

_LINE = re.compile(r"routing_rules\.yaml:[1-9]\d*:[1-9]\d*: \S.*")
_FILES = (EVERYTHING, TOP_FILE.read_text())
_TREES = tuple(yaml.safe_load(file) for file in _FILES)
_WHENS = st.recursive(
    st.dictionaries(
        st.sampled_from(["tenant", "hour", "seconds", "seed", "metadata.a", "budget_used", "model", "resolution"]),
        st.sampled_from(
            [5, "5", "x", [1, 2], {"min": 3}, {"max": "1e3"}, {"min": 9, "max": 1}, "480p", {"min": "480p"}]
        ),
        max_size=3,
    ),
    lambda inner: st.one_of(
        st.builds(lambda one: {"not": one}, inner),
        st.builds(lambda several: {"any": several}, st.lists(inner, max_size=3)),
        st.builds(lambda several: {"all": several}, st.lists(inner, max_size=3)),
    ),
    max_leaves=12,
)


def _with_when(tree: Any, when: Any) -> Any:
    return {**tree, "rules": [{"name": "made up", "when": when}, *tree["rules"]]}


def _dumped(tree: Any) -> bytes:
    return str(yaml.safe_dump(tree, allow_unicode=True)).encode()


_RULES = st.one_of(
    st.binary(max_size=200),
    st.builds(lambda file, dice: torn(file.encode(), dice), st.sampled_from(_FILES), DICE),
    st.builds(lambda tree, dice: _dumped(bent(tree, dice)), st.sampled_from(_TREES), DICE),
    st.builds(lambda tree, when: _dumped(_with_when(tree, when)), st.sampled_from(_TREES), _WHENS),
)


def _check_rules(file: bytes) -> None:
    """Refused in one line with its place; or else every request can be decided by them."""
    rules = _outcome(
        lambda: load_rules(file, file="routing_rules.yaml", env=ENV, adapters=ADAPTERS, catalog=read_catalog()),
        ConfigError,
    )
    if isinstance(rules, Exception):
        said = str(rules)
        assert _LINE.fullmatch(said), said
        assert said.isprintable(), said
        return
    for doubt in doubts(rules, at_us=AT_US):
        assert doubt
    for ask in ({}, {"seconds": 15, "resolution": "1080p", "metadata": {"a": "1e3"}, "seed": 7}, {"tier": "mini"}):
        with suppress(ReelayError):
            decided(rules, **ask)


# Create bodies

_WISH: dict[str, Any] = {
    "model": "seedance-2.0",
    "prompt": "a paper boat \U0001f98a",
    "seconds": "5",
    "size": "1280x720",
    "generate_audio": True,
    "seed": 7,
    "end_user_id": "ann",
    "metadata": {"stage": "preview"},
    "routing": {"sort": "price", "only": ["fal", "evolink"], "max_price_usd": "2.00", "max_wait_s": 60},
    "extra_body": {"tier": "standard"},
    "reference_images": [{"image_url": "https://example.com/a.png"}, "https://example.com/b.png"],
}
_PARTS: list[tuple[str, str | bytes]] = [
    ("prompt", "a paper boat"),
    ("seconds", "5"),
    ("routing[only][]", "fal"),
    ("routing[only][]", "evolink"),
    ("metadata[stage]", "preview"),
    ("input_reference", b"\x89PNG\r\n\x1a\npixels"),
    ("reference_images[0][image_url]", "https://example.com/a.png"),
    ("extra_body", '{"tier": "fast"}'),
]
_URLENCODED = b"prompt=a+paper+boat&seconds=5&routing%5Bonly%5D%5B%5D=fal&metadata[stage]=preview&%F0%9F%A6%8A=%00"
_TYPES = (
    "application/json",
    "multipart/form-data; boundary=X",
    "application/x-www-form-urlencoded",
    "multipart/form-data",
)
_BODIES = st.one_of(
    st.builds(lambda dice: ("application/json", _as_json(bent(_WISH, dice))), DICE),
    st.builds(lambda kind, dice: (kind, torn(_as_json(_WISH), dice)), st.sampled_from(_TYPES), DICE),
    st.builds(lambda dice: (_TYPES[1], torn(multipart(*dice.sample(_PARTS, 5)), dice)), DICE),
    st.builds(lambda kind, dice: (kind, torn(multipart(*_PARTS), dice)), st.sampled_from(_TYPES), DICE),
    st.builds(lambda kind, dice: (kind, torn(_URLENCODED, dice)), st.sampled_from(_TYPES), DICE),
)
MAX_BODY_BYTES = 1_000_000
"""Never met: where it is, depends on how much of the body was read before."""


def _as_json(tree: Any) -> bytes:
    return msgspec.json.encode(tree)


async def _pieces(data: bytes, dice: random.Random | None) -> AsyncIterator[bytes]:
    """As one, or however the network may cut it."""
    while dice is not None and data:
        end = dice.choice([0, 1, 2, 7, 100, 1000])
        yield data[:end]
        data = data[end:]
    yield data


def _run(never_waits: Coroutine[Any, Any, T]) -> T:
    """What a coroutine without any I/O comes to; an event loop would take most of the time."""
    try:
        never_waits.send(None)
    except StopIteration as exc:
        result: T = exc.value
        return result
    raise AssertionError("it waits for something")


def _read(kind: str, data: bytes, dice: random.Random | None) -> CreateRequest | tuple[str, str, str | None]:
    """The request; or the code, the words and the field of the refusal."""
    read = read_create(kind, _pieces(data, dice), max_bytes=MAX_BODY_BYTES, unknown_fields="refuse")
    try:
        return _run(read)
    except RequestError as exc:
        return exc.code, str(exc), exc.param


_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""As JSON escapes it; a backslash before it makes it text."""


def _check_body(example: tuple[tuple[str, bytes], random.Random]) -> None:
    """Read, or refused in the same words however it is cut; what is read can be decided and stored."""
    (kind, data), dice = example
    whole, cut = _read(kind, data, None), _read(kind, data, dice)
    assert whole == cut, f"{whole} as one, {cut} in pieces"
    if isinstance(whole, CreateRequest):
        assert not _NUL.search(msgspec.json.encode(whole.ask))
        with suppress(ReelayError):
            decide(whole.ask, make_tenant(), RULES, at_us=AT_US, explain=True)


# What sellers say

_RETURNED: dict[str, tuple[tuple[type, ...], tuple[type[SellerError], ...]]] = {
    "accepted": ((Accepted, Done), (Refusal, OutcomeUnknown)),
    "progress": ((Progress,), (Refusal, Garbled)),
    "result": ((Result,), (Refusal, Garbled)),
    "refusal": ((Refusal, OutcomeUnknown, Garbled), ()),
    "verdict": ((Refusal, OutcomeUnknown, Garbled), ()),
    "cancelled": ((str,), (Garbled,)),
    "found": ((Accepted, type(None)), (Garbled,)),
    "announced": ((str, type(None)), ()),
}
"""By question: what it may return, and what it may raise."""

_GOOD, _BAD = [200, 201, 202, 204], [301, 400, 401, 402, 403, 404, 408, 409, 418, 422, 429, 500, 502, 503, 504]
_HEADERS = ("x-fal-error-type", "x-fal-request-timeout-type", "retry-after", "date", "x-fal-billable-units")


@cache
def _recordings(adapter: str) -> tuple[Recording, ...]:
    files = sorted((RECORDINGS / adapter).glob("*.json"))
    return tuple(msgspec.json.decode(file.read_bytes(), type=Recording) for file in files)


def _bent_reply(recording: Recording, dice: random.Random) -> tuple[Recording, Reply]:
    recorded = recording.reply
    if recorded.text is not None:
        body = torn(recorded.text.encode(), dice)
    else:
        body = _as_json(bent(recorded.body, dice))
        body = torn(body, dice) if dice.random() < 0.3 else body
    statuses = _GOOD if recorded.status < 300 else _BAD
    if recording.question == "cancelled":
        statuses = [*_GOOD, *_BAD]
    headers = {name.lower(): value for name, value in recorded.headers.items()}
    if dice.random() < 0.3:
        headers[dice.choice(_HEADERS)] = dice.choice(["", "1", "-1", "1e9", "x", "request_timeout", "9" * 400])
    status = dice.choice(statuses) if dice.random() < 0.5 else recorded.status
    return recording, Reply(status=status, headers=headers, body=body)


def _check_reply(adapter: Any, example: tuple[Recording, Reply]) -> None:
    recording, reply = example
    returned, raised = _RETURNED[recording.question]
    ask = getattr(adapter, recording.question)
    arguments: tuple[Any, ...] = (reply,)
    if recording.question == "announced":
        arguments = (reply.body,)
    elif recording.question == "found":
        arguments = (reply, recording.client_ref or "")
    answer = _outcome(lambda: ask(*arguments), *raised) if raised else ask(*arguments)
    assert isinstance(answer, (*returned, *raised)), repr(answer)
    _is_sound(answer)


def _is_sound(answer: Any) -> None:
    """What is kept of it can be kept, and costs nothing that a film cannot cost."""
    cost = getattr(answer, "cost_microusd", None)
    assert cost is None or (type(cost) is int and 0 <= cost <= 10**12), repr(cost)
    if isinstance(answer, Refusal):
        assert answer.kind in get_args(FailureKind), answer.kind
        assert answer.seller_code is None or type(answer.seller_code) is str, repr(answer.seller_code)
    if isinstance(answer, SellerError):
        assert type(answer.args[0]) is str, answer.args
        assert str(answer)
    if isinstance(answer, str):
        assert answer
    wait_s = getattr(answer, "retry_after_s", None)
    assert wait_s is None or 0 <= wait_s <= LONGEST_WAIT_S, wait_s
    match answer:
        case Accepted():
            assert type(answer.seller_id) is str
            assert answer.seller_id
        case Done():
            _is_sound(answer.result)
        case Progress():
            assert answer.percent is None or (type(answer.percent) is int and 0 <= answer.percent <= 100)
            _is_sound(answer.result)
        case Result():
            assert type(answer.url) is str
            assert answer.url
            assert answer.seed is None or type(answer.seed) is int


# Films


def _check_film(film: bytes) -> None:
    measured = _outcome(lambda: measure(io.BytesIO(film)), NotAFilm)
    if isinstance(measured, Exception):
        return
    assert measured.width_px > 0, measured
    assert measured.height_px > 0, measured
    assert measured.duration_ms >= 0, measured


# Settings, and where a report goes on

_SETTINGS = st.dictionaries(
    st.sampled_from([f"REELAY_{name}" for name in NAMES] + [f"REELAY_{name}_FILE" for name in SECRETS]),
    st.sampled_from([text for one in ODD if (text := str(one)).isprintable() and not isinstance(one, list)])
    | st.sampled_from(["8080", "9" * 5000, "٣", "10.0.0.0/8,", "10.0.0.0/99", "::1", "http://[", "http://a:b", "json"])
    | st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=12),
    max_size=4,
)


def _check_settings(env: dict[str, str]) -> None:
    read = _outcome(lambda: read_settings(env), ConfigError)
    if isinstance(read, Exception):
        assert len(str(read).splitlines()) == 1, str(read)
    else:
        _outcome(lambda: read.database, ConfigError)


_MARKS = (
    st.none()
    | st.text(max_size=40)
    | st.builds(
        lambda tree: base64.urlsafe_b64encode(_as_json(tree)).decode().rstrip("="),
        st.lists(st.sampled_from(ODD) | st.text(max_size=5) | st.integers(), max_size=4),
    )
)
_QUERIES = st.tuples(
    st.none() | st.text(max_size=10) | st.sampled_from(["tenant,day", "end_user", "metadata.a", "day,,day", "month"]),
    st.none() | st.sampled_from(["0001-01-01", "9999-12-31", "2026-11-01", "", "2026-02-29"]) | st.text(max_size=10),
    st.none() | st.sampled_from(["0001-01-02", "9999-12-31", "2026-12-01", ""]) | st.text(max_size=10),
    st.none() | st.sampled_from(["0", "1", "9" * 5000, "٣", "-1"]),
    _MARKS,
)


def _check_query(example: tuple[str | None, str | None, str | None, str | None, str | None]) -> None:
    groups, start, end, limit, after = example
    _outcome(lambda: read_query(groups, start, end, None, now_us=AT_US, limit=limit, after=after), RequestError)


SURFACES: tuple[Surface, ...] = (
    Surface(name="the rules", sent=_RULES, check=_check_rules),
    Surface(name="create bodies", sent=st.tuples(_BODIES, DICE), check=_check_body),
    *(
        Surface(
            name=f"what {name} says",
            sent=st.builds(_bent_reply, st.sampled_from(_recordings(name)), DICE),
            check=partial(_check_reply, adapter),
        )
        for name, adapter in builtin().items()
    ),
    Surface(name="films", sent=st.builds(bent_film, DICE), check=_check_film),
    Surface(name="settings", sent=_SETTINGS, check=_check_settings),
    Surface(name="queries of a report", sent=_QUERIES, check=_check_query),
)
