"""A seller that refuses or fails: who makes the video instead, who pays, and when nobody is asked any more."""

from copy import deepcopy
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.whole.scenes import PRICES, Played, Rules, Troupe, check_the_ledger, check_the_log, opened, play, rule

REFUSALS = {
    "refused-503-json": ("error_503", "capacity"),
    "refused-503-html": ("error_503_html", "capacity"),
    "refused-429": ("throttled", "throttled"),
    "refused-429-seconds": ("throttled_seconds", "throttled"),
    "refused-429-date": ("throttled_date", "throttled"),
    "refused-401": ("unauthorized", "account"),
    "refused-402": ("no_credit", "account"),
}
"""Case to the fault at the first seller, and the class that it belongs to."""

GIVE_UP_S = 6


def _rules(rules: Rules) -> None:
    dead = deepcopy(rules["providers"]["evolink"])
    dead["base_url"] = f"http://127.0.0.1:{free_port()}"
    rules["providers"]["dead"] = dead
    alive = {"ignore": ["dead"]}
    rules["rules"] = [
        rule("dead-first", {"metadata.case": "dead"}, strategy={"ordered": ["dead", "evolink"]}),
        rule("dead-alone", {"metadata.case": "dead-alone"}, strategy={"ordered": ["dead"]}, fallback={"deadline_s": 3}),
        rule("next", {"metadata.case": "next"}, providers=alive, fallback={"on_moderation": "next"}),
        rule("short", {"metadata.case": "short"}, providers=alive, fallback={"deadline_s": GIVE_UP_S}),
        rule("default", providers=alive),
    ]


async def _scene(folder: Path) -> Played:
    async with opened(folder, change=_rules, deadline_s=60) as stage:
        troupe = Troupe(stage)
        # These two are alone at their sellers, whose armed faults they meet: twice no, then yes.
        await stage.arm("runflow", "throttled_seconds", count=2)
        await stage.arm("fal", "error_503", count=2)
        await troupe.ask("recovers-throttled", model="runflow/seedance-2.0")
        await troupe.ask("recovers-capacity", model="fal/seedance-2.0")
        for case, (fault, _) in REFUSALS.items():
            await troupe.ask(case, f"{fault}@evolink")
        await troupe.ask("dead", metadata={"case": "dead"})
        await troupe.ask("dead-alone", metadata={"case": "dead-alone"})
        await troupe.ask("broken", "render_failed@evolink")
        await troupe.ask("broken-everywhere", "render_failed", routing={"order": ["evolink", "shortapi"]})
        await troupe.ask("blocked-at-once", "moderation@evolink")
        await troupe.ask("blocked-late", "moderation_late@evolink")
        await troupe.ask("next-at-once", "moderation@evolink", metadata={"case": "next"})
        await troupe.ask("next-late", "moderation_late@evolink", metadata={"case": "next"})
        await troupe.ask("invalid", "invalid@evolink")
        await troupe.ask("no-account", "unauthorized", routing={"ignore": ["fal", "runflow"]})
        await troupe.ask("throttled-for-ever", "throttled_seconds@evolink", "throttled_seconds@shortapi",
                         routing={"only": ["evolink", "shortapi"]}, metadata={"case": "short"})  # fmt: skip
        await troupe.ask("alone", "error_503@evolink", routing={"allow_fallbacks": False}, metadata={"case": "short"})
        await troupe.end()
        # Runflow and fal are free again.
        await troupe.ask("refused-403", "no_credit@fal", routing={"order": ["fal", "runflow"]})
        await troupe.end()
        return await troupe.played()


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    return play(_scene, tmp_path_factory.mktemp("fallback"))


@pytest.mark.parametrize("case", REFUSALS)
def test_refused_submit_moves_to_the_next_seller_at_once(played: Played, case: str) -> None:
    assert played.outcome(case) == ("completed", None)
    kind = REFUSALS[case][1]
    assert played.attempts(case) == [("evolink", "refused", kind), ("shortapi", "done", None)]
    assert played.sellers(case) == ["shortapi"]
    assert played.paid(case) == 4 * PRICES["shortapi"]
    assert played.absorbed(case) == {}


def test_locked_account_at_fal_is_a_reason_to_buy_elsewhere(played: Played) -> None:
    assert played.attempts("refused-403") == [("fal", "refused", "account"), ("runflow", "done", None)]


def test_seller_that_nobody_can_connect_to_is_left_for_the_next(played: Played) -> None:
    assert played.attempts("dead") == [("dead", "refused", "capacity"), ("evolink", "done", None)]
    assert played.paid("dead") == 4 * PRICES["evolink"]


