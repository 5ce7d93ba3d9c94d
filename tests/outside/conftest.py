"""Starts the servers that the doors are tried on."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable

import pytest
import uvloop

from tests.outside.servers import LOOPBACK_PEM, Behaviour, RawServer, Serve, Visit
from tests.ports import free_port

ON_BOTH_LOOPS = {"test_transport.py", "test_assets.py"}
"""What the socket says when a connection breaks differs between asyncio and uvloop, on which the service runs."""


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if item.path.name in ON_BOTH_LOOPS:
        factories["uvloop"] = uvloop.new_event_loop
    return factories


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts a server that behaves so on every connection; all stop with the test."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(behaviour: Behaviour, *, tls: bool = False) -> RawServer:
            raw = RawServer()
            visits: set[asyncio.Task[None]] = set()

            async def welcome(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                raw.connections += 1
                task = asyncio.current_task()
                assert task is not None
                visits.add(task)
                try:
                    with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                        await behaviour(Visit(raw, reader, writer))
                finally:
                    writer.close()
                    visits.discard(task)

            context = None
            if tls:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(LOOPBACK_PEM)
                raw.scheme = "https"
            server = await asyncio.start_server(welcome, "127.0.0.1", 0, ssl=context)
            raw.port = server.sockets[0].getsockname()[1]

            async def stop() -> None:
                server.close()
                for task in tuple(visits):
                    task.cancel()
                await asyncio.gather(*visits, return_exceptions=True)

            stack.push_async_callback(stop)
            return raw

        yield start


@pytest.fixture
def closed_port() -> int:
    """Where nobody listens."""
    return free_port()
