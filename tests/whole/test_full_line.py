"""Who would wait behind more videos than can be sent in time is told so at once."""

import asyncio

import pytest

from proxy.services.room import EVERY_S, WAITING_MOST
from proxy.store import tables
from tests.databases import whole_in
from tests.whole.company import refused
from tests.whole.stage import SELLERS, Stage

_NAMES = [column.name for column in tables.videos.columns]
_OTHERS = ", ".join(name for name in _NAMES if name not in {"id", "hold"})
_FILL = (
    f"insert into videos (id, hold, {_OTHERS}) with recursive line(place) as"  # noqa: S608  # the names of our own columns
    f" (select 1 union all select place + 1 from line where place < {WAITING_MOST})"
    f" select 'video_in_line_' || place, 'void', {_OTHERS} from videos, line where id ="
)


@pytest.mark.long
@pytest.mark.timeout(120)
async def test_create_behind_a_full_line_is_told_to_come_back_and_later_accepted(stage: Stage) -> None:
    await stage.start_sellers()
    stage.write_rules(dead=tuple(SELLERS))
    await stage.start_server()
    waiting = await stage.create()
    database = whole_in(stage.folder)
    # Only a few waited when the server last looked: it has to look again.
    await asyncio.to_thread(database.write, f"{_FILL} '{waiting['id']}'")
    async with asyncio.timeout(EVERY_S + 10):
        while (answer := await stage.client.post("/v1/videos", json={"prompt": "a paper boat"})).status_code == 200:
            await asyncio.sleep(0.2)
    refused(answer, 503, "server_is_overloaded")
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert (await stage.video(waiting["id"]))["status"] == "queued", "everything else is answered"
    quote = await stage.client.post("/v1/videos/quote", json={"prompt": "a paper boat"})
    assert quote.status_code == 200
    await asyncio.to_thread(database.write, "update videos set status = 'failed' where id like 'video_in_line_%'")
    async with asyncio.timeout(EVERY_S + 10):
        while (await stage.client.post("/v1/videos", json={"prompt": "a paper boat"})).status_code == 503:
            await asyncio.sleep(0.2)
