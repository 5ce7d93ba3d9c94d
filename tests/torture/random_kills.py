"""Kills at moments that nobody chose, while many customers order, repeat what was not answered, and cancel."""

import asyncio
import itertools
import random
from contextlib import AsyncExitStack
from pathlib import Path

from tests.torture.crash_points import rules
from tests.torture.revived import Order, Revived
from tests.torture.verdict import Tally, judge, summed, wrong_budgets
from tests.whole.stage import SELLERS

SPEED = 10.0
"""Of the sellers; faster ones would take their films away again while servers die all the time."""
SERVERS = {"sqlite": 2, "postgresql": 1}
"""That are killed side by side."""
KILLS = {"sqlite": 175, "postgresql": 150}
"""Of each of them."""
CUSTOMERS = {"sqlite": 7, "postgresql": 12}
SECONDS = 420.0
"""At the most, of kills; where they do not suffice, it is not as it has to be."""
KILL_AFTER_S = (0.05, 0.8)
"""From the moment at which the server answers."""
END_USERS = ("ann", "bob", "eve")
END_USER_RATIO = 0.3
"""Of the orders, for one of these; the others are for nobody."""
LIMIT_MICROUSD = 12_000_000
"""Of each of these: a dozen films."""
MARKUP = "0.12345"
SECONDS_ASKED = (4, 4, 6)
RESOLUTIONS = ("720p", "720p", "480p")
CANCELLED_RATIO = 0.1
BOLD_RATIO = 0.15
FAULTS = (
    (),
    (),
    ("error_503@evolink", "error_503@shortapi"),
    ("render_failed@evolink", "render_failed@fal"),
    ("reset_after@fal", "reset_after@runflow"),
    ("reset_before@evolink", "reset_before@shortapi"),
    ("cb_duplicate", "slow_file@evolink"),
)


async def torture(folder: Path, engine: str) -> list[Tally]:
    """Each server until it has died often enough, or too much time is over; then everything comes to its end."""
    many = [_kill(folder / f"{number}", engine) for number in range(SERVERS[engine])]
    return summed(await asyncio.gather(*many))


async def _kill(folder: Path, engine: str) -> Tally:
    dice = random.Random(folder.name)
    async with AsyncExitStack() as stack:
        stage = Revived(folder, stack)
        await stage.start_sellers(speed=SPEED)
        await stage.move(folder / "load", engine, rules)
        stage.begin()
        await stage.mark_up(MARKUP)
        await stage.allot("each_end_user", LIMIT_MICROUSD)
        passed: set[str] = set()
        over = asyncio.Event()
        numbers = itertools.count()
        async with asyncio.TaskGroup() as group:
            for _ in range(CUSTOMERS[engine]):
                group.create_task(_be_a_customer(stage, over, numbers, dice))
            with_operator = group.create_task(_be_the_operator(stage, passed))
            try:
                async with asyncio.timeout(SECONDS):
                    while stage.kills < KILLS[engine]:
                        await stage.ask("GET", "/readyz")
                        await asyncio.sleep(dice.uniform(*KILL_AFTER_S))
                        stage.kill()
            except TimeoutError:
                pass
            over.set()
            with_operator.cancel()
        killed = stage.kills
        tally = await judge(stage, "killed at random, under load", within_s=300)
        if killed < KILLS[engine]:
            tally.differences.append(f"it was killed {killed} times within {SECONDS:g} s, and not {KILLS[engine]}")
        tally.differences += sorted(passed)
        if not stage.over_budget:
            tally.differences.append("no budget was ever too small")
        print(f"{engine}: {len(stage.accepted)} accepted, {stage.over_budget} over budget", flush=True)
        return tally


async def _be_a_customer(
    stage: Revived, over: asyncio.Event, numbers: "itertools.count[int]", dice: random.Random
) -> None:
    while not over.is_set():
        end_user = dice.choice(END_USERS) if dice.random() < END_USER_RATIO else None
        order = Order(
            name=f"video-{next(numbers)}",
            # What is left of a budget may be enough for one seller alone, and it has to be able.
            faults=dice.choice(FAULTS) if end_user is None else (),
            order=tuple(dice.sample(list(SELLERS), 3)),
            bold=dice.random() < BOLD_RATIO,
            seconds=dice.choice(SECONDS_ASKED),
            resolution=dice.choice(RESOLUTIONS),
            end_user=end_user,
        )
        video_id = await stage.try_order(order)
        if video_id is not None and dice.random() < CANCELLED_RATIO:
            await asyncio.sleep(dice.uniform(0, 2))
            await stage.ask("POST", f"/v1/videos/{video_id}/cancel")
        # It may take as long as a dead server's leases: nobody waits for one film to order the next.
        await asyncio.sleep(dice.uniform(0.5, 2))


async def _be_the_operator(stage: Revived, passed: set[str]) -> None:
    """Decides, and looks at the budgets."""
    while True:
        await stage.decide()
        passed |= {*await asyncio.to_thread(wrong_budgets, stage)}
        await asyncio.sleep(0.5)
