"""The check-up: a finding for everything that has to be right, each with its advice, and none that buys or changes."""

import asyncio
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from email.utils import formatdate
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import yaml

from proxy.checkup import checkup, disk_finding
from proxy.core.clock import SECOND_US, system_clock
from proxy.opening import prepare_database
from proxy.outside.base import Room
from proxy.services.doctor import Finding
from proxy.settings import read_settings
from proxy.store.base import Tx
from proxy.store.migrations import HEAD
from proxy.store.sqlite import connect
from proxy.store.tenants import insert_tenant
from proxy.store.videos import insert_attempt, insert_many
from tests.checking import environment, sellers
from tests.databases import Database, OwnServer, server
from tests.object_store import BUCKET, new_prefix, object_store
from tests.ports import free_port
from tests.store.rows import make_attempt, make_settlement, make_tenant, make_video
from tests.whole.stage import PLAY_KEYS, ROOT, SELLERS, start

__all__ = ["sellers"]

PUBLIC = "public address: none: sellers cannot call back"


async def findings(env: dict[str, str], **how: Any) -> list[Finding]:
    return [finding async for finding in checkup(env, **how)]


def told(found: list[Finding], verdict: str) -> list[str]:
    return [f"{one.subject}: {one.detail}" for one in found if one.verdict == verdict]


def of(found: list[Finding], subject: str) -> Finding:
    (one,) = [finding for finding in found if finding.subject == subject]
    return one


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def database(env: dict[str, str]) -> Path:
    """At this version's schema, as a server leaves it."""
    place = prepare_database(read_settings(env))
    assert isinstance(place, Path)
    connect(place).close()
    return place


Answer = Callable[[str, str], bytes]
"""What stands behind the status line, for a method and a path."""


@asynccontextmanager
async def answering(answer: Answer) -> AsyncIterator[int]:
    """A port at which every request gets that answer."""

    async def welcome(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, path, _ = head.split(" ", 2)
        writer.write(answer(method, path))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(welcome, "127.0.0.1", 0) as listening:
        yield listening.sockets[0].getsockname()[1]


def answer_of(body: bytes, *, status: str = "200 OK", **headers: str) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status}\r\n{lines}connection: close\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


async def test_all_well(tmp_path: Path, sellers: str) -> None:
    found = await findings(environment(tmp_path, sellers))
    assert [one[: len(PUBLIC)] for one in told(found, "warning")] == [PUBLIC]
    assert told(found, "problem") == []
    assert [one.subject for one in found] == [
        "settings",
        "rules",
        *(f"key of {name}" for name in SELLERS),
        "database",
        "storage",
        "disk of the database",
        "open files",
        "server",
        "public address",
        *(f"provider {name}" for name in SELLERS),
        "clock",
    ]
    assert names_in(tmp_path) == ["rules.yaml", "sellers"], "a check-up makes nothing"
    async with httpx.AsyncClient(trust_env=False) as client:
        books = (await client.get(f"{sellers}/admin/books")).json()
    assert books["jobs"] == []


async def test_whatever_is_wrong_comes_with_advice_and_what_is_well_with_none(tmp_path: Path) -> None:
    found = await findings(
        environment(tmp_path, REELAY_HOST="::", FAL_KEY="", REELAY_PUBLIC_URL="http://no.such.invalid")
    )
    assert {one.verdict for one in found} == {"ok", "warning", "problem"}
    assert [one for one in found if (one.verdict == "ok") == bool(one.advice)] == []
    assert [one for one in found if "\n" in one.detail + (one.advice or "")] == []


async def test_settings_that_cannot_be_end_it(tmp_path: Path) -> None:
    found = await findings(environment(tmp_path, REELAY_PORT="http"))
    assert [(one.verdict, one.detail) for one in found] == [("problem", "REELAY_PORT 'http' is no port")]


async def test_every_setting_that_cannot_be_is_told_at_once(tmp_path: Path) -> None:
    (only,) = await findings(environment(tmp_path, REELAY_PORT="http", REELAY_LOG="xml", REELAY_DATABASE_URL="a.db"))
    assert [word in only.detail for word in ("REELAY_PORT", "REELAY_LOG", "REELAY_DATABASE_URL")] == [True] * 3


async def test_sandbox_is_looked_at_by_its_own_files_and_takes_no_real_servers_place(tmp_path: Path) -> None:
    port = free_port()
    env = environment(tmp_path, REELAY_PORT=str(port), FAL_KEY="")
    server = await start(["serve", "--sandbox"], env, tmp_path, port, "/readyz")
    try:
        real, play = await findings(env), await findings(env, sandbox=True)
    finally:
        await server.stop()
    assert of(real, "server").detail == f"the one at http://127.0.0.1:{port} is a sandbox, which buys nothing"
    assert told(play, "problem") == []
    assert of(play, "server").verdict == "ok"
    assert not [one for one in play if one.subject.startswith(("key of", "provider"))]


