"""Statements, refunds and the books over HTTP, of videos that simulated sellers made."""

import asyncio
import csv
import hashlib
import io
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio

from tests.whole.company import Company, Team, open_company, refused

pytestmark = pytest.mark.asyncio(loop_scope="module")

MONTH = f"{datetime.now(UTC):%Y-%m}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Company]:
    async with open_company(tmp_path_factory.mktemp("statements")) as company:
        yield company


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def team(shop: Company) -> Team:
    """Three videos, the first of which costs a cent more than it should."""
    team = await shop.found("films", "videos", "reports", markup="0.155")
    await asyncio.gather(
        bought(team, model="evolink/seedance-2.0", end_user_id="ann", resolution="480p"),
        bought(team, model="evolink/seedance-2.0", end_user_id="bob"),
        bought(team, model="runflow/seedance-2.0", prompt="[fault:dear]"),
    )
    return team


async def bought(team: Team, **order: Any) -> dict[str, Any]:
    made = await team.client.post("/v1/videos", json={"prompt": "a paper boat", **order})
    video: dict[str, Any] = made.raise_for_status().json()
    while video["status"] not in {"completed", "failed"}:
        await asyncio.sleep(0.05)
        video = (await team.client.get(f"/v1/videos/{video['id']}")).json()
    assert video["status"] == "completed", video
    return video


async def own(team: Team, form: str = "json") -> Any:
    answer = await team.client.get(f"/v1/statements/{MONTH}", params={"format": form})
    assert answer.status_code == 200, answer.text
    return answer.json() if form == "json" else answer


async def test_tenant_reads_its_draft_in_every_form(shop: Company, team: Team) -> None:
    draft = await own(team)
    assert (draft["final"], draft["tenant"], draft["month"], draft["charges"]) == (False, team.id, MONTH, 3)
    assert {line["end_user"] for line in draft["end_users"]} == {None, "ann", "bob"}
    spent = (await team.client.get("/v1/spend")).json()["data"][0]["charged_usd"]
    assert draft["exact_usd"] == spent
    page = await own(team, "html")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert draft["exact_usd"] in page.text
    rows = list(csv.DictReader(io.StringIO((await own(team, "csv")).text)))
    assert [row["amount_usd"] for row in rows if row["kind"] == "total"] == [draft["total_usd"]]
    charges = await own(team, "charges")
    assert charges.headers["content-type"] == "text/csv; charset=utf-8"
    assert hashlib.sha256(charges.content).hexdigest() == draft["charges_sha256"]
    theirs = await shop.client.get(f"/admin/statements/films/{MONTH}")
    assert {**theirs.json(), "made_at": ""} == {**draft, "made_at": ""}


