"""The verbs of the command line beside a server that has the database open."""

import asyncio
import csv
import io
import json
from collections import defaultdict
from typing import Any

import httpx

from proxy.core.clock import iso
from proxy.core.money import usd_text
from tests.databases import whole_in
from tests.whole.stage import Stage


async def said(stage: Stage, *arguments: str) -> str:
    code, out, err = await stage.cli(*arguments)
    # Beside the answer stands nothing but what it has changed.
    assert (code, [line for line in err.splitlines() if json.loads(line)["level"] != "info"]) == (0, []), err
    return out


async def test_operator_runs_the_house_beside_the_server(stage: Stage) -> None:
    await stage.start_sellers()
    stage.write_rules()
    await stage.start_server()
    assert (
        "routing_rules.yaml: 1 rules, 9 offers, 1 models; providers on: evolink, shortapi, fal, runflow"
        in await said(stage, "check")
    )

    tenant = (await said(stage, "tenants", "create", "films", "--markup", "0.10", "--reason", "a new team")).strip()
    assert tenant.startswith("tenant_")
    assert "changed" in await said(stage, "tenants", "change", "films", "--allow-filter-off")
    listed = json.loads(await said(stage, "tenants", "list", "--json"))
    assert [(one["name"], one["markup"], one["allow_filter_off"]) for one in listed] == [
        ("default", "0", True),
        ("films", "0.10", True),
    ]
    key = (await said(stage, "keys", "create", "--tenant", "films", "--scope", "videos", "--scope", "reports")).strip()
    listed_keys = await said(stage, "keys", "list", "--tenant", "films", "--json")
    keys = json.loads(listed_keys)
    assert [(one["last4"], one["scopes"]) for one in keys] == [(key[-4:], ["videos", "reports"])]
    assert key not in listed_keys

    await _spend_something(stage, key)
    await _reports_equal_the_ledger(stage, key, tenant)

    unknown = json.loads(await said(stage, "attempts", "list", "--json"))
    assert [(one["provider"], one["state"], one["possible_cost_usd"]) for one in unknown] == [
        ("shortapi", "unknown", "0.960000")
    ]
    assert (await said(stage, "attempts", "list", "--state", "lost")).strip() == "none"
    video = unknown[0]["video"]
    resolving = ("attempts", "resolve", video, "1", "--bought", "--cost-usd", "0.96", "--reason", "their invoice 7")
    assert f"Attempt 1 of {video} is failed, at a cost of $0.960000" in await said(stage, *resolving)
    assert (await stage.ended(video))["error"]["code"] == "provider_error", "pinned to one provider, it is over"
    code, _, err = await stage.cli(*resolving)
    assert (code, err.count("\n")) == (2, 1)
    assert "This attempt is failed" in err

    assert "revoked" in await said(stage, "keys", "revoke", keys[0]["id"])
    code, _, err = await stage.cli("keys", "revoke", keys[0]["id"])
    assert (code, err.count("\n")) == (2, 1)
    async with asyncio.timeout(10), _client(stage, key) as client:
        while (await client.get("/v1/models")).status_code != 401:
            await asyncio.sleep(0.2)
    acts = whole_in(stage.folder).rows("SELECT actor, action, reason FROM admin_log ORDER BY at")
    assert acts == [
        ("cli", "tenant.create", "a new team"),
        ("cli", "tenant.change", None),
        ("cli", "key.create", None),
        ("cli", "attempt.resolve", "their invoice 7"),
        ("cli", "key.revoke", None),
    ]


def _client(stage: Stage, key: str) -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {key}"}
    return httpx.AsyncClient(base_url=stage.server.origin, headers=headers, trust_env=False, timeout=30)


