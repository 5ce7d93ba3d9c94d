"""What was spent: by whom, on what, to the micro-dollar, and nobody sees another tenant's."""

import asyncio
import csv
import io
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from tests.whole.company import Company, Team, open_company, refused

pytestmark = pytest.mark.asyncio(loop_scope="module")

SUMS = [
    "charged_usd",
    "refunded_usd",
    "seller_usd",
    "assumed_usd",
    "markup_usd",
    "absorbed_usd",
    "at_first_usd",
    "at_dearest_usd",
    "held_usd",
]
COLUMNS = ["videos", "seconds", *SUMS, "unknown_costs"]

ORDERS: dict[str, list[dict[str, Any]]] = {
    "red": [
        {"model": "evolink/seedance-2.0", "end_user_id": "u-1", "metadata": {"team": "ads", "id": "7"}},
        {"model": "evolink/seedance-2.0", "end_user_id": "u-1", "resolution": "480p", "content_filter": False},
        {"model": "shortapi/seedance-2.0", "end_user_id": "u-2", "metadata": {"team": "web"}},
        {"model": "runflow/seedance-2.0", "resolution": "480p", "metadata": {"team": "ads"}},
        {"model": "fal/seedance-2.0", "end_user_id": "u-2", "resolution": "480p", "tier": "fast"},
        {"prompt": "[fault:moderation]", "end_user_id": "u-3"},
        {"prompt": "[fault:render_failed]", "end_user_id": "u-3", "resolution": "480p"},
    ],
    "blue": [{"model": "evolink/seedance-2.0", "end_user_id": "u-1", "tier": "mini", "resolution": "480p"}] * 2,
}
"""Of `red`, the sixth is refused and the seventh fails at three sellers; the rest are delivered."""


class Bought(msgspec.Struct):
    """Two tenants' videos, as they ended."""

    red: Team
    blue: Team
    videos: dict[str, list[dict[str, Any]]]
    jobs: list[dict[str, Any]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Company]:
    async with open_company(tmp_path_factory.mktemp("spend")) as company:
        yield company


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bought(shop: Company) -> Bought:
    red = await shop.found("red", "videos", "reports", markup="0.155", allow_filter_off=True)
    blue = await shop.found("blue", "videos", "reports")
    videos = {}
    for team in (red, blue):
        videos[team.name] = await asyncio.gather(*(_end(team, order) for order in ORDERS[team.name]))
    return Bought(red, blue, videos, await shop.books())


async def _end(team: Team, order: dict[str, Any]) -> dict[str, Any]:
    made = await team.client.post("/v1/videos", json={"prompt": "a paper boat", **order})
    video: dict[str, Any] = made.raise_for_status().json()
    while video["status"] not in {"completed", "failed"}:
        await asyncio.sleep(0.05)
        video = (await team.client.get(f"/v1/videos/{video['id']}")).json()
    return video


def micro(usd: str | None) -> int:
    assert usd is not None
    assert len(usd.partition(".")[2]) == 6, usd
    return int(Decimal(usd) * 1_000_000)


async def report(shop: Company, **query: Any) -> list[dict[str, Any]]:
    answer = await shop.client.get("/admin/reports/spend", params=query)
    assert answer.status_code == 200, answer.text
    lines: list[dict[str, Any]] = answer.json()["data"]
    return lines


async def test_totals_are_the_bills_and_what_sellers_took(shop: Company, bought: Bought) -> None:
    by_tenant = {line["tenant"]: line for line in await report(shop)}
    for team in (bought.red, bought.blue):
        line, videos = by_tenant[team.id], bought.videos[team.name]
        done = [video for video in videos if video["status"] == "completed"]
        assert line["videos"] == len(done)
        assert micro(line["charged_usd"]) == sum(micro(video["usage"]["cost_usd"]) for video in done)
        assert all(video["usage"]["cost_usd"] == "0.000000" for video in videos if video["status"] == "failed")
    paid = sum(job["charged_microusd"] - job["refunded_microusd"] for job in bought.jobs)
    assert sum(micro(line["seller_usd"]) for line in by_tenant.values()) == paid
    # red: 0.794 + 0.40436 + 0.96 + 0.5624 + 0.45 at the sellers, each with 15.5 % on top; blue: no markup.
    assert by_tenant[bought.red.id]["seller_usd"] == "3.170760"
    assert by_tenant[bought.red.id]["charged_usd"] == "3.662228"
    assert by_tenant[bought.blue.id]["charged_usd"] == by_tenant[bought.blue.id]["seller_usd"] == "0.300800"


async def test_charge_is_sellers_price_and_markup_less_what_was_absorbed(shop: Company, bought: Bought) -> None:
    for line in await report(shop, group_by="tenant,end_user,provider,model,day"):
        charged, seller, assumed, markup, absorbed = (
            micro(line[name]) for name in ("charged_usd", "seller_usd", "assumed_usd", "markup_usd", "absorbed_usd")
        )
        assert charged + absorbed == seller + markup, line
        states_its_cost = line["provider"] in {"runflow", "shortapi"}
        assert assumed == (0 if states_its_cost else seller), "two sellers name no dollars: their price list speaks"
    assert bought.jobs


