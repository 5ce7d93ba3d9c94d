"""The three ends of a submit: what is certain moves on at once, what is unknown never buys twice by itself."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.whole.scenes import (
    PRICES,
    Played,
    Rules,
    Troupe,
    check_the_ledger,
    check_the_log,
    eventually,
    opened,
    play,
    rows,
    rule,
)
from tests.whole.stage import SELLERS

SPEED = 200.0
"""A late callback comes three seconds after the end: time for a second purchase."""
DEADLINE_S = 12
SUBMIT_TIMEOUT_S = 2.0

TAKEN = ("reset_after", "slow_reply", "invalid_json", "no_id", "wrong_type")
"""The seller has stored the order, and nothing that can be read came back."""
NOT_TAKEN = ("reset_before", "error_500", "error_502_html", "error_504")
"""Nothing was stored, but nobody can tell that from the answer."""
TOLD = {("fal", "error_500"), ("fal", "error_504")}
"""fal names its own failures in a header: the order was certainly not taken."""
CALLED_BACK = ("fal", "shortapi", "runflow")
"""Sellers that call back over http, and name their id."""

OTHER = {"evolink": "shortapi", "shortapi": "evolink", "fal": "evolink", "runflow": "evolink"}

LOST = [f"lost-{seller}-{fault}" for seller in SELLERS for fault in TAKEN + NOT_TAKEN if (seller, fault) not in TOLD]
FOUND = [f"lost-runflow-{fault}" for fault in TAKEN]
"""Runflow is asked by our own tag after five seconds."""
UNKNOWN = [case for case in LOST if case not in FOUND]
HEALED = [f"healed-{seller}-{fault}" for seller in CALLED_BACK for fault in TAKEN]
REFUSED = {
    "told-fal-error_500": "fal",
    "told-fal-error_504": "fal",
    "told-shortapi-no_credit": "shortapi",
    "told-shortapi-unauthorized": "shortapi",
}
DOUBLES = ("double-fal", "double-shortapi")


def _rules(rules: Rules) -> None:
    rules["rules"] = [
        rule("patient", {"metadata.case": "patient"}, fallback={"deadline_s": 60}),
        rule("bold", {"metadata.case": "bold"}, fallback={"deadline_s": 60, "on_unknown": "fallback"}),
        rule("default"),
    ]


async def _scene(folder: Path) -> Played:
    async with opened(
        folder, speed=SPEED, change=_rules, deadline_s=DEADLINE_S, submit_timeout_s=SUBMIT_TIMEOUT_S
    ) as stage:
        troupe = Troupe(stage)
        for case in LOST:
            _, seller, fault = case.split("-")
            await troupe.ask(case, f"{fault}@{seller}", "cb_lost", routing={"order": [seller, OTHER[seller]]})
        patient: dict[str, Any] = {"metadata": {"case": "patient"}}
        for case in (*HEALED, *REFUSED):
            _, seller, fault = case.split("-")
            await troupe.ask(case, f"{fault}@{seller}", routing={"order": [seller, OTHER[seller]]}, **patient)
        for case in DOUBLES:
            seller = case.partition("-")[2]
            # The callback comes when the second purchase is under way.
            faults = (f"reset_after@{seller}", f"cb_late@{seller}")
            await troupe.ask(case, *faults, routing={"order": [seller, "evolink"]}, metadata={"case": "bold"})
        await troupe.end()

        async def both_known() -> bool:
            ends = "select count(*) from attempts where video_id = ? and bearer is not null"
            return all(rows(folder, ends, troupe.ids[case]) == [(2,)] for case in DOUBLES)

        await eventually(both_known)
        listed = (await stage.client.get("/admin/attempts", params={"state": "unknown", "limit": 1000})).json()["data"]
        code, printed, _ = await stage.cli("attempts", "list", "--state", "unknown", "--json")
        assert code == 0
        return await troupe.played(listed=listed, printed=json.loads(printed))


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    return play(_scene, tmp_path_factory.mktemp("lost_answers"))


@pytest.mark.parametrize("case", UNKNOWN)
def test_submit_without_a_readable_answer_is_not_bought_again(played: Played, case: str) -> None:
    _, seller, fault = case.split("-")
    assert played.sellers(case) == ([seller] if fault in TAKEN else [])
    assert played.attempts(case) == [(seller, "unknown", None)]


@pytest.mark.parametrize("case", UNKNOWN)
def test_unknown_end_fails_the_video_at_its_deadline_and_frees_the_money(played: Played, case: str) -> None:
    assert played.outcome(case) == ("failed", "outcome_unknown")
    assert played.hold(case)[0] == "void"
    assert played.paid(case) == 0


def test_operators_see_every_unknown_end_with_what_it_may_have_cost(played: Played) -> None:
    expected = {played.videos[case]["id"]: case for case in UNKNOWN}
    for lines in (played.found["listed"], played.found["printed"]):
        assert {line["video"] for line in lines} == set(expected)
        for line in lines:
            seller = expected[line["video"]].split("-")[1]
            assert line["provider"] == seller
            assert line["possible_cost_usd"] == f"{4 * PRICES[seller] / 1e6:.6f}"


@pytest.mark.parametrize("seller", SELLERS)
def test_metrics_show_what_is_unknown_and_how_much_it_may_cost(played: Played, seller: str) -> None:
    count = sum(1 for case in UNKNOWN if case.split("-")[1] == seller)
    assert played.metric("reelay_unknown_attempts", provider=seller) == count
    exposure = played.metric("reelay_unknown_exposure_usd", provider=seller)
    assert exposure == pytest.approx(count * 4 * PRICES[seller] / 1e6)


@pytest.mark.parametrize("case", HEALED)
def test_callback_heals_what_no_answer_told(played: Played, case: str) -> None:
    seller = case.split("-")[1]
    assert played.outcome(case) == ("completed", None)
    assert played.attempts(case) == [(seller, "done", None)]
    assert played.sellers(case) == [seller]
    assert played.paid(case) == 4 * PRICES[seller]


@pytest.mark.parametrize("case", FOUND)
def test_runflow_is_found_by_our_own_tag_without_any_callback(played: Played, case: str) -> None:
    assert played.outcome(case) == ("completed", None)
    assert played.sellers(case) == ["runflow"]


@pytest.mark.parametrize("case", REFUSED)
def test_refusal_that_the_seller_proves_moves_on_at_once(played: Played, case: str) -> None:
    """By its header at fal though the status is 5xx, by its code at ShortAPI though the status is 200."""
    seller = REFUSED[case]
    assert played.outcome(case) == ("completed", None)
    assert [(provider, state) for provider, state, _ in played.attempts(case)] == [
        (seller, "refused"),
        (OTHER[seller], "done"),
    ]
    assert played.sellers(case) == [OTHER[seller]]


@pytest.mark.parametrize("case", DOUBLES)
def test_rule_that_buys_on_an_unknown_end_pays_for_one_film_of_two(played: Played, case: str) -> None:
    first = case.partition("-")[2]
    assert played.outcome(case) == ("completed", None)
    assert played.sellers(case) == [first, "evolink"]
    prices = {4 * PRICES[first], 4 * PRICES["evolink"]}
    paid = played.paid(case)
    assert paid in prices
    assert played.absorbed(case) == {"absorbed:double": (prices - {paid}).pop()}


def test_possible_doubles_and_real_ones_are_counted(played: Played) -> None:
    assert played.metric("reelay_possible_double_total") == len(DOUBLES)
    for case in DOUBLES:
        assert played.metric("reelay_possible_double_total", provider=case.partition("-")[2]) == 1
    doubles = sum(played.absorbed(case)["absorbed:double"] for case in DOUBLES)
    assert played.metric("reelay_absorbed_usd_total", reason="double") == pytest.approx(doubles / 1e6)


def test_ledger_balances_and_nothing_broke_in_all_of_this(played: Played) -> None:
    check_the_ledger(played.folder)
    check_the_log(played.folder)
