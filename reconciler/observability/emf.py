"""CloudWatch embedded metric format: metrics as log lines, for those who run on AWS alone.

One line for each series that changed in a unit of work, to standard output; CloudWatch makes
metrics of them. Specification: *CloudWatch embedded metric format*, Amazon CloudWatch user guide.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from threading import Lock
from typing import Any, TextIO

from reconciler.observability.metrics import METRICS, FlushingMetrics

NAMESPACE = "OrchestrationReconciler"
_UNITS = {"seconds": "Seconds"}
_MOST_VALUES = 100
"""How many values of one metric a line may hold."""

Series = tuple[str, tuple[tuple[str, str], ...]]


class EmfMetrics:
    """The metrics port, as lines. Call ``flush`` when a unit of work ends."""

    def __init__(self, stream: TextIO | None = None, now: Callable[[], float] = time.time) -> None:
        self._stream = stream
        self._now = now
        self._lock = Lock()
        self._counted: dict[Series, float] = {}
        self._set: dict[Series, float] = {}
        self._observed: dict[Series, list[float]] = {}

    def increment(self, name: str, amount: float = 1.0, **labels: str) -> None:
        """Add to a counter; the line holds what was added since the last one."""
        key = (name, tuple(sorted(labels.items())))
        with self._lock:
            self._counted[key] = self._counted.get(key, 0.0) + amount

    def set_gauge(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        with self._lock:
            self._set[name, tuple(sorted(labels.items()))] = value

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add an observation; the line holds all of them, so that percentiles can be had."""
        with self._lock:
            self._observed.setdefault((name, tuple(sorted(labels.items()))), []).append(value)

    def flush(self) -> bool:
        """Write the lines."""
        with self._lock:
            single = {**self._counted, **self._set}
            observed = self._observed
            self._counted, self._set, self._observed = {}, {}, {}
        for (name, labels), value in single.items():
            self._write(name, labels, value)
        for (name, labels), values in observed.items():
            for start in range(0, len(values), _MOST_VALUES):
                self._write(name, labels, values[start : start + _MOST_VALUES])
        return True

    def _write(
        self, name: str, labels: tuple[tuple[str, str], ...], value: float | list[float]
    ) -> None:
        unit = next((u for end, u in _UNITS.items() if name.endswith(end)), "None")
        if METRICS[name].kind == "counter":
            unit = "Count"
        line: dict[str, Any] = {
            "_aws": {
                "Timestamp": int(self._now() * 1000),
                "CloudWatchMetrics": [
                    {
                        "Namespace": NAMESPACE,
                        "Dimensions": [[label for label, _ in labels]],
                        "Metrics": [{"Name": name, "Unit": unit}],
                    }
                ],
            },
            **dict(labels),
            name: value,
        }
        print(json.dumps(line), file=self._stream or sys.stdout, flush=True)


class CombinedMetrics:
    """Counts the same in several places."""

    def __init__(self, *parts: FlushingMetrics) -> None:
        self._parts = parts

    def increment(self, name: str, amount: float = 1.0, **labels: str) -> None:
        """Add to a counter."""
        for part in self._parts:
            part.increment(name, amount, **labels)

    def set_gauge(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        for part in self._parts:
            part.set_gauge(name, value, **labels)

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add an observation to a histogram."""
        for part in self._parts:
            part.observe(name, value, **labels)

    def flush(self) -> bool:
        """Write what was counted; False when a part keeps it for later."""
        written = [part.flush() for part in self._parts]
        return all(written)