@pytest.mark.parametrize(
    "groups",
    ["tenant", "end_user", "provider", "model", "day", "tenant,end_user", "provider,day", "end_user,tenant,model",
     "tenant,end_user,provider,model,day", "key", "tier", "rule", "operation", "resolution", "outcome", "month",
     "metadata.team", "metadata.nothing", "tenant,metadata.team,provider", "end_user,metadata.team", "day,rule,tier"],
)  # fmt: skip
async def test_groups_partition_the_whole(shop: Company, bought: Bought, groups: str) -> None:
    """An end user's name says little without its tenant's, so that is added where all tenants are reported."""
    assert bought.jobs
    answer = (await shop.client.get("/admin/reports/spend", params={"group_by": groups})).json()
    lines, names = answer["data"], answer["group_by"]
    added = "end_user" in groups and "tenant" not in groups
    assert names == ["tenant"] * added + groups.split(",")
    assert (answer["has_more"], answer["next"]) == (False, None)
    keys = [tuple(line[name] for name in names) for line in lines]
    assert len(set(keys)) == len(keys)
    assert all(set(line) == {*names, *COLUMNS} for line in lines)
    for column in SUMS:
        assert sum(micro(line[column]) for line in lines) == sum(micro(line[column]) for line in await report(shop))
    assert sum(line["videos"] for line in lines) == 7


async def test_end_users_and_providers_are_told_apart(shop: Company, bought: Bought) -> None:
    lines = await report(shop, group_by="end_user,provider", tenant=bought.red.id)
    videos = {(line["end_user"], line["provider"]): line["videos"] for line in lines if line["videos"]}
    assert videos == {
        ("u-1", "evolink"): 2, ("u-2", "shortapi"): 1, (None, "runflow"): 1, ("u-2", "fal"): 1,
    }  # fmt: skip
    of_blue = await report(shop, group_by="end_user", tenant=bought.blue.id)
    assert [(line["end_user"], line["videos"]) for line in of_blue] == [("u-1", 2)]


async def test_spend_is_told_by_the_clients_own_metadata(shop: Company, bought: Bought) -> None:
    lines = await report(shop, group_by="metadata.team", tenant=bought.red.id)
    assert [(line["metadata.team"], line["videos"], line["seller_usd"]) for line in lines] == [
        (None, 2, "0.854360"),
        ("ads", 2, "1.356400"),
        ("web", 1, "0.960000"),
    ]


async def test_every_way_to_group_tells_its_own_names(shop: Company, bought: Bought) -> None:
    async def told(group: str) -> dict[str | None, int]:
        lines = await report(shop, group_by=group, tenant=bought.red.id)
        return {line[group]: line["videos"] for line in lines}

    assert await told("tier") == {"standard": 4, "fast": 1}
    assert await told("resolution") == {"480p": 3, "720p": 2}
    assert await told("operation") == {"text-to-video": 5}
    assert await told("outcome") == {"delivered": 5}
    assert await told("month") == {f"{datetime.now(UTC):%Y-%m}": 5}
    [key] = await told("key")
    assert str(key).startswith("key_")


@pytest.mark.parametrize("groups", ["end_user", "tenant,day", "metadata.team", "provider,end_user", "metadata.id,day"])
async def test_pages_are_the_whole_cut_in_pieces(shop: Company, bought: Bought, groups: str) -> None:
    assert bought.jobs
    whole = await report(shop, group_by=groups)
    lines: list[dict[str, Any]] = []
    query, pages = {"group_by": groups, "limit": "1"}, 0
    while True:
        page = (await shop.client.get("/admin/reports/spend", params=query)).json()
        lines += page["data"]
        pages += 1
        assert page["has_more"] == (page["next"] is not None)
        if page["next"] is None:
            break
        query["after"] = page["next"]
    assert lines == whole
    assert pages > 1


async def test_csv_is_the_json(shop: Company, bought: Bought) -> None:
    query = {"group_by": "tenant,end_user,provider", "tenant": bought.red.id}
    answer = await shop.client.get("/admin/reports/spend", params={**query, "format": "csv"})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert list(rows[0]) == ["tenant", "end_user", "provider", *COLUMNS]
    lines = await report(shop, **query)
    assert rows == [{name: "" if value is None else str(value) for name, value in line.items()} for line in lines]


async def test_tenant_sees_its_own_spend_and_no_others(shop: Company, bought: Bought) -> None:
    for team, other in ((bought.red, bought.blue), (bought.blue, bought.red)):
        answer = await team.client.get("/v1/spend", params={"group_by": "tenant,end_user"})
        assert {line["tenant"] for line in answer.json()["data"]} == {team.id}
        assert other.id not in answer.text
        for name in (other.id, other.name):
            refused(await team.client.get("/v1/spend", params={"tenant": name}), 400, "unknown_parameter", "tenant")
        own = (await team.client.get("/v1/spend", params={"group_by": "end_user,provider"})).json()["data"]
        assert own == await report(shop, group_by="end_user,provider", tenant=team.id)
        refused(await team.client.get("/admin/reports/spend"), 403, "permission_denied")


