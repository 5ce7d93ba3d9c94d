"""The operators' door: tenants, keys, providers, attempts; every change leaves a row that says who made it."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from proxy.store.tables import metadata
from tests.databases import whole_in
from tests.whole.company import Company, open_company, refused

pytestmark = pytest.mark.asyncio(loop_scope="module")


def _one_off(rules: dict[str, Any]) -> None:
    offers = rules["providers"]["fal"]["offers"]
    rules["providers"]["fal-old"] = {"adapter": "fal", "api_key": "${NO_SUCH_KEY}", "offers": offers}
    rules["providers"]["fal-closed"] = dict(rules["providers"]["fal"], enabled=False)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Company]:
    async with open_company(tmp_path_factory.mktemp("admin"), _one_off) as company:
        yield company


def log(shop: Company) -> list[dict[str, Any]]:
    """The admins' log, from the oldest."""
    names = ("actor", "action", "subject", "before", "after", "reason")
    rows = whole_in(shop.folder).rows(f"select {', '.join(names)} from admin_log order by at, id")  # noqa: S608  # the names stand above
    return [dict(zip(names, row, strict=True)) for row in rows]


async def test_tenant_is_made_and_changed_with_a_row_for_each(shop: Company) -> None:
    start = len(log(shop))
    body = {"name": "films", "markup": "0.15", "allow_filter_off": True, "reason": "a new team"}
    made = (await shop.client.post("/admin/tenants", json=body)).raise_for_status().json()
    assert made == {
        "object": "tenant", "id": made["id"], "name": "films", "markup": "0.15", "allow_filter_off": True,
        "require_end_user_id": False, "requests_per_minute": None, "videos_in_flight": None,
        "created_at": made["created_at"],
    }  # fmt: skip
    assert re.fullmatch("tenant_[0-9a-f]+", made["id"])
    change = {"markup": "0.2", "require_end_user_id": True, "reason": "dearer"}
    changed = (await shop.client.patch("/admin/tenants/films", json=change)).raise_for_status().json()
    assert changed == made | {"markup": "0.2", "require_end_user_id": True}
    assert (await shop.client.patch(f"/admin/tenants/{made['id']}", json={})).json() == changed
    assert changed in (await shop.client.get("/admin/tenants")).json()["data"]

    first, second, third = log(shop)[start:]
    assert (first["actor"], first["action"], first["subject"]) == ("bootstrap", "tenant.create", made["id"])
    assert (first["before"], first["reason"]) == (None, "a new team")
    assert json.loads(first["after"])["markup"] == "0.15"
    assert (second["action"], second["reason"]) == ("tenant.change", "dearer")
    assert (json.loads(second["before"])["markup"], json.loads(second["after"])["markup"]) == ("0.15", "0.2")
    assert third["before"] == third["after"]


BAD_TENANTS: dict[str, tuple[Any, str, str | None]] = {
    "no name": ({}, "invalid_value", "name"),
    "empty name": ({"name": " "}, "invalid_value", "name"),
    "name of no text": ({"name": 7}, "invalid_type", "name"),
    "name taken": ({"name": "default"}, "invalid_value", "name"),
    "name with NUL": ({"name": "a\0b"}, "invalid_value", "name"),
    "name without end": ({"name": "x" * 300}, "invalid_value", "name"),
    "reason without end": ({"name": "x1", "reason": "x" * 1001}, "invalid_value", "reason"),
    "markup in words": ({"name": "x1", "markup": "much"}, "invalid_value", "markup"),
    "markup below 0": ({"name": "x1", "markup": "-0.1"}, "invalid_value", "markup"),
    "markup beyond all": ({"name": "x1", "markup": "11"}, "invalid_value", "markup"),
    "markup not a number": ({"name": "x1", "markup": "NaN"}, "invalid_value", "markup"),
    "markup no text": ({"name": "x1", "markup": 0.15}, "invalid_type", "markup"),
    "right of no truth": ({"name": "x1", "allow_filter_off": "yes"}, "invalid_type", "allow_filter_off"),
    "field unknown": ({"name": "x1", "budget": 1}, "unknown_parameter", "budget"),
    "no object": (["x1"], "invalid_type", None),
}


