"""One thing of each kind is stuck: logs, metrics, ``status`` and ``inspect`` agree about it.

A report first finds everything; then a repair follows. A real worker runs both. The broker has a
password and the rows hold text like credentials; neither may show up anywhere.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from reconciler.inspection.explain import to_json
from reconciler.inspection.find import Found
from reconciler.inspection.look import look
from reconciler.observability.metrics import METRICS
from reconciler.observability.redis_metrics import read_series
from tests.conftest import Servers
from tests.support.aws_stub import aws_stub
from tests.support.faulty_endpoint import FaultyEndpoint, faulty_endpoint
from tests.support.guarded_broker import PASSWORD, guarded_broker
from tests.support.one_of_each import CODES, NEVER_STUCK, SETTINGS, WITHOUT_CHILD, OneOfEach
from tests.support.processes import Celery, run_reconciler
from tests.support.world import RealClock, build_world

pytestmark = [pytest.mark.integration, pytest.mark.workers]

CREDENTIALS = "AKIAIOSFODNN7EXAMPLE lin_api_0123456789abcdef password=hunter2hunter2"
DESCRIPTION = f"Rotate the keys. They are: {CREDENTIALS}"
EVENTS = {
    "orch.sweep.started", "orch.sweep.completed", "orch.sweep.recovered", "orch.sweep.stuck",
    "orch.sweep.failed", "orch.child.released", "orch.child.release_failed", "orch.complete",
}  # fmt: skip


@dataclass
class Run:
    """What the run showed. ``report`` and ``repair``: the summaries of the two sweeps.

    ``seconds``: the time from before the report until the last of its numbers was read.
    """

    one: OneOfEach
    seconds: float = 0.0
    report: dict[str, Any] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)
    status_text: str = ""
    status_calls: list[str] = field(default_factory=list)
    health: dict[str, Any] = field(default_factory=dict)
    stuck_metrics: dict[str, tuple[float, float]] = field(default_factory=dict)
    inspected: dict[str, dict[str, Any]] = field(default_factory=dict)
    refused: str = ""
    repair: dict[str, Any] = field(default_factory=dict)
    repaired: dict[str, dict[str, Any]] = field(default_factory=dict)
    status_after: dict[str, Any] = field(default_factory=dict)
    counters: Counter[tuple[str, str]] = field(default_factory=Counter)
    log: str = ""
    printed: str = ""

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.splitlines()]

    def of(self, event: str, sweep_id: str) -> list[dict[str, Any]]:
        return [x for x in self.lines if x["event"] == event and x.get("sweep_id") == sweep_id]


class Console:
    """Runs ``reconciler …`` in its own process, and keeps everything that it prints."""

    def __init__(self, celery: Celery) -> None:
        self._celery = celery
        self.printed = ""

    def __call__(self, *arguments: str, code: int) -> str:
        done = run_reconciler(*arguments, environment=self._celery.environment)
        self.printed += done.stdout + done.stderr
        assert done.returncode == code, (arguments, done.stdout, done.stderr)
        return done.stdout


@pytest.fixture(scope="module")
def run(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """The whole run, once for all tests of this module."""
    directory = tmp_path_factory.mktemp("one-of-each")
    with ExitStack() as stack:
        wire = stack.enter_context(faulty_endpoint(servers.endpoint("moto")))
        stub = stack.enter_context(aws_stub())
        world = build_world(servers.endpoint("moto"), **SETTINGS)
        world.clock = RealClock()
        one = OneOfEach(world).seed()
        world.change(one.where["lost_release"], "api", description=DESCRIPTION)
        world.change(
            one.where["lost_release"], "#meta", parent_context_description=f"For all: {CREDENTIALS}"
        )
        wire.unreadable.add(one.unreadable)
        world.endpoint = wire.url
        broker = stack.enter_context(guarded_broker(directory))
        celery = Celery(world, broker, directory, {"AWS_ENDPOINT_URL_LAMBDA": stub.url})
        found = Run(one)
        console = Console(celery)
        # In report mode nothing is repaired, so everything that a sweep finds stays stuck.
        celery.extra["REPAIR_MODE"] = "report"
        with celery.worker("w1"):
            _report(found, celery, console, wire)
        del celery.extra["REPAIR_MODE"]
        with celery.worker("w2"):
            _repair(found, celery, console)
        found.printed = console.printed
        found.log = "".join((directory / f"{name}.log").read_text() for name in ("w1", "w2"))
        yield found


def _report(found: Run, celery: Celery, console: Console, wire: FaultyEndpoint) -> None:
    began = time.monotonic()
    found.report = json.loads(console("sweep", "--report", "--wait", "--json", code=1))
    wire.calls.clear()
    found.status = json.loads(console("status", "--json", code=1))
    found.status_calls = list(wire.calls)
    found.status_text = console("status", code=1)
    found.health = json.loads(console("health", "--json", code=0))
    series = read_series(celery.redis, celery.world.settings)
    for code in (*CODES, *NEVER_STUCK):
        labels = (("code", code),)
        found.stuck_metrics[code] = (
            series["reconciler_stuck_children", labels, ""],
            series["reconciler_oldest_stuck_seconds", labels, ""],
        )
    found.seconds = time.monotonic() - began
    found.inspected = _inspected(celery, set(found.one.where.values()))
    console("inspect", found.one.where["lost_release"], code=1)


def _repair(found: Run, celery: Celery, console: Console) -> None:
    found.refused = found.one.seed_refused()
    found.repair = json.loads(console("sweep", "--wait", "--json", code=1))
    found.status_after = json.loads(console("status", "--json", code=1))
    names = {*found.one.where.values(), found.refused}
    found.repaired = _inspected(celery, names)
    for (name, labels, part), value in read_series(celery.redis, celery.world.settings).items():
        if METRICS[name].kind == "counter" and not part and len(labels) == 1:
            found.counters[name, labels[0][1]] += value  # type: ignore[assignment]


def _inspected(celery: Celery, names: set[str]) -> dict[str, dict[str, Any]]:
    """Describe each orchestration as ``inspect --json`` does."""
    reconciler = celery.world.reconciler()
    return {name: to_json(look(reconciler, Found(name))) for name in names}


# -- what is stuck


@pytest.mark.parametrize("code", CODES)
def test_logs_metrics_and_commands_agree_on_each_code(run: Run, code: str) -> None:
    """Each of them shows the code exactly once, with the same age and place."""
    (line,) = [x for x in run.of("orch.sweep.stuck", run.report["sweep_id"]) if x["code"] == code]
    assert run.report["stuck"][code] == 1
    assert run.status["stuck"][code] == 1
    count, oldest = run.stuck_metrics[code]
    assert count == 1
    # The remembered age grows until somebody asks for it.
    age = line["age_seconds"]
    assert age <= oldest <= age + run.seconds
    assert age <= run.status["oldest_stuck_seconds"][code] <= age + run.seconds
    assert f" {code} " in run.status_text
    # The log names the orchestration, and `inspect` shows the same for it.
    name = line["orchestration_id"]
    assert name == run.one.where[code]
    view = run.inspected[name]
    if code in WITHOUT_CHILD:
        assert line["sub_issue_id"] is None
        assert view["code"] == code
        assert line["reason"].startswith(view["reason"][:20])
        assert view["needs_action"] is line["needs_action"]
    else:
        (child,) = [child for child in view["children"] if child["code"] == code]
        assert child["sub_issue_id"] == line["sub_issue_id"]
        assert child["reason"] == line["reason"]
        assert child["needs_action"] is line["needs_action"]
        assert child["stuck"] is (code != "over_budget")
        assert child["will"]["do"]


def test_nothing_else_is_stuck(run: Run) -> None:
    assert run.report["stuck"] == dict.fromkeys(sorted(CODES), 1)
    assert run.status["stuck"] == run.report["stuck"]
    lines = run.of("orch.sweep.stuck", run.report["sweep_id"])
    assert run.status["needs_action"] == sum(line["needs_action"] for line in lines)
    assert len(run.of("orch.sweep.stuck", run.report["sweep_id"])) == len(CODES)
    assert all(run.stuck_metrics[code] == (0, 0) for code in NEVER_STUCK)
    assert (run.report["mode"], run.report["complete"]) == ("report", True)
    assert sum(run.report[name] for name in ("released", "advanced", "skipped", "errors")) == 0


def test_status_shows_the_ten_oldest(run: Run) -> None:
    lines = run.of("orch.sweep.stuck", run.report["sweep_id"])
    ages = sorted((line["age_seconds"] for line in lines), reverse=True)
    told = [entry["age_seconds"] for entry in run.status["oldest"]]
    pairs = zip(ages[:10], told, strict=True)
    assert all(age <= shown <= age + run.seconds for age, shown in pairs)
    assert run.status["oldest"][0]["orchestration_id"] == run.one.where["long_running"]


def test_status_reads_three_times_by_key(run: Run) -> None:
    """It reads the pause, the record of sweeps without a broker, and a task as a test of access."""
    assert Counter(run.status_calls) == {"GetItem": 2, "BatchGetItem": 1}


def test_health_follows_coverage_without_a_beat(run: Run) -> None:
    """Every sweep was asked for by hand a moment ago, and no beat is missed so soon."""
    assert run.health["healthy"]
    assert run.status["problem"] is None
    assert [name.partition("@")[0] for name in run.status["workers"]] == ["w1"]


# -- what is repaired

REPAIRED = {
    "lost_release": 2,  # one, and the child whose abandoned claim was reset
    "lost_terminal": 1,
    "lost_skip": 1,
    "lost_recovery": 1,
    "abandoned_claim": 1,
    "unstarted_task": 1,
    "unsettled_parent": 1,  # the parent of the child whose terminal was lost
}
WITHOUT_TASK = {"lost_skip"}
"""Repairs whose event belongs to no task here: the failed child has no task."""


def test_logs_metrics_and_commands_agree_on_each_recovery(run: Run) -> None:
    """Each of them counts the same recoveries."""
    lines = run.of("orch.sweep.recovered", run.repair["sweep_id"])
    assert Counter(line["code"] for line in lines) == REPAIRED
    for code, count in REPAIRED.items():
        assert run.counters["reconciler_recoveries_total", code] == count
    assert run.status_after["recoveries"]["last_hour"] == sum(REPAIRED.values())
    summary = {name: run.repair[name] for name in ("released", "advanced", "skipped")}
    assert summary == {"released": 2, "advanced": 1, "skipped": 1}
    assert [run.repair[n] for n in ("claims_reset", "reinvoked", "nudged")] == [1, 1, 2]
    told = Counter(repair["code"] for view in run.repaired.values() for repair in view["repairs"])
    assert told == {code: n for code, n in REPAIRED.items() if code not in WITHOUT_TASK}


def test_log_metric_and_inspect_show_a_refusal(run: Run) -> None:
    assert run.repair["refused"] == 1
    assert run.counters["reconciler_releases_total", "refused"] == 1
    (line,) = run.of("orch.child.release_failed", run.repair["sweep_id"])
    assert (line["orchestration_id"], line["outcome"]) == (run.refused, "refused")
    (child,) = run.repaired[run.refused]["children"]
    assert child["status"] == "failed"
    assert "is not onboarded" in child["reason"]


# -- what the logs say


def test_every_log_line_carries_its_context(run: Run) -> None:
    assert len(run.lines) > len(CODES)
    for line in run.lines:
        assert {"event", "level", "timestamp"} <= line.keys()
        if line["event"].startswith("orch."):
            assert line["event"] in EVENTS
            assert line["sweep_id"] in {run.report["sweep_id"], run.repair["sweep_id"]}
            assert line["celery_task_id"]
        elif line["event"].startswith("Task reconciler."):
            assert line["celery_task_id"]
            assert line["sweep_id"]
    about = [x for x in run.lines if x["event"].startswith("Task reconciler.evaluate")]
    assert about
    assert all(x["orchestration_id"].startswith("orch_") for x in about)


def test_no_output_contains_secrets_or_descriptions(run: Run) -> None:
    assert run.status_after["problem"] == run.status["problem"]
    for text in (run.log, run.printed):
        assert PASSWORD not in text
        for word in (DESCRIPTION, *CREDENTIALS.split()):
            assert word not in text