async def test_doubts_are_warnings(tmp_path: Path) -> None:
    found = await findings(environment(tmp_path, REELAY_PROT="1", REELAY_HOST="::", FAL_KEY=""))
    odd = next(one for one in found if one.detail == "REELAY_PROT is no setting")
    assert odd.advice == "did you mean REELAY_PORT?"
    warnings = told(found, "warning")
    assert any("anybody who reaches this port may read /metrics" in one for one in warnings)
    assert [one for one in warnings if "FAL_KEY" in one] == ["key of fal: the provider fal is off: FAL_KEY is not set"]
    assert not [one for one in found if one.subject == "provider fal"]


@pytest.mark.parametrize(
    ("name", "key", "why"),
    [
        ("FAL_KEY", "only-the-secret-half", "fal's keys are an id and a secret with a colon between them"),
        ("RUNFLOW_API_KEY", "rf_svc_0123456789", "this is a key of Runflow's administration"),
        ("SHORTAPI_KEY", '"quoted-by-a-shell"', "there are quotes around it"),
        ("EVOLINK_API_KEY", "your-key-goes-here", "it is a placeholder"),
    ],
)
async def test_key_of_another_form_is_doubted_and_not_shown(tmp_path: Path, name: str, key: str, why: str) -> None:
    found = await findings(environment(tmp_path, **{name: key}))
    (doubt,) = [one for one in found if one.subject.startswith("key of") and one.verdict == "warning"]
    assert f"it looks wrong: {why}" in doubt.detail
    assert not [one for one in found if key in f"{one.detail} {one.advice}"]


async def test_provider_that_is_switched_off_needs_no_key(tmp_path: Path) -> None:
    env = environment(tmp_path, FAL_KEY="")
    written = yaml.safe_load((tmp_path / "rules.yaml").read_text())
    written["providers"]["fal"]["enabled"] = False
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(written))
    assert of(await findings(env), "key of fal").detail == "not set, and not needed"


async def test_everything_wrong_is_told_at_once(tmp_path: Path) -> None:
    env = environment(tmp_path)
    (tmp_path / "rules.yaml").write_text("version: 2\n")
    (tmp_path / "films").touch()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "reelay.db").write_text("these are notes and no database " * 40)
    problems = told(await findings(env), "problem")
    assert [one.partition(":")[0] for one in problems] == ["rules", "database", "storage"]
    assert "rules.yaml:1:10" in problems[0]
    assert problems[2].endswith("films: Not a directory")


async def test_nobody_to_buy_from_is_a_problem(tmp_path: Path) -> None:
    env = environment(tmp_path) | dict.fromkeys(PLAY_KEYS, "")
    assert told(await findings(env), "problem") == ["rules: no provider is usable: no key is set"]


# Sellers and clocks


async def test_seller_that_does_not_answer_is_a_problem(tmp_path: Path) -> None:
    problems = told(await findings(environment(tmp_path, f"http://127.0.0.1:{free_port()}")), "problem")
    assert [one.partition(":")[0] for one in problems] == [f"provider {name}" for name in SELLERS]
    assert all("no connection to" in one for one in problems)


async def test_seller_without_tls_is_a_problem(tmp_path: Path) -> None:
    async with answering(lambda *_: answer_of(b"{}")) as port:
        problems = told(await findings(environment(tmp_path, f"https://127.0.0.1:{port}")), "problem")
    assert [one.partition(":")[0] for one in problems] == [f"provider {name}" for name in SELLERS]


@pytest.mark.parametrize(
    ("off_s", "verdict", "detail"),
    [
        (0, "ok", "this machine's clock and the sellers' agree"),
        (-30, "warning", "this machine's clock is (28|29) s ahead of the sellers'"),
        (7300, "problem", "this machine's clock is 2 h behind the sellers'"),
    ],
)
async def test_clock_is_held_against_the_sellers_answers(tmp_path: Path, off_s: int, verdict: str, detail: str) -> None:
    def answer(*_: str) -> bytes:
        return answer_of(b"{}", status="404 Not Found", date=formatdate(time.time() + off_s, usegmt=True))

    async with answering(answer) as port:
        clock = of(await findings(environment(tmp_path, f"http://127.0.0.1:{port}")), "clock")
    assert clock.verdict == verdict
    assert re.fullmatch(detail, clock.detail)


