"""The dashboard matches the code, explains its panels, and works in any Grafana."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from docs.generate_dashboard import PATH, render
from reconciler.domain.codes import STUCK_CODES
from reconciler.observability.metrics import METRICS
from tests.support.dashboard import PANELS, expressions, links
from tests.support.promql import check_declared
from tests.support.runbook import anchors

WHOLE: dict[str, Any] = json.loads(PATH.read_text())
VARIABLES = frozenset({"$job", "$instance"})
SHOWN = [panel for panel in PANELS if panel["type"] != "row"]
KINDS = {"stat", "timeseries", "table"}


def test_the_dashboard_is_up_to_date() -> None:
    assert PATH.read_text() == render(), "python -m docs.generate_dashboard"


@pytest.mark.parametrize("panel", SHOWN, ids=lambda panel: panel["title"])
def test_a_panel_uses_only_declared_metrics(panel: dict[str, Any]) -> None:
    assert panel["type"] in KINDS
    found = expressions(panel)
    assert found
    for expression in found:
        assert check_declared(expression.replace("$__rate_interval", "1m"), VARIABLES)
        assert 'job="$job",instance="$instance"' in expression


@pytest.mark.parametrize("panel", SHOWN, ids=lambda panel: panel["title"])
def test_a_panel_has_a_description_and_unit(panel: dict[str, Any]) -> None:
    assert len(panel["description"]) > 20
    assert panel["fieldConfig"]["defaults"]["unit"] in {"s", "none"}
    assert panel["fieldConfig"]["defaults"]["noValue"]
    if panel["type"] == "stat":
        # A value that is gone must not be shown as current.
        assert all(target["instant"] and not target["range"] for target in panel["targets"])
        assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"]


def test_the_dashboard_works_in_any_grafana() -> None:
    assert WHOLE.get("id") is None
    sources = [
        source
        for panel in SHOWN
        for source in (panel["datasource"], *(target["datasource"] for target in panel["targets"]))
    ]
    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)
    names = [variable["name"] for variable in WHOLE["templating"]["list"]]
    assert names == ["datasource", "job", "instance", "docs"]


def test_a_new_version_replaces_the_old_one() -> None:
    assert WHOLE["uid"] == "orchestration-reconciler"


def test_links_lead_to_a_section_of_the_runbook() -> None:
    sections = set(anchors())
    found = links(WHOLE)
    assert len(found) > 10
    for url in found:
        page, _, anchor = url.partition("#")
        assert page == "${docs}docs/operating.md"
        of_each_code = anchor == "${__value.raw}"
        assert sections.issuperset(STUCK_CODES if of_each_code else {anchor} - {""}), url


def test_panels_do_not_overlap() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    cells: set[tuple[int, int]] = set()
    for panel in PANELS:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        taken = set(
            itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"]))
        )
        assert not taken & cells, panel["title"]
        cells |= taken


def test_the_first_row_shows_liveness_and_stuck_work() -> None:
    titles = [panel["title"] for panel in PANELS if panel["gridPos"]["y"] <= 1]
    assert titles == [
        "Alive?",
        "Is it alive?",
        "Age of active coverage",
        "Age of table coverage",
        "Stuck now",
        "Oldest stuck",
        "Mode",
        "Paused for",
    ]


def test_every_metric_is_shown() -> None:
    shown = set().union(
        *(
            check_declared(expression.replace("$__rate_interval", "1m"), VARIABLES)
            for panel in SHOWN
            for expression in expressions(panel)
        )
    )
    assert set(METRICS) - shown == set()
