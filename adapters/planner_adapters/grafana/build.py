"""Panels to Grafana's JSON, and to the ConfigMap in which Grafana's sidecar finds it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from string import ascii_uppercase
from typing import Any, Final

from planner_adapters.grafana.panels import PREFIX, ROWS, SELECTOR, Panel
from planner_adapters.report.reasons import kind_of
from planner_core import Constraint, LoadReason, MissingExtraError, ThroughputReason

try:
    from grafana_foundation_sdk.builders import (
        common,
        dashboard,
        prometheus,
        stat,
        statetimeline,
        timeseries,
    )
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models.common import (
        BigValueGraphMode,
        BigValueTextMode,
        LegendDisplayMode,
        LegendPlacement,
        LineInterpolation,
        SortOrder,
        TimelineValueAlignment,
        TooltipDisplayMode,
        VisibilityMode,
    )
    from grafana_foundation_sdk.models.dashboard import (
        DashboardCursorSync,
        DataSourceRef,
        DynamicConfigValue,
        MatcherConfig,
        ValueMap,
        ValueMappingResult,
        VariableHide,
        VariableRefresh,
        VariableSort,
    )
except ImportError:
    raise MissingExtraError(
        "a dashboard needs grafana-foundation-sdk: pip install 'planner-core[grafana]'"
    ) from None

TITLE: Final = "LLM planner"
UID: Final = "planner-core"
SOURCE: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")
HEIGHT: Final = {"stat": 4, "reasons": 7, "bounds": 5, "lines": 8, "steps": 8}
COLOURS: Final = {
    "nothing": "#999999",
    "floor": "#56b4e9",
    "wait": "#0072b2",
    "bound": "#0072b2",
    "idle": "#009e73",
    "down": "#009e73",
    "up": "#d55e00",
    "blind": "#e69f00",
    "broken": "#cc79a7",
}
"""Of the kinds of reasons that reports tell apart: Okabe and Ito's, which colour-blind people can tell apart too."""
KEEP_FROM_MORE: Final = {
    Constraint.GPU_BUDGET,
    Constraint.INFEASIBLE_BUDGET,
    Constraint.MAX_REPLICAS,
    Constraint.RATE_LIMIT,
}
"""Constraints that may leave a role with less than was wished for."""


def dashboard_json() -> str:
    """The dashboard, to be imported or provisioned; equal for equal versions of this package."""
    built = (
        dashboard.Dashboard(TITLE)
        .uid(UID)
        .description("How many LLM-inference engines run, how many should, and why.")
        .tags(["llm", "inference", "autoscaling"])
        .time("now-6h", "now")
        .refresh("30s")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .readonly()
    )
    for variable in _variables():
        built.with_variable(variable)
    ids = count(1)
    for row in ROWS:
        built.with_row(dashboard.Row(row.title).id(next(ids)))
        for panel in row.panels:
            built.with_panel(_panel(panel).id(next(ids)))
    return json.dumps(built.build(), cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def config_map(name: str = "planner-grafana-dashboard") -> str:
    """The dashboard as a Kubernetes ConfigMap, labelled as Grafana's Helm chart looks for dashboards."""
    lines = "".join(f"    {line}\n" for line in dashboard_json().splitlines())
    return (
        "# Made by `planner grafana --config-map`: change planner_adapters.grafana, not this file.\n"
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n"
        f'  name: {name}\n  labels: {{app.kubernetes.io/name: planner, grafana_dashboard: "1"}}\n'
        f"data:\n  planner.json: |\n{lines}"
    )


def _variables() -> Iterator[Any]:
    yield dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
    any_series = f"{PREFIX}load_scaling_decision"
    for name, of in (("job", any_series), ("instance", any_series + '{job=~"$job"}')):
        yield (
            dashboard.QueryVariable(name)
            .label(name.capitalize())
            .datasource(SOURCE)
            .query(f"label_values({of}, {name})")
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(VariableSort.ALPHABETICAL_ASC)
            .hide(VariableHide.DONT_HIDE)
            .multi(name == "instance")
            .include_all(name == "instance")  # of one planner, before and after a restart
            .all_value(".+")
        )


def _panel(panel: Panel) -> Any:
    made = {"stat": _stat, "lines": _lines, "steps": _steps, "reasons": _reasons, "bounds": _bounds}[
        panel.kind
    ]()
    made.title(panel.title).description(panel.says).unit(panel.unit).datasource(SOURCE)
    made.span(panel.width).height(HEIGHT[panel.kind])
    for letter, query in zip(ascii_uppercase, panel.queries, strict=False):
        expr, legend = query.expr.replace("{}", SELECTOR), query.legend
        target = prometheus.Dataquery().ref_id(letter).expr(expr).legend_format(legend).datasource(SOURCE)
        made.with_target(target.instant() if panel.kind == "stat" else target.range())
    return made


def _stat() -> Any:
    return (
        stat.Panel()
        .graph_mode(BigValueGraphMode.NONE)
        .text_mode(BigValueTextMode.VALUE_AND_NAME)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .no_value("not known")
    )


def _lines() -> Any:
    legend = common.VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
    tooltip = common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING)
    lines = timeseries.Panel().line_width(1).min(0).show_points(VisibilityMode.NEVER)
    return _targets_are_dashed(lines.legend(legend.show_legend(True)).tooltip(tooltip).span_nulls(False))


def _steps() -> Any:
    return _lines().line_interpolation(LineInterpolation.STEP_AFTER).decimals(0)


def _targets_are_dashed(panel: Any) -> Any:
    dashed = DynamicConfigValue(id_val="custom.lineStyle", value={"fill": "dash", "dash": [8, 6]})
    for name in ("target", "forecast", "asked for", "demand"):
        panel.with_override(MatcherConfig(id_val="byName", options=name), [dashed])
    return panel


def _reasons() -> Any:
    """One bar per reason that held in the time shown."""
    panel = _bars()
    for reason in dict.fromkeys(map(str, (*LoadReason, *ThroughputReason))):
        _held(panel, MatcherConfig(id_val="byName", options=reason), reason, COLOURS[kind_of(reason)])
    return panel


def _bounds() -> Any:
    """One bar per role and constraint that bound in the time shown."""
    panel = _bars()
    for constraint in Constraint:
        colour = COLOURS["up" if constraint in KEEP_FROM_MORE else "bound"]
        _held(panel, MatcherConfig(id_val="byRegexp", options=f"/: {constraint}$/"), str(constraint), colour)
    return panel


def _bars() -> Any:
    panel = statetimeline.Panel().merge_values(True).show_value(VisibilityMode.NEVER).row_height(0.8)
    panel.legend(common.VizLegendOptions().show_legend(False).display_mode(LegendDisplayMode.HIDDEN))
    return panel.align_value(TimelineValueAlignment.LEFT)


def _held(panel: Any, matcher: MatcherConfig, word: str, colour: str) -> None:
    """Where the series of a word is 1, its bar is of a colour."""
    holds = ValueMap(options={"1": ValueMappingResult(text=word, color=colour)})
    panel.with_override(matcher, [DynamicConfigValue(id_val="mappings", value=[holds])])
