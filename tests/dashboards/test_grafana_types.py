"""Grafana's own types, of its package for npm, find nothing wrong with the pages."""

import fcntl
import os
import subprocess
from pathlib import Path

import pytest

from tests.dashboards.test_pages import FOLDER, NAMES

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / ".cache" / "grafana-types"
PACKAGES = ("@grafana/schema@13.2.3", "typescript@5.9.3")

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def compiler() -> Path:
    """tsc, beside the types; tests in other processes wait for the one that fetches."""
    found = CACHE / "node_modules" / ".bin" / "tsc"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        noted = CACHE / "packages"
        if not noted.exists() or noted.read_text() != " ".join(PACKAGES):
            arguments = ["npm", "install", "--no-audit", "--no-fund", "--no-save", "--prefix", str(CACHE), *PACKAGES]
            done = subprocess.run(arguments, capture_output=True, text=True, check=False, cwd=CACHE)
            assert done.returncode == 0, done.stdout + done.stderr
            noted.write_text(" ".join(PACKAGES))
    return found


def compiled(compiler: Path, name: str, page: str) -> str:
    """What the compiler says to a page; empty: nothing."""
    file = CACHE / f"{name}-{os.getpid()}.ts"
    file.write_text(f"{(HERE / 'page.ts').read_text()}\nexport const page: Page = {page};\n")
    options = "--noEmit --strict --skipLibCheck --module nodenext --moduleResolution nodenext --target es2022"
    try:
        done = subprocess.run(
            [compiler, *options.split(), file], capture_output=True, text=True, check=False, cwd=CACHE
        )
    finally:
        file.unlink()
    assert (done.returncode == 0) == (not done.stdout), done.stderr
    return done.stdout


def test_pages_are_what_grafana_calls_a_dashboard(compiler: Path) -> None:
    pages = {name: (FOLDER / f"{name}.json").read_text() for name in NAMES}
    assert {name: compiled(compiler, name, page) for name, page in pages.items()} == dict.fromkeys(NAMES, "")


@pytest.mark.parametrize(
    ("written", "wrong"),
    [
        ('"mode": "multi"', '"mode": "many"'),
        ('"fillOpacity": 25', '"fillOpacity": "a bit"'),
        ('"refresh": 2', '"refresh": 7'),
        ('"links"', '"lynx"'),
        ('"legendFormat"', '"legend"'),
    ],
)
def test_what_grafana_does_not_know_is_found(compiler: Path, written: str, wrong: str) -> None:
    page = (FOLDER / "overview.json").read_text()
    assert written in page
    assert "error TS" in compiled(compiler, "wrong", page.replace(written, wrong, 1))
