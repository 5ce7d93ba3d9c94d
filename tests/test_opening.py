"""What the server and the other verbs open alike."""

import sqlite3
import stat
from pathlib import Path

import pytest

from proxy.core.clock import DAY_US, system_clock
from proxy.core.errors import ConfigError
from proxy.opening import (
    PLAY_KEY,
    PlayKeys,
    can_be_written,
    load_secrets,
    open_store,
    owed_but_vanished,
    play_rules,
    play_sellers_only,
    prepare_database,
    read_rules,
    registrar,
    vanished_in,
)
from proxy.policy.rules import Rules
from proxy.settings import Settings, read_settings
from proxy.simulator.faults import SELLERS
from proxy.simulator.sandbox import BILLING
from proxy.store import statements
from proxy.store.sqlite import file_system_of, refuse_network_file_system
from proxy.store.statements import Closing
from tests.policy.policies import load, make_rules

ROOT = Path(__file__).parents[1]


def settings(folder: Path, **env: str) -> Settings:
    named = {f"REELAY_{name}": value for name, value in env.items()}
    return read_settings({"REELAY_DATABASE_URL": f"sqlite:///{folder}/data/reelay.db"} | named)


# Rules of the sandbox


def test_shipped_rules_are_good_as_they_are() -> None:
    rules = read_rules(ROOT / "routing_rules.yaml", PlayKeys())
    assert rules.warnings == ()
    assert all(account.api_key == PLAY_KEY for account in rules.accounts.values())
    off = [name for name, account in play_sellers_only(rules).accounts.items() if not account.on]
    assert off == ["runflow-legacy"], "as shipped"


