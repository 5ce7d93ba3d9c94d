"""Budgets through HTTP: exact among many who ask at once, never passed, and given back what was not spent."""

import asyncio
import time
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
import pytest_asyncio

from tests.databases import WHOLE_ENGINE, whole_in
from tests.whole.company import Company, Team, open_company, refused
from tests.whole.scenes import check_the_ledger, metric, rule
from tests.whole.stage import Process

pytestmark = pytest.mark.asyncio(loop_scope="module")

PRICE = Decimal("0.794")
"""USD for the 4 seconds of 720p at the cheapest seller, of which the hold is as much."""
DEAR = Decimal("1.2136")
"""The same at the dearest."""
BODY = {"prompt": "a paper boat", "metadata": {"rule": "plain"}}


def with_rules(rules: dict[str, Any]) -> None:
    small = {"resolution_at_most": "480p", "downgrade": True, "strategy": "cheapest"}
    rules["rules"] = [
        rule("plain", {"metadata.rule": "plain"}, strategy="cheapest", fallback={"max_attempts": 1}),
        rule("thrifty", {"metadata.rule": "thrift", "budget_used": {"min": 0.5}}, **small),
        rule("any", {"metadata.rule": "any"}, strategy={"ordered": ["fal", "evolink"]}),
        rule(
            "billed",
            {"metadata.rule": "billed"},
            strategy={"ordered": ["evolink", "shortapi"]},
            bill_failed_attempts=True,
        ),
        rule("default", strategy="cheapest"),
    ]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Company]:
    async with open_company(tmp_path_factory.mktemp("budgets"), with_rules) as company:
        yield company
        check_the_ledger(company.folder)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def second(shop: Company) -> Process | None:
    """Another server on the same database, where the engine allows it."""
    return await shop.start_beside("serve") if WHOLE_ENGINE == "postgresql" else None


async def allot(shop: Company, team: Team, limit: Decimal | str, period: str = "month", **wish: Any) -> dict[str, Any]:
    body = {"tenant": team.id, "limit_usd": str(limit), "period": period, **wish}
    made: dict[str, Any] = (await shop.client.post("/admin/budgets", json=body)).raise_for_status().json()
    return made


async def standing(shop: Company, team: Team) -> dict[str, Any]:
    """Of the team's only budget."""
    [found] = (await shop.client.get("/admin/budgets", params={"tenant": team.id})).raise_for_status().json()["data"]
    return dict(found)


async def create(team: Team, body: dict[str, Any] = BODY, **fields: Any) -> dict[str, Any]:
    answer = await team.client.post("/v1/videos", json=body | fields)
    assert answer.status_code == 200, answer.text
    video: dict[str, Any] = answer.json()
    return video


async def denied(team: Team, body: dict[str, Any] = BODY, **fields: Any) -> str:
    answer = await team.client.post("/v1/videos", json=body | fields)
    assert answer.headers["x-should-retry"] == "false"
    return refused(answer, 429, "insufficient_quota", None)


async def settled(team: Team, video_id: str) -> dict[str, Any]:
    async with asyncio.timeout(40):
        while (video := (await team.client.get(f"/v1/videos/{video_id}")).json())["status"] not in {
            "completed",
            "failed",
        }:
            await asyncio.sleep(0.05)
    return dict(video)


def used(budget: dict[str, Any]) -> Decimal:
    return Decimal(budget["used_usd"])


def counters_are_true(shop: Company, team: Team) -> None:
    """Every counter of a team says what its videos say."""
    database = whole_in(shop.folder)
    for whose, subject, begins_at, counted in database.rows(
        "select whose, subject, begins_at, used_microusd from budget_counters where tenant_id = ?", team.id
    ):
        which = {"tenant": "1 = 1", "key": "key_id = ?", "end_user": "coalesce(end_user, '') = ?"}[whose]
        values = () if whose == "tenant" else (subject,)
        spends = "sum(case when hold = 'held' then hold_microusd else coalesce(charged_microusd, 0) end)"
        query = f"select coalesce({spends}, 0) from videos where tenant_id = ? and created_at >= ? and {which}"  # noqa: S608 - of words above
        [(spent,)] = database.rows(query, team.id, begins_at, *values)
        assert counted == spent, (whose, subject)


