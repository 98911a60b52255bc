"""Check lines in embedded metric format against its specification."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jsonschema

from reconciler.observability.metrics import EXPORTED, METRICS

_SCHEMA = json.loads((Path(__file__).parents[1] / "data" / "emf.schema.json").read_text())
_MOST_BYTES = 256 * 1024
_MAX_VALUES = 100


def emf_lines(written: str) -> list[dict[str, Any]]:
    """Return the lines that CloudWatch would read as metrics, after checking each."""
    found = [json.loads(line) for line in written.splitlines() if '"_aws"' in line]
    for line in found:
        judge(line)
    return found


def judge(line: dict[str, Any]) -> None:
    """Fail unless a line is valid by the schema and by the rules that the schema cannot express."""
    jsonschema.validate(line, _SCHEMA)
    assert len(json.dumps(line)) < _MOST_BYTES
    for directive in line["_aws"]["CloudWatchMetrics"]:
        for dimension in {name for names in directive["Dimensions"] for name in names}:
            assert isinstance(line[dimension], str)
            assert 0 < len(line[dimension]) <= 1024
        for definition in directive["Metrics"]:
            name = definition["Name"]
            metric, value = {**METRICS, **EXPORTED}[name], line[name]
            values = value if isinstance(value, list) else [value]
            assert 0 < len(values) <= _MAX_VALUES
            assert all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
            assert directive["Dimensions"][0] == sorted(metric.labels)
            # Only metrics that may be added up also appear without labels.
            assert ([] in directive["Dimensions"]) is (
                metric.kind != "gauge" or not metric.labels
            ), definition


def values(lines: Iterable[dict[str, Any]], name: str, **labels: str) -> list[float]:
    """Return the values that CloudWatch has for a metric with exactly these dimensions."""
    found: list[float] = []
    for line in lines:
        for directive in line["_aws"]["CloudWatchMetrics"]:
            if not any(definition["Name"] == name for definition in directive["Metrics"]):
                continue
            if sorted(labels) not in directive["Dimensions"]:
                continue
            if all(line[label] == value for label, value in labels.items()):
                value = line[name]
                found.extend(value if isinstance(value, list) else [value])
    return found
