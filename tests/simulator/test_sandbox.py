import asyncio
import time
from pathlib import Path

import httpx
import pytest
import uvloop

from proxy.simulator.app import build_sandbox
from proxy.simulator.faults import POLLED
from proxy.simulator.sandbox import WRITE_EVERY_S
from tests.simulator.shopping import CREATES, HEADERS, Letterbox, Shopper, link_in, opened


async def test_jobs_books_and_secrets_outlive_the_process(folder: Path, letterbox: Letterbox) -> None:
    async with opened(folder, ready_made_clip=True) as shopper:
        await shopper.admin("clock", {"manual": True})
        done = await shopper.finished("shortapi")
        link = await shopper.link("shortapi", done)
        running = await shopper.bought("evolink")
        await shopper.step(30)
        queued = await shopper.bought("fal", callback_url=letterbox.url)
        await shopper.client.post("/runflow/v1/callback-secrets", json={}, headers=HEADERS["runflow"])
        await shopper.admin("keys", {"key": "ak-revoked"})
        await asyncio.sleep(10 * WRITE_EVERY_S)
        # By now all is written down; a poll changes nothing but its count.
        await shopper.link("shortapi", done)
        before = await shopper.books()
    async with opened(folder, ready_made_clip=True) as shopper:
        after = await shopper.books()
        file = await shopper.client.get(httpx.URL(link).path)
        await shopper.step(1000)
        states = {id_: (await shopper.job(id_))["state"] for id_ in (done, running, queued)}
        secrets = await shopper.client.get("/runflow/v1/callback-secrets", headers=HEADERS["runflow"])
        revoked = await shopper.client.get(
            "/shortapi/api/v1/job/query", params={"id": done}, headers={"Authorization": "Bearer ak-revoked"}
        )
        await letterbox.wait(1)

    assert after == before
    assert file.status_code == 200
    assert set(states.values()) == {"succeeded"}
    assert len(secrets.json()["items"]) == 1
    assert revoked.json()["info"] == "invalid api key"


async def test_time_goes_on_while_the_sandbox_is_down(folder: Path) -> None:
    async with opened(folder, ready_made_clip=True, clock_factor=0.01) as shopper:
        id_ = await shopper.bought("fal")
        assert (await shopper.job(id_))["state"] in {"queued", "running"}
    await asyncio.sleep(1.7)
    async with opened(folder, ready_made_clip=True, clock_factor=1) as shopper:
        row = await shopper.job(id_)

    assert row["state"] == "succeeded"
    assert row["ended_at"] > row["created_at"]


async def test_clock_factor_scales_a_whole_life(folder: Path, letterbox: Letterbox) -> None:
    async with opened(folder, ready_made_clip=True, clock_factor=0.002) as shopper:
        began = time.monotonic()
        id_ = await shopper.bought("evolink", callback_url=letterbox.url)
        await letterbox.wait(1)
        took_s = time.monotonic() - began
        row = await shopper.job(id_)

    assert row["state"] == "succeeded"
    assert 0.13 < took_s < 1.5


async def test_lives_are_the_same_for_the_same_seed(tmp_path: Path) -> None:
    async def auto(seed: int) -> list[tuple[int, str]]:
        async with opened(tmp_path / str(seed) / str(time.monotonic_ns()), seed=seed) as shopper:
            path, _ = CREATES["fal"]
            for _ in range(5):
                await shopper.client.post(
                    path, json={"prompt": "x", "resolution": "480p", "duration": "auto"}, headers=HEADERS["fal"]
                )
            return [(job["seconds"], job["aspect_ratio"]) for job in (await shopper.books())["jobs"]]

    first, again, other = await auto(1), await auto(1), await auto(2)

    assert first == again != other
    assert all(seconds != 5 and ratio != "16:9" for seconds, ratio in first)


async def test_any_key_opens_but_none_empty_or_revoked(shopper: Shopper) -> None:
    statuses = []
    path, body_of = CREATES["evolink"]
    await shopper.admin("keys", {"key": "sk-bad"})
    for value in ("Bearer sk-good", "Bearer", "Key sk-good", "Bearer sk-bad", ""):
        reply = await shopper.client.post(path, json=body_of("x"), headers={"Authorization": value})
        statuses.append(reply.status_code)
    await shopper.admin("keys", {"key": "sk-bad", "revoked": False})
    again = await shopper.client.post(path, json=body_of("x"), headers={"Authorization": "Bearer sk-bad"})

    assert statuses == [200, 401, 401, 401, 401]
    assert again.status_code == 200


async def test_each_key_has_its_own_account_and_jobs(shopper: Shopper) -> None:
    id_ = await shopper.bought("evolink")
    path, body_of = CREATES["evolink"]
    stranger = {"Authorization": "Bearer sk-other"}
    await shopper.client.post(path, json=body_of("x"), headers=stranger)
    peek = await shopper.client.get(f"/evolink/v1/tasks/{id_}", headers=stranger)
    books = await shopper.books("evolink")

    assert peek.status_code == 404
    assert [account["accepted"] for account in books["accounts"]] == [1, 1]
    assert "sk-other" not in (await shopper.client.get("/admin/books")).text


