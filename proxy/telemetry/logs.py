"""
How a log line is made: a dotted event, fields, the time in UTC; and what may never be in one.

    log = structlog.get_logger()
    log.info("attempt.accepted", video=video_id, provider="…")

The standard library's loggers (the server, the migrations) end in the same lines: the logger's name is
the event, its text the field `message`.
"""

import asyncio
import io
import json
import logging
import re
import sys
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from traceback import format_exception, walk_tb
from types import TracebackType
from typing import Final, Literal, TextIO, cast
from urllib.parse import quote

import msgspec
import structlog
from structlog.typing import EventDict, Processor

REDACTED: Final = "[redacted]"
TEXT_MAX_CHARS: Final = 4_000
TRACE_MAX_CHARS: Final = 20_000
LEAST_SECRET_CHARS: Final = 8

_DEPTH_MAX: Final = 6
_WORDS_MAX: Final = 2_000
_WORD_MAX_CHARS: Final = 24
_CHATTY: Final = ("httpx", "httpcore", "aiohttp", "asyncio", "sqlalchemy", "alembic", "uvicorn")
"""Libraries that tell of every exchange at level info; heard from `warning` up."""

_SECRET_NAMES: Final = frozenset(
    {"authorization", "apikey", "key", "secret", "token", "password", "prompt", "cookie", "pepper", "credentials"}
)
_SECRET_ENDS: Final = tuple(f"_{name}" for name in sorted(_SECRET_NAMES))

_KEY_STARTS: Final = ("rly_", "rf_live_", "rf_test_", "whsec_", "sk-", "ak-")
_PATTERNS: Final = tuple(
    (hint, re.compile(pattern), put)
    for hint, pattern, put in (
        # A signature sits in the query; host and path are what helps.
        ("://", r"(?i)\b([a-z][a-z0-9+.-]*://[^\s?#\"'<>]*)[?#][^\s\"'<>]*", r"\1"),
        ("@", r"(?i)\b([a-z][a-z0-9+.-]*://)[^\s/@\"'<>]+@", rf"\1{REDACTED}@"),
        # A seller's callback address is a secret as a whole: who knows it can make us ask.
        ("/callbacks/", r"(/callbacks/)[^\s?\"'<>]+", rf"\1{REDACTED}"),
        (
            "=",
            r"(?i)\b((?:x-amz-)?(?:signature|credential)|sig|(?:[\w-]+[-_])?(?:key|token|secret|password))=[^\s&\"'<>]+",
            rf"\1={REDACTED}",
        ),
        ("bearer", r"(?i)\b(bearer)\s+[\w.~+/=:-]{8,}", rf"\1 {REDACTED}"),
        ("basic", r"(?i)\b(basic)\s+[\w.~+/=:-]{16,}", rf"\1 {REDACTED}"),
        ("key", r"\b(Key)\s+[\w.~+/=:-]{16,}", rf"\1 {REDACTED}"),
        # A body quoted in a message, as JSON or as Python prints it; it may have been cut off.
        (
            ":",
            (
                r"(?is)(\\*[\"'])((?:[\w-]+[-_])?(?:authorization|apikey|key|token|secret|password|prompt))\1\s*:\s*"
                r"(\\*[\"'])(?:\\.|[^\\])*?(?:\3|$)"
            ),
            rf"\1\2\1: \3{REDACTED}\3",
        ),
        # An id and 32 hex digits joined by a colon is one seller's form of key.
        (":", r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}:[0-9a-fA-F]{32}\b", REDACTED),
        *((start, rf"(?<![A-Za-z0-9]){start}[\w+/=-]{{6,}}", REDACTED) for start in _KEY_STARTS),
    )
)
"""What must occur in the lower-cased text for the pattern to be worth a try; the pattern; what takes its place."""

_PLAIN: Final = re.compile(r"(?:video|req)_[0-9a-f]+|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z").fullmatch
"""Our own ids and times, which stand in every line: none of the patterns can match in one."""


