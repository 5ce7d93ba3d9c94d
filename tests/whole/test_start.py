"""The server as a process: what it says when it starts, and the one line when it cannot."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import msgspec

from tests.ports import free_port
from tests.whole.stage import PLAY_KEYS, ROOT, Stage

ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("REELAY_")}


async def refused(folder: Path, arguments: Sequence[str], **env: str) -> str:
    """The line on stderr of a command that must not start; the port that it wants is taken by somebody else."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        mine = {"PYTHONPATH": str(ROOT), "REELAY_PORT": str(taken.getsockname()[1])}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "proxy", *arguments, cwd=folder, env=ENVIRONMENT | mine | env,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 2, err.decode()
    assert out == b""
    lines = err.decode().splitlines()
    assert len(lines) == 1, err.decode()
    assert lines[0].startswith("reelay: ")
    return lines[0].removeprefix("reelay: ")


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def rules(folder: Path, text: str | None = None) -> None:
    shipped = (ROOT / "routing_rules.yaml").read_text()
    (folder / "routing_rules.yaml").write_text(shipped if text is None else text)


async def test_broken_rules_make_nothing_and_name_their_place(tmp_path: Path) -> None:
    shipped = (ROOT / "routing_rules.yaml").read_text()
    rules(tmp_path, shipped.replace("resolution: 720p", "resolution: 720"))
    for arguments in (["serve", "--sandbox"], ["demo"]):
        told = await refused(tmp_path, arguments, **PLAY_KEYS)
        assert told.startswith("routing_rules.yaml:8:15: "), told
        assert '720"' in told
    assert names_in(tmp_path) == ["routing_rules.yaml"]


async def test_what_cannot_be_served_is_one_line(tmp_path: Path) -> None:
    assert "routing_rules.yaml: the rules cannot be read: No such file" in await refused(tmp_path, ["serve"])
    rules(tmp_path)
    assert "no provider is usable" in await refused(tmp_path, ["serve"])
    assert "REELAY_BOOTSTRAP_KEY needs at least 16 characters" in await refused(
        tmp_path, ["serve"], REELAY_BOOTSTRAP_KEY="short"
    )
    nowhere = f"postgresql://reelay:hush@127.0.0.1:{free_port()}/reelay"
    told = await refused(tmp_path, ["serve"], REELAY_DATABASE_URL=nowhere, REELAY_SECRET="s" * 16, **PLAY_KEYS)
    assert "the database cannot be opened: " in told
    assert "hush" not in told
    assert "cannot be opened: Address already in use" in await refused(tmp_path, ["serve"], **PLAY_KEYS)
    assert "SQLite takes one process" in await refused(tmp_path, ["work"], **PLAY_KEYS)


A_FILE = {"DATABASE_URL": "sqlite:///data/reelay.db", "SECRET": ""}
"""Whichever engine the other tests are run with."""


async def test_second_server_is_refused_and_the_first_goes_on(stage: Stage) -> None:
    await stage.start_sellers()
    stage.write_rules()
    await stage.start_server(**A_FILE)
    told = await refused(stage.folder, ["serve"], **PLAY_KEYS)
    assert "another process serves this database already (lock " in told
    assert "data/reelay.db.lock)" in told
    assert (await stage.client.get("/readyz")).status_code == 200
    assert await stage.server.stop() == 0
    secret = (stage.folder / "data" / "secret").read_text()
    await stage.start_server(**A_FILE)
    assert (stage.folder / "data" / "secret").read_text() == secret


class Sandbox(msgspec.Struct, kw_only=True):
    """`reelay serve --sandbox` as a person starts it."""

    process: asyncio.subprocess.Process
    origin: str
    log: Path
    printed: Path

    def lines(self) -> list[dict[str, Any]]:
        return [msgspec.json.decode(line) for line in self.log.read_text().splitlines()]