async def _spend_something(stage: Stage, key: str) -> None:
    """Two tenants, three end users, four providers; a render that fails first, and an order of unknown end."""
    orders: list[tuple[str, dict[str, Any]]] = [
        (key, {"model": "evolink/seedance-2.0", "end_user_id": "ann"}),
        (key, {"model": "runflow/seedance-2.0", "end_user_id": "bob"}),
        (key, {"model": "fal/seedance-2.0", "end_user_id": "ann", "seconds": 5}),
        ("a-bootstrap-key-for-tests", {"model": "shortapi/seedance-2.0"}),
        ("a-bootstrap-key-for-tests", {"prompt": "[fault:render_failed@evolink]", "end_user_id": "cy"}),
    ]
    made = []
    for who, order in orders:
        async with _client(stage, who) as client:
            made.append((await client.post("/v1/videos", json={"prompt": "a boat", **order})).raise_for_status().json())
    for (who, _), video in zip(orders, made, strict=True):
        async with asyncio.timeout(40), _client(stage, who) as client:
            while (now := (await client.get(f"/v1/videos/{video['id']}")).json())["status"] != "completed":
                assert now["status"] != "failed", now
                await asyncio.sleep(0.05)
    await stage.arm("shortapi", "reset_after")
    await stage.arm("shortapi", "cb_lost")  # a callback would name the order, and heal it
    lost = await stage.create(model="shortapi/seedance-2.0")
    await stage.until(lost["id"], _is_unknown)


def _is_unknown(video: dict[str, Any]) -> bool:
    return [attempt["status"] for attempt in video["routing"]["attempts"]] == ["unknown"]


def _ledger(stage: Stage, key: str) -> dict[Any, dict[str, int]]:
    """What the postings say, asked of the file itself."""
    columns = {"tenant": "t.tenant_id", "provider": "t.provider", "end_user": "u.name", "day": "t.at"}
    query = f"""
        SELECT {columns[key]}, p.account, p.amount_microusd FROM ledger_postings p
        JOIN ledger_transactions t ON t.id = p.transaction_id
        LEFT JOIN end_users u ON u.tenant_id = t.tenant_id AND u.surrogate = t.end_user
        WHERE t.kind IN ('post', 'bill', 'absorb')
    """  # noqa: S608  # the columns stand above
    sums: dict[Any, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for value, account, amount in whole_in(stage.folder).rows(query):
        group = iso(value)[:10] if key == "day" else value
        if account.endswith(":spend"):
            sums[group]["charged_usd"] += amount
        elif account.endswith(":payable"):
            sums[group]["seller_usd"] -= amount
        elif account.startswith("absorbed:"):
            sums[group]["absorbed_usd"] += amount
    return sums


async def _reports_equal_the_ledger(stage: Stage, key: str, tenant: str) -> None:
    groups = ("tenant", "provider", "end_user", "day")
    reports = [said(stage, "report", "spend", "--by", group, "--format", "json") for group in groups]
    for group, printed in zip(groups, await asyncio.gather(*reports), strict=True):
        report = json.loads(printed)
        told = {line[group]: line for line in report["data"] if line["charged_usd"] != "0.000000" or line["videos"]}
        booked = {name: sums for name, sums in _ledger(stage, group).items() if any(sums.values())}
        assert set(told) == set(booked), group
        for name, sums in booked.items():
            for column in ("charged_usd", "seller_usd", "absorbed_usd"):
                assert told[name][column] == usd_text(sums[column]), (group, name, column)
    assert sum(_ledger(stage, "tenant")[tenant].values()) > 0

    by_model = await said(stage, "report", "spend", "--by", "tenant,model", "--tenant", "films", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(by_model)))
    assert [(row["tenant"], row["model"], row["videos"]) for row in rows] == [(tenant, "seedance-2.0", "3")]
    table = await said(stage, "report", "spend", "--by", "provider")
    assert table.split()[:2] == ["provider", "videos"]
    async with _client(stage, key) as client:
        own = (await client.get("/v1/spend", params={"group_by": "tenant,model"})).json()["data"]
    assert [{name: str(value) for name, value in line.items()} for line in own] == rows


async def test_sellers_that_cannot_be_started_are_one_line(stage: Stage) -> None:
    await stage.start_sellers()
    stage.environment = {}
    port = stage.sellers.origin.rpartition(":")[2]
    code, out, err = await stage.cli("sandbox", "--port", port)
    assert (code, out) == (2, "")
    assert err.startswith(f"reelay: the sellers cannot be started at 127.0.0.1:{port}")
    assert err.count("\n") == 1
