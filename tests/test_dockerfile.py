"""
The image: what it is built from, what is in it, and that it serves with hardly a right.

No container engine is at hand, so tests/image.py carries out the steps. Shown is what the steps do, that what
they make runs as its own user with nothing to write but /data and /tmp, and that its health check tells. Not
shown: the base image, whose place this machine's system and Python take (its Python may be another, and so
which wheels are taken); that the engine reads the file as we do; layers, and the size that they have in a
registry; a network of its own.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from proxy.settings import SANDBOX_KEY
from tests.image import ROOT, Stage, build, context
from tests.ports import free_port

LOOKS_SECRET = (
    ".env",
    "proxy/.env",
    "proxy/secret",
    "proxy/key.pem",
    "proxy/reelay.db",
    "proxy/__pycache__/app.cpython-313.pyc",
    "data/secret",
    "data/reelay.db",
    ".git/config",
    ".venv/bin/python",
    ".cache/x",
    "tests/test_x.py",
    "dashboards/compose.yaml",
)


def tracked() -> set[str]:
    told = subprocess.run(["git", "ls-files", "proxy"], cwd=ROOT, check=True, capture_output=True, text=True)
    return set(told.stdout.split())


def test_context_is_the_program_and_nothing_else(tmp_path: Path) -> None:
    shutil.copy(ROOT / ".dockerignore", tmp_path)
    needed = tracked() | {"pyproject.toml", "uv.lock", "README.md", "LICENSE", "routing_rules.yaml"}
    for path in (*needed, *LOOKS_SECRET):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("x")
    # The engine is always told how, and what to leave out.
    assert context(tmp_path) - {"Dockerfile", ".dockerignore"} == needed


def test_image_is_built_from_the_lock_and_runs_as_nobody_in_particular() -> None:
    docker = (ROOT / "Dockerfile").read_text()
    uv = re.search(r"UV_VERSION := (\S+)", (ROOT / "Makefile").read_text())
    assert uv is not None
    assert f"uv=={uv[1]}\n" in docker
    assert docker.count("uv sync --frozen --no-dev") == 2
    assert docker.index("USER 10001:10001") < docker.index("ENTRYPOINT")
    (health,) = re.findall(r"CMD (\[\"python\".*\])", docker)
    compile(json.loads(health)[-1], "HEALTHCHECK", "exec")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("image")
    # Whoever runs it has to get there.
    for above in (folder, *folder.parents[:3]):
        above.chmod(0o755)
    yield build(folder, {"VERSION": "1.2.3", "REVISION": "abc"})
    shutil.rmtree(folder)


@pytest.fixture
def data(image: Stage, tmp_path: Path) -> Path:  # noqa: ARG001  # it makes the way to here passable
    """What is mounted at /data, owned by the image's user."""
    place = tmp_path / "data"
    place.mkdir(mode=0o700)
    os.chown(place, 10001, 10001)
    return place


def written(image: Stage) -> dict[str, int]:
    """Bytes by path, of all that the last stage's steps have written."""
    return {
        path.relative_to(layer).as_posix(): path.lstat().st_size
        for layer in image.layers()
        for path in layer.rglob("*")
        if not path.is_dir() or path.is_symlink()
    }


@pytest.mark.long
@pytest.mark.timeout(900)
def test_image_says_what_it_is_and_is_nobody_special(image: Stage) -> None:
    assert image.labels["org.opencontainers.image.version"] == "1.2.3"
    assert image.labels["org.opencontainers.image.revision"] == "abc"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert image.labels["org.opencontainers.image.licenses"] == project["license"]
    assert image.labels["org.opencontainers.image.description"] == project["description"].partition(",")[0]
    assert image.user == "10001:10001"
    assert image.volumes == ["/data"]
    assert image.entrypoint + image.command == ["reelay", "serve"]


