"""A plan keeps so many offers as may be tried, and holds what the dearest of them may cost."""

import msgspec

from proxy.core.offer import FallbackPolicy, Plan, Price, PriceOverride
from tests.policy.policies import make_candidate, make_offer

POLICY = FallbackPolicy(max_attempts=2, on=frozenset(), deadline_s=60, on_unknown="wait", on_moderation="stop")
PLAN = Plan(
    rule="default",
    strategy="cheapest",
    candidates=tuple(make_candidate(offer=name, hold_microusd=hold) for name, hold in [("a", 5), ("b", 3), ("c", 9)]),
    excluded=(),
    fallback=POLICY,
    bill_failed_attempts=False,
    changed={},
    rules_hash="r",
    book_hash="b",
    markup="0",
)


def test_only_the_first_offers_may_be_tried() -> None:
    assert [candidate.offer for candidate in PLAN.kept] == ["a", "b"]


def test_hold_is_the_dearest_of_those_that_may_be_tried() -> None:
    assert PLAN.hold_microusd == 5


def test_hold_is_their_sum_where_failed_attempts_are_billed() -> None:
    assert msgspec.structs.replace(PLAN, bill_failed_attempts=True).hold_microusd == 8


def test_expected_time_grows_with_the_film() -> None:
    offer = make_offer(expected_s={"720p": (20.0, 4.0)})
    assert offer.expected_time_s("720p", 5) == 40.0


def test_override_is_a_price_of_its_own_id() -> None:
    override = PriceOverride(
        id="price_1",
        provider="p",
        model="m",
        tier="fast",
        operation="text-to-video",
        resolution="720p",
        with_video=1,
        usd_per_second=None,
        usd_per_million_tokens="14",
        starts="2026-04-01",
        source="a contract",
        basis="derived",
        created_at=1,
    )
    assert override.offer == "p/m/fast/text-to-video"
    assert override.price == Price(
        id="price_1",
        resolution="720p",
        with_video=True,
        usd_per_million_tokens="14",
        starts="2026-04-01",
        source="a contract",
        basis="derived",
        origin="override",
    )
