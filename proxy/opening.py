"""What the server and the other verbs open alike: rules, secrets, the database."""

import contextlib
import os
import sqlite3
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from proxy.catalog import read_catalog
from proxy.core.clock import system_clock
from proxy.core.errors import ConfigError
from proxy.core.ids import Secrets, time_hex
from proxy.policy.doubts import with_doubts
from proxy.policy.rules import Rules, load_rules, with_offers
from proxy.providers.registry import load_adapters
from proxy.services.accounts import Registrar
from proxy.settings import Settings, WithFiles, keep_secret
from proxy.store import migrations, moments, videos
from proxy.store.base import Store
from proxy.store.sqlite import SqliteStore, refuse_network_file_system

if TYPE_CHECKING:
    from proxy.store.postgres import PostgresStore

# Rules


def read_rules(path: Path, env: Mapping[str, str]) -> Rules:
    """Raises ConfigError with file, line and column."""
    try:
        text = path.read_bytes()
    except OSError as exc:
        raise ConfigError(f"{path}: the rules cannot be read: {exc.strerror}") from exc
    adapters = {name: adapter.base_url for name, adapter in load_adapters().items()}
    rules = load_rules(text, file=path.name, env=env, adapters=adapters, catalog=read_catalog())
    return with_doubts(rules, at_us=system_clock())


def real_rules(settings: Settings, env: Mapping[str, str]) -> Rules:
    """The rules with the keys of the environment. Raises ConfigError where nobody could be bought from."""
    rules = read_rules(settings.rules, WithFiles(env))
    if not any(account.on for account in rules.accounts.values()):
        raise ConfigError(
            f"{settings.rules}: no provider is usable: set the key of one, or try `reelay serve --sandbox`"
        )
    return rules


# Rules of the sandbox

PLAY_KEY = "sandbox-key-of-no-value"


class PlayKeys(Mapping[str, str]):
    """The environment of the sandbox: every variable that the rules name holds a play key."""

    def __getitem__(self, name: str) -> str:
        return PLAY_KEY

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def play_sellers_only(rules: Rules) -> Rules:
    """The same rules, each provider off whose seller nobody plays. Raises ConfigError where none is left."""
    from proxy.simulator.faults import SELLERS  # noqa: PLC0415 - serving for real needs none of it

    missing = [name for name, account in rules.accounts.items() if account.on and account.adapter not in SELLERS]
    accounts = {
        name: msgspec.structs.replace(account, enabled=account.enabled and name not in missing)
        for name, account in rules.accounts.items()
    }
    if not any(account.on for account in accounts.values()):
        raise ConfigError(f"the sandbox plays {', '.join(SELLERS)}; the rules name none of them, or switch it off")
    told = tuple(
        f'the provider {name} is off here: nobody plays the seller of "{rules.accounts[name].adapter}"'
        for name in missing
    )
    return msgspec.structs.replace(rules, accounts=accounts, warnings=(*rules.warnings, *told), figures={})


def play_rules(rules: Rules, origin: str, speed: float) -> Rules:
    """The same rules over play sellers at `origin`, which are `speed` times as fast as real ones."""
    accounts = {
        name: msgspec.structs.replace(account, base_url=f"{origin}/{account.adapter}", api_key=PLAY_KEY)
        for name, account in rules.accounts.items()
    }
    offers = {
        name: msgspec.structs.replace(
            offer,
            expected_s={size: (fixed / speed, per / speed) for size, (fixed, per) in offer.expected_s.items()},
        )
        for name, offer in rules.offers.items()
    }
    return with_offers(msgspec.structs.replace(rules, accounts=accounts), offers)


# Secrets and the database


def load_secrets(settings: Settings) -> Secrets:
    """From REELAY_SECRET, else from a file beside the database, made once. Raises ConfigError."""
    if settings.secret is None:
        return Secrets(masters=(keep_secret(settings.data_folder.resolve() / "secret"),))
    return Secrets(masters=tuple(one.strip() for one in settings.secret.split(",")))


def prepare_database(settings: Settings) -> Path | str:
    """The database, a file on a disk that will do or a server's, with a schema that will do. Raises ConfigError."""
    place = settings.database
    if not isinstance(place, Path):
        migrations.migrate(place)
        return place
    make_data_folder(place)
    if place.is_dir():
        raise ConfigError(f"{place} is a folder, not a database")
    try:
        migrations.migrate(place)
    except OSError as exc:
        raise ConfigError(f"{place} cannot be opened: {exc.strerror}") from exc
    except sqlite3.Error as exc:
        raise ConfigError(f"{place} cannot be opened: {exc}") from exc
    return place


def make_data_folder(path: Path) -> None:
    """Of the database at `path`. Raises ConfigError where it cannot be written, or lies across a network."""
    folder = path.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as exc:
        raise ConfigError(f"the data folder {folder} is a file") from exc
    except OSError as exc:
        raise ConfigError(f"the data folder {folder} cannot be made: {exc.strerror}") from exc
    refuse_network_file_system(folder.resolve(), _mounts())
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"the data folder {folder} cannot be written")


def can_be_written(path: Path) -> bool:
    """Whether a file may be put there."""
    return not path.is_dir() and os.access(path if path.exists() else path.absolute().parent, os.W_OK)


@contextlib.asynccontextmanager
async def open_store(settings: Settings) -> AsyncIterator[Store]:
    """The database at this version's schema, beside whoever else has it open. Raises ConfigError."""
    store = _engine(prepare_database(settings))
    try:
        await store.open()
        store.not_before(await store.read(moments.latest))
    except sqlite3.Error as exc:
        raise ConfigError(f"{settings.database} cannot be opened: {exc}") from exc
    try:
        yield store
    finally:
        await store.close()


def _engine(place: Path | str) -> "SqliteStore | PostgresStore":
    if isinstance(place, Path):
        return SqliteStore(place)
    from proxy.store.postgres import PostgresStore  # noqa: PLC0415 - SQLite needs none of it

    return PostgresStore(place)


def _mounts() -> str:
    try:
        return Path("/proc/mounts").read_text(encoding="utf-8")
    except OSError:
        return ""  # not Linux: nobody says what lies where


def registrar(store: Store, settings: Settings) -> Registrar:
    return Registrar(store, load_secrets(settings), store.clock, time_hex)


async def owed_but_vanished(store: Store, rules: Rules) -> list[str]:
    """Providers that the rules name no more although attempts there are not over."""
    return sorted(await store.read(videos.owed_providers) - set(rules.accounts))


async def vanished_in(settings: Settings, rules: Rules) -> list[str]:
    """The same of a database that may not be there yet; it is neither made nor migrated. Raises ConfigError."""
    place = settings.database
    if (isinstance(place, Path) and not place.is_file()) or migrations.revision_of(place) != migrations.HEAD:
        return []
    async with open_store(settings) as store:
        return await owed_but_vanished(store, rules)
