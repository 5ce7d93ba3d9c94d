"""`reelay doctor`: everything that has to be right before videos can be bought, one finding each."""

import asyncio
import socket
import stat
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import msgspec

from proxy.api.patience import CONNECTIONS_MAX, FILES_MAX
from proxy.core.account import Account
from proxy.core.clock import SECOND_US, Clock, iso, system_clock
from proxy.core.errors import ConfigError, ReelayError
from proxy.core.ids import time_hex
from proxy.core.money import usd_text
from proxy.opening import PlayKeys, make_data_folder, open_store, owed_but_vanished, read_rules
from proxy.outside.base import Room, Storage, StorageFailed
from proxy.outside.disk import LocalDisk
from proxy.outside.guard import is_allowed
from proxy.outside.storage import Folder, open_storage, probe
from proxy.policy.rules import Rules
from proxy.providers.base import KnowsKeys
from proxy.providers.registry import load_adapters
from proxy.services.audit import glance
from proxy.services.disks import FULL_RATIO
from proxy.services.doctor import Finding, Look, Verdict, look_at
from proxy.services.overview import unknown_exposure
from proxy.settings import Settings, WithFiles, exposures, read_settings, unknown_names
from proxy.store import migrations, moments
from proxy.store.base import Store
from proxy.store.condition import FileCondition, ServerCondition, look_at_file, look_at_server
from proxy.telemetry.logs import LEAST_SECRET_CHARS, Redaction
from proxy.trial import open_sellers

GIB = 1024**3
LEAST_FREE_BYTES = GIB
"""A day of short films for a small team."""
NEARLY_FULL_RATIO = 0.8
"""Time to act before nothing is accepted any more."""
LARGE_LOG_BYTES = GIB
"""Somebody reads one state of the database for hours, or nobody has folded it in."""
WAL = "wal"
LEAST_CONNECTIONS = 20
"""Of PostgreSQL, for one more process of ours, which uses up to that many."""
OLDEST_POSTGRES = 130000
IDLE_S = 60
"""A transaction that stands still for so long is forgotten by its owner, and keeps others from its rows."""
SKEW_US, WRONG_US = 2 * SECOND_US, 60 * SECOND_US
"""A clock that is off by less than the one is well; by the other, times in logs and on bills mislead."""
FEW_CLIENTS = 2_000
ANSWER_TIMEOUT_S = 5.0
STORAGE_TIMEOUT_S = 10.0


async def checkup(
    env: Mapping[str, str], *, sandbox: bool = False, clock: Clock = system_clock
) -> AsyncIterator[Finding]:
    """
    Findings as they are made, beside a server or without one; nothing secret is in any.

    Buys nothing and changes nothing: what it makes is a probe in the storage, and an empty folder where one is to
    be made by the first start; it deletes both. `sandbox`: of its own files, and without sellers, for a sandbox
    plays them itself. `clock` is this machine's.
    """
    try:
        settings = read_settings(env, sandbox=sandbox)
    except ConfigError as exc:
        yield _problem("settings", str(exc), "set it right; README lists every setting")
        return
    rules, findings = _rules(settings, PlayKeys() if sandbox else WithFiles(env))
    redact = Redaction(_secrets(settings, rules)).text
    async for finding in _all(settings, env, rules, findings, clock, sandbox=sandbox):
        advice = None if finding.advice is None else redact(finding.advice)
        yield Finding(verdict=finding.verdict, subject=finding.subject, detail=redact(finding.detail), advice=advice)


async def _all(
    settings: Settings,
    env: Mapping[str, str],
    rules: Rules | None,
    of_rules: list[Finding],
    clock: Clock,
    *,
    sandbox: bool,
) -> AsyncIterator[Finding]:
    bought = None if sandbox else rules
    for finding in (*_settings(settings, env), *of_rules, *(_keys(bought) if bought is not None else ())):
        yield finding
    async for finding in _database(settings, rules, clock):
        yield finding
    async for finding in _storage(settings):
        yield finding
    yield _open_files()
    served = await _server(settings, sandbox=sandbox)
    yield served[0]
    async for finding in _public_address(settings, serving=served[1]):
        yield finding
    looks = [] if bought is None else await _sellers(bought, clock)
    for look in looks:
        yield look.finding
    for finding in _clock(looks):
        yield finding


