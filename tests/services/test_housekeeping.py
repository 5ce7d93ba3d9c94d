"""What has outlived its time goes, whoever is killed in the middle of it, and nothing else does."""

import asyncio
import os
from pathlib import Path

import msgspec
import pytest

from proxy.core.clock import DAY_US
from proxy.core.errors import Overloaded
from proxy.outside.base import StorageFailed
from proxy.outside.storage import Folder
from proxy.policy.rules import Retention
from proxy.services.housekeeping import Kept, LeftBehind, keep_house, keep_house_forever, remove_left_behind
from proxy.store import videos
from proxy.store.base import Tx
from proxy.store.videos import Bound
from tests.services.rehearsal import TENANT, FalOrder, Rehearsal

RETENTION = Retention(files_days=30, prompts_days=90)
DAY_S = 86_400


async def completed(house: Rehearsal, **ask: object) -> str:
    order = FalOrder(f"fal-{house.clock.now_us}")
    order.status = "COMPLETED"
    house.answers(order)
    video_id = await house.accept(model="fal/seedance-2.0", **ask)
    await house.run(20)
    assert (await house.video(video_id)).status == "completed"
    return video_id


async def keep(house: Rehearsal, *, dry_run: bool = False) -> Kept:
    return await keep_house(house.house.store, house.house.storage, RETENTION, dry_run=dry_run)


def films(folder: Path) -> list[Path]:
    return sorted((folder / "videos").rglob("*.mp4"))


class Stubborn(Folder):
    """Deletes nothing, as a bucket that forbids it."""

    async def delete(self, key: str) -> None:
        raise StorageFailed(f"{key}: Permission denied")


# Films


async def test_film_expires_as_many_days_after_its_completion_as_the_rules_say(house: Rehearsal) -> None:
    video = await house.video(await completed(house))
    assert video.ended_at is not None
    assert video.expires_at == video.ended_at + 30 * DAY_US


async def test_expired_film_goes_and_what_was_measured_stays(house: Rehearsal, tmp_path: Path) -> None:
    video_id = await completed(house)
    before = await house.video(video_id)
    size_bytes = films(tmp_path)[0].stat().st_size
    house.clock.move(30 * DAY_S - 60)
    assert not (await keep(house)).files
    house.clock.move(60)
    assert await keep(house, dry_run=True) == Kept(files=1, file_bytes=size_bytes, idempotency_keys=0)
    assert await house.video(video_id) == before
    assert await keep(house) == Kept(files=1, file_bytes=size_bytes)
    assert films(tmp_path) == []
    assert await house.video(video_id) == msgspec.structs.replace(before, file_removed_at=house.clock.now_us)
    assert await keep(house) == Kept()


async def test_film_that_was_deleted_just_before_a_crash_is_marked_by_the_next_pass(
    house: Rehearsal, tmp_path: Path
) -> None:
    video_id = await completed(house)
    house.clock.move(31 * DAY_S)
    films(tmp_path)[0].unlink()
    assert (await keep(house)).files == 1
    assert (await house.video(video_id)).file_removed_at == house.clock.now_us


async def test_film_that_the_storage_does_not_delete_is_tried_again(house: Rehearsal, tmp_path: Path) -> None:
    video_id = await completed(house)
    house.clock.move(31 * DAY_S)
    kept = await keep_house(house.house.store, Stubborn(tmp_path / "videos"), RETENTION)
    assert (kept.files, kept.files_stuck) == (0, 1)
    assert (await house.video(video_id)).file_removed_at is None
    assert (await keep(house)).files == 1


async def test_two_that_keep_house_at_once_do_not_hurt_each_other(house: Rehearsal, tmp_path: Path) -> None:
    for _ in range(3):
        await completed(house)
    house.clock.move(100 * DAY_S)
    passes = await asyncio.gather(keep(house), keep(house))
    assert max(one.files for one in passes) == 3
    assert sum(one.prompts for one in passes) == 3
    assert films(tmp_path) == []
    assert await keep(house) == Kept()


async def test_deleted_film_that_could_not_be_removed_is_removed_later(house: Rehearsal, tmp_path: Path) -> None:
    video_id = await completed(house)
    honest, house.house.storage = house.house.storage, Stubborn(tmp_path / "videos")
    assert await house.delete(video_id)
    assert len(films(tmp_path)) == 1
    house.house.storage = honest
    assert (await keep(house)).files == 1
    assert films(tmp_path) == []
    assert (await house.video(video_id)).footage is None


