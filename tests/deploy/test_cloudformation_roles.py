"""The rights of each role in the CloudFormation template."""

from __future__ import annotations

import json
import shlex

from tests.deploy.stack import (
    ALL,
    BOUNDARY,
    COMPANY,
    KEY,
    LEAST,
    LOGIN,
    PATH,
    SERVICES,
    TABLE_KEY,
    container,
    everything,
    policy,
    statements,
)
from tests.support.cloudformation import Template, load_template
from tests.support.containers import (
    check_command,
)


def test_workers_have_exactly_the_rights_of_the_policy() -> None:
    assert statements(everything(), "WorkerRole") == policy("policy.json")


def test_unconfigured_resources_are_not_granted() -> None:
    granted = {entry["Sid"] for entry in statements(load_template(PATH, **LEAST), "WorkerRole")}
    assert granted == {"Orchestrations", "Tasks", "Indexes", "TaskEvents"}
    repo_only = load_template(PATH, **LEAST, RepoTableName="repos")
    (entry,) = [s for s in statements(repo_only, "WorkerRole") if s["Sid"] == "ReadOnlyTables"]
    assert [arn.rpartition("/")[2] for arn in entry["Resource"]] == ["repos"]


def test_workers_may_query_the_configured_index() -> None:
    """Only workers and one-off commands may query it."""
    named = load_template(PATH, **LEAST, ActiveIndexName="ChildStatusIndex")
    (entry,) = [s for s in statements(named, "WorkerRole") if s["Sid"] == "ActiveIndex"]
    assert entry["Action"] == "dynamodb:Query"
    assert entry["Resource"].endswith(":table/ORCHESTRATION_TABLE_NAME/index/ChildStatusIndex")
    for role in set(named.of_type("AWS::IAM::Role")) - {"WorkerRole", "OneOffRole"}:
        assert "ChildStatusIndex" not in str(statements(named, role))


def test_beats_have_exactly_the_health_policy(template: Template) -> None:
    """Flower and the exporter have no role in their tasks."""
    assert statements(template, "BeatRole") == policy("health-policy.json")
    roles = {name: template.resource(f"{name}Task").get("TaskRoleArn") for name in SERVICES}
    assert roles == {
        "Worker": "<WorkerRole.Arn>", "Beat": "<BeatRole.Arn>", "Flower": None, "Exporter": None,
    }  # fmt: skip


def test_one_off_commands_have_worker_and_doctor_rights() -> None:
    """The commands in the stack's outputs run with that role, in the network of the tasks."""
    template = everything()
    granted = statements(template, "OneOffRole")
    assert {str(entry) for entry in granted} == {
        str(entry) for entry in policy("policy.json") + policy("doctor-policy.json")
    }
    for output, ran in (
        ("DoctorCommand", ["reconciler", "doctor"]),
        ("ReportCommand", ["reconciler", "sweep", "--inline", "--report"]),
    ):
        check_one_off(template, template.resolve(template.raw["Outputs"][output]["Value"]), ran)


def check_one_off(template: Template, command: str, ran: list[str]) -> None:
    arguments = shlex.split(command)
    overrides = json.loads(arguments[arguments.index("--overrides") + 1])
    assert overrides["taskRoleArn"] == "OneOffRole-Arn"
    (override,) = overrides["containerOverrides"]
    assert override["name"] == container(template, "Worker")["Name"]
    assert override["command"] == ran
    check_command(override["command"])
    network = arguments[arguments.index("--network-configuration") + 1]
    assert "subnets=[subnet-1,subnet-2]" in network
    assert "securityGroups=[TaskSecurityGroup]" in network


def test_boundary_and_keys_apply_to_every_resource() -> None:
    template = load_template(PATH, **LEAST, **ALL, **COMPANY)
    for role in template.of_type("AWS::IAM::Role"):
        assert template.resource(role)["PermissionsBoundary"] == BOUNDARY
    for logs in template.of_type("AWS::Logs::LogGroup").values():
        assert logs["KmsKeyId"] == KEY
    assert template.resource("Broker")["KmsKeyId"] == KEY
    for secret in template.of_type("AWS::SecretsManager::Secret").values():
        assert secret["KmsKeyId"] == KEY
    keys = {
        role: {entry["Resource"] for entry in statements(template, role)
               if entry["Action"] == "kms:Decrypt"}
        for role in template.of_type("AWS::IAM::Role")
    }  # fmt: skip
    assert keys == {
        "WorkerRole": {TABLE_KEY},
        "OneOffRole": {TABLE_KEY},
        "BeatRole": {TABLE_KEY},
        "ExecutionRole": {KEY},
        "FlowerExecutionRole": {KEY},
    }


def test_no_role_has_a_wildcard_right(template: Template) -> None:
    for role in template.of_type("AWS::IAM::Role"):
        (trust,) = template.resource(role)["AssumeRolePolicyDocument"]["Statement"]
        assert trust["Principal"] == {"Service": "ecs-tasks.amazonaws.com"}
        assert trust["Condition"] == {"StringEquals": {"aws:SourceAccount": "123456789012"}}
        managed = template.resource(role).get("ManagedPolicyArns", [])
        assert managed == (["ReconcilePolicy"] if role in {"WorkerRole", "OneOffRole"} else [])
        for entry in statements(template, role):
            assert "*" not in str(entry["Action"])
            # ECR's login token belongs to no resource.
            assert "*" not in str(entry["Resource"]) or entry["Sid"] == "Login"


def test_only_flower_can_read_its_login(template: Template) -> None:
    may = {role for role in template.of_type("AWS::IAM::Role") if LOGIN in str(
        statements(template, role))}  # fmt: skip
    assert may == {"FlowerExecutionRole"}
    uses = {n for n in SERVICES if template.resource(f"{n}Task")["ExecutionRoleArn"]
            == "<FlowerExecutionRole.Arn>"}  # fmt: skip
    assert uses == {"Flower"}
