"""Limits through HTTP: on requests in a minute, and exact on what is under way, however many ask at once."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.databases import WHOLE_ENGINE, whole_in
from tests.whole.company import Company, Team, open_company, refused
from tests.whole.era import NEWEST, run
from tests.whole.scenes import check_the_ledger, metric
from tests.whole.stage import Process

pytestmark = pytest.mark.asyncio(loop_scope="module")

ENDLESS = {"prompt": "[fault:never_ends]", "resolution": "480p"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Company]:
    async with open_company(tmp_path_factory.mktemp("limits")) as company:
        yield company
        check_the_ledger(company.folder)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def second(shop: Company) -> Process | None:
    """Another server on the same database, where the engine allows it."""
    return await shop.start_beside("serve") if WHOLE_ENGINE == "postgresql" else None


async def bound(shop: Company, team: Team, **limits: int | None) -> None:
    (await shop.client.patch(f"/admin/tenants/{team.id}", json=limits)).raise_for_status()


async def bound_key(shop: Company, key_id: str, **limits: int | None) -> None:
    (await shop.client.patch(f"/admin/keys/{key_id}", json=limits)).raise_for_status()


async def key_of(shop: Company, team: Team) -> str:
    """Id of the team's first key."""
    found = await shop.client.get("/admin/keys", params={"tenant": team.id})
    key_id: str = found.raise_for_status().json()["data"][0]["id"]
    return key_id


async def ask_many(
    client: httpx.AsyncClient, times: int, body: dict[str, Any] = ENDLESS, *, doors: Sequence[str] = ("",)
) -> list[httpx.Response]:
    """Answers to so many creates at once, at each of the doors in turn."""
    return await asyncio.gather(
        *(client.post(f"{doors[number % len(doors)]}/v1/videos", json=body) for number in range(times))
    )


def codes(answers: list[httpx.Response]) -> dict[int, int]:
    return {code: sum(one.status_code == code for one in answers) for code in {one.status_code for one in answers}}


async def soon(true: Callable[[], Awaitable[bool]]) -> None:
    """Within the seconds for which a server trusts what it knows of a key."""
    async with asyncio.timeout(7):
        while not await true():
            await asyncio.sleep(0.2)


def live(shop: Company, team: Team) -> int:
    query = "select count(*) from videos where tenant_id = ? and status in ('queued', 'in_progress')"
    found: int = whole_in(shop.folder).rows(query, team.id)[0][0]
    return found


async def counted(shop: Company, team: Team, reason: str) -> float:
    return metric((await shop.client.get("/metrics")).text, "reelay_rate_limited_total", tenant=team.id, reason=reason)


# Requests in a minute


def check_rate(answer: httpx.Response, whose: str, limit: int) -> int:
    """Seconds until the next fits."""
    message = refused(answer, 429, "rate_limit_exceeded", None)
    assert message == f"This {whose} may make {limit} requests a minute."
    assert answer.headers["x-ratelimit-limit-requests"] == str(limit)
    assert answer.headers["x-ratelimit-remaining-requests"] == "0"
    assert "x-should-retry" not in answer.headers
    wait_s = int(answer.headers["retry-after"])
    assert 1 <= wait_s <= 60
    assert answer.headers["x-ratelimit-reset-requests"] == f"{wait_s}s"
    return wait_s


async def test_as_many_requests_pass_as_a_tenant_may_make_and_the_next_is_told_when(shop: Company) -> None:
    team = await shop.found("steady", requests_per_minute=5)
    other = await shop.client_of(await shop.new_key(team.id))
    answers = await asyncio.gather(*(client.get("/v1/videos") for client in [team.client, other] * 10))
    assert codes(answers) == {200: 5, 429: 15}
    waits = [check_rate(answer, "tenant", 5) for answer in answers if answer.status_code == 429]
    assert min(waits) >= 30
    await asyncio.sleep(1.1)
    assert check_rate(await other.get("/v1/models"), "tenant", 5) < max(waits)
    assert await counted(shop, team, "tenant_requests") == 16
    assert (await (await shop.found("bystander")).client.get("/v1/videos")).status_code == 200


