"""Who may pass which door, walked over every route that the API's own description lists."""

import re
import time
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
import pytest_asyncio

from proxy.api.manners import with_manners
from proxy.core.ids import new_api_key
from proxy.core.tenant import SCOPES
from proxy.store.tables import metadata
from tests.databases import whole_in
from tests.ports import free_port
from tests.whole.company import Company, Team, open_company, refused
from tests.whole.scenes import eventually, opened
from tests.whole.stage import KEY

pytestmark = pytest.mark.asyncio(loop_scope="module")

OPEN = {
    "/healthz": "a supervisor has no key, and nothing is told",
    "/readyz": "the same; tells that a disk is full, and nothing of it",
    "/metrics": "Prometheus has the token, where one is set; without it the server warns",
    "/openapi.json": "the same for everybody",
    "/docs": "the same for everybody",
    "/callbacks/{token}": "sellers have no key: the token is ours, signed, and what they say is not believed",
}
"""Where no API key is asked for, and why."""

OWNED = {"video_id"}
"""What in a path under /v1 names something of one tenant."""
EVERYBODYS = {"model_id", "month"}
"""What does not: models are all tenants', and of a month each sees its own statement."""

INVENTED = "video_0190000000000aaaaaaaaaaa"
BELIEVED_S = 5.0
"""How long a key that was looked up is believed."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Company]:
    async with open_company(tmp_path_factory.mktemp("doors")) as company:
        yield company


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def owner(shop: Company) -> Team:
    return await shop.found("owner", "videos", "reports")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def film(owner: Team) -> str:
    """The id of a finished video."""
    made = (await owner.client.post("/v1/videos", json={"prompt": "a boat", "user": "ann"})).raise_for_status().json()
    await eventually(lambda: is_completed(owner.client, made["id"]))
    return str(made["id"])


async def is_completed(client: httpx.AsyncClient, video_id: str) -> bool:
    return bool((await client.get(f"/v1/videos/{video_id}")).json()["status"] == "completed")


async def routes(shop: Company) -> list[tuple[str, str]]:
    """Method and template of each route."""
    described = (await shop.client.get("/openapi.json")).raise_for_status().json()["paths"]
    return [(method.upper(), path) for path, item in described.items() for method in item]


def filled(template: str, **values: str) -> str:
    """An address; what is not said names nothing."""
    values = {"number": "1"} | values
    return re.sub(r"\{(\w+)\}", lambda name: values.get(name[1], "none"), template)


def parameters(template: str) -> set[str]:
    return set(re.findall(r"\{(\w+)\}", template))


# Whose it is


async def test_what_another_tenant_owns_is_as_unknown_as_what_nobody_does(
    shop: Company, owner: Team, film: str
) -> None:
    other = await shop.found("other", "videos", "reports")
    walked = [(m, path) for m, path in await routes(shop) if path.startswith("/v1/") and parameters(path)]
    assert {name for _, path in walked for name in parameters(path)} == OWNED | EVERYBODYS
    for method, template in walked:
        if not parameters(template) & OWNED:
            continue
        theirs = await other.client.request(method, filled(template, video_id=film))
        nobodys = await other.client.request(method, filled(template, video_id=INVENTED))
        assert theirs.status_code == nobodys.status_code, template
        assert theirs.text.replace(film, "") == nobodys.text.replace(INVENTED, ""), template
        if template.endswith("/remix"):
            assert refused(theirs, 400, "unsupported_request"), "to everybody, whoever owns it"
        elif method != "HEAD":
            refused(theirs, 404, "not_found", "video_id")
        else:
            assert theirs.status_code == 404
    assert (await owner.client.get(f"/v1/videos/{film}/content")).status_code == 200


async def test_lists_and_reports_hold_nothing_of_another_tenant(shop: Company, owner: Team, film: str) -> None:
    curious = await shop.found("curious", "videos", "reports", "admin")
    for path in ("/v1/videos", "/v1/videos?end_user_id=ann", "/v1/spend?group_by=tenant,end_user", "/v1/statements"):
        assert (await curious.client.get(path)).raise_for_status().json()["data"] == [], path
    refused(await curious.client.get("/v1/videos", params={"after": film}), 400, "invalid_value", "after")
    refused(await curious.client.get("/v1/spend", params={"tenant": owner.id}), 400, "unknown_parameter")
    month = time.strftime("%Y-%m", time.gmtime())
    mine, theirs = [(await one.client.get(f"/v1/statements/{month}")).json() for one in (curious, owner)]
    assert owner.name not in str(mine)
    assert owner.name in str(theirs)


# Which key opens what


async def test_open_doors_are_those_that_the_description_says(shop: Company) -> None:
    described = (await shop.client.get("/openapi.json")).json()["paths"]
    unlocked = {path for path, item in described.items() for one in item.values() if one.get("security") == []}
    assert unlocked == set(OPEN) - {"/metrics"}
    assert {path for _, path in await routes(shop) if not path.startswith(("/v1/", "/admin/"))} == set(OPEN)


async def test_each_other_door_takes_a_key_with_its_scope_and_no_other(shop: Company) -> None:
    """New routes are asked too: each opens for exactly one scope, those under /admin for `admin`."""
    stranger = await shop.client_of()
    team = await shop.found("scoped")
    clients = {scope: await shop.client_of(await shop.new_key(team.id, scope)) for scope in SCOPES}
    for method, template in await routes(shop):
        if template in OPEN:
            continue
        path = filled(template)
        unknown = await stranger.request(method, path)
        assert unknown.status_code == 401, template
        if method != "HEAD":
            refused(unknown, 401, "invalid_api_key")
        answers = {scope: await client.request(method, path) for scope, client in clients.items()}
        opened_by = {scope for scope, answer in answers.items() if answer.status_code != 403}
        assert {answer.status_code for answer in answers.values()} & {401, 500} == set(), template
        if template.startswith("/admin/"):
            assert opened_by == {"admin"}, template
        else:
            assert opened_by in ({"videos"}, {"reports"}), template


# Keys


async def test_key_is_kept_as_a_keyed_hash_alone(shop: Company, owner: Team) -> None:
    stored = str([whole_in(shop.folder).rows(f"select * from {name}") for name in metadata.tables])  # noqa: S608  # the names are our own
    assert owner.key not in stored
    assert owner.key[4:36] not in stored
    assert KEY not in stored


async def test_key_is_worth_nothing_within_seconds_of_its_end(shop: Company, owner: Team) -> None:
    made = (await shop.client.post("/admin/keys", json={"tenant": owner.id})).raise_for_status().json()
    ends_at = int(time.time()) + 2
    keys = {"revoked": made["key"], "expired": await shop.new_key(owner.id, expires_at=ends_at)}
    clients = {name: await shop.client_of(key) for name, key in keys.items()}
    assert {(await client.get("/v1/models")).status_code for client in clients.values()} == {200}
    (await shop.client.delete(f"/admin/keys/{made['id']}")).raise_for_status()
    ends = {"revoked": time.time(), "expired": float(ends_at)}
    for name, client in clients.items():

        async def is_refused(client: httpx.AsyncClient = client) -> bool:
            return (await client.get("/v1/models")).status_code == 401

        await eventually(is_refused, within_s=BELIEVED_S + 3)
        assert time.time() - ends[name] < BELIEVED_S + 1.5, name


async def test_key_of_the_right_form_that_nobody_made_opens_nothing(shop: Company) -> None:
    stranger = await shop.client_of()
    for key in (new_api_key(), KEY[:-1], KEY + " x", KEY.upper(), KEY.encode().hex()):
        answer = await stranger.get("/v1/models", headers={"authorization": f"Bearer {key}"})
        message = refused(answer, 401, "invalid_api_key")
        assert key not in message


# What every answer carries


def manners_of(answer: httpx.Response) -> dict[str, list[str]]:
    names = ("x-content-type-options", "referrer-policy", "cache-control", "content-security-policy")
    return {name: said for name in names if (said := answer.headers.get_list(name))}


def good_manners(answer: httpx.Response) -> bool:
    """Each header once, by what the answer is."""
    kind = answer.headers.get("content-type", "")
    expected = {name.decode(): [value.decode()] for name, value in with_manners([(b"content-type", kind.encode())])}
    del expected["content-type"]
    if answer.status_code in {200, 206, 304, 416} and answer.request.url.path.endswith("/content"):
        expected["cache-control"] = ["private, no-transform"]
    assert manners_of(answer) == expected, answer.request.url
    return True


async def test_every_answer_has_good_manners(shop: Company, owner: Team, film: str) -> None:
    everything = await shop.client_of(await shop.new_key(owner.id, *SCOPES))
    stranger = await shop.client_of()
    month = time.strftime("%Y-%m", time.gmtime())
    for method, template in await routes(shop):
        path = filled(template, video_id=INVENTED if method == "DELETE" else film, month=month, tenant=owner.id)
        for client in (everything, stranger):
            assert good_manners(await client.request(method, path))
    pages = ("/docs", f"/v1/statements/{month}?format=html", f"/admin/statements/{owner.id}/{month}?format=html")
    for path in pages:
        page = await everything.get(path)
        assert page.headers["content-type"].startswith("text/html")
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert good_manners(page)
    content = f"/v1/videos/{film}/content"
    etag = (await everything.get(content)).headers["etag"]
    for headers in ({"range": "bytes=0-9"}, {"range": "bytes=999999999-"}, {"if-none-match": etag}, {"host": "a b"}):
        assert good_manners(await everything.get(content, headers=headers))
    for path in ("/nothing", "/v1", "/v1/spend?format=csv", "/v1/spend?format=x"):
        assert good_manners(await everything.get(path))


# Metrics


async def test_metrics_stand_behind_their_token(tmp_path_factory: pytest.TempPathFactory) -> None:
    token, port = "a-token-for-metrics", free_port()
    folder = tmp_path_factory.mktemp("metrics")
    env = {"METRICS_TOKEN": token, "METRICS_PORT": str(port), "HOST": "0.0.0.0"}  # noqa: S104  # strangers can come in
    async with opened(folder, env=env) as stage:
        refused(await stage.client.get("/metrics"), 404, "not_found")
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as scraper:
            for headers in ({}, {"authorization": f"Bearer {KEY}"}, {"authorization": f"Bearer {token}x"}):
                answer = await scraper.get("/metrics", headers=headers)
                assert (answer.status_code, "reelay_" in answer.text) == (401, False)
                assert good_manners(answer)
            scraped = await scraper.get("/metrics", headers={"authorization": f"Bearer {token}"})
            assert scraped.status_code == 200
            assert good_manners(scraped)
            refused_here = await scraper.get("/v1/videos", headers={"authorization": f"Bearer {KEY}"})
            assert refused_here.status_code == 404
        assert list(warnings(stage.folder.joinpath(f"serve-{stage.port}.log").read_text())) == []


async def test_metrics_that_strangers_can_read_are_warned_of(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("warned")
    async with opened(folder, env={"HOST": "0.0.0.0"}) as stage:  # noqa: S104  # strangers can come in
        log = stage.folder / f"serve-{stage.port}.log"
        [warning] = warnings(log.read_text())
        assert "anybody who reaches this port may read /metrics" in warning


def warnings(log: str) -> Iterator[str]:
    return (line for line in log.splitlines() if "settings.warning" in line)
