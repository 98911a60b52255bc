"""Check that PromQL expressions use only declared metrics and labels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import promql_parser

from reconciler.observability.metrics import EXPORTED, METRICS, Metric

OF_THE_SCRAPE = {"job", "instance"}
"""Labels that Prometheus itself adds when it scrapes."""

_EXACT = (promql_parser.MatchOp.Equal, promql_parser.MatchOp.NotEqual)


def metric_of(series: str) -> tuple[Metric, set[str]]:
    """Return the metric that a series belongs to, and the labels that the series may have."""
    for part in ("_bucket", "_sum", "_count"):
        histogram = METRICS.get(series.removesuffix(part))
        if series.endswith(part) and histogram is not None and histogram.kind == "histogram":
            return histogram, {*histogram.labels, *({"le"} if part == "_bucket" else ())}
    declared = {**METRICS, **EXPORTED}
    assert series in declared, f"no metric {series} is declared"
    assert declared[series].kind != "histogram", (
        f"{series} is a histogram: use its buckets, sum or count"
    )
    return declared[series], set(declared[series].labels)


def check_declared(expression: str, given: frozenset[str] = frozenset()) -> set[str]:
    """Fail unless everything that an expression names is declared; return its metrics.

    ``given``: label values that are variables and stand for any value.
    """
    named: set[str] = set()
    labels = set(OF_THE_SCRAPE)
    parsed = promql_parser.parse(expression)
    nodes: list[Any] = []
    promql_parser.walk(parsed, pre_visit=nodes.append)
    for selector in (node for node in nodes if isinstance(node, promql_parser.VectorSelector)):
        assert selector.name, expression
        metric, own = metric_of(selector.name)
        named.add(metric.name)
        labels |= own
        for matcher in selector.matchers.matchers:
            assert matcher.name in own | OF_THE_SCRAPE, f"{selector.name} has no {matcher.name}"
            known = metric.known.get(matcher.name)
            if known is not None and matcher.value not in given:
                asked = [matcher.value] if matcher.op in _EXACT else matcher.value.split("|")
                assert set(asked) <= set(known), f"{selector.name}: {matcher.name}={asked}"
    for label in _grouped_by(nodes):
        assert label in labels, f"{expression}: no label {label}"
    return named


def _grouped_by(nodes: list[Any]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            yield from node.modifier.labels
        if isinstance(node, promql_parser.BinaryExpr) and node.modifier is not None:
            if node.modifier.matching is not None:
                yield from node.modifier.matching.labels
            yield from node.modifier.group_labels or ()
