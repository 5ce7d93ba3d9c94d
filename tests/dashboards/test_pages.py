"""The pages are what their generator makes, keep the rules, and ask only for what is exported."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from proxy.telemetry.metrics import Metrics
from tests.telemetry.test_metrics import make_gauges

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "dashboards"
NAMES = ("overview", "providers", "spend", "videos")
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
DATABASE = {"type": "grafana-postgresql-datasource", "uid": "${database}"}
VARIABLES = ["datasource", "database", "job", "provider", "model", "tenant"]
UNITS = {"reqps", "percentunit", "short", "currencyUSD", "s", "cpm", "decbytes"}
ON_TIME_RANGE_CHANGE = 2

SELECTION = re.compile(r"(reelay_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)(?:=~|!~|!=|=)"')
GROUPING = re.compile(r"\bby \(([^)]*)\)")
LEGEND_LABEL = re.compile(r"\{\{(\w+)\}\}")


@pytest.fixture(params=NAMES)
def page(request: pytest.FixtureRequest) -> dict[str, Any]:
    return read_page(request.param)


def read_page(name: str) -> dict[str, Any]:
    read: dict[str, Any] = msgspec.json.decode((FOLDER / f"{name}.json").read_bytes())
    return read


@pytest.fixture
def panels(page: dict[str, Any]) -> list[dict[str, Any]]:
    return panels_of(page)


def panels_of(page: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in page["panels"] if panel["type"] != "row"]


@pytest.fixture(scope="module")
def exported() -> dict[str, set[str]]:
    """Every series name that an app shows once each kind of thing has happened, and its labels."""
    metrics = busy_metrics()
    labels: dict[str, set[str]] = {}
    for metric in metrics.registry.collect():
        for sample in metric.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    return labels


def busy_metrics() -> Metrics:
    metrics = Metrics(
        "0.0.1", providers=["one", "two"], models=["model"], offers=["one/model"], rules=["rule"], routes={"/": ["GET"]}
    )
    metrics.set_tenants(["acme"])
    metrics.video_ended(model="model", outcome="completed", tenant="acme", seconds=1)
    metrics.charged(tenant="acme", model="model", microusd=1)
    metrics.snapshot(
        make_gauges(
            videos={"queued": 1},
            oldest_age_s={"queued": 1},
            unknown_attempts={"one": 1},
            unknown_exposure_microusd={"one": 1},
            held_microusd={"acme": 1},
            store_free_bytes={"files": 1},
            store_used_bytes={"files": 1},
            breakers={"one/model": 2},
            learned_s={"one/model": 1},
            stated_s={"one/model": 1},
            budgets_microusd={("acme", "tenant_day"): (1, 2)},
        )
    )
    metrics.budget_rejected(tenant="acme", reason="tenant_day")
    metrics.budget_warned(tenant="acme", reason="tenant_day")
    metrics.budget_shadow_rejected(tenant="acme", reason="tenant_day")
    metrics.rate_limited(tenant="acme", reason="key_requests")
    return metrics


def read_from_the_database() -> set[str]:
    """Names that only a snapshot brings."""
    before = Metrics("0.0.1", providers=["one"], models=["model"], offers=[], rules=["rule"])
    after = Metrics("0.0.1", providers=["one"], models=["model"], offers=[], rules=["rule"])
    after.snapshot(
        make_gauges(
            held_microusd={"acme": 1},
            store_free_bytes={"files": 1},
            store_used_bytes={"files": 1},
            breakers={"one/model": 2},
            learned_s={"one/model": 1},
            stated_s={"one/model": 1},
            budgets_microusd={("acme", "tenant_day"): (1, 2)},
        )
    )
    names = [{sample.name for metric in m.registry.collect() for sample in metric.samples} for m in (before, after)]
    return names[1] - names[0]


def queries(panels: list[dict[str, Any]]) -> Iterator[tuple[str, str, str]]:
    """Title, expression and legend of every query of Prometheus."""
    for panel in panels:
        for target in panel["targets"]:
            if target["datasource"] == DATABASE:
                continue
            yield panel["title"], target["expr"], target["legendFormat"]


def test_the_files_are_what_the_generator_makes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "dashboards.generate", str(tmp_path)], cwd=ROOT, check=True)
    made = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert {Path(f"{name}.json") for name in NAMES} <= set(made)
    assert made == {path: (FOLDER / path).read_bytes() for path in made}
    assert {path.name for path in FOLDER.glob("*.json")} == {f"{name}.json" for name in NAMES}


def test_nulls_are_left_out_keys_are_sorted_and_the_last_line_ends(page: dict[str, Any]) -> None:
    text = (FOLDER / f"{page['uid'].removeprefix('reelay-')}.json").read_text(encoding="utf-8")
    assert text.endswith("}\n")
    assert not re.search(r"\bnull\b", text)
    assert list(page) == sorted(page)


@pytest.mark.parametrize("name", NAMES)
def test_a_page_has_a_stable_name_and_cannot_be_edited(name: str) -> None:
    page = read_page(name)
    assert page["uid"] == f"reelay-{name}"
    assert page["title"] == f"Reelay: {name}"
    assert page["tags"] == ["reelay"]
    assert page["description"].endswith(".")
    assert page["editable"] is False
    assert page["timezone"] == "utc"
    assert page["refresh"] == "30s"
    assert "id" not in page


def test_a_page_leads_to_the_others(page: dict[str, Any]) -> None:
    [link] = page["links"]
    assert (link["type"], link["tags"], link["keepTime"]) == ("dashboards", ["reelay"], True)


def test_the_variables_follow_the_time_range(page: dict[str, Any]) -> None:
    variables = page["templating"]["list"]
    names = [variable["name"] for variable in variables]
    assert names == [name for name in VARIABLES if name in names]
    assert {variable["refresh"] for variable in variables} == {ON_TIME_RANGE_CHANGE}
    sources = {variable["name"]: variable["query"] for variable in variables if variable["type"] == "datasource"}
    told = {"datasource": SOURCE["type"], "database": DATABASE["type"]}
    assert sources == {name: kind for name, kind in told.items() if name in names}
    for variable in variables:
        if variable["type"] != "datasource":
            assert variable["datasource"] == SOURCE
            assert variable["allValue"] == ".*"


def test_a_page_has_the_variables_that_it_uses_and_no_others(
    page: dict[str, Any], panels: list[dict[str, Any]]
) -> None:
    text = msgspec.json.encode([panels, [variable.get("query") for variable in page["templating"]["list"]]]).decode()
    used = set(re.findall(r"\$\{?([a-z]+)", text))
    assert {variable["name"] for variable in page["templating"]["list"]} == used


def test_the_variables_list_labels_that_exist(page: dict[str, Any], exported: dict[str, set[str]]) -> None:
    for variable in page["templating"]["list"]:
        if variable["type"] == "datasource":
            continue
        found = re.fullmatch(r"label_values\((reelay_\w+)(?:\{job=~\"\$job\"\})?, (\w+)\)", variable["query"]["query"])
        assert found, variable["name"]
        assert found[2] == variable["name"]
        assert found[2] in exported[found[1]] | {"job"}


def test_every_panel_says_what_it_shows_and_in_which_unit(panels: list[dict[str, Any]]) -> None:
    for panel in panels:
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
        assert panel["targets"]
        assert all(target.get("legendFormat") or "rawSql" in target for target in panel["targets"])


def test_every_panel_and_query_asks_the_chosen_data_source(panels: list[dict[str, Any]]) -> None:
    for panel in panels:
        assert panel["datasource"] == (DATABASE if panel["type"] == "table" else SOURCE)
        assert all(target["datasource"] == panel["datasource"] for target in panel["targets"])


def test_no_two_panels_share_a_number_a_title_or_a_place(page: dict[str, Any], panels: list[dict[str, Any]]) -> None:
    numbers = [panel["id"] for panel in page["panels"]]
    assert len(set(numbers)) == len(numbers)
    titles = [panel["title"] for panel in panels]
    assert len(set(titles)) == len(titles)
    covered = [
        (x, y)
        for place in (panel["gridPos"] for panel in page["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(covered)) == len(covered)
    assert max(x for x, _ in covered) < 24


def test_every_name_in_a_query_is_exported(panels: list[dict[str, Any]], exported: dict[str, set[str]]) -> None:
    for title, expr, _ in queries(panels):
        names = [name for name, _ in SELECTION.findall(expr)]
        assert names, title
        assert set(names) <= set(exported), title


def test_every_selector_names_the_job_and_only_labels_that_exist(
    panels: list[dict[str, Any]], exported: dict[str, set[str]]
) -> None:
    for title, expr, _ in queries(panels):
        for name, selector in SELECTION.findall(expr):
            assert 'job=~"$job"' in selector, title
            assert set(MATCHER.findall(selector)) <= exported[name] | {"job"}, title


def test_every_group_and_legend_uses_labels_that_exist(
    panels: list[dict[str, Any]], exported: dict[str, set[str]]
) -> None:
    for title, expr, legend in queries(panels):
        names = [name for name, _ in SELECTION.findall(expr)]
        shared = set.intersection(*(exported[name] for name in names))
        grouped = {label.strip() for labels in GROUPING.findall(expr) for label in labels.split(",")}
        assert grouped <= shared, title
        assert set(LEGEND_LABEL.findall(legend)) == grouped - {"le"} or expr.startswith("sum (max"), title


def test_counters_and_histograms_are_read_as_rates_over_the_step(panels: list[dict[str, Any]]) -> None:
    for title, expr, _ in queries(panels):
        assert re.findall(r"\[[^]]*\]", expr) == ["[$__rate_interval]"] * expr.count("rate("), title
        for name, _ in SELECTION.findall(expr):
            assert (f"rate({name}{{" in expr) == name.endswith(("_total", "_bucket", "_sum", "_count")), title


def test_what_every_replica_reads_alike_is_not_added_up(panels: list[dict[str, Any]]) -> None:
    alike = read_from_the_database()
    assert {"reelay_videos", "reelay_held_usd", "reelay_store_free_bytes", "reelay_due_work"} <= alike
    for title, expr, _ in queries(panels):
        for name, _ in SELECTION.findall(expr):
            if name in alike:
                assert re.search(rf"max (?:by \([^)]*\) )?\({name}\{{", expr), title


def test_every_bracket_is_closed(panels: list[dict[str, Any]]) -> None:
    for title, expr, _ in queries(panels):
        for opening, closing in ("()", "{}", "[]"):
            assert expr.count(opening) == expr.count(closing), title


def test_every_metric_but_the_version_is_on_a_page(exported: dict[str, set[str]]) -> None:
    asked = [expr for name in NAMES for _, expr, _ in queries(panels_of(read_page(name)))]
    shown = {name for expr in asked for name, _ in SELECTION.findall(expr)}
    families = {re.sub(r"_(bucket|sum|count)$", "_bucket", name) for name in exported}
    assert families - shown == {"reelay_build_info"}


def test_only_what_cannot_be_below_zero_is_drawn_from_zero() -> None:
    signed = {
        panel["title"]
        for name in NAMES
        for panel in panels_of(read_page(name))
        if panel["type"] == "timeseries" and "min" not in panel["fieldConfig"]["defaults"]
    }
    assert signed == {"Clock set", "Ledger drift", "Saved against the dearest", "Cost of falling back"}


def test_what_end_users_cost_is_asked_of_the_database_alone() -> None:
    tables = [panel for name in NAMES for panel in panels_of(read_page(name)) if panel["type"] == "table"]
    assert any("end_users" in panel["targets"][0]["rawSql"] for panel in tables)
    assert not [expr for name in NAMES for _, expr, _ in queries(panels_of(read_page(name))) if "end_user" in expr]