@pytest.mark.parametrize("name", BAD_TENANTS)
async def test_bad_tenant_is_refused_and_leaves_no_row(shop: Company, name: str) -> None:
    body, code, param = BAD_TENANTS[name]
    before = log(shop), (await shop.client.get("/admin/tenants")).json()
    refused(await shop.client.post("/admin/tenants", json=body), 400, code, param)
    assert (log(shop), (await shop.client.get("/admin/tenants")).json()) == before


async def test_bad_change_is_refused_and_leaves_no_row(shop: Company) -> None:
    team = await shop.found("changeable")
    before = log(shop), (await shop.client.get("/admin/tenants")).json()
    for body, code, param in (
        ({"name": "default"}, "invalid_value", "name"),
        ({"name": ""}, "invalid_value", "name"),
        ({"name": " "}, "invalid_value", "name"),
        ({"markup": "1e3"}, "invalid_value", "markup"),
        ({"id": "tenant_0"}, "unknown_parameter", "id"),
    ):
        refused(await shop.client.patch(f"/admin/tenants/{team.id}", json=body), 400, code, param)
    refused(await shop.client.patch("/admin/tenants/nobody", json={}), 404, "not_found")
    assert (log(shop), (await shop.client.get("/admin/tenants")).json()) == before


async def test_body_that_cannot_be_read_is_refused(shop: Company) -> None:
    for path in ("/admin/tenants", "/admin/keys"):
        for content in (b"", b"{", b'{"name": "\xff"}', b"\0"):
            refused(await shop.client.post(path, content=content), 400, "invalid_value")
        refused(await shop.client.post(path, content=b"x" * 70_000), 413, "payload_too_large")


async def test_key_is_shown_once_and_opens_at_once(shop: Company) -> None:
    team = await shop.found("keyed")
    start = len(log(shop))
    body = {"tenant": "keyed", "name": "ci", "scopes": ["videos", "reports"], "reason": "for CI"}
    made = (await shop.client.post("/admin/keys", json=body)).raise_for_status().json()
    key = made.pop("key")
    assert re.fullmatch("rly_[0-9A-Za-z]{38}", key)
    assert made == {
        "object": "api_key", "id": made["id"], "tenant": team.id, "name": "ci", "last4": key[-4:],
        "scopes": ["videos", "reports"], "requests_per_minute": None, "videos_in_flight": None,
        "created_at": made["created_at"], "expires_at": None, "revoked_at": None, "last_used_at": None,
    }  # fmt: skip
    client = await shop.client_of(key)
    assert (await client.get("/v1/spend")).status_code == 200
    listed = await shop.client.get("/admin/keys", params={"tenant": "keyed"})
    assert [one["id"] for one in listed.json()["data"]][1:] == [made["id"]]
    everybodys = (await shop.client.get("/admin/keys")).text
    assert made["id"] in everybodys
    [row] = log(shop)[start:]
    assert (row["action"], row["subject"], row["reason"]) == ("key.create", made["id"], "for CI")
    stored = str([whole_in(shop.folder).rows(f"select * from {table}") for table in metadata.tables])  # noqa: S608  # the names are our own
    assert made["id"] in stored
    for text in (listed.text, everybodys, str(log(shop))):
        assert key not in text
    assert key not in stored


