"""Log lines and metrics of repairs and of evaluations."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import asdict
from typing import Any

import pytest
import structlog

from reconciler.domain.codes import Code, OrchestrationCode
from reconciler.domain.diagnosis import ChildDiagnosis, Diagnosis
from reconciler.domain.outcomes import RELEASE_OUTCOMES, Outcome
from reconciler.errors import StoreUnavailableError, ThrottledError
from reconciler.repair.context import ActionOutcome, Context, Evaluation, Stuck
from reconciler.repair.counts import Counts
from reconciler.repair.reporter import Reporter
from tests.support.metrics import RecordingMetrics
from tests.support.strategies import NOW

CONTEXT = Context(NOW, "sweep-1")
Lines = list[MutableMapping[str, Any]]


def action(verb: str, outcome: Outcome, *, applied: bool = True, **more: Any) -> ActionOutcome:
    return ActionOutcome(verb, "a", "lost_release", outcome, applied, **more)


def said(done: ActionOutcome) -> tuple[Lines, RecordingMetrics]:
    metrics = RecordingMetrics()
    with structlog.testing.capture_logs() as lines:
        Reporter(metrics).acted("orch_1", done, CONTEXT)
    return lines, metrics


def events(lines: Lines) -> list[str]:
    return [line["event"] for line in lines]


def recoveries(metrics: RecordingMetrics) -> float:
    return metrics.count("reconciler_recoveries_total", code="lost_release")


def releases(metrics: RecordingMetrics) -> dict[str, float]:
    counted = {o: metrics.count("reconciler_releases_total", outcome=o) for o in RELEASE_OUTCOMES}
    return {outcome: count for outcome, count in counted.items() if count}


@pytest.mark.parametrize(
    ("done", "told", "counted"),
    [
        (
            action("release", Outcome.RELEASED),
            ["orch.child.released", "orch.sweep.recovered"],
            {"released": 1},
        ),
        (action("release", Outcome.ADOPTED), ["orch.sweep.recovered"], {"adopted": 1}),
        (action("release", Outcome.REINVOKED), ["orch.sweep.recovered"], {"reinvoked": 1}),
        (action("advance", Outcome.DONE), ["orch.sweep.recovered"], {}),
        (action("release", Outcome.RELEASED, applied=False), [], {}),
        (action("release", Outcome.PAUSED, applied=False), [], {"paused": 1}),
        (action("advance", Outcome.DONE, applied=False), [], {}),
        (action("advance", Outcome.LOST_RACE), [], {}),
        (action("release", Outcome.OVER_BUDGET), [], {"over_budget": 1}),
        (action("release", Outcome.QUEUED), [], {}),
        (action("release", Outcome.FAILED), ["orch.child.release_failed"], {"failed": 1}),
        (action("skip", Outcome.FAILED), ["orch.child.release_failed"], {}),
        (
            action("release", Outcome.FAILED, applied=False),
            ["orch.child.release_failed"],
            {"failed": 1},
        ),
        (action("release", Outcome.REFUSED), ["orch.child.release_failed"], {"refused": 1}),
        (action("release", Outcome.REFUSED, applied=False), [], {}),
    ],
)
def test_each_outcome_has_its_lines_and_its_count(
    done: ActionOutcome, told: list[str], counted: dict[str, int]
) -> None:
    lines, metrics = said(done)
    assert events(lines) == told
    assert releases(metrics) == counted
    assert recoveries(metrics) == ("orch.sweep.recovered" in told)


def test_a_line_has_all_fields_of_the_repair() -> None:
    done = action(
        "release", Outcome.RELEASED, task_id="T-1", stranded_seconds=90.0, warnings=("w",)
    )
    lines, metrics = said(done)
    fields = {
        "orchestration_id": "orch_1",
        "sub_issue_id": "a",
        "code": "lost_release",
        "action": "release",
        "outcome": "released",
        "task_id": "T-1",
        "stranded_seconds": 90.0,
        "sweep_id": "sweep-1",
        "log_level": "info",
    }
    assert lines == [
        {"event": "orch.child.released", **fields, "warnings": ["w"]},
        {"event": "orch.sweep.recovered", **fields},
    ]
    assert metrics.observations == {"reconciler_recovery_latency_seconds": [90.0]}


def test_unknown_fields_are_left_out() -> None:
    lines, metrics = said(action("release", Outcome.RELEASED))
    assert [{"detail", "warnings"} & line.keys() for line in lines] == [set(), set()]
    assert metrics.observations == {}


def test_a_failure_is_counted_by_kind() -> None:
    """Its log line gives the reason."""
    done = action("advance", Outcome.FAILED, detail="not now", error_kind="throttled")
    (line,), metrics = said(done)
    assert (line["detail"], line["error_kind"]) == ("not now", "throttled")
    assert line["log_level"] == "warning"
    assert metrics.count("reconciler_errors_total", kind="throttled") == 1


# -- evaluations


def diagnosis(*children: str) -> Diagnosis:
    found = {key: ChildDiagnosis(key, Code.RUNNING, "") for key in children}
    return Diagnosis("orch_1", OrchestrationCode.IN_PROGRESS, "", None, found)


@pytest.mark.parametrize(
    ("outcome", "found", "now", "complete"),
    [
        (Outcome.DONE, diagnosis("a"), diagnosis(), True),
        (Outcome.DONE, diagnosis("a", "b"), diagnosis("b"), False),
        (Outcome.LOST_RACE, diagnosis("a"), diagnosis(), False),
        (Outcome.DONE, None, diagnosis(), False),
        (Outcome.DONE, diagnosis("a"), None, False),
    ],
    ids=["the last one", "another is left", "by somebody else", "not found", "not diagnosed"],
)
def test_only_the_last_repair_completes_an_orchestration(
    outcome: Outcome, found: Diagnosis | None, now: Diagnosis | None, *, complete: bool
) -> None:
    """No completion is logged if somebody else finished the last child, or without a diagnosis."""
    done = (action("advance", Outcome.LOST_RACE), action("advance", outcome))
    evaluation = Evaluation("orch_1", found, now, done, Counts())
    with structlog.testing.capture_logs() as lines:
        Reporter(RecordingMetrics()).evaluated(evaluation, CONTEXT)
    completed = [line for line in lines if line["event"] == "orch.complete"]
    assert completed == [
        {
            "event": "orch.complete",
            "orchestration_id": "orch_1",
            "code": "in_progress",
            "sweep_id": "sweep-1",
            "log_level": "info",
        }
    ] * int(complete)


def test_each_repair_is_reported() -> None:
    metrics = RecordingMetrics()
    done = (action("advance", Outcome.DONE), action("release", Outcome.RELEASED))
    evaluation = Evaluation("orch_1", diagnosis("a"), diagnosis("a"), done, Counts())
    with structlog.testing.capture_logs() as lines:
        Reporter(metrics).evaluated(evaluation, CONTEXT)
    assert events(lines) == ["orch.sweep.recovered", "orch.child.released", "orch.sweep.recovered"]
    assert recoveries(metrics) == 2


def test_each_stuck_child_is_reported_once() -> None:
    stuck = tuple(Stuck("orch_1", key, "long_running", "why", 90.0, "T-1") for key in "ab")
    evaluation = Evaluation("orch_1", diagnosis(), diagnosis(), (), Counts(), stuck)
    with structlog.testing.capture_logs() as lines:
        Reporter(RecordingMetrics()).evaluated(evaluation, CONTEXT)
    same = {"event": "orch.sweep.stuck", "sweep_id": "sweep-1", "log_level": "warning"}
    assert lines == [{**asdict(entry), **same} for entry in stuck]


def test_a_failed_evaluation_is_reported_and_counted() -> None:
    metrics = RecordingMetrics()
    with structlog.testing.capture_logs() as lines:
        Reporter(metrics).failed("orch_1", ThrottledError("not now"), CONTEXT)
    (line,) = lines
    assert (line["event"], line["log_level"]) == ("orch.evaluation.failed", "warning")
    assert (line["error_kind"], line["detail"]) == ("throttled", "not now")
    assert metrics.count("reconciler_errors_total", kind="throttled") == 1


@pytest.mark.parametrize("error", [ThrottledError("not now"), StoreUnavailableError("not now")])
def test_an_outage_is_counted_and_logged_elsewhere(
    error: ThrottledError | StoreUnavailableError,
) -> None:
    """It is logged when it begins, and not for each orchestration."""
    metrics = RecordingMetrics()
    reporter = Reporter(metrics)
    with structlog.testing.capture_logs() as lines:
        reporter.failed("orch_1", error, CONTEXT)
        reporter.incomplete("orch_1", error, CONTEXT)
        reporter.recoveries_unread(error, "sweep-1")
        failed = action("release", Outcome.FAILED, error_kind=error.kind)
        reporter.acted("orch_1", failed, CONTEXT)
    told = [
        "orch.evaluation.failed",
        "orch.evaluation.incomplete",
        "orch.recoveries.unread",
        "orch.child.release_failed",
    ]
    assert events(lines) == (told if isinstance(error, ThrottledError) else [])
    assert {line["sweep_id"] for line in lines} <= {"sweep-1"}
    assert metrics.count("reconciler_errors_total", kind=error.kind) == 4
