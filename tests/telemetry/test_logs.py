"""What a log line looks like, and that no secret gets into one."""

import asyncio
import io
import logging
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, TextIO

import msgspec
import pytest
import structlog

from proxy.core.account import Account
from proxy.core.ids import new_api_key
from proxy.core.video import Ask
from proxy.telemetry.logs import TEXT_MAX_CHARS, Redaction, configure, redact_too

EXACT = "the operators own password"
SELLER_KEY = "01234567-89ab-cdef-0123-456789abcdef:0123456789abcdef0123456789abcdef"
SECRETS = (
    EXACT,
    new_api_key(),
    "sk-proj-abcDEF123456",
    "rf_live_0123456789abcdef",
    "ak-0123456789abcdef",
    "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
    SELLER_KEY,
)


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def start(fmt: Literal["json", "console"] = "json", *, level: str = "info") -> io.StringIO:
    stream = io.StringIO()
    configure(fmt, level=level, stream=stream, redact=[EXACT, ""])
    return stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [msgspec.json.decode(line) for line in stream.getvalue().splitlines()]


def scrub(**fields: Any) -> dict[str, Any]:
    return dict(Redaction([EXACT])(None, "info", fields))


def raise_with(text: str) -> None:
    raise ValueError(text)


def test_a_line_is_one_json_object_with_event_level_time_and_fields() -> None:
    stream = start()
    structlog.get_logger().info("attempt.accepted", video="video_1", attempt=2, cost_usd=None, late=False, lag_s=0.5)
    [line] = lines(stream)
    said_at = datetime.fromisoformat(line.pop("time"))
    assert said_at.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - said_at) < timedelta(minutes=1)
    assert line == {
        "event": "attempt.accepted",
        "level": "info",
        "video": "video_1",
        "attempt": 2,
        "cost_usd": None,
        "late": False,
        "lag_s": 0.5,
    }


def test_what_is_bound_to_the_context_is_in_every_line() -> None:
    stream = start()
    with structlog.contextvars.bound_contextvars(request="req_1"):
        structlog.get_logger().info("video.accepted")
    structlog.get_logger().info("video.completed")
    first, second = lines(stream)
    assert first["request"] == "req_1"
    assert "request" not in second


def test_lines_below_the_level_are_not_written() -> None:
    stream = start(level="warning")
    structlog.get_logger().info("poll.answered")
    logging.getLogger("uvicorn.error").info("started")
    assert not stream.getvalue()


def test_a_logger_made_before_follows_a_later_configuration() -> None:
    log = structlog.get_logger()
    first = start()
    log.info("one.thing")
    second = start()
    log.info("other.thing")
    assert [line["event"] for line in lines(first)] == ["one.thing"]
    assert [line["event"] for line in lines(second)] == ["other.thing"]


@pytest.mark.parametrize("name", ["uvicorn.error", "uvicorn.access", "alembic.runtime.migration", "anything"])
def test_the_standard_library_ends_in_the_same_lines(name: str) -> None:
    logging.getLogger(name).addHandler(logging.StreamHandler(io.StringIO()))
    logging.getLogger(name).propagate = False
    stream = start()
    logging.getLogger(name).warning("took %d ms for %s", 3, SECRETS[2])
    [line] = lines(stream)
    assert line["event"] == name
    assert line["level"] == "warning"
    assert line["message"] == "took 3 ms for [redacted]"
    assert not logging.getLogger(name).handlers


def test_a_record_that_cannot_be_formatted_is_written_all_the_same() -> None:
    stream = start()
    arguments = ("three",)
    logging.getLogger("library").warning("%d of %d", *arguments)
    assert lines(stream)[0]["message"] == "%d of %d"


@pytest.mark.parametrize(("number", "level"), [(25, "info"), (35, "warning"), (70, "critical")])
def test_levels_between_the_known_ones_are_rounded_down(number: int, level: str) -> None:
    stream = start()
    logging.getLogger("library").log(number, "hello")
    assert lines(stream)[0]["level"] == level