async def test_revoked_key_closes_within_seconds(shop: Company) -> None:
    team = await shop.found("leaving")
    made = (await shop.client.post("/admin/keys", json={"tenant": team.id})).json()
    client = await shop.client_of(made["key"])
    assert (await client.get("/v1/videos")).status_code == 200
    start = len(log(shop))
    gone = await shop.client.delete(f"/admin/keys/{made['id']}", params={"reason": "lost"})
    assert gone.json() == {"id": made["id"], "object": "api_key.revoked", "deleted": True}
    async with asyncio.timeout(8):
        while (await client.get("/v1/videos")).status_code != 401:
            await asyncio.sleep(0.2)  # a key that was believed stays so for five seconds
    refused(await client.get("/v1/videos"), 401, "invalid_api_key")
    refused(await shop.client.delete(f"/admin/keys/{made['id']}"), 404, "not_found")
    refused(await shop.client.delete("/admin/keys/key_0"), 404, "not_found")
    [row] = log(shop)[start:]
    assert (row["action"], row["subject"], row["reason"]) == ("key.revoke", made["id"], "lost")
    assert (await team.client.get("/v1/videos")).status_code == 200


async def test_erased_end_user_leaves_a_bill_and_no_name(shop: Company) -> None:
    team = await shop.found("caring", "videos", "reports")
    name = "Ann Öller/7"
    made = (await team.client.post("/v1/videos", json={"prompt": "a boat", "end_user_id": name})).json()
    other = (await team.client.post("/v1/videos", json={"prompt": "a boat", "end_user_id": "bob"})).json()
    async with asyncio.timeout(20):
        while (await team.client.get(f"/v1/videos/{made['id']}")).json()["status"] != "completed":
            await asyncio.sleep(0.05)
    start = len(log(shop))
    path = "/admin/tenants/caring/end_users/erase"
    refused(await team.client.post(path, json={"end_user_id": name}), 403, "permission_denied")
    refused(await shop.client.post(path, json={"end_user_id": "nobody"}), 404, "not_found", "end_user_id")
    refused(await shop.client.post(path, json={}), 400, "missing_parameter", "end_user_id")
    named = {"end_user_id": name, "reason": f"{name.upper()} asked for it"}
    refused(await shop.client.post(path, json=named), 400, "invalid_value", "reason")
    refused(
        await shop.client.post("/admin/tenants/nobody/end_users/erase", json={"end_user_id": name}), 404, "not_found"
    )
    assert len(log(shop)) == start

    wish = {"end_user_id": name, "reason": "a request by letter"}
    erased = (await shop.client.post(path, json=wish)).raise_for_status().json()
    assert erased == {"object": "end_user.erased", "tenant": team.id, "end_user": erased["end_user"], "videos": 1}
    refused(await team.client.get(f"/v1/videos/{made['id']}"), 404, "not_found")
    assert list((shop.folder / "data" / "videos").rglob(f"{made['id']}*")) == []
    assert (await team.client.get(f"/v1/videos/{other['id']}")).json()["end_user_id"] == "bob"
    [row] = log(shop)[start:]
    assert (row["action"], row["subject"]) == ("end_user.erase", f"{team.id}/{erased['end_user']}")
    assert (row["reason"], name in str(row)) == ("a request by letter", False)
    refused(await shop.client.post(path, json=wish), 404, "not_found", "end_user_id")
    spent = (await team.client.get("/v1/spend", params={"group_by": "end_user"})).json()["data"]
    assert {line["end_user"]: line["videos"] for line in spent}[f"erased-{erased['end_user']}"] == 1


