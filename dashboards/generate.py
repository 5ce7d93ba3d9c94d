"""Writes the dashboards as JSON into their folder, or another: `python -m dashboards.generate [FOLDER]`."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import common, prometheus, stat, timeseries

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
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, VariableOption, VariableRefresh, VariableSort

from dashboards.overview import CHOICES, ROWS
from dashboards.panels import Panel

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")


def overview() -> build.Dashboard:
    page = (
        build.Dashboard("Reelay: overview")
        .uid("reelay-overview")
        .description("Requests, videos, providers, money and the work behind them.")
        .tags(["reelay"])
        .readonly()
        .timezone("utc")
        .refresh("30s")
        .time("now-6h", "now")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(source_choice())
    )
    for name, label, query in CHOICES:
        page.with_variable(choice(name, label, query))
    place(page, ROWS)
    return page


def source_choice() -> build.DatasourceVariable:
    variable = build.DatasourceVariable("datasource").label("Data source").type("prometheus")
    # The builder has no word for it, the model has.
    variable.build().refresh = VariableRefresh.ON_TIME_RANGE_CHANGED
    return variable


def choice(name: str, label: str, query: str) -> build.QueryVariable:
    """A variable of several values, all of them at first."""
    return (
        build.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query({"query": query, "refId": name})
        .definition(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(multi=True)
        .include_all(include_all=True)
        .all_value(".*")
        .current(VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


def place(page: build.Dashboard, rows: Iterable[tuple[str, tuple[Panel, ...]]]) -> None:
    """Rows of panels from top to bottom; a panel's number is its place among them."""
    number = 0
    for title, panels in rows:
        number += 1
        page.with_row(build.Row(title).id(number))
        for panel in panels:
            number += 1
            page.with_panel((big_number(panel) if panel.single else graph(panel)).id(number))


def graph(panel: Panel) -> timeseries.Panel:
    return (
        timeseries.Panel()
        .title(panel.title)
        .description(panel.description)
        .datasource(SOURCE)
        .unit(panel.unit)
        .min(0)
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


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    (folder / "overview.json").write_text(as_json(overview()), encoding="utf-8")


if __name__ == "__main__":
    main()