def _ok(subject: str, detail: str) -> Finding:
    return Finding(verdict="ok", subject=subject, detail=detail)


def _warning(subject: str, detail: str, advice: str) -> Finding:
    return Finding(verdict="warning", subject=subject, detail=detail, advice=advice)


def _problem(subject: str, detail: str, advice: str) -> Finding:
    return Finding(verdict="problem", subject=subject, detail=detail, advice=advice)


# Settings, rules, keys


def _secrets(settings: Settings, rules: Rules | None) -> list[str]:
    """Those that are long enough to be secrets."""
    keys = [] if rules is None else [account.api_key for account in rules.accounts.values()]
    found = [*keys, *(settings.secret or "").split(","), settings.bootstrap_key, settings.metrics_token]
    return [secret for secret in found if secret and len(secret) >= LEAST_SECRET_CHARS]


def _settings(settings: Settings, env: Mapping[str, str]) -> list[Finding]:
    """Each doubt says first what is so, and then what to do."""
    doubts = [doubt.partition("; ") for doubt in (*unknown_names(env), *exposures(settings))]
    found = [_warning("settings", what, advice or "take it away") for what, _, advice in doubts]
    return found or [_ok("settings", "nothing is odd, and nothing is open that should not be")]


def _rules(settings: Settings, env: Mapping[str, str]) -> tuple[Rules | None, list[Finding]]:
    try:
        rules = read_rules(settings.rules, env)
    except ConfigError as exc:
        return None, [_problem("rules", str(exc), "mend them; `reelay check` reads them again")]
    found = [_ok("rules", f"{settings.rules}: {len(rules.rules)} rules, {len(rules.offers)} offers")]
    found += [
        _warning("rules", warning, f"change {settings.rules}, or leave it if it is meant so")
        for warning in rules.warnings
        if not any(warning == _off(account, rules) for account in rules.accounts.values())
    ]
    if not any(account.on for account in rules.accounts.values()):
        found.append(_problem("rules", "no provider is usable: no key is set", "set the key of one"))
    return rules, found


def _off(account: Account, rules: Rules) -> str | None:
    """What the rules say of a provider that has no key, though it is meant to be on."""
    begins = f"the provider {account.name} is off: "
    return next((warning for warning in rules.warnings if warning.startswith(begins)), None)


def _keys(rules: Rules) -> list[Finding]:
    adapters, found = load_adapters(), []
    for account in rules.accounts.values():
        subject, adapter = f"key of {account.name}", adapters.get(account.adapter)
        if account.api_key is None:
            why = _off(account, rules)
            advice = "set it, also as a file named by the same variable with _FILE, or say `enabled: false`"
            found.append(_ok(subject, "not set, and not needed") if why is None else _warning(subject, why, advice))
            continue
        odd = adapter.odd_key(account.api_key) if isinstance(adapter, KnowsKeys) else None
        odd = odd or _placeholder(account.api_key)
        if odd is not None:
            found.append(_warning(subject, f"it looks wrong: {odd}", "copy the key anew from the seller's own page"))
        else:
            found.append(_ok(subject, "set, in a form that can be"))
    return found


def _placeholder(key: str) -> str | None:
    if key[0] == key[-1] and key[0] in "\"'":
        return "there are quotes around it"
    if key.startswith(("$", "<", "{")) or key.lower().startswith(("your", "changeme", "xxx")):
        return "it is a placeholder"
    return None


# The database


async def _database(settings: Settings, rules: Rules | None, clock: Clock) -> AsyncIterator[Finding]:
    place = settings.database
    if isinstance(place, Path) and not place.exists():
        yield _to_be_made("database", place, place.parent)
        return
    try:
        if isinstance(place, Path):
            make_data_folder(place)
        # First what only reads: to be opened as a server opens it, it has to be well.
        revision = await asyncio.to_thread(migrations.revision_of, place)
        condition = await asyncio.to_thread(
            lambda: look_at_file(place) if isinstance(place, Path) else look_at_server(place, clock)
        )
    except ConfigError as exc:
        advice = "see that it is there, and ours to read and write" if isinstance(place, Path) else "see that it runs"
        yield _problem("database", str(exc), advice)
        return
    spoken = revision == migrations.HEAD or await asyncio.to_thread(migrations.works_beside, place)
    found = _file(condition) if isinstance(condition, FileCondition) else _postgres(condition)
    for finding in (_schema(place, revision, spoken=spoken), *found, *_secret_file(settings)):
        yield finding
    # To open a file as a server does would change one that none has opened yet, and fail with one that is not well.
    closed = isinstance(condition, FileCondition) and (
        condition.journal_mode != WAL or any(finding.verdict == "problem" for finding in found)
    )
    if spoken and not closed:
        async for finding in _books(settings, rules, clock):
            yield finding


