"""The sandbox as one ASGI application, and a way to run it beside other servers on one loop."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import uvicorn
from litestar import Litestar, asgi
from litestar.di import Provide
from litestar.exceptions import NotFoundException
from litestar.handlers import ASGIRouteHandler
from litestar.types import ASGIApp, Receive, Scope, Send

from proxy.simulator.admin import Admin
from proxy.simulator.base import Seller
from proxy.simulator.exchange import Refused, receive_asked, send_answer, unless_gone
from proxy.simulator.sandbox import Sandbox


def build_sandbox(
    *,
    clock_factor: float = 1.0,
    seed: int = 0,
    folder: Path,
    allow_private_callbacks: bool = True,
    ready_made_clip: bool = False,
) -> Litestar:
    """
    The play sellers under their adapters' names, `/runflow` to `/evolink`, their files and the admin door.

    `folder` keeps clips and books over a restart; one sandbox at a time may use it. Every delay of
    the sellers is multiplied by `clock_factor`. With `ready_made_clip` one small clip is the answer
    to everything, whatever sizes the answers name. The running parts are `app.state.sandbox`.
    """
    sandbox = Sandbox(
        folder=folder,
        clock_factor=clock_factor,
        seed=seed,
        allow_private_callbacks=allow_private_callbacks,
        ready_made_clip=ready_made_clip,
    )

    @contextlib.asynccontextmanager
    async def life(app: Litestar) -> AsyncIterator[None]:
        app.state.sandbox = sandbox
        await sandbox.start()
        try:
            yield
        finally:
            await sandbox.stop()

    return Litestar(
        [Admin, _street(sandbox)],
        dependencies={"sandbox": Provide(lambda: sandbox, sync_to_thread=False)},
        lifespan=[life],
        openapi_config=None,
        logging_config=None,
    )


def _street(sandbox: Sandbox) -> ASGIRouteHandler:
    """
    Each seller's own host and its file host, as prefixes.

    One mount for all: Litestar compares mounts as text, and `/runflow` begins `/runflow-legacy`.
    """
    doors = {f"/{seller.name}": _door(sandbox, seller) for seller in sandbox.sellers.values()}
    doors |= {f"/files/{seller.name}": _file_door(sandbox, seller) for seller in sandbox.sellers.values()}

    @asgi("/", is_mount=True, copy_scope=False)
    async def enter(scope: Scope, receive: Receive, send: Send) -> None:
        _, first, *rest = scope["raw_path"].decode("latin-1").split("/", 3)
        door = doors.get(f"/{first}/{rest[0]}" if first == "files" and rest else f"/{first}")
        if door is None:
            raise NotFoundException
        await door(scope, receive, send)

    return enter


def _door(sandbox: Sandbox, seller: Seller) -> ASGIApp:
    """A seller's own host."""
    prefix = f"/{seller.name}"

    async def enter(scope: Scope, receive: Receive, send: Send) -> None:
        with sandbox.journal.open(seller.name):
            asked = await receive_asked(scope, receive, prefix=prefix)
            try:
                answer = await seller.answer(asked)
                if answer.later is not None:
                    answer = await unless_gone(receive, answer.later)
            except Refused as no:
                answer = no.answer
            sandbox.journal.note(seller.name, asked, answer.status)
            await send_answer(answer, receive, send)

    return enter


def _file_door(sandbox: Sandbox, seller: Seller) -> ASGIApp:
    """A seller's file host, which must never see a key."""
    prefix = f"/files/{seller.name}"

    async def fetch(scope: Scope, receive: Receive, send: Send) -> None:
        asked = await receive_asked(scope, receive, prefix=prefix)
        status = await sandbox.files.serve(
            asked, receive, send, life_s=seller.link_life_s, signs_links=seller.signs_links
        )
        sandbox.journal.note(f"files/{seller.name}", asked, status)

    return fetch


class _Guest(uvicorn.Server):
    """A server that leaves signals to whoever owns the process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def serve_sandbox(
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    folder: Path,
    clock_factor: float = 1.0,
    seed: int = 0,
    allow_private_callbacks: bool = True,
    ready_made_clip: bool = False,
) -> AsyncIterator[str]:
    """
    Runs the sandbox on this loop and yields its origin, `http://host:port`.

    Port 0 takes a free one. It stops with the block, waiting a second for open answers.
    """
    app = build_sandbox(
        clock_factor=clock_factor,
        seed=seed,
        folder=folder,
        allow_private_callbacks=allow_private_callbacks,
        ready_made_clip=ready_made_clip,
    )
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="on", timeout_graceful_shutdown=1)
    server = _Guest(config)
    with _listen(host, port) as listening:
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            while not server.started:
                if serving.done():
                    await serving
                    raise RuntimeError("the sandbox did not start")
                await asyncio.sleep(0.005)
            name = f"[{host}]" if ":" in host else host
            yield f"http://{name}:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving


def _listen(host: str, port: int) -> socket.socket:
    """
    A listening socket that says it is TCP.

    `socket.create_server` leaves the protocol open, and asyncio then does not switch Nagle's
    algorithm off: each answer of two writes would take 40 ms.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(1024)
    except OSError:
        listening.close()
        raise
    return listening
