"""One video from request to bill, over real sockets."""

from tests.whole.stage import Stage


async def test_cheapest_seller_makes_the_video_and_the_bill_is_its_price(stage: Stage) -> None:
    await stage.start_sellers()
    stage.write_rules()
    await stage.start_server()
    video = await stage.ended((await stage.create())["id"])
    assert video["status"] == "completed", video
    assert video["routing"]["provider"] == "evolink"
    assert video["usage"] == {"duration_seconds": 4.042, "cost_usd": "0.794000"}
    jobs = await stage.books()
    assert [(job["seller"], job["charged_microusd"]) for job in jobs] == [("evolink", 794_000)]
