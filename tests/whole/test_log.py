"""The log tells every change of a state once, as the database's own triggers saw it, for whom and by which request."""

import asyncio
import json
import sqlite3
from collections import defaultdict
from contextlib import closing
from pathlib import Path
from typing import Any

from proxy.opening import prepare_database
from proxy.settings import read_settings
from tests.databases import choose
from tests.whole.stage import KEY, PLAY_KEYS, Stage

PROMPT = "a paper boat that nobody may read of"
HISTORY = """
CREATE TABLE history (place INTEGER PRIMARY KEY, video TEXT, attempt INTEGER, state TEXT, tenant TEXT);
CREATE TRIGGER h1 AFTER INSERT ON videos BEGIN
    INSERT INTO history (video, attempt, state, tenant) VALUES (NEW.id, 0, 'video.accepted', NEW.tenant_id); END;
CREATE TRIGGER h2 AFTER UPDATE OF status ON videos WHEN NEW.status IS NOT OLD.status BEGIN
    INSERT INTO history (video, attempt, state, tenant) VALUES (NEW.id, 0, 'video.' || NEW.status, NEW.tenant_id); END;
CREATE TRIGGER h3 AFTER UPDATE OF hold ON videos WHEN NEW.hold IS NOT OLD.hold BEGIN
    INSERT INTO history (video, attempt, state, tenant) VALUES (NEW.id, 0, 'hold.' || NEW.hold, NEW.tenant_id); END;
CREATE TRIGGER h4 AFTER UPDATE OF deleted_at ON videos WHEN NEW.deleted_at IS NOT OLD.deleted_at BEGIN
    INSERT INTO history (video, attempt, state, tenant) VALUES (NEW.id, 0, 'video.deleted', NEW.tenant_id); END;
CREATE TRIGGER h5 AFTER INSERT ON attempts BEGIN
    INSERT INTO history (video, attempt, state, tenant)
    VALUES (NEW.video_id, NEW.number, 'attempt.' || NEW.state,
        (SELECT tenant_id FROM videos WHERE id = NEW.video_id)); END;
CREATE TRIGGER h6 AFTER UPDATE OF state ON attempts WHEN NEW.state IS NOT OLD.state BEGIN
    INSERT INTO history (video, attempt, state, tenant)
    VALUES (NEW.video_id, NEW.number, 'attempt.' || NEW.state,
        (SELECT tenant_id FROM videos WHERE id = NEW.video_id)); END;
"""

Told = dict[tuple[str, int], list[tuple[str, str]]]
"""Video and attempt to each event with its tenant, in their order."""


async def open_stage(stage: Stage) -> Path:
    """Sellers that do not answer callbacks' addresses, and a database that keeps its own history."""
    choose("sqlite", stage.folder)
    await stage.start_sellers(speed=100)
    stage.write_rules()
    database = stage.folder / "data" / "reelay.db"
    prepare_database(read_settings({"REELAY_DATABASE_URL": f"sqlite:///{database}"}))
    with closing(sqlite3.connect(database)) as file:
        file.executescript(HISTORY)
    await stage.start_server(PUBLIC_URL="")
    return database


def lines(stage: Stage) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (stage.folder / f"serve-{stage.port}.log").read_bytes().splitlines()]


def in_the_log(stage: Stage) -> Told:
    told: Told = defaultdict(list)
    for line in lines(stage):
        what = line["event"].partition(".")[0]
        if what in {"video", "attempt", "hold"} and not line["event"].startswith("attempt.cancel_"):
            # The worker binds the attempt at hand, which may be what completed the video.
            number = line["attempt"] if what == "attempt" else 0
            told[line["video"], number].append((line["event"], line["tenant"]))
    return told


def in_the_database(database: Path) -> Told:
    told: Told = defaultdict(list)
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as file:
        for video, attempt, state, tenant in file.execute(
            "SELECT video, attempt, state, tenant FROM history ORDER BY place"
        ):
            told[video, attempt].append((state, tenant))
    return told


def unknown(video: dict[str, Any]) -> bool:
    return [one["status"] for one in video["routing"]["attempts"]] == ["unknown"]


async def live(stage: Stage) -> dict[str, str]:
    """A video for each way that a life may take, by what it is."""
    delivered = await stage.create(PROMPT)
    fallen_back = await stage.create(f"{PROMPT} [fault:render_failed@evolink]")
    refused = await stage.create(f"{PROMPT} [fault:error_503@evolink]")
    failed = await stage.create(f"{PROMPT} [fault:render_failed@evolink]", model="evolink/seedance-2.0")
    cancelled = await stage.create(PROMPT, model="fal/seedance-2.0")
    (await stage.client.post(f"/v1/videos/{cancelled['id']}/cancel")).raise_for_status()
    deleted = await stage.create(PROMPT, model="fal/seedance-2.0")
    (await stage.client.delete(f"/v1/videos/{deleted['id']}")).raise_for_status()
    for video in (fallen_back, refused):
        await stage.ended(video["id"])  # they move on to the seller that is armed now
    await stage.arm("shortapi", "reset_after", count=2)
    denied = await stage.create(PROMPT, model="shortapi/seedance-2.0")
    await stage.until(denied["id"], unknown)
    bought = await stage.create(PROMPT, model="shortapi/seedance-2.0")
    await stage.until(bought["id"], unknown)
    for video, finding in ((denied, {"bought": False}), (bought, {"bought": True, "cost_usd": "0.96"})):
        path = f"/admin/attempts/{video['id']}/1/resolve"
        (await stage.client.post(path, json={**finding, "reason": "their books"})).raise_for_status()
    made = {
        "delivered": delivered, "fallen back": fallen_back, "refused": refused, "failed": failed,
        "cancelled": cancelled, "denied": denied, "bought": bought,
    }  # fmt: skip
    for video in made.values():
        await stage.ended(video["id"])
    return {name: video["id"] for name, video in (made | {"deleted": deleted}).items()}


