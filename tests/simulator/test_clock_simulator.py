import asyncio

from proxy.simulator.clock import Clock


class Wall:
    """A wall clock that is moved by hand."""

    def __init__(self) -> None:
        self.now_s = 1_790_000_000.0

    def __call__(self) -> float:
        return self.now_s


def test_sellers_time_runs_faster_by_the_factor() -> None:
    wall = Wall()
    clock = Clock(factor=0.01, wall=wall)
    start_s = clock.now_s()
    wall.now_s += 1

    assert round(clock.now_s() - start_s) == 100
    assert round(clock.wall_s(start_s), 3) == wall.now_s - 1
    assert clock.real_s(100) == 1


def test_change_of_pace_keeps_what_has_passed() -> None:
    wall = Wall()
    clock = Clock(factor=0.1, wall=wall)
    start_s = clock.now_s()
    wall.now_s += 1
    clock.set(factor=1)
    wall.now_s += 1

    assert round(clock.now_s() - start_s, 6) == 11


def test_manual_time_stands_still_but_for_steps() -> None:
    wall = Wall()
    clock = Clock(wall=wall)
    clock.set(manual=True)
    start_s = clock.now_s()
    wall.now_s += 100
    clock.step(7)

    assert clock.now_s() - start_s == 7
    assert clock.wall_s(start_s) == wall.now_s


def test_resumed_clock_counts_the_pause_at_the_old_pace() -> None:
    wall = Wall()
    old = Clock(factor=0.1, wall=wall)
    start_s = old.now_s()
    pace = old.pace
    wall.now_s += 2
    new = Clock(factor=1, wall=wall)
    new.resume(pace)
    wall.now_s += 1

    assert round(new.now_s() - start_s, 6) == 21
    assert new.factor == 1


def test_instant_of_an_older_pace_is_not_dated_back_by_the_new_one() -> None:
    wall = Wall()
    clock = Clock(factor=0.001, wall=wall)
    start_s = clock.now_s()
    wall.now_s += 1
    clock.set(factor=1)
    wall.now_s += 1

    assert clock.wall_s(start_s + 500) == wall.now_s - 1


async def test_sleep_ends_by_a_step() -> None:
    clock = Clock()
    clock.set(manual=True)
    sleeping = asyncio.create_task(clock.sleep(100))
    await asyncio.sleep(0.01)
    clock.step(60)
    await asyncio.sleep(0.01)
    half_way = sleeping.done()
    clock.step(40)
    await asyncio.wait_for(sleeping, 1)

    assert not half_way


async def test_sleep_is_shortened_by_a_faster_pace() -> None:
    clock = Clock()
    sleeping = asyncio.create_task(clock.sleep(100))
    await asyncio.sleep(0.01)
    clock.set(factor=0.0001)

    await asyncio.wait_for(sleeping, 1)