async def test_whatever_a_key_asks_under_v1_counts_whether_it_succeeds_or_not(shop: Company) -> None:
    team = await shop.found("counted")
    client = await shop.client_of(await shop.new_key(team.id, requests_per_minute=6))
    asked = [
        await client.get("/v1/videos/video_0"),
        await client.post("/v1/videos", json={"prompt": ""}),
        await client.post("/v1/videos/quote", json={"prompt": "a boat"}),
        await client.get("/v1/spend"),
        await client.delete("/v1/videos/video_0"),
        await client.get("/v1/models"),
    ]
    assert [answer.status_code for answer in asked] == [404, 400, 200, 403, 404, 200]
    check_rate(await client.post("/v1/videos", json={"prompt": "a boat"}), "key", 6)
    assert (live(shop, team), await counted(shop, team, "key_requests")) == (0, 1)
    assert (await team.client.get("/v1/videos")).status_code == 200


async def test_operators_are_not_counted(shop: Company) -> None:
    key = await shop.new_key((await shop.found("office")).id, "admin", requests_per_minute=1)
    client = await shop.client_of(key)
    assert codes([await client.get("/admin/tenants") for _ in range(5)]) == {200: 5}


async def test_limit_on_requests_is_set_changed_and_taken_away_while_a_key_is_in_use(shop: Company) -> None:
    team = await shop.found("moved")
    key_id = await key_of(shop, team)
    assert codes([await team.client.get("/v1/videos") for _ in range(20)]) == {200: 20}
    await bound_key(shop, key_id, requests_per_minute=1)

    async def answers(status: int) -> bool:
        return (await team.client.get("/v1/videos")).status_code == status

    await soon(lambda: answers(429))
    await bound_key(shop, key_id, requests_per_minute=None)
    await soon(lambda: answers(200))
    assert codes([await team.client.get("/v1/videos") for _ in range(20)]) == {200: 20}


# Videos under way


async def test_of_a_hundred_who_ask_at_once_seven_are_accepted(shop: Company, second: Process | None) -> None:
    team = await shop.found("crowd", videos_in_flight=7)
    doors = [shop.server.origin, shop.server.origin if second is None else second.origin]
    answers = await ask_many(team.client, 100, doors=doors)
    assert codes(answers) == {200: 7, 429: 93}
    for answer in answers:
        if answer.status_code == 429:
            message = refused(answer, 429, "rate_limit_exceeded", None)
            assert message == "This tenant may have 7 videos under way at once."
            assert re.fullmatch("[1-9]|[1-5][0-9]|60", answer.headers["retry-after"])
            assert "x-should-retry" not in answer.headers
    ids = [answer.json()["id"] for answer in answers if answer.status_code == 200]
    for video_id in ids[:3]:
        (await team.client.post(f"/v1/videos/{video_id}/cancel")).raise_for_status()
        assert codes(await ask_many(team.client, 10, doors=doors)) == {200: 1, 429: 9}
        assert live(shop, team) == 7
    assert (await team.client.post("/v1/videos/quote", json=ENDLESS)).status_code == 200


async def test_never_more_are_under_way_while_they_come_and_go(shop: Company, second: Process | None) -> None:
    team = await shop.found("busy", videos_in_flight=3)
    doors = [shop.server.origin, shop.server.origin if second is None else second.origin]
    made: list[str] = []
    async with asyncio.timeout(60):
        while len(made) < 20:
            answers = await ask_many(team.client, 6, {"prompt": "a boat", "resolution": "480p"}, doors=doors)
            assert set(codes(answers)) <= {200, 429}
            made += [answer.json()["id"] for answer in answers if answer.status_code == 200]
            assert live(shop, team) <= 3
            await asyncio.sleep(0.05)
    for video_id in made:
        async with asyncio.timeout(40):
            while (await team.client.get(f"/v1/videos/{video_id}")).json()["status"] != "completed":
                await asyncio.sleep(0.05)


async def test_limits_of_key_and_tenant_both_hold_and_others_are_untouched(shop: Company) -> None:
    team = await shop.found("both", videos_in_flight=5)
    small = await shop.client_of(await shop.new_key(team.id, videos_in_flight=2))
    assert codes(await ask_many(small, 6)) == {200: 2, 429: 4}
    assert codes(await ask_many(team.client, 6)) == {200: 3, 429: 3}
    assert (await counted(shop, team, "key_in_flight"), await counted(shop, team, "tenant_in_flight")) == (4, 3)
    assert codes(await ask_many((await shop.found("unbounded")).client, 20)) == {200: 20}


