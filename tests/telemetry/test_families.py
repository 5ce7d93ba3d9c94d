"""Closed label values and allowances."""

from collections.abc import Iterable

from prometheus_client import Counter, Gauge
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from proxy.telemetry.families import ANY, Family, Registry, closed, summed

COLOURS = frozenset({"red", "blue"})
SIZES = frozenset({"small", "large"})


class Nameless(Collector):
    """Shows a gauge without telling its name at registration, where the library would see a clash."""

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge

    def describe(self) -> tuple[Metric, ...]:
        return ()

    def collect(self) -> Iterable[Metric]:
        return self._gauge.collect()


def make_family(registry: Registry, *, at_most: int = 10, sheds: tuple[str, ...] = ("size",)) -> Family[Counter]:
    counter = Counter("balls_total", "Balls thrown.", ["colour", "size"], registry=registry)
    return Family(counter, {"colour": COLOURS, "size": SIZES}, at_most=at_most, sheds=sheds)


def values(registry: Registry) -> dict[tuple[str, ...], float]:
    return {
        tuple(sample.labels.values()): sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == "balls_total"
    }


def test_every_known_combination_is_zero_from_the_start() -> None:
    registry = Registry()
    make_family(registry)
    assert values(registry) == {(colour, size): 0 for colour in COLOURS for size in SIZES}


def test_combinations_beyond_the_allowance_are_not_made_ahead() -> None:
    registry = Registry()
    make_family(registry, at_most=3)
    assert values(registry) == {}


def test_an_unknown_value_reads_other() -> None:
    registry = Registry()
    make_family(registry).child("green", "small").inc()
    assert values(registry)["other", "small"] == 1


def test_a_full_family_gives_up_the_label_it_may_shed() -> None:
    registry = Registry()
    family = make_family(registry, at_most=1)
    family.child("red", "small").inc()
    family.child("red", "large").inc()
    family.child("blue", "large").inc()
    family.child("blue", "small").inc()
    assert values(registry) == {("red", "small"): 1, ("red", "other"): 1, ("blue", "other"): 2}


def test_a_set_closed_by_the_caller_is_taken_as_it_is() -> None:
    registry = Registry()
    counter = Counter("balls_total", "Balls thrown.", ["owner"], registry=registry)
    Family(counter, {"owner": ANY}, at_most=2, sheds=("owner",)).child("anna").inc()
    assert values(registry) == {("anna",): 1}


def test_what_shares_a_label_is_added_up_and_zeros_stay() -> None:
    numbers = {"red": 1, "green": 2, "black": 3}
    assert summed(numbers, lambda name: closed(name, COLOURS), COLOURS) == {"red": 1, "blue": 0, "other": 5}


def test_times_of_creation_are_not_exported() -> None:
    registry = Registry()
    make_family(registry).child("red", "small").inc()
    body, content_type = registry.render(None)
    assert content_type.startswith("text/plain")
    assert b'balls_total{colour="red",size="small"} 1.0' in body
    assert b"_created" not in body


def test_a_counter_and_a_gauge_of_one_stem_stay_apart_in_openmetrics() -> None:
    registry = Registry()
    Counter("balls_total", "Balls thrown.", registry=registry).inc(3)
    Counter("nets_total", "Nets torn.", registry=registry).inc()
    gauge = Gauge("balls", "Balls in the air.", registry=None)
    gauge.set(2)

    registry.register(Nameless(gauge))
    body, content_type = registry.render("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    read = text_string_to_metric_families(body.decode())  # type: ignore[no-untyped-call]  # the library's parser has no types
    families = {family.name: family for family in read}
    assert {name: family.type for name, family in families.items()} == {
        "balls_total": "unknown",
        "nets": "counter",
        "balls": "gauge",
    }
    assert families["balls_total"].samples[0].value == 3


def test_values_that_come_later_get_series_and_those_that_go_lose_theirs() -> None:
    registry = Registry()
    family = make_family(registry)
    family.child("red", "small").inc()
    family.child("blue", "small").inc()
    family.child("green", "small").inc()
    family.close({"colour": frozenset({"red", "green"}), "owner": frozenset({"anna"})})
    assert values(registry) == {
        ("red", "small"): 1, ("red", "large"): 0, ("green", "small"): 0, ("green", "large"): 0, ("other", "small"): 1,
    }  # fmt: skip
    family.child("green", "small").inc()
    family.child("blue", "small").inc()
    assert (values(registry)["green", "small"], values(registry)["other", "small"]) == (1, 2)


def test_names_that_change_again_and_again_never_end_as_other() -> None:
    registry = Registry()
    family = make_family(registry, at_most=4)
    for turn in range(50):
        family.close({"colour": frozenset({f"colour-{turn}"})})
        family.child(f"colour-{turn}", "large").inc()
        assert values(registry) == {(f"colour-{turn}", "large"): 1, (f"colour-{turn}", "small"): 0}