def _schema(place: Path | str, revision: str | None, *, spoken: bool) -> Finding:
    name = str(place) if isinstance(place, Path) else "PostgreSQL"
    if spoken:
        return _ok("database", f"{name} at schema {revision}")
    has = "no schema yet" if revision is None else f"schema {revision}"
    return _warning("database", f"{name} has {has}", "`reelay migrate`, or start a server, which does the same")


def _secret_file(settings: Settings) -> list[Finding]:
    secret = settings.data_folder / "secret"
    if settings.secret is None and secret.exists() and stat.S_IMODE(secret.stat().st_mode) & 0o077:
        return [_warning("secret", f"{secret} can be read by others", f"chmod 600 {secret}")]
    return []


def _file(seen: FileCondition) -> list[Finding]:
    kept = "a write-ahead log, and every commit waits for the disk"
    found = [_ok("durability", kept if seen.journal_mode == WAL else f"the next start opens it with {kept}")]
    size = f"{_size(seen.size_bytes)}, and {_size(seen.log_bytes)} of its log"
    if seen.log_bytes > LARGE_LOG_BYTES:
        found.append(_warning("size", size, "end whoever reads it for hours; the log shrinks when a server starts"))
    else:
        found.append(_ok("size", size))
    if seen.locked is not None:
        found.append(_problem("locks", f"nobody can write to it: {seen.locked}", "find out who holds it: fuser FILE"))
    else:
        found.append(_ok("locks", "it can be written"))
    return found


def _postgres(seen: ServerCondition) -> list[Finding]:
    found = [
        _problem("version", f"PostgreSQL {seen.version}", "13 or newer is needed")
        if seen.version_number < OLDEST_POSTGRES
        else _ok("version", f"PostgreSQL {seen.version}")
    ]
    if seen.weak:
        off = f"{', '.join(seen.weak)}: off, so a crash loses what was promised"
        found.append(_problem("durability", off, "switch it on in postgresql.conf"))
    else:
        found.append(_ok("durability", "every commit waits for the disk"))
    if not seen.writable:
        found.append(_problem("durability", "this server only reads", "name the primary in REELAY_DATABASE_URL"))
    found.append(_ok("size", _size(seen.size_bytes)))
    left = f"{max(0, seen.connections_left)} of {seen.connections_most} are left"
    if seen.connections_left < LEAST_CONNECTIONS:
        found.append(
            _warning("connections", left, f"raise max_connections: a process of ours uses {LEAST_CONNECTIONS}")
        )
    else:
        found.append(_ok("connections", left))
    if seen.idle_s >= IDLE_S:
        found.append(
            _warning("locks", f"a transaction stands still for {seen.idle_s} s", "end it: see pg_stat_activity")
        )
    elif seen.waiting:
        found.append(
            _warning("locks", f"{seen.waiting} connections wait for one", "ask again; see pg_locks if they stay")
        )
    else:
        found.append(_ok("locks", "nobody waits for one"))
    found.append(_skew("clock of the database", seen.ahead_us, "this machine's clock", "the database's"))
    return found


async def _books(settings: Settings, rules: Rules | None, clock: Clock) -> AsyncIterator[Finding]:
    try:
        async with open_store(settings) as store:
            async for finding in _in_the_books(store, rules, clock):
                yield finding
    except ReelayError as exc:
        yield _problem("books", f"they cannot be read: {exc}", "look at the database")