def test_a_level_below_debug_counts_as_debug() -> None:
    stream = start(level="debug")
    logging.getLogger("library").setLevel(1)
    logging.getLogger("library").log(5, "hello")
    logging.getLogger("library").setLevel(logging.NOTSET)
    assert lines(stream)[0]["level"] == "debug"


def test_clients_that_tell_of_every_exchange_are_heard_from_warning_up() -> None:
    stream = start(level="debug")
    logging.getLogger("httpx").info("HTTP Request: POST https://seller.example/submit")
    logging.getLogger("httpx").warning("odd")
    assert [line["message"] for line in lines(stream)] == ["odd"]


@pytest.mark.parametrize("secret", SECRETS, ids=range(len(SECRETS)))
def test_a_secret_cannot_pass_in_any_place(secret: str) -> None:
    stream = start(level="debug")
    log = structlog.get_logger()
    event = f"event.{secret}"
    log.info(event, **{f"name {secret}": 1})
    log.warning("a.b", text=f"before {secret}, after", deep={"list": [{"x": (secret,)}], secret: {"y"}}, many={secret})
    log.info("a.b", error=RuntimeError(f"seller said {secret}"), raw=secret.encode(), odd=[object(), secret])
    with structlog.contextvars.bound_contextvars(bound=secret):
        log.info("a.b")
    logging.getLogger("uvicorn.error").error("%s", secret)
    try:
        raise_with(f"no luck with {secret}")
    except ValueError:
        log.exception("a.failed")
        logging.getLogger("library").exception("failed")
    assert len(lines(stream)) == 7
    assert secret not in stream.getvalue()
    assert "[redacted]" in stream.getvalue()


def test_a_secret_cannot_pass_on_the_console_either() -> None:
    stream = start("console")
    try:
        raise_with(f"no luck with {EXACT}")
    except ValueError:
        structlog.get_logger().exception("a.failed", prompt="a cat", text=SECRETS[1])
    said = stream.getvalue()
    assert EXACT not in said
    assert SECRETS[1] not in said
    assert "a cat" not in said
    assert "Traceback" in said
    assert "raise_with" in said


def test_the_console_shows_a_line_for_people() -> None:
    stream = start("console")
    structlog.get_logger().info("video.completed", video="video_1")
    assert "video.completed" in stream.getvalue()
    assert "video=video_1" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


BREAKS = ("\n", "\r\n", "\x1b[2K\x1b[1A", "\x00", "\x7f", "\x85", "\x9b2J", "\u2028", "\u2029", "\u202e")
"""What ends a line or moves the cursor, in a file, a terminal or a reader of lines."""


@pytest.mark.parametrize("fmt", ["json", "console"])
@pytest.mark.parametrize("odd", BREAKS, ids=ascii)
def test_no_text_of_a_stranger_makes_a_line_of_its_own(fmt: Literal["json", "console"], odd: str) -> None:
    stream, forged = start(fmt), f"a{odd}2026-01-01T00:00:00Z [info] forged"
    log = structlog.get_logger()
    log.info("a.b", text=forged, nested={forged: [forged]}, **{forged: forged})
    log.info(forged)
    logging.getLogger("library").warning(forged)
    assert len(stream.getvalue().splitlines()) == 3
    assert stream.getvalue().replace("\n", "").isprintable()
    if fmt == "json":
        assert lines(stream)[0]["text"] == forged


def test_trace_on_the_console_has_its_lines_and_no_others() -> None:
    stream = start("console")
    try:
        raise_with("a\x1b[2K\x85b")
    except ValueError:
        structlog.get_logger().exception("a.failed")
    assert "\x1b" not in stream.getvalue()
    assert "\x85" not in stream.getvalue()
    assert stream.getvalue().rstrip().splitlines()[-1] == "ValueError: a\\u001b[2K\\u0085b"


def test_an_exact_secret_is_found_in_its_url_form_too() -> None:
    assert scrub(text=f"x={EXACT.replace(' ', '%20')}") == {"text": "x=[redacted]"}


def test_of_two_secrets_that_begin_alike_nothing_is_left_behind() -> None:
    assert Redaction(["abcd", "abcdefgh"]).text("abcdefgh abcd") == "[redacted] [redacted]"