def configure(
    fmt: Literal["json", "console"], *, level: str = "info", stream: TextIO, redact: Collection[str] = ()
) -> None:
    """
    Sends every log line of this process to `stream`, from `level` up.

    `redact` are secrets that appear in no line, in whatever field. May be called again.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    render: list[Processor] = (
        [_json] if fmt == "json" else [_for_people, structlog.dev.ConsoleRenderer(colors=stream.isatty())]
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            _tell_time,
            _tell_exception,
            Redaction(redact),
            *render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", _Sink(stream))),
        # A cached logger would keep the stream of the first call for ever.
        cache_logger_on_first_use=False,
    )
    _take_over(number)


def redact_too(secrets: Collection[str]) -> None:
    """
    These appear in no later line either.

    One that is too short to be a secret is left out: its letters would be missing from every word.
    """
    for processor in structlog.get_config()["processors"]:
        if isinstance(processor, Redaction):
            processor.add(secret for secret in secrets if len(secret) >= LEAST_SECRET_CHARS)


class _Sink(io.TextIOBase):
    """
    A stream that is flushed once a turn of the event loop, and at once where no loop runs.

    Each flush lets go of the interpreter's lock; one for every line would cost a busy server a tenth of
    its time. A process that is killed loses no more than the lines of that turn. What the stream does not
    take, on a full disk say, is lost or late: no work stops for a line about it.
    """

    def __init__(self, stream: TextIO) -> None:
        if isinstance(stream, io.TextIOWrapper):
            # Python's own streams for errors flush at each line's end, whatever is asked of them.
            stream.reconfigure(line_buffering=False)
        self._stream = stream
        self._due = False

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._flush()
            return
        if not self._due:
            self._due = True
            loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._due = False
        with suppress(OSError):
            self._stream.flush()


class Redaction:
    """The processor that every line passes last: nothing secret gets past it, and nothing but plain data."""

    def __init__(self, secrets: Collection[str] = ()) -> None:
        self._exact: list[str] = []
        self._words: dict[str, str] = {}
        self.add(secrets)

    def add(self, secrets: Iterable[str]) -> None:
        """These too, from now on; what was a secret stays one."""
        forms = {form for secret in secrets if secret for form in (secret, quote(secret, safe=""))}
        # The longest first, lest a secret that begins like another leaves its end behind.
        self._exact = sorted(forms.union(self._exact), key=len, reverse=True)
        self._words = {}

    def __call__(self, _logger: object, _method: str, event: EventDict) -> EventDict:
        return {
            self._word(name): self.text(value, TRACE_MAX_CHARS)
            if name == "trace" and isinstance(value, str)
            else self._field(name, value, 0)
            for name, value in event.items()
        }

    def _word(self, word: str) -> str:
        """The same for a word that comes again and again: what was found clean or not once is so for good."""
        known = self._words.get(word)
        if known is None:
            if len(self._words) >= _WORDS_MAX:
                self._words.clear()
            known = self._words[word] = self.text(word)
        return known

    def text(self, text: str, max_chars: int = TEXT_MAX_CHARS) -> str:
        """The text without what looks like a secret or is one, and not longer than `max_chars`."""
        for secret in self._exact:
            text = text.replace(secret, REDACTED)
        if not _PLAIN(text):
            lowered = text.lower()
            for hint, pattern, put in _PATTERNS:
                if hint in lowered:
                    text = pattern.sub(put, text)
        if not text.isascii():
            # Half a surrogate pair, as a broken file name has, cannot be written as UTF-8.
            text = text.encode("utf-8", "backslashreplace").decode()
        return text if len(text) <= max_chars else f"{text[:max_chars]}…"

    def _text(self, value: str) -> str:
        # Names of events, tenants and providers are short; ids are longer and hardly ever come again.
        return self._word(value) if len(value) <= _WORD_MAX_CHARS else self.text(value)

    def _field(self, name: object, value: object, depth: int) -> object:
        if value is not None and _is_secret(str(name)):
            return REDACTED
        return self._text(value) if type(value) is str else self._value(value, depth)

    def _value(self, value: object, depth: int) -> object:
        match value:
            case str():
                return self._text(value)
            case None | bool() | float():
                return value
            case int():
                return value if value.bit_length() < 64 else str(value)
            case BaseException():
                return self.text(f"{type(value).__name__}: {value}")
            case _ if depth >= _DEPTH_MAX:
                return "…"
            case Mapping():
                return {self.text(str(name)): self._field(name, inner, depth + 1) for name, inner in value.items()}
            case (str() as name, _) if _is_secret(name):
                return [name, REDACTED]
            case list() | tuple() | set() | frozenset():
                return [self._value(inner, depth + 1) for inner in value]
            case _:
                # Any other object may hold a key or a prompt; whoever logs it names the fields.
                return f"<{type(value).__name__}>"


@lru_cache(maxsize=512)
def _is_secret(name: str) -> bool:
    plain = name.lower().replace("-", "_")
    return plain in _SECRET_NAMES or plain.endswith(_SECRET_ENDS)


@lru_cache(maxsize=4)
def _iso_second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _tell_time(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Now, to the microsecond; lines of the same second share the most of its text."""
    second, rest_ns = divmod(time.time_ns(), 1_000_000_000)
    event["time"] = f"{_iso_second(second)}.{rest_ns // 1000:06d}Z"
    return event


