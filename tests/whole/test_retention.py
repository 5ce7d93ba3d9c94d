"""A film is kept as long as the rules say, and no longer; what it was stays on the bill."""

import json
import time
from typing import Any

from tests.databases import whole_in
from tests.whole.company import refused
from tests.whole.scenes import rows
from tests.whole.stage import Stage

DAY_S = 86_400


def _shorter(rules: dict[str, Any]) -> None:
    rules["retention"] = {"files_days": 3, "prompts_days": 5}


def _age(stage: Stage, column: str, days: int) -> None:
    """As if every video were as much older."""
    change = f"update videos set {column} = {column} - ?"  # noqa: S608  # a column of ours
    whole_in(stage.folder).write(change, days * DAY_S * 1_000_000)


async def _pruned(stage: Stage, *arguments: str) -> dict[str, Any]:
    code, out, err = await stage.cli("prune", "--json", *arguments)
    assert code == 0, err
    told: dict[str, Any] = json.loads(out)
    return told


async def test_film_and_prompt_go_when_their_time_is_over(stage: Stage) -> None:
    await stage.start_sellers()
    stage.write_rules(_shorter)
    await stage.start_server()
    made = await stage.ended((await stage.create("an unlucky boat", metadata={"team": "ads"}))["id"])
    path = f"/v1/videos/{made['id']}/content"
    assert made["expires_at"] == made["completed_at"] + 3 * DAY_S
    assert (await stage.client.get(path)).status_code == 200
    (film,) = (stage.folder / "data" / "videos").rglob("*.mp4")
    size_bytes = film.stat().st_size

    _age(stage, "expires_at", 3)
    message = refused(await stage.client.get(path), 404, "not_found", "video_id")
    assert message.startswith(f"Video '{made['id']}' expired at 20")
    assert (await stage.client.head(path)).status_code == 404
    assert film.exists(), "it has expired before anybody has deleted it"

    would = await _pruned(stage, "--dry-run")
    assert (would["dry_run"], would["files"], would["file_bytes"]) == (True, 1, size_bytes)
    assert film.exists()
    assert (await _pruned(stage))["files"] == 1
    assert not film.exists()
    assert (await _pruned(stage))["files"] == 0
    refused(await stage.client.get(path), 404, "not_found", "video_id")
    now = await stage.video(made["id"])
    assert now == made | {"expires_at": now["expires_at"]}
    assert now["expires_at"] <= time.time()

    _age(stage, "ended_at", 6)
    assert (await _pruned(stage))["prompts"] == 1
    assert (await stage.video(made["id"]))["prompt"] is None
    assert (await stage.video(made["id"]))["metadata"] == {"team": "ads"}
    assert rows(stage.folder, "select count(*) from attempts where message is not null or link is not null") == [(0,)]
    spent = (await stage.client.get("/v1/spend")).json()["data"]
    assert [line["charged_usd"] for line in spent] == [made["usage"]["cost_usd"]]
