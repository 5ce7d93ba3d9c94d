"""A server starts only where all is well; whatever is not is told before its port opens."""

import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from proxy.app import Consent, running
from proxy.core.errors import ConfigError
from proxy.outside.base import Room
from proxy.services.disks import look_at_disks
from proxy.settings import read_settings
from proxy.store.backup import back_up
from proxy.store.migrations import HEAD
from tests.newer import NEXT

RULES = """
version: 1
providers:
  first: {adapter: ADAPTER, api_key: "${FIRST_KEY}", base_url: "http://127.0.0.1:9"}
rules: [{name: default, strategy: cheapest}]
""".replace("ADAPTER", "fal")


class Place(msgspec.Struct, kw_only=True):
    """A folder with rules, and the environment of a server there whose port is taken by somebody else."""

    folder: Path
    env: dict[str, str]

    async def start(self, *, sandbox: bool = False, **env: str) -> None:
        async with running(self.settings(sandbox=sandbox, **env), self.env | env, sandbox=sandbox):
            raise AssertionError("the port is taken")

    async def refusal(self, *, sandbox: bool = False, **env: str) -> str:
        """Why it does not start; that the port is taken is not among the reasons, for it is looked at last."""
        with pytest.raises(ConfigError) as caught:
            await self.start(sandbox=sandbox, **env)
        text = str(caught.value)
        assert "\n" not in text
        assert "port" not in text, text
        return text

    def settings(self, *, sandbox: bool = False, **env: str) -> Any:
        return read_settings({**self.env, **env}, sandbox=sandbox)

    @property
    def database(self) -> Path:
        return self.folder / "data" / "reelay.db"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    (tmp_path / "rules.yaml").write_text(RULES)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        env = {
            "REELAY_RULES": str(tmp_path / "rules.yaml"),
            "REELAY_DATABASE_URL": f"sqlite:///{tmp_path}/data/reelay.db",
            "REELAY_STORAGE_URL": f"file:{tmp_path}/films",
            "REELAY_PORT": str(taken.getsockname()[1]),
            "FIRST_KEY": "id:key",
        }
        yield Place(folder=tmp_path, env=env)


def stranger() -> httpx.AsyncClient:
    return httpx.AsyncClient(trust_env=False)


async def make_database(place: Place) -> None:
    """One that a server has used; then the port was taken."""
    with pytest.raises(ConfigError, match="cannot be opened: Address already in use"):
        await place.start()


async def test_taken_port_is_told_last(place: Place) -> None:
    with pytest.raises(ConfigError) as caught:
        await place.start()
    assert str(caught.value) == f"port {place.env['REELAY_PORT']} on 127.0.0.1 cannot be opened: Address already in use"
    with pytest.raises(ConfigError, match=r"port 1 on no\.such\.host\.invalid cannot be opened"):
        await place.start(REELAY_HOST="no.such.host.invalid", REELAY_PORT="1")


async def test_taken_port_for_metrics_is_told_before_the_other_is_served(place: Place) -> None:
    with pytest.raises(ConfigError, match=f"port {place.env['REELAY_PORT']} on 127.0.0.1 cannot be opened"):
        await place.start(REELAY_PORT="0", REELAY_METRICS_PORT=place.env["REELAY_PORT"])


@pytest.mark.parametrize("sandbox", [False, True])
async def test_broken_rules_are_named_by_line_and_column_and_nothing_is_made(place: Place, *, sandbox: bool) -> None:
    (place.folder / "rules.yaml").write_text(RULES.replace("strategy", "stratgy"))
    told = await place.refusal(sandbox=sandbox)
    assert told.startswith("rules.yaml:5:")
    assert "strategy" in told
    assert [path.name for path in place.folder.iterdir()] == ["rules.yaml"]


async def test_rules_that_are_not_there_are_named(place: Place) -> None:
    path = place.folder / "elsewhere.yaml"
    assert await place.refusal(REELAY_RULES=str(path)) == f"{path}: the rules cannot be read: No such file or directory"
    assert "Is a directory" in await place.refusal(REELAY_RULES=str(place.folder))


async def test_without_any_key_there_is_nobody_to_buy_from(place: Place) -> None:
    assert "no provider is usable: set the key of one" in await place.refusal(FIRST_KEY="")
    assert not place.database.parent.exists()


