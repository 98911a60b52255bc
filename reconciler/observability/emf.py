"""CloudWatch embedded metric format: metrics as log lines, for deployments on AWS.

Each unit of work writes one line to standard output for each set of labels, and CloudWatch makes
metrics of them. A counter also gets an empty dimension set, because an alarm cannot search over
labels. A gauge does not, because CloudWatch would add up its values.

Specification: *CloudWatch embedded metric format*, Amazon CloudWatch user guide.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any, TextIO

from reconciler.observability.metrics import (
    METRICS,
    Labels,
    Metrics,
    kind_of,
    known_series,
)
from reconciler.settings import Settings

_MAX_VALUES = 100
"""CloudWatch's limit on values of one metric in a line."""


class EmfMetrics(Metrics):
    """Metrics as lines, which ``flush`` writes.

    A line holds the increments since the last one, and all observations, for percentiles.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        now: Callable[[], float] = time.time,
        namespace: str = "OrchestrationReconciler",
    ) -> None:
        self._stream = stream
        self._now = now
        self._namespace = namespace
        self._lock = Lock()
        self._values: dict[tuple[str, Labels], list[float]] = {}

    def record(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        """Buffer a value for the next line."""
        series, kind = (name, tuple(sorted(labels.items()))), kind_of(name)
        with self._lock:
            values = self._values.setdefault(series, [])
            if kind == "counter":
                values[:] = [sum(values) + value]
            elif kind == "gauge":
                values[:] = [value]
            else:
                values.append(value)

    def declare(self, settings: Settings) -> None:
        """Add zero to every known series, so that each counter exists from the start."""
        for metric in METRICS.values():
            if metric.kind == "counter":
                for labels in known_series(metric, settings):
                    self.increment(metric.name, 0.0, **dict(labels))

    def flush(self) -> bool:
        """Write the lines."""
        with self._lock:
            recorded, self._values = self._values, {}
        lines: defaultdict[Labels, dict[str, float | list[float]]] = defaultdict(dict)
        for (name, labels), values in recorded.items():
            is_list = kind_of(name) == "histogram"
            lines[labels][name] = values[:_MAX_VALUES] if is_list else values[0]
            for start in range(_MAX_VALUES, len(values), _MAX_VALUES):
                self._write(labels, {name: values[start : start + _MAX_VALUES]})
        for labels, found in lines.items():
            self._write(labels, found)
        return True

    def _write(self, labels: Labels, values: Mapping[str, float | list[float]]) -> None:
        names = [name for name, _ in labels]
        gauges = [name for name in values if kind_of(name) == "gauge"]
        others = [name for name in values if name not in gauges]
        with_total = [names, []] if names else [[]]
        parts = ((others, with_total), (gauges, [names]))
        directives = [self._directive(part, dimensions) for part, dimensions in parts if part]
        line: dict[str, Any] = {
            "_aws": {"Timestamp": int(self._now() * 1000), "CloudWatchMetrics": directives},
            **dict(labels),
            **values,
        }
        out = self._stream or sys.stdout
        # In one write, because other processes use the same pipe.
        out.write(json.dumps(line) + "\n")
        out.flush()

    def _directive(self, metrics: list[str], dimensions: list[list[str]]) -> dict[str, Any]:
        return {
            "Namespace": self._namespace,
            "Dimensions": dimensions,
            "Metrics": [{"Name": name, "Unit": unit_of(name)} for name in metrics],
        }


def unit_of(name: str) -> str:
    """Return a metric's unit as CloudWatch names it."""
    if kind_of(name) == "counter":
        return "Count"
    if name.endswith("_timestamp_seconds"):
        return "None"  # a point in time is not a duration
    return "Seconds" if name.endswith("_seconds") else "None"


class CombinedMetrics(Metrics):
    """Records everything in several places."""

    def __init__(self, *parts: Metrics) -> None:
        self._parts = parts

    def record(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        """Record a value in each part."""
        for part in self._parts:
            part.record(name, value, labels)

    def flush(self) -> bool:
        """Write all parts; False if one of them keeps its values for later."""
        written = [part.flush() for part in self._parts]
        return all(written)
