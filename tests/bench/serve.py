"""The processes that are measured: the server, the simulated sellers, the floor."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import yaml

from tests.bench.load import ROOT, Generator, Job, post
from tests.ports import free_port

PLAY_KEYS = {"EVOLINK_API_KEY": "play", "SHORTAPI_KEY": "play", "FAL_KEY": "id-1:play", "RUNFLOW_API_KEY": "play"}
SELLERS = {"evolink": "EVOLINK_API_KEY", "shortapi": "SHORTAPI_KEY", "fal": "FAL_KEY", "runflow": "RUNFLOW_API_KEY"}
OPERATOR_KEY = "the-bench-s-own-operator"
START_WITHIN_S = 30.0


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """A child that answers."""

    child: subprocess.Popen[bytes]
    port: int
    ready_after_s: float

    @property
    def pid(self) -> int:
        return self.child.pid

    def kill(self) -> None:
        """At once: nothing that it holds is wanted any more."""
        self.child.kill()
        self.child.wait()


def environment(more: dict[str, str]) -> dict[str, str]:
    """This one's, without what Reelay would take for its settings, and without what would make Python another."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("REELAY_", "PYTHON"))}
    return inherited | more | {"PYTHONPATH": str(ROOT)}


def start(module: str, arguments: list[str], *, folder: Path, port: int, probe: str, env: dict[str, str]) -> Process:
    """Runs a module of ours and waits for a 200. Raises RuntimeError with the end of its log."""
    log = folder / f"{module.rpartition('.')[2]}-{port}.log"
    begun = time.perf_counter()
    with log.open("ab") as out:
        child = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=folder,
            env=environment(env),
            stdout=out,
            stderr=out,
        )
    while not _answers(port, probe):
        late = time.perf_counter() - begun > START_WITHIN_S
        if late or child.poll() is not None:
            child.kill()
            child.wait()
            raise RuntimeError(f"{module} did not start:\n{log.read_text(encoding='utf-8')[-3000:]}")
        time.sleep(0.005)
    return Process(child=child, port=port, ready_after_s=time.perf_counter() - begun)


def _answers(port: int, probe: str) -> bool:
    try:
        return fetch(port, probe)[0] == 200
    except OSError:
        return False


def fetch(port: int, path: str) -> tuple[int, bytes]:
    """Status and body of a small answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as line:
        line.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: line.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    return (int(head[9:12]) if len(head) > 12 else 0), body


def start_floor(folder: Path, *, created: str, retrieved: str) -> Process:
    """`created` and `retrieved` are answers of Reelay's, whose size the floor's have."""
    (folder / "created.json").write_text(created, encoding="utf-8")
    (folder / "retrieved.json").write_text(retrieved, encoding="utf-8")
    port = free_port()
    return start(
        "tests.bench.floor", [str(port), "created.json", "retrieved.json"], folder=folder, port=port,
        probe="/v1/videos/any", env={},
    )  # fmt: skip


def start_sellers(folder: Path, *, speed: float) -> Process:
    """Simulated sellers `speed` times as fast as real ones, with one clip of 64 KiB that is made before they answer."""
    port = free_port()
    arguments = ["sandbox", "--port", str(port), "--folder", str(folder / "sellers"), "--speed", str(speed)]
    return start(
        "proxy", [*arguments, "--ready-made-clip"], folder=folder, port=port, probe="/admin/books?jobs=false", env={}
    )


def write_rules(
    folder: Path,
    url_of: Callable[[str], str],
    *,
    max_in_flight: int | None = None,
    pace_s: float | None = None,
    **offer: Any,
) -> None:
    """
    Four sellers with the catalogue's offers, in which `offer` sets fields; cheapest first, so EvoLink is asked.

    With `pace_s` every video is expected to take so long.
    """
    providers = {}
    for name, variable in SELLERS.items():
        offers = yaml.safe_load((ROOT / f"proxy/catalog/{name}.yaml").read_text(encoding="utf-8"))["offers"]
        for one in offers:
            one.update(offer)
            if pace_s is not None:
                one["expected_s"] = {size: [pace_s, 0] for size in one["resolutions"]}
        providers[name] = {
            "adapter": name,
            "api_key": f"${{{variable}}}",
            "base_url": url_of(name),
            "offers": offers,
        }
        if max_in_flight is not None:
            providers[name]["max_in_flight"] = max_in_flight
    rules = {
        "version": 1,
        "providers": providers,
        "models": {"seedance-2.0": {"aliases": ["seedance"]}},
        "rules": [{"name": "default", "strategy": "cheapest"}],
    }
    (folder / "routing_rules.yaml").write_text(yaml.safe_dump(rules, sort_keys=False), encoding="utf-8")


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """`reelay serve` on SQLite in a folder of its own, with a key of a tenant's."""

    process: Process
    folder: Path
    key: str

    @property
    def database(self) -> Path:
        return self.folder / "data/reelay.db"


def start_server(
    folder: Path, *, module: str = "proxy", arguments: tuple[str, ...] = ("serve",), database_url: str | None = None
) -> Process:
    """As an operator starts it; the rules lie in `folder`, and so does the database unless it has an address."""
    port = free_port()
    settings = {"REELAY_PORT": str(port), "REELAY_BOOTSTRAP_KEY": OPERATOR_KEY} | PLAY_KEYS
    if database_url is not None:
        settings |= {"REELAY_DATABASE_URL": database_url, "REELAY_SECRET": "a-secret-of-the-bench"}
    return start(module, list(arguments), folder=folder, port=port, probe="/readyz", env=settings)


def make_key(generator: Generator, process: Process, tenant: str = "default") -> str:
    """A key with the scope of every client, as an operator makes it."""
    key: str = _ask(generator, process, "/admin/keys", {"tenant": tenant, "name": "bench", "scopes": ["videos"]})["key"]
    return key


def make_tenants(generator: Generator, process: Process, count: int) -> list[str]:
    """Keys of so many new tenants, one each."""
    names = [f"tenant-{number}" for number in range(count)]
    for name in names:
        _ask(generator, process, "/admin/tenants", {"name": name})
    return [make_key(generator, process, name) for name in names]


def _ask(generator: Generator, process: Process, path: str, wish: dict[str, Any]) -> dict[str, Any]:
    request = post(path, msgspec.json.encode(wish), OPERATOR_KEY)
    answer = generator.send(Job(port=process.port, requests=(request,), connections=1, count=1))
    made: dict[str, Any] = msgspec.json.decode(answer.sample)
    return made
