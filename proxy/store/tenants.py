"""Tenants, their keys and end users, the facts of this database, and the log of what admins change."""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Text, and_, bindparam, delete, insert, or_, select, update

from proxy.core.tenant import Tenant
from proxy.store.base import Statement, Tx, as_structs, fields_of, of_several, several_ids
from proxy.store.tables import admin_log, api_keys, end_users, facts, tenants

_TENANT = Tenant.__struct_fields__
_tenant_columns = [tenants.c[name] for name in _TENANT]

_INSERT = Statement(insert(tenants).values({name: bindparam(name) for name in _TENANT}))
_UPDATE = Statement(
    update(tenants)
    .where(tenants.c.id == bindparam("of_id"))
    .values({name: bindparam(name) for name in _TENANT if name not in {"id", "created_at"}})
)
_ALL = Statement(select(*_tenant_columns).order_by(tenants.c.created_at, tenants.c.id))
_TAKE = Statement(select(tenants.c.id).where(tenants.c.id == bindparam("id")).with_for_update())
_OLDEST = Statement(select(tenants.c.id).order_by(tenants.c.created_at, tenants.c.id).limit(bindparam("most")))
_FIND = Statement(
    select(*_tenant_columns).where(
        or_(tenants.c.id == bindparam("id_or_name"), tenants.c.name == bindparam("id_or_name"))
    )
)


def _as_tenants(rows: list[tuple[Any, ...]]) -> list[Tenant]:
    names = dict.fromkeys(_TENANT)
    found = []
    for row in rows:
        values = dict(zip(names, row, strict=True))
        values["allow_filter_off"] = bool(values["allow_filter_off"])
        values["require_end_user_id"] = bool(values["require_end_user_id"])
        found.append(Tenant(**values))
    return found


def _tenant_values(tenant: Tenant) -> dict[str, Any]:
    values = fields_of(tenant)
    return values | {
        "allow_filter_off": int(tenant.allow_filter_off),
        "require_end_user_id": int(tenant.require_end_user_id),
    }


def insert_tenant(tx: Tx, tenant: Tenant) -> None:
    """A new tenant; a name that exists breaks the unit."""
    tx.run(_INSERT, **_tenant_values(tenant))


def save_tenant(tx: Tx, tenant: Tenant) -> None:
    """A tenant's settings as they now are."""
    values = _tenant_values(tenant)
    del values["id"], values["created_at"]
    tx.run(_UPDATE, of_id=tenant.id, **values)


def all_tenants(tx: Tx) -> list[Tenant]:
    """From the oldest."""
    return _as_tenants(tx.rows(_ALL))


def oldest(tx: Tx, *, most: int) -> list[str]:
    """Ids of so many, from the oldest."""
    return [row[0] for row in tx.rows(_OLDEST, most=most)]


def take_tenant(tx: Tx, id_or_name: str) -> Tenant | None:
    """The same; nobody else changes it until this unit is kept."""
    found = find_tenant(tx, id_or_name)
    if found is None:
        return None
    tx.one(_TAKE, id=found.id)
    return find_tenant(tx, found.id)


def find_tenant(tx: Tx, id_or_name: str) -> Tenant | None:
    """By id, or else by name."""
    found = _as_tenants(tx.rows(_FIND, id_or_name=id_or_name))
    return min(found, key=lambda tenant: tenant.id != id_or_name, default=None)


class ApiKey(msgspec.Struct, frozen=True):
    """A row of `api_keys`; the key itself is kept nowhere."""

    id: str
    tenant_id: str
    digest: str
    last4: str
    name: str
    scopes: str
    created_at: int
    expires_at: int | None = None
    revoked_at: int | None = None
    last_used_at: int | None = None
    requests_per_minute: int | None = None
    videos_in_flight: int | None = None