def test_only_seller_dead_ends_at_the_deadline_without_a_cost(played: Played) -> None:
    assert played.outcome("dead-alone") == ("failed", "deadline_exceeded")
    assert set(played.attempts("dead-alone")) == {("dead", "refused", "capacity")}
    assert played.hold("dead-alone")[0] == "void"


def test_failed_render_is_made_elsewhere_and_paid_once(played: Played) -> None:
    assert played.outcome("broken") == ("completed", None)
    assert played.attempts("broken") == [("evolink", "failed", "provider_error"), ("shortapi", "done", None)]
    assert played.sellers("broken") == ["evolink", "shortapi"]
    assert played.paid("broken") == 4 * PRICES["shortapi"]
    assert played.absorbed("broken") == {}, "a failed task is free at EvoLink"


def test_video_that_every_seller_fails_to_render_is_a_provider_error(played: Played) -> None:
    assert played.outcome("broken-everywhere") == ("failed", "provider_error")
    assert [state for _, state, _ in played.attempts("broken-everywhere")] == ["failed", "failed"]
    assert played.hold("broken-everywhere")[0] == "void"


@pytest.mark.parametrize("case", ["blocked-at-once", "blocked-late"])
def test_refused_prompt_is_not_tried_elsewhere(played: Played, case: str) -> None:
    assert played.outcome(case) == ("failed", "moderation_blocked")
    assert [provider for provider, _, _ in played.attempts(case)] == ["evolink"]
    assert played.hold(case)[0] == "void"


@pytest.mark.parametrize("case", ["next-at-once", "next-late"])
def test_refused_prompt_is_tried_elsewhere_where_the_rule_says_so(played: Played, case: str) -> None:
    assert played.outcome(case) == ("completed", None)
    assert [provider for provider, _, _ in played.attempts(case)] == ["evolink", "shortapi"]


def test_input_that_a_seller_will_not_take_ends_the_video(played: Played) -> None:
    assert played.outcome("invalid") == ("failed", "no_provider_available")
    assert played.attempts("invalid") == [("evolink", "refused", "invalid_input")]
    assert played.sellers("invalid") == []


def test_no_usable_account_anywhere_fails_at_once(played: Played) -> None:
    video = played.videos["no-account"]
    assert played.outcome("no-account") == ("failed", "no_provider_available")
    assert [kind for _, _, kind in played.attempts("no-account")] == ["account", "account"]
    assert video["routing"]["attempts"][-1]["ended_at"] - video["created_at"] <= GIVE_UP_S


def test_throttled_sellers_are_asked_again_until_the_deadline(played: Played) -> None:
    """Attempts count offers, not sends: two offers, and more than three submits."""
    assert played.outcome("throttled-for-ever") == ("failed", "deadline_exceeded")
    attempts = played.attempts("throttled-for-ever")
    assert {provider for provider, _, _ in attempts} == {"evolink", "shortapi"}
    assert len(attempts) > 3
    assert played.sellers("throttled-for-ever") == []
    assert played.hold("throttled-for-ever")[0] == "void"


def test_request_without_fallbacks_asks_one_seller_only(played: Played) -> None:
    assert played.outcome("alone") == ("failed", "deadline_exceeded")
    assert {provider for provider, _, _ in played.attempts("alone")} == {"evolink"}
    assert len(played.attempts("alone")) > 1


@pytest.mark.parametrize(("case", "kind"), [("recovers-throttled", "throttled"), ("recovers-capacity", "capacity")])
def test_seller_that_recovers_makes_the_video(played: Played, case: str, kind: str) -> None:
    assert played.outcome(case) == ("completed", None)
    assert [(state, why) for _, state, why in played.attempts(case)] == [("refused", kind)] * 2 + [("done", None)]
    assert len(played.sellers(case)) == 1


def test_moves_are_counted_by_their_reason(played: Played) -> None:
    moves = {"from_provider": "evolink", "to_provider": "shortapi"}
    assert played.metric("reelay_fallbacks_total", **moves, reason="account") >= 2
    assert played.metric("reelay_fallbacks_total", **moves, reason="provider_error") >= 1
    assert played.metric("reelay_possible_double_total") == 0


def test_ledger_balances_and_nothing_broke_in_all_of_this(played: Played) -> None:
    check_the_ledger(played.folder)
    check_the_log(played.folder)


def test_no_case_was_made_twice(played: Played) -> None:
    made = {case: [job for job in jobs if job["state"] == "succeeded"] for case, jobs in played.jobs.items()}
    assert all(len(jobs) <= 1 for jobs in made.values())
