"""Builds everything from settings; nothing else knows all rooms."""

import asyncio
import contextlib
import functools
import os
import random
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

import msgspec
import structlog
import uvicorn

from proxy.api.auth import BOOTSTRAP_TENANT, Keyring
from proxy.api.patience import CONNECTIONS_MAX, FILES_MAX, BoundedProtocol, hurry_all
from proxy.api.site import build_probes_site, build_site, route_templates
from proxy.core.clock import SECOND_US
from proxy.core.errors import ConfigError, Overloaded
from proxy.core.ids import Secrets, time_hex
from proxy.core.tenant import Tenant
from proxy.opening import (
    PlayKeys,
    load_secrets,
    make_data_folder,
    open_store,
    play_rules,
    play_sellers_only,
    read_rules,
    real_rules,
)
from proxy.outside.assets import Fetcher
from proxy.outside.disk import LocalDisk
from proxy.outside.storage import Storage, open_storage
from proxy.outside.transport import Transport
from proxy.policy.rules import Rules
from proxy.providers.registry import load_adapters
from proxy.reloading import Reloading
from proxy.services.accounts import Registrar
from proxy.services.belonging import claim_secret, claim_storage
from proxy.services.house import House
from proxy.services.restored import Doubted, last_restore, look_back
from proxy.services.room import watched_room
from proxy.services.told import tell_changes
from proxy.services.vanished import Vanished, mark_vanished
from proxy.services.worker import Worker
from proxy.settings import SANDBOX_KEY, Settings, exposures, unknown_names
from proxy.store import prices, tenants, work
from proxy.store.base import Store, Tx
from proxy.store.observed import Observed
from proxy.store.sqlite import FileLock
from proxy.telemetry import logs
from proxy.telemetry.metrics import TENANT_LABELS, Metrics

_log = structlog.get_logger("reelay.app")

SELLER_TEXT_MAX_CHARS = 500
"""What is kept of a seller's own words."""

KEEP_ALIVE_S = 75
"""
How long a client's idle connection is kept: longer than clients keep theirs, which is 4 to 60 seconds for the SDKs
and for load balancers. One that is closed here while a request is on its way to it fails that request.
"""

GRACE_S = 25.0
"""How long work under way may take to finish once the end was asked for."""

# The server


class _Server(uvicorn.Server):
    """A server that leaves signals to the process that runs it, and waits for no client for ever."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:  # once a second
            hurry_all(self.server_state.connections)
            if (clients := len(self.server_state.connections)) > CONNECTIONS_MAX:
                _log.warning("clients.turned_away", clients=clients, most=CONNECTIONS_MAX)
        return await super().on_tick(counter)


class Consent(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator takes upon himself at a start."""

    after_restore: bool = False
    new_secret: bool = False
    new_storage: bool = False


NO_CONSENT = Consent()


class Running(msgspec.Struct, kw_only=True):
    """A server that answers; what its owner may want to know and do."""

    origin: str
    house: House
    stop: asyncio.Event
    reloading: Reloading


@contextlib.asynccontextmanager
async def running(
    settings: Settings,
    env: Mapping[str, str],
    *,
    sandbox: bool,
    worker_alone: bool = False,
    consent: Consent = NO_CONSENT,
) -> AsyncIterator[Running]:
    """
    Serves until `stop` is set and the block is left; drains then.

    `worker_alone` serves no API, but works off what is due and answers probes and scrapes. Raises
    ConfigError before the port is opened.
    """
    rules = _read(settings, env, sandbox=sandbox)
    storage = open_storage(settings.storage_url)
    async with contextlib.AsyncExitStack() as stack:
        if isinstance(settings.database, Path):
            _take_lock(stack, settings.database.resolve())  # a link to it is the same database
        secrets = load_secrets(settings)
        store = await stack.enter_async_context(open_store(settings))
        restored_at = await _prepare(Observed(store, tell_changes), rules, secrets, sandbox=sandbox, consent=consent)
        await storage.check()
        await claim_storage(store, storage, time_hex, place=settings.storage_url, anew=consent.new_storage)
        listening = stack.enter_context(_listen(settings.host, settings.port))
        metrics_listening = None
        if settings.metrics_port is not None:
            metrics_listening = stack.enter_context(_listen(settings.host, settings.metrics_port))
        host, port = listening.getsockname()[:2]
        play = await _open_play_sellers(stack, settings) if sandbox else None
        if play is not None:
            rules = play(rules)
            settings = msgspec.structs.replace(settings, public_url=settings.public_url or f"http://127.0.0.1:{port}")
        redaction = logs.Redaction([secret for secret in (settings.bootstrap_key, settings.metrics_token) if secret])
        house = await _house(
            stack, settings, rules, store, storage, secrets, redaction, sandbox=sandbox, restored_at=restored_at
        )
        await stack.enter_async_context(watched_room(house))
        reloading = Reloading(
            house, settings.rules, functools.partial(_read, settings, env, play, sandbox=sandbox), redaction
        )
        worker = Worker(house, owner=f"{socket.gethostname()}:{os.getpid()}")
        with_metrics = metrics_listening is None
        site = (
            build_probes_site(house, metrics_token=settings.metrics_token, with_metrics=with_metrics)
            if worker_alone
            else _api(settings, house, with_metrics=with_metrics)
        )
        server = await stack.enter_async_context(_serving(settings, house, site, listening, metrics_listening))
        working = asyncio.create_task(worker.run())
        keeping_up = asyncio.create_task(reloading.run())
        stop = asyncio.Event()
        try:
            yield Running(origin=_origin(host, port), house=house, stop=stop, reloading=reloading)
        finally:
            house.drain()
            keeping_up.cancel()
            await worker.stop(grace_s=GRACE_S)
            await working
            await asyncio.wait([keeping_up])
            server.should_exit = True


