"""README's examples work as pasted, and its tables say what the code says."""

import asyncio
import os
import re
import shlex
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import get_args

import httpx
import msgspec
import pytest

from proxy.api.failures import STATUSES
from proxy.catalog import read_catalog
from proxy.core import errors
from proxy.core.video import VideoFailure
from proxy.outside.film import measure
from proxy.providers.base import Announces, Cancels, Finds
from proxy.providers.registry import builtin
from proxy.settings import NAMES, SANDBOX_KEY, SECRETS, read_settings
from tests.ports import free_port
from tests.whole.stage import ROOT, Process, start

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def table(title: str) -> Iterator[list[str]]:
    """The cells of each row below a heading, without the ticks around them."""
    section = README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    for line in section.splitlines():
        if line.startswith("| "):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if cells[0].startswith("`"):
                yield [re.sub(r"^`([^`]+)`$", r"\1", cell) for cell in cells]


# Tables


def test_every_setting_is_explained_with_its_default() -> None:
    rows = {name: default for name, default, _ in table("Settings")}
    assert list(rows) == [f"REELAY_{name}" for name in NAMES]
    settings = read_settings({})
    for name in NAMES:
        value, said = getattr(settings, name.lower()), rows[f"REELAY_{name}"]
        if name == "SECRET":
            assert said == "made once in `data/secret`"
        elif value in {None, ()}:
            assert said == "none", name
        else:
            assert said == f"{value:g}" if isinstance(value, float) else said == str(value), name
    for name in SECRETS:
        assert f"`REELAY_{name}`" in README.partition("may each stand in a file")[0].rpartition("|\n")[2]


def test_every_code_of_an_answer_is_told_with_its_status() -> None:
    told = {code: int(status) for code, status, _ in table("Errors")}
    known = {errors.ReelayError.code: 500}
    kinds: list[type[errors.ReelayError]] = [errors.RequestError]
    while kinds:
        kind = kinds.pop()
        known[kind.code] = next(STATUSES[base][0] for base in kind.__mro__ if base in STATUSES)
        kinds += kind.__subclasses__()
    known |= {kind.code: STATUSES[kind][0] for kind in (errors.NoProviderAvailable, errors.Overloaded)}
    assert told == known
    assert list(told.values()) == sorted(told.values())


def test_every_failure_of_a_video_is_told() -> None:
    sentence = README.partition("A video that failed carries one of")[2].partition("\n\n")[0]
    assert re.findall(r"`(\w+)`", sentence) == list(get_args(VideoFailure))


def test_every_adapter_is_told_with_what_it_can() -> None:
    rows = {name: cells for name, *cells in table("Sellers")}
    assert set(rows) == set(builtin())
    assert set(rows) <= set(read_catalog())
    for name, adapter in builtin().items():
        host, cancels, found, calls_back = rows[name]
        assert host in adapter.base_url or host.partition(".")[0] in adapter.base_url
        assert cancels == ("yes" if isinstance(adapter, Cancels) else "no"), name
        assert ("our tag" in found) == isinstance(adapter, Finds), name
        assert ("callback" in found) == isinstance(adapter, Announces), name
        to = next(word for word in ("https", "http", "none") if f"callbacks: {word}\n".encode() in read_catalog()[name])
        assert calls_back == {"https": "yes, to https", "http": "yes", "none": "no"}[to], name


def test_five_checks_are_those_of_the_makefile() -> None:
    commands = next(block for block in blocks("sh") if "ruff" in block).splitlines()
    assert len(commands) == 5
    makefile = (ROOT / "Makefile").read_text()
    for command in commands:
        program, _, rest = command.partition(" ")
        assert f"$(BIN)/{program}" in makefile
        assert rest.replace("pytest ", "") in makefile


def test_every_file_and_target_that_is_named_exists() -> None:
    for path in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / path).exists(), path
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+)", README)) - {"target"} <= targets


def test_adapter_of_ones_own_is_the_one_that_is_tested() -> None:
    plugin = ROOT / "tests" / "plugins" / "lantern"
    for language, file in (("toml", "pyproject.toml"), ("py", "tests/test_lantern.py"), ("yaml", "provider.yaml")):
        (block,) = blocks(language)
        assert block in (plugin / file).read_text(), file


# Examples


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Process]:
    """What `make serve` starts, on another port."""
    (tmp_path / "routing_rules.yaml").write_text((ROOT / "routing_rules.yaml").read_text())
    port = free_port()
    server = await start(["serve", "--sandbox"], {"REELAY_PORT": str(port)}, tmp_path, port, "/readyz")
    yield server
    await server.stop()


async def pasted(text: str, sandbox: Process, folder: Path, *program: str) -> str:
    """What comes out of it in a shell where `curl` and `python` are there, on the port that is served."""
    (folder / "curl").write_text(f'#!/bin/sh\nexec "{sys.executable}" "{ROOT}/tests/curl.py" "$@"\n')
    (folder / "curl").chmod(0o755)
    environment = os.environ | {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "OPENAI_BASE_URL": f"{sandbox.origin}/v1",
        "OPENAI_API_KEY": SANDBOX_KEY,
        "NO_PROXY": "*",
    }
    process = await asyncio.create_subprocess_exec(
        *program, text.replace("http://127.0.0.1:8080", sandbox.origin), cwd=folder, env=environment,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, err.decode()
    return out.decode()


async def test_examples_work_as_pasted(sandbox: Process, tmp_path: Path) -> None:
    curl = next(block for block in blocks("sh") if "curl" in block)
    assert f"OPENAI_API_KEY={SANDBOX_KEY}" in curl
    video = msgspec.json.decode(await pasted(curl, sandbox, tmp_path, "sh", "-c"))
    assert (video["object"], video["status"], video["sandbox"]) == ("video", "queued", True)
    assert (video["seconds"], video["end_user_id"]) == ("5", "ann")
    (python,) = blocks("python")
    out = await pasted(python, sandbox, tmp_path, sys.executable, "-c")
    assert out.split() == ["completed", "evolink", "0.992500"]
    assert measure(str(tmp_path / "boat.mp4")).width_px == 1280
    async with httpx.AsyncClient(trust_env=False) as client:
        plan = await client.post(
            f"{sandbox.origin}/v1/videos/quote",
            json=msgspec.json.decode(shlex.split(curl.rpartition("-d ")[2])[0]),
            headers={"authorization": f"Bearer {SANDBOX_KEY}"},
        )
    assert plan.json()["candidates"][0]["provider"] == "evolink"
