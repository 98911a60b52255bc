"""Writes ``deploy/grafana/reconciler.json``; ``--check`` fails if it is stale.

It uses Grafana's own builders, so that the format is Grafana's. From top to bottom the dashboard
answers: is the backstop alive, what is stuck and why, what was repaired, how do the sweeps go, and
what does it cost.
"""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import common as looks
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import table
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as model

from docs.grafana import (
    BLUE,
    GREEN,
    ORANGE,
    RED,
    ROW_HEIGHT,
    RUNBOOK,
    SOURCE,
    WIDTH,
    YELLOW,
    Panel,
    Step,
    above,
    counted,
    limit,
    lines,
    link,
    metric,
    now,
    number,
    quantiles,
    query,
    words,
)

PATH = Path(__file__).parents[1] / "deploy" / "grafana" / "reconciler.json"
NEVER_SECONDS = 1e9
"""An age above this comes from a time that was never set."""

AGE = "time() - " + metric("covered_as_of_timestamp_seconds", 'scope="active"')
TABLE_AGE = "time() - " + metric("covered_as_of_timestamp_seconds", 'scope="table"')
TWICE = f"2 * {metric('sweep_interval_seconds')}"
SINCE = metric("paused_since_timestamp_seconds")
PAUSED = metric("mode", 'mode="paused"')
REPORT = metric("mode", 'mode="report"')
BOUND = metric("repair_bound_seconds", 'code="lost_release"')
OLDEST = metric("oldest_stuck_seconds", 'code!="over_budget"')


# -- the rows


def _alive() -> list[Panel]:
    return [
        number(
            "Is it alive?",
            "ALIVE: sweeps have covered active work within the last two intervals. "
            "No metrics: the endpoint or the broker cannot be reached.",
            f"({AGE}) <= bool ignoring (scope) {TWICE}",
            unit="none",
            steps=[(None, RED), (1, GREEN)],
            mappings=[words({"1": ("ALIVE", GREEN), "0": ("STALE", RED)})],
        ).links([link("Stale", "sweep-stale"), link("No metrics", "metrics-absent")]),
        number(
            "Age of active coverage",
            "How long ago the active work was last covered. Grows between sweeps. Sweeps have "
            "checked everything that was overdue before that.",
            AGE,
            unit="s",
            steps=[(None, BLUE)],
            mappings=[above(NEVER_SECONDS, "never", RED)],
        ),
        number(
            "Age of table coverage",
            "How long ago the whole table was last covered. With ACTIVE_INDEX_NAME, sweeps read "
            "the table once every FULL_SCAN_INTERVAL_SECONDS; otherwise every sweep reads it.",
            TABLE_AGE,
            unit="s",
            steps=[(None, BLUE)],
            mappings=[above(NEVER_SECONDS, "never", RED)],
        ).links([link("Too long ago", "table-stale")]),
        number(
            "Stuck now",
            "Everything known to be stuck, except over_budget, which is a user's own cap.",
            metric("stuck_work"),
            unit="none",
            steps=[(None, GREEN), (1, ORANGE), (10, RED)],
            span=WIDTH // 8,
        ).links([link("It grows", "stuck-work-grows")]),
        number(
            "Oldest stuck",
            "Age of the oldest one that is stuck, except over_budget.",
            f"max({OLDEST})",
            unit="s",
            steps=[(None, GREEN), (1, YELLOW), (720, ORANGE), (3600, RED)],
            span=WIDTH // 8,
        ).links([link("Over the bound", "stuck-over-the-bound")]),
        *_allowed(),
    ]


def _allowed() -> list[Panel]:
    """Panels about what the reconciler may do now."""
    calm: list[Step] = [(None, GREEN)]
    not_paused = {"0": ("not paused", GREEN)}
    return [
        number(
            "Mode",
            "What the last sweep was allowed to do: repair, only report (REPAIR_MODE), or nothing "
            "because somebody had paused repairs.",
            f"sum({REPORT}) + 2 * sum({PAUSED}) + 3 * (sum({metric('mode')}) == bool 0)",
            unit="none",
            steps=calm,
            mappings=[
                words(
                    {
                        "0": ("repair", GREEN),
                        "1": ("report only", YELLOW),
                        "2": ("PAUSED", ORANGE),
                        "3": ("not known yet", BLUE),
                    }
                )
            ],
            span=WIDTH // 8,
        ).links([link("Report only", "report-only")]),
        number(
            "Paused for",
            "How long repairs have been paused. `reconciler status` shows by whom, and why.",
            f"(time() - {SINCE}) * ({SINCE} > bool 0)",
            unit="s",
            steps=[(None, GREEN), (1, YELLOW), (4 * 3600, RED)],
            mappings=[words(not_paused)],
            span=WIDTH // 8,
        ).links([link("Too long", "paused-too-long")]),
    ]


