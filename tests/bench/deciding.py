"""The decision alone: who is asked for a video, and at what price."""

import itertools
import time
from statistics import median
from typing import Any

import msgspec
import yaml

from proxy.core.clock import system_clock
from proxy.core.tenant import Tenant
from proxy.core.video import Ask
from proxy.policy.pace import Histogram, Learned
from proxy.policy.plan import decide
from proxy.policy.rules import Rules, load_rules
from tests.bench.bench import BODY, Bench
from tests.bench.load import ROOT
from tests.bench.report import Line, at

SELLERS = 12
MODELS = 40
OFFERS = 500
LENGTHS_S = range(4, 16)
TURNS = 10


def _offer(offer: dict[str, Any], seller: int, model: int, tier: str) -> dict[str, Any]:
    """The same at a price and a pace that no two sellers share."""
    prices = [
        price | {"id": f"{price['id']}-{seller}-{model}-{tier}", "usd_per_second": f"0.{100 + 7 * seller}"}
        for price in offer["prices"]
    ]
    paces = {size: [30 + 5 * seller, 10] for size in offer["resolutions"]}
    return offer | {"model": f"model-{model}", "tier": tier, "prices": prices, "expected_s": paces}


def make_rules(*, models: int, offers: int) -> Rules:
    """`SELLERS` of every model in the standard tier; what is then missing of `offers`, in another tier."""
    catalogue = yaml.safe_load((ROOT / "proxy/catalog/evolink.yaml").read_text(encoding="utf-8"))
    made = [(seller, model, "standard") for model in range(models) for seller in range(SELLERS)]
    others = ((seller, model, "fast") for seller in range(SELLERS) for model in range(models))
    made += itertools.islice(others, offers - len(made))
    providers = {
        f"seller-{seller}": {
            "adapter": "play",
            "api_key": "play",
            "offers": [_offer(catalogue["offers"][0], *one) for one in made if one[0] == seller],
        }
        for seller in range(SELLERS)
    }
    shipped = yaml.safe_load((ROOT / "routing_rules.yaml").read_text(encoding="utf-8"))
    rules = {"version": 1, "providers": providers, "rules": shipped["rules"]}
    return load_rules(
        msgspec.json.encode(rules),
        file="rules",
        env={},
        adapters={"play": "http://127.0.0.1"},
        catalog={"play": b"offers: []"},
    )


def _learned(rules: Rules, at_us: int) -> Learned:
    """Of every offer and length, as in a house that is busy."""
    times = Histogram()
    for seconds in range(30, 60):
        times = times.add(seconds, at_us)
    return Learned(
        {(offer, "720p", seconds, "render"): times for offer in rules.offers for seconds in LENGTHS_S}, at_us
    )


def asks_of(rules: Rules) -> list[Ask]:
    """One for each length and model."""
    return [
        Ask(prompt=BODY["prompt"], model=model, seconds=seconds, size=BODY["size"])
        for seconds in LENGTHS_S
        for model in rules.models
    ]


def take_decisions(rules: Rules, asks: list[Ask], decisions: int) -> list[float]:
    """Microseconds that each took, over all that may be asked in turn."""
    tenant = Tenant(id="tenant", name="tenant", created_at=0)
    at_us, taken = system_clock(), []
    times = _learned(rules, at_us)
    for ask in itertools.islice(itertools.cycle(asks), decisions):
        begun = time.perf_counter()
        decision = decide(ask, tenant, rules, at_us=at_us, times=times)
        taken.append((time.perf_counter() - begun) * 1e6)
        assert len(decision.plan.candidates) == SELLERS
    return taken


def measure_deciding(bench: Bench) -> list[Line]:
    watch = bench.watch()
    small, large = make_rules(models=1, offers=SELLERS), make_rules(models=MODELS, offers=OFFERS)
    assert len(large.offers) == OFFERS
    # The same requests in both: what is measured is the size of the catalogue. Requests for all models in
    # turn take as many instructions each, but more than the processor's caches hold.
    one, of_one = asks_of(small), [ask for ask in asks_of(large) if ask.model == small.models[0]]
    first = take_decisions(small, one, len(one)), take_decisions(large, of_one, len(of_one))
    share = bench.scale.decisions // TURNS
    few, many, all_models = list[float](), list[float](), list[float]()
    for _ in range(TURNS):
        few += take_decisions(small, one, share)
        many += take_decisions(large, of_one, share)
        all_models += take_decisions(large, asks_of(large), share)
    few_us, many_us = median(few), median(many)
    disturbance = watch.end()
    return [
        Line(
            name=f"decision, {SELLERS} candidates",
            goal="<= 100 µs",
            measured=f"{few_us:.0f} µs",
            met=few_us <= 100,
            notes=(f"{_told(few)}; {median(first[0]):.0f} µs where its figures are worked out first",),
            disturbance=disturbance,
        ),
        Line(
            name=f"decision, {OFFERS} offers over {MODELS} models",
            goal="the same +- 20 %",
            measured=f"{many_us:.0f} µs",
            ratio=f"{many_us / few_us:.2f}",
            met=0.8 <= many_us / few_us <= 1.2,
            notes=(
                f"{_told(many)}; {median(first[1]):.0f} µs where its figures are worked out first",
                f"requests for all {MODELS} models in turn: {_told(all_models)}",
            ),
            disturbance=disturbance,
        ),
    ]


def _told(taken: list[float]) -> str:
    ordered = sorted(taken)
    return ", ".join(f"p{percent} {at(ordered, percent / 100):.0f}" for percent in (50, 90, 99)) + " µs"