async def test_requests_are_remembered_without_keys(shopper: Shopper) -> None:
    for seller in POLLED:
        await shopper.create(seller)
    seen = await shopper.client.get("/admin/requests", params={"last": 1})
    one = (await shopper.client.get("/admin/requests", params={"seller": "evolink"})).json()["requests"]

    for headers in HEADERS.values():
        assert headers["Authorization"].split(" ")[1] not in seen.text
    assert [request["seller"] for request in seen.json()["requests"]] == list(POLLED)
    assert one[0]["method"] == "POST"
    assert one[0]["path"] == "/v1/videos/generations"
    assert one[0]["headers"]["authorization"] == "Bearer"
    assert one[0]["body"]["quality"] == "720p"
    assert one[0]["status"] == 200
    assert seen.json()["peak_concurrent"]["evolink"] == 1
    assert seen.json()["asked"]["evolink"] == {"POST": 1}


async def test_books_can_be_emptied(shopper: Shopper) -> None:
    id_ = await shopper.bought("evolink")
    await shopper.client.delete("/admin/books")
    books = await shopper.books()

    assert (books["jobs"], books["accounts"]) == ([], [])
    assert (await shopper.poll("evolink", id_)).status_code == 404


async def test_forgotten_jobs_stay_forgotten(folder: Path, letterbox: Letterbox) -> None:
    async with opened(folder, ready_made_clip=True, clock_factor=0.001) as shopper:
        await shopper.bought("fal", callback_url=letterbox.url)
        await shopper.client.delete("/admin/books")
        await asyncio.sleep(0.3)
        assert (await shopper.books())["jobs"] == []
    async with opened(folder, ready_made_clip=True) as shopper:
        assert (await shopper.books())["jobs"] == []
    assert letterbox.letters == []


async def test_totals_come_without_rows(shopper: Shopper) -> None:
    await shopper.bought("evolink")
    books = (await shopper.client.get("/admin/books", params={"jobs": "false"})).json()

    assert books["jobs"] == []
    assert books["totals"]["accepted"] == 1


async def test_clock_can_be_read_set_and_not_turned_back(shopper: Shopper) -> None:
    state = (await shopper.client.get("/admin/clock")).json()
    set_ = await shopper.admin("clock", {"factor": 0.5, "manual": False})
    zero = await shopper.client.post("/admin/clock", json={"factor": 0})
    back = await shopper.client.post("/admin/clock/step", json={"seconds": -1})

    assert state["manual"] is True
    assert (set_["factor"], set_["manual"]) == (0.5, False)
    assert (zero.status_code, back.status_code) == (400, 400)


async def test_switches_are_shown_and_mistakes_refused(shopper: Shopper) -> None:
    shown = (await shopper.client.get("/admin/switches")).json()
    odd = await shopper.client.post("/admin/switches", json={"nonsense": True})

    assert shown["fal_running_at_once"] == 40
    assert odd.status_code == 400


async def test_links_point_to_the_host_that_was_asked(shopper: Shopper) -> None:
    id_ = await shopper.finished("fal")
    link = link_in("fal", (await shopper.result("fal", id_)).json())

    assert link.startswith(f"{shopper.origin}/files/fal/")


@pytest.mark.parametrize("seller", POLLED)
async def test_sandbox_keeps_up_with_a_crowd(folder: Path, seller: str) -> None:
    """Far below what it can do, for this process carries the clients too."""
    async with opened(folder, ready_made_clip=True, clock_factor=0.001) as shopper:
        began = time.monotonic()
        ids: list[str] = []

        async def buy() -> None:
            for _ in range(10):
                id_ = await shopper.bought(seller)
                ids.append(id_)
                for _ in range(2):
                    assert (await shopper.poll(seller, id_)).is_success

        await asyncio.gather(*(buy() for _ in range(10)))
        took_s = time.monotonic() - began
        await asyncio.sleep(0.3)
        books = await shopper.books(seller)

    assert took_s < 5
    assert books["totals"]["accepted"] == len(set(ids)) == 100
    assert {job["state"] for job in books["jobs"]} == {"succeeded"}


async def test_door_that_nobody_owns_is_a_404(shopper: Shopper) -> None:
    assert (await shopper.client.get("/nobody")).status_code == 404


def test_application_is_built_without_touching_anything(tmp_path: Path) -> None:
    build_sandbox(folder=tmp_path / "not-yet")

    assert not (tmp_path / "not-yet").exists()


async def test_port_in_use_is_an_error_at_once(shopper: Shopper, tmp_path: Path) -> None:
    port = httpx.URL(shopper.origin).port
    with pytest.raises(OSError, match="in use"):
        async with opened(tmp_path, port=port):
            pass


def test_connections_are_reset_on_uvloop_too(folder: Path) -> None:
    async def visit() -> list[str]:
        async with opened(folder, ready_made_clip=True) as shopper:
            for fault in ("reset_before", "reset_after"):
                with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
                    await shopper.create("evolink", f"[fault:{fault}]")
            return [job["state"] for job in (await shopper.books())["jobs"]]

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(visit()) == ["queued"]


async def test_two_sandboxes_share_a_loop(folder: Path, tmp_path: Path) -> None:
    async with opened(folder, ready_made_clip=True) as one, opened(tmp_path / "other") as other:
        await one.bought("evolink")

        assert len((await one.books())["jobs"]) == 1
        assert (await other.books())["jobs"] == []
