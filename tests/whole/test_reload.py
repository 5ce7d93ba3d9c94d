"""The rules are changed under a server at work, and nobody who uses it notices but by what they decide."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import msgspec

from tests.ports import free_port
from tests.whole.scenes import eventually, metric
from tests.whole.stage import KEY, PLAY_KEYS, ROOT, Stage

SUCCESS, SINCE = "reelay_config_last_reload_success", "reelay_config_last_reload_timestamp_seconds"


async def rules_of(stage: Stage) -> dict[str, Any]:
    shown: dict[str, Any] = (await stage.client.get("/admin/rules")).raise_for_status().json()
    return shown


def told(stage: Stage, event: str) -> list[dict[str, Any]]:
    path = stage.folder / f"serve-{stage.port}.log"
    lines = [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]
    return [line for line in lines if line["event"] == event]


async def refused_for(stage: Stage, words: str) -> None:
    async def so() -> bool:
        return words in ((await rules_of(stage))["last_reload_error"] or "")

    await eventually(so, within_s=15)


async def in_force(stage: Stage, *rules: str) -> None:
    async def so() -> bool:
        shown = await rules_of(stage)
        return shown["rules"] == list(rules) and shown["last_reload_error"] is None

    await eventually(so, within_s=15)


def called(name: str, **rule: Any) -> Callable[[dict[str, Any]], None]:
    """Rules of which the only one has this name."""

    def change(rules: dict[str, Any]) -> None:
        rules["rules"] = [{"name": name, "strategy": "cheapest", **rule}]

    return change


class Load:
    """Clients that never rest; every answer must be a good one."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.answers = 0
        self.rules_seen: set[str] = set()
        self._over = asyncio.Event()

    async def client(self) -> None:
        while not self._over.is_set():
            video = await self._stage.create("[fault:never_ends] a paper boat")
            shown = await self._stage.video(video["id"])
            (await self._stage.client.get("/v1/models")).raise_for_status()
            self.rules_seen.add(shown["routing"]["rule"])
            self.answers += 3

    async def during(self, work: Awaitable[None]) -> None:
        clients = [asyncio.create_task(self.client()) for _ in range(6)]
        try:
            await work
            await asyncio.sleep(0.5)
        finally:
            self._over.set()
            await asyncio.gather(*clients)


async def test_broken_rules_harm_nobody_and_good_ones_take_effect_at_once(stage: Stage) -> None:
    await stage.start_sellers()
    stage.write_rules(called("first"))
    await stage.start_server()
    first = await rules_of(stage)
    assert (first["last_reload_at"], first["last_reload_error"]) == (None, None)
    text = (await stage.client.get("/metrics")).text
    since = metric(text, SINCE)
    assert (metric(text, SUCCESS), abs(since - time.time()) < 60) == (1, True)

    load = Load(stage)

    async def change_twice() -> None:
        good = (stage.folder / "routing_rules.yaml").read_text()
        (stage.folder / "routing_rules.yaml").write_text(good.replace("strategy:", "stratgy:"))
        await refused_for(stage, 'unknown key "stratgy"')
        text = (await stage.client.get("/metrics")).text
        assert (metric(text, SUCCESS), metric(text, SINCE)) == (0, since)
        assert (await rules_of(stage))["rules_hash"] == first["rules_hash"]
        stage.write_rules(called("second", strategy={"ordered": ["runflow"]}))
        await in_force(stage, "second")

    await load.during(change_twice())
    assert load.answers > 30
    assert load.rules_seen == {"first", "second"}
    (line,) = told(stage, "rules.refused")
    assert line["why"].startswith("routing_rules.yaml:")
    assert line["level"] == "error"

    text = (await stage.client.get("/metrics")).text
    assert metric(text, SUCCESS) == 1
    assert metric(text, SINCE) > since
    assert (await stage.create())["routing"]["rule"] == "second"
    later = (await stage.client.get("/metrics")).text
    decisions, wanted = "reelay_route_decisions_total", {"provider": "runflow", "reason": "ordered"}
    assert metric(later, decisions, rule="second", **wanted) == metric(text, decisions, rule="second", **wanted) + 1
    assert metric(later, decisions) == metric(text, decisions) + 1


async def test_file_that_vanishes_and_comes_back_is_told_and_read(stage: Stage) -> None:
    await stage.start_sellers()
    stage.write_rules(called("first"))
    await stage.start_server()
    (stage.folder / "routing_rules.yaml").unlink()
    await refused_for(stage, "the rules cannot be read: No such file or directory")
    assert (await stage.create())["routing"]["rule"] == "first"
    stage.write_rules(called("second"))
    await in_force(stage, "second")


async def test_hangup_reads_the_rules_anew_whether_they_changed_or_not(stage: Stage) -> None:
    await stage.start_sellers()
    stage.write_rules(called("first"))
    await stage.start_server()
    for times in (1, 2):
        stage.server.process.send_signal(signal.SIGHUP)
        await eventually(lambda times=times: _told_times(stage, times))  # type: ignore[misc]  # the default binds this turn's number
    shown = await rules_of(stage)
    assert (shown["rules"], shown["last_reload_at"] is None) == (["first"], False)
    assert await stage.server.stop() == 0


async def _told_times(stage: Stage, times: int) -> bool:
    return len(told(stage, "rules.reloaded")) == times


