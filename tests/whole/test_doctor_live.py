"""The doctor before a house with sellers: what it finds, and what one paid order shows."""

import json
from typing import Any

from tests.databases import whole_in
from tests.whole.stage import PLAY_KEYS, SELLERS, Stage


async def open_stage(stage: Stage) -> None:
    """Sellers and rules; no server is needed."""
    await stage.start_sellers()
    stage.write_rules()
    stage.environment = dict(PLAY_KEYS)


def verdicts(out: str) -> dict[str, str]:
    """Fact to verdict."""
    found = {}
    for line in out.splitlines():
        for verdict in ("confirmed", "broken", "not seen"):
            if line.startswith(f"{verdict:9}  "):
                found[line[11:].partition(" (")[0]] = verdict
    return found


async def test_check_up_finds_what_is_wrong_and_buys_nothing(stage: Stage) -> None:
    await open_stage(stage)
    code, out, err = await stage.cli("doctor")
    assert (code, err) == (0, ""), out
    found = [line for line in out.splitlines() if not line.startswith(" ")]
    assert [line.split()[1] for line in found if not line.startswith("ok ")] == ["public"]
    assert [line.partition(":")[0] for line in found[-1 - len(SELLERS) : -1]] == [
        f"ok       provider {one}" for one in SELLERS
    ]
    assert "\x1b" not in out
    await stage.admin.post("/admin/keys", json={"key": "play"})
    stage.write_rules(dead=("shortapi",))
    code, out, _ = await stage.cli("doctor")
    failures = [line for line in out.splitlines() if line.startswith("problem")]
    assert code == 1
    assert [line.split()[2] for line in failures] == ["evolink:", "shortapi:", "runflow:"]
    assert "refuses the key" in failures[0]
    assert "no connection to shortapi" in failures[1]
    assert await stage.books() == []
    code, told, _ = await stage.cli("doctor", "--json")
    assert [f"{one['subject']}: {one['detail']}" for one in json.loads(told) if one["verdict"] == "problem"][1:2] == [
        "provider shortapi: 127.0.0.1: no connection to shortapi: ClientConnectorError"
    ]
    assert all(one["advice"] for one in json.loads(told) if one["verdict"] != "ok")


async def test_check_up_runs_beside_a_server_that_works_and_changes_nothing(stage: Stage) -> None:
    await stage.start_sellers()
    stage.write_rules()
    await stage.start_server()
    video = await stage.create()
    assert (await stage.ended(video["id"]))["status"] == "completed"
    tables = ("videos", "attempts", "ledger_transactions", "facts", "admin_log")

    def rows() -> dict[str, list[tuple[Any, ...]]]:
        return {table: whole_in(stage.folder).rows(f"SELECT * FROM {table} ORDER BY 1, 2") for table in tables}  # noqa: S608 - names of ours

    before, books = rows(), await stage.books()
    code, out, err = await stage.cli("doctor")
    # The tests' own PostgreSQL may lose what it said to have kept, and the doctor says so.
    problems = [line.split(":")[0].split()[1] for line in out.splitlines() if line.startswith("problem")]
    assert problems == (["durability"] if "PostgreSQL at schema" in out else []), out
    assert (code, err) == (1 if problems else 0, "")
    for told in ("books: the last day balances", "server: it answers at", "unknown attempts: none", "through it"):
        assert told in out
    assert (rows(), await stage.books()) == (before, books)


async def test_paid_order_needs_a_yes_and_a_price_within_the_limit(stage: Stage) -> None:
    await open_stage(stage)
    code, out, err = await stage.cli("doctor", "--live", "evolink", "--max-usd", "0.10", "--yes")
    assert (code, out) == (2, "")
    assert err == "reelay: evolink/seedance-2.0/mini/text-to-video may cost up to $0.188000, more than --max-usd 0.10\n"
    code, out, err = await stage.cli("doctor", "--live", "evolink")
    assert (code, err) == (2, "reelay: nobody is here to ask; --yes buys without asking\n")
    assert "4 s, 480p, 16:9; $0.150400 by the catalogue, held to cost up to $0.188000." in out
    assert await stage.books() == []


async def test_good_seller_confirms_what_is_assumed_of_it(stage: Stage) -> None:
    await open_stage(stage)
    for provider in ("evolink", "runflow"):
        code, out, err = await stage.cli("doctor", "--live", provider, "--yes", "--out", f"{provider}.mp4")
        assert (code, err) == (0, ""), out
        found = verdicts(out)
        assert "broken" not in found.values()
        assert list(found.values()).count("confirmed") >= 15
        assert found["the film has 24 frames a second, and one more"] == "confirmed"
        assert (stage.folder / f"{provider}.mp4").stat().st_size > 1000
        assert "play" not in out
        assert "sig=" not in out
    assert [(job["seller"], job["state"]) for job in await stage.books()] == [
        ("evolink", "succeeded"),
        ("runflow", "succeeded"),
    ]


async def test_seller_that_is_otherwise_breaks_the_fact(stage: Stage) -> None:
    await open_stage(stage)
    await stage.arm("shortapi", "dear")
    await stage.arm("shortapi", "smaller")
    code, out, _ = await stage.cli("doctor", "--live", "shortapi", "--yes")
    assert code == 1
    broken = [says for says, verdict in verdicts(out).items() if verdict == "broken"]
    assert broken == ["`data.amount` is the price in USD", "the film has the pixels of its resolution and ratio"]
    assert '("1.60", the price is $0.800000)' in out
    assert "(864x496)" in out


async def test_order_of_unknown_end_is_sent_once_and_told_with_its_price(stage: Stage) -> None:
    await open_stage(stage)
    await stage.arm("fal", "reset_after")
    code, out, err = await stage.cli("doctor", "--live", "fal", "--yes")
    assert (code, err) == (1, "")
    assert "Nobody can say whether the order was taken; it may have cost up to $0.562500, and it is not sent" in out
    assert set(verdicts(out).values()) == {"not seen"}
    assert len(await stage.books()) == 1