async def test_refund_stands_on_the_statement_and_in_the_report(shop: Company, team: Team) -> None:
    video = await bought(team, end_user_id="cy", resolution="480p")
    before = await own(team)
    path = f"/admin/videos/{video['id']}/refunds"
    refused(await team.client.post(path, json={"amount_usd": "0.1", "reason": "x"}), 403, "permission_denied")
    refused(await shop.client.post(path, json={"amount_usd": "99", "reason": "x"}), 400, "invalid_value", "amount_usd")
    refused(await shop.client.post(path, json={"amount_usd": "0.1"}), 400, "missing_parameter", "reason")
    nothing = await shop.client.post("/admin/videos/video_1/refunds", json={"amount_usd": "1", "reason": "x"})
    refused(nothing, 404, "not_found")
    assert (await own(team))["exact_usd"] == before["exact_usd"]
    made = (await shop.client.post(path, json={"amount_usd": "0.1", "reason": "flickers"})).json()
    assert (made["object"], made["amount_usd"], made["charge"]) == ("refund", "0.100000", f"{video['id']}/1/post")
    again = await shop.client.get(f"/v1/videos/{video['id']}")
    assert again.status_code == 404, "an operator sees its own tenant's videos"
    shown = (await team.client.get(f"/v1/videos/{video['id']}")).json()
    assert shown["usage"]["refunded_usd"] == "0.100000"
    assert "refunded_usd" not in video["usage"]
    after = await own(team)
    assert [(line["amount_usd"], line["reason"]) for line in after["refunds"]] == [("-0.10", "flickers")]
    assert int(before["exact_usd"].replace(".", "")) - int(after["exact_usd"].replace(".", "")) == 100_000
    lines = (await team.client.get("/v1/spend", params={"group_by": "end_user"})).json()["data"]
    assert {line["end_user"]: line["refunded_usd"] for line in lines}["cy"] == "0.100000"
    [act] = (await shop.client.get("/admin/log", params={"limit": "1"})).json()["data"]
    before_it = (await shop.client.get("/admin/log", params={"after": act["id"]})).json()["data"]
    assert before_it
    assert act["id"] not in {one["id"] for one in before_it}
    refused(await shop.client.get("/admin/log?after=nothing"), 400, "invalid_value", "after")
    refused(await shop.client.get("/admin/log?befor=1"), 400, "unknown_parameter", "befor")
    key, wish = {"Idempotency-Key": "once"}, {"amount_usd": "0.000001", "reason": "flickers"}
    ids = {(await shop.client.post(path, json=wish, headers=key)).json()["id"] for _ in range(2)}
    assert len(ids) == 1
    assert (act["action"], act["subject"], act["after"]["amount_usd"]) == ("charge.refund", made["id"], "0.100000")


async def test_cost_that_is_not_the_sellers_price_is_listed(shop: Company, team: Team) -> None:
    assert team.id
    found = (await shop.client.get("/admin/differences")).json()["data"]
    [one] = [line for line in found if line["tenant"] == team.id]
    assert one["provider"] == "runflow"
    assert float(one["stated_usd"]) > float(one["expected_usd"]) > 0


async def test_month_that_is_not_over_cannot_be_closed(shop: Company, team: Team) -> None:
    refused(await shop.client.post(f"/admin/months/{MONTH}/close", json={}), 400, "invalid_value", "month")
    refused(await shop.client.post("/admin/months/soon/close", json={}), 400, "invalid_value", "month")
    refused(await team.client.post(f"/admin/months/{MONTH}/close", json={}), 403, "permission_denied")
    assert (await shop.client.get("/admin/months")).json() == {"object": "list", "data": []}
    for client, path in ((team.client, "/v1/statements"), (shop.client, "/admin/statements")):
        assert (await client.get(path)).json() == {"object": "list", "data": []}


async def test_month_before_all_spending_is_closed_without_a_statement(shop: Company) -> None:
    closed = await shop.client.post("/admin/months/2020-02/close", json={"reason": "a test"})
    assert closed.json() == {"object": "month.closed", "month": "2020-02", "statements": []}
    refused(await shop.client.post("/admin/months/2020-02/close", json={}), 400, "invalid_value", "month")
    [month] = (await shop.client.get("/admin/months")).json()["data"]
    assert month["month"] == "2020-02"


async def test_what_is_asked_of_a_statement_is_checked(shop: Company, team: Team) -> None:
    refused(await team.client.get("/v1/statements/now"), 400, "invalid_value", "month")
    refused(await team.client.get(f"/v1/statements/{MONTH}?format=pdf"), 400, "invalid_value", "format")
    refused(await team.client.get(f"/v1/statements/{MONTH}?form=html"), 400, "unknown_parameter", "form")
    refused(await team.client.get("/v1/statements/2020-02"), 404, "not_found")
    refused(await team.client.get(f"/admin/statements/films/{MONTH}"), 403, "permission_denied")
    refused(await shop.client.get(f"/admin/statements/nobody/{MONTH}"), 404, "not_found")
    refused(await shop.client.get("/admin/log?limit=0"), 400, "invalid_value", "limit")
    refused(await shop.client.get("/admin/differences?limit=x"), 400, "invalid_value", "limit")
