"""One paid order: what is refused before it, and that it is bought once."""

from pathlib import Path

import httpx
import pytest
import yaml

from proxy.core.errors import ConfigError
from proxy.trial import prepare_trial, run_trial
from tests.checking import environment, sellers

__all__ = ["sellers"]


@pytest.mark.parametrize(
    ("provider", "max_usd", "why"),
    [
        ("nobody", "1", "there is no provider 'nobody'"),
        ("evolink", "0.18", r"may cost up to \$0\.188000, more than --max-usd 0\.18"),
        ("evolink", "-1", "more than --max-usd -1"),
        ("evolink", "a dollar", "--max-usd: 'a dollar' is not a decimal number"),
        ("evolink", "nan", "--max-usd: 'nan' is not a decimal number"),
    ],
)
def test_order_is_refused_beforehand(tmp_path: Path, provider: str, max_usd: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        prepare_trial(environment(tmp_path), provider, max_usd, None)


def test_order_needs_a_key_and_a_place_for_its_film(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the key of the provider fal is not set"):
        prepare_trial(environment(tmp_path, FAL_KEY=""), "fal", "1", None)
    with pytest.raises(ConfigError, match="cannot be written"):
        prepare_trial(environment(tmp_path), "fal", "1", tmp_path)


def test_order_needs_an_adapter(tmp_path: Path) -> None:
    env = environment(tmp_path)
    written = yaml.safe_load((tmp_path / "rules.yaml").read_text())
    written["providers"]["fal"] |= {"adapter": "exotic", "enabled": False}
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(written))
    with pytest.raises(ConfigError, match="the provider fal needs the adapter 'exotic', which is not installed"):
        prepare_trial(env, "fal", "1", None)


async def test_order_at_its_very_limit_is_bought_once_and_judged(tmp_path: Path, sellers: str) -> None:
    trial = prepare_trial(environment(tmp_path, sellers), "evolink", "0.188", tmp_path / "film.mp4")
    lines: list[str] = []
    report = await run_trial(trial, lines.append)
    assert report.good, report
    assert report.ended.word == "delivered"
    assert (tmp_path / "film.mp4").stat().st_size > 1000
    assert {seen.verdict for _, seen in report.judged} == {"confirmed", "not seen"}
    async with httpx.AsyncClient(trust_env=False) as client:
        jobs = (await client.get(f"{sellers}/admin/books")).json()["jobs"]
    assert [(job["seller"], job["charged_microusd"]) for job in jobs] == [("evolink", 150_400)]
    assert not (tmp_path / "data").exists(), "it is in no ledger"
