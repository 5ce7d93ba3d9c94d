"""Outcomes are kept once each; a histogram is one process's to change at a time."""

from proxy.core.attempt import Outcome
from proxy.store import health
from proxy.store.base import Store
from proxy.store.health import TimesKey
from tests.store.rows import AT


def outcome(number: int, *, good: bool = True, at: int = AT, **fields: object) -> Outcome:
    values = {"video_id": f"video_{number}", "attempt_no": 1, "part": "submit", "offer": "o", "good": good, "at": at}
    return Outcome(**values | fields)  # type: ignore[arg-type]  # a test names fields as it likes


async def test_outcomes_are_read_back_by_time(store: Store) -> None:
    told = [outcome(1, at=AT + 2), outcome(2, at=AT + 1, good=False), outcome(1, part="render", at=AT + 3)]
    await store.write(lambda tx: health.add_outcomes(tx, told))
    found = await store.read(lambda tx: health.outcomes_since(tx, AT))
    assert found == sorted(told, key=lambda one: one.at)
    assert await store.read(lambda tx: health.outcomes_since(tx, AT + 3)) == [told[2]]


async def test_first_word_about_a_part_of_an_attempt_stays(store: Store) -> None:
    bad, good = outcome(1, good=False), outcome(1, at=AT + 5)
    await store.write(lambda tx: health.add_outcomes(tx, [bad]))
    await store.write(lambda tx: health.add_outcomes(tx, [good, outcome(2)]))
    assert await store.read(lambda tx: health.outcomes_since(tx, 0)) == [bad, outcome(2)]


async def test_histogram_is_kept_under_its_key(store: Store) -> None:
    key: TimesKey = ("o", "720p", 5, "queue")
    other: TimesKey = ("o", "720p", 5, "render")
    assert await store.write(lambda tx: health.take_times(tx, key)) is None
    for content in (b"one", b"two"):
        await store.write(lambda tx, content=content: health.save_times(tx, key, content))  # type: ignore[misc]  # binds
    await store.write(lambda tx: health.save_times(tx, other, b"three"))
    assert await store.write(lambda tx: health.take_times(tx, key)) == b"two"
    assert await store.read(health.all_times) == {key: b"two", other: b"three"}
