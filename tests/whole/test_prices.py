"""Prices that operators set over HTTP and on the command line: what is quoted, held and billed by them, and where."""

import asyncio
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.databases import WHOLE_ENGINE, whole_in
from tests.whole.company import Company, open_company, refused
from tests.whole.scenes import eventually
from tests.whole.stage import Process

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONTRACT = {"model": "seedance-2.0", "tier": "standard", "resolution": "720p", "usd_per_second": "0.25"}
PRICE = {"provider": "fal", **CONTRACT, "source": "a contract"}


def with_rules(rules: dict[str, Any]) -> None:
    rules["providers"]["runflow"] |= {"discount": "0.10", "prices": [CONTRACT]}
    rules["providers"]["shortapi"]["discount"] = "0.25"


def without_fal(rules: dict[str, Any]) -> None:
    del rules["providers"]["fal"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Company]:
    async with open_company(tmp_path_factory.mktemp("prices"), with_rules) as company:
        yield company


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def second(shop: Company) -> Process | None:
    """Another server on the same database, where the engine allows it."""
    return await shop.start_beside("serve") if WHOLE_ENGINE == "postgresql" else None


async def quoted(shop: Company, provider: str, origin: str = "", **fields: Any) -> Decimal:
    """USD for a second of film, of four that are asked for."""
    body = {"prompt": "a boat", "model": f"{provider}/seedance-2.0", "seconds": 4, **fields}
    answer = (await shop.client.post(f"{origin}/v1/videos/quote", json=body)).raise_for_status().json()
    return Decimal(answer["candidates"][0]["price_usd"]) / 4


