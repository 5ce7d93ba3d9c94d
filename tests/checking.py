"""What a check-up is made in: rules, keys, and a place for everything in one folder."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from proxy.simulator.app import serve_sandbox
from tests.ports import free_port
from tests.whole.stage import PLAY_KEYS, SELLERS, make_rules


@pytest.fixture
async def sellers(tmp_path: Path) -> AsyncIterator[str]:
    """Play sellers a thousand times as fast as real ones."""
    async with serve_sandbox(folder=tmp_path / "sellers", clock_factor=0.001) as origin:
        yield origin


def environment(folder: Path, origin: str = "http://127.0.0.1:1", **more: str) -> dict[str, str]:
    rules = make_rules({name: f"{origin}/{name}" for name in SELLERS}, speed=1000.0, deadline_s=60)
    (folder / "rules.yaml").write_text(yaml.safe_dump(rules, sort_keys=False))
    return PLAY_KEYS | {
        "REELAY_RULES": str(folder / "rules.yaml"),
        "REELAY_DATABASE_URL": f"sqlite:///{folder}/data/reelay.db",
        "REELAY_STORAGE_URL": f"file:{folder}/films",
        "REELAY_PORT": str(free_port()),
        **more,
    }
