"""Tenants, keys, people, facts and the admins' log."""

from typing import Any

import pytest

from proxy.store import tenants
from proxy.store.base import Store, Tx
from proxy.store.tenants import AdminAct
from tests.databases import BROKEN
from tests.store.rows import AT, make_key, make_tenant

# Tenants


async def test_tenant_reads_back_as_it_was_written(store: Store) -> None:
    generous = make_tenant(
        id="t1", name="Studio", markup="0.15", allow_filter_off=True, require_end_user_id=True, created_at=AT + 1
    )
    await store.write(lambda tx: tenants.insert_tenant(tx, generous))
    for known_as in ("t1", "Studio"):
        assert await store.read(lambda tx, name=known_as: tenants.find_tenant(tx, name)) == generous  # type: ignore[misc]  # the default binds the loop's value
    assert await store.read(lambda tx: tenants.find_tenant(tx, "studio")) is None


async def test_tenants_are_told_from_the_oldest(store: Store) -> None:
    await store.write(lambda tx: tenants.insert_tenant(tx, make_tenant(id="t0", name="First", created_at=AT - 1)))
    assert [each.id for each in await store.read(tenants.all_tenants)] == ["t0", "acme", "other"]


async def test_name_belongs_to_one_tenant(store: Store) -> None:
    with pytest.raises(BROKEN):
        await store.write(lambda tx: tenants.insert_tenant(tx, make_tenant(id="t1", name="Acme")))
    assert await store.read(lambda tx: tenants.find_tenant(tx, "t1")) is None


async def test_saved_tenant_keeps_its_id_and_its_age(store: Store) -> None:
    changed = make_tenant(name="Acme Films", markup="0.2", allow_filter_off=True, created_at=5)
    await store.write(lambda tx: tenants.save_tenant(tx, changed))
    found = await store.read(lambda tx: tenants.find_tenant(tx, "acme"))
    assert found == make_tenant(name="Acme Films", markup="0.2", allow_filter_off=True)
    others = await store.read(lambda tx: tenants.find_tenant(tx, "other"))
    assert others == make_tenant(id="other", name="Other")


async def test_tenant_named_like_anothers_id_does_not_stand_in_for_it(store: Store) -> None:
    # A key made for "acme" must never go to somebody who chose that for a name.
    for number in range(5):
        await store.write(
            lambda tx, number=number: tenants.insert_tenant(tx, make_tenant(id=f"a{number}", name=f"t{number}"))  # type: ignore[misc]  # the default binds the loop's value
        )
    await store.write(lambda tx: tenants.insert_tenant(tx, make_tenant(id="0", name="acme", created_at=AT - 1)))
    await store.write(lambda tx: tenants.insert_tenant(tx, make_tenant(id="zz", name="a3", created_at=AT + 1)))
    for known_as in ("acme", "a3"):
        found = await store.read(lambda tx, name=known_as: tenants.find_tenant(tx, name))  # type: ignore[misc]  # the same
        assert found is not None
        assert found.id == known_as


# Keys


async def test_key_is_found_by_its_digest_with_its_tenant(store: Store) -> None:
    key = make_key(scopes="videos reports", expires_at=AT + 5)
    await store.write(lambda tx: tenants.insert_key(tx, key))
    assert await store.read_now(lambda tx: tenants.key_by_digest(tx, "d1")) == (key, make_tenant())
    assert await store.read_now(lambda tx: tenants.key_by_digest(tx, "d2")) is None


async def test_keys_are_told_of_one_tenant_or_all(store: Store) -> None:
    keys = [
        make_key(id="key_2", digest="d2", created_at=AT + 1),
        make_key(id="key_1", digest="d1"),
        make_key(id="key_3", digest="d3", tenant_id="other", created_at=AT + 2),
    ]
    for key in keys:
        await store.write(lambda tx, key=key: tenants.insert_key(tx, key))  # type: ignore[misc]  # the default binds the loop's value
    assert [each.id for each in await store.read(tenants.keys)] == ["key_1", "key_2", "key_3"]
    assert [each.id for each in await store.read(lambda tx: tenants.keys(tx, "acme"))] == ["key_1", "key_2"]


async def test_digest_belongs_to_one_key_and_a_key_to_a_tenant_that_exists(store: Store) -> None:
    await store.write(lambda tx: tenants.insert_key(tx, make_key()))
    for wrong in (make_key(id="key_2"), make_key(id="key_2", digest="d2", tenant_id="nobody")):
        with pytest.raises(BROKEN):
            await store.write(lambda tx, key=wrong: tenants.insert_key(tx, key))  # type: ignore[misc]  # the default binds the loop's value


async def test_key_is_revoked_once(store: Store) -> None:
    await store.write(lambda tx: tenants.insert_key(tx, make_key()))
    assert await store.write(lambda tx: tenants.revoke_key(tx, "key_1", at=AT + 1)) is True
    assert await store.write(lambda tx: tenants.revoke_key(tx, "key_1", at=AT + 2)) is False
    assert await store.write(lambda tx: tenants.revoke_key(tx, "key_9", at=AT + 2)) is False
    (key,) = await store.read(tenants.keys)
    assert key.revoked_at == AT + 1