async def test_required_provider_without_its_key_is_a_mistake(place: Place) -> None:
    (place.folder / "rules.yaml").write_text(RULES.replace("}\nrules", ", required: true}\nrules"))
    told = await place.refusal(FIRST_KEY="")
    assert told.startswith("rules.yaml:4:")
    assert "the provider first is required, but FIRST_KEY is not set" in told


async def test_key_in_a_file_is_as_good(place: Place) -> None:
    (place.folder / "key").write_text("id:key\n")
    with pytest.raises(ConfigError, match="Address already in use"):
        await place.start(FIRST_KEY="", FIRST_KEY_FILE=str(place.folder / "key"))
    assert "FIRST_KEY_FILE: /nowhere cannot be read" in await place.refusal(FIRST_KEY="", FIRST_KEY_FILE="/nowhere")


async def test_storage_of_no_known_kind_is_refused_before_anything_is_made(place: Place) -> None:
    assert "is neither file:PATH nor s3://" in await place.refusal(REELAY_STORAGE_URL="ftp://films")
    assert not place.database.parent.exists()


async def test_storage_folder_that_cannot_be_written_is_named(place: Place) -> None:
    (place.folder / "films").write_text("no folder")
    assert f"the storage folder {place.folder}/films cannot be written" in await place.refusal()


async def test_data_folder_that_cannot_be_made_is_named(place: Place) -> None:
    (place.folder / "data").write_text("no folder")
    assert await place.refusal() == f"the data folder {place.folder}/data is a file"
    deep = f"sqlite:///{place.folder}/data/deep/reelay.db"
    assert "data/deep cannot be made: Not a directory" in await place.refusal(REELAY_DATABASE_URL=deep)


async def test_file_that_is_no_database_is_refused_and_left_alone(place: Place) -> None:
    place.database.parent.mkdir()
    place.database.write_text("these are my notes, not a database at all. " * 30)
    assert f"{place.database} is not a database" in await place.refusal()
    assert place.database.read_text().startswith("these are my notes")
    place.database.unlink()
    place.database.mkdir()
    assert await place.refusal() == f"{place.database} is a folder, not a database"


async def test_database_of_a_newer_version_is_refused(place: Place) -> None:
    await make_database(place)
    with sqlite3.connect(place.database) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.execute("UPDATE facts SET value = '9999' WHERE name = 'schema_beside'")
    connection.close()
    assert "has schema 9999, which is newer than this version of Reelay" in await place.refusal()


async def test_play_and_real_videos_never_share_a_database(place: Place) -> None:
    await make_database(place)
    assert "this database belongs to real sellers; use another for the sandbox" in await place.refusal(sandbox=True)
    other = f"sqlite:///{place.folder}/data/play.db"
    with pytest.raises(ConfigError, match="Address already in use"):
        await place.start(sandbox=True, REELAY_DATABASE_URL=other)
    assert "this database belongs to the sandbox" in await place.refusal(REELAY_DATABASE_URL=other)


async def test_backup_is_served_only_by_who_knows_that_it_is_one(place: Place) -> None:
    await make_database(place)
    backup = place.folder / "data" / "backup.db"
    back_up(place.database, backup, at_us=1)
    url = f"sqlite:///{backup}"
    assert "this database is a backup" in await place.refusal(REELAY_DATABASE_URL=url)
    settings = place.settings(REELAY_DATABASE_URL=url, REELAY_PORT="0")
    async with running(settings, place.env, sandbox=False, consent=Consent(after_restore=True)) as site:
        assert site.house.restored_at > 1
    async with running(settings, place.env, sandbox=False) as again:
        assert again.house.restored_at == site.house.restored_at, "the doubt outlives the flag"


async def test_second_server_on_the_same_database_is_refused(place: Place) -> None:
    async with running(place.settings(REELAY_PORT="0"), place.env, sandbox=False):
        assert "another process serves this database already" in await place.refusal()


async def test_lock_goes_with_the_server(place: Place) -> None:
    for _ in range(2):
        async with running(place.settings(REELAY_PORT="0"), place.env, sandbox=False) as site, stranger() as client:
            assert (await client.get(f"{site.origin}/readyz")).json() == {"status": "ready"}


