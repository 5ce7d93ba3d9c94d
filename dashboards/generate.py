"""Writes dashboards and rules into their folder, or another: `python -m dashboards.generate [FOLDER]`."""

import json
import sys
from pathlib import Path
from typing import Any

import yaml
from grafana_foundation_sdk.builders import common, prometheus, stat, table, timeseries

# The classic model, which every Grafana reads; the library warns that there is a newer one.
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.common import (
    BigValueGraphMode,
    DataSourceRef,
    GraphDrawStyle,
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DynamicConfigValue,
    VariableModel,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from dashboards import alerting, overview, providers, spend, videos
from dashboards.panels import CHOICES, Page, Panel, Table

PAGES = (overview.PAGE, providers.PAGE, spend.PAGE, videos.PAGE)
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
DATABASE = DataSourceRef(type_val="grafana-postgresql-datasource", uid="${database}")


class Sql(Dataquery, Builder[Dataquery]):
    """A query of Grafana's own PostgreSQL data source, for which the library has no builder."""

    def __init__(self, sql: str) -> None:
        self._sql = sql

    def build(self) -> Dataquery:
        return self

    def to_json(self) -> dict[str, Any]:
        told: dict[str, Any] = {"refId": "A", "datasource": DATABASE, "rawSql": self._sql}
        return told | {"format": "table", "rawQuery": True, "editorMode": "code"}


def dashboard(page: Page) -> build.Dashboard:
    made = (
        build.Dashboard(f"Reelay: {page.name}")
        .uid(f"reelay-{page.name}")
        .description(page.description)
        .tags(["reelay"])
        .readonly()
        .timezone("utc")
        .refresh("30s")
        .time("now-6h", "now")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .link(others())
        .with_variable(source_choice("datasource", "Data source", "prometheus"))
    )
    if any(isinstance(panel, Table) for row in page.rows for panel in row.panels):
        made.with_variable(source_choice("database", "Database", "grafana-postgresql-datasource"))
    for name in page.choices:
        made.with_variable(choice(name, *CHOICES[name]))
    fill(made, page)
    return made


def others() -> build.DashboardLink:
    """To the other pages, with the same time and choices."""
    link = build.DashboardLink("Reelay").type(DashboardLinkType.DASHBOARDS).tags(["reelay"])
    # Above the panels, where they are seen; the library would put them into a menu.
    link.build().placement = None  # type: ignore[assignment]  # as in pages that Grafana writes
    return link.keep_time(keep_time=True).include_vars(include_vars=True)


def source_choice(name: str, label: str, kind: str) -> build.DatasourceVariable:
    variable = build.DatasourceVariable(name).label(label).type(kind)
    # The builder has no word for it, the model has.
    variable.build().refresh = VariableRefresh.ON_TIME_RANGE_CHANGED
    without_interval(variable.build())
    return variable


def choice(name: str, label: str, query: str) -> build.QueryVariable:
    """A variable of several values, all of them at first."""
    variable = (
        build.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query({"query": query, "refId": name})
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(multi=True)
        .include_all(include_all=True)
        .all_value(".*")
        .current(VariableOption(selected=True, text=["All"], value=["$__all"]))
    )
    without_interval(variable.build())
    return variable


def without_interval(variable: VariableModel) -> None:
    """Takes away what only variables of intervals have, and the library gives to all."""
    variable.auto = variable.auto_count = variable.auto_min = None


def fill(made: build.Dashboard, page: Page) -> None:
    """Rows of panels from top to bottom; a panel's number is its place among them."""
    number = 0
    for row in page.rows:
        number += 1
        made.with_row(build.Row(row.title).id(number))
        for panel in row.panels:
            number += 1
            made.with_panel(builder_of(panel).id(number))


def builder_of(panel: Panel | Table) -> timeseries.Panel | stat.Panel | table.Panel:
    if isinstance(panel, Table):
        return rows_of(panel)
    return big_number(panel) if panel.single else graph(panel)


def graph(panel: Panel) -> timeseries.Panel:
    made = (
        timeseries.Panel()
        .title(panel.title)
        .description(panel.description)
        .datasource(SOURCE)
        .unit(panel.unit)
        .span(panel.width)
        .height(8)
        .draw_style(GraphDrawStyle.LINE)
        .line_width(1)
        .fill_opacity(25 if panel.stacked else 0)
        .show_points(VisibilityMode.NEVER)
        .stacking(common.StackingConfig().mode(StackingMode.NORMAL if panel.stacked else StackingMode.NONE))
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(show_legend=True)
        )
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
        .targets(targets(panel))
    )
    return made if panel.signed else made.min(0)


def big_number(panel: Panel) -> stat.Panel:
    return (
        stat.Panel()
        .title(panel.title)
        .description(panel.description)
        .datasource(SOURCE)
        .unit(panel.unit)
        .span(panel.width)
        .height(4)
        .graph_mode(BigValueGraphMode.AREA)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .targets(targets(panel))
    )


def rows_of(panel: Table) -> table.Panel:
    made = (
        table.Panel()
        .title(panel.title)
        .description(panel.description)
        .datasource(DATABASE)
        .unit(panel.unit)
        .span(panel.width)
        .height(10)
        .targets([Sql(panel.sql)])
    )
    # Tables of newer Grafanas have none, and those of older ones show none without it.
    options: Any = made.build().options
    options.footer = None
    for column, unit in panel.units:
        made.override_by_name(column, [DynamicConfigValue("unit", unit)])
    return made


def targets(panel: Panel) -> list[Builder[Dataquery]]:
    return [
        prometheus.Dataquery().ref_id(chr(ord("A") + i)).datasource(SOURCE).expr(expr).legend_format(legend).range()
        for i, (expr, legend) in enumerate(panel.queries)
    ]


def as_json(page: build.Dashboard) -> str:
    """The file's text: no nulls, keys sorted, a line end at the end."""
    plain = json.loads(json.dumps(page.build(), cls=JSONEncoder))
    return json.dumps(without_nulls(plain), sort_keys=True, indent=2, ensure_ascii=False) + "\n"


def without_nulls(value: Any) -> Any:
    match value:
        case dict():
            return {name: without_nulls(inner) for name, inner in value.items() if inner is not None}
        case list():
            return [without_nulls(inner) for inner in value]
        case _:
            return value


def config_maps(pages: dict[str, str]) -> list[dict[str, Any]]:
    """
    For Grafana's sidecar in Kubernetes: one for each page, by its name.

    Without the spaces, for `kubectl apply` keeps a copy that may have 256 KiB.
    """
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": f"reelay-{name}", "labels": {"grafana_dashboard": "1"}},
            "data": {f"reelay-{name}.json": json.dumps(json.loads(text), separators=(",", ":"), ensure_ascii=False)},
        }
        for name, text in pages.items()
    ]


def files() -> dict[str, str]:
    """Everything that is generated, by its place in the folder."""
    pages = {page.name: as_json(dashboard(page)) for page in PAGES}
    head = "# Made by `python -m dashboards.generate`.\n"
    return {
        **{f"{name}.json": text for name, text in pages.items()},
        "provisioning/configmaps.yaml": head + yaml.safe_dump_all(config_maps(pages), width=10**9, sort_keys=False),
        "rules/recording.yaml": head + yaml.safe_dump(alerting.recording_file(), width=10**9, sort_keys=False),
        "rules/alerts.yaml": head + yaml.safe_dump(alerting.alerts_file(), width=10**9, sort_keys=False),
    }


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    for place, text in files().items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