# Words


async def test_prompt_goes_after_its_days_and_metadata_stays(house: Rehearsal) -> None:
    video_id = await completed(house, prompt="an unlucky boat", metadata={"team": "ads"})
    house.clock.move(89 * DAY_S)
    assert not (await keep(house)).prompts
    house.clock.move(2 * DAY_S)
    assert (await keep(house, dry_run=True)).prompts == 1
    assert (await keep(house)).prompts == 1
    video, attempt = await house.video(video_id), await house.attempt(video_id)
    assert (video.prompt, video.erased, attempt.link, attempt.message) == (None, True, None, None)
    assert video.read_metadata() == {"team": "ads"}


async def test_prompt_of_a_video_that_still_lives_is_kept_however_old(house: Rehearsal) -> None:
    house.answers(FalOrder())
    video_id = await house.accept(prompt="a slow boat")
    await house.settle()
    house.clock.move(500 * DAY_S)
    assert not (await keep(house)).prompts
    assert (await house.video(video_id)).prompt == "a slow boat"


async def test_idempotency_key_goes_after_its_day(house: Rehearsal) -> None:
    video_id = await house.accept()

    def bind(tx: Tx) -> None:
        videos.bind(tx, [Bound(tenant_id=TENANT.id, key="k", fingerprint="f", video_id=video_id, created_at=tx.now_us)])

    await house.house.store.write(bind)
    house.clock.move(DAY_S)
    assert not (await keep(house)).idempotency_keys
    house.clock.move(1)
    assert (await keep(house, dry_run=True)).idempotency_keys == 1
    assert (await keep(house)).idempotency_keys == 1


# Now and then


async def test_worker_keeps_house_now_and_then(house: Rehearsal, tmp_path: Path) -> None:
    await completed(house)
    house.clock.move(31 * DAY_S)
    keeping = asyncio.create_task(keep_house_forever(house.house, every_s=0.01))
    async with asyncio.timeout(10):
        while films(tmp_path):
            await asyncio.sleep(0.01)
    keeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeping


async def test_pass_that_breaks_is_not_the_last(house: Rehearsal, tmp_path: Path) -> None:
    class Moody(Folder):
        moods = 2

        async def delete(self, key: str) -> None:
            self.moods -= 1
            if self.moods == 1:
                raise Overloaded("not now")
            if self.moods == 0:
                raise RuntimeError("nobody thought of this")
            await super().delete(key)

    await completed(house)
    house.clock.move(31 * DAY_S)
    house.house.storage = Moody(tmp_path / "videos")
    keeping = asyncio.create_task(keep_house_forever(house.house, every_s=0.01))
    async with asyncio.timeout(10):
        while films(tmp_path):
            await asyncio.sleep(0.01)
    keeping.cancel()
    await asyncio.wait([keeping])


# Files that no row tells of


def put(folder: Path, key: str, *, days_old: float, now_us: int) -> Path:
    path = folder / "videos" / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"film")
    at = now_us / 1e6 - days_old * DAY_S
    os.utime(path, (at, at))
    return path


async def test_file_that_a_crash_left_behind_is_removed_once_it_is_a_day_old(house: Rehearsal, tmp_path: Path) -> None:
    video_id = await completed(house)
    (film,) = films(tmp_path)
    os.utime(film, (1_790_000_000, 1_790_000_000))
    house.answers(FalOrder())
    live = await house.accept()
    now_us = house.clock.now_us
    left = put(tmp_path, f"{TENANT.id}/{video_id}-1-77.mp4", days_old=1.1, now_us=now_us)
    put(tmp_path, f"{TENANT.id}/{video_id}-1-78.mp4", days_old=0.9, now_us=now_us)
    put(tmp_path, f"{TENANT.id}/{live}-1-2.mp4", days_old=3, now_us=now_us)
    put(tmp_path, f"{TENANT.id}/video_0123-1-2.mp4", days_old=3, now_us=now_us)
    put(tmp_path, "holiday.mp4", days_old=300, now_us=now_us)
    store, storage = house.house.store, house.house.storage
    before = films(tmp_path)
    expected = LeftBehind(files=1, file_bytes=4, not_ours=1)
    assert await remove_left_behind(store, storage, dry_run=True) == expected
    assert films(tmp_path) == before
    assert await remove_left_behind(store, storage) == expected
    assert films(tmp_path) == [path for path in before if path != left]
    assert await remove_left_behind(store, storage) == LeftBehind(not_ours=1)
