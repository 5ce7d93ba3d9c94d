"""Films in an object store, from the seller's link to the day when they are removed; the store falls, too."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Iterator

import pytest

from proxy.services.belonging import MARKER_KEY
from tests.databases import whole_in
from tests.object_store import BUCKET, SECRET, ObjectStore, new_prefix, object_store
from tests.whole.company import refused
from tests.whole.scenes import check_the_ledger, check_the_log, eventually, metric, rows
from tests.whole.stage import PLAY_KEYS, Stage
from tests.whole.test_start import refused as not_started
from tests.whole.test_start import rules as write_rules


@pytest.fixture
def mortal() -> Iterator[ObjectStore]:
    """A store of the test's own, which may fall."""
    store = ObjectStore()
    yield store
    store.leave()


@pytest.fixture
async def prefix(stage: Stage) -> AsyncIterator[str]:
    """Where the server of this stage will keep its films."""
    yield new_prefix()
    check_the_ledger(stage.folder)
    check_the_log(stage.folder)


async def serve_from(store: ObjectStore, stage: Stage, prefix: str) -> None:
    await stage.start_sellers()
    stage.write_rules(deadline_s=120)
    stage.more_environment = store.environment()
    await stage.start_server(STORAGE_URL=f"s3://{BUCKET}/{prefix}")


def films(store: ObjectStore, prefix: str) -> dict[str, int]:
    """Bytes by key, as another program sees them; the storage's own marker is none."""
    found = {one["path"]: one["size"] for page in store.direct(prefix).list() for one in page}
    return {key: size for key, size in found.items() if key != MARKER_KEY}


async def test_film_lives_in_the_store_from_delivery_to_its_last_day(stage: Stage, prefix: str) -> None:
    store = object_store()
    await serve_from(store, stage, prefix)
    made = [await stage.ended((await stage.create(f"boat {number}", resolution="480p"))["id"]) for number in range(2)]
    assert [video["status"] for video in made] == ["completed", "completed"]
    kept = films(store, prefix)
    assert sorted(key.split("/")[1].rsplit("-", 2)[0] for key in kept) == sorted(video["id"] for video in made)
    assert not (stage.folder / "data" / "videos").exists()
    assert store.unfinished() == 0

    (key,) = (key for key in kept if made[0]["id"] in key)
    film = bytes(store.direct(prefix).get(key).bytes())
    path = f"/v1/videos/{made[0]['id']}/content"
    whole = await stage.client.get(path)
    assert (whole.status_code, whole.content) == (200, film)
    assert whole.headers["etag"] == f'"{hashlib.sha256(film).hexdigest()}"'
    told = await stage.client.head(path)
    assert (told.status_code, told.headers["content-length"]) == (200, str(len(film)))
    middle = len(film) // 2
    for asked, part in {f"{middle}-": film[middle:], "0-0": film[:1], "-9": film[-9:], "5-99": film[5:100]}.items():
        answer = await stage.client.get(path, headers={"range": f"bytes={asked}", "if-range": whole.headers["etag"]})
        assert (answer.status_code, answer.content) == (206, part)

    assert (await stage.client.delete(f"/v1/videos/{made[0]['id']}")).is_success
    assert [made[1]["id"] in key for key in films(store, prefix)] == [True]

    whole_in(stage.folder).write("update videos set expires_at = 1 where expires_at is not null")
    code, out, err = await stage.cli("prune", "--json")
    assert code == 0, err
    assert json.loads(out)["files"] == 1
    assert films(store, prefix) == {}
    refused(await stage.client.get(f"/v1/videos/{made[1]['id']}/content"), 404, "not_found", "video_id")


async def test_film_waits_for_a_store_that_is_away_and_is_bought_once(
    stage: Stage, prefix: str, mortal: ObjectStore
) -> None:
    await serve_from(mortal, stage, prefix)
    first = await stage.ended((await stage.create("before", resolution="480p"))["id"])
    mortal.stop()
    content = f"/v1/videos/{first['id']}/content"
    answer = await stage.client.get(content)
    refused(answer, 503, "server_is_overloaded", None)
    assert int(answer.headers["retry-after"]) > 0

    waiting = await stage.create("meanwhile", resolution="480p")

    async def failed() -> bool:
        text = (await stage.client.get("/metrics")).text
        return metric(text, "reelay_store_errors_total", store="files") >= 2

    await eventually(failed)
    assert (await stage.video(waiting["id"]))["status"] == "in_progress"
    mortal.start()
    ended = await stage.ended(waiting["id"], within_s=60)
    assert ended["status"] == "completed"
    assert len(ended["routing"]["attempts"]) == 1
    assert [job["prompt"] for job in await stage.books()].count("meanwhile") == 1
    assert len(films(mortal, prefix)) == 2
    for video in (first, ended):
        assert (await stage.client.get(f"/v1/videos/{video['id']}/content")).status_code == 200


@pytest.mark.parametrize(
    ("bucket", "environment", "says"),
    [
        ("films-of-nobody", {}, "404 Not Found: NoSuchBucket"),
        (BUCKET, {"AWS_SECRET_ACCESS_KEY": "another-secret"}, "403 Forbidden: SignatureDoesNotMatch"),
        (BUCKET, {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "http://127.0.0.1:1/"),
        (BUCKET, {"AWS_ACCESS_KEY_ID": "", "AWS_SHARED_CREDENTIALS_FILE": "nowhere"}, "No such file or directory"),
    ],
)
async def test_server_without_its_bucket_does_not_start(
    stage: Stage, bucket: str, environment: dict[str, str], says: str
) -> None:
    write_rules(stage.folder)
    env = object_store().environment() | PLAY_KEYS | {"REELAY_STORAGE_URL": f"s3://{bucket}/p"} | environment
    told = await not_started(stage.folder, ["serve"], **env)
    assert told.startswith(f"the storage s3://{bucket}/p cannot be ")
    assert says in told
    assert SECRET not in told


@pytest.mark.long
async def test_server_killed_in_half_a_copy_delivers_the_film_once(stage: Stage, prefix: str) -> None:
    store = object_store()
    await serve_from(store, stage, prefix)
    left = store.unfinished()
    await stage.arm("evolink", "slow_file", count=1, delay_s=0.5)
    video = await stage.create("a boat", resolution="480p", model="evolink/seedance-2.0")

    async def under_way() -> bool:
        return rows(stage.folder, "select state from attempts") == [("done",)]

    await eventually(under_way)
    await asyncio.sleep(2)  # of the ten seconds that the seller takes to send it
    await stage.server.kill()
    assert films(store, prefix) == {}
    await stage.start_server(STORAGE_URL=f"s3://{BUCKET}/{prefix}")
    ended = await stage.ended(video["id"], within_s=120)
    assert ended["status"] == "completed"
    assert len(await stage.books()) == 1
    assert len(films(store, prefix)) == 1
    assert store.unfinished() == left


@pytest.mark.long
async def test_seller_that_breaks_off_leaves_no_part_of_a_film(stage: Stage, prefix: str) -> None:
    store = object_store()
    await serve_from(store, stage, prefix)
    left = store.unfinished()
    for seller in ("evolink", "fal"):
        await stage.arm(seller, "truncated", count=1)
        ended = await stage.ended((await stage.create("a boat", model=f"{seller}/seedance-2.0"))["id"])
        assert ended["status"] == "completed"
    assert store.unfinished() == left
    assert len(films(store, prefix)) == 2
    fetches = rows(stage.folder, "select fetches from attempts")
    assert fetches == [(1,), (1,)]