# Exact


async def test_of_two_hundred_who_ask_at_once_as_many_are_accepted_as_the_budget_fits(
    shop: Company, second: Process | None
) -> None:
    team = await shop.found("crowd")
    await allot(shop, team, 37 * PRICE + Decimal("0.5"))
    doors = [shop.server.origin, second.origin if second is not None else shop.server.origin]
    answers = await asyncio.gather(
        *(team.client.post(f"{doors[number % 2]}/v1/videos", json=BODY) for number in range(200))
    )
    assert sorted(answer.status_code for answer in answers) == [200] * 37 + [429] * 163
    for answer in answers:
        if answer.status_code == 429:
            assert "this month's budget of this tenant leaves" in refused(answer, 429, "insufficient_quota", None)
    counters_are_true(shop, team)
    assert used(await standing(shop, team)) <= 37 * PRICE
    for answer in answers:
        if answer.status_code == 200:
            assert (await settled(team, answer.json()["id"]))["status"] == "completed"
    assert used(await standing(shop, team)) == 37 * PRICE
    counters_are_true(shop, team)


async def test_budget_is_kept_to_the_micro_dollar(shop: Company) -> None:
    team = await shop.found("exact")
    budget = await allot(shop, team, 2 * PRICE - Decimal("0.000001"))
    await create(team)
    message = await denied(team)
    assert message == (
        "this month's budget of this tenant leaves $0.793999; the cheapest way to make this holds $0.794000"
    )
    await shop.client.patch(f"/admin/budgets/{budget['id']}", json={"limit_usd": str(2 * PRICE)})
    await create(team)
    await denied(team)


# What is given back


async def test_hold_of_a_video_that_failed_is_free_again(shop: Company) -> None:
    team = await shop.found("refused")
    await allot(shop, team, PRICE)
    video = await create(team, prompt="[fault:moderation_late@evolink]")
    assert used(await standing(shop, team)) == PRICE
    await denied(team)
    assert (await settled(team, video["id"]))["status"] == "failed"
    assert used(await standing(shop, team)) == 0
    counters_are_true(shop, team)
    await create(team)


async def test_hold_of_a_video_cancelled_before_anything_was_sent_is_free_again(shop: Company) -> None:
    team = await shop.found("cancelled")
    await allot(shop, team, PRICE)
    await shop.arm("evolink", "throttled", count=1)
    video = await create(team)
    cancelled = await team.client.post(f"/v1/videos/{video['id']}/cancel")
    assert cancelled.json()["status"] == "failed"
    async with asyncio.timeout(40):
        while used(await standing(shop, team)):
            await asyncio.sleep(0.05)
    counters_are_true(shop, team)


async def test_charge_below_the_hold_frees_the_rest(shop: Company) -> None:
    team = await shop.found("any")
    await allot(shop, team, "10")
    video = await create(team, metadata={"rule": "any"}, prompt="[fault:no_credit@fal]")
    assert used(await standing(shop, team)) == DEAR
    video = await settled(team, video["id"])
    assert video["routing"]["provider"] == "evolink"
    assert used(await standing(shop, team)) == Decimal(video["usage"]["cost_usd"]) == PRICE


# Whose


async def test_all_that_apply_must_pass(shop: Company) -> None:
    team = await shop.found("several")
    key = (await shop.client.get("/admin/keys", params={"tenant": team.id})).json()["data"][0]["id"]
    await allot(shop, team, 5 * PRICE)
    await allot(shop, team, 4 * PRICE, "day")
    await allot(shop, team, 3 * PRICE, scope="key", key=key)
    await allot(shop, team, 2 * PRICE, scope="end_user", end_user_id="ann")
    other = await shop.client_of(await shop.new_key(team.id))
    for _ in range(2):
        await create(team, end_user_id="ann")
    assert "of this end user" in await denied(team, end_user_id="ann")
    await create(team)
    assert "of this key" in await denied(team)
    assert (await other.post("/v1/videos", json=BODY)).status_code == 200
    last = await other.post("/v1/videos", json=BODY)
    assert "today's budget of this tenant" in refused(last, 429, "insufficient_quota")
    counters_are_true(shop, team)