async def test_days_bound_the_report(shop: Company, bought: Bought) -> None:
    today = datetime.now(UTC).date()
    tomorrow, yesterday = today + timedelta(days=1), today - timedelta(days=1)
    query = {"tenant": bought.blue.id, "group_by": "day"}
    assert [line["day"] for line in await report(shop, **query)] == [today.isoformat()]
    assert Counter(line["videos"] for line in await report(shop, start=today, end=tomorrow, **query)) == {2: 1}
    assert await report(shop, start=yesterday, end=today, **query) == []
    assert await report(shop, start=tomorrow, end=tomorrow + timedelta(days=9), **query) == []
    answer = (await shop.client.get("/admin/reports/spend", params={"start": str(today), "end": str(tomorrow)})).json()
    assert (answer["object"], answer["group_by"]) == ("spend_report", ["tenant"])
    assert (answer["start"][:10], answer["end"][:10]) == (today.isoformat(), tomorrow.isoformat())


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"group_by": "colour"}, "group_by"), ({"group_by": "tenant,tenant"}, "group_by"),
        ({"group_by": "tenant;drop table videos"}, "group_by"), ({"start": "yesterday"}, "start"),
        ({"start": "2026-02-30"}, "start"), ({"end": "2026-13-01"}, "end"), ({"start": "0000-01-01"}, "start"),
        ({"start": "2026-11-02", "end": "2026-11-02"}, "end"), ({"start": "2026-11-02", "end": "2026-11-01"}, "end"),
        ({"group_by": "metadata."}, "group_by"), ({"group_by": 'metadata.a"b'}, "group_by"),
        ({"group_by": "metadata.a,metadata.b"}, "group_by"), ({"limit": "0"}, "limit"), ({"limit": "x"}, "limit"),
        ({"limit": "10001"}, "limit"), ({"after": "nonsense"}, "after"), ({"after": "WyJhIiwiYiJd"}, "after"),
        ({"format": "csv", "limit": "5"}, "limit"), ({"format": "csv", "after": "x"}, "after"),
        ({"start": "20261101"}, "start"), ({"start": "2026-W45-1"}, "start"),
        ({"format": "xlsx"}, "format"), ({"format": ""}, "format"), ({"start": ""}, "start"), ({"end": ""}, "end"),
    ],
)  # fmt: skip
async def test_query_that_makes_no_sense_is_named(shop: Company, query: dict[str, str], param: str) -> None:
    for path in ("/v1/spend", "/admin/reports/spend"):
        refused(await shop.client.get(path, params=query), 400, "invalid_value", param)


async def test_misspelt_parameter_is_refused_and_the_right_one_told(shop: Company) -> None:
    for path in ("/v1/spend", "/admin/reports/spend"):
        answer = await shop.client.get(path, params={"groupby": "day"})
        refused(answer, 400, "unknown_parameter", "groupby")
        assert answer.json()["error"]["message"] == "Unknown parameter: 'groupby'. Did you mean 'group_by'?"


async def test_tenant_that_does_not_exist_is_not_found(shop: Company) -> None:
    refused(await shop.client.get("/admin/reports/spend", params={"tenant": "nobody"}), 404, "not_found")


async def test_tenant_may_be_named_by_its_name(shop: Company, bought: Bought) -> None:
    assert await report(shop, tenant="blue") == await report(shop, tenant=bought.blue.id)


@pytest.mark.parametrize("day", ["0001-01-01", "9999-12-31"])
async def test_days_at_the_ends_of_time_do_no_harm(shop: Company, day: str) -> None:
    start = await shop.client.get("/admin/reports/spend", params={"start": day})
    end = await shop.client.get("/admin/reports/spend", params={"start": "0001-01-01", "end": day})
    assert {start.status_code, end.status_code} <= {200, 400}


async def test_savings_are_against_the_first_and_the_dearest_seller(shop: Company, bought: Bought) -> None:
    """Each was pinned to its seller, which is the first of its plan and the only one."""
    assert bought.jobs
    [line] = await report(shop, group_by="rule")
    assert line["at_first_usd"] == line["at_dearest_usd"] == line["charged_usd"]
    saver = await shop.found("saver", "videos")
    free = await saver.client.post("/v1/videos/quote", json={"prompt": "a paper boat"})
    prices = [micro(one["price_usd"]) for one in free.json()["candidates"]]
    video = await _end(saver, {"metadata": {"team": "savers"}})
    lines = await report(shop, group_by="metadata.team", tenant=saver.id)
    [saved] = lines
    assert saved["metadata.team"] == "savers"
    assert saved["at_first_usd"] == saved["charged_usd"] == video["usage"]["cost_usd"]
    assert micro(saved["at_dearest_usd"]) == max(prices) > micro(saved["charged_usd"])
    await saver.client.delete(f"/v1/videos/{video['id']}")
    lines = await report(shop, group_by="metadata.team", tenant=saver.id)
    assert [(line["metadata.team"], line["videos"]) for line in lines] == [("savers", 1)], "whose cost it was stays"
