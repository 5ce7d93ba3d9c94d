"""What a database belongs together with: the secret its keys are hashed with, and the storage that has its films."""

from contextlib import aclosing

from proxy.core.errors import ConfigError
from proxy.core.ids import NewId, Secrets
from proxy.outside.base import FileMissing, Storage, StorageFailed, once
from proxy.store import tenants
from proxy.store.base import Store, Tx

MARKER_KEY = ".reelay"
"""The file that names a storage."""
_NAME_BYTES = 32

_NOT_THE_ONE = (
    "this database was used with another secret, on which every key and callback depends: bring back the file `secret`"
    " from beside it, or REELAY_SECRET; if it is lost, `reelay serve --new-secret` goes on without any key of tenants"
)
_ANOTHER_STORAGE = (
    "the storage {place} is not the one that has this database's films (is it mounted?): bring it back, or copy all of"
    " it there; if it is lost, `reelay serve --new-storage` goes on without those films"
)


def claim_secret(tx: Tx, secrets: Secrets, *, anew: bool) -> None:
    """Notes the secret at the first time, and when it rotates. Raises ConfigError for another, unless taken anew."""
    mine = secrets.fingerprints
    known = tenants.fact(tx, "secret")
    if known is not None and known not in mine and not anew:
        raise ConfigError(_NOT_THE_ONE)
    if known != mine[0]:
        tenants.put_fact(tx, "secret", mine[0])


async def claim_storage(store: Store, storage: Storage, new_id: NewId, *, place: str, anew: bool) -> None:
    """Gives the storage a name at the first time. Raises ConfigError for another, unless taken anew."""
    try:
        found = await _name_of(storage)
        known = await store.read(lambda tx: tenants.fact(tx, "storage"))
        if known is not None and known == found:
            return
        if known is not None and not anew:
            raise ConfigError(_ANOTHER_STORAGE.format(place=place))
        if found is None:
            # Agreed on before the file is there, known only after: whoever dies in between has claimed nothing.
            found = await store.write(lambda tx: _agreed(tx, new_id(tx.now_us)))
            await storage.put(MARKER_KEY, once(found.encode()))
        await store.write(lambda tx: _known(tx, found))
    except StorageFailed as exc:
        raise ConfigError(f"the storage {place} cannot be used: {exc}") from exc


def _agreed(tx: Tx, name: str) -> str:
    """Of servers that start together, the first names it for all."""
    agreed = tenants.fact(tx, "storage") or tenants.fact(tx, "storage_named")
    if agreed is None:
        tenants.set_fact(tx, "storage_named", name)
    return agreed or name


def _known(tx: Tx, name: str) -> None:
    tenants.put_fact(tx, "storage", name)
    tenants.drop_fact(tx, "storage_named")


async def _name_of(storage: Storage) -> str | None:
    try:
        size = await storage.size(MARKER_KEY)
        async with aclosing(storage.read(MARKER_KEY, 0, min(size, _NAME_BYTES))) as pieces:
            return b"".join([piece async for piece in pieces]).decode("ascii", "replace").strip()
    except FileMissing:
        return None
