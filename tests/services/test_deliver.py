"""Copies: brought home or not, nothing is rendered twice and nobody pays for what did not come."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from proxy.core.errors import CommitUnknown, LeaseLost
from proxy.core.wire import Call, Reply
from proxy.outside.assets import FileUnavailable
from proxy.services.deliver import LONGEST_PAUSE_S, deliver
from proxy.services.housekeeping import keep_house
from proxy.services.watch import attend
from proxy.store.base import Tx
from proxy.store.sqlite import SqliteStore
from tests.databases import Database
from tests.outside.films import make_film
from tests.services.rehearsal import TENANT, FalOrder, Refusing, Rehearsal, rehearse, reply

T = TypeVar("T")

FAL_720P_MICROUSD = 1_213_600


async def _gone() -> None:
    raise FileUnavailable("files.example answers 404", status=404, retryable=True)


def _finished(house: Rehearsal) -> FalOrder:
    order = FalOrder()
    order.status = "COMPLETED"
    house.answers(order)
    return order


async def test_video_is_completed_when_its_copy_is_in_place_and_measured(house: Rehearsal, tmp_path: Path) -> None:
    _finished(house)
    video_id = await house.accept()
    await house.run(20)
    video = await house.video(video_id)
    footage = video.read_footage()
    assert video.status == "completed"
    assert footage is not None
    assert (tmp_path / "videos" / footage.key).read_bytes() == house.fetcher.film
    assert (footage.width_px, footage.height_px, footage.duration_ms) == (1280, 720, 4042)
    assert video.charged_microusd == FAL_720P_MICROUSD
    assert await house.rows_of_work(video_id) == []


async def test_failed_copy_is_tried_again_and_nothing_is_rendered_again(house: Rehearsal) -> None:
    _finished(house)
    video_id = await house.accept()
    house.fetcher.before = _gone
    await house.run(1300, step_s=10)
    video = await house.video(video_id)
    assert video.status == "in_progress", "the deadline limits buying, not fetching"
    house.fetcher.before = None
    await house.run(LONGEST_PAUSE_S, step_s=10)
    assert (await house.video(video_id)).status == "completed"
    assert [method for _, method, _ in house.transport.calls].count("POST") == 1


async def _breaks() -> None:
    raise UnicodeError("label too long")


async def test_copy_that_breaks_in_a_way_nobody_foresaw_is_a_failed_copy(house: Rehearsal) -> None:
    _finished(house)
    video_id = await house.accept()
    house.fetcher.before = _breaks
    await house.run(60, step_s=5)
    assert (await house.attempts(video_id))[0].fetches > 1
    house.fetcher.before = None
    await house.run(LONGEST_PAUSE_S, step_s=10)
    assert (await house.video(video_id)).status == "completed"


async def test_copy_that_fails_for_the_whole_life_of_its_link_ends_the_video(tmp_path: Path, film: bytes) -> None:
    """A week at fal: more tries than there are powers of two in a float, and than one engine need make."""
    async with rehearse(tmp_path, film) as house:
        _finished(house)
        video_id = await house.accept()
        house.fetcher.before = _gone
        await house.run(7 * 86400 + 600, step_s=150)
        video = await house.video(video_id)
        attempt = await house.attempt(video_id)
        assert attempt.fetches > 1024
        assert (video.status, video.error_code, video.hold) == ("failed", "storage_error", "void")
        assert attempt.bearer == "absorbed:undelivered"
        assert (await house.balances())["absorbed:undelivered"] == FAL_720P_MICROUSD
        assert await house.rows_of_work(video_id) == []


async def test_file_that_is_no_film_is_not_kept(house: Rehearsal, tmp_path: Path) -> None:
    _finished(house)
    house.fetcher.film = b"\0\0\0\x18ftypisom" + b"\0" * 100
    video_id = await house.accept()
    await house.run(20)
    assert (await house.attempt(video_id)).fetches > 0
    assert list((tmp_path / "videos").rglob("*.mp4")) == []


async def test_fresh_link_is_asked_for_and_used(house: Rehearsal) -> None:
    links: list[str] = []
    order = _finished(house)

    async def new_link_each_time(provider: str, call: Call) -> Reply:
        if call.path.endswith("/requests/fal-1"):
            links.append(f"https://files.example/{len(links)}.mp4")
            return reply(200, {"video": {"url": links[-1]}, "seed": 1})
        return await order(provider, call)

    house.answers(new_link_each_time)
    house.fetcher.before = _gone
    video_id = await house.accept()
    await house.run(15)
    assert (await house.attempt(video_id)).link == links[-1]
    assert len(links) > 1


async def test_crash_between_the_copy_and_the_bill_bills_once(house: Rehearsal) -> None:
    _finished(house)
    video_id = await house.accept()
    await house.settle()
    house.clock.move(11)
    (claim,) = await house.claim()
    assert await attend(house.house, claim, await house.video(video_id), await house.attempt(video_id)) is not None
    await house.restart()
    await house.settle()
    video = await house.video(video_id)
    assert (video.status, video.charged_microusd) == ("completed", FAL_720P_MICROUSD)


async def test_film_waits_in_its_place_for_a_database_that_is_full(tmp_path: Path, film: bytes) -> None:
    """Else each try would fill the disk with one more copy."""
    async with rehearse(tmp_path, film, store=Refusing) as house:
        store = house.house.store
        assert isinstance(store, Refusing)
        _finished(house)
        video_id = await house.accept()

        async def fill() -> None:
            store.refusals = 3

        house.fetcher.before = fill
        await house.run(20)
        assert store.refusals == 0
        assert (await house.video(video_id)).status == "completed"
        assert house.fetcher.opened == 1
        assert len(list((tmp_path / "videos").rglob("*.mp4"))) == 1


async def test_film_that_was_deleted_while_its_folder_was_away_goes_when_that_is_back(
    house: Rehearsal, tmp_path: Path
) -> None:
    _finished(house)
    video_id = await house.accept()
    await house.run(20)
    folder, away = tmp_path / "videos", tmp_path / "away"
    folder.rename(away)
    assert await house.delete(video_id)
    away.rename(folder)
    assert len(list(folder.rglob("*.mp4"))) == 1
    kept = await keep_house(house.house.store, house.house.storage, house.house.rules.retention)
    assert (kept.files, kept.files_stuck) == (1, 0)
    assert list(folder.rglob("*.mp4")) == []


class LostAnswer(SqliteStore):
    """Keeps what it is told, and once it cannot say so."""

    loses = False

    async def write(self, unit: Callable[[Tx], T]) -> T:
        value = await super().write(unit)
        if self.loses:
            self.loses = False
            raise CommitUnknown("Nobody can say whether it was kept.")
        return value


async def test_film_stays_where_nobody_can_say_whether_it_was_delivered(tmp_path: Path, film: bytes) -> None:
    async with rehearse(tmp_path, film, store=LostAnswer) as house:
        store = house.house.store
        assert isinstance(store, LostAnswer)
        _finished(house)
        video_id = await house.accept()

        async def lose() -> None:
            store.loses = True

        house.fetcher.before = lose
        with pytest.raises(CommitUnknown):
            await house.run(20)
        assert (await house.video(video_id)).status == "completed"
        assert len(list((tmp_path / "videos").rglob("*.mp4"))) == 1


async def test_stale_copier_neither_bills_nor_removes_the_file(house: Rehearsal, tmp_path: Path) -> None:
    """Two workers bring the same film home; the one that lost its lease changes nothing."""
    _finished(house)
    video_id = await house.accept()
    await house.settle()

    async def overtaken() -> None:
        house.fetcher.before = None
        house.clock.move(100)
        await house.settle()
        assert (await house.video(video_id)).status == "completed"

    house.fetcher.before = overtaken
    house.clock.move(11)
    await house.turn()
    video = await house.video(video_id)
    footage = video.read_footage()
    assert footage is not None
    assert (tmp_path / "videos" / footage.key).exists()
    assert (await house.balances())[f"tenant:{TENANT.id}:spend"] == FAL_720P_MICROUSD


async def test_deadline_in_the_middle_of_a_copy_does_not_stop_it(house: Rehearsal) -> None:
    _finished(house)
    video_id = await house.accept()

    async def slow() -> None:
        house.clock.move(30)
        await house.settle()

    house.fetcher.before = slow
    await house.settle()
    house.clock.move(1195)
    await house.turn()
    assert (await house.video(video_id)).status == "completed"


# What is charged for what came


async def _delivered(database: Database, film: bytes, *, cost: str | None, **ask: Any) -> dict[str, int]:
    """Balances after one film from Runflow, which names `cost`."""
    async with rehearse(database, film, order=("runflow",)) as house:

        async def runflow(provider: str, call: Call) -> Reply:
            del provider
            if call.method == "POST":
                return reply(201, {"id": "run-1", "status_code": "queued"})
            output = {"outputs": [{"url": "https://files.example/film.mp4", "type": "video"}]}
            return reply(200, {"id": "run-1", "status_code": "succeeded", "cost": cost, "output": output})

        house.answers(runflow)
        video_id = await house.accept(**ask)
        await house.run(20)
        video = await house.video(video_id)
        assert video.status == "completed"
        assert video.charged_microusd is not None
        assert video.charged_microusd <= video.hold_microusd
        return await house.balances()


SPEND = f"tenant:{TENANT.id}:spend"
MARKUP = f"tenant:{TENANT.id}:markup"


async def test_shorter_film_is_charged_as_it_came(database: Database) -> None:
    film = make_film(seconds=4, width_px=1280, height_px=720)
    balances = await _delivered(database, film, cost="1.5170", seconds=5)
    assert balances[SPEND] == 4 * 303_400
    assert balances["provider:runflow:payable"] == -1_517_000
    assert balances[MARKUP] == 303_400, "the seller took it, so the loss is our margin"


async def test_longer_film_is_charged_as_it_was_asked(database: Database) -> None:
    film = make_film(seconds=5, width_px=1280, height_px=720)
    balances = await _delivered(database, film, cost="1.2136", seconds=4)
    assert balances == {SPEND: FAL_720P_MICROUSD, "provider:runflow:payable": -FAL_720P_MICROUSD}


async def test_smaller_film_is_charged_at_the_lower_price(database: Database) -> None:
    film = make_film(seconds=4, width_px=864, height_px=496)
    balances = await _delivered(database, film, cost="1.2136", seconds=4)
    assert balances[SPEND] == 4 * 140_600


async def test_what_a_seller_takes_beyond_the_hold_is_ours(database: Database, film: bytes) -> None:
    balances = await _delivered(database, film, cost="2.4272", seconds=4)
    assert balances[SPEND] == FAL_720P_MICROUSD
    assert balances["absorbed:overrun"] == FAL_720P_MICROUSD
    assert balances["provider:runflow:payable"] == -2 * FAL_720P_MICROUSD


async def test_seller_that_names_no_cost_is_owed_its_price(database: Database, film: bytes) -> None:
    balances = await _delivered(database, film, cost=None, seconds=4)
    assert balances == {SPEND: FAL_720P_MICROUSD, "provider:runflow:payable": -FAL_720P_MICROUSD}


async def test_length_that_the_seller_chose_is_charged_as_measured(database: Database) -> None:
    film = make_film(seconds=7, width_px=1280, height_px=720)
    balances = await _delivered(database, film, cost=None, seconds="auto")
    assert balances == {SPEND: 7 * 303_400, "provider:runflow:payable": -7 * 303_400}


@pytest.mark.parametrize("billed", [False, True])
async def test_failed_attempt_is_borne_by_us_unless_the_rule_bills_it(
    database: Database, film: bytes, *, billed: bool
) -> None:
    """ShortAPI keeps its money for a render that broke; Runflow then delivers."""
    async with rehearse(database, film, order=("runflow", "fal"), rule={"bill_failed_attempts": billed}) as house:
        order = FalOrder()
        order.status = "COMPLETED"

        async def script(provider: str, call: Call) -> Reply:
            if provider == "fal":
                return await order(provider, call)
            if call.method == "POST":
                return reply(201, {"id": "run-1", "status_code": "queued"})
            return reply(200, {"id": "run-1", "status_code": "failed", "cost": "0.50", "failure_message": "broke"})

        house.answers(script)
        video_id = await house.accept()
        await house.run(60)
        video = await house.video(video_id)
        assert video.status == "completed"
        balances = await house.balances()
        assert balances["provider:runflow:payable"] == -500_000
        if billed:
            assert balances[SPEND] == video.charged_microusd == FAL_720P_MICROUSD + 500_000
        else:
            assert balances[SPEND] == video.charged_microusd == FAL_720P_MICROUSD
            assert balances["absorbed:failed_attempt"] == 500_000


async def test_copier_that_lost_its_lease_spoils_no_copy_but_its_own(house: Rehearsal, tmp_path: Path) -> None:
    """It was slow, another copied and delivered meanwhile; then its own half film arrives."""
    _finished(house)
    video_id = await house.accept()
    await house.settle()
    house.clock.move(11)
    (slow,) = await house.claim()
    video, attempt = await house.video(video_id), await house.attempt(video_id)
    done = await attend(house.house, slow, video, attempt)
    assert done is not None
    await house.restart()
    await house.run(5)
    delivered = (await house.video(video_id)).read_footage()
    assert delivered is not None
    with pytest.raises(LeaseLost):
        await deliver(house.house, slow, video, done)
    files = [path.name for path in (tmp_path / "videos" / TENANT.id).iterdir()]
    assert files == [delivered.key.rsplit("/", 1)[-1]]
