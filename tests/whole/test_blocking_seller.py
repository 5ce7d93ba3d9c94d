"""The blocking seller: its adapter and its simulator, two readings of one page, meet over a socket."""

from pathlib import Path
from typing import Any

import pytest

from tests.whole.scenes import Played, Rules, Troupe, check_the_ledger, check_the_log, opened, play, rows, rule
from tests.whole.stage import Stage

SPEED = 60.0
DEADLINE_S = 20
SELLER = "runflow-legacy"
PRICE = 303_400
"""Micro-dollars for a second of 720p, as the newer interface asks."""

REFUSED = ("unauthorized", "no_credit", "throttled", "error_503")
BLOCKED = ("moderation", "moderation_late")
UNKNOWN = (
    "reset_before", "reset_after", "reset_midway", "timeout_midway", "error_500", "error_502_html", "error_504",
    "error_503_html", "invalid_json", "wrong_type", "render_failed",
)  # fmt: skip
"""A dropped connection, or an answer that nobody can read: the seller may have made the clip."""
TAKEN = {"reset_after", "reset_midway", "timeout_midway", "invalid_json", "wrong_type", "render_failed"}
"""Those that stand in the seller's books; all but the broken render are charged."""


def _rules(rules: Rules, stage: Stage) -> None:
    url = f"{stage.sellers.origin}/{SELLER}"
    rules["providers"][SELLER] = {
        "adapter": SELLER,
        "api_key": "${RUNFLOW_API_KEY}",
        "base_url": url,
        "breaker": False,
    }
    unknown = rule("unknown", {"metadata.case": list(UNKNOWN)}, fallback={"deadline_s": DEADLINE_S})
    rules["rules"] = [unknown, rule("default")]


async def _scene(folder: Path) -> Played:
    async with opened(folder, speed=SPEED, deadline_s=60) as stage:
        await stage.server.stop()
        stage.write_rules(lambda rules: _rules(rules, stage), deadline_s=60)
        await stage.start_server()
        troupe = Troupe(stage)

        async def ask(case: str, *faults: str, **fields: Any) -> str:
            wish = {"routing": {"order": [SELLER, "fal"]}, "metadata": {"case": case}}
            return await troupe.ask(case, *(f"{fault}@{SELLER}" for fault in faults), **wish, **fields)

        await stage.arm(SELLER, "truncated", count=1)
        await ask("plain")
        await troupe.end()
        await ask("auto", seconds="auto")
        for fault in (*BLOCKED, *REFUSED, *UNKNOWN):
            await ask(fault, fault)
        stopped = await ask("stopped")
        await stage.until(stopped, lambda video: bool(video["routing"]["attempts"]))
        await stage.client.post(f"/v1/videos/{stopped}/cancel")
        await troupe.end()
        await stage.until(stopped, lambda video: video["usage"]["cost_usd"] is not None)
        return await troupe.played()


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    return play(_scene, tmp_path_factory.mktemp("blocking"))


@pytest.mark.parametrize("case", ["plain", "auto"])
def test_film_that_comes_with_the_answer_is_delivered_and_billed_by_its_price(played: Played, case: str) -> None:
    assert played.outcome(case) == ("completed", None)
    assert played.sellers(case) == [SELLER]
    (job,) = played.jobs[case]
    assert played.paid(case) == round(played.videos[case]["usage"]["duration_seconds"]) * PRICE
    assert played.paid(case) == job["charged_microusd"]


def test_copy_is_tried_again_but_the_film_is_not_rendered_again(played: Played) -> None:
    fetches = rows(played.folder, "select fetches from attempts where video_id = ?", played.videos["plain"]["id"])
    assert fetches == [(1,)], "the first try broke off"
    assert played.outcome("plain") == ("completed", None)
    assert played.sellers("plain") == [SELLER]


@pytest.mark.parametrize("case", BLOCKED)
def test_refused_prompt_is_not_shopped_around(played: Played, case: str) -> None:
    assert played.outcome(case) == ("failed", "moderation_blocked")
    assert set(played.sellers(case)) <= {SELLER}


@pytest.mark.parametrize("case", REFUSED)
def test_what_was_refused_for_certain_is_made_elsewhere(played: Played, case: str) -> None:
    assert played.outcome(case) == ("completed", None)
    assert played.sellers(case)[-1] == "fal"
    assert played.absorbed(case) == {}


@pytest.mark.parametrize("case", UNKNOWN)
def test_every_dropped_connection_is_unknown_and_nothing_is_bought_twice(played: Played, case: str) -> None:
    assert played.outcome(case) == ("failed", "outcome_unknown")
    assert played.attempts(case) == [(SELLER, "unknown", None)]
    assert played.sellers(case) == ([SELLER] if case in TAKEN else [])
    assert played.hold(case)[0] == "void"


def test_cancelled_video_costs_what_its_seller_made_all_the_same(played: Played) -> None:
    assert played.outcome("stopped") == ("failed", "cancelled")
    assert played.paid("stopped") == 4 * PRICE
    assert rows(played.folder, "select count(*) from videos where hold = 'held'") == [(0,)]


def test_ledger_balances_and_nothing_broke(played: Played) -> None:
    check_the_ledger(played.folder)
    check_the_log(played.folder)
