"""The offers that fit, in the order of the strategy."""

from bisect import bisect_right
from collections.abc import Callable, Iterable
from itertools import accumulate

from proxy.core.money import usd_text
from proxy.core.offer import Offer
from proxy.policy.fit import Figures
from proxy.policy.rules import Strategy

Fitting = tuple[Offer, Figures]


def rank(fitting: Iterable[Fitting], strategy: Strategy, chance: float) -> list[Fitting]:
    """
    Best first; equals by the other figure, then by id, so that the order never depends on luck.

    `chance` in [0, 1) decides for `weighted` alone.
    """
    cheapest_first = sorted(fitting, key=_by_price)
    if strategy.name == "cheapest":
        return cheapest_first
    if strategy.name == "fastest":
        return sorted(cheapest_first, key=_by_time)
    if strategy.name == "ordered":
        return sorted(cheapest_first, key=lambda one: strategy.order.index(one[0].provider))
    if strategy.name == "balanced":
        return sorted(cheapest_first, key=_balance(cheapest_first, strategy))
    return _drawn(cheapest_first, strategy.weights, chance)


def _by_price(one: Fitting) -> tuple[int, float, str]:
    offer, figures = one
    return figures.quote.tenant_microusd, figures.expected_s, offer.id


def _by_time(one: Fitting) -> tuple[float, int, str]:
    offer, figures = one
    return figures.expected_s, figures.quote.tenant_microusd, offer.id


def _balance(fitting: list[Fitting], strategy: Strategy) -> Callable[[Fitting], float]:
    """Each figure as a multiple of the best one, weighed; a ranking, no amount."""
    best_price = max(1, min((figures.quote.tenant_microusd for _, figures in fitting), default=1))
    best_s = max(0.001, min((figures.expected_s for _, figures in fitting), default=1))

    def score(one: Fitting) -> float:
        price = one[1].quote.tenant_microusd / best_price
        return strategy.price_weight * price + strategy.latency_weight * one[1].expected_s / best_s

    return score


def _drawn(fitting: list[Fitting], weights: dict[str, float], chance: float) -> list[Fitting]:
    """Draws one after the other by weight; what is left of the chance after a draw is as even as before."""
    left, drawn = list(fitting), list[Fitting]()
    while left:
        ends = list(accumulate(weights[offer.provider] for offer, _ in left))
        point = chance * ends[-1]
        # Rounding may put the point on the very end; that is the last one's.
        index = min(bisect_right(ends, point), len(left) - 1)
        one = left.pop(index)
        weight = weights[one[0].provider]
        chance = min((point - ends[index] + weight) / weight, 1 - 2**-53)
        drawn.append(one)
    return drawn


def reasons(ranked: list[Fitting], strategy: Strategy) -> list[str]:
    """A sentence with figures for each, which names no seller."""
    lowest = min(figures.quote.tenant_microusd for _, figures in ranked)
    shortest = min(figures.expected_s for _, figures in ranked)
    return [
        f"{_place(number, offer, strategy)}: ${usd_text(figures.quote.tenant_microusd)}"
        f" ({_above(figures.quote.tenant_microusd, lowest, 'the lowest price')}),"
        f" {figures.expected_s:.0f} s expected ({_above(figures.expected_s, shortest, 'the shortest time')})"
        + (", price derived" if figures.rated.basis == "derived" else "")
        for number, (offer, figures) in enumerate(ranked, start=1)
    ]


def _place(number: int, offer: Offer, strategy: Strategy) -> str:
    by = {
        "cheapest": "by price",
        "fastest": "by expected time",
        "balanced": f"by price ({strategy.price_weight:g}) and expected time ({strategy.latency_weight:g})",
        "ordered": "in the stated order",
        "weighted": f"as drawn, with weight {strategy.weights.get(offer.provider, 0):g}",
    }
    return f"number {number} {by[strategy.name]}"


def _above(figure: float, best: float, what: str) -> str:
    if figure <= best:
        return what
    return f"{100 * (figure - best) / best:.0f} % above" if best > 0 else f"above {what}"