def _tell_exception(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Turns `exc_info` into `error`, one line with type and place, and `trace`, all of it."""
    exc = _exception(event.pop("exc_info", None))
    if exc is not None:
        event["error"] = " ".join(f"{type(exc).__name__}: {exc} ({_place(exc.__traceback__)})".split())
        event["trace"] = "".join(format_exception(exc))
    return event


def _exception(exc_info: object) -> BaseException | None:
    """What `exc_info` stands for: an exception, the three parts of one, or "the one being handled"."""
    match exc_info:
        case BaseException():
            return exc_info
        case (_, BaseException() as exc, _):
            return exc
        case True:
            return sys.exception()
        case _:
            return None


def _place(trace: TracebackType | None) -> str:
    """The innermost frame: module, line, function."""
    frames = [(frame.f_globals.get("__name__", "?"), line, frame.f_code.co_qualname) for frame, line in walk_tb(trace)]
    return "{}:{} in {}".format(*frames[-1]) if frames else "raised nowhere"


def _for_people(_logger: object, _method: str, event: EventDict) -> EventDict:
    """As the console takes it: it prints texts as they are, and `exception` over many lines."""
    shown = {_printable(name): _printable(value) if type(value) is str else value for name, value in event.items()}
    if "trace" in event:
        del shown["trace"]
        shown["exception"] = "\n".join(_printable(line) for line in event["trace"].split("\n"))
    return shown


def _json(_logger: object, _method: str, event: EventDict) -> str:
    return _printable(_ENCODER.encode(event).decode())


def _printable(text: str) -> str:
    """
    The text with JSON's escapes for what would end a line or move a cursor; JSON stays what it was.

    The encoder leaves U+0085, U+2028 and the control characters above ASCII as they are.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)


_ENCODER: Final = msgspec.json.Encoder()


class _Forwarding(logging.Handler):
    """Hands the standard library's records on as events."""

    def emit(self, record: logging.LogRecord) -> None:
        # Libraries have levels of their own between the five that a line may carry.
        level = min(max(record.levelno // 10 * 10, logging.DEBUG), logging.CRITICAL)
        try:
            message = record.getMessage()
        except (TypeError, ValueError):
            message = str(record.msg)
        structlog.get_logger().log(level, record.name, message=message, exc_info=record.exc_info)


def _take_over(level: int) -> None:
    """Makes the root logger's only handler ours, and lets every logger pass its records up to it."""
    root = logging.getLogger()
    root.handlers[:] = [_Forwarding()]
    root.setLevel(level)
    for name in list(root.manager.loggerDict):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