def _read(
    settings: Settings, env: Mapping[str, str], play: Callable[[Rules], Rules] | None = None, *, sandbox: bool
) -> Rules:
    """`play` makes them those of play sellers that run."""
    rules = play_sellers_only(read_rules(settings.rules, PlayKeys())) if sandbox else real_rules(settings, env)
    return rules if play is None else play(rules)


def _take_lock(stack: contextlib.AsyncExitStack, path: Path) -> None:
    make_data_folder(path)
    lock = FileLock(path.with_name(path.name + ".lock"))
    try:
        lock.take()
    except OSError as exc:
        raise ConfigError(f"the lock beside {path} cannot be taken: {exc.strerror}") from exc
    stack.callback(lock.release)


def _origin(host: str, port: int) -> str:
    """Where this machine itself finds the server, also where it listens on every address."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # nothing is bound here
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


# The sandbox


async def _open_play_sellers(stack: contextlib.AsyncExitStack, settings: Settings) -> Callable[[Rules], Rules]:
    from proxy.simulator.app import serve_sandbox  # noqa: PLC0415 - serving for real needs none of it

    folder, speed = settings.data_folder / "sandbox-sellers", settings.sandbox_speed
    origin = await stack.enter_async_context(serve_sandbox(folder=folder, clock_factor=1 / speed))
    return lambda rules: play_rules(rules, origin, speed)


# The database at the start


async def _prepare(store: Store, rules: Rules, secrets: Secrets, *, sandbox: bool, consent: Consent) -> int:
    """
    When the database was last restored from a backup; 0 if never.

    Raises ConfigError for a database of the other kind, of another secret, or a backup, and leaves that as it was.
    """
    try:
        vanished, doubted, restored = await store.write(
            lambda tx: _take_over(tx, rules, secrets, sandbox=sandbox, consent=consent, alone=store.alone)
        )
    except Overloaded as exc:
        raise ConfigError(f"the database cannot be written: {exc.__cause__}") from exc
    for provider in vanished.providers:
        _log.error("provider.vanished", provider=provider, why="it is owed attempts, but the rules name it no more")
    if vanished.marked or vanished.returned:
        _log.warning("attempts.remarked", now_unknown=vanished.marked, running_again=vanished.returned)
    if store.ahead_us > SECOND_US:
        _log.error("clock.behind", seconds=store.ahead_us // SECOND_US, why="the database has seen later times")
    if doubted is not None:
        _log.warning("database.restored", sending=doubted.sending, next_offers=doubted.next_offers)
    return restored


def _take_over(
    tx: Tx, rules: Rules, secrets: Secrets, *, sandbox: bool, consent: Consent, alone: bool
) -> tuple[Vanished, Doubted | None, int]:
    kind = "1" if sandbox else "0"
    known = tenants.fact(tx, "sandbox")
    if known not in {None, kind}:
        mine, other = ("the sandbox", "real sellers") if known == "1" else ("real sellers", "the sandbox")
        raise ConfigError(f"this database belongs to {mine}; use another for {other} (REELAY_DATABASE_URL)")
    if known is None:
        tenants.set_fact(tx, "sandbox", kind)
    claim_secret(tx, secrets, anew=consent.new_secret)
    if tenants.find_tenant(tx, BOOTSTRAP_TENANT) is None:
        first = Tenant(id=BOOTSTRAP_TENANT, name=BOOTSTRAP_TENANT, allow_filter_off=True, created_at=tx.now_us)
        tenants.insert_tenant(tx, first)
    if alone:
        work.release_all(tx)
    doubted = look_back(tx, after_restore=consent.after_restore)
    return mark_vanished(tx, set(rules.accounts)), doubted, last_restore(tx)


# The server's parts


@contextlib.contextmanager
def _listen(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # A socket that says it is TCP: else asyncio leaves Nagle's algorithm on, and answers of two writes take 40 ms.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
            listening.listen(1024)
        except OSError as exc:
            raise ConfigError(f"port {port} on {host} cannot be opened: {exc.strerror}") from exc
        yield listening


async def _house(
    stack: contextlib.AsyncExitStack,
    settings: Settings,
    rules: Rules,
    store: Store,
    storage: Storage,
    secrets: Secrets,
    redaction: logs.Redaction,
    *,
    sandbox: bool,
    restored_at: int,
) -> House:
    metrics = Metrics(
        version("reelay"),
        providers=list(rules.accounts),
        models=rules.models,
        offers=list(rules.offers),
        rules=[rule.name for rule in rules.rules],
        routes=route_templates(),
    )
    metrics.set_tenants(await store.read(lambda tx: tenants.oldest(tx, most=TENANT_LABELS)))
    transport = Transport()
    stack.push_async_callback(transport.close)
    fetcher = Fetcher(settings.allow_media_networks)
    stack.push_async_callback(fetcher.close)
    return House(
        store=Observed(store, tell_changes, functools.partial(metrics.store_failed, store="database")),
        rules=rules,
        overrides=await store.read(prices.live_overrides),
        adapters=load_adapters(),
        transport=transport,
        fetcher=fetcher,
        storage=storage,
        metrics=metrics,
        secrets=secrets,
        clock=store.clock,
        new_id=time_hex,
        chance=random.random,
        public_url=settings.public_url,
        sandbox=sandbox,
        clean=lambda text: redaction.text(text, SELLER_TEXT_MAX_CHARS),
        database_disk=LocalDisk(settings.database.resolve().parent) if isinstance(settings.database, Path) else None,
        restored_at=restored_at,
    )


def _api(settings: Settings, house: House, *, with_metrics: bool) -> object:
    return build_site(
        house,
        Keyring(house.store, house.secrets, house.clock, settings.bootstrap_key),
        Registrar(house.store, house.secrets, house.clock, time_hex),
        metrics_token=settings.metrics_token,
        with_metrics=with_metrics,
    )


@contextlib.asynccontextmanager
async def _serving(
    settings: Settings,
    house: House,
    site: object,
    listening: socket.socket,
    metrics_listening: socket.socket | None,
) -> AsyncIterator[uvicorn.Server]:
    async with contextlib.AsyncExitStack() as stack:
        if metrics_listening is not None:
            metrics_site = build_probes_site(house, metrics_token=settings.metrics_token)
            await stack.enter_async_context(_uvicorn(metrics_site, metrics_listening))
        yield await stack.enter_async_context(_uvicorn(site, listening))


@contextlib.asynccontextmanager
async def _uvicorn(site: object, listening: socket.socket) -> AsyncIterator[uvicorn.Server]:
    config = uvicorn.Config(
        site,  # type: ignore[arg-type]  # litestar and uvicorn each have a type for the same ASGI
        log_config=None,
        access_log=False,
        lifespan="off",
        loop="uvloop",
        http=BoundedProtocol,
        ws="none",
        server_header=False,
        proxy_headers=False,  # nobody asks who is at the other end
        date_header=True,
        timeout_keep_alive=KEEP_ALIVE_S,
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


async def serve(
    settings: Settings,
    env: Mapping[str, str],
    *,
    sandbox: bool = False,
    worker_alone: bool = False,
    consent: Consent = NO_CONSENT,
) -> None:
    """Serves, or only works, until SIGTERM or SIGINT; a second signal ends at once."""
    redact = [secret for secret in (settings.bootstrap_key, settings.secret, settings.metrics_token) if secret]
    logs.configure(settings.log, stream=sys.stderr, redact=redact)
    _raise_files()
    loop = asyncio.get_running_loop()
    started = running(settings, env, sandbox=sandbox, worker_alone=worker_alone, consent=consent)
    async with started as site:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, _asked_to_stop, site.stop)
        loop.add_signal_handler(signal.SIGHUP, _hung_up, site, sys.stdin.isatty())
        _log.info("server.ready", origin=site.origin, sandbox=sandbox, worker_alone=worker_alone)
        for what in site.house.rules.warnings:
            _log.warning("rules.warning", what=what)
        for what in (*unknown_names(env), *exposures(settings)):
            _log.warning("settings.warning", what=what)
        if sandbox:
            _greet(settings, site.origin)
        await site.stop.wait()
        _log.info("server.draining")


def _raise_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= FILES_MAX:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (FILES_MAX, hard))
    except (OSError, ValueError) as exc:  # The kernel may have a lower limit of its own.
        _log.warning("files.limited", soft=soft, wanted=FILES_MAX, why=str(exc))


def _asked_to_stop(stop: asyncio.Event) -> None:
    if stop.is_set():
        os._exit(130)
    stop.set()


def _hung_up(site: Running, had_terminal: bool) -> None:
    """Asks for the rules to be read anew; where the server's own terminal was closed, for the end."""
    if had_terminal and not sys.stdin.isatty():
        site.stop.set()
    else:
        site.reloading.ask()


def _greet(settings: Settings, origin: str) -> None:
    shown = SANDBOX_KEY if settings.bootstrap_key == SANDBOX_KEY else "<your REELAY_BOOTSTRAP_KEY>"
    print(  # noqa: T201 - this is what the person who started it is looking for
        "\nThis is the sandbox: every seller is simulated, no money is spent and nothing here is billed.\n\n"
        f"  export OPENAI_BASE_URL={origin}/v1\n"
        f"  export OPENAI_API_KEY={shown}\n",
        flush=True,
    )