async def test_limit_that_is_taken_away_holds_no_more(shop: Company) -> None:
    team = await shop.found("freed", videos_in_flight=1)
    key_id = await key_of(shop, team)
    await bound_key(shop, key_id, videos_in_flight=1)
    assert codes(await ask_many(team.client, 3)) == {200: 1, 429: 2}
    await bound(shop, team, videos_in_flight=None)
    assert codes(await ask_many(team.client, 3)) == {429: 3}
    await bound_key(shop, key_id, videos_in_flight=None)
    assert codes(await ask_many(team.client, 3)) == {200: 3}


async def test_limit_holds_within_seconds_of_being_set(shop: Company) -> None:
    team = await shop.found("late")
    assert codes(await ask_many(team.client, 3)) == {200: 3}
    await bound(shop, team, videos_in_flight=3)

    async def full() -> bool:
        return (await team.client.post("/v1/videos", json=ENDLESS)).status_code == 429

    await soon(full)
    assert codes(await ask_many(team.client, 5)) == {429: 5}


async def test_repeat_of_an_accepted_request_is_answered_while_all_places_are_taken(shop: Company) -> None:
    team = await shop.found("again", videos_in_flight=1)
    headers = {"idempotency-key": "k"}
    answers = await asyncio.gather(*(team.client.post("/v1/videos", json=ENDLESS, headers=headers) for _ in range(10)))
    assert codes(answers) == {200: 10}
    assert len({answer.json()["id"] for answer in answers}) == live(shop, team) == 1


async def test_unchanged_client_of_openai_succeeds_once_there_is_room(shop: Company) -> None:
    team = await shop.found("patient", videos_in_flight=1)
    seen = await run(NEWEST, "patience.py", shop, key=team.key, folder=shop.folder)
    assert seen["statuses"] == ["completed", "completed"]
    assert seen["refused"] >= 1
    assert seen["class"] == "RateLimitError"


# Operators


async def test_limits_are_shown_and_every_change_leaves_a_row(shop: Company) -> None:
    team = await shop.found("shown", requests_per_minute=100, videos_in_flight=4)
    body = {"tenant": team.id, "requests_per_minute": 10, "videos_in_flight": 2}
    made = (await shop.client.post("/admin/keys", json=body)).raise_for_status().json()
    assert (made["requests_per_minute"], made["videos_in_flight"]) == (10, 2)
    changed = await shop.client.patch(f"/admin/keys/{made['id']}", json={"videos_in_flight": None, "reason": "trust"})
    assert (changed.json()["requests_per_minute"], changed.json()["videos_in_flight"]) == (10, None)
    await bound(shop, team, requests_per_minute=None)
    [tenant] = [one for one in (await shop.client.get("/admin/tenants")).json()["data"] if one["id"] == team.id]
    assert (tenant["requests_per_minute"], tenant["videos_in_flight"]) == (None, 4)
    listed = (await shop.client.get("/admin/keys", params={"tenant": team.id})).json()["data"]
    assert [(one["requests_per_minute"], one["videos_in_flight"]) for one in listed] == [(None, None), (10, None)]
    query = "select action, before, after, reason from admin_log where subject = ? order by at"
    (_, none, first, _), (action, before, after, reason) = whole_in(shop.folder).rows(query, made["id"])
    assert (action, none, reason) == ("key.change", None, "trust")
    assert '"videos_in_flight":2' in first
    assert ('"videos_in_flight":2' in before, '"videos_in_flight":null' in after) == (True, True)
    changes = whole_in(shop.folder).rows(query, team.id)
    assert [row[0] for row in changes] == ["tenant.create", "tenant.change"]
    assert '"requests_per_minute":null' in changes[1][2]


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"requests_per_minute": 0}, "invalid_value", "requests_per_minute"),
    ({"requests_per_minute": -1}, "invalid_value", "requests_per_minute"),
    ({"requests_per_minute": 1_000_001}, "invalid_value", "requests_per_minute"),
    ({"requests_per_minute": 10**30}, "invalid_value", "requests_per_minute"),
    ({"requests_per_minute": 1.5}, "invalid_type", "requests_per_minute"),
    ({"requests_per_minute": "5"}, "invalid_type", "requests_per_minute"),
    ({"requests_per_minute": True}, "invalid_type", "requests_per_minute"),
    ({"videos_in_flight": -1}, "invalid_value", "videos_in_flight"),
    ({"videos_in_flight": 1_000_001}, "invalid_value", "videos_in_flight"),
    ({"videos_in_flight": []}, "invalid_type", "videos_in_flight"),
    ({"videos_in_flight": 5, "requests_per_minute": 0}, "invalid_value", "requests_per_minute"),
    ({"videos_in_fright": 5}, "unknown_parameter", "videos_in_fright"),
    ({"reason": "x" * 1001}, "invalid_value", "reason"),
]


