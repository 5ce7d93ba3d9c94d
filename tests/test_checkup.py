"""The check-up: a finding for everything that has to be right, and none that buys."""

import socket
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import yaml

from proxy.checkup import checkup, prepare_trial, run_trial
from proxy.core.errors import ConfigError
from proxy.opening import prepare_database
from proxy.services.doctor import Finding
from proxy.settings import read_settings
from proxy.simulator.app import serve_sandbox
from proxy.store.migrations import HEAD
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
        **more,
    }


async def findings(env: dict[str, str]) -> list[Finding]:
    return [finding async for finding in checkup(env)]


def told(found: list[Finding], verdict: str) -> list[str]:
    return [f"{one.subject}: {one.detail}" for one in found if one.verdict == verdict]


async def test_all_well(tmp_path: Path, sellers: str) -> None:
    found = await findings(environment(tmp_path, sellers))
    assert {one.verdict for one in found} == {"ok"}
    assert [one.subject for one in found] == [
        "settings",
        "rules",
        "database",
        "storage",
        "disk of the storage",
        "disk of the database",
        *(f"provider {name}" for name in SELLERS),
    ]
    assert not (tmp_path / "data").exists(), "a check-up makes no database"
    async with httpx.AsyncClient(trust_env=False) as client:
        books = (await client.get(f"{sellers}/admin/books")).json()
    assert books["jobs"] == []


async def test_settings_that_cannot_be_end_it(tmp_path: Path) -> None:
    found = await findings(environment(tmp_path, REELAY_PORT="http"))
    assert [(one.verdict, one.detail) for one in found] == [("fail", "REELAY_PORT 'http' is no port")]


async def test_doubts_are_warnings(tmp_path: Path) -> None:
    found = await findings(environment(tmp_path, REELAY_PROT="1", REELAY_HOST="::", FAL_KEY=""))
    warnings = told(found, "warn")
    assert "settings: REELAY_PROT is no setting; did you mean REELAY_PORT?" in warnings
    assert any("anybody who reaches this port may read /metrics" in one for one in warnings)
    assert any("FAL_KEY is not set" in one for one in warnings)
    assert not [one for one in found if one.subject == "provider fal"]


async def test_everything_wrong_is_told_at_once(tmp_path: Path) -> None:
    env = environment(tmp_path)
    (tmp_path / "rules.yaml").write_text("version: 2\n")
    (tmp_path / "films").touch()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "reelay.db").write_text("these are notes and no database " * 40)
    failures = told(await findings(env), "fail")
    assert [one.partition(":")[0] for one in failures] == ["rules", "database", "storage"]
    assert "rules.yaml:1:10" in failures[0]


async def test_nobody_to_buy_from_is_a_failure(tmp_path: Path) -> None:
    env = environment(tmp_path) | dict.fromkeys(PLAY_KEYS, "")
    assert told(await findings(env), "fail") == ["rules: no provider is usable: no key is set"]


async def test_seller_that_does_not_answer_is_a_failure(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    failures = told(await findings(environment(tmp_path, f"http://127.0.0.1:{port}")), "fail")
    assert [one.partition(":")[0] for one in failures] == [f"provider {name}" for name in SELLERS]
    assert all("no connection to" in one for one in failures)


async def test_database_is_looked_at_but_not_changed(tmp_path: Path, sellers: str) -> None:
    env = environment(tmp_path, sellers)
    path = prepare_database(read_settings(env))
    assert isinstance(path, Path)
    (path.parent / "secret").write_text("a" * 32)
    (path.parent / "secret").chmod(0o644)
    assert told(await findings(env), "warn") == [f"database: {path.parent}/secret can be read by others: chmod 600"]
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0000'")
    connection.close()
    assert told(await findings(env), "warn") == [f"database: {path} has schema 0000: `reelay migrate`"]
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.execute("INSERT INTO facts VALUES ('schema_beside', ?)", [HEAD])
    connection.close()
    assert f"database: {path} at schema 9999" in told(await findings(env), "ok")


async def test_storage_of_no_known_kind_is_a_failure(tmp_path: Path) -> None:
    found = await findings(environment(tmp_path, REELAY_STORAGE_URL="ftp://films"))
    assert any(one.startswith("storage: the storage 'ftp://films' is neither") for one in told(found, "fail"))
    assert not [one for one in found if one.subject == "disk of the storage"]


# One paid order


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
