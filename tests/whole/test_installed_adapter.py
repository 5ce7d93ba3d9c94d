"""
An adapter from a distribution of its own: built, installed, checked and sold, with nothing changed in Reelay.

Lantern is played here, by as much of a seller as one film needs.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from tests.outside.films import make_film
from tests.whole.stage import ROOT, Stage

PLUGIN = ROOT / "tests" / "plugins" / "lantern"
UV = ROOT / ".venv-tools" / "bin" / "uv"
KEY = "lantern-key-of-no-value"


def run(*command: str | Path, **env: str) -> str:
    """Output of a command that must succeed."""
    done = subprocess.run(
        command, env=os.environ | {"UV_PYTHON_DOWNLOADS": "never", "UV_OFFLINE": "1"} | env, capture_output=True,
        text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the distribution as an installer leaves it; its sources lie beside it."""
    folder = tmp_path_factory.mktemp("lantern")
    shutil.copytree(PLUGIN, folder / "source")
    run(UV, "build", "--wheel", "--python", sys.executable, "--out-dir", folder, folder / "source")
    (wheel,) = folder.glob("reelay_lantern-1.0-*.whl")
    run(UV, "pip", "install", "--no-deps", "--python", sys.executable, "--target", folder / "site", wheel)
    return folder / "site"


def paths(site: Path) -> str:
    return f"{site}{os.pathsep}{ROOT}"


def write_rules(folder: Path, **change: str) -> None:
    """Lantern alone, as its own example says but for what is changed."""
    providers = yaml.safe_load((PLUGIN / "provider.yaml").read_text())
    providers["lantern"].update(change)
    rules = {"version": 1, "providers": providers, "rules": [{"name": "default"}]}
    (folder / "routing_rules.yaml").write_text(yaml.safe_dump(rules))


class Lantern:
    """The seller: a film takes two polls."""

    def __init__(self, film: bytes) -> None:
        self.film = film
        self.url = ""
        self.orders: list[dict[str, Any]] = []
        self.polls = 0
        self.keys: list[str | None] = []

    async def ordered(self, request: web.Request) -> web.Response:
        self.keys.append(request.headers.get("X-Lantern-Key"))
        self.orders.append(await request.json())
        return web.json_response({"film": "film-1", "state": "waiting"}, status=202)

    async def asked(self, request: web.Request) -> web.Response:
        self.keys.append(request.headers.get("X-Lantern-Key"))
        if request.match_info["film"] != "film-1":
            return web.json_response({"why": "no such film"}, status=404)
        self.polls += 1
        if self.polls == 1:
            return web.json_response({"film": "film-1", "state": "drawing", "percent": 50})
        return web.json_response({"film": "film-1", "state": "ready", "link": f"{self.url}/files/film-1.mp4"})

    async def fetched(self, request: web.Request) -> web.Response:
        assert "X-Lantern-Key" not in request.headers
        return web.Response(body=self.film, content_type="video/mp4")


@pytest.fixture
async def lantern() -> AsyncIterator[Lantern]:
    seller = Lantern(make_film(seconds=4, width_px=1280, height_px=720))
    play = web.Application()
    play.router.add_post("/films", seller.ordered)
    play.router.add_get("/films/{film}", seller.asked)
    play.router.add_get("/files/film-1.mp4", seller.fetched)
    runner = web.AppRunner(play)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    seller.url = "http://{}:{}".format(*runner.addresses[0])
    yield seller
    await runner.cleanup()


def test_its_own_tests_hold_where_it_is_installed(installed: Path) -> None:
    tests = installed.parent / "source" / "tests"
    out = run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tests, PYTHONPATH=paths(installed))
    recordings = len(list((PLUGIN / "tests" / "recordings").iterdir()))
    assert f"{recordings + 12} passed" in out


async def test_its_video_is_made_delivered_and_billed_by_the_price_in_the_rules(
    stage: Stage, installed: Path, lantern: Lantern
) -> None:
    write_rules(stage.folder, base_url=lantern.url)
    stage.more_environment = {"PYTHONPATH": paths(installed), "LANTERN_KEY": KEY}
    await stage.start_server()
    video = await stage.ended((await stage.create("a paper boat", seconds="4"))["id"])
    assert (video["status"], video["routing"]["provider"]) == ("completed", "lantern"), video
    assert (video["usage"], video["size"]) == ({"duration_seconds": 4.042, "cost_usd": "0.200000"}, "1280x720")
    content = await stage.client.get(f"/v1/videos/{video['id']}/content")
    assert content.content == lantern.film
    assert lantern.orders == [{"show": "a paper boat", "seconds": 4, "lines": "720p", "shape": "16:9"}]
    assert set(lantern.keys) == {KEY}
    code, out, err = await stage.cli("report", "spend", "--by", "provider")
    assert (code, err) == (0, "")
    assert "lantern" in out
    assert "0.200000" in out
    code, out, err = await stage.cli("doctor", "--live", "lantern", "--yes", "--max-usd", "0.20")
    assert (code, err) == (0, ""), out
    assert "confirmed  the film has the pixels of its resolution and ratio" in out


async def test_it_is_off_in_the_sandbox_where_nobody_plays_its_seller(stage: Stage, installed: Path) -> None:
    write_rules(stage.folder)
    stage.environment = {"PYTHONPATH": paths(installed)}
    code, _, err = await stage.cli("serve", "--sandbox")
    assert code == 2
    assert err.startswith("reelay: the sandbox plays ")
