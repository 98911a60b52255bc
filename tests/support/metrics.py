"""Metrics that remember their counts and refuse undeclared names."""

from __future__ import annotations

from collections import Counter

from reconciler.observability.metrics import METRICS, Metrics


class RecordingMetrics(Metrics):
    """The metrics port, in memory."""

    def __init__(self) -> None:
        self.counters: Counter[tuple[str, tuple[tuple[str, str], ...]]] = Counter()
        self.gauges: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        self.observations: dict[str, list[float]] = {}

    @staticmethod
    def _key(name: str, labels: dict[str, str]) -> tuple[str, tuple[tuple[str, str], ...]]:
        metric = METRICS[name]
        assert set(labels) == set(metric.labels), (name, labels)
        for label, values in metric.known.items():
            assert labels[label] in values, (name, labels)
        return name, tuple(sorted(labels.items()))

    def increment(self, name: str, amount: float = 1.0, **labels: str) -> None:
        self.counters[self._key(name, labels)] += amount  # type: ignore[assignment]

    def set_gauge(self, name: str, value: float, **labels: str) -> None:
        self.gauges[self._key(name, labels)] = value

    def observe(self, name: str, value: float, **labels: str) -> None:
        self._key(name, labels)
        self.observations.setdefault(name, []).append(value)

    def count(self, name: str, **labels: str) -> float:
        return self.counters[self._key(name, labels)]
