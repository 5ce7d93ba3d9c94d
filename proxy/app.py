"""Builds everything from settings; nothing else knows all rooms."""

import asyncio
import contextlib
import os
import random
import secrets as random_source
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

import msgspec
import structlog
import uvicorn

from proxy.api.auth import BOOTSTRAP_TENANT, Keyring
from proxy.api.site import build_metrics_site, build_site, route_templates
from proxy.catalog import read_catalog
from proxy.core.clock import system_clock
from proxy.core.errors import ConfigError
from proxy.core.ids import Secrets, time_hex
from proxy.core.tenant import Tenant
from proxy.outside.assets import Fetcher
from proxy.outside.storage import open_storage
from proxy.outside.transport import Transport
from proxy.policy.rules import Rules, load_rules
from proxy.providers.registry import load_adapters
from proxy.services.accounts import Registrar
from proxy.services.house import House
from proxy.services.worker import Worker
from proxy.settings import Settings, with_files
from proxy.store import migrations, tenants, videos, work
from proxy.store.base import Tx
from proxy.store.engine import FileLock, SqliteStore, refuse_network_file_system
from proxy.telemetry import logs
from proxy.telemetry.metrics import Metrics

_log = structlog.get_logger("reelay.app")

GRACE_S = 25.0
"""How long work under way may take to finish once the end was asked for."""

PLAY_KEY = "sandbox-key-of-no-value"


class PlayKeys(Mapping[str, str]):
    """The environment of the sandbox: every variable that the rules name holds a play key."""

    def __getitem__(self, name: str) -> str:
        return PLAY_KEY

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


# Parts that commands use by themselves


def read_rules(path: Path, env: Mapping[str, str]) -> Rules:
    """Raises ConfigError with file, line and column."""
    try:
        text = path.read_bytes()
    except OSError as exc:
        raise ConfigError(f"{path}: the rules cannot be read: {exc.strerror}") from exc
    adapters = {name: adapter.base_url for name, adapter in load_adapters().items()}
    return load_rules(text, file=path.name, env=env, adapters=adapters, catalog=read_catalog())


def load_secrets(settings: Settings) -> Secrets:
    """From REELAY_SECRET, else from a file beside the database, made once. Raises ConfigError."""
    if settings.secret is not None:
        return Secrets(masters=tuple(one.strip() for one in settings.secret.split(",")))
    path = settings.database_path.parent / "secret"
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(random_source.token_urlsafe(32))
        return Secrets(masters=(path.read_text().strip(),))
    except FileExistsError:
        return Secrets(masters=(path.read_text().strip(),))
    except OSError as exc:
        raise ConfigError(f"{path} cannot be read or made: {exc.strerror}") from exc


@contextlib.asynccontextmanager
async def open_store(settings: Settings) -> AsyncIterator[SqliteStore]:
    """The database at this version's schema, beside whoever else has it open. Raises ConfigError."""
    path = settings.database_path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        refuse_network_file_system(path.resolve().parent, _mounts())
        migrations.migrate(path)
    except OSError as exc:
        raise ConfigError(f"{path} cannot be opened: {exc.strerror}") from exc
    store = SqliteStore(path, system_clock)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def _mounts() -> str:
    try:
        return Path("/proc/mounts").read_text(encoding="utf-8")
    except OSError:
        return ""  # not Linux: nobody says what lies where


def registrar(store: SqliteStore, settings: Settings) -> Registrar:
    return Registrar(store, load_secrets(settings), system_clock, time_hex)


# The server


