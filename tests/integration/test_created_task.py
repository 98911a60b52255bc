"""Every attribute of a task that a release creates, with its type."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from reconciler.domain.task import INTEGRATION_INSTRUCTIONS
from tests.support.world import REPO, USER, World

pytestmark = pytest.mark.integration
ULID = re.compile(r"[0-9A-HJKMNP-TV-Z]{26}")


def release(world: World, found: str, key: str) -> dict[str, Any]:
    """Release a child and return its task; the row must name the task."""
    result = world.reconciler().release(found, key, sweep_id="sweep:7")
    assert result.outcome == "released"
    (task,) = (t for t in world.tasks(found, key) if t["task_id"]["S"] == result.task_id)
    row = world.rows(found)[key]
    assert row["child_status"] == {"S": "released"}
    assert row["child_task_id"] == task["task_id"]
    assert row["child_branch_name"] == task["branch_name"]
    assert row["updated_at"] == task["updated_at"]
    return task


def strings(**values: str) -> dict[str, Any]:
    return {name: {"S": value} for name, value in values.items()}


def passed(name: str, **more: Any) -> dict[str, Any]:
    return {"attachment_id": name, "screening": {"status": "passed"}, **more}


def typed_passed(name: str) -> dict[str, Any]:
    screening = {"M": {"status": {"S": "passed"}}}
    return {"M": {"attachment_id": {"S": name}, "screening": screening}}


def test_a_linear_task_has_exactly_these_attributes(world: World) -> None:
    issue = "3f1c0b52-6c1e-4a5c-9d6e-0c1f4bb5a001"
    found = world.seed(
        {"p1": [], "p2": [], issue: ["p1", "p2"]},
        {"p1": "succeeded", "p2": "succeeded"},
        tasks={"p1": "COMPLETED", "p2": "COMPLETED"},
        meta=strings(
            linear_project_id="project-1",
            linear_oauth_secret_arn="arn:aws:secretsmanager:eu-central-1:1:secret:x",
            linear_workspace_slug="acme",
            parent_context_title="Trip planner",
            parent_context_description="Names: kyoto.\nFields: checkIn.",
            pre_screened_attachments_json=json.dumps([passed("p-1", size=12, ok=True, note=None)]),
        ),
        rows={
            issue: {
                **strings(
                    display_id="ENG-42", title="Book: “Ünï” flights!", description="As told."
                ),
                "channel_metadata": {"M": strings(linear_session="s-1", orchestration_id="odd")},
                "pre_screened_attachments": {"L": [typed_passed("own-1")]},
            }
        },
    )
    task = release(world, found, issue)
    task_id = task["task_id"]["S"]
    assert ULID.fullmatch(task_id)
    branches = sorted(world.rows(found)[key]["child_branch_name"]["S"] for key in ("p1", "p2"))
    now = world.ago(0)
    description = task["task_description"]["S"]
    assert task == {
        "task_id": {"S": task_id},
        "user_id": {"S": USER},
        "status": {"S": "SUBMITTED"},
        "repo": {"S": REPO},
        "workflow_ref": {"S": "coding/new-task-v1"},
        "resolved_workflow": {"M": strings(id="coding/new-task-v1", version="1.0.0")},
        "task_description": {"S": description},
        "branch_name": {"S": f"bgagent/{task_id}/eng-42-book-n-flights"},
        "idempotency_key": {"S": f"{found}_{issue}"},
        "channel_source": {"S": "linear"},
        "channel_metadata": {
            "M": strings(
                linear_session="s-1",
                orchestration_id=found,
                orchestration_sub_issue_id=issue,
                orchestration_base_branch="main",
                orchestration_merge_branches=json.dumps(branches, separators=(",", ":")),
                linear_workspace_id="workspace-1",
                parent_linear_issue_id="PARENT-1",
                linear_issue_id=issue,
                linear_issue_identifier="ENG-42",
                linear_project_id="project-1",
                linear_oauth_secret_arn="arn:aws:secretsmanager:eu-central-1:1:secret:x",
                linear_workspace_slug="acme",
            )
        },
        "status_created_at": {"S": f"SUBMITTED#{now}"},
        "created_at": {"S": now},
        "updated_at": {"S": now},
        "approval_gate_count": {"N": "0"},
        "approval_gate_cap": {"N": "50"},
        "linear_issue_id": {"S": issue},
        "attachments": {
            "L": [
                typed_passed("own-1"),
                {
                    "M": {
                        **typed_passed("p-1")["M"],
                        "size": {"N": "12"},
                        "ok": {"BOOL": True},
                        "note": {"NULL": True},
                    }
                },
            ]
        },
        # Only our tasks have it; it also says that the pipeline has not been invoked.
        "reconciler_sweep_id": {"S": "sweep:7"},
    }
    head, _, own = description.partition("----- End of context -----\n\n")
    assert own == "ENG-42: Book: “Ünï” flights!\n\nAs told."
    assert head.splitlines()[1:] == ["Title: Trip planner", "Names: kyoto.", "Fields: checkIn."]


LEAST = {
    "task_id", "user_id", "status", "repo", "workflow_ref", "resolved_workflow",
    "task_description", "branch_name", "idempotency_key", "channel_source", "channel_metadata",
    "status_created_at", "created_at", "updated_at", "approval_gate_count", "approval_gate_cap",
    "reconciler_sweep_id",
}  # fmt: skip


@pytest.mark.parametrize("channel", ["slack", "github", "jira"])
def test_other_channels_have_no_linear_attributes(world: World, channel: str) -> None:
    found = world.seed(
        {"a": []},
        meta=strings(channel_source=channel, linear_project_id="project-1"),
        rows={"a": {"channel_metadata": {"M": strings(thread="t-1")}}},
    )
    task = release(world, found, "a")
    assert set(task) == LEAST
    assert task["channel_source"] == {"S": channel}
    assert task["channel_metadata"] == {
        "M": strings(thread="t-1", orchestration_id=found, orchestration_sub_issue_id="a")
    }


@pytest.mark.parametrize(
    ("metadata", "identity"),
    [
        ({"jira_cloud_id": "c-1", "jira_issue_key": "ENG-1"}, "c-1#ENG-1"),
        ({"jira_cloud_id": "c-1"}, None),
        ({"jira_issue_key": "ENG-1"}, None),
        ({"jira_cloud_id": "", "jira_issue_key": "ENG-1"}, None),
    ],
)
def test_jira_identity_needs_both_of_its_parts(
    world: World, metadata: dict[str, str], identity: str | None
) -> None:
    found = world.seed(
        {"a": []},
        meta=strings(channel_source="jira"),
        rows={"a": {"channel_metadata": {"M": strings(**metadata)}}},
    )
    task = release(world, found, "a")
    assert task.get("jira_issue_identity") == ({"S": identity} if identity else None)
    assert set(task) - {"jira_issue_identity"} == LEAST
    assert {**strings(**metadata)}.items() <= task["channel_metadata"]["M"].items()


def test_the_integration_node_must_merge_all_leaves(world: World) -> None:
    """It has the branches of its predecessors, but no issue and no attachments."""
    leaves: dict[str, list[str]] = {f"leaf{number}": [] for number in range(3)}
    key = "__integration"
    found = world.seed(
        {**leaves, key: list(leaves)},
        dict.fromkeys(leaves, "succeeded"),
        tasks=dict.fromkeys(leaves, "COMPLETED"),
        meta=strings(
            parent_context_title="Trip planner",
            pre_screened_attachments_json=json.dumps([passed("p-1")]),
        ),
        rows={key: {"pre_screened_attachments": {"L": [typed_passed("own-1")]}}},
    )
    row = world.rows(found)[key]
    name = f"{found}__integration"
    table = world.settings.orchestration_table_name
    world.put(table, {**row, "sub_issue_id": {"S": name}, "title": {"S": "Integration — combine"}})
    gone = {"orchestration_id": {"S": found}, "sub_issue_id": {"S": key}}
    world.client.delete_item(TableName=table, Key=gone)
    task = release(world, found, name)
    assert set(task) == LEAST
    assert task["idempotency_key"] == {"S": f"{found}_{name}"}
    description = task["task_description"]["S"]
    assert description.endswith(INTEGRATION_INSTRUCTIONS)
    assert "Title: Trip planner" in description
    for wanted in ("merge", "conflicts", "build", "tests", "no features", "one pull request"):
        assert wanted in description.lower()
    metadata = {k: v["S"] for k, v in task["channel_metadata"]["M"].items()}
    assert "linear_issue_id" not in metadata
    assert metadata["orchestration_sub_issue_id"] == name
    assert metadata["orchestration_base_branch"] == "main"
    assert len(json.loads(metadata["orchestration_merge_branches"])) == 3


def test_a_retry_has_its_own_key_and_id(world: World) -> None:
    found = world.seed({"a": []}, {"a": "ready"}, tasks={"a": "FAILED"})
    earlier = world.rows(found)["a"]["child_task_id"]["S"]
    task = release(world, found, "a")
    assert task["idempotency_key"] == {"S": f"{found}_a_{earlier}"}
    assert task["task_id"]["S"] != earlier
    assert set(task) == LEAST | {"linear_issue_id"}


# -- ten thousand characters


@pytest.mark.parametrize(("over", "outcome"), [(0, "released"), (1, "refused")])
def test_a_description_has_at_most_ten_thousand_characters(
    world: World, over: int, outcome: str
) -> None:
    """The context block counts as well, and the limit is in characters, not bytes."""
    context = strings(parent_context_title="Trip", parent_context_description="Ü" * 4000)
    heading = len("Do a\n\n")
    probe = world.seed({"a": []}, meta=context)
    taken = len(release(world, probe, "a")["task_description"]["S"]) + heading - len("Do a")
    body = "é" * (10_000 - taken + over)
    found = world.seed({"a": []}, meta=context, rows={"a": strings(description=body)})
    result = world.reconciler().release(found, "a")
    assert result.outcome == outcome
    if over:
        assert "10001 characters" in world.rows(found)["a"]["failure_reason"]["S"]
    else:
        (task,) = world.tasks(found)
        assert len(task["task_description"]["S"]) == 10_000


# -- refusals


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (strings(repo="acme/.."), "'acme/..' is not the name of a repository"),
        (
            {"pre_screened_attachments": {"L": [
                {"M": {**typed_passed("own")["M"], "size_bytes": {"N": "52428801"}}}]}},
            "52428801 bytes",
        ),
    ],
)  # fmt: skip
def test_an_invalid_task_is_refused(world: World, row: dict[str, Any], said: str) -> None:
    found = world.seed({"a": [], "b": ["a"]}, rows={"a": row})
    result = world.reconciler().release(found, "a")
    assert result.outcome == "refused"
    assert said in world.rows(found)["a"]["failure_reason"]["S"]
    assert world.statuses(found) == {"a": "failed", "b": "skipped"}
    assert not world.tasks(found)


def test_a_child_without_text_is_named_by_id(world: World) -> None:
    found = world.seed(
        {"a": []}, meta=strings(parent_context_title=" "), rows={"a": strings(title=" ")}
    )
    task = release(world, found, "a")
    assert task["task_description"] == {"S": "Orchestration child a"}
    assert task["branch_name"]["S"].endswith("/orchestration-child-a")


# -- attachments that no item can hold


@pytest.mark.parametrize(
    "value",
    ["1e400", "1" * 50, "1e-200", '"\\ud800"', "[" * 40 + "]" * 40, "NaN"],
    ids=["too large", "too long", "too small", "half a character", "too deep", "not JSON"],
)
def test_an_invalid_attachment_is_left_out(world: World, value: str) -> None:
    """DynamoDB could not hold it; the child is released without it."""
    odd = '{"attachment_id": "odd", "screening": {"status": "passed"}, "x": ' + value + "}"
    raw = f"[{json.dumps(passed('p-1'))}, {odd}]"
    found = world.seed({"a": []}, meta=strings(pre_screened_attachments_json=raw))
    result = world.reconciler().release(found, "a")
    assert result.outcome == "released"
    assert len(result.warnings) == 1
    (task,) = world.tasks(found)
    kept = [a["M"]["attachment_id"]["S"] for a in task.get("attachments", {"L": []})["L"]]
    assert kept == ([] if value == "NaN" else ["p-1"])


def test_a_task_above_the_item_size_is_refused(world: World) -> None:
    """An item has at most 400 KB, so that another attempt would fail as well."""
    large = [passed(f"p-{number}", text="x" * 45_000) for number in range(8)]
    own = {"L": [{"M": {**typed_passed("own")["M"], "text": {"S": "x" * 100_000}}}]}
    found = world.seed(
        {"a": [], "b": ["a"]},
        meta=strings(pre_screened_attachments_json=json.dumps(large)),
        rows={"a": {"pre_screened_attachments": own}},
    )
    result = world.reconciler().release(found, "a")
    assert result.outcome == "refused"
    assert "attachments" in world.rows(found)["a"]["failure_reason"]["S"]
    assert world.statuses(found) == {"a": "failed", "b": "skipped"}