async def test_clock_that_one_seller_confirms_is_well(tmp_path: Path) -> None:
    def answer(_: str, path: str) -> bytes:
        off_s = 9000 if path.startswith("/fal") else 0
        return answer_of(b"{}", status="404 Not Found", date=formatdate(time.time() + off_s, usegmt=True))

    async with answering(answer) as port:
        assert of(await findings(environment(tmp_path, f"http://127.0.0.1:{port}")), "clock").verdict == "ok"


async def test_database_that_has_seen_later_times_tells_of_a_clock_that_was_set_back(tmp_path: Path) -> None:
    env = environment(tmp_path)
    with closing(sqlite3.connect(database(env))) as file, file:
        file.execute("INSERT INTO closings VALUES ('2020-01', 0, ?, 'cli')", [system_clock()])
    found = await findings(env, clock=lambda: system_clock() - 3 * 3601 * SECOND_US)
    clock = of(found, "clock of the database")
    assert clock.verdict == "problem"
    assert clock.detail.endswith(", 3 h later than it is here")
    assert "clock of the database" not in [one.subject for one in await findings(env)]


# The database


async def test_database_is_looked_at_but_not_changed(tmp_path: Path) -> None:
    env = environment(tmp_path)
    path = database(env)
    (path.parent / "secret").write_text("a" * 32)
    (path.parent / "secret").chmod(0o644)
    before = path.read_bytes()
    found = await findings(env)
    assert path.read_bytes() == before
    secret = of(found, "secret")
    assert (secret.verdict, secret.advice) == ("warning", f"chmod 600 {path.parent}/secret")
    seen = {one.subject: one.verdict for one in found if one.subject in {"durability", "size", "locks", "books"}}
    assert seen == dict.fromkeys(("durability", "size", "locks", "books"), "ok")
    with closing(sqlite3.connect(path)) as file, file:
        file.execute("UPDATE alembic_version SET version_num = '0000'")
    old = of(await findings(env), "database")
    assert (old.verdict, old.detail) == ("warning", f"{path} has schema 0000")
    assert "reelay migrate" in (old.advice or "")
    with closing(sqlite3.connect(path)) as file, file:
        assert file.execute("SELECT version_num FROM alembic_version").fetchall() == [("0000",)]
        file.execute("UPDATE alembic_version SET version_num = '9999'")
        file.execute("INSERT OR REPLACE INTO facts VALUES ('schema_beside', ?)", [HEAD])
    assert f"database: {path} at schema 9999" in told(await findings(env), "ok")


