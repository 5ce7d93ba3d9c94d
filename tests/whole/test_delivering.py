"""From a finished render to our copy: what goes wrong with files, and what is charged for what came."""

from pathlib import Path

import pytest

from tests.whole.scenes import PRICES, Played, Troupe, check_the_ledger, check_the_log, eventually, opened, play, rows
from tests.whole.stage import Stage

LINK_LIFETIME_S = 60
UNREADABLE = ("url_404", "html_file", "truncated")
ONCE = {"url_404": "runflow", "html_file": "fal", "truncated": "shortapi", "expired": "evolink"}
"""Faults that strike one download, each at a seller that no other case of the first act uses."""


async def _first_act(stage: Stage, troupe: Troupe) -> None:
    """Every seller's first download goes wrong."""
    for fault, seller in ONCE.items():
        await stage.arm(seller, fault, count=1)
        await troupe.ask(f"once-{fault}", model=f"{seller}/seedance-2.0")
    await troupe.end()


async def _second_act(troupe: Troupe) -> None:
    await troupe.ask("renewed", "expired@runflow", model="runflow/seedance-2.0")
    await troupe.ask("slow", "slow_file@evolink")
    for seller in ("runflow", "evolink"):
        for fault in ("shorter", "longer", "smaller", "no_cost"):
            await troupe.ask(f"{fault}-{seller}", f"{fault}@{seller}", model=f"{seller}/seedance-2.0", seconds=5)
    await troupe.ask("dear-runflow", "dear@runflow", model="runflow/seedance-2.0")
    await troupe.ask("dear-shortapi", "dear@shortapi", model="shortapi/seedance-2.0")
    await troupe.ask("without", "no_url@evolink", routing={"order": ["evolink", "shortapi"]})
    for seller in ("fal", "runflow"):
        await troupe.ask(f"auto-{seller}", model=f"{seller}/seedance-2.0", seconds="auto", aspect_ratio="auto")
    await troupe.end()


async def _scene(folder: Path) -> Played:
    async with opened(folder, deadline_s=60) as stage:
        troupe = Troupe(stage)
        await _first_act(stage, troupe)
        await _second_act(troupe)
        content = await stage.client.get(f"/v1/videos/{troupe.ids['slow']}/content")
        spend = await stage.client.get("/admin/reports/spend", params={"group_by": "provider"})
        return await troupe.played(content=content.content, spend=spend.json()["data"])


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    return play(_scene, tmp_path_factory.mktemp("delivery"))


@pytest.mark.parametrize("fault", ONCE)
def test_download_that_fails_is_tried_again_and_not_rendered_again(played: Played, fault: str) -> None:
    case = f"once-{fault}"
    assert played.outcome(case) == ("completed", None)
    assert played.sellers(case) == [ONCE[fault]]
    fetches = rows(played.folder, "select fetches from attempts where video_id = ?", played.videos[case]["id"])
    assert fetches == [(1,)]


def test_every_completed_video_has_its_one_file(played: Played) -> None:
    kept = {path.name for path in (played.folder / "data/videos").rglob("*.mp4")}
    videos = played.videos.values()
    # The last number is the claim's under which the copy was made.
    assert sorted(name.rpartition("-")[0] for name in kept) == sorted(
        f"{video['id']}-{len(video['routing']['attempts'])}" for video in videos
    )


def test_link_that_has_expired_is_asked_for_anew(played: Played) -> None:
    assert played.outcome("renewed") == ("completed", None)
    assert played.sellers("renewed") == ["runflow"]


def test_slow_file_is_waited_for(played: Played) -> None:
    assert played.outcome("slow") == ("completed", None)
    (name,) = (played.folder / "data/videos").rglob(f"{played.videos['slow']['id']}-1-*.mp4")
    assert played.found["content"] == name.read_bytes()


def test_success_without_a_file_is_a_failure_of_the_seller(played: Played) -> None:
    assert played.outcome("without") == ("completed", None)
    assert [(provider, state) for provider, state, _ in played.attempts("without")] == [
        ("evolink", "failed"),
        ("shortapi", "done"),
    ]


# What is charged


@pytest.mark.parametrize("seller", ["runflow", "evolink"])
def test_shorter_film_is_charged_by_its_seconds(played: Played, seller: str) -> None:
    assert played.outcome(f"shorter-{seller}") == ("completed", None)
    assert played.paid(f"shorter-{seller}") == 4 * PRICES[seller]