_KEY = ApiKey.__struct_fields__
_key_columns = [api_keys.c[name] for name in _KEY]
_INSERT_KEY = Statement(insert(api_keys).values({name: bindparam(name) for name in _KEY}))
_BY_DIGEST = Statement(
    select(*_key_columns, *_tenant_columns)
    .join(tenants, tenants.c.id == api_keys.c.tenant_id)
    .where(api_keys.c.digest == bindparam("digest"))
)
_KEYS = Statement(
    select(*_key_columns)
    .where(or_(bindparam("tenant_id", type_=Text).is_(None), api_keys.c.tenant_id == bindparam("tenant_id")))
    .order_by(api_keys.c.created_at, api_keys.c.id)
)
_TAKE_KEY = Statement(select(*_key_columns).where(api_keys.c.id == bindparam("key_id")).with_for_update(key_share=True))
_LIMIT_KEY = Statement(
    update(api_keys)
    .where(api_keys.c.id == bindparam("of_id"))
    .values({name: bindparam(name) for name in ("requests_per_minute", "videos_in_flight")})
)
_REVOKE = Statement(
    update(api_keys)
    .where(api_keys.c.id == bindparam("key_id"), api_keys.c.revoked_at.is_(None))
    .values(revoked_at=bindparam("at"))
)
_TOUCH = Statement(update(api_keys).where(api_keys.c.id == bindparam("key_id")).values(last_used_at=bindparam("at")))


def insert_key(tx: Tx, key: ApiKey) -> None:
    """A new key."""
    tx.run(_INSERT_KEY, **fields_of(key))


def key_by_digest(tx: Tx, digest: str) -> tuple[ApiKey, Tenant] | None:
    """The key and its tenant, whether or not it is still good."""
    row = tx.one(_BY_DIGEST, digest=digest)
    if row is None:
        return None
    width = len(_KEY)
    return as_structs(ApiKey, [row[:width]])[0], _as_tenants([row[width:]])[0]


def keys(tx: Tx, tenant_id: str | None = None) -> list[ApiKey]:
    """Of one tenant, or all."""
    return as_structs(ApiKey, tx.rows(_KEYS, tenant_id=tenant_id))


def take_key(tx: Tx, key_id: str) -> ApiKey | None:
    """The key, revoked or not; nobody else changes it until this unit is kept."""
    rows = as_structs(ApiKey, tx.rows(_TAKE_KEY, key_id=key_id))
    return rows[0] if rows else None


def limit_key(tx: Tx, key: ApiKey) -> None:
    """A key's limits as they now are."""
    tx.run(
        _LIMIT_KEY,
        of_id=key.id,
        requests_per_minute=key.requests_per_minute,
        videos_in_flight=key.videos_in_flight,
    )


def revoke_key(tx: Tx, key_id: str, *, at: int) -> bool:
    """False where there is no such key, or it was revoked before."""
    return bool(tx.run(_REVOKE, key_id=key_id, at=at))


def touch_key(tx: Tx, key_id: str, *, at: int) -> None:
    """When the key was last used."""
    tx.run(_TOUCH, key_id=key_id, at=at)


_USER = Statement(
    select(end_users.c.surrogate).where(
        end_users.c.tenant_id == bindparam("tenant_id"), end_users.c.name == bindparam("name")
    )
)
_TAKE_USER = Statement(
    select(end_users.c.surrogate)
    .where(end_users.c.tenant_id == bindparam("tenant_id"), end_users.c.name == bindparam("name"))
    .with_for_update(read=True, key_share=True)
)
_INSERT_USER = Statement(
    insert(end_users).values(tenant_id=bindparam("tenant_id"), surrogate=bindparam("surrogate"), name=bindparam("name"))
)
_USER_NAME = Statement(
    select(end_users.c.name).where(
        end_users.c.tenant_id == bindparam("tenant_id"), end_users.c.surrogate == bindparam("surrogate")
    )
)


def surrogate_of(tx: Tx, tenant_id: str, name: str) -> str | None:
    """What the ledger calls an end user; None for one never seen."""
    row = tx.one(_USER, tenant_id=tenant_id, name=name)
    return None if row is None else str(row[0])


def take_surrogate(tx: Tx, tenant_id: str, name: str) -> str | None:
    """The same; until this unit is kept nobody erases the name."""
    row = tx.one(_TAKE_USER, tenant_id=tenant_id, name=name)
    return None if row is None else str(row[0])


def insert_end_user(tx: Tx, tenant_id: str, name: str, surrogate: str) -> None:
    """An end user seen for the first time."""
    tx.run(_INSERT_USER, tenant_id=tenant_id, name=name, surrogate=surrogate)


def end_user_name(tx: Tx, tenant_id: str, surrogate: str) -> str | None:
    """The name behind a surrogate; None once erased."""
    row = tx.one(_USER_NAME, tenant_id=tenant_id, surrogate=surrogate)
    return None if row is None else row[0]


