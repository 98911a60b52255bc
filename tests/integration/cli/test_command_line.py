"""The command line as an operator runs it: real processes, exit codes, one line for a mistake."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

import pytest

from tests.support.processes import run_python, run_reconciler
from tests.support.world import World

pytestmark = pytest.mark.integration

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(world: World) -> Run:
    """Run ``reconciler …`` on the world's tables; keyword arguments are environment variables."""

    def start(*arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        environment = {**world.environment, **changes}
        return run_reconciler(
            *arguments, environment={name: value for name, value in environment.items() if value}
        )

    return start


def stranded(world: World) -> str:
    rows = {"b": {"display_id": {"S": "ENG-42"}}}
    return world.seed({"a": [], "b": ["a"]}, {"a": "released"}, tasks={"a": "COMPLETED"}, rows=rows)


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one line that reports a mistake; only an inline sweep may log besides."""
    said = done.stderr.splitlines()
    if done.args[1:3] == ["sweep", "--inline"]:
        said = [line for line in said if not line.startswith("{")]
    assert "Traceback" not in done.stderr
    assert len(said) == 1, done.stderr
    return said[0]


def test_an_inline_sweep_repairs_without_a_broker(world: World, run: Run) -> None:
    found = stranded(world)
    done = run("sweep", "--inline", "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert list(summary) == [
        "sweep_id", "mode", "complete", "segments", "rows_scanned", "orchestrations_scanned",
        "orchestrations_evaluated", "released", "adopted", "advanced", "skipped", "claims_reset",
        "refused", "reinvoked", "nudged", "errors", "duration_seconds", "stuck", "consumed",
    ]  # fmt: skip
    assert (summary["advanced"], summary["released"], summary["complete"]) == (1, 1, True)
    assert set(summary["consumed"]) == {"read_units", "write_units", "requests"}
    assert world.statuses(found) == {"a": "succeeded", "b": "released"}
    events = {json.loads(line)["event"] for line in done.stderr.splitlines()}
    assert events == {
        "orch.sweep.started", "orch.sweep.recovered", "orch.child.released", "orch.sweep.completed"
    }  # fmt: skip


def test_a_report_writes_nothing_and_exits_1(world: World, run: Run) -> None:
    stranded(world)
    before = world.everything()
    done = run("sweep", "--inline", "--report")
    assert done.returncode == 1
    assert "1 advanced, 1 released" in done.stdout
    assert "nothing was changed" in done.stdout
    assert world.everything() == before


def test_the_region_comes_from_aws_region(world: World, run: Run) -> None:
    """boto3 by itself knows only ``AWS_DEFAULT_REGION``."""
    world.seed({"a": []})
    done = run("sweep", "--inline", "--json", AWS_DEFAULT_REGION="")
    assert done.returncode == 0, done.stderr


def test_evaluate_repairs_only_the_named_orchestration(world: World, run: Run) -> None:
    found, other = stranded(world), stranded(world)
    done = run("evaluate", found, "--json")
    assert done.returncode == 0
    assert world.statuses(found)["b"] == "released"
    assert world.statuses(other)["b"] == "blocked"


@pytest.mark.parametrize("by", ["orchestration", "sub-issue", "display id", "task"])
def test_inspect_accepts_any_known_id(world: World, run: Run, by: str) -> None:
    found = stranded(world)
    (task,) = world.tasks(found, "a")
    name = {
        "orchestration": found, "sub-issue": "b", "display id": "ENG-42",
        "task": task["task_id"]["S"],
    }[by]  # fmt: skip
    before = world.everything()
    done = run("inspect", name, "--json")
    assert done.returncode == 1, done.stderr
    view = json.loads(done.stdout)
    assert view["orchestration_id"] == found
    codes = {child["sub_issue_id"]: child["code"] for child in view["children"]}
    assert codes == {"a": "lost_terminal", "b": "lost_release"}
    assert world.everything() == before
    text = run("inspect", name).stdout
    assert "ENG-42" in text
    assert "every predecessor has succeeded, and nobody has released it" in text


@pytest.mark.parametrize("by", ["child of it", "display id", "task", "beginning", "pair"])
def test_release_accepts_any_known_id(world: World, run: Run, by: str) -> None:
    rows = {"issue-1": {"display_id": {"S": "ENG-7"}}}
    found = world.seed({"issue-1": [], "issue-2": []}, rows=rows)
    child = "issue-1"
    if by == "task":  # a retry keeps the id of its earlier task
        child = "issue-2"
        world.client.update_item(
            TableName=world.settings.orchestration_table_name,
            Key={"orchestration_id": {"S": found}, "sub_issue_id": {"S": child}},
            UpdateExpression="SET child_task_id = :t",
            ExpressionAttributeValues={":t": {"S": "01ARZ3NDEKTSV4RRFFQ69G5FAV"}},
        )
    arguments = {
        "child of it": [found[:20], "ENG-7"], "display id": ["ENG-7"],
        "task": ["01ARZ3NDEKTSV4RRFFQ69G5FAV"], "beginning": [found, "issue-1"[:7]],
        "pair": [f"{found}/issue-1"],
    }[by]  # fmt: skip
    done = run("release", *arguments)
    assert done.returncode == 0, done.stderr
    assert world.statuses(found)[child] == "released"


def test_an_ambiguous_id_names_the_candidates(world: World, run: Run) -> None:
    rows = {"issue-2": {"display_id": {"S": "ENG-8"}}}
    found = world.seed({"issue-1": [], "issue-2": []}, rows=rows)
    whole = run("release", found)
    assert whole.returncode == 2
    said = f"{found} is an orchestration: name a child too: issue-1, ENG-8"
    assert one_line(whole) == f"reconciler: {said}"
    begun = run("inspect", "issue-")
    assert begun.returncode == 2
    assert "means several: " in one_line(begun)
    assert f"{found} issue-1" in one_line(begun)
    assert world.statuses(found) == {"issue-1": "blocked", "issue-2": "blocked"}


@pytest.mark.parametrize(("form", "start"), [("mermaid", "flowchart TD"), ("svg", "<svg ")])
def test_inspect_draws_mermaid_and_svg(world: World, run: Run, form: str, start: str) -> None:
    assert run("inspect", stranded(world), "--format", form).stdout.startswith(start)


def test_inspect_reports_an_unknown_child(world: World, run: Run) -> None:
    done = run("inspect", f"{stranded(world)}/nobody")
    assert "it has no child nobody" in done.stdout


def test_releasing_by_hand_is_idempotent(world: World, run: Run) -> None:
    """A child that is not due is not released."""
    found = world.seed({"a": [], "b": ["a"]})
    assert run("release", found, "b").returncode == 1
    done = run("release", found, "a", "--json")
    assert (done.returncode, json.loads(done.stdout)["outcome"]) == (0, "released")
    again = run("release", found, "a", "--json")
    assert (again.returncode, json.loads(again.stdout)["outcome"]) == (0, "already_released")


def test_a_pause_stops_releases_until_resume(world: World, run: Run) -> None:
    found = world.seed({"a": []})
    assert "migration" in run("pause", "--reason", "migration").stdout
    done = run("release", found, "a")
    assert done.returncode == 1
    assert "migration" in done.stdout
    assert run("resume").returncode == 0
    assert run("release", found, "a").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "changes", "named"),
    [
        (["sweep", "--inline"], {"ORCHESTRATION_TABLE_NAME": ""}, "ORCHESTRATION_TABLE_NAME"),
        (["sweep", "--inline"], {"SWEEP_INTERVAL_SECONDS": "-5"}, "SWEEP_INTERVAL_SECONDS"),
        (["sweep", "--inline"], {"STRANDED_GRACE_SECONDS": "90000"}, "STRANDED_GRACE_SECONDS"),
        (["sweep", "--inline"], {"REPAIR_MODE": "yolo"}, "REPAIR_MODE"),
        (["sweep", "--inline"], {"GUARDRAIL_ID": "g"}, "GUARDRAIL_VERSION"),
        (["sweep", "--inline"], {"SWEEP_SEGMENTS": "many"}, "SWEEP_SEGMENTS"),
        (["evaluate", "orch_x"], {}, "orch_x"),
        (["sweep", "--segments", "2"], {}, "--inline"),
        (["list", "--code", "stuck"], {}, "no such code: stuck; the codes are over_budget"),
        (["inspect", " "], {}, "an empty id"),
        (["inspect", "orch_" + "0" * 32], {}, "orch_0000"),
        (["inspect", "ENG-404"], {}, "ENG-404"),
        (["release", "orch_x", "b"], {}, "orch_x"),
        (["release", "orch_x", "b"], {"AWS_REGION": "", "AWS_DEFAULT_REGION": ""}, "AWS_REGION"),
    ],
)
def test_a_mistake_exits_2_with_one_line(
    world: World, run: Run, arguments: list[str], changes: dict[str, str], named: str
) -> None:
    world.seed({"a": []})
    before = world.everything()
    done = run(*arguments, **changes)
    assert done.returncode == 2, done.stderr
    assert named in one_line(done)
    assert world.everything() == before


@pytest.mark.parametrize(
    ("arguments", "changes", "named"),
    [
        (["sweep", "--inline"], {"ORCHESTRATION_TABLE_NAME": "nowhere"}, "nowhere"),
        (["sweep"], {"CELERY_BROKER_URL": "redis://127.0.0.1:1/0"}, "broker"),
        (
            ["list"],
            {"CELERY_BROKER_URL": "redis://127.0.0.1:1/0"},
            "`reconciler sweep --inline --report` reads the tables",
        ),
        (
            ["sweep"],
            {"CELERY_BROKER_URL": "redis://127.0.0.1:1/0"},
            "refused; `reconciler sweep --inline` needs none",
        ),
        (
            ["release", "orch_x", "b"],
            {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""},
            "credentials",
        ),
        (["tables"], {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "AWS cannot be reached"),
    ],
)
def test_an_unreachable_service_exits_3_with_one_line(
    world: World, run: Run, arguments: list[str], changes: dict[str, str], named: str
) -> None:
    world.seed({"a": []})
    done = run(*arguments, **changes)
    assert done.returncode == 3, done.stderr
    assert named in one_line(done)


def test_health_and_status_report_an_unreachable_broker(run: Run) -> None:
    away = {"CELERY_BROKER_URL": "redis://127.0.0.1:1/0"}
    done = run("health", **away)
    assert (done.returncode, len(done.stdout.splitlines())) == (3, 1)
    assert "broker" in done.stdout
    status = run("status", "--json", **away)
    assert status.returncode == 3
    assert json.loads(status.stdout)["healthy"] is False


def test_celery_reports_a_mistake_in_one_line(world: World) -> None:
    environment = {**world.environment, "REPAIR_MODE": "yolo"}
    done = run_python("-m", "celery", "-A", "workers", "worker", environment=environment)
    assert done.returncode == 2
    assert "REPAIR_MODE" in one_line(done)
