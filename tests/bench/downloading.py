"""A large file through `GET /v1/videos/{id}/content`: how fast, how soon, and in how much memory."""

import contextlib
import os
import shutil
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import msgspec

from tests.bench import machine
from tests.bench.bench import Bench
from tests.bench.load import get
from tests.bench.report import Line, at, count, megabytes, percentiles
from tests.bench.serve import Process, Server
from tests.ports import free_port

PIECE_BYTES = 1024 * 1024
FIRST_BYTES = 15
"""How often the first byte is waited for."""
SLOW_READERS = 8
SLOW_FOR_S = 1.0

ROUNDS = 5
"""Of each who sends the file, in turns."""

_NGINX = """
{user} daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{ worker_connections 64; }}
http {{
  access_log off; sendfile on;
  client_body_temp_path {folder}/nginx-body; proxy_temp_path {folder}/nginx-proxy;
  fastcgi_temp_path {folder}/nginx-fastcgi; uwsgi_temp_path {folder}/nginx-uwsgi; scgi_temp_path {folder}/nginx-scgi;
  server {{ listen 127.0.0.1:{port}; root {root}; }}
}}
"""


def _ask(port: int, request: bytes) -> tuple[socket.socket, int]:
    """The connection with its first byte read, and how many bytes of the body have come."""
    line = socket.create_connection(("127.0.0.1", port), timeout=30)
    line.sendall(request)
    head = b""
    while b"\r\n\r\n" not in head or head.endswith(b"\r\n\r\n"):
        piece = line.recv(65536)
        if not piece:
            raise RuntimeError(f"the download broke off: {head[:200]!r}")
        head += piece
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"no download: {head[:300]!r}")
    return line, len(head) - head.index(b"\r\n\r\n") - 4


def _download(port: int, request: bytes, size_bytes: int) -> float:
    """Seconds until the last byte."""
    buffer = bytearray(PIECE_BYTES)
    begun = time.perf_counter()
    line, got = _ask(port, request)
    with line:
        while got < size_bytes:
            piece = line.recv_into(buffer)
            if not piece:
                raise RuntimeError(f"the download ended after {got} of {size_bytes} bytes")
            got += piece
    return time.perf_counter() - begun


def _first_bytes_s(port: int, request: bytes) -> list[float]:
    """How long each was waited for, in rising order."""
    taken = []
    for _ in range(FIRST_BYTES):
        begun = time.perf_counter()
        line, _ = _ask(port, request)
        taken.append(time.perf_counter() - begun)
        line.close()
    return sorted(taken)


def _enlarge(server: Server, size_bytes: int) -> tuple[str, Path]:
    """A completed video whose file is now so large; its id and the file."""
    with contextlib.closing(sqlite3.connect(server.database, timeout=10)) as database, database:
        query = "SELECT id, footage FROM videos WHERE status = 'completed' LIMIT 1"
        video_id, footage = database.execute(query).fetchone()
        fields = msgspec.json.decode(footage)
        changed = msgspec.json.encode(fields | {"size_bytes": size_bytes})
        database.execute("UPDATE videos SET footage = ? WHERE id = ?", (changed, video_id))
    path = server.folder / "data/videos" / fields["key"]
    block = os.urandom(PIECE_BYTES)
    with path.open("wb") as file:
        for start in range(0, size_bytes, PIECE_BYTES):
            file.write(block[: size_bytes - start])
    return video_id, path


def _slow_reader_bytes(port: int, request: bytes, pid: int) -> float:
    """What the server holds for each reader that takes one piece and then none."""
    before, highest = machine.rss_bytes(pid), 0
    lines = [_ask(port, request)[0] for _ in range(SLOW_READERS)]
    ends_at = time.monotonic() + SLOW_FOR_S
    while time.monotonic() < ends_at:
        highest = max(highest, machine.rss_bytes(pid))
        time.sleep(0.02)
    for line in lines:
        line.close()
    return max(0, highest - before) / SLOW_READERS


