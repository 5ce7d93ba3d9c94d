"""What an audit asks of the books, page by page."""

import pytest

from proxy.store import audit, ledger
from proxy.store.base import Store, Tx
from tests.store.rows import AT, add_settlements, add_videos, make_entry, make_settlement, make_video


async def charged(store: Store, count: int) -> None:
    """So many videos, each with a hold of 10 that was posted with a charge of 7."""
    videos = [make_video(id=f"video_{n}", hold="posted", hold_microusd=10, charged_microusd=7) for n in range(count)]
    await add_videos(store, *videos)

    def unit(tx: Tx) -> None:
        for video in videos:
            hold = make_entry(video_id=video.id, kind="hold", attempt_no=0, price_id=None)
            post = make_entry(video_id=video.id, quantity=1, unit_usd="0.000007", fixed_usd="0")
            moved = {"tenant:acme:spend": 7, "provider:p:payable": -7} | dict(ledger.void_postings("acme", 10))
            ledger.write_many(tx, [(hold, ledger.hold_postings("acme", 10)), (post, moved)])

    await store.write(unit)


@pytest.mark.parametrize("page", [1, 2, 5, 1000])
async def test_every_charge_is_told_once_whatever_the_page(store: Store, page: int) -> None:
    await charged(store, 5)
    found = await store.read(lambda tx: list(audit.charges(tx, page=page)))
    assert [one.id for one in found] == [f"video_{n}/1/post" for n in range(5)]
    assert {(one.quantity, one.unit_usd, one.spent_microusd, one.hold_microusd) for one in found} == {
        (1, "0.000007", 7, 10)
    }


async def test_good_books_have_nothing_to_tell(store: Store) -> None:
    await charged(store, 2)
    await add_videos(store, make_video(id="video_live"))
    assert await store.read(lambda tx: audit.unbalanced(tx, start=0, end=AT + 1)) == []
    assert await store.read(audit.unlike_their_ends) == []


async def test_video_without_its_end_and_end_without_its_video_are_told(store: Store) -> None:
    await charged(store, 1)
    await add_videos(store, make_video(id="video_bare", hold="posted", charged_microusd=7))
    found = await store.read(audit.unlike_their_ends)
    assert found == [("video_bare", "the video says posted and 7, the ledger None and None")]


async def test_cost_of_which_reports_tell_otherwise_is_told_with_the_difference(store: Store) -> None:
    await charged(store, 3)
    good, bad = (
        make_settlement(id=f"video_{n}/1/post", charged_microusd=charged, seller_microusd=7)
        for n, charged in ((0, 7), (1, 9))
    )
    await add_settlements(store, good, bad)

    async def unlike(start: int, end: int) -> list[tuple[str, int]]:
        return await store.read(lambda tx: audit.unlike_settled(tx, start=start, end=end))

    assert await unlike(0, AT + 1) == [("video_1/1/post", 2), ("video_2/1/post", 14)]
    assert await unlike(AT + 1, AT + 2) == await unlike(0, AT) == []
