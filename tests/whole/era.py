"""OpenAI's SDKs, unchanged, in interpreters of their own."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import msgspec

from tests.whole.stage import KEY, ROOT, Stage


class Era(msgspec.Struct, frozen=True):
    """One release of the Python SDK, and what runs it."""

    version: str
    python: Path

    def __str__(self) -> str:
        return self.version


NEWEST = Era("3.52.0", Path(sys.executable))
"""Sends multipart even where there is no file."""
JSON_ERA = Era("2.26.0", ROOT / ".venv-openai-json-era/bin/python")
"""The last one that sent JSON where there was no file. `make .venv-openai-json-era/.ready` installs it."""
ERAS = (NEWEST, JSON_ERA)


async def run(era: Era, script: str, stage: Stage, *, told: Any = None, key: str = KEY, folder: Path) -> Any:
    """What the script prints, which is JSON; it works in `folder` and gets `told` as JSON."""
    env = {
        "PATH": os.environ["PATH"],
        "OPENAI_BASE_URL": f"{stage.server.origin}/v1",
        "OPENAI_API_KEY": key,
        # Newer SDKs warn of every call: OpenAI's own video service has ended.
        "PYTHONWARNINGS": "ignore::DeprecationWarning",
    }
    process = await asyncio.create_subprocess_exec(
        str(era.python), str(ROOT / "tests/sdk" / script), cwd=folder, env=env,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate(json.dumps(told).encode())
    assert process.returncode == 0, err.decode()[-4000:]
    return json.loads(out)