@pytest.mark.parametrize(("wish", "code", "param"), BAD, ids=str)
async def test_bad_limit_is_refused_and_nothing_is_changed(
    shop: Company, wish: dict[str, Any], code: str, param: str
) -> None:
    (team_id,) = {one["id"] for one in await everything(shop, "tenants") if one["name"] == "default"}
    key_id = await key_of(shop, await shop.found(f"bad {code} {wish}"[:100]))
    before = await everything(shop, "tenants"), await everything(shop, "keys"), acts(shop)
    for method, path, body in (
        ("POST", "/admin/tenants", {"name": "never"} | wish),
        ("PATCH", f"/admin/tenants/{team_id}", wish),
        ("POST", "/admin/keys", {"tenant": team_id} | wish),
        ("PATCH", f"/admin/keys/{key_id}", wish),
    ):
        refused(await shop.client.request(method, path, json=body), 400, code, param)
    assert (await everything(shop, "tenants"), await everything(shop, "keys"), acts(shop)) == before


async def everything(shop: Company, what: str) -> list[dict[str, Any]]:
    data = (await shop.client.get(f"/admin/{what}")).raise_for_status().json()["data"]
    return [{name: value for name, value in one.items() if name != "last_used_at"} for one in data]


def acts(shop: Company) -> int:
    found: int = whole_in(shop.folder).rows("select count(*) from admin_log")[0][0]
    return found


async def test_key_that_is_not_there_or_revoked_cannot_be_changed(shop: Company) -> None:
    made = (await shop.client.post("/admin/keys", json={"tenant": "default"})).json()
    (await shop.client.delete(f"/admin/keys/{made['id']}")).raise_for_status()
    for key_id in (made["id"], "key_0"):
        answer = await shop.client.patch(f"/admin/keys/{key_id}", json={"videos_in_flight": 1})
        refused(answer, 404, "not_found")
    curious = await shop.found("curious", "videos", "reports")
    refused(await curious.client.patch("/admin/keys/key_0", json={}), 403, "permission_denied")


async def test_command_sets_limits_and_takes_them_away(shop: Company) -> None:
    code, out, err = await shop.cli(
        "tenants", "create", "typed", "--requests-per-minute", "90", "--videos-in-flight", "3"
    )
    assert code == 0, err
    team_id = out.strip()
    code, _, err = await shop.cli("tenants", "change", "typed", "--requests-per-minute", "none")
    assert code == 0, err
    code, out, err = await shop.cli("keys", "create", "--tenant", "typed", "--requests-per-minute", "80")
    assert code == 0, err
    [key] = (await shop.client.get("/admin/keys", params={"tenant": team_id})).json()["data"]
    code, _, err = await shop.cli(
        "keys", "change", key["id"], "--requests-per-minute", "none", "--videos-in-flight", "2", "--reason", "less"
    )
    assert code == 0, err
    [key] = (await shop.client.get("/admin/keys", params={"tenant": team_id})).json()["data"]
    [team] = [one for one in (await shop.client.get("/admin/tenants")).json()["data"] if one["id"] == team_id]
    limits = [(one["requests_per_minute"], one["videos_in_flight"]) for one in (team, key)]
    assert limits == [(None, 3), (None, 2)]
    for bad in ("0", "many", "99999999999"):
        code, _, err = await shop.cli("keys", "change", key["id"], "--requests-per-minute", bad)
        assert (code, err.count("\n")) == (2, 1), err


async def test_audit_finds_nothing_in_all_of_this(shop: Company) -> None:
    code, out, err = await shop.cli("audit")
    assert (code, err) == (0, "")
    assert out.splitlines()[1:] == ["none"]
