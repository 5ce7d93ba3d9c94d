"""Servers that do exactly one thing to whoever connects, on real sockets."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from aiohttp.abc import AbstractResolver, ResolveResult

LOOPBACK_PEM = Path(__file__).with_name("loopback.pem")
"""Key and self-signed certificate for 127.0.0.1 and seller.example; made for these tests, good for nothing else."""


class Visit:
    """One connection as the server sees it."""

    def __init__(self, server: "RawServer", reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server = server
        self.reader = reader
        self.writer = writer

    async def request(self) -> bytes:
        """One whole request, head and body, also noted at the server; empty if the client closed instead."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return b""
        length = 0
        for line in head.decode().lower().split("\r\n"):
            if line.startswith("content-length:"):
                length = int(line.partition(":")[2])
        request = head + await self.reader.readexactly(length)
        self.server.requests.append(request)
        return request

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        self.writer.transport.abort()


class RawServer:
    """Counts connections and keeps every request."""

    def __init__(self) -> None:
        self.port = 0
        self.scheme = "http"
        self.connections = 0
        self.requests: list[bytes] = []

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def at(self, host: str) -> str:
        return f"{self.scheme}://{host}:{self.port}"


Behaviour = Callable[[Visit], Awaitable[None]]


class Serve(Protocol):
    async def __call__(self, behaviour: Behaviour, *, tls: bool = False) -> RawServer: ...


class Names(AbstractResolver):
    """DNS as the test tells it: several addresses stand side by side in a text; any other name does not exist."""

    def __init__(self, **addresses: str) -> None:
        self.addresses = {name.replace("_", "."): text for name, text in addresses.items()}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self.addresses.get(host.lower(), "").split()
        ]
        if not found or family not in {socket.AF_UNSPEC, socket.AF_INET}:
            raise OSError(None, "no such name")
        return found

    async def close(self) -> None:
        """Holds nothing."""


def names_for(host: str, addresses: str) -> Names:
    """One host, also where a dot behind it says that the name is whole."""
    return Names(**dict.fromkeys((host.lower(), host.lower().rstrip(".")), addresses))


def reply(body: bytes = b"{}", *, status: str = "200 OK", headers: str = "content-type: application/json\r\n") -> bytes:
    return f"HTTP/1.1 {status}\r\n{headers}content-length: {len(body)}\r\n\r\n".encode() + body