async def test_each_end_user_has_as_much_and_one_with_a_budget_of_its_own_has_that(shop: Company) -> None:
    team = await shop.found("each")
    await allot(shop, team, PRICE, scope="each_end_user")
    await allot(shop, team, 2 * PRICE, scope="end_user", end_user_id="ann")
    await allot(shop, team, "0", scope="no_end_user")
    for name, many in (("ann", 2), ("bob", 1), ("cleo", 1)):
        for _ in range(many):
            await create(team, end_user_id=name)
        await denied(team, end_user_id=name)
    assert "for requests without an end user" in await denied(team)
    counters_are_true(shop, team)


async def test_new_budget_finds_what_was_spent_before_it(shop: Company) -> None:
    team = await shop.found("late")
    for _ in range(2):
        await settled(team, (await create(team, end_user_id="ann"))["id"])
    await create(team)
    made = await allot(shop, team, 4 * PRICE, "total")
    assert (used(made), made["left_usd"]) == (3 * PRICE, f"{PRICE:.6f}")
    users = await allot(shop, team, 3 * PRICE, scope="end_user", end_user_id="ann")
    assert used(users) == 2 * PRICE
    await create(team, end_user_id="ann")
    await denied(team, end_user_id="ann")
    counters_are_true(shop, team)


async def test_budget_that_is_made_again_finds_what_was_spent_without_it(shop: Company) -> None:
    team = await shop.found("again")
    for scope in ({}, {"scope": "each_end_user"}):
        budget = await allot(shop, team, 9 * PRICE, **scope)
        await create(team, end_user_id="ann")
        await shop.client.delete(f"/admin/budgets/{budget['id']}")
        counters_are_true(shop, team)
    await create(team, end_user_id="ann")
    assert used(await allot(shop, team, 9 * PRICE)) == 3 * PRICE
    await allot(shop, team, 4 * PRICE, scope="each_end_user")
    await create(team, end_user_id="ann")
    await denied(team, end_user_id="ann")
    counters_are_true(shop, team)


# Beside refusing


async def test_offer_that_does_not_fit_is_left_out_and_a_cheaper_one_is_asked(shop: Company) -> None:
    team = await shop.found("cheaper")
    await allot(shop, team, "1")
    quoted = (await team.client.post("/v1/videos/quote", json=BODY | {"metadata": {"rule": "any"}})).json()
    assert [one["provider"] for one in quoted["candidates"]] == ["evolink"]
    fal = [one for one in quoted["excluded"] if one["provider"] == "fal" and one["reason"] == "over_budget"]
    assert fal[0]["detail"] == "holds $1.213600; the budget leaves $1.000000"
    assert quoted["budget"] == {"left_usd": "1.000000", "left_after_usd": "0.206000"}
    video = await create(team, metadata={"rule": "any"})
    assert (await settled(team, video["id"]))["routing"]["provider"] == "evolink"


async def test_attempts_that_may_each_be_billed_fit_together(shop: Company) -> None:
    team = await shop.found("billed")
    await allot(shop, team, "1")
    quoted = (await team.client.post("/v1/videos/quote", json=BODY | {"metadata": {"rule": "billed"}})).json()
    assert [one["provider"] for one in quoted["candidates"]] == ["evolink"]
    assert quoted["hold_usd"] == "0.794000"
    assert [one["provider"] for one in quoted["excluded"] if one["reason"] == "over_budget"] == ["shortapi"]


async def test_rule_moves_a_tenant_to_cheaper_video_before_it_is_refused(shop: Company) -> None:
    team = await shop.found("thrifty")
    await allot(shop, team, 5 * PRICE)
    thrift: dict[str, Any] = {"metadata": {"rule": "thrift"}, "resolution": "720p"}
    first, second = [await create(team, **thrift) for _ in range(2)]
    assert [video["resolution"] for video in (first, second)] == ["720p", "720p"]
    third = await create(team, **thrift)
    assert (third["routing"]["rule"], third["resolution"]) == ("thrifty", "480p")
    assert third["routing"]["changed"] == {"resolution": {"asked": "720p", "given": "480p"}}


