"""What the kinds of storage share."""

import asyncio
import threading

import pytest

from proxy.outside.base import StorageFailed, checked_key, in_thread


@pytest.mark.parametrize("key", ["", "/etc/passwd", "../up", "a/../../up", "."])
def test_key_cannot_leave_the_storage(key: str) -> None:
    with pytest.raises(StorageFailed):
        checked_key(key)


@pytest.mark.parametrize("key", ["video.mp4", "2026/11/video_1.mp4"])
def test_plain_key_is_taken(key: str) -> None:
    assert checked_key(key) == key


async def test_cancelled_work_is_over_before_the_caller_goes_on() -> None:
    loop = asyncio.get_running_loop()
    begun, go, over = asyncio.Event(), threading.Event(), threading.Event()

    def work() -> None:
        loop.call_soon_threadsafe(begun.set)
        go.wait(5)
        over.set()
        raise OSError("nobody asks any more")

    task = asyncio.create_task(in_thread(work))
    await begun.wait()
    task.cancel()
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.sleep(0.01)
    assert not task.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert over.is_set()
