"""A real Prometheus: the one at PROMETHEUS_BIN, that of the PATH, or Debian's."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests import debian
from tests.ports import free_port


def _program(name: str) -> Path:
    given = os.environ.get("PROMETHEUS_BIN")
    if given is not None:
        return Path(given).with_name(name)
    found = shutil.which(name)
    return Path(found) if found else debian.program("prometheus", name)


def promtool(*arguments: str | Path) -> str:
    """What it says. Raises AssertionError with it where it is not content."""
    done = subprocess.run([_program("promtool"), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Prometheus:
    """One that runs, and is asked over its API."""

    def __init__(self, origin: str) -> None:
        self._http = httpx.Client(base_url=origin, trust_env=False, timeout=30)

    def ask(self, path: str, **query: Any) -> Any:
        """The data of an answer. Raises AssertionError with the error that it tells."""
        answer = self._http.get(f"/api/v1/{path}", params=query)
        body = answer.json()
        assert body["status"] == "success", body
        assert not body.get("warnings"), body
        return body["data"]

    def matrix(self, expr: str, *, start: float, end: float, step_s: float) -> list[dict[str, Any]]:
        """Every series of a query over a time, with its values."""
        found: list[dict[str, Any]] = self.ask("query_range", query=expr, start=start, end=end, step=step_s)["result"]
        return found

    def vector(self, expr: str) -> list[dict[str, Any]]:
        """What a query says now."""
        found: list[dict[str, Any]] = self.ask("query", query=expr)["result"]
        return found

    def close(self) -> None:
        self._http.close()


@contextmanager
def running(folder: Path, *targets: str, rules: tuple[Path, ...] = ()) -> Iterator[Prometheus]:
    """Scrapes `host:port`s each second as the job `reelay`, and goes by rules; it is stopped at the end."""
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(path) for path in rules],
        "scrape_configs": [{"job_name": "reelay", "static_configs": [{"targets": list(targets)}]}],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    port = free_port()
    arguments = [
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen([_program("prometheus"), *arguments], stdout=log, stderr=log)
    server = Prometheus(f"http://127.0.0.1:{port}")
    try:
        _until_ready(process, port, folder / "prometheus.log")
        yield server
    finally:
        server.close()
        process.terminate()
        process.wait(20)


def _until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    for _ in range(600):
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            if httpx.get(f"http://127.0.0.1:{port}/-/ready", trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError(log.read_text()[-3000:])
