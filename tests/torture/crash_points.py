"""Every write and every call of a video's life, each the last thing that a server does."""

import asyncio
import shutil
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from proxy.policy.fallback import FIND_AT_S
from tests.databases import whole_in
from tests.torture.revived import Order, Revived
from tests.torture.verdict import Tally, judge, summed
from tests.whole.scenes import rule

SPEED = 400.0

LANES = {"sqlite": 6, "postgresql": 10}
"""Points that are tried at once; on PostgreSQL each waits for most of a minute for a dead server's lease."""

ATTEMPTS = 3
"""At a point, until it is come by."""
MISSED_MAX_RATIO = 0.05
"""Of the points, not come by at all."""

Scene = Callable[[Revived], Awaitable[None]]


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """Where the server dies, in which scene."""

    scene: str
    name: str
    """`send POST fal no.1 before`."""

    @property
    def kind(self) -> str:
        """Without the count."""
        what, _, rest = self.name.partition(" no.")
        return f"{what} {rest.partition(' ')[2]}"

    @property
    def fault(self) -> str:
        """The line of the table that it belongs to."""
        verb, moment = self.name.split(" ")[0], self.name.rpartition(" ")[2]
        when = {"before": "just before", "middle": "in the middle of", "after": "just after"}[moment]
        what = {"write": "a commit", "send": "a call to a seller", "fetch": "a download"}.get(
            verb, "a change of a file"
        )
        return f"killed {when} {what}"


# The scenes


async def _plain(stage: Revived) -> None:
    await stage.order(Order(name="plain", order=("evolink",)))


async def _falling_back(stage: Revived) -> None:
    faults = ("error_503@shortapi", "render_failed@fal")
    await stage.order(Order(name="falling-back", faults=faults, order=("shortapi", "fal", "evolink")))


async def _cancelled(stage: Revived) -> None:
    video_id = await stage.order(Order(name="cancelled", faults=("never_ends@fal",), order=("fal",)))
    await stage.reaches(video_id, "running")
    await stage.ask("POST", f"/v1/videos/{video_id}/cancel")


async def _healed(stage: Revived) -> None:
    await stage.order(Order(name="healed", faults=("reset_after@shortapi",), order=("shortapi",)))


async def _refunded(stage: Revived) -> None:
    video_id = await stage.order(Order(name="refunded", order=("runflow",)))
    video = await stage.reaches(video_id)
    if video["status"] != "completed":
        return
    wish = {"amount_usd": video["usage"]["cost_usd"], "reason": "it rained"}
    # Given back as a whole: a second time is refused.
    await stage.ask("POST", f"/admin/videos/{video_id}/refunds", json=wish)


async def _resolved(stage: Revived) -> None:
    """An operator finds that one order was never taken, and the id of the next."""
    faults = ("reset_before@fal", "no_id@evolink")
    await stage.order(Order(name="resolved", faults=faults, order=("fal", "evolink")))


async def _copied_later(stage: Revived) -> None:
    """The first download breaks off."""
    (await stage.admin.delete("/admin/faults")).raise_for_status()
    await stage.arm("evolink", "truncated", count=1)
    await stage.order(Order(name="copied-later", order=("evolink",)))


async def _found(stage: Revived) -> None:
    """Neither an answer to the submit nor a callback: the seller is asked, before an operator decides anything."""
    faults = ("reset_after@runflow", "cb_lost@runflow")
    video_id = await stage.order(Order(name="found", faults=faults, order=("runflow",)))
    with suppress(TimeoutError):
        async with asyncio.timeout(FIND_AT_S[0] + 3):
            while (await stage.ask("GET", f"/v1/videos/{video_id}")).json()["status"] != "completed":
                await asyncio.sleep(0.1)


async def _deleted(stage: Revived) -> None:
    """One that is delivered, and one that is under way."""
    done = await stage.order(Order(name="deleted", order=("evolink",)))
    going = await stage.order(Order(name="going", faults=("never_ends@fal",), order=("fal",)))
    await stage.reaches(done)
    await stage.reaches(going, "running")
    for video_id in (done, going):
        await stage.delete(video_id)


async def _erased(stage: Revived) -> None:
    """An end user, and the month's end comes before it."""
    done = await stage.order(Order(name="erased", order=("evolink",), end_user="ann"))
    await stage.reaches(done)
    month = f"{datetime.now(UTC).replace(day=1) - timedelta(days=1):%Y-%m}"
    await stage.ask("POST", f"/admin/months/{month}/close", json={})
    wish = {"end_user_id": "ann", "reason": "she asked for it"}
    stage.deleted.add(done)
    # Told twice, it finds nothing more.
    await stage.ask("POST", "/admin/tenants/default/end_users/erase", json=wish)


async def _bold(stage: Revived) -> None:
    await stage.order(Order(name="bold", order=("fal", "evolink"), bold=True))


async def _folded(stage: Revived) -> None:
    await stage.reaches(await stage.order(Order(name="folded", order=("evolink",))))
    async with asyncio.timeout(60):
        while whole_in(stage.folder).rows("select count(*) from spend_days") == [(0,)]:
            await stage.ask("GET", "/readyz")
            await asyncio.sleep(0.1)