async def _in_the_books(store: Store, rules: Rules | None, clock: Clock) -> AsyncIterator[Finding]:
    for provider in [] if rules is None else await owed_but_vanished(store, rules):
        why = f"attempts are owed to {provider}, not in the rules"
        yield _problem("database", why, "put it back with `enabled: false` until they are over")
    now_us = clock()
    latest_us = await store.read(moments.latest)
    if latest_us > now_us + SKEW_US:
        later = f"the database has seen {iso(latest_us)}, {_seconds(latest_us - now_us)} later than it is here"
        yield _problem("clock of the database", later, "set this machine's clock right")
    books = await glance(store, now_us=now_us)
    if books.drift_microusd or books.doubts:
        doubts = "; ".join(f"{doubt.subject}: {doubt.detail}" for doubt in books.doubts[:3])
        off = f"they differ by ${usd_text(books.drift_microusd)} in themselves" if books.drift_microusd else doubts
        yield _problem("books", off, "`reelay audit` goes through all of them")
    else:
        checked = "never gone through yet" if books.checked_at is None else f"last compared {iso(books.checked_at)}"
        yield _ok("books", f"the last day balances; {checked}")
    unknown = await unknown_exposure(store)
    if unknown.attempts:
        oldest = _seconds(now_us - unknown.oldest_at)
        told = f"{unknown.attempts}, the oldest for {oldest}; they may have cost ${usd_text(unknown.possible_microusd)}"
        yield _warning(
            "unknown attempts", told, "`reelay attempts list`; ask the seller, then `reelay attempts resolve`"
        )
    else:
        yield _ok("unknown attempts", "none")


# Files and disks


async def _storage(settings: Settings) -> AsyncIterator[Finding]:
    advice = "see that it is there, and ours to write"
    try:
        storage = open_storage(settings.storage_url)
        if isinstance(storage, Folder) and not storage.root.exists():
            yield _to_be_made("storage", settings.storage_url, storage.root)
        else:
            async with asyncio.timeout(STORAGE_TIMEOUT_S):
                await probe(storage, time_hex(system_clock()))
            yield _ok("storage", f"{settings.storage_url}: a file was written, read and deleted")
            async for finding in _disk("disk of the storage", storage):
                yield finding
    except TimeoutError:
        yield _problem("storage", f"{settings.storage_url} did not answer in {STORAGE_TIMEOUT_S:g} s", advice)
    except ReelayError as exc:
        yield _problem("storage", f"{settings.storage_url}: {exc}", advice)
    if isinstance(settings.database, Path):
        folder = next(parent for parent in settings.database.absolute().parents if parent.exists())
        async for finding in _disk("disk of the database", LocalDisk(folder)):
            yield finding


def _to_be_made(subject: str, what: Path | str, folder: Path) -> Finding:
    """By the first start, which makes the folder and those above it where they are not there."""
    above = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.exists())
    try:
        with tempfile.TemporaryDirectory(dir=above, prefix=".reelay-doctor-"):
            pass
    except OSError as exc:
        why = f"{what} cannot be made: {above}: {exc.strerror}"
        return _problem(subject, why, "name a place that is ours to write, or make it so")
    return _ok(subject, f"{what} will be made by the first start")


async def _disk(subject: str, disk: Storage | LocalDisk) -> AsyncIterator[Finding]:
    try:
        room = await disk.room()
    except StorageFailed as exc:
        yield _problem(subject, str(exc), "see that it is mounted")
        return
    if room is not None:
        yield disk_finding(subject, room)


def disk_finding(subject: str, room: Room) -> Finding:
    """Against the limit at which nothing new is accepted."""
    told = f"{_size(room.free_bytes)} free, {room.used_ratio:.0%} used"
    if room.used_ratio > FULL_RATIO:
        full = f"{told}: nothing new is accepted above {FULL_RATIO:.0%}"
        return _problem(subject, full, "make room, or `reelay prune`; videos under way go on")
    if room.used_ratio > NEARLY_FULL_RATIO or room.free_bytes < LEAST_FREE_BYTES:
        return _warning(subject, f"{told}; nothing new is accepted above {FULL_RATIO:.0%}", "make room in time")
    return _ok(subject, told)


def _open_files() -> Finding:
    told = f"{FILES_MAX} at the most, so {CONNECTIONS_MAX} clients at once"
    if CONNECTIONS_MAX < FEW_CLIENTS:
        return _warning("open files", told, "raise the hard limit: ulimit -Hn 65536, or LimitNOFILE= of systemd")
    return _ok("open files", told)


# The server and its public address


