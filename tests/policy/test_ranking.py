"""The order of trying, by each strategy."""

from collections import Counter
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.policy.fit import Figures
from proxy.policy.prices import Quote, Rated
from proxy.policy.ranking import Fitting, rank, reasons
from proxy.policy.rules import Strategy
from tests.policy.policies import make_offer


def fitting(provider: str, price: int, expected_s: float, basis: str = "listed") -> Fitting:
    rated = Rated(
        price_id="p",
        basis="derived" if basis == "derived" else "listed",
        rates={},
        usd_per_second=Decimal(0),
        fixed_usd=Decimal(0),
    )
    quote = Quote(seller_microusd=price, tenant_microusd=price, hold_microusd=price)
    return make_offer(id=f"{provider}/m", provider=provider), Figures(rated=rated, quote=quote, expected_s=expected_s)


OFFERS = [fitting("slow", 100, 200), fitting("fast", 300, 50), fitting("middle", 150, 80)]


def order(strategy: Strategy, chance: float = 0.0, offers: list[Fitting] | None = None) -> list[str]:
    return [offer.provider for offer, _ in rank(OFFERS if offers is None else offers, strategy, chance)]


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        (Strategy(name="cheapest"), ["slow", "middle", "fast"]),
        (Strategy(name="fastest"), ["fast", "middle", "slow"]),
        (Strategy(name="balanced"), ["middle", "fast", "slow"]),
        (Strategy(name="balanced", price_weight=1, latency_weight=0), ["slow", "middle", "fast"]),
        (Strategy(name="balanced", price_weight=0, latency_weight=1), ["fast", "middle", "slow"]),
        (Strategy(name="ordered", order=("middle", "slow", "fast")), ["middle", "slow", "fast"]),
    ],
)
def test_each_strategy_has_its_order(strategy: Strategy, expected: list[str]) -> None:
    assert order(strategy) == expected


def test_equals_go_by_the_other_figure_then_by_id() -> None:
    same = [fitting("c", 5, 5), fitting("b", 5, 5), fitting("a", 5, 9), fitting("d", 9, 5)]
    assert order(Strategy(name="cheapest"), offers=same) == ["b", "c", "a", "d"]
    assert order(Strategy(name="fastest"), offers=same) == ["b", "c", "d", "a"]


def test_nothing_to_rank_is_nothing() -> None:
    assert order(Strategy(name="balanced"), offers=[]) == []


def test_free_and_instant_offer_comes_first() -> None:
    free = [fitting("paid", 5, 5), fitting("free", 0, 0)]
    assert order(Strategy(name="balanced"), offers=free) == ["free", "paid"]


@pytest.mark.parametrize(
    ("chance", "expected"),
    [
        (0.0, ["slow", "middle", "fast"]),
        (0.49, ["slow", "fast", "middle"]),
        (0.5, ["middle", "slow", "fast"]),
        (0.75, ["fast", "slow", "middle"]),
        (1 - 2**-53, ["fast", "middle", "slow"]),
    ],
)
def test_chance_draws_by_weight(chance: float, expected: list[str]) -> None:
    assert order(Strategy(name="weighted", weights={"slow": 2, "middle": 1, "fast": 1}), chance) == expected


def test_even_chances_draw_each_as_often_as_it_weighs() -> None:
    strategy = Strategy(name="weighted", weights={"slow": 5, "middle": 3, "fast": 2})
    drawn = [order(strategy, number / 1000) for number in range(1000)]
    assert Counter(names[0] for names in drawn) == {"slow": 500, "middle": 300, "fast": 200}
    second = Counter(names[1] for names in drawn if names[0] == "slow")
    assert abs(second["middle"] - 300) <= 2


@given(chance=st.floats(0, 1, exclude_max=True), weights=st.lists(st.floats(0.001, 1000), min_size=3, max_size=3))
def test_draw_keeps_every_offer(chance: float, weights: list[float]) -> None:
    strategy = Strategy(name="weighted", weights=dict(zip(("slow", "fast", "middle"), weights, strict=True)))
    assert sorted(order(strategy, chance)) == ["fast", "middle", "slow"]


@pytest.mark.parametrize(
    ("strategy", "place"),
    [
        (Strategy(name="cheapest"), "number 1 by price"),
        (Strategy(name="fastest"), "number 1 by expected time"),
        (Strategy(name="balanced"), "number 1 by price (0.5) and expected time (0.5)"),
        (Strategy(name="ordered", order=("slow", "fast", "middle")), "number 1 in the stated order"),
        (Strategy(name="weighted", weights={"slow": 3, "fast": 1}), "number 1 as drawn, with weight 3"),
    ],
)
def test_reason_has_place_and_figures(strategy: Strategy, place: str) -> None:
    first, second = reasons([fitting("slow", 1_000_000, 200), fitting("fast", 1_500_000, 50, "derived")], strategy)
    assert first == f"{place}: $1.000000 (the lowest price), 200 s expected (300 % above)"
    assert second.endswith(": $1.500000 (50 % above), 50 s expected (the shortest time), price derived")


def test_reason_beside_a_free_offer_has_no_percentage() -> None:
    _, second = reasons([fitting("free", 0, 5), fitting("paid", 5, 5)], Strategy(name="cheapest"))
    assert "$0.000005 (above the lowest price)" in second