_USER_NAMES = Statement(
    select(end_users.c.surrogate, end_users.c.name).where(
        end_users.c.tenant_id == bindparam("tenant_id"), end_users.c.surrogate.in_(several_ids())
    )
)


def end_user_names(tx: Tx, tenant_id: str, surrogates: Sequence[str]) -> dict[str, str | None]:
    """The same for many of one tenant."""
    return {row[0]: row[1] for row in of_several(tx, _USER_NAMES, surrogates, tenant_id=tenant_id)}


_FORGET_NAME = Statement(
    update(end_users)
    .where(
        end_users.c.tenant_id == bindparam("of_tenant"),
        end_users.c.surrogate == bindparam("of_surrogate"),
        end_users.c.name.is_not(None),
    )
    .values(name=None)
)


def forget_name(tx: Tx, tenant_id: str, surrogate: str) -> bool:
    """Empties the name behind a surrogate, which is a new end user's from then on; False if it was empty."""
    return bool(tx.run(_FORGET_NAME, of_tenant=tenant_id, of_surrogate=surrogate))


_FACT = Statement(select(facts.c.value).where(facts.c.name == bindparam("name")))
_INSERT_FACT = Statement(insert(facts).values(name=bindparam("name"), value=bindparam("value")))


_PUT_FACT = Statement(update(facts).where(facts.c.name == bindparam("of_name")).values(value=bindparam("value")))
_DROP_FACT = Statement(delete(facts).where(facts.c.name == bindparam("name")))

BACKUP_AT = "backup_at"
"""In a copy alone: when it was made, in microseconds."""
RESTORED_AT = "restored_at"
"""What was accepted before then may have bought more than this database knows; microseconds."""


def fact(tx: Tx, name: str) -> str | None:
    """Something that holds for this whole database."""
    row = tx.one(_FACT, name=name)
    return None if row is None else str(row[0])


def set_fact(tx: Tx, name: str, value: str) -> None:
    """Once and for all; a fact that is set breaks the unit."""
    tx.run(_INSERT_FACT, name=name, value=value)


def put_fact(tx: Tx, name: str, value: str) -> None:
    """As it is from now on, whatever it was."""
    if not tx.run(_PUT_FACT, of_name=name, value=value):
        set_fact(tx, name, value)


def drop_fact(tx: Tx, name: str) -> None:
    """Where it is set."""
    tx.run(_DROP_FACT, name=name)


class AdminAct(msgspec.Struct, frozen=True):
    """One change by an operator: who, what, before and after as JSON, and why."""

    id: str
    at: int
    actor: str
    action: str
    subject: str
    before: str | None = None
    after: str | None = None
    reason: str | None = None


_ACT = AdminAct.__struct_fields__
_INSERT_ACT = Statement(insert(admin_log).values({name: bindparam(name) for name in _ACT}))
_act_columns = [admin_log.c[name] for name in _ACT]
_ACT_BY_ID = Statement(select(*_act_columns).where(admin_log.c.id == bindparam("id")))
_ACTS = Statement(
    select(*_act_columns)
    .where(
        or_(
            admin_log.c.at < bindparam("at"),
            and_(admin_log.c.at == bindparam("at"), admin_log.c.id < bindparam("id")),
        )
    )
    .order_by(admin_log.c.at.desc(), admin_log.c.id.desc())
    .limit(bindparam("most"))
)
_WAS_DONE = Statement(
    select(admin_log.c.id)
    .where(admin_log.c.action == bindparam("action"), admin_log.c.subject == bindparam("subject"))
    .limit(1)
)
_EVER = 2**62


def record(tx: Tx, act: AdminAct) -> None:
    """A row that is never changed."""
    tx.run(_INSERT_ACT, **fields_of(act))


def act_by_id(tx: Tx, act_id: str) -> AdminAct | None:
    """One of them."""
    rows = as_structs(AdminAct, tx.rows(_ACT_BY_ID, id=act_id))
    return rows[0] if rows else None


def was_done(tx: Tx, action: str, subject: str) -> bool:
    """Whether an operator has done this to it, ever. Reads the whole log."""
    return tx.one(_WAS_DONE, action=action, subject=subject) is not None


def acts(tx: Tx, *, most: int, after: AdminAct | None = None) -> list[AdminAct]:
    """The newest first, or those that came before `after`."""
    at, act_id = (_EVER, "") if after is None else (after.at, after.id)
    return as_structs(AdminAct, tx.rows(_ACTS, at=at, id=act_id, most=most))
