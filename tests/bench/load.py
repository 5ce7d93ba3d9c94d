"""
The load: many keep-alive connections over the bare protocol, in a process of its own.

It shares the machine with what it measures, so it does as little as it can: the requests are bytes made
beforehand, of an answer it reads the status and the length. Run as a module it takes one JSON `Job` a
line on standard input and answers each with one `Tally`.
"""

import asyncio
import base64
import gc
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import msgspec
import uvloop

from tests.bench.report import at

ROOT = Path(__file__).parents[2]
STOPPED_S = 30.0
"""So long without a single answer, and the job is given up."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What to send; it ends after `count` requests, or after `warm_s` and `seconds`."""

    port: int
    requests: tuple[bytes, ...]
    """Sent in turn, over and over."""
    connections: int
    count: int | None = None
    warm_s: float = 0.0
    """Part of the job, not of its figures."""
    seconds: float = 0.0
    keep_ids: bool = False
    per_second: float | None = None
    """Sent at this pace, whether or not the answers keep up; None: each as soon as the one before is answered."""


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """What came back."""

    sent: int
    """All answers, those of the warming up too."""
    counted: int
    seconds: float
    per_second: float
    p50_us: float
    p90_us: float
    p99_us: float
    refused: int
    """Answers other than 200, and connections that broke."""
    first_refusal: str
    own_cpu_s: float
    """What the load itself cost."""
    ids: tuple[str, ...] = ()
    sample: str = ""
    """The body of one answer."""

    @property
    def latencies_us(self) -> tuple[float, float, float]:
        """p50, p90 and p99."""
        return self.p50_us, self.p90_us, self.p99_us


def get(path: str, key: str = "") -> bytes:
    """A request without a body."""
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{_authorization(key)}\r\n".encode()


def post(path: str, body: bytes, key: str = "", more: str = "") -> bytes:
    """A request with a JSON body; `more` is a further header with its line end."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{_authorization(key)}{more}"
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def _authorization(key: str) -> str:
    return f"Authorization: Bearer {key}\r\n" if key else ""


class _Run:
    """One job under way."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.done = asyncio.Event()
        self.latencies: list[float] = []
        self.sent = self.answered = self.refused = 0
        self.first_refusal = ""
        self.ids: list[str] = []
        self.sample = b""
        self.open = 0
        self.begun = time.perf_counter()
        self.counts_from = self.begun + job.warm_s
        self.ends_at = self.counts_from + job.seconds if job.count is None else float("inf")
        self.last_at = self.begun

    def next_request(self) -> tuple[float | None, bytes] | None:
        """With the time at which it is due, where there is a pace; None where nothing more is to be sent."""
        job = self.job
        due = None if job.per_second is None else self.begun + self.sent / job.per_second
        if ((due or self.last_at) >= self.ends_at) if job.count is None else self.sent >= job.count:
            return None
        request = job.requests[self.sent % len(job.requests)]
        self.sent += 1
        return due, request

    def answer(self, began: float, head: bytes, body: bytes) -> None:
        self.last_at = now = time.perf_counter()
        self.answered += 1
        if not head.startswith(b"HTTP/1.1 200"):
            self.fail(f"{head[:32].decode('latin-1')} {body[:300].decode('utf-8', 'replace')}")
        elif began >= self.counts_from and now <= self.ends_at:
            self.latencies.append(now - began)
        if self.job.keep_ids:
            start = body.find(b'"id":"') + 6
            self.ids.append(body[start : body.find(b'"', start)].decode())
        self.sample = body

    def fail(self, what: str) -> None:
        self.refused += 1
        self.first_refusal = self.first_refusal or what

    def closed(self) -> None:
        self.open -= 1
        if not self.open:
            self.done.set()

    def tally(self, own_cpu_s: float) -> Tally:
        ordered = sorted(self.latencies)
        seconds = self.job.seconds if self.job.count is None else self.last_at - self.begun
        return Tally(
            sent=self.answered,
            counted=len(ordered),
            seconds=seconds,
            per_second=len(ordered) / seconds if seconds else 0.0,
            p50_us=_at(ordered, 0.50),
            p90_us=_at(ordered, 0.90),
            p99_us=_at(ordered, 0.99),
            refused=self.refused,
            first_refusal=self.first_refusal,
            own_cpu_s=own_cpu_s,
            ids=tuple(self.ids),
            sample=self.sample.decode(),
        )


def _at(ordered: list[float], share: float) -> float:
    return at(ordered, share) * 1e6 if ordered else 0.0


class _Line(asyncio.Protocol):
    """One connection: a request, its answer, the next request."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._held = b""
        self._began = 0.0
        self._waits = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one without saying so
        self._send()

    def _send(self) -> None:
        following = self._run.next_request()
        self._waits = following is not None
        if following is None:
            self._transport.close()
            return
        due, request = following
        now = time.perf_counter()
        if due is None or due <= now:
            self._transport.write(request)
        else:
            asyncio.get_running_loop().call_later(due - now, self._transport.write, request)
        # Counted from when it was due: a request that waited for the answer to an earlier one was late.
        self._began = now if due is None else due

    def data_received(self, data: bytes) -> None:
        if self._held:
            data = self._held + data
        end = data.find(b"\r\n\r\n")
        length_at = data.find(b"content-length: ", 0, max(end, 0))
        if end < 0 or length_at < 0:
            self._held = data
            return
        total = end + 4 + int(data[length_at + 16 : data.find(b"\r", length_at)])
        if len(data) < total:
            self._held = data
            return
        self._held = b""
        self._run.answer(self._began, data[:end], data[end + 4 : total])
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waits:
            self._run.fail(f"the connection broke: {exc}")
        self._run.closed()


async def send(job: Job) -> Tally:
    """Raises TimeoutError where the answers stop."""
    cpu = time.process_time()
    run = _Run(job)
    run.open = job.connections
    loop = asyncio.get_running_loop()
    for _ in range(job.connections):
        await loop.create_connection(lambda: _Line(run), "127.0.0.1", job.port)
    while not run.done.is_set():
        before = run.answered
        try:
            await asyncio.wait_for(run.done.wait(), STOPPED_S)
        except TimeoutError:
            if run.answered == before:
                raise
    return run.tally(time.process_time() - cpu)


class Generator:
    """The process that sends, from the side of those who tell it what."""

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.load"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        if kind is not None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def send(self, job: Job) -> Tally:
        """Raises RuntimeError where an answer was not 200: its figures would mean something else."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(base64.b64encode(msgspec.msgpack.encode(job)) + b"\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the load generator ended")
        tally = msgspec.msgpack.decode(base64.b64decode(line), type=Tally)
        if tally.refused:
            raise RuntimeError(
                f"{tally.refused} of {tally.sent} answers were not 200; the first: {tally.first_refusal}"
            )
        return tally


def main() -> None:
    gc.disable()
    for line in sys.stdin.buffer:
        job = msgspec.msgpack.decode(base64.b64decode(line), type=Job)
        tally = uvloop.run(send(job))
        sys.stdout.buffer.write(base64.b64encode(msgspec.msgpack.encode(tally)) + b"\n")
        sys.stdout.buffer.flush()
        gc.collect()


if __name__ == "__main__":
    main()
