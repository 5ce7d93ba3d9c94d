"""Providers that the rules name no more while attempts there are not over."""

from proxy.core.video import RoutingWish
from proxy.services.vanished import MESSAGE, Vanished, mark_vanished
from tests.services.rehearsal import FalOrder, Rehearsal

ALL = {"fal", "runflow", "shortapi", "evolink"}


async def running(house: Rehearsal) -> str:
    house.answers(FalOrder())
    video_id = await house.accept()
    await house.settle()
    assert await house.states(video_id) == ["running"]
    return video_id


async def start(house: Rehearsal, known: set[str]) -> Vanished:
    """What a server does when it starts with rules that name these."""
    return await house.house.store.write(lambda tx: mark_vanished(tx, known))


async def test_attempt_that_nobody_can_ask_about_counts_as_unknown(house: Rehearsal) -> None:
    video_id = await running(house)
    found = await start(house, ALL - {"fal"})
    assert found == Vanished(providers=("fal",), marked=1, returned=0)
    attempt = await house.attempt(video_id)
    assert (attempt.state, attempt.message, attempt.seller_id) == ("unknown", MESSAGE, "fal-1")
    await house.run(60, step_s=10)
    assert await house.states(video_id) == ["unknown"]
    assert (await house.video(video_id)).hold == "held"


async def test_at_the_deadline_its_video_ends_as_outcome_unknown(house: Rehearsal) -> None:
    video_id = await running(house)
    await start(house, ALL - {"fal"})
    await house.run(1300, step_s=100)
    video = await house.video(video_id)
    assert (video.status, video.error_code, video.hold) == ("failed", "outcome_unknown", "void")
    assert await house.states(video_id) == ["unknown"]


async def test_rule_that_would_rather_pay_twice_buys_elsewhere(bold: Rehearsal) -> None:
    video_id = await running(bold)
    await start(bold, ALL - {"fal"})
    await bold.settle()
    assert (await bold.states(video_id))[0] == "unknown"
    assert [attempt.provider for attempt in await bold.attempts(video_id)] == ["fal", "runflow"]


async def test_provider_that_comes_back_is_polled_again(house: Rehearsal) -> None:
    video_id = await running(house)
    await start(house, ALL - {"fal"})
    await house.settle()
    assert await start(house, ALL) == Vanished(providers=(), marked=0, returned=1)
    order = FalOrder()
    order.status = "COMPLETED"
    house.answers(order)
    await house.settle()
    assert (await house.video(video_id)).status == "completed"


async def test_nothing_owed_changes_nothing(house: Rehearsal) -> None:
    assert await start(house, set()) == Vanished(providers=(), marked=0, returned=0)


async def test_attempts_elsewhere_are_left_alone(house: Rehearsal) -> None:
    video_id = await running(house)
    other = await house.accept(routing=RoutingWish(only=("runflow",)))
    await house.settle()
    states = await house.states(other)
    assert await start(house, ALL) == Vanished(providers=(), marked=0, returned=0)
    assert (await house.states(video_id), await house.states(other)) == (["running"], states)
