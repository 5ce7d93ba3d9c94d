"""The server dies at every write and every call of a video's life; nothing is lost, and nothing bought twice."""

from pathlib import Path

import pytest

from tests.torture import crash_points
from tests.torture.crash_points import Point, record
from tests.torture.verdict import Tally, summed, table, too_few, total, were_bought_twice


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_nothing_is_lost_or_bought_twice_wherever_the_server_dies(tmp_path: Path) -> None:
    # One of each kind; `make torture` tries them all.
    points = crash_points.one_of_each(await record(tmp_path / "record"))
    tallies = await crash_points.attempt(points, tmp_path / "try")
    lines = summed(tallies.values())
    assert all(line.is_clean for line in lines), table(lines)
    missed = [point.name for point in points if point not in tallies]
    assert not crash_points.too_many_missed(missed, len(points)), missed
    whole = total("all", lines)
    assert whole.delivered + whole.failed + whole.withdrawn == whole.tries >= whole.kills == len(tallies)
    assert not too_few(lines), table(lines)


@pytest.mark.long
async def test_point_that_is_never_come_by_is_no_try(tmp_path: Path) -> None:
    point = Point(scene="plain", name="put film no.99 middle")
    assert await crash_points.attempt([point], tmp_path) == {}


def test_part_is_not_clean_where_more_than_a_few_points_were_missed() -> None:
    assert crash_points.too_many_missed(["a"] * 5, 100) == []
    [line] = crash_points.too_many_missed(["a"] * 6, 100)
    assert not line.is_clean


def test_part_in_which_most_videos_fail_for_a_reason_is_not_clean() -> None:
    assert too_few([Tally(fault="a", tries=10, delivered=6, withdrawn=2)]) == []
    assert too_few([Tally(fault="a", tries=10, delivered=5, failed=3, withdrawn=2)]) == [
        "5 of 8 were delivered, which is less than 75%"
    ]


async def test_a_videos_life_has_points_at_its_submit_its_commits_its_poll_and_its_copy(tmp_path: Path) -> None:
    names = [point.name for point in await record(tmp_path, scenes=["plain"])]
    life = (
        "write proxy.services.intake.accept_many no.1 before",
        "write proxy.services.intake.accept_many no.1 after",
        "send POST evolink no.1 before",
        "send POST evolink no.1 after",
        "write proxy.services.dispatch._record no.1 before",
        "send GET evolink no.1 after",
        "fetch film no.1 after",
        "put film no.1 before",
        "put film no.1 middle",
        "put film no.1 after",
        "write proxy.services.deliver._complete no.1 after",
    )
    assert [name for name in names if name in life] == list(life)


async def test_server_dies_once_at_the_point_that_it_was_given(tmp_path: Path) -> None:
    point = Point(scene="plain", name="put film no.1 middle")
    tallies = await crash_points.attempt([point], tmp_path)
    assert tallies[point] == Tally(fault=point.fault, tries=1, kills=1, delivered=1)


def test_line_of_a_fault_whose_books_differ_says_so() -> None:
    fine, bad = (
        Tally(fault="killed", tries=1, delivered=1),
        Tally(fault="killed", tries=1, differences=["fal: it took 2"]),
    )
    [line] = summed([fine, bad])
    assert (line.tries, line.delivered, line.is_clean) == (2, 1, False)
    assert table([line]).splitlines()[2].endswith("no")
    assert table([line]).splitlines()[3] == "    fal: it took 2"
    assert table([fine]).splitlines()[2].endswith("yes")


def test_last_line_of_the_table_is_the_sum() -> None:
    lines = [Tally(fault="a", tries=1, delivered=1), Tally(fault="b", tries=2, failed=2, differences=["one"])]
    assert table(lines).splitlines()[-1].split() == ["all", "3", "0", "1", "2", "0", "0", "0", "0", "0", "no"]


def test_success_without_a_link_is_no_film() -> None:
    without = {"seller": "fal", "state": "succeeded", "faults": ["no_url"]}
    assert not were_bought_twice([without, {"seller": "evolink", "state": "succeeded", "faults": []}])


@pytest.mark.parametrize(
    ("jobs", "twice"),
    [
        ([], False),
        ([("fal", "succeeded")], False),
        ([("fal", "failed"), ("evolink", "succeeded")], False),
        ([("fal", "succeeded"), ("evolink", "succeeded")], True),
        ([("fal", "cancelled"), ("fal", "succeeded")], True),
    ],
)
def test_second_film_or_second_order_at_a_seller_is_bought_twice(jobs: list[tuple[str, str]], twice: bool) -> None:
    assert were_bought_twice([{"seller": seller, "state": state, "faults": []} for seller, state in jobs]) is twice
