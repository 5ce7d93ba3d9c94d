"""
Instructions that one create, one retrieve and one decision take, counted by valgrind: the same on every run.

`python -m tests.bench.counting` prints them; with `--keep` it writes them into `instructions.json`, which
`test_counting` holds every later run against. Times on a shared machine differ by tenths from one minute to
the next, these counts by thousandths; they leave out the kernel and what waiting costs.

Requests go into the ASGI application itself, sixteen at a time, so that the writer commits them as a group
as it does under load. No worker runs, and no collector of garbage. Started with `work` this module is what
valgrind watches: it does each piece of work in stretches of equal length and makes a mark between two.
"""

import asyncio
import gc
import os
import platform
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from tests.bench.load import ROOT
from tests.bench.serve import environment

FIGURES = Path(__file__).with_name("instructions.json")
TOLERANCE = 0.03
"""Ratio by which a figure may differ from the kept one."""
AT_ONCE = 16
STRETCHES = 2
REQUESTS = 4 * AT_ONCE
"""In each stretch."""
DECISIONS = 100
WARM_UP = 3
"""Stretches before the first that counts: caches fill, and the specializing interpreter settles."""
WHAT = ("create", "retrieve", "decision")


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """What one of each takes, and the build of Python and its SQLite that it was counted on."""

    build: str
    instructions: dict[str, int]


def build() -> str:
    """Other builds of the same version may differ by tenths, so their figures are not compared."""
    return f"{sys.version} on {platform.machine()}, SQLite {sqlite3.sqlite_version}"


def kept() -> tuple[Counts, ...]:
    """The committed figures, a set for each build that somebody counted on."""
    return msgspec.json.decode(FIGURES.read_bytes(), type=tuple[Counts, ...]) if FIGURES.exists() else ()


def keep(counts: Counts) -> None:
    """In place of those of the same build."""
    every = (*(one for one in kept() if one.build != counts.build), counts)
    FIGURES.write_bytes(msgspec.json.format(msgspec.json.encode(every), indent=2) + b"\n")


def missing_tool() -> str | None:
    """Why nothing can be counted here; None where it can."""
    return None if shutil.which("valgrind") else "there is no valgrind here, which counts instructions"


def count() -> Counts:
    """In a minute or so. Raises RuntimeError with what valgrind or the work said."""
    with tempfile.TemporaryDirectory(prefix="counting-") as name:
        # It writes down what was counted whenever the C library's getloadavg is entered: that is the mark.
        watched = ["valgrind", "--tool=callgrind", "--dump-before=getloadavg", f"--callgrind-out-file={name}/counts"]
        done = subprocess.run(
            [*watched, sys.executable, "-m", "tests.bench.counting", "work", name],
            cwd=ROOT,
            env=environment({"PYTHONHASHSEED": "0"}),
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        if done.returncode:
            raise RuntimeError(done.stderr[-3000:])
        # The first dump is everything before the first mark, the last of each work is followed by the next's warm-up.
        totals = [_total(Path(name) / f"counts.{number}") for number in range(1, len(WHAT) * (STRETCHES + 1) + 1)]
    found = {}
    for place, what in enumerate(WHAT):
        first = place * (STRETCHES + 1) + 1
        each = DECISIONS if what == "decision" else REQUESTS
        found[what] = min(totals[first : first + STRETCHES]) // each
    return Counts(build=build(), instructions=found)


def _total(dump: Path) -> int:
    found = re.search(r"^totals: (\d+)$", dump.read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"{dump.name} says no total")
    return int(found[1])


# What is watched


def _mark() -> None:
    os.getloadavg()


async def _stretches(one: Callable[[], Awaitable[None]]) -> None:
    for _ in range(WARM_UP):
        await one()
    _mark()
    for _ in range(STRETCHES):
        await one()
        _mark()


class _Client:
    """Sends the same request over and over, as uvicorn hands it to the application."""

    def __init__(self, site: Any, key: str) -> None:
        self._site = site
        self._key = key.encode()

    async def ask(self, method: str, path: str, body: bytes = b"") -> bytes:
        """The answer's body. Raises RuntimeError unless it is a 200."""
        headers = [(b"host", b"127.0.0.1"), (b"authorization", b"Bearer " + self._key)]
        if body:
            headers += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "server": ("127.0.0.1", 8080),
            "client": ("127.0.0.1", 50000),
            "scheme": "http",
            "method": method,
            "root_path": "",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": headers,
            "state": {},
        }
        said: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            said.append(message)

        await self._site(scope, receive, send)
        if said[0]["status"] != 200:
            raise RuntimeError(f"{said[0]['status']}: {said[1]['body']!r}")
        answer: bytes = said[1]["body"]
        return answer

    async def ask_many(self, method: str, path: str, body: bytes = b"") -> None:
        """As many as a stretch has."""
        for _ in range(REQUESTS // AT_ONCE):
            await asyncio.gather(*(self.ask(method, path, body) for _ in range(AT_ONCE)))


async def _work(folder: Path) -> None:
    from proxy.api.auth import Keyring
    from proxy.api.site import build_site
    from proxy.services.accounts import KeyWish, Registrar
    from proxy.telemetry import logs
    from tests.bench.bench import BODY
    from tests.bench.deciding import SELLERS, asks_of, make_rules, take_decisions
    from tests.services.rehearsal import TENANT, rehearse

    with (folder / "log").open("w", encoding="utf-8") as log:
        logs.configure("json", stream=log, redact=["a-secret-of-tests-only"])
        async with rehearse(folder, b"", rule={"strategy": "cheapest"}) as stage:
            house = stage.house
            registrar = Registrar(house.store, house.secrets, house.clock, house.new_id)
            made = await registrar.create_key("bench", KeyWish(tenant=TENANT.name, name="bench", scopes=("videos",)))
            keyring = Keyring(house.store, house.secrets, house.clock, None)
            client = _Client(build_site(house, keyring, registrar, metrics_token=None, with_metrics=True), made.key)
            body = msgspec.json.encode(BODY)
            await _stretches(lambda: client.ask_many("POST", "/v1/videos", body))
            video_id = msgspec.json.decode(await client.ask("POST", "/v1/videos", body))["id"]
            await _stretches(lambda: client.ask_many("GET", f"/v1/videos/{video_id}"))
    rules = make_rules(models=1, offers=SELLERS)
    asks = asks_of(rules)

    async def decide_many() -> None:
        take_decisions(rules, asks, DECISIONS)

    await _stretches(decide_many)


def _watched(folder: Path) -> None:
    gc.disable()
    # Under valgrind a thread's turn passes in a few instructions; the lock is let go of only where one waits.
    sys.setswitchinterval(1000)
    asyncio.run(_work(folder))


def main() -> None:
    if sys.argv[1:2] == ["work"]:
        _watched(Path(sys.argv[2]))
        return
    if sys.argv[1:] not in ([], ["--keep"]):
        sys.exit("usage: python -m tests.bench.counting [--keep]")
    if (missing := missing_tool()) is not None:
        sys.exit(missing)
    counts = count()
    print(counts.build)
    for what, number in counts.instructions.items():
        print(f"{what:10}{number:>12,}")
    if sys.argv[1:] == ["--keep"]:
        keep(counts)


if __name__ == "__main__":
    main()