async def listed(shop: Company, **asked: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (
        (await shop.client.get("/admin/prices", params=asked)).raise_for_status().json()["data"]
    )
    return found


async def set_price(shop: Company, **fields: Any) -> dict[str, Any]:
    made: dict[str, Any] = (await shop.client.post("/admin/prices", json=PRICE | fields)).raise_for_status().json()
    return made


async def remove(shop: Company, price_id: str) -> None:
    (await shop.client.delete(f"/admin/prices/{price_id}")).raise_for_status()


async def test_contract_prices_and_discounts_of_the_rules_are_what_is_quoted(shop: Company) -> None:
    assert await quoted(shop, "runflow") == Decimal("0.225"), "0.25 by contract, less 10 %"
    assert await quoted(shop, "runflow", resolution="480p") == Decimal("0.12654"), "0.1406 of the catalogue, less 10 %"
    assert await quoted(shop, "shortapi") == Decimal("0.18"), "0.24 of the catalogue, less 25 %"
    assert await quoted(shop, "fal") == Decimal("0.3034")
    team = await shop.found("marked up", markup="0.2")
    body = {"prompt": "a boat", "model": "runflow/seedance-2.0", "seconds": 4}
    answer = (await team.client.post("/v1/videos/quote", json=body)).raise_for_status().json()
    assert answer["candidates"][0]["price_usd"] == "1.080000"
    lines = {line["resolution"]: line for line in await listed(shop, provider="runflow") if line["tier"] == "standard"}
    contract = lines["720p"]
    assert (contract["origin"], contract["usd_per_second"], contract["discount"]) == ("rules", "0.25", "0.10")
    assert (contract["discounted_usd"], contract["in_force"], contract["override"]) == ("0.2250", True, None)
    assert (contract["starts"], contract["source"]) == ("0001-01-01", "routing_rules.yaml")


async def test_price_is_set_listed_quoted_billed_and_removed(shop: Company) -> None:
    before = (await shop.client.get("/admin/rules")).json()
    early = await shop.create("early", model="fal/seedance-2.0")
    made = await set_price(shop, reason="negotiated")
    assert made == {
        "object": "price.set", "id": made["id"], **PRICE, "operation": "text-to-video", "with_video": False,
        "usd_per_million_tokens": None, "starts": made["starts"], "basis": "listed", "created_at": made["created_at"],
    }  # fmt: skip
    assert await quoted(shop, "fal") == Decimal("0.25")
    in_force = (await shop.client.get("/admin/rules")).json()
    assert (in_force["rules_hash"], in_force["book_hash"] == before["book_hash"]) == (before["rules_hash"], False)
    [model] = (await shop.client.get("/v1/models")).json()["data"]
    assert ("fal", "720p", "standard", "0.25") in {
        (one["provider"], one["resolution"], one["tier"], one["usd_per_second"]) for one in model["prices"]
    }
    lines = [line for line in await listed(shop, provider="fal", model="seedance") if line["tier"] == "standard"]
    assert [(line["id"], line["in_force"], line["override"], line["origin"]) for line in lines] == [
        ("fal-standard-480p-2026-04-01", True, None, "rules"),
        ("fal-standard-720p-2026-04-01", False, None, "rules"),
        (made["id"], True, made["id"], "override"),
    ]
    late = await shop.create("late", model="fal/seedance-2.0")
    costs = [(await shop.ended(one["id"]))["usage"]["cost_usd"] for one in (early, late)]
    assert costs == ["1.213600", "1.000000"]
    rows = whole_in(shop.folder).rows(
        "select price_id, book_hash from ledger_transactions where video_id = ? and kind = 'post'", late["id"]
    )
    assert set(rows) == {(made["id"], in_force["book_hash"])}
    code, told, _ = await shop.cli("audit")
    assert (code, told.splitlines()[-1]) == (0, "none")

    await remove(shop, made["id"])
    assert await quoted(shop, "fal") == Decimal("0.3034")
    assert (await shop.client.get("/admin/rules")).json()["book_hash"] == before["book_hash"]
    acts = whole_in(shop.folder).rows("select actor, action, subject, reason from admin_log order by at, id")[-2:]
    assert acts == [
        ("bootstrap", "price.set", made["id"], "negotiated"),
        ("bootstrap", "price.remove", made["id"], None),
    ]


async def test_price_of_a_later_day_waits_for_it(shop: Company) -> None:
    made = await set_price(shop, starts="2999-01-01")
    assert await quoted(shop, "fal") == Decimal("0.3034")
    assert [line["in_force"] for line in await listed(shop) if line["id"] == made["id"]] == [False]
    await remove(shop, made["id"])


async def test_price_by_tokens_depends_on_the_shape(shop: Company) -> None:
    made = await set_price(shop, usd_per_second=None, usd_per_million_tokens="10")
    assert await quoted(shop, "fal") == Decimal("0.216")
    assert await quoted(shop, "fal", aspect_ratio="4:3") == Decimal("0.21736125")
    assert await quoted(shop, "fal", aspect_ratio="auto") == Decimal("0.21736125")
    video = await shop.ended((await shop.create("by tokens", model="fal/seedance-2.0", aspect_ratio="4:3"))["id"])
    assert video["usage"]["cost_usd"] == "0.869445"
    assert (await shop.cli("audit"))[0] == 0
    await remove(shop, made["id"])


async def test_price_is_known_to_the_other_server_and_survives_a_reload(shop: Company, second: Process | None) -> None:
    code, out, err = await shop.cli(
        "prices", "set", "--provider", "fal", "--model", "seedance-2.0", "--resolution", "720p",
        "--usd-per-second", "0.2", "--source", "a mail",
    )  # fmt: skip
    assert code == 0, err
    for origin in [shop.server.origin, *([second.origin] if second is not None else [])]:

        async def known(origin: str = origin) -> bool:
            return await quoted(shop, "fal", origin) == Decimal("0.2")

        await eventually(known, within_s=8)
    written = (await shop.client.get("/admin/rules")).json()["rules_hash"]
    shop.write_rules(with_rules, deadline_s=61)

    async def read_anew() -> bool:
        return bool((await shop.client.get("/admin/rules")).json()["rules_hash"] != written)

    await eventually(read_anew, within_s=15)
    assert await quoted(shop, "fal") == Decimal("0.2")
    code, told, err = await shop.cli("prices", "list", "--provider", "fal", "--json")
    assert code == 0, err
    assert json.loads(told) == await listed(shop, provider="fal")
    code, _, err = await shop.cli("prices", "remove", out.strip())
    assert code == 0, err

    async def forgotten() -> bool:
        return await quoted(shop, "fal") == Decimal("0.3034")

    await eventually(forgotten, within_s=8)


WRONG: list[tuple[dict[str, Any], int, str, str | None]] = [
    ({"provider": "nobody"}, 404, "not_found", "provider"),
    ({"model": "nothing"}, 404, "not_found", "model"),
    ({"operation": "mime"}, 400, "invalid_value", "operation"),
    ({"resolution": "1080p"}, 400, "invalid_value", "resolution"),
    ({"usd_per_second": 0.25}, 400, "invalid_type", "usd_per_second"),
    ({"usd_per_second": "1e-1"}, 400, "invalid_value", "usd_per_second"),
    ({"usd_per_second": "9" * 5000}, 400, "invalid_value", "usd_per_second"),
    ({"usd_per_second": None}, 400, "missing_parameter", "usd_per_second"),
    ({"usd_per_million_tokens": "1"}, 400, "invalid_value", "usd_per_million_tokens"),
    ({"starts": "tomorrow"}, 400, "invalid_value", "starts"),
    ({"source": "a\0b"}, 400, "invalid_value", "source"),
    ({"basis": "guessed"}, 400, "invalid_value", "basis"),
    ({"discount": "0.1"}, 400, "unknown_parameter", "discount"),
]


@pytest.mark.parametrize(("wrong", "status", "code", "param"), WRONG)
async def test_wrong_price_is_refused_by_its_field(
    shop: Company, wrong: dict[str, Any], status: int, code: str, param: str | None
) -> None:
    before = await listed(shop)
    refused(await shop.client.post("/admin/prices", json=PRICE | wrong), status, code, param)
    assert await listed(shop) == before


async def test_prices_are_the_admins_alone(shop: Company) -> None:
    team = await shop.found("curious", "videos", "reports")
    refused(await team.client.get("/admin/prices"), 403, "permission_denied")
    refused(await team.client.post("/admin/prices", json=PRICE), 403, "permission_denied")
    refused(await team.client.delete("/admin/prices/price_0"), 403, "permission_denied")
    refused(await shop.client.delete("/admin/prices/price_0"), 404, "not_found")
    refused(await shop.client.post("/admin/prices", json={"provider": "fal"}), 400, "missing_parameter", "model")


async def test_of_two_who_set_one_price_at_once_one_does(shop: Company, second: Process | None) -> None:
    doors = [shop.server.origin, second.origin if second is not None else shop.server.origin]
    answers = await asyncio.gather(
        *(shop.client.post(f"{doors[number % 2]}/admin/prices", json=PRICE) for number in range(6))
    )
    made = [answer.json()["id"] for answer in answers if answer.status_code == 200]
    assert len(made) == 1, [answer.text for answer in answers]
    await remove(shop, made[0])


async def test_price_whose_offer_is_gone_stops_nobody_and_is_told(tmp_path: Path) -> None:
    async with open_company(tmp_path) as shop:
        made = await set_price(shop)
        offered = (shop.folder / "routing_rules.yaml").read_text()
        shop.write_rules(without_fal)

        async def gone() -> bool:
            return any(line["warning"] for line in await listed(shop))

        await eventually(gone, within_s=15)
        (line,) = [line for line in await listed(shop) if line["id"] == made["id"]]
        assert (line["in_force"], line["warning"]) == (False, "Nobody offers this any more.")
        warnings = (await shop.client.get("/admin/rules")).json()["warnings"]
        assert f"the price {made['id']} is of fal/seedance-2.0/standard/text-to-video at 720p" in warnings[-1]
        await shop.server.stop()
        await shop.start_server()
        assert (await shop.client.get("/admin/rules")).json()["warnings"] == warnings
        (shop.folder / "routing_rules.yaml").write_text(offered)

        async def back() -> bool:
            return [line["in_force"] for line in await listed(shop) if line["id"] == made["id"]] == [True]

        await eventually(back, within_s=15)
        assert await quoted(shop, "fal") == Decimal("0.25")
