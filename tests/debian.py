"""Programs of Debian's packages, unpacked below `.cache`; nothing of the machine's own is installed or changed."""

import fcntl
import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

_PLACE = Path(__file__).parents[1] / ".cache" / "debian"


@functools.cache
def program(package: str, name: str) -> Path:
    """
    The path of an executable of this package, fetched by the first of all processes that asks.

    In the version that the machine's release of Debian has now. What a package depends on is not
    fetched with it, so the program has to be content with the libraries of the machine.
    """
    _PLACE.mkdir(parents=True, exist_ok=True)
    unpacked = _PLACE / package
    with (_PLACE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not unpacked.is_dir():
            _fetch(package, unpacked)
    (found,) = (path for path in unpacked.glob(f"usr/*bin/{name}") if os.access(path, os.X_OK))
    return found


def _fetch(package: str, unpacked: Path) -> None:
    """Whole or not at all."""
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=_PLACE) as folder:
        try:
            _apt("download", package, folder=folder)
        except subprocess.CalledProcessError:
            # There are no lists yet, or they name what has been replaced since.
            _apt("update", "--error-on=any", folder=folder)
            _apt("download", package, folder=folder)
        (archive,) = Path(folder).glob("*.deb")
        subprocess.run(["dpkg-deb", "--extract", archive, f"{folder}/root"], check=True)
        shutil.move(f"{folder}/root", unpacked)


def _apt(*arguments: str, folder: str) -> None:
    """With lists of our own: the machine's may be missing, and are not ours to renew."""
    here = {"Dir::State::Lists": _PLACE / "lists", "Dir::Cache": _PLACE / "cache", "APT::Sandbox::User": "root"}
    for place in ("lists/partial", "cache/archives/partial"):
        (_PLACE / place).mkdir(parents=True, exist_ok=True)
    options = [word for name, value in here.items() for word in ("-o", f"{name}={value}")]
    subprocess.run(["apt-get", "-qq", *options, *arguments], cwd=folder, check=True, capture_output=True)