SCENES: dict[str, Scene] = {
    "plain": _plain,
    "falling back": _falling_back,
    "cancelled": _cancelled,
    "healed": _healed,
    "refunded": _refunded,
    "bold": _bold,
    "folded": _folded,
    "resolved": _resolved,
    "copied later": _copied_later,
    "found": _found,
    "deleted": _deleted,
    "erased": _erased,
}
BRIEF = ("resolved", "copied later", "found", "deleted", "erased")
"""Of which only those points are taken that no scene before them comes by."""
HASTY = ("folded",)
"""Where the housekeeper comes all the time."""


def rules(written: dict[str, Any]) -> None:
    """Bold customers buy again where nobody knows whether they have bought."""
    bold = rule("bold", {"metadata.bold": "yes"}, fallback={"on_unknown": "fallback"})
    written["rules"] = [bold, rule("default")]


# The points


async def record(folder: Path, engine: str = "sqlite", scenes: Sequence[str] = tuple(SCENES)) -> list[Point]:
    """What each scene comes by, in that order; how a server starts, which is always the same, once."""
    points: list[Point] = []
    async with Lane.opened(folder, engine) as lane:
        for scene in scenes:
            stage = await lane.empty(scene)
            diary = stage.folder / "diary"
            stage.begin(diary=diary)
            await stage.ask("GET", "/readyz")
            started = len(_lines(diary)) if points else 0
            await SCENES[scene](stage)
            await stage.rest(within_s=30)
            come_by = [Point(scene=scene, name=name) for name in dict.fromkeys(_lines(diary)[started:])]
            known = {point.kind for point in points} if scene in BRIEF else set()
            points += [point for point in come_by if point.kind not in known]
    return points


def _lines(diary: Path) -> list[str]:
    return diary.read_text().splitlines()


def one_of_each(points: Sequence[Point]) -> list[Point]:
    """The first of every kind."""
    kinds: dict[str, Point] = {}
    for point in points:
        kinds.setdefault(point.kind, point)
    return list(kinds.values())


async def torture(folder: Path, engine: str) -> list[Tally]:
    """Every point; on PostgreSQL one of each kind."""
    points = await record(folder / "record")
    tried = points if engine == "sqlite" else one_of_each(points)
    tallies = await attempt(tried, folder / "try", engine, lanes=LANES[engine])
    missed = [f"{point.scene}: {point.name}" for point in tried if point not in tallies]
    print(
        f"{engine}: {len(points)} points recorded, {len(tried)} tried, {len(missed)} of them not come by again:"
        f" {missed}",
        flush=True,
    )
    return [*summed(tallies.values()), *too_many_missed(missed, len(tried))]


def too_many_missed(missed: Sequence[str], tried: int) -> list[Tally]:
    """A line where so many points were not come by that the others prove little."""
    if len(missed) <= MISSED_MAX_RATIO * tried:
        return []
    return [Tally(fault="never killed", differences=[f"{len(missed)} of {tried} points were not come by: {missed}"])]


async def attempt(
    points: Sequence[Point], folder: Path, engine: str = "sqlite", *, lanes: int = 4
) -> dict[Point, Tally]:
    """What has become of each, by so many lanes; none of one that was not come by again: a poll less was enough."""
    left, tallies = iter(points), dict[Point, Tally]()

    async def work(number: int) -> None:
        async with Lane.opened(folder / f"lane-{number}", engine) as lane:
            for point in left:
                for _ in range(ATTEMPTS):
                    tally = await lane.attempt(point)
                    if tally.kills or not tally.is_clean:
                        tallies[point] = tally
                        break

    async with asyncio.TaskGroup() as group:
        for number in range(min(lanes, len(points))):
            group.create_task(work(number))
    return tallies


class Lane:
    """Tries points one after another: an empty database for each, and the same sellers for all."""

    def __init__(self, stage: Revived, engine: str) -> None:
        self._stage = stage
        self._folder = stage.folder
        self._engine = engine
        self._tried = 0

    @classmethod
    @asynccontextmanager
    async def opened(cls, folder: Path, engine: str) -> AsyncGenerator["Lane"]:
        async with AsyncExitStack() as stack:
            stage = Revived(folder, stack)
            await stage.start_sellers(speed=SPEED)
            yield cls(stage, engine)

    async def empty(self, scene: str) -> Revived:
        """Where nothing has happened yet."""
        self._tried += 1
        await self._stage.move(self._folder / str(self._tried), self._engine, rules)
        self._stage.hasty = scene in HASTY
        return self._stage

    async def attempt(self, point: Point) -> Tally:
        """Dies there, if the scene comes by it."""
        stage = await self.empty(point.scene)
        stage.begin(dies_at=point.name)
        await SCENES[point.scene](stage)
        tally = await judge(stage, point.fault, within_s=60 if self._engine == "sqlite" else 240)
        tally.differences = [f"{point.scene}: {point.name}: {one}" for one in tally.differences]
        if tally.is_clean:
            shutil.rmtree(stage.folder)
        return tally