@contextlib.contextmanager
def _bare_sendfile(path: Path) -> Iterator[int]:
    """The kernel's own way of sending a file: what nobody who reads it first can reach."""
    size_bytes = path.stat().st_size

    def answer() -> None:
        for _ in range(ROUNDS):
            line, _ = listening.accept()
            with line, path.open("rb") as file:
                line.recv(65536)
                line.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {size_bytes}\r\n\r\n".encode())
                line.sendfile(file)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        sending = threading.Thread(target=answer)
        sending.start()
        yield listening.getsockname()[1]
        sending.join()


@contextlib.contextmanager
def _nginx(path: Path, folder: Path) -> Iterator[int | None]:
    """None where it is not installed."""
    program = shutil.which("nginx")
    if program is None:
        yield None
        return
    port = free_port()
    settings = folder / "nginx.conf"
    # As root it would hand the work to a user who may not read what is ours.
    user = "user root;" if os.geteuid() == 0 else ""
    settings.write_text(_NGINX.format(user=user, folder=folder, port=port, root=path.parent), encoding="utf-8")
    with subprocess.Popen([program, "-p", str(folder), "-c", str(settings)], stderr=subprocess.DEVNULL) as child:
        try:
            _wait_for(port)
            yield port
        finally:
            child.terminate()


def _wait_for(port: int) -> None:
    for _ in range(100):
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        time.sleep(0.05)
    raise RuntimeError("nginx did not start")


def measure_downloading(bench: Bench, server: Server, sellers: Process) -> Line:
    size_bytes, pid, port = bench.scale.file_bytes, server.process.pid, server.process.port
    watch = bench.watch(server.process, sellers)
    video_id, path = _enlarge(server, size_bytes)
    request = get(f"/v1/videos/{video_id}/content", server.key)
    idle_bytes = machine.rss_bytes(pid)
    machine.forget_peak(pid)
    firsts_s = _first_bytes_s(port, request)
    first_s = median(firsts_s)
    _download(port, request, size_bytes)
    above_bytes = machine.peak_rss_bytes(pid) - idle_bytes
    slow_bytes = _slow_reader_bytes(port, request, pid)
    plain = get(f"/{path.name}")
    taken: dict[str, list[float]] = {"ours": [], "bare": [], "nginx": []}
    server_s = 0.0
    with _bare_sendfile(path) as bare_port, _nginx(path, bench.folder) as nginx_port:
        for _ in range(ROUNDS):
            before_s = machine.cpu_s(pid)
            taken["ours"].append(_download(port, request, size_bytes))
            server_s += (machine.cpu_s(pid) - before_s) / ROUNDS
            taken["bare"].append(_download(bare_port, plain, size_bytes))
            if nginx_port is not None:
                taken["nginx"].append(_download(nginx_port, plain, size_bytes))
    ours_s, bare_s = median(taken["ours"]), median(taken["bare"])
    ratio = None if nginx_port is None else median(taken["nginx"]) / ours_s

    def pace(seconds: float) -> str:
        return f"{count(size_bytes / seconds / 1e6)} MB/s"

    small = first_s <= 0.020 and above_bytes <= 20e6 and slow_bytes <= 4e6
    return Line(
        name=f"download of {megabytes(size_bytes)}",
        goal=">= 0.5 x nginx, first byte <= 20 ms, <= 20 MB, <= 4 MB a slow reader",
        measured=f"{pace(ours_s)}, {first_s * 1000:.1f} ms, {megabytes(above_bytes)}, {slow_bytes / 1e6:.1f} MB",
        floor="nginx not measured" if ratio is None else f"nginx {pace(median(taken['nginx']))}",
        ratio="" if ratio is None else f"{ratio:.2f}",
        met=False if not small else None if ratio is None else ratio >= 0.5,
        notes=(
            f"bare sendfile: {pace(bare_s)}, of which this is {bare_s / ours_s:.2f}",
            f"medians of {ROUNDS}; this one {pace(max(taken['ours']))} to {pace(min(taken['ours']))}",
            f"first byte: {percentiles([at(firsts_s, share) * 1e6 for share in (0.5, 0.9, 0.99)])}",
            f"server CPU: {server_s * 1e9 / size_bytes:.2f} s/GB",
            *(("there is no nginx here: the ratio to it was not measured",) if ratio is None else ()),
        ),
        disturbance=watch.end(),
    )
