"""The parts of the dashboard's panels: queries, thresholds and texts, in one style."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from grafana_foundation_sdk.builders import common as looks
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import prometheus, stat, table, timeseries
from grafana_foundation_sdk.models import common as look
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
HERE = 'job="$job",instance="$instance"'
GREEN, YELLOW, ORANGE, RED, BLUE = "green", "yellow", "orange", "red", "blue"
BAR = "5m"
"""The shortest time that one bar covers. The counters change only with sweeps."""
ROW_HEIGHT, STAT_HEIGHT, WIDTH = 8, 4, 24

Panel = stat.Panel | timeseries.Panel | table.Panel
Step = tuple[float | None, str]


RUNBOOK = "${docs}docs/operating.md"
"""``docs`` is a variable of the dashboard, because each reader keeps the pages elsewhere."""


def link(title: str, anchor: str = "") -> build.DashboardLink:
    """Link to the runbook, or to a section of it."""
    url = f"{RUNBOOK}#{anchor}" if anchor else RUNBOOK
    kind = model.DashboardLinkType.LINK
    return build.DashboardLink(title).type(kind).url(url).target_blank(target_blank=True)


def metric(name: str, *matchers: str) -> str:
    """Return a selector of one of the reconciler's metrics, at the selected endpoint."""
    return f"reconciler_{name}{{{','.join((HERE, *matchers))}}}"


def query(expression: str, legend: str = "__auto", ref: str = "A") -> prometheus.Dataquery:
    """Query the time range that is shown."""
    return (
        prometheus.Dataquery()
        .expr(expression)
        .legend_format(legend)
        .ref_id(ref)
        .datasource(SOURCE)
        .range()
    )


def now(expression: str, ref: str) -> prometheus.Dataquery:
    """Query the current values, as rows of a table."""
    return query(expression, ref=ref).instant().format(PromQueryFormat.TABLE)


def _steps(steps: Sequence[Step]) -> build.ThresholdsConfig:
    return (
        build.ThresholdsConfig()
        .mode(model.ThresholdsMode.ABSOLUTE)
        .steps([model.Threshold(value, color) for value, color in steps])
    )


def words(said: dict[str, tuple[str, str]]) -> model.ValueMap:
    """Show texts instead of values; ``said``: value → text and colour."""
    return model.ValueMap(
        options={
            value: model.ValueMappingResult(text=text, color=color, index=index)
            for index, (value, (text, color)) in enumerate(said.items())
        }
    )


def above(value: float, text: str, color: str) -> model.RangeMap:
    """Show a text instead of any value from ``value`` up."""
    result = model.ValueMappingResult(text=text, color=color)
    return model.RangeMap(model.DashboardRangeMapOptions(from_val=value, to=None, result=result))


def number(
    title: str,
    description: str,
    expression: str,
    *,
    unit: str,
    steps: Sequence[Step],
    mappings: Sequence[model.ValueMapping] = (),
    span: int = WIDTH // 6,
) -> stat.Panel:
    """Show one current number that fills its panel.

    The query is instant: a series that is gone must not be shown as if it were current.
    """
    last = looks.ReduceDataOptions().calcs(["lastNotNull"]).values(values=False)
    return (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .with_target(query(expression).instant())
        .unit(unit)
        .thresholds(_steps(steps))
        .mappings(list(mappings))
        .no_value("no metrics")
        .color_mode(look.BigValueColorMode.BACKGROUND)
        .graph_mode(look.BigValueGraphMode.NONE)
        .text_mode(look.BigValueTextMode.VALUE)
        .reduce_options(last)
        .height(STAT_HEIGHT)
        .span(span)
    )


def lines(
    title: str,
    description: str,
    queries: Iterable[prometheus.Dataquery],
    *,
    unit: str,
    bars: bool = False,
    span: int = WIDTH // 2,
) -> timeseries.Panel:
    """Show lines over time, or stacked bars of a counter; the legend has the numbers."""
    legend = (
        looks.VizLegendOptions()
        .display_mode(look.LegendDisplayMode.TABLE)
        .placement(look.LegendPlacement.RIGHT)
        .show_legend(show_legend=True)
        .calcs(["sum" if bars else "lastNotNull"])
        .sort_by("Total" if bars else "Last *")
        .sort_desc(sort_desc=True)
    )
    tooltip = looks.VizTooltipOptions().mode(look.TooltipDisplayMode.MULTI)
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .targets(list(queries))
        .unit(unit)
        .min(0)
        .no_value("no metrics")
        .legend(legend)
        .tooltip(tooltip.sort(look.SortOrder.DESCENDING))
        .line_width(1 if bars else 2)
        .fill_opacity(70 if bars else 10)
        .show_points(look.VisibilityMode.NEVER)
        .height(ROW_HEIGHT)
        .span(span)
    )
    if bars:
        stacked = looks.StackingConfig().mode(look.StackingMode.NORMAL).group("A")
        panel = panel.draw_style(look.GraphDrawStyle.BARS).stacking(stacked).interval(BAR)
    return panel


def limit(panel: timeseries.Panel, name: str) -> timeseries.Panel:
    """Draw one series of a panel as a limit: red, dashed, not filled."""
    return panel.override_by_name(
        name,
        [
            model.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": RED}),
            model.DynamicConfigValue("custom.lineStyle", {"fill": "dash", "dash": [10, 10]}),
            model.DynamicConfigValue("custom.fillOpacity", 0),
        ],
    )


def counted(name: str, by: str) -> prometheus.Dataquery:
    """Query the increase of a counter within each bar, by one label.

    ``$__rate_interval`` is the bar plus one scrape, so that no increase falls between two bars.
    """
    increase = f"increase({metric(name)}[$__rate_interval])"
    return query(f"sum by ({by}) ({increase})", f"{{{{{by}}}}}")


def quantiles(name: str, *, longest: bool = False) -> list[prometheus.Dataquery]:
    """Query the 50th, 90th and 99th percentile of a histogram over the last hour.

    ``longest``: also the maximum, which a histogram knows only as the upper end of a bucket.
    """
    buckets = f"sum by (le) (increase({metric(name + '_bucket')}[1h]))"
    shown = [(0.5, "median", "A"), (0.9, "90 %", "B"), (0.99, "99 %", "C")]
    if longest:
        shown.append((1, "longest", "D"))
    return [
        query(f"histogram_quantile({quantile}, {buckets})", f"{said}, last hour", ref)
        for quantile, said, ref in shown
    ]
