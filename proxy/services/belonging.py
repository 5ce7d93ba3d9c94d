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
    """
    Notes the secrets at the first time, and when they rotate. Raises ConfigError for others, unless taken anew.

    One in common is enough: while servers are given a new one in turn, those with the old list may start again.
    """
    mine, known = secrets.fingerprints, tenants.fact(tx, "secret")
    if known is not None and not anew and set(known.split(",")).isdisjoint(mine):
        raise ConfigError(_NOT_THE_ONE)
    if known != ",".join(mine):
        tenants.put_fact(tx, "secret", ",".join(mine))


async def claim_storage(store: Store, storage: Storage, new_id: NewId, *, place: str, anew: bool) -> None:
    """Gives the storage a name at the first time. Raises ConfigError for another, unless taken anew."""
    try:
        # In this order: what is known was in the storage before.
        known = await store.read(lambda tx: tenants.fact(tx, "storage"))
        found = await _name_of(storage)
        if known is not None and known == found:
            return
        if known is not None and not anew:
            raise ConfigError(_ANOTHER_STORAGE.format(place=place))
        if found is None:
            # Agreed on before the file is there, known only after: whoever dies in between has claimed nothing.
            found = await store.write(lambda tx: _agreed(tx, new_id(tx.now_us), instead_of=known))
            await storage.put(MARKER_KEY, once(found.encode()))
        await store.write(lambda tx: _known(tx, found))
    except StorageFailed as exc:
        raise ConfigError(f"the storage {place} cannot be used: {exc}") from exc


def _agreed(tx: Tx, name: str, *, instead_of: str | None) -> str:
    """Of servers that start together, the first names it for all."""
    agreed = tenants.fact(tx, "storage_named")
    if agreed is None:
        tenants.set_fact(tx, "storage_named", name)
    # Last, for another may have come to its end meanwhile.
    known = tenants.fact(tx, "storage")
    if known is not None and known != instead_of:
        tenants.drop_fact(tx, "storage_named")
        return known
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