async def test_last_use_of_a_key_is_kept(store: Store) -> None:
    await store.write(lambda tx: tenants.insert_key(tx, make_key()))
    await store.write(lambda tx: tenants.touch_key(tx, "key_1", at=AT + 9))
    (key,) = await store.read(tenants.keys)
    assert key.last_used_at == AT + 9


# People


async def test_person_has_one_surrogate_in_each_tenant(store: Store) -> None:
    await store.write(lambda tx: tenants.insert_end_user(tx, "acme", "ann", "eu_1"))
    await store.write(lambda tx: tenants.insert_end_user(tx, "other", "ann", "eu_2"))
    assert await store.read(lambda tx: tenants.surrogate_of(tx, "acme", "ann")) == "eu_1"
    assert await store.read(lambda tx: tenants.surrogate_of(tx, "other", "ann")) == "eu_2"
    assert await store.read(lambda tx: tenants.surrogate_of(tx, "acme", "bob")) is None
    assert await store.read(lambda tx: tenants.end_user_name(tx, "acme", "eu_1")) == "ann"
    assert await store.read(lambda tx: tenants.end_user_name(tx, "acme", "eu_2")) is None, "another tenant's"
    with pytest.raises(BROKEN):
        await store.write(lambda tx: tenants.insert_end_user(tx, "acme", "ann", "eu_3"))


# Facts


async def test_fact_is_set_once_and_for_all(store: Store) -> None:
    assert await store.read(lambda tx: tenants.fact(tx, "sandbox")) is None
    await store.write(lambda tx: tenants.set_fact(tx, "sandbox", "1"))
    with pytest.raises(BROKEN):
        await store.write(lambda tx: tenants.set_fact(tx, "sandbox", "0"))
    assert await store.read(lambda tx: tenants.fact(tx, "sandbox")) == "1"


async def test_fact_that_changes_is_put_and_dropped(store: Store) -> None:
    for value in ("1", "2"):
        await store.write(lambda tx, value=value: tenants.put_fact(tx, tenants.RESTORED_AT, value))  # type: ignore[misc]  # the default binds the loop's value
        assert await store.read(lambda tx: tenants.fact(tx, tenants.RESTORED_AT)) == value
    for _ in range(2):
        await store.write(lambda tx: tenants.drop_fact(tx, tenants.RESTORED_AT))
        assert await store.read(lambda tx: tenants.fact(tx, tenants.RESTORED_AT)) is None


async def test_name_behind_a_surrogate_is_emptied_once_and_free_again(store: Store) -> None:
    await store.write(lambda tx: tenants.insert_end_user(tx, "acme", "ann", "eu_1"))
    await store.write(lambda tx: tenants.insert_end_user(tx, "other", "ann", "eu_1"))
    assert await store.write(lambda tx: tenants.forget_name(tx, "acme", "eu_1")) is True
    assert await store.write(lambda tx: tenants.forget_name(tx, "acme", "eu_1")) is False
    assert await store.read(lambda tx: tenants.surrogate_of(tx, "acme", "ann")) is None
    assert await store.read(lambda tx: tenants.end_user_name(tx, "acme", "eu_1")) is None
    assert await store.read(lambda tx: tenants.surrogate_of(tx, "other", "ann")) == "eu_1"
    await store.write(lambda tx: tenants.insert_end_user(tx, "acme", "ann", "eu_2"))
    assert await store.write(lambda tx: tenants.forget_name(tx, "acme", "eu_2")) is True


# The log


def make_act(**fields: Any) -> AdminAct:
    defaults: dict[str, Any] = {"id": "act_1", "at": AT, "actor": "cli", "action": "key.create", "subject": "key_1"}
    return AdminAct(**defaults | fields)


async def test_log_tells_the_newest_first_even_within_one_moment(store: Store) -> None:
    acts = [make_act(id=f"act_{name}", at=AT + at) for name, at in (("b", 0), ("d", 0), ("a", 1), ("c", 0))]
    for act in acts:
        await store.write(lambda tx, act=act: tenants.record(tx, act))  # type: ignore[misc]  # the default binds the loop's value
    assert [each.id for each in await store.read(lambda tx: tenants.acts(tx, most=9))] == [
        "act_a",
        "act_d",
        "act_c",
        "act_b",
    ]
    assert len(await store.read(lambda tx: tenants.acts(tx, most=2))) == 2


async def test_act_reads_back_as_it_was_written(store: Store) -> None:
    act = make_act(before='{"a":1}', after=None, reason="asked for by mail")
    await store.write(lambda tx: tenants.record(tx, act))
    assert await store.read(lambda tx: tenants.acts(tx, most=1)) == [act]


async def test_oldest_tenants_are_told_in_order(store: Store) -> None:
    def newer(tx: Tx) -> None:
        for number in (3, 1, 2):
            tenants.insert_tenant(tx, make_tenant(id=f"t{number}", name=f"T{number}", created_at=AT + number))

    await store.write(newer)
    assert await store.read(lambda tx: tenants.oldest(tx, most=4)) == ["acme", "other", "t1", "t2"]
