"""The panels that ask PostgreSQL say what `/v1/spend` says, with the rights of the runbook's role and no others."""

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
import pytest_asyncio

from tests.dashboards.test_pages import panels_of, read_page
from tests.databases import choose, whole_in
from tests.whole.company import Company, Team, open_company

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(400)]

ROLE = "reelay_grafana"
RUNBOOK = Path(__file__).parents[2] / "dashboards" / "RUNBOOK.md"
ORDERS: dict[str, list[dict[str, Any]]] = {
    "red": [
        {"model": "evolink/seedance-2.0", "end_user_id": "ann"},
        {"model": "shortapi/seedance-2.0", "end_user_id": "ann"},
        {"model": "runflow/seedance-2.0", "end_user_id": "bob"},
        {"end_user_id": "gone"},
        {},
    ],
    "blue": [{"end_user_id": "ann", "resolution": "480p"}],
}


class Sold(msgspec.Struct, kw_only=True):
    """Two tenants' films on PostgreSQL, and an address at which the role of the runbook reads."""

    company: Company
    teams: dict[str, Team]
    admin_url: str
    reader_url: str


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sold(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sold]:
    folder = tmp_path_factory.mktemp("sold")
    choose("postgresql", folder)
    async with open_company(folder) as company:
        teams = {name: await company.found(name, "videos", "reports", markup="0.155") for name in ORDERS}
        videos = {
            name: await asyncio.gather(*(_ended(team, order) for order in ORDERS[name])) for name, team in teams.items()
        }
        code, _, err = await company.cli("refund", videos["red"][0]["id"], "0.25", "--reason", "a flaw")
        assert code == 0, err
        code, _, err = await company.cli("tenants", "erase-end-user", "red", "gone")
        assert code == 0, err
        admin_url = str(whole_in(folder).place)
        # Roles are the whole server's, which others may use as well.
        role = f"{ROLE}_{uuid.uuid4().hex[:8]}"
        with psycopg.connect(admin_url, autocommit=True) as server:
            server.execute(role_sql().replace(ROLE, role).encode())
        user = re.sub(r"(?<=postgresql://)[^@]*(?=@)", role, admin_url)
        yield Sold(company=company, teams=teams, admin_url=admin_url, reader_url=user)
        with psycopg.connect(admin_url, autocommit=True) as server:
            server.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())


def role_sql() -> str:
    [sql] = re.findall(r"```sql\n\s*(CREATE ROLE .*?)```", RUNBOOK.read_text(), re.DOTALL)
    return str(sql)


async def _ended(team: Team, order: dict[str, Any]) -> dict[str, Any]:
    made = await team.client.post("/v1/videos", json={"prompt": "a paper boat", **order})
    video: dict[str, Any] = made.raise_for_status().json()
    while video["status"] not in {"completed", "failed"}:
        await asyncio.sleep(0.1)
        video = (await team.client.get(f"/v1/videos/{video['id']}")).json()
    assert video["status"] == "completed"
    return video


def statements() -> Iterator[tuple[str, str]]:
    for panel in panels_of(read_page("spend")):
        for target in panel["targets"]:
            if "rawSql" in target:
                yield panel["title"], target["rawSql"]


def asked(url: str, title: str, report: dict[str, Any], tenant: str = ".*") -> list[dict[str, Any]]:
    """The rows of a panel, over the time of a report; `tenant` as Grafana fills in what is chosen."""
    sql = dict(statements())[title]
    for macro, day in (("$__unixEpochFrom()", report["start"]), ("$__unixEpochTo()", report["end"])):
        sql = sql.replace(macro, str(int(datetime.fromisoformat(day).timestamp())))
    sql = sql.replace("${tenant:regex}", tenant)
    assert "$_" not in sql
    with psycopg.connect(url) as server:
        cursor = server.execute(sql.encode())
        names = [column.name for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


async def test_end_users_cost_what_the_report_of_their_tenant_says(sold: Sold) -> None:
    for team in sold.teams.values():
        report = (await team.client.get("/v1/spend", params={"group_by": "end_user"})).raise_for_status().json()
        rows = asked(sold.reader_url, "Spend by end user", report, tenant=team.id)
        assert {row["Tenant"] for row in rows} == {team.id}
        told = {
            "Videos": "videos",
            "Seconds": "seconds",
            "Charged": "charged_usd",
            "Refunded": "refunded_usd",
            "Taken by sellers": "seller_usd",
            "Absorbed": "absorbed_usd",
        }
        said = {
            line["end_user"]: {column: Decimal(line[name]) for column, name in told.items()} for line in report["data"]
        }
        assert {row["End user"]: {column: row[column] for column in told} for row in rows} == said
        assert len(said) == len({order.get("end_user_id") for order in ORDERS[team.name]})


async def test_all_tenants_are_told_and_one_or_several_can_be_chosen(sold: Sold) -> None:
    report = (await sold.company.client.get("/admin/reports/spend")).raise_for_status().json()
    red, blue = (sold.teams[name].id for name in ("red", "blue"))
    for chosen, wanted in ((".*", {red, blue}), (red, {red}), (f"({red}|{blue})", {red, blue}), ("other", set())):
        rows = asked(sold.reader_url, "Spend by end user", report, tenant=chosen)
        assert {row["Tenant"] for row in rows} == wanted
    charged = {
        tenant: sum(row["Charged"] for row in asked(sold.reader_url, "Spend by end user", report, tenant=tenant))
        for tenant in (red, blue)
    }
    assert charged == {line["tenant"]: Decimal(line["charged_usd"]) for line in report["data"]}
    assert any(
        str(row["End user"]).startswith("erased-") for row in asked(sold.reader_url, "Spend by end user", report)
    )


async def test_savings_are_those_of_the_report(sold: Sold) -> None:
    query = {"group_by": "tenant,rule,provider,outcome"}
    report = (await sold.company.client.get("/admin/reports/spend", params=query)).raise_for_status().json()
    rows = asked(sold.reader_url, "Savings by rule and provider", report)
    said = {
        (line["tenant"], line["rule"], line["provider"]): tuple(
            Decimal(line[name]) for name in ("charged_usd", "at_first_usd", "at_dearest_usd")
        )
        for line in report["data"]
        if line["outcome"] == "delivered"
    }
    columns = ("Charged", "At the first offer", "At the dearest")
    assert {(row["Tenant"], row["Rule"], row["Provider"]): tuple(row[name] for name in columns) for row in rows} == said
    assert all(row["Saved"] == row["At the dearest"] - row["Charged"] for row in rows)
    assert any(row["Saved"] > 0 for row in rows)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT prompt FROM videos",
        "SELECT digest FROM api_keys",
        "SELECT metadata FROM settlements",
        "DELETE FROM settlements",
        "UPDATE end_users SET name = 'x'",
        "CREATE TABLE mine (id text)",
    ],
)
async def test_role_of_the_runbook_sees_no_prompt_and_no_key_and_writes_nothing(sold: Sold, sql: str) -> None:
    with (
        psycopg.connect(sold.reader_url) as server,
        pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction)),
    ):
        server.execute(sql.encode())


async def test_role_of_the_runbook_cannot_write_where_it_allows_itself_to(sold: Sold) -> None:
    with psycopg.connect(sold.reader_url) as server:
        server.execute("SET TRANSACTION READ WRITE")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            server.execute("DELETE FROM settlements")