async def test_shadow_counts_and_tells_and_refuses_nothing(shop: Company) -> None:
    team = await shop.found("shadow")
    budget = await allot(shop, team, PRICE, shadow=True)
    for _ in range(3):
        await create(team)
    assert used(await standing(shop, team)) == 3 * PRICE
    text = (await shop.client.get("/metrics")).text
    assert metric(text, "reelay_budget_shadow_rejections_total", tenant=team.id, reason="tenant_month") == 2
    quoted = (await team.client.post("/v1/videos/quote", json=BODY)).json()
    assert quoted["budget"] is None
    await shop.client.patch(f"/admin/budgets/{budget['id']}", json={"shadow": False})
    await denied(team)


async def test_warning_is_told_once_for_each_share(shop: Company) -> None:
    team = await shop.found("warned")
    await allot(shop, team, 4 * PRICE, warn_at=["0.9", "0.5"])
    for _ in range(4):
        await create(team)
    await denied(team)
    text = (await shop.client.get("/metrics")).text
    assert metric(text, "reelay_budget_warnings_total", tenant=team.id, reason="tenant_month") == 2
    assert metric(text, "reelay_budget_rejections_total", tenant=team.id, reason="tenant_month") == 1


async def test_raise_lets_more_through_until_it_ends(shop: Company) -> None:
    team = await shop.found("raised")
    budget = await allot(shop, team, PRICE)
    await create(team)
    await denied(team)
    path = f"/admin/budgets/{budget['id']}"
    raised = await shop.client.patch(path, json={"raise_usd": str(PRICE), "raise_until": int(time.time()) + 3600})
    assert (raised.json()["raise_usd"], raised.json()["left_usd"]) == (f"{PRICE:.6f}", f"{PRICE:.6f}")
    await create(team)
    await denied(team)
    over = await shop.client.patch(path, json={"raise_usd": str(PRICE), "raise_until": int(time.time()) - 1})
    assert over.json()["raise_usd"] is None


async def test_budget_that_is_removed_bounds_nothing_any_more(shop: Company) -> None:
    team = await shop.found("removed")
    budget = await allot(shop, team, "0")
    await denied(team)
    gone = await shop.client.delete(f"/admin/budgets/{budget['id']}", params={"reason": "a mistake"})
    assert gone.json() == {"object": "budget.removed", "id": budget["id"], "removed": True}
    await create(team)


# Operators


async def test_every_change_leaves_a_row(shop: Company) -> None:
    team = await shop.found("logged")
    budget = await allot(shop, team, "5", reason="a start")
    await shop.client.patch(f"/admin/budgets/{budget['id']}", json={"limit_usd": "6", "reason": "more"})
    await shop.client.delete(f"/admin/budgets/{budget['id']}", params={"reason": "enough"})
    query = "select action, reason from admin_log where subject = ? order by at"
    kept = whole_in(shop.folder).rows(query, budget["id"])
    assert kept == [("budget.create", "a start"), ("budget.change", "more"), ("budget.remove", "enough")]


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"limit_usd": "-1"}, "invalid_value", "limit_usd"),
    ({"limit_usd": "0.0000001"}, "invalid_value", "limit_usd"),
    ({"limit_usd": "1000000001"}, "invalid_value", "limit_usd"),
    ({"limit_usd": "a lot"}, "invalid_value", "limit_usd"),
    ({"limit_usd": 5}, "invalid_type", "limit_usd"),
    ({"period": "week"}, "invalid_value", "period"),
    ({"scope": "team"}, "invalid_value", "scope"),
    ({"scope": "key"}, "missing_parameter", "key"),
    ({"scope": "key", "key": "key_of_nobody"}, "not_found", "key"),
    ({"key": "key_1"}, "invalid_value", "key"),
    ({"scope": "end_user"}, "missing_parameter", "end_user_id"),
    ({"scope": "end_user", "end_user_id": "x" * 129}, "invalid_value", "end_user_id"),
    ({"scope": "each_end_user", "end_user_id": "ann"}, "invalid_value", "end_user_id"),
    ({"warn_at": ["1.5"]}, "invalid_value", "warn_at"),
    ({"warn_at": ["0"]}, "invalid_value", "warn_at"),
    ({"tenant": "nobody"}, "not_found", "tenant"),
    ({"limit": "5"}, "unknown_parameter", "limit"),
    ({"reason": "x" * 1001}, "invalid_value", "reason"),
]