def test_a_secret_that_is_learned_later_is_hidden_from_then_on_beside_the_first() -> None:
    stream = start()
    log = structlog.get_logger()
    log.info("told", text="the sellers own key", word="key1")
    redact_too(["the sellers own key", "key1"])
    log.info("told", text="the sellers own key", first=EXACT, word="key1")
    before, after = lines(stream)
    assert (before["text"], before["word"]) == ("the sellers own key", "key1")
    assert (after["text"], after["first"]) == ("[redacted]", "[redacted]")
    assert after["word"] == "key1", "too short to be a secret, and in too many words"


@pytest.mark.parametrize(
    "name",
    [
        "authorization",
        "Authorization",
        "api_key",
        "X-Api-Key",
        "key",
        "secret",
        "client_secret",
        "prompt",
        "token",
        "Cookie",
    ],
)
def test_a_field_that_is_named_like_a_secret_has_no_value(name: str) -> None:
    assert scrub(**{name: "harmless looking"}) == {name: "[redacted]"}
    assert scrub(headers={name: "harmless looking"}) == {"headers": {name: "[redacted]"}}
    assert scrub(headers=[(name, "harmless looking")]) == {"headers": [[name, "[redacted]"]]}
    assert scrub(**{name: None}) == {name: None}


def test_a_field_that_only_resembles_one_keeps_its_value() -> None:
    fields = {"key_id": "key_1", "monkey": "Bubbles", "prompt_chars": 12, "tokens": 3}
    assert scrub(**fields) == fields


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("https://cdn.example/f/1.mp4?X-Amz-Signature=abc&b=1", "https://cdn.example/f/1.mp4"),
        ("got https://cdn.example/1.mp4?sig=1, then", "got https://cdn.example/1.mp4 then"),
        ("https://cdn.example/1.mp4#token=1", "https://cdn.example/1.mp4"),
        ("https://cdn.example/1.mp4", "https://cdn.example/1.mp4"),
        ("postgresql://reelay:pa55@db/reelay", "postgresql://[redacted]@db/reelay"),
        ("/files/1.mp4?X-Amz-Credential=abc&n=1", "/files/1.mp4?X-Amz-Credential=[redacted]&n=1"),
        ("password=abc user=me", "password=[redacted] user=me"),
        ("POST /callbacks/video_1-1-abcdef 200", "POST /callbacks/[redacted] 200"),
        ("Authorization: Bearer abcdefgh12345", "Authorization: Bearer [redacted]"),
        ("Authorization: Basic dXNlcjpwYXNzd29yZA==", "Authorization: Basic [redacted]"),
        ("Authorization: Key abcdefghijklmnop123", "Authorization: Key [redacted]"),
        ('body {"prompt": "a \\"red\\" cat", "n": 1}', 'body {"prompt": "[redacted]", "n": 1}'),
        ("body {'api_key': 'abc', 'n': 1}", "body {'api_key': '[redacted]', 'n': 1}"),
        ("{'prompt': \"it's\"}", "{'prompt': \"[redacted]\"}"),
        (r'"{\"prompt\": \"a cat\", \"n\": 1}"', r'"{\"prompt\": \"[redacted]\", \"n\": 1}"'),
        ('cut off {"prompt": "a long', 'cut off {"prompt": "[redacted]"'),
        ("unknown key: foo, basic rules, task-force-one, break-point", None),
        ("2026-11-21T05:30:00Z video_019a evolved=3 a/b/c", None),
    ],
)
def test_text_loses_what_looks_secret_and_nothing_else(text: str, left: str | None) -> None:
    assert scrub(text=text) == {"text": text if left is None else left}


def test_a_whole_struct_is_named_and_not_shown() -> None:
    ask = Ask(prompt="a cat in the rain")
    account = Account(name="one", adapter="one", base_url="https://seller.example", api_key="short-key")
    assert scrub(ask=ask, account=account, raw=b"bytes") == {"ask": "<Ask>", "account": "<Account>", "raw": "<bytes>"}