async def test_server_is_not_ready_on_a_schema_that_leaves_its_version_no_longer_at_work(place: Place) -> None:
    async with running(place.settings(REELAY_PORT="0"), place.env, sandbox=False) as site, stranger() as client:
        for beside, told in ((HEAD, (200, "ready")), (NEXT, (503, "schema"))):
            with closing(sqlite3.connect(place.database)) as newer, newer:
                newer.execute("INSERT OR REPLACE INTO facts VALUES ('schema_beside', ?)", [beside])
            answer = await client.get(f"{site.origin}/readyz")
            assert (answer.status_code, answer.json()["status"]) == told


class Cramped:
    """A disk that is as full as the test says."""

    def __init__(self, used_ratio: float) -> None:
        self.ratio = used_ratio

    async def room(self) -> Room | None:
        used_bytes = round(10**12 * self.ratio)
        return Room(free_bytes=10**12 - used_bytes, used_bytes=used_bytes)


@pytest.mark.parametrize("store", ["files", "database"])
async def test_nearly_full_disk_stops_creates_and_nothing_else(place: Place, store: str) -> None:
    key = {"authorization": "Bearer a-key-for-tests-only"}
    settings = place.settings(REELAY_PORT="0", REELAY_BOOTSTRAP_KEY="a-key-for-tests-only")
    async with running(settings, place.env, sandbox=False) as site, stranger() as client:
        assert set(site.house.disks) == {"files", "database"}
        body, videos = {"prompt": "a boat"}, f"{site.origin}/v1/videos"
        keyed = key | {"idempotency-key": "k"}
        before = (await client.post(videos, json=body, headers=keyed)).raise_for_status().json()
        site.house.disks[store] = disk = Cramped(0.91)
        await look_at_disks(site.house)

        refused = await client.post(videos, json=body, headers=key)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "server_is_overloaded")
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert (await client.post(videos, json=body, headers=keyed)).json()["id"] == before["id"]
        assert (await client.get(f"{videos}/{before['id']}", headers=key)).status_code == 200
        assert (await client.post(f"{videos}/quote", json=body, headers=key)).status_code == 200
        ready = await client.get(f"{site.origin}/readyz")
        assert (ready.status_code, ready.json()) == (200, {"status": "ready", "full": [store]})
        metrics = (await client.get(f"{site.origin}/metrics")).text
        assert f'reelay_store_used_bytes{{store="{store}"}} 9.1' in metrics

        disk.ratio = 1
        metrics = (await client.get(f"{site.origin}/metrics")).text
        assert f'reelay_store_used_bytes{{store="{store}"}} 1e+12' in metrics
        assert f'reelay_store_free_bytes{{store="{store}"}} 0.0' in metrics

        disk.ratio = 0.9
        await look_at_disks(site.house)
        assert (await client.post(videos, json=body, headers=key)).status_code == 200
        assert (await client.get(f"{site.origin}/readyz")).json() == {"status": "ready"}


async def test_metrics_with_a_port_of_their_own_are_only_there(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = place.settings(REELAY_PORT="0", REELAY_METRICS_PORT=str(port), REELAY_METRICS_TOKEN="let-me-read")
    async with running(settings, place.env, sandbox=False) as site, stranger() as client:
        own = f"http://127.0.0.1:{port}"
        assert (await client.get(f"{site.origin}/metrics")).status_code == 404
        assert (await client.get(f"{own}/v1/videos")).status_code == 404
        assert (await client.get(f"{own}/healthz")).status_code == 200
        unknown = await client.get(f"{own}/metrics")
        assert (unknown.status_code, unknown.json()["error"]["code"]) == (401, "invalid_api_key")
        known = await client.get(f"{own}/metrics", headers={"authorization": "Bearer let-me-read"})
        assert known.status_code == 200
        assert "reelay_build_info" in known.text


async def test_address_of_ipv6_is_written_with_brackets(place: Place) -> None:
    async with running(place.settings(REELAY_HOST="::1", REELAY_PORT="0"), place.env, sandbox=False) as site:
        assert site.origin.startswith("http://[::1]:")
        async with stranger() as client:
            assert (await client.get(f"{site.origin}/healthz")).status_code == 200
