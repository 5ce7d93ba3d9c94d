"""A real server and real simulated sellers over sockets, made as a test needs them."""

import asyncio
import os
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import msgspec
import yaml

from tests.databases import whole_in
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
KEY = "a-bootstrap-key-for-tests"
PLAY_KEYS = {"FAL_KEY": "id-1:play", "RUNFLOW_API_KEY": "play", "SHORTAPI_KEY": "play", "EVOLINK_API_KEY": "play"}

SELLERS = {"evolink": "EVOLINK_API_KEY", "shortapi": "SHORTAPI_KEY", "fal": "FAL_KEY", "runflow": "RUNFLOW_API_KEY"}
SPEED = 400.0
"""How many times faster than real sellers the simulated ones are."""


def make_rules(urls: dict[str, str], *, speed: float, deadline_s: int, **offer: Any) -> dict[str, Any]:
    """
    The cheapest of four sellers; `offer` sets fields of every offer.

    The catalogue's own offers stand under each provider, expected as much sooner as the sellers are faster.
    """
    providers = {}
    for name, variable in SELLERS.items():
        offers = yaml.safe_load((ROOT / f"proxy/catalog/{name}.yaml").read_text())["offers"]
        for one in offers:
            one["expected_s"] = {size: [s / speed for s in times] for size, times in one["expected_s"].items()}
            one.update(offer)
        providers[name] = {"adapter": name, "api_key": f"${{{variable}}}", "base_url": urls[name], "offers": offers}
        # A scene has many failures at one seller on purpose.
        providers[name]["breaker"] = False
    return {
        "version": 1,
        "defaults": {"seconds": 4, "fallback": {"deadline_s": deadline_s}},
        "providers": providers,
        "models": {"seedance-2.0": {"aliases": ["seedance"]}},
        "rules": [{"name": "default", "strategy": "cheapest"}],
    }


def _environment() -> dict[str, str]:
    """This one's, without what is meant for the tests themselves."""
    return {name: value for name, value in os.environ.items() if not name.startswith("REELAY_TEST_")}


class Process(msgspec.Struct, kw_only=True):
    """A process of ours, and where it answers."""

    process: asyncio.subprocess.Process
    origin: str

    async def kill(self) -> None:
        """SIGKILL: nothing is tidied up."""
        self.process.kill()
        await self.process.wait()

    async def stop(self) -> int:
        """SIGTERM, and the exit code."""
        if self.process.returncode is None:
            self.process.terminate()
        return await asyncio.wait_for(self.process.wait(), 40)


async def start(arguments: list[str], env: dict[str, str], folder: Path, port: int, probe: str) -> Process:
    """Runs `reelay` and waits until it answers."""
    log = (folder / f"{arguments[0]}-{port}.log").open("ab")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "proxy", *arguments, cwd=folder, env=_environment() | {"PYTHONPATH": str(ROOT)} | env,
        stdout=log, stderr=log,
    )  # fmt: skip
    log.close()
    origin = f"http://127.0.0.1:{port}"
    async with httpx.AsyncClient(trust_env=False) as client:
        for _ in range(600):
            if process.returncode is not None:
                raise RuntimeError((folder / f"{arguments[0]}-{port}.log").read_text()[-3000:])
            try:
                if (await client.get(origin + probe)).status_code < 500:
                    return Process(process=process, origin=origin)
            except httpx.TransportError:
                await asyncio.sleep(0.05)
    raise RuntimeError("it never answered")