def _stuck() -> list[Panel]:
    by_code = lines(
        "Stuck, by code",
        "The reconciler repairs some codes; others need manual action.",
        [query(metric("stuck_children"), "{{code}}")],
        unit="none",
    )
    return [_table(), by_code, *_ages()]


def _table() -> table.Panel:
    columns = {
        "code": "Code",
        "Value #A": "Stuck",
        "Value #B": "Oldest",
        "Value #C": "Repaired within",
    }
    queries = [
        now(f"sum by (code) ({metric('stuck_children')})", "A"),
        now(f"max by (code) ({metric('oldest_stuck_seconds')})", "B"),
        now(f"max by (code) ({metric('repair_bound_seconds')})", "C"),
    ]
    organize = {
        "excludeByName": {"Time": True},
        "indexByName": {name: index for index, name in enumerate(columns)},
        "renameByName": columns,
    }
    seconds = [model.DynamicConfigValue("unit", "s")]
    section = {
        "title": "What it means, and what to do",
        "url": f"{RUNBOOK}#${{__value.raw}}",
        "targetBlank": True,
    }
    colored = [
        model.DynamicConfigValue("custom.cellOptions", {"type": "color-text"}),
        model.DynamicConfigValue(
            "thresholds",
            {
                "mode": "absolute",
                "steps": [{"value": None, "color": "text"}, {"value": 1, "color": ORANGE}],
            },
        ),
    ]
    return (
        table.Panel()
        .title("Stuck now, by code")
        .description(
            "How many are stuck, how old the oldest is, and how soon the reconciler repairs it. "
            "A code without such a time needs manual action. Each code links to its section of the "
            "runbook."
        )
        .datasource(SOURCE)
        .targets(list(queries))
        .with_transformation(model.DataTransformerConfig(id_val="merge", options={}))
        .with_transformation(model.DataTransformerConfig(id_val="organize", options=organize))
        .unit("none")
        .no_value("-")
        .override_by_name("Code", [model.DynamicConfigValue("links", [section])])
        .override_by_name("Stuck", colored)
        .override_by_name("Oldest", seconds)
        .override_by_name("Repaired within", seconds)
        .sort_by([looks.TableSortByFieldState().display_name("Stuck").desc(desc=True)])
        .height(ROW_HEIGHT)
        .span(WIDTH // 2)
    )


def _ages() -> list[Panel]:
    oldest = lines(
        "Oldest stuck, by code",
        "Age of the oldest with each code, updated by each complete sweep.",
        [query(metric("oldest_stuck_seconds"), "{{code}}")],
        unit="s",
    )
    age = lines(
        "Age of active coverage over time",
        "Drops with each complete sweep. Above the limit, the coverage is stale.",
        [query(f"{AGE} < {NEVER_SECONDS:.0f}", "age"), query(TWICE, "limit", "B")],
        unit="s",
    )
    return [oldest, limit(age, "limit")]


def _repairs() -> list[Panel]:
    return [
        lines(
            "Repairs, by code",
            "What the reconciler repaired, by the code that it had.",
            [counted("recoveries_total", "code")],
            unit="none",
            bars=True,
        ),
        limit(
            lines(
                "From due to released",
                "Time from when a child became due until it was released or otherwise repaired. "
                "`longest` is the upper end of its bucket. Above the limit, the backstop was down, "
                "or more was due at once than the release rate allows. docs/scaling.md explains "
                "what takes the time.",
                [*quantiles("recovery_latency_seconds", longest=True), query(BOUND, "limit", "E")],
                unit="s",
            ),
            "limit",
        ),
        lines(
            "Releases, by outcome",
            "already_released and no_longer_due: another writer was faster, which is normal. "
            "refused needs manual action. failed is tried again.",
            [counted("releases_total", "outcome")],
            unit="none",
            bars=True,
        ).links([link("Many are refused", "refusals")]),
        lines(
            "Duplicates dropped, by task",
            "Work that was requested again while it was queued or running. In each interval, all "
            "beats but one count here.",
            [counted("duplicates_dropped_total", "task")],
            unit="none",
            bars=True,
        ).links([link("Far too many", "duplicate-storm")]),
    ]


def _sweeps() -> list[Panel]:
    third = WIDTH // 3
    return [
        lines(
            "Sweeps, by outcome",
            "overlapped: another sweep without a broker held the lock, so this one did nothing.",
            [counted("sweeps_total", "outcome")],
            unit="none",
            bars=True,
            span=third,
        ),
        limit(
            lines(
                "How long a sweep takes",
                "From its start until its last segment was read. At the limit, sweeps overlap.",
                [
                    *quantiles("sweep_duration_seconds"),
                    query(metric("sweep_interval_seconds"), "limit", "D"),
                ],
                unit="s",
                span=third,
            ).links([link("At the limit", "sweeps-overlap")]),
            "limit",
        ),
        lines(
            "Sweeps that failed",
            "total: everything failed; partial: some of it failed, or the sweep was not complete.",
            [counted("sweep_failures_total", "extent")],
            unit="none",
            bars=True,
            span=third,
        ).links([link("Total", "total-failure"), link("Partial", "partial-failure")]),
    ]


def _trouble() -> list[Panel]:
    third = WIDTH // 3
    units = f"sum by (table, operation) (rate({metric('dynamodb_units_total')}[$__rate_interval]))"
    return [
        lines(
            "Errors, by kind",
            "access and table_missing need a change of the settings or permissions. "
            "store_unavailable, throttled and broker_unavailable pass by themselves.",
            [counted("errors_total", "kind")],
            unit="none",
            bars=True,
            span=third,
        ).links([link("What each kind means", "total-failure")]),
        lines(
            "DynamoDB: throttled requests",
            "Requests that a table throttled, including those that a retry completed.",
            [counted("dynamodb_throttles_total", "table")],
            unit="none",
            bars=True,
            span=third,
        ).links([link("Throttled", "throttled")]),
        lines(
            "Waiting messages",
            "Messages in the broker's queues. A queue that only grows has no worker.",
            [query(metric("queue_messages"), "{{queue}}")],
            unit="none",
            span=third,
        ),
        lines(
            "DynamoDB: capacity units per second",
            "Units that the reconciler consumes, by table and operation.",
            [query(units, "{{table}} {{operation}}")],
            unit="none",
            span=2 * third,
        ),
        lines(
            "Rows read per second",
            "Rows that segment scans read, all segments of all sweeps together.",
            [query(f"rate({metric('rows_scanned_total')}[$__rate_interval])", "rows")],
            unit="none",
            span=third,
        ),
    ]


def dashboard() -> build.Dashboard:
    """Return the dashboard."""
    one = model.VariableSort.ALPHABETICAL_ASC
    made = (
        build.Dashboard("Orchestration reconciler")
        # Fixed, so that a new version replaces the old one and links to it stay valid.
        .uid("orchestration-reconciler")
        .link(link("Runbook"))
        .description("The backstop of the orchestrations: is it alive, what is stuck, what to do.")
        .tags(["orchestrations", "reconciler"])
        .time("now-6h", "now")
        .refresh("30s")
        .timezone("utc")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .with_variable(build.DatasourceVariable("datasource").label("Source").type("prometheus"))
        .with_variable(
            build.QueryVariable("job")
            .label("Deployment")
            .datasource(SOURCE)
            .query("label_values(reconciler_broker_up, job)")
            .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(one)
        )
        .with_variable(
            build.QueryVariable("instance")
            .label("Endpoint")
            .datasource(SOURCE)
            .query('label_values(reconciler_broker_up{job="$job"}, instance)')
            .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(one)
        )
        .with_variable(
            build.TextBoxVariable("docs")
            .default_value("")
            .label("Docs at")
            .description(
                "Prefix of the links to the runbook, such as https://…/, with the final slash"
            )
        )
        .annotation(
            build.AnnotationQuery()
            .name("Paused")
            .datasource(SOURCE)
            .enable(enable=True)
            .icon_color(ORANGE)
            .expr(f"{PAUSED} == 1")
        )
    )
    rows = {
        "Alive?": _alive(),
        "Stuck, and why": _stuck(),
        "Repaired": _repairs(),
        "Sweeps": _sweeps(),
        "Errors and cost": _trouble(),
    }
    ids = itertools.count(1)
    for title, panels in rows.items():
        made = made.with_row(build.Row(title).id(next(ids)))
        for panel in panels:
            made = made.with_panel(panel.id(next(ids)))
    return made


def render() -> str:
    """Return the file."""
    plain: dict[str, Any] = json.loads(json.dumps(dashboard().build(), cls=JSONEncoder))
    return json.dumps(plain, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(PATH.read_text(encoding="utf-8") != render() and f"{PATH.name} is stale")
    PATH.write_text(render(), encoding="utf-8")