async def test_provider_that_is_owed_stays_until_it_is_owed_nothing(stage: Stage) -> None:
    await stage.start_sellers(speed=10)
    stage.write_rules()
    await stage.start_server()
    video = await stage.create(model="fal/seedance-2.0")
    await stage.until(video["id"], lambda now: now["status"] == "in_progress")

    def without_fal(rules: dict[str, Any]) -> None:
        del rules["providers"]["fal"]

    stage.write_rules(without_fal)
    await refused_for(stage, "attempts are still owed to fal, which the rules name no more; put it back with `enabled")
    assert [one["provider"] for one in (await stage.video(video["id"]))["routing"]["attempts"]] == ["fal"]

    def fal_is_now_runflow(rules: dict[str, Any]) -> None:
        rules["providers"]["fal"] = {**rules["providers"]["runflow"]}

    stage.write_rules(fal_is_now_runflow)
    await refused_for(stage, "the provider fal may not change its adapter from fal to runflow")

    def fal_off(rules: dict[str, Any]) -> None:
        rules["providers"]["fal"]["enabled"] = False

    stage.write_rules(fal_off)
    await in_force(stage, "default")
    answer = await stage.client.post("/v1/videos", json={"prompt": "x", "model": "fal/seedance-2.0"})
    assert answer.status_code == 400
    done = await stage.ended(video["id"])
    assert (done["status"], done["routing"]["provider"]) == ("completed", "fal")
    assert len(await stage.books()) == 1, "nothing new was sent, and what ran was polled on"

    stage.write_rules(without_fal)
    await eventually(lambda: _names_only(stage, "evolink", "shortapi", "runflow"))
    assert 'provider="fal"' not in (await stage.client.get("/metrics")).text
    stage.write_rules()
    await eventually(lambda: _names_only(stage, "evolink", "shortapi", "fal", "runflow"))
    bought = await stage.ended((await stage.create(model="fal/seedance-2.0"))["id"])
    assert bought["status"] == "completed"
    text = (await stage.client.get("/metrics")).text
    assert metric(text, "reelay_provider_attempts_total", provider="fal", operation="submit", outcome="ok") == 1


async def _names_only(stage: Stage, *providers: str) -> bool:
    shown = (await stage.client.get("/admin/providers")).json()["data"]
    return [one["provider"] for one in shown] == list(providers)


async def test_provider_that_comes_back_is_asked_for_what_it_owes(stage: Stage) -> None:
    await stage.start_sellers(speed=10)
    stage.write_rules()
    await stage.start_server()
    video = await stage.create(model="fal/seedance-2.0")
    await stage.until(video["id"], lambda now: now["status"] == "in_progress")
    await stage.server.stop()

    def without_fal(rules: dict[str, Any]) -> None:
        del rules["providers"]["fal"]

    stage.write_rules(without_fal)
    await stage.start_server()
    assert [one["status"] for one in (await stage.video(video["id"]))["routing"]["attempts"]] == ["unknown"]
    stage.write_rules()
    done = await stage.ended(video["id"])
    assert (done["status"], done["routing"]["provider"]) == ("completed", "fal")
    assert len(await stage.books()) == 1, "it was bought once"


async def test_mounted_configuration_is_swapped_by_its_link(stage: Stage) -> None:
    await stage.start_sellers()
    mount = stage.folder / "mounted"
    mount.mkdir()

    def publish(version: str) -> None:
        """As a kubelet does: a new folder, and one link beside the file that is moved over the old."""
        stage.write_rules(called(version))
        (mount / f"..{version}").mkdir()
        (stage.folder / "routing_rules.yaml").rename(mount / f"..{version}" / "routing_rules.yaml")
        (mount / "..data_tmp").symlink_to(f"..{version}")
        (mount / "..data_tmp").rename(mount / "..data")

    publish("first")
    (mount / "routing_rules.yaml").symlink_to("..data/routing_rules.yaml")
    await stage.start_server(RULES=str(mount / "routing_rules.yaml"))
    await in_force(stage, "first")
    begun = time.monotonic()
    publish("second")
    await in_force(stage, "second")
    assert time.monotonic() - begun < 4, "told by the file system, before anybody looks by himself"


async def test_change_behind_a_link_elsewhere_is_found_by_looking(stage: Stage) -> None:
    await stage.start_sellers()
    away = stage.folder / "releases" / "current"
    away.mkdir(parents=True)
    (stage.folder / "linked.yaml").symlink_to(away / "routing_rules.yaml")
    for version in ("first", "second"):
        stage.write_rules(called(version))
        (stage.folder / "routing_rules.yaml").rename(away / "routing_rules.yaml")
        if version == "first":
            await stage.start_server(RULES=str(stage.folder / "linked.yaml"))
        await in_force(stage, version)


async def test_server_whose_terminal_is_closed_ends(stage: Stage) -> None:
    await stage.start_sellers()
    stage.write_rules()
    port, (terminal, its_end) = free_port(), os.openpty()
    env = os.environ | PLAY_KEYS | {"PYTHONPATH": str(ROOT), "REELAY_PORT": str(port), "REELAY_BOOTSTRAP_KEY": KEY}
    with (stage.folder / "log").open("wb") as log:

        def sit_down() -> None:
            os.login_tty(its_end)
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)

        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "proxy", "serve", cwd=stage.folder, env=env, preexec_fn=sit_down
        )
    os.close(its_end)

    async def ready() -> bool:
        try:
            return (await client.get(f"http://127.0.0.1:{port}/readyz")).status_code == 200
        except httpx.TransportError:
            return False

    try:
        async with httpx.AsyncClient(trust_env=False) as client:
            await eventually(ready)
        os.close(terminal)
        assert await asyncio.wait_for(process.wait(), 30) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