async def test_database_that_somebody_holds_is_a_problem(tmp_path: Path) -> None:
    env = environment(tmp_path)
    with closing(sqlite3.connect(database(env), isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        found = await findings(env)
        holder.execute("ROLLBACK")
    locks = of(found, "locks")
    assert (locks.verdict, locks.detail) == ("problem", "nobody can write to it: database is locked")
    assert of(await findings(env), "locks").verdict == "ok"


async def test_database_that_no_server_has_opened_yet_is_left_as_it_is(tmp_path: Path) -> None:
    env = environment(tmp_path)
    path = prepare_database(read_settings(env))
    assert isinstance(path, Path)
    found = await findings(env)
    assert of(found, "durability").detail.startswith("the next start opens it with a write-ahead log")
    assert "books" not in [one.subject for one in found]
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("PRAGMA journal_mode").fetchone() == ("delete",)


async def test_books_that_do_not_balance_are_a_problem(tmp_path: Path) -> None:
    env = environment(tmp_path)
    path = database(env)
    cost = make_settlement(at=system_clock(), charged_microusd=5, seller_microusd=5)
    fields = {name: getattr(cost, name) for name in cost.__struct_fields__}
    with closing(sqlite3.connect(path)) as file, file:
        marks = ", ".join("?" * len(fields))
        file.execute(f"INSERT INTO settlements ({', '.join(fields)}) VALUES ({marks})", list(fields.values()))  # noqa: S608 - names of ours
    books = of(await findings(env), "books")
    assert books.verdict == "problem"
    assert f"{cost.id}: reports and postings differ by $" in books.detail
    assert "reelay audit" in (books.advice or "")


async def test_postgresql_tells_version_size_and_connections(tmp_path: Path) -> None:
    careful = OwnServer()
    url = careful.url
    env = environment(tmp_path, REELAY_DATABASE_URL=url, REELAY_SECRET="a-secret-of-tests-only")
    prepare_database(read_settings(env))
    found = await findings(env)
    assert told(found, "problem")[0].startswith("provider "), "the sellers alone"
    for subject in ("version", "durability", "size", "connections", "locks", "clock of the database", "books"):
        assert of(found, subject).verdict == "ok", subject
    assert of(found, "version").detail.startswith("PostgreSQL ")
    with psycopg.connect(url, autocommit=True) as other:
        name = other.info.dbname
        other.execute(f"ALTER DATABASE {name} SET synchronous_commit = off".encode())
        other.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on".encode())
    problems = [one for one in told(await findings(env), "problem") if not one.startswith("provider")]
    assert problems == [
        "durability: synchronous_commit: off, so a crash loses what was promised",
        "durability: this server only reads",
    ]
    many = [psycopg.connect(url) for _ in range(85)]
    try:
        assert of(await findings(env), "connections").verdict == "warning"
    finally:
        for one in many:
            one.close()
    await _stopped_server_is_told_without_its_password(env, careful)


async def _stopped_server_is_told_without_its_password(env: dict[str, str], careful: OwnServer) -> None:
    careful.stop(signal.SIGINT)
    gone = of(await findings(env), "database")
    careful.start()
    assert gone.verdict == "problem"
    assert "cannot be opened" in gone.detail


async def test_clock_is_held_against_that_of_postgresql(tmp_path: Path) -> None:
    env = environment(tmp_path, REELAY_DATABASE_URL=server().new(), REELAY_SECRET="a-secret-of-tests-only")
    found = await findings(env, clock=lambda: system_clock() - 100 * SECOND_US)
    clock = of(found, "clock of the database")
    assert clock.verdict == "problem"
    # Asking takes a while, on a busy machine a second.
    assert re.fullmatch("this machine's clock is (99|100|101) s behind the database's", clock.detail)
    assert of(found, "durability").verdict == "problem", "the tests' own server may lose everything"


# Storage, disks, open files


async def test_place_that_cannot_be_made_is_a_problem(tmp_path: Path) -> None:
    env = environment(
        tmp_path, REELAY_STORAGE_URL="file:/proc/films", REELAY_DATABASE_URL="sqlite:////proc/data/reelay.db"
    )
    assert [one for one in told(await findings(env), "problem") if one.startswith(("database:", "storage:"))] == [
        "database: /proc/data/reelay.db cannot be made: /proc: No such file or directory",
        "storage: file:/proc/films cannot be made: /proc: No such file or directory",
    ]


async def test_storage_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    films = tmp_path / "films"
    films.mkdir()
    (films / "film.mp4").write_bytes(b"film")
    found = await findings(environment(tmp_path))
    assert of(found, "storage").detail == f"file:{films}: a file was written, read and deleted"
    assert of(found, "disk of the storage").subject in {one.subject for one in found}
    assert [path.name for path in films.rglob("*") if path.is_file()] == ["film.mp4"]


async def test_storage_of_no_known_kind_is_a_problem(tmp_path: Path) -> None:
    found = await findings(environment(tmp_path, REELAY_STORAGE_URL="ftp://films"))
    assert any("the storage 'ftp://films' is neither" in one for one in told(found, "problem"))
    assert not [one for one in found if one.subject == "disk of the storage"]


async def test_bucket_is_tried_over_its_own_wire(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def storage(**other: str) -> Finding:
        for name, value in object_store().environment(**other).items():
            monkeypatch.setenv(name, value)
        return of(await findings(environment(tmp_path, REELAY_STORAGE_URL=f"s3://{BUCKET}/{prefix}")), "storage")

    prefix = new_prefix()
    fine = await storage()
    assert (fine.verdict, fine.detail) == ("ok", f"s3://{BUCKET}/{prefix}: a file was written, read and deleted")
    refused = await storage(SECRET_ACCESS_KEY="another-secret")
    assert refused.verdict == "problem"
    assert "403 Forbidden: SignatureDoesNotMatch" in refused.detail
    away = await storage(ENDPOINT_URL=f"http://127.0.0.1:{free_port()}")
    assert away.verdict == "problem"


@pytest.mark.parametrize(
    ("free", "used", "verdict"),
    [
        (500 * 1024**3, 500 * 1024**3, "ok"),
        (15 * 1024**3, 85 * 1024**3, "warning"),
        (1024**3 - 1, 1024**3, "warning"),
        (9 * 1024**3, 91 * 1024**3, "problem"),
    ],
)
def test_disk_is_held_against_the_limit_that_stops_creates(free: int, used: int, verdict: str) -> None:
    found = disk_finding("disk", Room(free_bytes=free, used_bytes=used))
    assert found.verdict == verdict
    assert ("nothing new is accepted above 90%" in found.detail) == (verdict != "ok")


async def reelay(env: dict[str, str], *before: str) -> subprocess.CompletedProcess[str]:
    command = [*before, sys.executable, "-m", "proxy", "doctor", "--json"]
    whole = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)} | env
    return await asyncio.to_thread(
        subprocess.run, command, env=whole, capture_output=True, text=True, timeout=150, check=False
    )


async def test_few_open_files_are_a_warning(tmp_path: Path) -> None:
    done = await reelay(environment(tmp_path), "bash", "-c", 'ulimit -n 1000; exec "$@"', "bash")
    (files,) = [one for one in json.loads(done.stdout) if one["subject"] == "open files"]
    assert (files["verdict"], files["detail"]) == ("warning", "1000 at the most, so 500 clients at once")
    assert done.returncode == 1, "no seller answers"


@pytest.mark.long
async def test_small_disk_and_a_read_only_one_are_problems(tmp_path: Path) -> None:
    env = environment(tmp_path)
    for folder in ("data", "films"):
        (tmp_path / folder).mkdir()
    script = (
        f"mount -t tmpfs -o size=1m none {tmp_path}/data && head -c 980000 /dev/zero >{tmp_path}/data/ballast"
        f' && mount -t tmpfs -o ro none {tmp_path}/films && exec "$@"'
    )
    done = await reelay(env, "unshare", "-rm", "bash", "-c", script, "bash")
    found = {one["subject"]: one for one in json.loads(done.stdout)}
    assert found["disk of the database"]["verdict"] == "problem"
    assert "nothing new is accepted" in found["disk of the database"]["detail"]
    assert found["storage"]["verdict"] == "problem"
    assert found["storage"]["detail"].endswith("Read-only file system")


# The server and its address


async def test_port_that_is_somebody_elses_is_a_problem(tmp_path: Path) -> None:
    async with answering(lambda *_: answer_of(b"hello")) as port:
        found = of(await findings(environment(tmp_path, REELAY_PORT=str(port))), "server")
    assert (found.verdict, "is somebody else" in found.detail) == ("problem", True)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        found = of(await findings(environment(tmp_path, REELAY_PORT=str(deaf.getsockname()[1]))), "server")
    assert "it does not speak HTTP as expected" in found.detail


async def test_public_address_is_asked_for_the_servers_own_health(tmp_path: Path) -> None:
    async with answering(lambda *_: answer_of(b'{"status":"ok"}')) as port:
        origin = f"http://127.0.0.1:{port}"
        found = await findings(environment(tmp_path, REELAY_PORT=str(port), REELAY_PUBLIC_URL=origin))
        assert of(found, "server").detail == f"it answers at {origin}"
        mine = [one for one in found if one.subject == "public address"]
        assert [one.verdict for one in mine] == ["warning", "warning", "ok"]
        assert "is not https" in mine[0].detail
        assert "127.0.0.1, where no seller reaches it" in mine[1].detail
        elsewhere = f"http://127.0.0.1:{free_port()}"
        broken = await findings(environment(tmp_path, REELAY_PORT=str(port), REELAY_PUBLIC_URL=elsewhere))
        assert f"public address: {elsewhere}: nobody answers, though the server runs" in told(broken, "problem")
    alone = await findings(environment(tmp_path, REELAY_PUBLIC_URL=elsewhere))
    assert f"public address: {elsewhere}: nobody answers" in told(alone, "warning")
    nowhere = await findings(environment(tmp_path, REELAY_PUBLIC_URL="https://no.such.host.invalid"))
    assert any(one.startswith("public address: no.such.host.invalid cannot be") for one in told(nowhere, "problem"))


async def test_unknown_attempts_are_told_with_age_and_cost(tmp_path: Path) -> None:
    env = environment(tmp_path)
    file = Database(place=database(env), folder=tmp_path)
    assert of(await findings(env), "unknown attempts").detail == "none"
    store = file.store(system_clock)
    await store.open()
    attempt = make_attempt(state="unknown", started_at=system_clock() - 600 * SECOND_US, possible_microusd=960_000)

    def unit(tx: Tx) -> None:
        insert_tenant(tx, make_tenant())
        insert_many(tx, [make_video()])
        insert_attempt(tx, attempt)

    await store.write(unit)
    await store.close()
    unknown = of(await findings(env), "unknown attempts")
    assert unknown.verdict == "warning"
    assert re.fullmatch(r"1, the oldest for 60\d s; they may have cost \$0\.960000", unknown.detail)
