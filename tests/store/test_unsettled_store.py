"""What is held and what nobody knows is found with all that a report tells of it."""

from typing import Any

from proxy.store import unsettled
from proxy.store.base import Store
from proxy.store.unsettled import Unsettled
from tests.store.rows import AT, DAY_US, add_attempts, add_videos, make_attempt, make_video

WHOLE: dict[str, Any] = {"tenant_id": None, "start": AT, "end": AT + 2 * DAY_US}


async def test_open_holds_are_told_as_they_were_accepted(store: Store) -> None:
    await add_videos(
        store,
        make_video(end_user="eu_1", key_id="key_1", hold_microusd=7),
        make_video(id="video_2", tenant_id="other", created_at=AT + DAY_US, metadata=None),
        make_video(id="video_3", hold="void"),
        make_video(id="video_4", created_at=AT - 1),
        make_video(id="video_5", created_at=AT + 2 * DAY_US),
    )
    found = await store.read(lambda tx: list(unsettled.open_holds(tx, **WHOLE)))
    first, second = sorted(found, key=lambda one: one.at)
    assert first == Unsettled(
        at=AT,
        tenant_id="acme",
        key_id="key_1",
        end_user="eu_1",
        provider="",
        model="seedance-2.0",
        tier="standard",
        operation="text-to-video",
        resolution="720p",
        rule="default",
        pairs={"team": "ads"},
        held_microusd=7,
    )
    assert (second.tenant_id, second.end_user, second.key_id, second.pairs) == ("other", "", "", {})
    theirs = await store.read(lambda tx: list(unsettled.open_holds(tx, **WHOLE | {"tenant_id": "other"})))
    assert theirs == [second]


async def test_costs_that_nobody_knows_are_told_when_they_ended(store: Store) -> None:
    await add_videos(
        store, make_video(end_user="eu_1"), make_video(id="video_2", tenant_id="other", model="seedance-lite")
    )
    await add_attempts(
        store,
        make_attempt(state="failed", ended_at=AT),
        make_attempt(number=2, state="failed", ended_at=AT + DAY_US, provider="q"),
        make_attempt(number=3, state="failed", ended_at=AT, cost_microusd=0),
        make_attempt(number=4, state="running"),
        make_attempt(number=5, state="done", ended_at=AT),
        make_attempt(number=6, state="done", ended_at=AT + 2 * DAY_US, bearer="absorbed:double"),
        make_attempt(video_id="video_2", state="unknown", cost_microusd=5),
    )

    async def unknown(**where: Any) -> list[tuple[str, str, str, int]]:
        found = await store.read(lambda tx: list(unsettled.unknown_costs(tx, **WHOLE | where)))
        assert all(one.unknown == 1 and one.held_microusd == 0 for one in found)
        return sorted((one.tenant_id, one.end_user, one.provider, one.at) for one in found)

    mine = [("acme", "eu_1", "p", AT), ("acme", "eu_1", "q", AT + DAY_US)]
    assert await unknown() == [*mine, ("other", "", "p", AT)]
    assert await unknown(tenant_id="acme") == mine
    assert await unknown(end=AT) == []
    assert len(await unknown(end=AT + 3 * DAY_US)) == 4, "a film that nobody paid for has a price that nobody knows"