def test_doubts_about_rules_are_among_their_warnings(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(
        "version: 1\nproviders: {fal: {adapter: fal, api_key: key}}\n"
        "rules: [{name: long, when: {seconds: {min: 16}}}, {name: default}]\n"
    )
    assert read_rules(path, {}).warnings == ('the rule "long" can never match: no request meets all of its `when`',)


def with_a_seller_that_nobody_plays(*, others: bool = True) -> Rules:
    provider = "exotic: {adapter: exotic, api_key: key}"
    others_too = "fal: {adapter: fal, api_key: key}, " if others else ""
    return load(
        f"version: 1\nproviders: {{{others_too}{provider}}}\nrules: [{{name: default, strategy: cheapest}}]\n",
        adapters={"fal": "https://queue.fal.run", "exotic": "https://exotic.example"},
    )


def test_provider_whose_seller_nobody_plays_is_off_in_the_sandbox_and_says_so() -> None:
    rules = play_sellers_only(with_a_seller_that_nobody_plays())
    assert {name: account.on for name, account in rules.accounts.items()} == {"fal": True, "exotic": False}
    assert rules.warnings[-1] == 'the provider exotic is off here: nobody plays the seller of "exotic"'


def test_sandbox_without_anybody_to_play_is_refused() -> None:
    with pytest.raises(ConfigError, match=f"the sandbox plays {', '.join(SELLERS)}; the rules name none of them"):
        play_sellers_only(with_a_seller_that_nobody_plays(others=False))


def test_provider_that_is_switched_off_stays_off_without_a_word() -> None:
    rules = make_rules(
        providers="providers: {a: {adapter: fal, api_key: k}, b: {adapter: fal, api_key: k, enabled: false}}"
    )
    played = play_sellers_only(rules)
    assert [account.on for account in played.accounts.values()] == [True, False]
    assert played.warnings == rules.warnings


def test_play_sellers_get_play_keys_at_their_own_address_and_are_faster() -> None:
    rules = make_rules()
    played = play_rules(rules, "http://127.0.0.1:1", 40.0)
    for name, account in played.accounts.items():
        assert (account.base_url, account.api_key) == (f"http://127.0.0.1:1/{account.adapter}", PLAY_KEY)
        assert rules.accounts[name].api_key != PLAY_KEY
    for name, offer in played.offers.items():
        size = offer.resolutions[0]
        assert offer.expected_time_s(size, 5) == pytest.approx(rules.offers[name].expected_time_s(size, 5) / 40)
        assert offer in played.by_model[offer.model]
        assert offer in played.by_kind[offer.model, offer.operation, offer.tier]


# Secrets


def test_secret_of_the_settings_wins_and_a_list_rotates(tmp_path: Path) -> None:
    told = load_secrets(settings(tmp_path, SECRET="a" * 16 + " , " + "b" * 16))
    assert told.masters == ("a" * 16, "b" * 16)
    assert not (tmp_path / "data").exists()


def test_without_one_it_is_made_once_beside_the_database(tmp_path: Path) -> None:
    first = load_secrets(settings(tmp_path))
    path = tmp_path / "data" / "secret"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_secrets(settings(tmp_path)) == first


# The database


async def test_every_verb_finds_the_same_database(tmp_path: Path) -> None:
    found = settings(tmp_path)
    assert prepare_database(found) == tmp_path / "data" / "reelay.db"
    async with open_store(found) as store:
        assert await registrar(store, found).tenants() == []


async def test_what_lies_there_instead_of_a_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "data" / "reelay.db"
    path.parent.mkdir()
    path.write_bytes(b"SQLite format 3\0" + b"\0" * 84)
    with pytest.raises(ConfigError, match=r"reelay\.db"):
        async with open_store(settings(tmp_path)):
            pass


async def test_vanished_providers_are_looked_for_without_touching_a_database(tmp_path: Path) -> None:
    found, rules = settings(tmp_path), make_rules()
    assert await vanished_in(found, rules) == []
    assert not (tmp_path / "data").exists()
    path = prepare_database(found)
    assert await vanished_in(found, rules) == []
    async with open_store(found) as store:
        assert await owed_but_vanished(store, rules) == []
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0000'")
    connection.close()
    assert await vanished_in(found, rules) == [], "an older schema is left as it is"


MOUNTS = """\
/dev/vda1 / ext4 rw,relatime 0 0
server:/export /srv nfs4 rw,vers=4.2 0 0
/dev/vdb1 /srv/local\\040disk xfs rw 0 0
//nas/share /mnt/nas cifs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/lib/reelay", "ext4"),
        ("/srv/reelay", "nfs4"),
        ("/srv", "nfs4"),
        ("/srvices", "ext4"),
        ("/srv/local disk/reelay", "xfs"),
        ("/mnt/nas/reelay", "cifs"),
    ],
)
def test_database_across_a_network_is_refused(path: str, kind: str) -> None:
    assert file_system_of(Path(path), MOUNTS) == kind
    if kind in {"ext4", "xfs"}:
        refuse_network_file_system(Path(path), MOUNTS)
    else:
        with pytest.raises(ConfigError, match=f"lies on a network file system .{kind}.; SQLite needs a local disk"):
            refuse_network_file_system(Path(path), MOUNTS)


def test_place_of_a_file_can_be_written_or_not(tmp_path: Path) -> None:
    (tmp_path / "here").touch()
    assert can_be_written(tmp_path / "new")
    assert can_be_written(tmp_path / "here")
    assert not can_be_written(tmp_path)
    assert not can_be_written(tmp_path / "nowhere" / "new")


async def test_time_goes_on_from_what_the_database_has_seen_though_the_clock_was_set_back(tmp_path: Path) -> None:
    """Else leases and pauses would last as much longer, and nothing could be written into a month that is open."""
    found = settings(tmp_path)
    later = system_clock() + 30 * DAY_US
    async with open_store(found) as store:
        closing = Closing(month="2026-10", ends_at=1, closed_at=later, actor="cli")
        await store.write(lambda tx: statements.insert_closing(tx, closing))
        assert store.clock() < later - 29 * DAY_US
        assert abs(store.ahead_us) < DAY_US
    async with open_store(found) as store:
        assert later <= store.clock() < later + DAY_US
        assert later <= await store.write(lambda tx: tx.now_us) < later + DAY_US
        assert store.ahead_us > 29 * DAY_US


async def test_database_that_sqlite_cannot_open_is_told_in_one_line(tmp_path: Path) -> None:
    found = settings(tmp_path)
    path = prepare_database(found)
    assert isinstance(path, Path)
    for left in (path.with_name("reelay.db-wal"), path.with_name("reelay.db-shm")):
        left.unlink(missing_ok=True)
    path.with_name("reelay.db-wal").mkdir()
    with pytest.raises(ConfigError, match="cannot be opened: unable to open database file"):
        async with open_store(found):
            pass


def test_data_folder_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    with pytest.raises(ConfigError, match=r"the data folder .*data is a file"):
        prepare_database(settings(tmp_path))
    with pytest.raises(ConfigError, match=r"the data folder .*deep cannot be made: Not a directory"):
        prepare_database(settings(tmp_path, DATABASE_URL=f"sqlite:///{tmp_path}/data/deep/reelay.db"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match="folder is a folder, not a database"):
        prepare_database(settings(tmp_path, DATABASE_URL=f"sqlite:///{tmp_path}/folder"))


def test_sellers_that_are_played_are_those_that_the_sandbox_opens() -> None:
    assert set(SELLERS) == set(BILLING)
