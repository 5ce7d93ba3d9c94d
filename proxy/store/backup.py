"""Copies a SQLite database beside whoever writes to it, and marks the copy as what it is."""

import contextlib
import os
import sqlite3
import uuid
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from proxy.core.errors import ConfigError
from proxy.store.tenants import BACKUP_AT


def back_up(source: Path, target: Path, *, at_us: int) -> int:
    """
    One moment of `source`, whole and on the disk once its name is there; its size in bytes.

    The copy holds the fact BACKUP_AT, so that no server takes it for the world as it is. It has nothing
    that was erased before, for it is written anew. Readable by its owner alone. Raises ConfigError, also
    where `target` is there already.
    """
    if not source.is_file():
        raise ConfigError(f"there is no database at {source}")
    if target.exists():
        raise ConfigError(f"{target} is there already; a backup overwrites nothing")
    draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        # SQLite writes into an empty file, and would make one that everybody may read.
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        try:
            _copy(source, draft, at_us)
            _fsync(draft)
            os.link(draft, target)
        finally:
            draft.unlink()
        _fsync(target.parent)
        return target.stat().st_size
    except FileExistsError as exc:
        raise ConfigError(f"{target} is there already; a backup overwrites nothing") from exc
    except OSError as exc:
        raise ConfigError(f"{target} cannot be written: {exc.strerror}") from exc
    except sqlite3.Error as exc:
        raise ConfigError(f"{source} cannot be copied to {target}: {exc}") from exc


def _copy(source: Path, draft: Path, at_us: int) -> None:
    address = f"file:{quote(str(source.absolute()))}?mode=rw"
    with closing(sqlite3.connect(address, uri=True, isolation_level=None, timeout=10)) as database:
        database.execute("VACUUM INTO ?", (str(draft),))
    with closing(sqlite3.connect(draft)) as copy, contextlib.closing(copy.cursor()) as cursor:
        cursor.execute("DELETE FROM facts WHERE name = ?", (BACKUP_AT,))
        cursor.execute("INSERT INTO facts (name, value) VALUES (?, ?)", (BACKUP_AT, str(at_us)))
        copy.commit()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