BAD_KEYS: dict[str, tuple[dict[str, Any], int, str, str | None]] = {
    "no tenant": ({"scopes": ["videos"]}, 400, "missing_parameter", "tenant"),
    "tenant unknown": ({"tenant": "nobody"}, 404, "not_found", None),
    "no scope": ({"tenant": "default", "scopes": []}, 400, "invalid_value", "scopes"),
    "scope unknown": ({"tenant": "default", "scopes": ["all"]}, 400, "invalid_value", "scopes"),
    "scopes no list": ({"tenant": "default", "scopes": "videos"}, 400, "invalid_type", "scopes"),
    "name without end": ({"tenant": "default", "name": "x" * 300}, 400, "invalid_value", "name"),
    "name with NUL": ({"tenant": "default", "name": "a\0"}, 400, "invalid_value", "name"),
    "end in words": ({"tenant": "default", "expires_at": "soon"}, 400, "invalid_type", "expires_at"),
    "end beyond time": ({"tenant": "default", "expires_at": 10**15}, 400, "invalid_value", "expires_at"),
    "end before time": ({"tenant": "default", "expires_at": -(10**15)}, 400, "invalid_value", "expires_at"),
    "field unknown": ({"tenant": "default", "key": "rly_mine"}, 400, "unknown_parameter", "key"),
}


@pytest.mark.parametrize("name", BAD_KEYS)
async def test_bad_key_is_refused_and_leaves_no_row(shop: Company, name: str) -> None:
    body, status, code, param = BAD_KEYS[name]
    before = log(shop), (await shop.client.get("/admin/keys")).json()["data"]
    refused(await shop.client.post("/admin/keys", json=body), status, code, param)
    after = log(shop), (await shop.client.get("/admin/keys")).json()["data"]
    assert (after[0], [one["id"] for one in after[1]]) == (before[0], [one["id"] for one in before[1]])


async def test_who_did_it_is_the_key_that_did_it(shop: Company) -> None:
    made = (await shop.client.post("/admin/keys", json={"tenant": "default", "scopes": ["admin"]})).json()
    admin = await shop.client_of(made["key"])
    (await admin.post("/admin/tenants", json={"name": "by a colleague"})).raise_for_status()
    assert log(shop)[-1]["actor"] == made["id"]


async def test_admin_key_sees_its_own_tenants_videos_only(shop: Company) -> None:
    team = await shop.found("bossy", "videos", "admin")
    video = await shop.create("[fault:never_ends]", resolution="480p")
    refused(await team.client.get(f"/v1/videos/{video['id']}"), 404, "not_found", "video_id")
    assert (await team.client.get("/v1/videos")).json()["data"] == []
    await shop.client.delete(f"/v1/videos/{video['id']}")


async def test_providers_tell_how_they_do_and_why_they_are_off(shop: Company) -> None:
    before = {line["provider"]: line for line in (await shop.client.get("/admin/providers")).json()["data"]}
    assert {name: line["on"] for name, line in before.items()} == {
        "evolink": True, "shortapi": True, "fal": True, "runflow": True, "fal-old": False, "fal-closed": False,
    }  # fmt: skip
    assert "key" in before["fal-old"]["why_off"]
    assert "switched off" in before["fal-closed"]["why_off"]
    assert before["evolink"]["why_off"] is None
    await shop.ended((await shop.create(model="evolink/seedance-2.0", resolution="480p"))["id"])
    await shop.ended((await shop.create("[fault:render_failed]", model="runflow/seedance-2.0"))["id"])
    after = {line["provider"]: line for line in (await shop.client.get("/admin/providers")).json()["data"]}

    def grown(name: str) -> dict[str, int]:
        counts = ("attempts", "delivered", "failed", "unknown")
        return {count: after[name][count] - before[name][count] for count in counts}

    assert grown("evolink") == {"attempts": 1, "delivered": 1, "failed": 0, "unknown": 0}
    assert grown("runflow") == {"attempts": 1, "delivered": 0, "failed": 1, "unknown": 0}
    assert "play" not in str(after)


