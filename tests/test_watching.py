"""One picture of the house, printed or drawn on a real terminal."""

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.core.attempt import Outcome
from proxy.core.budget import Budget
from proxy.core.clock import SECOND_US, system_clock
from proxy.store import videos
from proxy.store.base import Tx
from proxy.store.budgets import insert_budget
from proxy.store.health import add_outcomes
from proxy.store.settlements import insert_many
from proxy.store.sqlite import SqliteStore
from proxy.store.tenants import insert_tenant
from tests.office import Office, open_office
from tests.store.rows import make_attempt, make_settlement, make_tenant, make_video
from tests.terminal import Terminal, plain

OFFER = "first/seedance-2.0/standard/text-to-video"


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    with open_office(tmp_path) as office:
        yield office


def happen(office: Office, *units: str) -> None:
    """Something that servers did, by name."""
    now = system_clock()

    def begin(tx: Tx) -> None:
        insert_tenant(tx, make_tenant(created_at=now))
        insert_budget(tx, Budget("budget_1", "acme", "tenant", "", "total", 1_000_000, 0, "", now))
        videos.insert_many(tx, [make_video(created_at=now - 90 * SECOND_US, deadline_at=now + 900 * SECOND_US)])

    def fail(tx: Tx) -> None:
        outcomes = [
            Outcome(f"video_{place}", 1, "submit", OFFER, good=False, at=now - place * SECOND_US) for place in range(9)
        ]
        add_outcomes(tx, outcomes)
        attempt = make_attempt(provider="first", state="unknown", started_at=now, possible_microusd=960_000)
        videos.insert_attempt(tx, attempt)

    def sell(tx: Tx) -> None:
        insert_many(tx, [make_settlement(at=now, charged_microusd=794_000, seller_microusd=794_000)])

    async def run() -> None:
        store = SqliteStore(office.database)
        await store.open()
        for unit in (begin, fail, sell):
            if unit.__name__ in units:
                await store.write(unit)
        await store.close()

    asyncio.run(run())


def test_empty_house_is_told_in_both_forms(office: Office) -> None:
    office.says("migrate")
    told = office.says("top", "--once")
    assert "\x1b" not in told
    assert [word for word in ("seller", "queued", "today") if word not in told] == []
    picture = json.loads(office.says("top", "--json"))
    assert picture["queue"] == {
        "queued": 0, "in_progress": 0, "oldest_s": 0, "due_work": 0, "overdue_s": 0.0, "unknown_attempts": 0,
        "unknown_exposure_usd": "0.000000",
    }  # fmt: skip
    assert [one["line"]["provider"] for one in picture["sellers"]] == ["first"]


def test_what_happened_is_in_the_picture(office: Office) -> None:
    office.says("migrate")
    happen(office, "begin", "fail", "sell")
    picture = json.loads(office.says("top", "--json", FIRST_KEY="set"))
    (seller,) = picture["sellers"]
    assert seller["line"]["breakers"] == {OFFER: "open"}
    assert (seller["line"]["unknown_total"], seller["line"]["unknown_exposure_usd"]) == (1, "0.960000")
    queue = picture["queue"]
    assert (queue["queued"], queue["unknown_attempts"], queue["unknown_exposure_usd"]) == (1, 1, "0.960000")
    assert queue["oldest_s"] >= 90
    spend = picture["spend"]
    assert (spend["today_usd"], spend["month_usd"], spend["held_usd"]) == ("0.794000", "0.794000", "1.000000")
    assert spend["top"] == [{"tenant": "acme", "name": "Acme", "videos": 1, "charged_usd": "0.794000"}]
    told = office.says("top", "--once", FIRST_KEY="set")
    assert re.search(r"first +open", told)
    assert re.search(r"Acme +1 +\$0\.794000", told)


def test_picture_changes_nothing_and_makes_no_database(office: Office) -> None:
    assert "there is no database at" in office.refuses("top", "--once")
    assert not office.database.exists()
    office.says("migrate")
    happen(office, "begin", "fail")
    before = office.database.read_bytes()
    office.says("top", "--once")
    assert office.database.read_bytes() == before


def test_pipe_is_no_place_to_watch_from(office: Office) -> None:
    assert office.refuses("top") == "this is no terminal; --once prints one picture, --json as data"


def test_terminal_is_drawn_anew_without_being_wiped_and_left_as_it_was(office: Office) -> None:
    office.says("migrate")
    with Terminal(["top"], office.env, size=(30, 100)) as terminal:
        first = terminal.until(r"\x1b\[\?1049h.*this month")
        assert "queued" in plain(terminal.text)
        happen(office, "begin")
        second = terminal.until(r"9\d s ", after=first)
        terminal.resize(24, 60)
        for _ in range(3):
            second = terminal.until("this month.*\x1b\\[H", after=second)
        last = terminal.text[:second].rsplit("\x1b[H", 2)[1]
        assert {len(line) for line in plain(last).splitlines()} == {60}
        wiped = terminal.text[first:].count("\x1b[2J")
        terminal.types("q")
        assert terminal.ends() == 0
        assert wiped == 0
        assert terminal.text.endswith("\x1b[?25h\x1b[?1049l"), "the cursor is back, and what was there before"
        assert terminal.is_as_before


@pytest.mark.parametrize("key", ["\x03", "Q"])
def test_other_ways_to_end_it_leave_the_terminal_too(office: Office, key: str) -> None:
    office.says("migrate")
    with Terminal(["top"], office.env, size=(30, 100)) as terminal:
        terminal.until("this month")
        terminal.types(key)
        assert terminal.ends() == 0
        assert terminal.is_as_before
