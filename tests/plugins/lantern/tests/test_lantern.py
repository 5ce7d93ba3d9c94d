"""Lantern's adapter, by recordings of what Lantern can answer."""

from pathlib import Path

import pytest
from reelay_lantern import Lantern

from proxy.providers.contract import Check, checks
from proxy.providers.registry import load_adapters


@pytest.mark.parametrize("check", checks(Lantern, Path(__file__).parent / "recordings"), ids=str)
def test_lantern_keeps_the_contract(check: Check) -> None:
    check()


def test_reelay_finds_it() -> None:
    assert isinstance(load_adapters()["lantern"], Lantern)