async def start_sandbox(folder: Path, **env: str) -> Sandbox:
    port = free_port()
    log, printed = folder / "log", folder / "printed"
    with log.open("wb") as err, printed.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "proxy", "serve", "--sandbox", cwd=folder, stdout=out, stderr=err,
            env=ENVIRONMENT | {"PYTHONPATH": str(ROOT), "REELAY_PORT": str(port)} | env,
        )  # fmt: skip
    origin = f"http://127.0.0.1:{port}"
    async with asyncio.timeout(30), httpx.AsyncClient(trust_env=False) as client:
        while True:
            assert process.returncode is None, log.read_text()
            try:
                if (await client.get(f"{origin}/readyz")).status_code == 200:
                    break
            except httpx.TransportError:
                await asyncio.sleep(0.05)
    return Sandbox(process=process, origin=origin, log=log, printed=printed)


async def test_sandbox_says_what_it_is_and_warns_of_strangers(tmp_path: Path) -> None:
    rules(
        tmp_path,
        "version: 1\nproviders:\n  fal: {adapter: fal, api_key: x}\n"
        "  off: {adapter: nobodys, api_key: x, enabled: false}\nrules: [{name: default, strategy: cheapest}]\n",
    )
    sandbox = await start_sandbox(tmp_path, REELAY_HOST="0.0.0.0", REELAY_PROT="1")  # noqa: S104  # strangers can come in
    try:
        async with asyncio.timeout(10):
            while "OPENAI_API_KEY" not in sandbox.printed.read_text():
                await asyncio.sleep(0.02)
        printed = sandbox.printed.read_text()
        assert "This is the sandbox: every seller is simulated, no money is spent" in printed
        assert f"export OPENAI_BASE_URL={sandbox.origin}/v1" in printed
        assert "export OPENAI_API_KEY=reelay-sandbox-key" in printed
        lines = sandbox.lines()
        assert {"event": "server.ready", "sandbox": True}.items() <= lines[0].items()
        warnings = [line["what"] for line in lines if line["level"] == "warning"]
        assert any('the provider off is off, and there is no adapter "nobodys"' in one for one in warnings)
        assert "REELAY_PROT is no setting; did you mean REELAY_PORT?" in warnings
        assert any("may read /metrics" in one for one in warnings)
        assert any("takes the key of the sandbox, which everybody knows" in one for one in warnings)
        key = {"authorization": "Bearer reelay-sandbox-key"}
        async with httpx.AsyncClient(base_url=sandbox.origin, headers=key, trust_env=False) as client:
            made = await client.post("/v1/videos", json={"prompt": "a paper boat"})
            assert (made.status_code, made.json()["sandbox"]) == (200, True)
    finally:
        sandbox.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(sandbox.process.wait(), 40) == 0
    told = await refused(tmp_path, ["serve"], REELAY_DATABASE_URL="sqlite:///data/sandbox.db")
    assert "this database belongs to the sandbox; use another for real sellers" in told


async def test_provider_switched_off_gets_nothing_new_but_is_asked_for_what_it_owes(stage: Stage) -> None:
    await stage.start_sellers(speed=40)
    stage.write_rules()
    await stage.start_server()
    video = await stage.create(model="fal/seedance-2.0")
    await stage.until(video["id"], lambda now: now["status"] == "in_progress")
    assert await stage.server.stop() == 0
    stage.write_rules(lambda rules: rules["providers"]["fal"].update(enabled=False))
    await stage.start_server()
    refusal = await stage.client.post("/v1/videos", json={"prompt": "a paper boat", "model": "fal/seedance-2.0"})
    assert (refusal.status_code, refusal.json()["error"]["code"]) == (400, "unsupported_request")
    done = await stage.ended(video["id"])
    assert (done["status"], done["routing"]["provider"]) == ("completed", "fal")
    other = await stage.create()
    assert (await stage.ended(other["id"]))["routing"]["provider"] == "evolink"