@pytest.mark.parametrize("seller", ["runflow", "evolink"])
def test_longer_film_is_charged_as_it_was_asked(played: Played, seller: str) -> None:
    assert played.paid(f"longer-{seller}") == 5 * PRICES[seller]


@pytest.mark.parametrize(("seller", "price_480p"), [("runflow", 140_600), ("evolink", 91_900)])
def test_smaller_film_is_charged_at_the_lower_price(played: Played, seller: str, price_480p: int) -> None:
    assert played.paid(f"smaller-{seller}") == 5 * price_480p


@pytest.mark.parametrize("seller", ["runflow", "evolink"])
def test_film_whose_cost_no_answer_names_is_charged_at_its_price(played: Played, seller: str) -> None:
    assert played.paid(f"no_cost-{seller}") == 5 * PRICES[seller]


@pytest.mark.parametrize("seller", ["runflow", "shortapi"])
def test_what_a_seller_takes_beyond_the_hold_is_ours(played: Played, seller: str) -> None:
    case = f"dear-{seller}"
    assert played.paid(case) == played.hold(case)[1] == 4 * PRICES[seller]
    assert played.absorbed(case) == {"absorbed:overrun": 4 * PRICES[seller]}
    assert [job["charged_microusd"] for job in played.jobs[case]] == [8 * PRICES[seller]]


@pytest.mark.parametrize("seller", ["fal", "runflow"])
def test_length_that_the_seller_chose_is_charged_as_measured(played: Played, seller: str) -> None:
    case = f"auto-{seller}"
    (job,) = played.jobs[case]
    video = played.videos[case]
    assert played.paid(case) == job["seconds"] * PRICES[seller] == job["charged_microusd"]
    assert video["seconds"] == str(job["seconds"])
    assert video["size"] != "auto"
    assert played.hold(case)[1] == 15 * PRICES[seller]


def test_success_without_a_file_is_of_unknown_cost(played: Played) -> None:
    """EvoLink took its price, but its answer is no bill and no proof of one."""
    (line,) = [line for line in played.found["spend"] if line["provider"] == "evolink"]
    assert line["unknown_costs"] == 1


def test_sellers_books_and_ours_agree_on_every_cost_that_is_known(played: Played) -> None:
    taken = {"evolink": -4 * PRICES["evolink"]}
    for jobs in played.jobs.values():
        for job in jobs:
            taken[job["seller"]] = taken.get(job["seller"], 0) + job["charged_microusd"] - job["refunded_microusd"]
    ours = rows(
        played.folder,
        "select substr(account, 10, length(account) - 17), -sum(amount_microusd) from ledger_postings"
        " where account like 'provider:%:payable' group by account",
    )
    assert dict(ours) == {seller: microusd for seller, microusd in taken.items() if microusd}


def test_ledger_balances_and_nothing_broke_in_all_of_this(played: Played) -> None:
    check_the_ledger(played.folder)
    check_the_log(played.folder)


# What takes as long as a link lives


async def _long_scene(folder: Path) -> Played:
    async with opened(folder, deadline_s=20, link_lifetime_s=LINK_LIFETIME_S) as stage:
        troupe = Troupe(stage)
        for fault in UNREADABLE:
            await troupe.ask(f"always-{fault}", f"{fault}@shortapi", routing={"order": ["shortapi", "evolink"]})
        await troupe.end(within_s=100)

        async def billed() -> bool:
            return rows(folder, "select count(*) from attempts where bearer is null") == [(0,)]

        await eventually(billed)
        contents = [await stage.client.get(f"/v1/videos/{one}/content") for one in troupe.ids.values()]
        return await troupe.played(contents=[answer.status_code for answer in contents])


@pytest.mark.long
def test_file_that_never_comes_is_paid_by_us_and_not_rendered_again(tmp_path: Path) -> None:
    played = play(_long_scene, tmp_path)
    for fault in UNREADABLE:
        case = f"always-{fault}"
        assert played.outcome(case) == ("failed", "storage_error")
        assert played.sellers(case) == ["shortapi"]
        assert played.hold(case)[0] == "void"
        assert played.absorbed(case) == {"absorbed:undelivered": 4 * PRICES["shortapi"]}
        assert len(played.attempts(case)) == 1
    assert played.found["contents"] == [404] * len(UNREADABLE)
    assert list((tmp_path / "data/videos").rglob("*.mp4")) == []
    check_the_ledger(tmp_path)
