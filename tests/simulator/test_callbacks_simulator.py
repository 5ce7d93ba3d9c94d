import asyncio
import time

import msgspec

from tests.simulator.shopping import HEADERS, SELLERS, Letterbox, Shopper, id_of

QUIET_S = 0.15
"""Real seconds after which a callback that has not come is taken not to come."""


async def test_every_seller_calls_back_at_the_end(shopper: Shopper, letterbox: Letterbox) -> None:
    ids = {seller: await shopper.bought(seller, callback_url=letterbox.url) for seller in SELLERS}
    await shopper.step(1000)
    bodies = await letterbox.wait(4)

    texts = [msgspec.json.encode(body).decode() for body in bodies]
    assert all(any(id_ in text for text in texts) for id_ in ids.values())


async def test_evolink_calls_back_with_the_task_after_its_billing(shopper: Shopper, letterbox: Letterbox) -> None:
    id_ = await shopper.bought("evolink", callback_url=letterbox.url)
    while (await shopper.job(id_))["state"] != "succeeded":
        await shopper.step(1)
    await asyncio.sleep(QUIET_S)
    before_billing = len(letterbox.letters)
    await shopper.step(5.1)
    (body,) = await letterbox.wait(1)

    assert before_billing == 0
    assert body == (await shopper.poll("evolink", id_)).json()


async def test_shortapi_calls_back_with_the_query_reply(shopper: Shopper, letterbox: Letterbox) -> None:
    id_ = await shopper.bought("shortapi", callback_url=letterbox.url)
    await shopper.step(1000)

    assert await letterbox.wait(1) == [(await shopper.poll("shortapi", id_)).json()]


async def test_tries_are_repeated_on_the_sellers_schedule(shopper: Shopper, letterbox: Letterbox) -> None:
    letterbox.statuses = [500, 404, 500, 500, 200]
    id_ = await shopper.bought("evolink", callback_url=letterbox.url)
    for expected, step in enumerate((1000, 1.1, 2.1, 4.1, 100), start=1):
        await shopper.step(step)
        await letterbox.wait(min(expected, 4))
        await asyncio.sleep(0.05)

    assert len(letterbox.letters) == 4
    assert (await shopper.job(id_))["callback_tries"] == 4


async def test_runflow_does_not_repeat_after_a_4xx(shopper: Shopper, letterbox: Letterbox) -> None:
    letterbox.statuses = [404]
    await shopper.bought("runflow", callback_url=letterbox.url)
    await shopper.step(1000)
    await letterbox.wait(1)
    await asyncio.sleep(0.05)
    await shopper.step(1000)
    await asyncio.sleep(QUIET_S)

    assert len(letterbox.letters) == 1


async def test_unreachable_receiver_is_given_up(shopper: Shopper) -> None:
    id_ = await shopper.bought("runflow", callback_url="http://127.0.0.1:1/")
    for _ in range(4):
        await shopper.step(1000)
        await asyncio.sleep(0.05)

    assert (await shopper.job(id_))["callback_tries"] == 3


async def test_duplicate_and_lost(shopper: Shopper, letterbox: Letterbox) -> None:
    await shopper.bought("fal", "[fault:cb_lost]", callback_url=letterbox.url)
    await shopper.step(1000)
    await shopper.bought("fal", "[fault:cb_duplicate]", callback_url=letterbox.url)
    await shopper.step(1000)
    first, second = await letterbox.wait(2)
    await asyncio.sleep(QUIET_S)

    assert first == second
    assert len(letterbox.letters) == 2


async def test_early_comes_before_the_create_is_answered(shopper: Shopper, letterbox: Letterbox) -> None:
    reply = await shopper.create("evolink", "[fault:cb_early]", callback_url=letterbox.url)

    (body,) = await letterbox.wait(1)
    assert body["id"] == id_of("evolink", reply.json())
    assert body["status"] == "completed"
    assert (await shopper.poll("evolink", body["id"])).json()["status"] == "pending"


async def test_altered_tells_the_opposite_under_the_true_signature(shopper: Shopper, letterbox: Letterbox) -> None:
    await shopper.client.post("/runflow/v1/callback-secrets", json={}, headers=HEADERS["runflow"])
    await shopper.bought("runflow", callback_url=letterbox.url)
    await shopper.step(1000)
    await letterbox.wait(1)
    await shopper.bought("runflow", "[fault:cb_altered]", callback_url=letterbox.url)
    await shopper.step(1000)
    _, body = await letterbox.wait(2)

    assert body["status"] == "failed"
    assert len(letterbox.letters[1][0]["runflow-signature"]) == 64


async def test_wrong_signature(shopper: Shopper, letterbox: Letterbox) -> None:
    await shopper.bought("runflow", "[fault:cb_wrong_signature]", callback_url=letterbox.url)
    await shopper.step(1000)
    await letterbox.wait(1)

    assert letterbox.letters[0][0]["runflow-signature"] == "0" * 64


async def test_old_times(shopper: Shopper, letterbox: Letterbox) -> None:
    await shopper.bought("fal", "[fault:cb_old]", callback_url=letterbox.url)
    await shopper.bought("runflow", "[fault:cb_old]", callback_url=letterbox.url)
    await shopper.step(1000)
    bodies = await letterbox.wait(2)

    stamps = [int(headers.get("x-fal-webhook-timestamp", 0)) for headers, _ in letterbox.letters]
    assert 80_000 < time.time() - max(stamps) < 90_000
    assert any(body.get("completed_at", "") for body in bodies)


async def test_unknown_id(shopper: Shopper, letterbox: Letterbox) -> None:
    id_ = await shopper.bought("shortapi", "[fault:cb_unknown_id]", callback_url=letterbox.url)
    await shopper.step(1000)
    (body,) = await letterbox.wait(1)

    assert body["data"]["id"] != id_


async def test_late(shopper: Shopper, letterbox: Letterbox) -> None:
    await shopper.bought("shortapi", "[fault:cb_late]", callback_url=letterbox.url)
    await shopper.step(500)
    await asyncio.sleep(QUIET_S)
    before = len(letterbox.letters)
    await shopper.step(601)
    await letterbox.wait(1)

    assert before == 0