class Stage:
    """Sellers, a server and a client; everything is stopped when the test ends."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self.folder = folder
        self._stack = stack
        self.sellers: Process
        self.server: Process
        self.client: httpx.AsyncClient
        self.admin: httpx.AsyncClient
        """The sellers' own door: books, faults, clock."""
        self.more_environment: dict[str, str] = {}
        """Of the server and the commands beside it."""

    async def start_sellers(self, *, speed: float = SPEED) -> None:
        self.speed = speed
        port = free_port()
        arguments = ["sandbox", "--port", str(port), "--folder", str(self.folder / "sellers"), "--speed", str(speed)]
        self.sellers = await start(arguments, {}, self.folder, port, "/admin/books")
        self._stack.push_async_callback(self.sellers.stop)
        # The sellers close an idle connection whenever they like, also when a request is on its way to it.
        limits = httpx.Limits(max_keepalive_connections=0)
        self.admin = httpx.AsyncClient(base_url=self.sellers.origin, trust_env=False, timeout=30, limits=limits)
        self._stack.push_async_callback(self.admin.aclose)

    def write_rules(
        self,
        change: Callable[[dict[str, Any]], object] | None = None,
        *,
        deadline_s: int = 60,
        dead: tuple[str, ...] = (),
        **offer: Any,
    ) -> None:
        """`dead` sellers stand at a port that nobody listens on; `change` gets the rules before they are written."""
        urls = {
            name: f"http://127.0.0.1:{free_port()}" if name in dead else f"{self.sellers.origin}/{name}"
            for name in SELLERS
        }
        rules = make_rules(urls, speed=self.speed, deadline_s=deadline_s, **offer)
        if change is not None:
            change(rules)
        (self.folder / "routing_rules.yaml").write_text(yaml.safe_dump(rules, sort_keys=False))

    async def start_server(self, *flags: str, **env: str) -> None:
        """With `REELAY_` before each name of `env`; the port stays the same over a restart."""
        self.furnish(**env)
        self.server = await start(["serve", *flags], self.environment, self.folder, self.port, "/readyz")
        self._stack.push_async_callback(self.server.stop)
        await self.open_client(self.server.origin)

    def furnish(self, **env: str) -> None:
        """What the server finds in its environment, and its port."""
        self.port = getattr(self, "port", None) or free_port()
        settings = {"BOOTSTRAP_KEY": KEY, "PORT": str(self.port), "PUBLIC_URL": f"http://127.0.0.1:{self.port}"}
        database = whole_in(self.folder)
        if not isinstance(database.place, Path):
            settings |= {"DATABASE_URL": database.url, "SECRET": "a-secret-of-tests-only"}
        settings |= env
        named = {f"REELAY_{name}": value for name, value in settings.items()} | PLAY_KEYS | self.more_environment
        self.environment = named

    async def open_client(self, origin: str) -> None:
        self.client = httpx.AsyncClient(
            base_url=origin, headers={"authorization": f"Bearer {KEY}"}, trust_env=False, timeout=30
        )
        self._stack.push_async_callback(self.client.aclose)

    async def start_beside(self, verb: str) -> Process:
        """Another `serve` or `work` on the same database, at a port of its own."""
        port = free_port()
        named = self.environment | {"REELAY_PORT": str(port)}
        process = await start([verb], named, self.folder, port, "/readyz")
        self._stack.push_async_callback(process.stop)
        return process

    async def create(self, prompt: str = "a paper boat", **fields: Any) -> dict[str, Any]:
        """An accepted video."""
        answer = await self.client.post("/v1/videos", json={"prompt": prompt, **fields})
        assert answer.status_code == 200, answer.text
        video: dict[str, Any] = answer.json()
        return video

    async def video(self, video_id: str) -> dict[str, Any]:
        video: dict[str, Any] = (await self.client.get(f"/v1/videos/{video_id}")).raise_for_status().json()
        return video

    async def ended(self, video_id: str, *, within_s: float = 40) -> dict[str, Any]:
        """The video once it is completed or failed."""
        return await self.until(video_id, lambda video: video["status"] in {"completed", "failed"}, within_s=within_s)

    async def until(
        self, video_id: str, wanted: Callable[[dict[str, Any]], bool], *, within_s: float = 40
    ) -> dict[str, Any]:
        async with asyncio.timeout(within_s):
            while not wanted(video := await self.video(video_id)):
                await asyncio.sleep(0.05)  # a client polls
        return video

    async def books(self) -> list[dict[str, Any]]:
        """Every job that the sellers took, as they see it."""
        jobs: list[dict[str, Any]] = (await self.admin.get("/admin/books")).raise_for_status().json()["jobs"]
        return jobs

    async def arm(self, seller: str, fault: str, **how: Any) -> None:
        """A failure on demand; `count=1` unless told otherwise."""
        body = {"seller": seller, "fault": fault, **(how or {"count": 1})}
        (await self.admin.post("/admin/faults", json=body)).raise_for_status()

    async def cli(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code and output of `reelay` beside the server."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "proxy", *arguments, cwd=self.folder,
            env=_environment() | {"PYTHONPATH": str(ROOT)} | self.environment,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate()
        return process.returncode or 0, out.decode(), err.decode()