def test_what_json_cannot_hold_is_written_in_its_way() -> None:
    stream = start()
    deep: list[Any] = []
    deep.append(deep)
    structlog.get_logger().info("a.b", big=2**70, nan=float("nan"), half="\ud800", deep=deep, line="one\ntwo")
    [line] = lines(stream)
    assert line["big"] == str(2**70)
    assert line["nan"] is None
    assert line["half"] == "\\ud800"
    assert line["line"] == "one\ntwo"
    assert "…" in str(line["deep"])


def test_a_long_text_is_cut() -> None:
    assert len(scrub(text="x" * 100_000)["text"]) == TEXT_MAX_CHARS + 1


def test_a_secret_at_the_cut_is_gone_before_it() -> None:
    text = "x" * (TEXT_MAX_CHARS - 5) + EXACT
    assert EXACT[:5] not in scrub(text=text)["text"]


def test_an_exception_is_one_line_with_type_and_place_and_a_trace_beside_it() -> None:
    stream = start()
    try:
        raise_with("first\nsecond")
    except ValueError as exc:
        structlog.get_logger().warning("a.failed", exc_info=exc)
        structlog.get_logger().warning("a.failed", exc_info=True)
    for line in lines(stream):
        assert line["error"].startswith("ValueError: first second (")
        assert line["error"].endswith(" in raise_with)")
        assert "test_logs:" in line["error"]
        assert line["trace"].startswith("Traceback")
        assert "exc_info" not in line


def test_an_exception_that_was_never_raised_has_no_place() -> None:
    stream = start()
    structlog.get_logger().error("a.failed", exc_info=ValueError("odd"))
    assert lines(stream)[0]["error"] == "ValueError: odd (raised nowhere)"


def test_no_exception_is_told_where_there_is_none() -> None:
    stream = start()
    structlog.get_logger().error("a.b", exc_info=True)
    structlog.get_logger().error("a.b", exc_info=None)
    assert [set(line) for line in lines(stream)] == [{"event", "level", "time"}] * 2


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(KeyError):
        configure("json", level="loud", stream=io.StringIO())


class Sheet(io.RawIOBase):
    """Keeps each piece that is written apart."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, piece: Any) -> int:
        self.pieces.append(bytes(piece))
        return len(piece)


@pytest.fixture
def sheet() -> Iterator[Sheet]:
    """What a stream as Python opens it for errors, flushed at each line's end, writes to."""
    raw = Sheet()
    stream = io.TextIOWrapper(io.BufferedWriter(raw), line_buffering=True)
    configure("json", stream=stream)
    yield raw
    stream.detach()


async def test_lines_of_one_turn_of_the_loop_are_written_together(sheet: Sheet) -> None:
    for name in ("a.b", "a.c"):
        structlog.get_logger().info(name)
    assert sheet.pieces == []
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    (piece,) = sheet.pieces
    assert [msgspec.json.decode(line)["event"] for line in piece.splitlines()] == ["a.b", "a.c"]


def test_line_without_a_loop_is_written_at_once(sheet: Sheet) -> None:
    structlog.get_logger().info("a.b")
    assert len(sheet.pieces) == 1


@pytest.fixture
def full() -> Iterator[TextIO]:
    """Takes nothing, as a file on a disk without room."""
    with Path("/dev/full").open("w", encoding="utf-8") as stream:
        yield stream
        # What it still holds may go anywhere, so that closing it does not try once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


async def test_line_that_the_disk_does_not_take_stops_nothing(full: TextIO) -> None:
    """What was about to be done goes on: an answer of a seller's, say, that would be lost with its line."""
    broken: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: broken.append(told))
    configure("json", stream=full)
    for _ in range(1000):
        structlog.get_logger().error("answer.not_kept", why="the disk is full")
    await asyncio.sleep(0)
    logging.getLogger("uvicorn").error("the same")
    await asyncio.sleep(0.01)
    assert broken == []


def test_line_that_the_disk_does_not_take_stops_nothing_where_no_loop_runs(full: TextIO) -> None:
    configure("json", stream=full)
    structlog.get_logger().error("answer.not_kept", why="the disk is full")
