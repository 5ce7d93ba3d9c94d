"""A report leaves out no micro-dollar, whoever bears it."""

from proxy.core.clock import DAY_US
from proxy.services.report import SpendLine, SpendQuery, spend
from tests.services.rehearsal import FalOrder, Rehearsal


async def total(house: Rehearsal) -> list[SpendLine]:
    query = SpendQuery(groups=(), start=0, end=10**6 * DAY_US, tenant_id=None)
    return (await spend(house.house.store, query)).lines


async def test_sum_over_everything_tells_of_costs_that_no_tenant_pays(house: Rehearsal) -> None:
    assert await total(house) == []
    order = FalOrder()
    house.answers(order)
    video_id = await house.accept()
    await house.run(1260, step_s=30)
    assert (await house.video(video_id)).error_code == "deadline_exceeded"
    order.status = "COMPLETED"
    await house.run(120, step_s=30)
    [line] = await total(house)
    assert (line.videos, line.charged_usd) == (0, "0.000000")
    assert (line.seller_usd, line.absorbed_usd) == ("1.213600", "1.213600")
