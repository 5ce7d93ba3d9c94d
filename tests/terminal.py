"""A program of ours in a real terminal, as somebody would sit before it."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

ROOT = Path(__file__).parents[1]
PATIENCE_S = 90.0
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[@-Z\\-_])")


class Terminal:
    """`reelay`, or another program, on a terminal of its own; what it writes is kept."""

    def __init__(
        self, arguments: Sequence[str], env: dict[str, str], *, program: Sequence[str] = (), size: tuple[int, int]
    ) -> None:
        """`size`: lines and columns."""
        self._ours, theirs = pty.openpty()
        self.resize(*size)
        self.settings = termios.tcgetattr(theirs)
        self.text = ""
        whole = {"PATH": os.environ["PATH"], "TERM": "xterm-256color", "PYTHONPATH": str(ROOT), **env}
        whole.pop("COLUMNS", None)
        command = [*(program or (sys.executable, "-m", "proxy")), *arguments]
        self._process = subprocess.Popen(
            command,
            env=whole,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=_take_it_over,  # noqa: PLW1509 - one system call, and no other thread of ours is needed for it
        )
        self._theirs = theirs

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for descriptor in (self._ours, self._theirs):
            os.close(descriptor)

    def resize(self, lines: int, columns: int) -> None:
        """The system tells the program."""
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def types(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def until(self, pattern: str, *, after: int = 0) -> int:
        """Reads until the pattern was written behind that place; where it ends."""
        ends_at = time.monotonic() + PATIENCE_S
        while (found := re.compile(pattern, re.DOTALL).search(self.text, after)) is None:
            assert time.monotonic() < ends_at, f"{pattern!r} never came: {self.text[-2000:]!r}"
            if select.select([self._ours], [], [], 0.1)[0]:
                self.text += os.read(self._ours, 65536).decode(errors="replace")
        return found.end()

    def ends(self) -> int:
        """The exit code; what was written until then is kept."""
        ends_at = time.monotonic() + PATIENCE_S
        while True:
            if select.select([self._ours], [], [], 0.05)[0]:
                self.text += os.read(self._ours, 65536).decode(errors="replace")
            elif self._process.poll() is not None:
                return self._process.returncode
            assert time.monotonic() < ends_at, f"it never ended: {self.text[-2000:]!r}"

    @property
    def is_as_before(self) -> bool:
        """Whether the terminal has the settings that it had when the program was started."""
        return termios.tcgetattr(self._theirs) == self.settings


def _take_it_over() -> None:
    """From then on the terminal is the program's own, and ctrl-c in it is a signal."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def plain(text: str) -> str:
    """Without what moves the cursor or colours."""
    return _ESCAPES.sub("", text)
