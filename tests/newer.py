"""The next version of this program, as far as its database goes: one revision more."""

import shutil
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path

import alembic.command
import alembic.config  # noqa: F401  # what each of its processes imports, once for all of them

from proxy.core.errors import ConfigError
from proxy.store import migrations, postgres  # noqa: F401  # the same
from proxy.store.migrations import FOLDER, HEAD

NEXT = f"{int(HEAD) + 1:04d}"

EXPANDS = """
op.add_column("videos", sa.Column("mood", sa.Text(), nullable=True))
op.create_table(
    "moods",
    sa.Column("name", sa.Text(), nullable=False),
    sa.PrimaryKeyConstraint("name"),
    sqlite_strict=True,
)
"""
INDEXES = """
build_index("videos_by_mood", "videos", ["tenant_id", "mood"], where="mood IS NOT NULL")
"""


def write_version(folder: Path, *revisions: str, beside: str = HEAD) -> Path:
    """The migrations of a version with these revisions more; `beside`: whose servers they leave at work."""
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__"))
    for place, body in enumerate(revisions):
        number = int(HEAD) + place
        text = (
            '"""One of a version to come."""\n\nimport sqlalchemy as sa\nfrom alembic import op\n\n'
            "from proxy.store.migrations.indexes import build_index\n\n"
            f'revision = "{number + 1:04d}"\ndown_revision = "{number:04d}"\nbeside = "{beside}"\n\n\n'
            "def upgrade() -> None:\n" + "".join(f"    {line}\n" for line in body.strip().splitlines())
        )
        (folder / "versions" / f"{number + 1:04d}_to_come.py").write_text(text)
    return folder


def become(folder: Path) -> None:
    """This process is of that version from now on; for one that is nobody else's."""
    head = max(path.name[:4] for path in (folder / "versions").glob("[0-9]*.py"))
    vars(migrations).update(FOLDER=folder, HEAD=head)


class Migrating:
    """`migrate` of that version, in a process of its own."""

    def __init__(self, folder: Path, place: Path | str) -> None:
        self._says, told = _nursery.Pipe(duplex=False)
        self._process = _nursery.Process(target=_migrate, args=(folder, place, told), daemon=True)
        self._process.start()
        told.close()

    @property
    def is_over(self) -> bool:
        return self._process.exitcode is not None

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        self._says.close()

    def end(self) -> str:
        """What it said against it; empty: it is done."""
        said: str = self._says.recv()
        self._process.join()
        self._says.close()
        return said


def _migrate(folder: Path, place: Path | str, told: Connection) -> None:
    become(folder)
    try:
        migrations.migrate(place)
        told.send("")
    except ConfigError as exc:
        told.send(str(exc))


def migrate(folder: Path, place: Path | str) -> str:
    """The same to its end; what it said."""
    return Migrating(folder, place).end()


_nursery = ForkServerContext()
_nursery.set_forkserver_preload([__name__])
