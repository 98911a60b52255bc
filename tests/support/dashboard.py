"""The dashboard's panels, expressions and links."""

from __future__ import annotations

import json
from typing import Any

from docs.generate_dashboard import PATH

PANELS: list[dict[str, Any]] = json.loads(PATH.read_text())["panels"]


def expressions(panel: dict[str, Any]) -> list[str]:
    """Return the expressions of a panel, with unresolved variables."""
    return [target["expr"] for target in panel.get("targets", ())]


def links(whole: dict[str, Any]) -> list[str]:
    """Return the addresses of all links of the dashboard, its panels and its table cells."""
    found = list(whole.get("links", ()))
    for panel in whole["panels"]:
        found += panel.get("links", ())
        for override in panel.get("fieldConfig", {}).get("overrides", ()):
            for change in override["properties"]:
                found += change["value"] if change["id"] == "links" else ()
    return [link["url"] for link in found]


def filled_in(expression: str, *, job: str, instance: str, rate_interval: str) -> str:
    """Resolve the variables as Grafana does."""
    return (
        expression.replace("$job", job)
        .replace("$instance", instance)
        .replace("$__rate_interval", rate_interval)
    )
