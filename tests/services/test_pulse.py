"""What one process learns of the sellers, every process acts on; and what cannot be told now is told later."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypeVar

import pytest

from proxy.core.clock import SECOND_US
from proxy.core.errors import Overloaded
from proxy.services.pulse import RELEARN_US, Pulse
from proxy.store import health, statements
from proxy.store.postgres import PostgresStore
from proxy.store.statements import Closing
from tests.databases import Database, file_in, server
from tests.policy.policies import make_offer, make_spec
from tests.services.rehearsal import Clock, Refusing
from tests.store.rows import make_attempt

T = TypeVar("T")
OFFER = make_offer()


class Pair:
    """Two processes on one database."""

    def __init__(self, one: Pulse, other: Pulse, clock: Clock) -> None:
        self.one, self.other, self.clock = one, other, clock
        self.count = 0

    def ends(self, state: str, **fields: object) -> None:
        """Another attempt reaches this state in the first process."""
        self.count += 1
        self.clock.move(0.1)
        attempt = make_attempt(
            video_id=f"video_{self.count}", offer=OFFER.id, state=state, started_at=self.clock(), **fields
        )
        self.one.note(attempt, make_spec())

    async def beat(self) -> None:
        await self.one.beat()
        await self.other.beat()


@pytest.fixture
async def pair(database: Database) -> AsyncIterator[Pair]:
    clock = Clock()
    stores = [database.store(clock) for _ in range(2)]
    for store in stores:
        await store.open()
    yield Pair(Pulse(stores[0], clock), Pulse(stores[1], clock), clock)
    for store in stores:
        await store.close()


async def test_five_failures_open_the_breaker_here_at_once_and_elsewhere_after_a_beat(pair: Pair) -> None:
    for _ in range(5):
        pair.ends("refused", failure_kind="capacity")
    assert pair.one.standing(OFFER.id).state == "open"
    assert pair.other.standing(OFFER.id).state == "closed"
    await pair.beat()
    assert pair.other.standing(OFFER.id) == pair.one.standing(OFFER.id)


async def test_failures_told_by_two_processes_count_together(pair: Pair) -> None:
    for _ in range(3):
        pair.ends("refused", failure_kind="capacity")
    pair.one, pair.other = pair.other, pair.one
    for _ in range(2):
        pair.ends("unknown")
    await pair.beat()
    await pair.beat()
    assert {pair.one.standing(OFFER.id).state, pair.other.standing(OFFER.id).state} == {"open"}


async def test_probe_that_goes_well_closes_the_breaker_everywhere(pair: Pair) -> None:
    for _ in range(5):
        pair.ends("refused", failure_kind="capacity")
    await pair.beat()
    pair.clock.move(11)
    assert pair.one.standing(OFFER.id).state == "half_open"
    pair.one.probing(OFFER.id, pair.clock())
    assert pair.one.standing(OFFER.id).free_at > pair.clock()
    pair.ends("running")
    await pair.beat()
    assert {pair.one.standing(OFFER.id).state, pair.other.standing(OFFER.id).state} == {"closed"}


async def test_what_the_customer_did_speaks_against_no_seller(pair: Pair) -> None:
    for kind in ("invalid_input", "moderation", "cancelled", "throttled"):
        for _ in range(6):
            pair.ends("refused", failure_kind=kind)
    await pair.beat()
    assert pair.other.standing(OFFER.id).state == "closed"


async def test_times_of_films_are_learned_together(pair: Pair) -> None:
    spec = make_spec()
    assert spec.seconds is not None
    for _ in range(2):
        for _ in range(5):
            begun = pair.clock() + 7 * SECOND_US
            pair.ends("done", rendering_at=begun, ended_at=begun + 23 * SECOND_US)
        pair.one, pair.other = pair.other, pair.one
    await pair.beat()
    pair.clock.move(RELEARN_US / SECOND_US)
    await pair.beat()
    for pulse in (pair.one, pair.other):
        learned = pulse.times.expected_s(OFFER, spec.resolution, spec.seconds)
        assert learned == pytest.approx(30, rel=0.06)


async def test_process_that_starts_hears_of_the_quarter_hour_before_it(pair: Pair, database: Database) -> None:
    for _ in range(5):
        pair.ends("failed", failure_kind="provider_error")
    await pair.beat()
    store = database.store(pair.clock)
    await store.open()
    newcomer = Pulse(store, pair.clock)
    await newcomer.beat()
    await store.close()
    assert newcomer.standing(OFFER.id).state == "open"


async def test_what_could_not_be_told_is_told_later(tmp_path: Path) -> None:
    place = file_in(tmp_path).place
    assert isinstance(place, Path)
    clock = Clock()
    store = Refusing(place, clock)
    await store.open()
    pulse = Pulse(store, clock)
    pulse.note(make_attempt(offer=OFFER.id, state="unknown"), make_spec())
    store.refusals = 1
    with pytest.raises(Overloaded):
        await pulse.beat()
    assert await store.read(lambda tx: health.outcomes_since(tx, 0)) == []
    await pulse.beat()
    (told,) = await store.read(lambda tx: health.outcomes_since(tx, 0))
    assert (told.offer, told.part, told.good) == (OFFER.id, "submit", False)
    await store.close()


async def test_processes_agree_on_the_time_though_one_started_after_the_clock_was_set_forward() -> None:
    """Else one would sum up days that the other still writes into."""
    url = server().new()
    early, late = PostgresStore(url), PostgresStore(url)
    for store in (early, late):
        await store.open()
    late.not_before(early.clock() + 3600 * SECOND_US)
    await late.write(
        lambda tx: statements.insert_closing(tx, Closing(month="2026-10", ends_at=1, closed_at=tx.now_us, actor="cli"))
    )
    assert early.clock() < late.clock() - 3000 * SECOND_US
    await Pulse(early, early.clock).beat()
    assert abs(early.clock() - late.clock()) < 60 * SECOND_US
    for store in (early, late):
        await store.close()
    server().give_back(url)
