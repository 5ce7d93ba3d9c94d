"""A provider that is still owed attempts is taken out of the rules, and put back."""

import json
from typing import Any

import msgspec

from tests.whole.stage import Stage


def without_fal(rules: dict[str, Any]) -> None:
    del rules["providers"]["fal"]


def log(stage: Stage) -> list[dict[str, Any]]:
    path = stage.folder / f"serve-{stage.port}.log"
    return [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]


async def test_provider_that_is_owed_attempts_cannot_vanish_unnoticed(stage: Stage) -> None:
    await stage.start_sellers(speed=10)
    stage.write_rules()
    await stage.start_server()
    video = await stage.create(model="fal/seedance-2.0")
    await stage.until(video["id"], lambda now: now["status"] == "in_progress")
    await stage.server.stop()
    (job,) = await stage.books()

    stage.write_rules(without_fal)
    code, out, err = await stage.cli("check")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("reelay: routing_rules.yaml: attempts are still owed to fal, which the rules name no more")
    code, out, _ = await stage.cli("doctor")
    assert code == 1
    assert "database: attempts are owed to fal, not in the rules" in out

    await stage.start_server()
    said = [line for line in log(stage) if line["event"] == "provider.vanished"]
    assert [(line["provider"], line["level"]) for line in said] == [("fal", "error")]
    now = await stage.video(video["id"])
    assert (now["status"], [one["status"] for one in now["routing"]["attempts"]]) == ("in_progress", ["unknown"])
    code, out, _ = await stage.cli("attempts", "list", "--json")
    assert [(one["provider"], one["seller_id"]) for one in json.loads(out)] == [("fal", job["id"])]
    assert 'reelay_unknown_attempts{provider="other"} 1.0' in (await stage.client.get("/metrics")).text
    await stage.server.stop()

    stage.write_rules()
    assert (await stage.cli("check"))[0] == 0
    await stage.start_server()
    done = await stage.ended(video["id"])
    assert (done["status"], done["routing"]["provider"]) == ("completed", "fal")
    assert len(await stage.books()) == 1, "it was bought once"
