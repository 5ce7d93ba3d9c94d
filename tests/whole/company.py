"""Teams that use a server on a stage, each a tenant with a key of its own; and what a server keeps of them."""

from collections.abc import AsyncIterator, Callable
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