async def test_attempt_of_unknown_end_is_listed_with_what_it_may_cost(shop: Company) -> None:
    await shop.arm("shortapi", "reset_after")
    made = await shop.create("lost in between", model="shortapi/seedance-2.0")
    async with asyncio.timeout(15):
        while not (found := (await shop.client.get("/admin/attempts")).json()["data"]):
            await asyncio.sleep(0.1)
    [line] = found
    assert (line["video"], line["state"], line["provider"]) == (made["id"], "unknown", "shortapi")
    assert (line["possible_cost_usd"], line["cost_usd"], line["tenant"]) == ("0.960000", None, "default")
    [provider] = [
        line for line in (await shop.client.get("/admin/providers")).json()["data"] if line["provider"] == "shortapi"
    ]
    assert (provider["unknown_total"], provider["unknown_exposure_usd"]) == (1, "0.960000")
    done = (await shop.client.get("/admin/attempts", params={"state": "done", "limit": 1})).json()["data"]
    assert len(done) <= 1


async def test_attempt_of_unknown_end_is_resolved_and_its_video_goes_on(shop: Company) -> None:
    await shop.arm("shortapi", "reset_after")
    await shop.arm("shortapi", "cb_lost")  # a callback would name the order, and heal it
    made = await shop.create("lost again", routing={"order": ["shortapi", "evolink"]})
    listed = f"/admin/attempts/{made['id']}/1/resolve"
    await shop.until(made["id"], lambda video: [one["status"] for one in video["routing"]["attempts"]] == ["unknown"])
    start = len(log(shop))
    bad: list[tuple[dict[str, Any], str, str | None]] = [
        ({"bought": True}, "missing_parameter", "reason"),
        ({"reason": "x"}, "missing_parameter", "bought"),
        ({"bought": True, "reason": "x", "cost_usd": 0.96}, "invalid_type", "cost_usd"),
        ({"bought": True, "reason": "x", "cost_usd": "-0.96"}, "invalid_value", "cost_usd"),
        ({"bought": True, "reason": "x", "cost": "0.96"}, "unknown_parameter", "cost"),
        ({"bought": False, "reason": "x", "seller_id": "s"}, "invalid_value", "seller_id"),
    ]
    for body, code, param in bad:
        refused(await shop.client.post(listed, json=body), 400, code, param)
    finding = {"bought": False, "reason": "they know of no such order"}
    for path in (f"/admin/attempts/{made['id']}/2/resolve", "/admin/attempts/video_0/1/resolve"):
        refused(await shop.client.post(path, json=finding), 404, "not_found")
    for number in ("x", "1" * 5000):
        answer = await shop.client.post(f"/admin/attempts/{made['id']}/{number}/resolve", json=finding)
        assert answer.status_code == 404
    team = await shop.found("curious")
    refused(await team.client.post(listed, json=finding), 403, "permission_denied")
    assert len(log(shop)) == start + 2, "the tenant and its key"

    line = (await shop.client.post(listed, json=finding)).raise_for_status().json()
    assert (line["video"], line["attempt"], line["state"], line["cost_usd"]) == (made["id"], 1, "refused", "0.000000")
    ended = await shop.ended(made["id"])
    assert [(one["provider"], one["status"]) for one in ended["routing"]["attempts"]] == [
        ("shortapi", "refused"), ("evolink", "done"),
    ]  # fmt: skip
    row = log(shop)[-1]
    assert (row["action"], row["subject"]) == ("attempt.resolve", f"{made['id']}/1")
    assert (json.loads(row["before"])["state"], json.loads(row["after"])["state"]) == ("unknown", "refused")
    message = refused(await shop.client.post(listed, json=finding), 400, "invalid_value")
    assert "This attempt is refused" in message


@pytest.mark.parametrize(
    ("query", "param"),
    [({"state": "odd"}, "state"), ({"state": ""}, "state"), ({"limit": "0"}, "limit"), ({"limit": "1001"}, "limit"),
     ({"limit": "x"}, "limit"), ({"limit": "9" * 5000}, "limit")],
)  # fmt: skip
async def test_query_that_makes_no_sense_is_named(shop: Company, query: dict[str, str], param: str) -> None:
    refused(await shop.client.get("/admin/attempts", params=query), 400, "invalid_value", param)
    refused(await shop.client.get("/admin/keys", params={"tenant": "nobody"}), 404, "not_found")
