"""What a reload holds of the process it happens in: its keys, its sellers, its secrets."""

import asyncio
import io
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
import structlog

from proxy.app import Running, running
from proxy.opening import PLAY_KEY
from proxy.settings import read_settings
from proxy.telemetry import logs

RULES = """
version: 1
providers:
  first: {adapter: ADAPTER, api_key: "${FIRST_KEY}", base_url: "http://127.0.0.1:9"}
rules: [{name: default, strategy: cheapest}]
""".replace("ADAPTER", "fal")


class Place(msgspec.Struct, kw_only=True):
    """A folder with rules and a key in a file, and the environment of a server there."""

    folder: Path
    env: dict[str, str]

    @property
    def rules(self) -> Path:
        return self.folder / "rules.yaml"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    env = {
        "REELAY_RULES": str(tmp_path / "rules.yaml"),
        "REELAY_DATABASE_URL": f"sqlite:///{tmp_path}/data/reelay.db",
        "REELAY_STORAGE_URL": f"file:{tmp_path}/films",
        "REELAY_PORT": "0",
        "FIRST_KEY_FILE": str(tmp_path / "key"),
    }
    (tmp_path / "key").write_text("the-first-key\n")
    (tmp_path / "rules.yaml").write_text(RULES)
    return Place(folder=tmp_path, env=env)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not true():
            await asyncio.sleep(0.05)


async def served(place: Place, play: Callable[[Running], Awaitable[None]], *, sandbox: bool = False) -> None:
    async with running(read_settings(place.env, sandbox=sandbox), place.env, sandbox=sandbox) as site:
        await play(site)


async def test_key_in_a_file_is_read_anew_when_asked_for(place: Place) -> None:
    async def play(site: Running) -> None:
        house = site.house
        assert house.rules.accounts["first"].api_key == "the-first-key"
        (place.folder / "key").write_text("the-second-key")
        site.reloading.ask()
        await until(lambda: house.rules.accounts["first"].api_key == "the-second-key")
        assert house.clean("the-first-key, the-second-key") == "[redacted], [redacted]"
        (place.folder / "key").unlink()
        site.reloading.ask()
        await until(lambda: house.last_reload is not None and house.last_reload.error is not None)
        assert house.rules.accounts["first"].api_key == "the-second-key"

    await served(place, play)


async def test_no_key_of_any_rules_stands_in_the_log(place: Place) -> None:
    stream = io.StringIO()
    logs.configure("json", stream=stream)

    async def play(site: Running) -> None:
        (place.folder / "key").write_text("the-second-key")
        site.reloading.ask()
        await until(lambda: site.house.rules.accounts["first"].api_key == "the-second-key")
        structlog.get_logger().info("keys.told", text="it was the-first-key and is the-second-key")

    try:
        await served(place, play)
    finally:
        structlog.reset_defaults()
    (line,) = [line for line in map(json.loads, stream.getvalue().splitlines()) if line["event"] == "keys.told"]
    assert line["text"] == "it was [redacted] and is [redacted]"


async def test_rules_that_leave_nobody_to_buy_from_are_refused(place: Place) -> None:
    async def play(site: Running) -> None:
        place.rules.write_text(RULES.replace("}\nrules", ", enabled: false}\nrules"))
        await until(lambda: site.house.last_reload is not None)
        assert "no provider is usable" in str(site.house.last_reload)
        assert site.house.rules.accounts["first"].on

    await served(place, play)


async def test_sandbox_stays_a_sandbox(place: Place) -> None:
    place.env["REELAY_SANDBOX_SPEED"] = "100"

    async def play(site: Running) -> None:
        house = site.house
        before = house.rules.accounts["first"]
        expected = {offer.id: offer.expected_s for offer in house.rules.offers.values()}
        second = '  second: {adapter: ADAPTER, api_key: "${SECOND_KEY}"}\nrules'.replace("ADAPTER", "fal")
        place.rules.write_text(RULES.replace("rules", second).replace("default", "other"))
        await until(lambda: house.rules.rules[0].name == "other")
        assert house.rules.accounts["first"] == before
        assert house.rules.accounts["second"].base_url == before.base_url
        assert house.rules.accounts["second"].api_key == PLAY_KEY
        assert {name: house.rules.offers[name].expected_s for name in expected} == expected

    await served(place, play, sandbox=True)


async def test_change_made_while_the_server_started_is_not_missed(place: Place) -> None:
    async def play(site: Running) -> None:
        # Nothing has run yet but the start itself.
        place.rules.write_text(RULES.replace("default", "other"))
        await until(lambda: site.house.rules.rules[0].name == "other")

    await served(place, play)
