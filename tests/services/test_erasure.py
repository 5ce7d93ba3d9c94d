"""An erased end user leaves bills under a surrogate, and neither name, words nor films."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from proxy.core.errors import InvalidValue, NotFound
from proxy.core.video import RoutingWish
from proxy.core.wire import Call, Reply
from proxy.outside.base import StorageFailed
from proxy.outside.storage import Folder
from proxy.services.erasure import VIDEOS_EACH, Erased, ErasureWish, erase_end_user
from proxy.services.told import tell
from proxy.store import tenants, videos
from proxy.store.base import Tx
from proxy.store.tenants import AdminAct
from tests.services.rehearsal import TENANT, FalOrder, Rehearsal

NAME, WORDS = "ann@example.org", "an unlucky paper boat"
FAL = RoutingWish(only=("fal",))


async def erase(house: Rehearsal, name: str = NAME, reason: str | None = "a letter") -> Erased:
    return await erase_end_user(
        house.house.store,
        house.house.storage,
        house.house.new_id,
        lambda video, moved: tell(house.house, video, moved),
        actor="key_7",
        tenant=TENANT.id,
        wish=ErasureWish(end_user_id=name, reason=reason),
    )


async def acts(house: Rehearsal) -> list[AdminAct]:
    return await house.house.store.read_now(lambda tx: tenants.acts(tx, most=10))


def everything(folder: Path) -> str:
    """Every value of every row, as text."""
    with closing(sqlite3.connect(folder / "reelay.db")) as database:
        tables = [name for (name,) in database.execute("select name from sqlite_master where type = 'table'")]
        return repr([row for table in tables for row in database.execute(f"select * from {table}")])  # noqa: S608  # the names come from the database itself


async def ask(house: Rehearsal, order: FalOrder, name: str | None = NAME) -> str:
    house.answers(order)
    video_id = await house.accept(prompt=WORDS, end_user_id=name, metadata={"who": WORDS}, routing=FAL)
    await house.settle()
    return video_id


async def test_every_video_of_the_user_is_deleted_whatever_it_is_doing(house: Rehearsal, tmp_path: Path) -> None:
    order = FalOrder("fal-done")
    completed = await ask(house, order)
    order.status = "COMPLETED"
    await house.run(20)
    running = await ask(house, FalOrder("fal-running"))
    queued = await house.accept(prompt=WORDS, end_user_id=NAME)
    assert (await house.video(completed)).status == "completed"
    surrogate = (await house.video(completed)).end_user
    bill = await house.balances()

    assert await erase(house) == Erased(tenant=TENANT.id, end_user=str(surrogate), videos=3)
    kept = everything(tmp_path)
    assert NAME not in kept
    assert WORDS not in kept
    assert list((tmp_path / "videos").rglob("*.mp4")) == []
    for video_id, status in ((completed, "completed"), (running, "failed"), (queued, "failed")):
        video = await house.video(video_id)
        assert (video.status, video.end_user) == (status, surrogate)
        assert video.deleted_at is not None
    spent = f"tenant:{TENANT.id}:spend"
    assert (await house.balances())[spent] == bill[spent]


async def test_running_order_is_stopped_and_what_it_costs_is_still_billed(house: Rehearsal) -> None:
    order = FalOrder()
    video_id = await ask(house, order)
    await erase(house)
    order.status = "COMPLETED"
    await house.run(20)
    assert [method for _, method, _ in house.transport.calls].count("PUT") == 1
    video = await house.video(video_id)
    assert (video.hold, video.charged_microusd) == ("posted", 1_213_600)
    entries = await house.balances()
    assert entries[f"tenant:{TENANT.id}:spend"] == 1_213_600


async def test_nobody_elses_videos_are_touched(house: Rehearsal) -> None:
    others = [await ask(house, FalOrder("fal-1"), "bob"), await ask(house, FalOrder("fal-2"), None)]
    await ask(house, FalOrder("fal-3"))
    assert (await erase(house)).videos == 1
    for video_id in others:
        assert (await house.video(video_id)).live
        assert (await house.video(video_id)).prompt == WORDS


async def test_row_in_the_log_says_who_and_why_but_not_whom(house: Rehearsal) -> None:
    video_id = await ask(house, FalOrder())
    await erase(house)
    (act,) = await acts(house)
    surrogate = (await house.video(video_id)).end_user
    assert (act.actor, act.action, act.subject) == ("key_7", "end_user.erase", f"{TENANT.id}/{surrogate}")
    assert (act.reason, act.before, act.after) == ("a letter", None, None)


async def test_same_name_is_a_new_end_user_afterwards(house: Rehearsal) -> None:
    before = await house.video(await ask(house, FalOrder("fal-1")))
    await erase(house)
    after = await house.video(await ask(house, FalOrder("fal-2")))
    assert after.end_user not in {None, before.end_user}
    assert after.live


async def test_user_with_more_videos_than_one_transaction_takes_is_erased_whole(
    house: Rehearsal, tmp_path: Path
) -> None:
    for _ in range(VIDEOS_EACH + 3):
        await house.accept(prompt=WORDS, end_user_id=NAME)
    assert (await erase(house)).videos == VIDEOS_EACH + 3
    assert WORDS not in everything(tmp_path)


async def test_erasure_that_was_broken_off_is_asked_for_again(house: Rehearsal, tmp_path: Path) -> None:
    """The name goes last: until then the user can be named."""
    for _ in range(VIDEOS_EACH + 1):
        await house.accept(prompt=WORDS, end_user_id=NAME)
    heard = 0

    class Killed(BaseException):
        pass

    def told(*_: object) -> None:
        nonlocal heard
        heard += 1
        raise Killed

    with pytest.raises(Killed):
        await erase_end_user(
            house.house.store, house.house.storage, house.house.new_id, told,
            actor="cli", tenant=TENANT.id, wish=ErasureWish(end_user_id=NAME),
        )  # fmt: skip
    assert heard == 1
    assert await acts(house) == []
    assert (await erase(house)).videos == 1
    assert NAME not in everything(tmp_path)


async def test_video_accepted_while_the_others_are_erased_goes_too(house: Rehearsal, tmp_path: Path) -> None:
    await house.accept(prompt=WORDS, end_user_id=NAME)
    late: list[str] = []

    class Slow(Folder):
        async def delete(self, key: str) -> None:
            late.append(await house.accept(prompt=WORDS, end_user_id=NAME))
            await super().delete(key)

    order = FalOrder()
    order.status = "COMPLETED"
    await ask(house, order)
    await house.run(20)
    house.house.storage = Slow(tmp_path / "videos")
    assert (await erase(house)).videos == 3
    assert len(late) == 1
    assert WORDS not in everything(tmp_path)


async def test_film_that_the_storage_keeps_for_now_does_not_keep_the_name(house: Rehearsal, tmp_path: Path) -> None:
    class Stubborn(Folder):
        async def delete(self, key: str) -> None:
            raise StorageFailed(f"{key}: Permission denied")

    order = FalOrder()
    order.status = "COMPLETED"
    video_id = await ask(house, order)
    await house.run(20)
    house.house.storage = Stubborn(tmp_path / "videos")
    assert (await erase(house)).videos == 1
    assert NAME not in everything(tmp_path)
    video = await house.video(video_id)
    assert video.expires_at == house.clock.now_us, "the housekeeping deletes it as soon as it can be"


@pytest.mark.parametrize("reason", [NAME, f"{NAME.upper()} asked", f"asked by <{NAME}>", "x" * 1001, "a\0b"])
async def test_reason_that_names_the_person_or_is_no_text_is_refused(house: Rehearsal, reason: str) -> None:
    await house.accept(end_user_id=NAME)
    with pytest.raises(InvalidValue):
        await erase(house, reason=reason)
    assert await house.house.store.read_now(lambda tx: tenants.surrogate_of(tx, TENANT.id, NAME)) is not None


async def test_nobody_of_that_name_changes_nothing(house: Rehearsal) -> None:
    with pytest.raises(NotFound) as caught:
        await erase(house)
    assert NAME not in str(caught.value), "messages are shown and logged"
    assert await acts(house) == []


async def test_seller_that_answers_after_the_erasure_leaves_no_words(house: Rehearsal, tmp_path: Path) -> None:
    async def quotes(provider: str, call: Call) -> Reply:
        if call.method == "POST":
            await erase(house)
        return await FalOrder()(provider, call)

    house.answers(quotes)
    await house.accept(prompt=WORDS, end_user_id=NAME, routing=FAL)
    await house.settle()
    assert WORDS not in everything(tmp_path)
    assert NAME not in everything(tmp_path)

    def all_hidden(tx: Tx) -> bool:
        return videos.page(tx, TENANT.id, end_user=None, after=None, newest_first=True, most=9) == []

    assert await house.house.store.read_now(all_hidden)