class _Server(uvicorn.Server):
    """A server that leaves signals to the process that runs it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Running(msgspec.Struct, kw_only=True):
    """A server that answers; what its owner may want to know and do."""

    origin: str
    house: House
    stop: asyncio.Event


@contextlib.asynccontextmanager
async def running(settings: Settings, env: Mapping[str, str], *, sandbox: bool) -> AsyncIterator[Running]:
    """
    Serves until `stop` is set and the block is left; drains then.

    Raises ConfigError before the port is opened.
    """
    async with contextlib.AsyncExitStack() as stack:
        lock = FileLock(settings.database_path.with_name(settings.database_path.name + ".lock"))
        settings.database_path.parent.mkdir(parents=True, exist_ok=True)
        lock.take()
        stack.callback(lock.release)
        rules = await _rules(stack, settings, env, sandbox=sandbox)
        store = await stack.enter_async_context(open_store(settings))
        await _prepare(store, rules, sandbox=sandbox)
        listening = stack.enter_context(_listen(settings))
        house = await _house(stack, settings, rules, store, sandbox=sandbox, port=listening.getsockname()[1])
        await house.storage.check()
        worker = Worker(house, owner=f"{socket.gethostname()}:{os.getpid()}")
        server = await stack.enter_async_context(_serving(settings, house, store, listening))
        working = asyncio.create_task(worker.run())
        host, port = listening.getsockname()[:2]
        stop = asyncio.Event()
        try:
            yield Running(origin=f"http://{host}:{port}", house=house, stop=stop)
        finally:
            house.draining = True
            await worker.stop(grace_s=GRACE_S)
            await working
            server.should_exit = True


async def _rules(
    stack: contextlib.AsyncExitStack, settings: Settings, env: Mapping[str, str], *, sandbox: bool
) -> Rules:
    if not sandbox:
        rules = read_rules(settings.rules, with_files(env))
        if not any(account.on for account in rules.accounts.values()):
            raise ConfigError(
                f"{settings.rules}: no provider is usable: set the key of one, or try `reelay serve --sandbox`"
            )
        return rules
    from proxy.simulator.app import serve_sandbox  # noqa: PLC0415 - serving for real needs none of it

    speed = settings.sandbox_speed
    rules = read_rules(settings.rules, PlayKeys())
    folder = settings.database_path.parent / "sandbox-sellers"
    origin = await stack.enter_async_context(serve_sandbox(folder=folder, clock_factor=1 / speed))
    return play_rules(rules, origin, speed)


def play_rules(rules: Rules, origin: str, speed: float) -> Rules:
    """The same rules over play sellers at `origin`, which are `speed` times as fast as real ones."""
    accounts = {
        name: msgspec.structs.replace(account, base_url=f"{origin}/{account.adapter}", api_key=PLAY_KEY)
        for name, account in rules.accounts.items()
    }
    offers = {
        name: msgspec.structs.replace(
            offer,
            expected_s={size: (fixed / speed, per / speed) for size, (fixed, per) in offer.expected_s.items()},
        )
        for name, offer in rules.offers.items()
    }
    return msgspec.structs.replace(
        rules,
        accounts=accounts,
        offers=offers,
        by_model={key: tuple(offers[one.id] for one in several) for key, several in rules.by_model.items()},
        by_kind={key: tuple(offers[one.id] for one in several) for key, several in rules.by_kind.items()},
        figures={},
    )


async def _prepare(store: SqliteStore, rules: Rules, *, sandbox: bool) -> None:
    """Raises ConfigError for a database of the other kind, or one that owes attempts to a vanished provider."""
    kind = "1" if sandbox else "0"

    def unit(tx: Tx) -> tuple[str, set[str]]:
        known = tenants.fact(tx, "sandbox")
        if known is None:
            tenants.set_fact(tx, "sandbox", kind)
        if tenants.find_tenant(tx, BOOTSTRAP_TENANT) is None:
            first = Tenant(id=BOOTSTRAP_TENANT, name=BOOTSTRAP_TENANT, allow_filter_off=True, created_at=tx.now_us)
            tenants.insert_tenant(tx, first)
        work.release_all(tx)
        return known or kind, videos.owed_providers(tx)

    found, owed = await store.write(unit)
    if found != kind:
        held = "play videos of the sandbox" if found == "1" else "real videos"
        raise ConfigError(f"this database holds {held}; the sandbox and real sellers need one each")
    for provider in sorted(owed - set(rules.accounts)):
        _log.error("provider.vanished", provider=provider, why="it is owed attempts, but the rules name it no more")


@contextlib.contextmanager
def _listen(settings: Settings) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listening = socket.create_server((settings.host, settings.port), family=family, backlog=1024)
    except OSError as exc:
        raise ConfigError(f"port {settings.port} on {settings.host} cannot be opened: {exc.strerror}") from exc
    with listening:
        yield listening


async def _house(
    stack: contextlib.AsyncExitStack,
    settings: Settings,
    rules: Rules,
    store: SqliteStore,
    *,
    sandbox: bool,
    port: int,
) -> House:
    metrics = Metrics(
        version("reelay"),
        providers=list(rules.accounts),
        models=rules.models,
        offers=list(rules.offers),
        rules=[rule.name for rule in rules.rules],
        routes=route_templates(),
    )
    metrics.set_tenants([tenant.id for tenant in await store.read(tenants.all_tenants)])
    transport = Transport()
    stack.push_async_callback(transport.close)
    fetcher = Fetcher(settings.allow_media_networks)
    stack.push_async_callback(fetcher.close)
    public_url = settings.public_url
    if sandbox and public_url is None:
        public_url = f"http://127.0.0.1:{port}"
    return House(
        store=store,
        rules=rules,
        adapters=load_adapters(),
        transport=transport,
        fetcher=fetcher,
        storage=open_storage(settings.storage_url),
        metrics=metrics,
        secrets=load_secrets(settings),
        clock=system_clock,
        new_id=time_hex,
        chance=random.random,
        public_url=public_url,
        sandbox=sandbox,
    )


@contextlib.asynccontextmanager
async def _serving(
    settings: Settings, house: House, store: SqliteStore, listening: socket.socket
) -> AsyncIterator[uvicorn.Server]:
    keyring = Keyring(store, house.secrets, system_clock, settings.bootstrap_key)
    own_port = settings.metrics_port
    site = build_site(
        house,
        keyring,
        Registrar(store, house.secrets, system_clock, time_hex),
        metrics_token=settings.metrics_token,
        with_metrics=own_port is None,
    )
    async with contextlib.AsyncExitStack() as stack:
        if own_port is not None:
            metrics_site = build_metrics_site(house, metrics_token=settings.metrics_token)
            own = stack.enter_context(_listen(msgspec.structs.replace(settings, port=own_port)))
            await stack.enter_async_context(_uvicorn(metrics_site, own))
        yield await stack.enter_async_context(_uvicorn(site, listening))


@contextlib.asynccontextmanager
async def _uvicorn(site: object, listening: socket.socket) -> AsyncIterator[uvicorn.Server]:
    config = uvicorn.Config(
        site,  # type: ignore[arg-type]  # litestar and uvicorn each have a type for the same ASGI
        log_config=None,
        access_log=False,
        lifespan="off",
        loop="uvloop",
        http="httptools",
        server_header=False,
        date_header=True,
        timeout_graceful_shutdown=5,
        backlog=1024,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        while not server.started:
            if serving.done():
                await serving
                raise ConfigError("the server did not start")
            await asyncio.sleep(0.005)
        yield server
    finally:
        server.should_exit = True
        await serving


async def serve(settings: Settings, env: Mapping[str, str], *, sandbox: bool) -> None:
    """Serves until SIGTERM or SIGINT; a second signal ends at once."""
    redact = [secret for secret in (settings.bootstrap_key, settings.secret, settings.metrics_token) if secret]
    logs.configure(settings.log, stream=sys.stderr, redact=redact)
    loop = asyncio.get_running_loop()
    async with running(settings, env, sandbox=sandbox) as site:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, _asked_to_stop, site.stop)
        _greet(settings, site, sandbox=sandbox)
        await site.stop.wait()
        _log.info("server.draining")


def _asked_to_stop(stop: asyncio.Event) -> None:
    if stop.is_set():
        os._exit(130)
    stop.set()


def _greet(settings: Settings, site: Running, *, sandbox: bool) -> None:
    _log.info("server.ready", origin=site.origin, sandbox=sandbox)
    for warning in site.house.rules.warnings:
        _log.warning("rules.warning", what=warning)
    if (
        settings.metrics_token is None
        and settings.metrics_port is None
        and settings.host not in {"127.0.0.1", "::1", "localhost"}
    ):
        _log.warning("metrics.open", why="anybody who reaches this port may read /metrics; set REELAY_METRICS_TOKEN")
    if not sandbox:
        return
    key = settings.bootstrap_key or ""
    shown = key if key == "reelay-sandbox-key" else "<your REELAY_BOOTSTRAP_KEY>"
    print(  # noqa: T201 - this is what the person who started it is looking for
        "\nThis is the sandbox: every seller is simulated, no money is spent and nothing here is billed.\n\n"
        f"  export OPENAI_BASE_URL={site.origin}/v1\n"
        f"  export OPENAI_API_KEY={shown}\n",
        flush=True,
    )
