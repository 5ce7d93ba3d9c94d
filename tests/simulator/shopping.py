"""A client of the sandbox, and somebody to receive callbacks."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec

from proxy.simulator.app import serve_sandbox
from proxy.simulator.faults import POLLED

HEADERS = {
    "runflow": {"Authorization": "Bearer rf_live_abc"},
    "runflow-legacy": {"Authorization": "Bearer rf_live_abc"},
    "fal": {"Authorization": "Key id:secret"},
    "shortapi": {"Authorization": "Bearer ak-abc"},
    "evolink": {"Authorization": "Bearer sk-abc"},
}
SELLERS = POLLED
"""Those whose wires the helpers here know whole; the blocking seller answers when time is moved."""

CREATES: dict[str, tuple[str, Callable[[str], dict[str, Any]]]] = {
    "runflow": (
        "/runflow/v1/models/bytedance/seedance/2.0/text-to-video/runs",
        lambda prompt: {
            "input": {"prompt": prompt, "duration": "5", "resolution": "720p", "aspect_ratio": "16:9", "seed": 42}
        },
    ),
    "runflow-legacy": (
        "/runflow-legacy/v1/run/bytedance/seedance/2.0/text-to-video",
        lambda prompt: {
            "prompt": prompt,
            "duration": "5",
            "resolution": "720p",
            "aspect_ratio": "16:9",
            "generate_audio": True,
            "seed": "42",
        },
    ),
    "fal": (
        "/fal/bytedance/seedance-2.0/text-to-video",
        lambda prompt: {
            "prompt": prompt,
            "duration": "5",
            "resolution": "720p",
            "aspect_ratio": "16:9",
            "generate_audio": True,
            "seed": 7,
        },
    ),
    "shortapi": (
        "/shortapi/api/v1/job/create",
        lambda prompt: {
            "model": "bytedance/seedance-2.0/text-to-video",
            "args": {"mode": "std", "prompt": prompt, "duration": 5, "aspect_ratio": "16:9"},
        },
    ),
    "evolink": (
        "/evolink/v1/videos/generations",
        lambda prompt: {
            "model": "seedance-2.0-text-to-video",
            "prompt": prompt,
            "duration": 5,
            "quality": "720p",
            "aspect_ratio": "16:9",
        },
    ),
}

END_S = 1000.0
"""Longer than any queue and render."""


class Shopper:
    """A client of every seller and of the sandbox's own door."""

    def __init__(self, origin: str, client: httpx.AsyncClient) -> None:
        self.origin = origin
        self.client = client

    async def create(
        self, seller: str, prompt: str = "a paper boat", *, callback_url: str | None = None, timeout_s: float = 20
    ) -> httpx.Response:
        path, body_of = CREATES[seller]
        body, params = body_of(prompt), {}
        if callback_url is not None and seller == "fal":
            params = {"fal_webhook": callback_url}
        elif callback_url is not None:
            body["callback_url"] = callback_url
        return await self.client.post(path, json=body, params=params, headers=HEADERS[seller], timeout=timeout_s)

    async def bought(self, seller: str, prompt: str = "a paper boat", *, callback_url: str | None = None) -> str:
        """Creates and returns the seller's id."""
        reply = await self.create(seller, prompt, callback_url=callback_url)
        assert reply.is_success, reply.text
        return id_of(seller, reply.json())

    async def poll(self, seller: str, id_: str) -> httpx.Response:
        path = {
            "runflow": f"/runflow/v1/runs/{id_}",
            "fal": f"/fal/bytedance/seedance-2.0/requests/{id_}/status",
            "shortapi": f"/shortapi/api/v1/job/query?id={id_}",
            "evolink": f"/evolink/v1/tasks/{id_}",
        }[seller]
        return await self.client.get(path, headers=HEADERS[seller])

    async def result(self, seller: str, id_: str) -> httpx.Response:
        if seller == "fal":
            path = f"/fal/bytedance/seedance-2.0/requests/{id_}"
            return await self.client.get(path, headers=HEADERS[seller])
        return await self.poll(seller, id_)

    async def link(self, seller: str, id_: str) -> str:
        return link_in(seller, (await self.result(seller, id_)).json())

    async def finished(self, seller: str, prompt: str = "a paper boat") -> str:
        """Creates a job, moves the clock to its end, and returns its id."""
        id_ = await self.bought(seller, prompt)
        await self.step(END_S)
        return id_

    async def step(self, seconds: float) -> None:
        await self.admin("clock/step", {"seconds": seconds})

    async def admin(self, what: str, body: dict[str, Any]) -> Any:
        reply = await self.client.post(f"/admin/{what}", json=body)
        assert reply.is_success, reply.text
        return reply.json()

    async def books(self, seller: str | None = None) -> Any:
        return (await self.client.get("/admin/books", params={"seller": seller} if seller else {})).json()

    async def job(self, id_: str) -> dict[str, Any]:
        """The job's row in the books."""
        found: dict[str, Any] = next(job for job in (await self.books())["jobs"] if job["id"] == id_)
        return found


def id_of(seller: str, body: dict[str, Any]) -> str:
    found: str = {
        "runflow": lambda: body["id"],
        "fal": lambda: body["request_id"],
        "shortapi": lambda: body["data"]["job_id"],
        "evolink": lambda: body["id"],
    }[seller]()
    return found


def link_in(seller: str, body: dict[str, Any]) -> str:
    found: str = {
        "runflow": lambda: body["output"]["outputs"][0]["url"],
        "fal": lambda: body["video"]["url"],
        "shortapi": lambda: body["data"]["result"]["videos"][0]["url"],
        "evolink": lambda: body["results"][0],
    }[seller]()
    return found


@contextlib.asynccontextmanager
async def opened(folder: Path, **options: Any) -> AsyncIterator[Shopper]:
    """A sandbox and its client."""
    async with (
        serve_sandbox(folder=folder, **options) as origin,
        httpx.AsyncClient(base_url=origin, trust_env=False, timeout=20) as client,
    ):
        yield Shopper(origin, client)


class Letterbox:
    """Receives callbacks; answers each with the next of `statuses`, then with 200."""

    def __init__(self) -> None:
        self.url = ""
        self.statuses: list[int] = []
        self.letters: list[tuple[dict[str, str], bytes]] = []
        self._came = asyncio.Condition()

    async def receive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers["content-length"]))
        status = self.statuses.pop(0) if self.statuses else 200
        writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()
        async with self._came:
            self.letters.append((headers, body))
            self._came.notify_all()

    async def wait(self, count: int) -> list[Any]:
        """The decoded bodies, once so many have come."""
        async with asyncio.timeout(5), self._came:
            await self._came.wait_for(lambda: len(self.letters) >= count)
        return [msgspec.json.decode(body) for _, body in self.letters]