async def _server(settings: Settings, *, sandbox: bool) -> tuple[Finding, bool]:
    """And whether one of ours, of that kind, answers on this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104  # nothing is bound here
    origin = f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"
    alive = await _is_alive(origin)
    if alive is None and await _plays(origin) != sandbox:
        kind = "real" if sandbox else "a sandbox, which buys nothing"
        return _problem("server", f"the one at {origin} is {kind}", "set REELAY_PORT, or see --sandbox"), False
    if alive is None:
        return _ok("server", f"it answers at {origin}"), True
    if alive != _NOBODY:
        return _problem(
            "server", f"{origin} is somebody else: {alive}", "set REELAY_PORT to a port that is free"
        ), False
    return _ok("server", f"none answers at {origin}; `reelay serve` starts one"), False


_NOBODY = "nobody answers"


async def _is_alive(origin: str) -> str | None:
    """None where a server of ours answers; else what does."""
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=ANSWER_TIMEOUT_S) as client:
            answer = await client.get(f"{origin}/healthz")
    except httpx.ConnectError as exc:
        return "TLS fails" if "SSL" in str(exc) or "CERTIFICATE" in str(exc) else _NOBODY
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        return f"it does not speak HTTP as expected ({type(exc).__name__})"
    ours = answer.status_code == 200 and answer.content == b'{"status":"ok"}'
    return None if ours else f"/healthz answers with status {answer.status_code} and is not Reelay's"


async def _plays(origin: str) -> bool:
    """Whether the server there is a sandbox."""
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=ANSWER_TIMEOUT_S) as client:
            told = msgspec.json.decode((await client.get(f"{origin}/readyz")).content)
    except (httpx.HTTPError, msgspec.DecodeError):
        return False
    return isinstance(told, dict) and told.get("sandbox") is True


async def _public_address(settings: Settings, *, serving: bool) -> AsyncIterator[Finding]:
    url, subject = settings.public_url, "public address"
    if url is None:
        why = "none: sellers cannot call back, so they are polled only, and a lost answer is not named by a callback"
        yield _warning(subject, why, "set REELAY_PUBLIC_URL, if sellers can reach this server")
        return
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme != "https":
        yield _warning(subject, f"{url} is not https; some sellers call back to https only", "put TLS before it")
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError) as exc:
        yield _problem(
            subject, f"{host} cannot be resolved: {exc or 'no answer'}", "mend its DNS, or REELAY_PUBLIC_URL"
        )
        return
    inside = sorted({str(info[4][0]) for info in found if not is_allowed(str(info[4][0]))})
    if inside:
        yield _warning(
            subject, f"{host} is {', '.join(inside)}, where no seller reaches it", "name an address of the internet"
        )
    alive = await _is_alive(url)
    if alive is None:
        yield _ok(subject, f"{url}: /healthz answers through it")
    elif serving:
        yield _problem(subject, f"{url}: {alive}, though the server runs", "look at DNS, proxy and firewall before it")
    else:
        yield _warning(subject, f"{url}: {alive}", "start a server, and ask again")


# Sellers and clocks


async def _sellers(rules: Rules, clock: Clock) -> list[Look]:
    """All at once; those without a key are told before."""
    async with open_sellers(rules) as sellers:
        asked = [look_at(seller, clock) for seller in sellers.values() if seller.account.api_key is not None]
        return list(await asyncio.gather(*asked))


def _clock(looks: Sequence[Look]) -> list[Finding]:
    """One seller that agrees with this machine is enough: another's own clock may be off."""
    told = [look.ahead_us for look in looks if look.ahead_us is not None]
    return [_skew("clock", -min(told, key=abs), "this machine's clock", "the sellers'")] if told else []


def _skew(subject: str, ahead_us: int, ours: str, theirs: str) -> Finding:
    """`ahead_us`: by how much theirs is ahead of ours."""
    if abs(ahead_us) < SKEW_US:
        return _ok(subject, f"{ours} and {theirs} agree")
    verdict: Verdict = "problem" if abs(ahead_us) >= WRONG_US else "warning"
    detail = f"{ours} is {_seconds(abs(ahead_us))} {'behind' if ahead_us > 0 else 'ahead of'} {theirs}"
    return Finding(verdict=verdict, subject=subject, detail=detail, advice="let NTP set the clock of both machines")


def _seconds(us: int) -> str:
    seconds = us // SECOND_US
    return f"{seconds} s" if seconds < 7200 else f"{seconds // 3600} h"


def _size(size_bytes: int) -> str:
    return f"{size_bytes / GIB:.1f} GiB" if size_bytes >= GIB else f"{size_bytes / 1024**2:.1f} MiB"