async def test_log_tells_each_change_of_state_once_and_no_secret(stage: Stage) -> None:
    database = await open_stage(stage)
    made = await live(stage)
    stage.write_rules(deadline_s=2)
    await stage.server.stop()
    await stage.start_server(PUBLIC_URL="")
    late = await stage.create(f"{PROMPT} [fault:never_ends@evolink]", model="evolink/seedance-2.0")
    await stage.arm("shortapi", "reset_after")
    lost = await stage.create(PROMPT, model="shortapi/seedance-2.0")
    ends = {(await stage.ended(video["id"]))["error"]["code"] for video in (late, lost)}
    assert ends == {"deadline_exceeded", "outcome_unknown"}
    async with asyncio.timeout(40):
        while "hold.void" not in [state for state, _ in in_the_database(database)[made["cancelled"], 0]] + [
            state for state, _ in in_the_database(database)[made["deleted"], 0]
        ]:
            await asyncio.sleep(0.2)
    await stage.server.stop()

    told = in_the_log(stage)
    assert told == in_the_database(database)
    events = {name: [event for event, _ in told[video, 0]] for name, video in made.items()}
    begun = ["video.accepted", "video.in_progress"]
    assert events["delivered"] == [*begun, "video.completed", "hold.posted"]
    assert [event for event, _ in told[made["fallen back"], 1]] == [
        "attempt.sending",
        "attempt.running",
        "attempt.failed",
    ]
    assert [event for event, _ in told[made["denied"], 1]] == ["attempt.sending", "attempt.unknown", "attempt.refused"]
    assert [event for event, _ in told[made["bought"], 1]] == ["attempt.sending", "attempt.unknown", "attempt.failed"]
    assert events["deleted"][-1] in {"video.deleted", "hold.void", "hold.posted"}
    assert "video.failed" in events["cancelled"]
    _every_line_names_a_request(stage)
    _every_line_is_clean(stage)


def _every_line_names_a_request(stage: Stage) -> None:
    """That which asked for the video, but for what another request changed: it has an id of its own."""
    said = [line for line in lines(stage) if line["event"].partition(".")[0] in {"video", "attempt", "hold"}]
    asked = {line["video"]: line["request"] for line in said if line["event"] == "video.accepted"}
    assert len(set(asked.values())) == len(asked)
    others = defaultdict(set)
    for line in said:
        assert line["request"].startswith("req_")
        if line["request"] != asked[line["video"]]:
            others[line["request"]].add(line["video"])
    # A cancel, a delete, and what an operator found out, twice.
    assert len(others) == 4
    assert all(len(videos) == 1 for videos in others.values())


async def test_lines_about_a_video_name_the_request_that_its_customer_was_told(stage: Stage) -> None:
    await open_stage(stage)
    answer = await stage.client.post("/v1/videos", json={"prompt": PROMPT, "model": "seedance-2.0"})
    video = answer.json()["id"]
    await stage.ended(video)
    await stage.server.stop()
    said = [line for line in lines(stage) if line.get("video") == video]
    assert {line["request"] for line in said} == {answer.headers["x-request-id"]}
    (accepted,) = [line for line in said if line["event"] == "video.accepted"]
    (posted,) = [line for line in said if line["event"] == "hold.posted"]
    assert accepted["hold_microusd"] >= posted["microusd"] > 0


async def test_verb_tells_what_it_changes_as_a_server_does(stage: Stage) -> None:
    await open_stage(stage)
    await stage.arm("shortapi", "reset_after", count=2)
    video = await stage.create(PROMPT, model="shortapi/seedance-2.0")
    await stage.until(video["id"], unknown)
    asked = [line["request"] for line in lines(stage) if line["event"] == "video.accepted"]
    status, _, err = await stage.cli("attempts", "resolve", video["id"], "1", "--not-bought", "--reason", "their books")
    assert status == 0
    said = [json.loads(line) for line in err.splitlines()]
    assert [(line["event"], line["was"], line["request"]) for line in said if "was" in line] == [
        ("attempt.refused", "unknown", asked[0])
    ]


def _every_line_is_clean(stage: Stage) -> None:
    text = (stage.folder / f"serve-{stage.port}.log").read_text()
    assert PROMPT not in text
    assert "nobody may read" not in text
    assert not [secret for secret in (KEY, *PLAY_KEYS.values()) if f'"{secret}"' in text]
    said = lines(stage)
    assert all(line["level"] == "warning" for line in said if line["event"] == "attempt.unknown")