@pytest.mark.long
@pytest.mark.timeout(900)
def test_image_holds_the_program_its_parts_and_no_tool_of_the_build(image: Stage) -> None:
    files = written(image)
    own = {path.removeprefix("app/").split("/")[0] for path in files if path.startswith("app/")}
    assert own == {".venv", "routing_rules.yaml", "sbom.cdx.json"}
    names = {Path(path).name for path in files}
    assert not names & {"uv", "uvx", "pytest", "ruff", "weed", "uv.lock", "pyproject.toml"}
    assert sum(files.values()) < 400e6


@pytest.mark.long
@pytest.mark.timeout(900)
def test_bill_of_materials_names_every_part(image: Stage) -> None:
    bill = json.loads((image.tree / "app/sbom.cdx.json").read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    assert bill["metadata"]["component"]["name"] == "reelay"
    # One may be there in two versions, for different Pythons.
    told = {(part["name"], part["version"]) for part in bill["components"]}
    installed = set()
    for part in (image.tree / "app/.venv").rglob("*.dist-info"):
        name, _, version = part.name.removesuffix(".dist-info").rpartition("-")
        installed.add((name.lower().replace("_", "-").replace(".", "-"), version))
    installed.remove(("reelay", bill["metadata"]["component"]["version"]))
    assert len(installed) > 30
    assert installed <= told
    for part in bill["components"]:
        assert part["purl"] == f"pkg:pypi/{part['name']}@{part['version']}"
    # What other systems and Pythons need besides.
    assert len(told) - len(installed) < 10


@pytest.mark.long
@pytest.mark.timeout(900)
def test_nothing_can_be_written_but_data_and_tmp(image: Stage, data: Path) -> None:
    places = "/ /app /app/.venv /usr /etc /run /root /var/tmp /data /tmp"
    script = f"for place in {places}; do touch $place/x 2>/dev/null && echo $place; done; id -u; id -G"
    done = subprocess.run(image.inside(["sh", "-c", script], data=data), capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["/data", "/tmp", "10001", "10001"]  # noqa: S108  # in there


@pytest.mark.long
@pytest.mark.timeout(900)
def test_image_serves_a_video_and_ends_when_it_is_told_to(image: Stage, data: Path) -> None:
    port = free_port()
    env = {"REELAY_PORT": str(port), "REELAY_HOST": "127.0.0.1", "HTTP_PROXY": "http://127.0.0.1:1"}
    before = written(image)
    healthy = image.inside(image.health, env=env, data=data)
    assert subprocess.run(healthy, check=False, capture_output=True).returncode == 1
    run = [*image.entrypoint, *image.command, "--sandbox"]
    with (
        (data.parent / "log").open("w") as log,
        subprocess.Popen(image.inside(run, env=env, data=data), stderr=log) as server,
    ):
        try:
            _make_a_video(f"http://127.0.0.1:{port}", data)
            assert subprocess.run(healthy, check=False).returncode == 0
            children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
            os.kill(int(children[0]), signal.SIGTERM)
            assert server.wait(40) == 0
        finally:
            server.kill()
    log_text = (data.parent / "log").read_text()
    assert "Traceback" not in log_text
    assert "Read-only" not in log_text
    assert written(image) == before
    assert {path.name for path in data.iterdir()} >= {"sandbox.db", "sandbox-videos", "secret"}


def _make_a_video(origin: str, data: Path) -> None:
    headers = {"authorization": f"Bearer {SANDBOX_KEY}"}
    with httpx.Client(base_url=origin, headers=headers, trust_env=False, timeout=90) as client:
        for _ in range(300):
            try:
                if client.get("/readyz").is_success:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.2)
        else:
            raise RuntimeError((data.parent / "log").read_text()[-3000:])
        made = client.post("/v1/videos", json={"prompt": "a paper boat", "seconds": "4"}, headers={"prefer": "wait=60"})
        assert made.json()["status"] == "completed", made.text
        film = client.get(f"/v1/videos/{made.json()['id']}/content")
        assert film.content[4:8] == b"ftyp"
