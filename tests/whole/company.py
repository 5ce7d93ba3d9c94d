"""Teams that use a server on a stage, each a tenant with a key of its own; and what a server keeps of them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec

from tests.databases import whole_in
from tests.whole.stage import Stage

UNSAID: Any = object()

_KEPT = ("videos", "attempts", "work", "ledger_transactions", "ledger_postings", "idempotency", "end_users")


class Team(msgspec.Struct, kw_only=True):
    """A tenant, a key of it, and a client that uses the key."""

    id: str
    name: str
    key: str
    client: httpx.AsyncClient


class Company(Stage):
    """A stage with teams on it."""

    async def found(self, name: str, *scopes: str, **settings: Any) -> Team:
        """A new tenant; its key has the scope `videos` unless told otherwise."""
        tenant = (await self.client.post("/admin/tenants", json={"name": name, **settings})).raise_for_status().json()
        key = await self.new_key(tenant["id"], *scopes)
        return Team(id=tenant["id"], name=name, key=key, client=await self.client_of(key))

    async def new_key(self, tenant: str, *scopes: str, **wish: Any) -> str:
        body = {"tenant": tenant, "scopes": scopes or ("videos",), **wish}
        key: str = (await self.client.post("/admin/keys", json=body)).raise_for_status().json()["key"]
        return key

    async def client_of(self, key: str | None = None) -> httpx.AsyncClient:
        """Without a key, a stranger."""
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        client = httpx.AsyncClient(base_url=self.server.origin, headers=headers, trust_env=False, timeout=30)
        return await self._stack.enter_async_context(client)

    async def kept(self) -> dict[str, int]:
        """How much the database holds of videos and money, and how many orders the sellers have seen."""
        database = whole_in(self.folder)
        counts = {table: database.rows(f"select count(*) from {table}")[0][0] for table in _KEPT}  # noqa: S608  # the names stand above
        books = (await self.admin.get("/admin/books", params={"jobs": "false"})).raise_for_status().json()
        return counts | {"ordered": sum(account["ordered"] for account in books["accounts"])}


@asynccontextmanager
async def open_company(
    folder: Path, change: Callable[[dict[str, Any]], object] | None = None, **env: str
) -> AsyncIterator[Company]:
    """Sellers and a server, for as long as several tests need them."""
    async with AsyncExitStack() as stack:
        company = Company(folder, stack)
        await company.start_sellers()
        company.write_rules(change)
        await company.start_server(**env)
        yield company


def refused(answer: httpx.Response, status: int, code: str, param: str | None = UNSAID) -> str:
    """The message of a refusal, which has OpenAI's envelope and nothing else."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"].startswith("req_")
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    error = body["error"]
    assert error["code"] == code, error
    assert isinstance(error["type"], str)
    if param is not UNSAID:
        assert error["param"] == param, error
    message: str = error["message"]
    assert message
    return message


async def leaves_no_trace(
    shop: Company, client: httpx.AsyncClient, path: str = "/v1/videos", **sent: Any
) -> httpx.Response:
    """The answer to a request that changes nothing in the database and reaches no seller."""
    before = await shop.kept()
    answer = await client.post(path, **sent)
    assert await shop.kept() == before
    return answer


def request_head(key: str, *lines: str, content_type: str = "application/json") -> bytes:
    """The first bytes of a create, for who writes the rest by hand."""
    head = ("POST /v1/videos HTTP/1.1", "host: localhost", f"authorization: Bearer {key}", *lines)
    return "\r\n".join((*head, f"content-type: {content_type}", "", "")).encode()


async def answer_to(shop: Company, head: bytes, body: bytes = b"") -> bytes:
    """What a socket hears; the connection stays open until it is heard."""
    reader, writer = await asyncio.open_connection("127.0.0.1", shop.port)
    try:
        writer.write(head + body)
        await writer.drain()
        async with asyncio.timeout(20):
            said = await reader.readuntil(b"\r\n\r\n")
            length = next(int(line[15:]) for line in said.split(b"\r\n") if line.lower().startswith(b"content-length:"))
            return said + await reader.readexactly(length)
    finally:
        writer.close()


def chunks(body: bytes, size_bytes: int) -> Iterator[bytes]:
    """A body as HTTP's chunks of a size, without the last one, which ends it."""
    for start in range(0, len(body), size_bytes):
        piece = body[start : start + size_bytes]
        yield b"%x\r\n%s\r\n" % (len(piece), piece)


def chunked(body: bytes, size_bytes: int) -> bytes:
    return b"".join((*chunks(body, size_bytes), b"0\r\n\r\n"))