@pytest.mark.parametrize(("wish", "code", "param"), BAD, ids=str)
async def test_bad_wish_is_refused_whole(shop: Company, wish: dict[str, Any], code: str, param: str) -> None:
    before = await budgets_of_all(shop)
    body = {"tenant": "default", "period": "month", "limit_usd": "5"} | wish
    answer = await shop.client.post("/admin/budgets", json=body)
    refused(answer, 404 if code == "not_found" else 400, code, param)
    assert await budgets_of_all(shop) == before


async def budgets_of_all(shop: Company) -> list[dict[str, Any]]:
    """Without what is used, which videos that are under way still change."""
    every = (await shop.client.get("/admin/budgets")).raise_for_status().json()["data"]
    return [{name: value for name, value in one.items() if name not in {"used_usd", "left_usd"}} for one in every]


async def test_second_budget_for_the_same_is_refused(shop: Company) -> None:
    team = await shop.found("twice")
    await allot(shop, team, "5")
    body = {"tenant": team.id, "limit_usd": "6", "period": "month"}
    refused(await shop.client.post("/admin/budgets", json=body), 400, "invalid_value", "period")
    await allot(shop, team, "6", shadow=True)
    await allot(shop, team, "6", "day")


BAD_CHANGES: list[tuple[dict[str, Any], str, str | None]] = [
    ({}, "missing_parameter", None),
    ({"limit_usd": "-1"}, "invalid_value", "limit_usd"),
    ({"raise_usd": "5"}, "missing_parameter", "raise_until"),
    ({"raise_until": 5}, "missing_parameter", "raise_usd"),
    ({"raise_usd": "5", "raise_until": -5}, "invalid_value", "raise_until"),
    ({"period": "day"}, "unknown_parameter", "period"),
]


@pytest.mark.parametrize(("wish", "code", "param"), BAD_CHANGES, ids=str)
async def test_bad_change_is_refused_whole(shop: Company, wish: dict[str, Any], code: str, param: str | None) -> None:
    team = await shop.found(f"changed {wish}")
    budget = await allot(shop, team, "5")
    refused(await shop.client.patch(f"/admin/budgets/{budget['id']}", json=wish), 400, code, param)
    assert await standing(shop, team) == budget


async def test_budgets_are_for_admins_alone(shop: Company) -> None:
    team = await shop.found("curious", "videos", "reports")
    for method, path in (("GET", ""), ("POST", ""), ("PATCH", "/x"), ("DELETE", "/x")):
        answer = await team.client.request(method, f"/admin/budgets{path}", json={})
        refused(answer, 403, "permission_denied")


async def test_command_makes_lists_changes_and_removes(shop: Company) -> None:
    team = await shop.found("typed")
    code, out, err = await shop.cli(
        "budgets", "create", "--tenant", "typed", "--period", "day", "--limit-usd", "5", "--warn-at", "0.8"
    )
    assert code == 0, err
    budget_id = out.strip()
    assert (await standing(shop, team))["id"] == budget_id
    code, _, err = await shop.cli("budgets", "change", budget_id, "--limit-usd", "6.5", "--shadow")
    assert code == 0, err
    code, out, err = await shop.cli("budgets", "list", "--tenant", "typed")
    assert code == 0, err
    for word in (budget_id, "6.500000", "0.8", "day"):
        assert word in out
    code, _, err = await shop.cli("budgets", "change", budget_id, "--no-warnings")
    assert (code, (await standing(shop, team))["warn_at"]) == (0, [])
    for bad in (["--limit-usd", "-5"], []):
        code, _, err = await shop.cli("budgets", "change", budget_id, *bad)
        assert (code, err.count("\n")) == (2, 1)
    code, _, err = await shop.cli("budgets", "remove", budget_id)
    assert code == 0, err
    code, out, _ = await shop.cli("budgets", "list", "--tenant", "typed")
    assert out == "none\n"


async def test_audit_finds_nothing_in_all_of_this(shop: Company) -> None:
    code, out, err = await shop.cli("audit")
    assert (code, err) == (0, "")
    charges, *rest = out.splitlines()
    assert charges.endswith(" were worked out again.")
    assert int(charges.split(" ")[0]) > 37
    assert rest == ["none"]
    code, out, _ = await shop.cli("audit", "--json")
    assert code == 0
    assert '"doubts": []' in out
