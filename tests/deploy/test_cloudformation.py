"""The CloudFormation template: valid, least in its rights, and of one mind with the program."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.conftest import Tool
from tests.support.cloudformation import Template, load_template
from tests.support.containers import (
    ROOT,
    celery_settings,
    check_command,
    check_environment,
)

PATH = ROOT / "deploy" / "cloudformation" / "reconciler.yaml"
IAM = ROOT / "deploy" / "iam"
TABLES = {
    "OrchestrationTableName": "ORCHESTRATION_TABLE_NAME",
    "TaskTableName": "TASK_TABLE_NAME",
    "TaskEventsTableName": "TASK_EVENTS_TABLE_NAME",
}
OPTIONAL = {
    "UserConcurrencyTableName": "USER_CONCURRENCY_TABLE_NAME",
    "RepoTableName": "REPO_TABLE_NAME",
    "BudgetTableName": "BUDGET_TABLE_NAME",
    "UserPoolId": "USER_POOL_ID",
    "ActiveIndexName": "ACTIVE_INDEX_NAME",
    "OrchestratorFunctionArn": "ORCHESTRATOR_FUNCTION_ARN",
    "GuardrailId": "GUARDRAIL_ID",
    "GuardrailVersion": "1",
}
LEAST: dict[str, Any] = {
    **TABLES,
    "VpcId": "vpc-1",
    "SubnetIds": ["subnet-1", "subnet-2"],
    "ImageUri": "registry.example/reconciler@sha256:0",
    "FlowerLoginSecretArn": "arn:aws:secretsmanager:eu-central-1:123456789012:secret:flower",
}
REPOSITORY = "arn:aws:ecr:eu-central-1:123456789012:repository/reconciler"
WATCHER = {"WatcherSecurityGroupId": "sg-0123456789", "ImageRepositoryArn": REPOSITORY}
TMP = "/tmp"  # noqa: S108 - the container's own
SERVICES = ("Worker", "Beat", "Flower", "Exporter")


@pytest.fixture(params=["least", "everything"])
def template(request: pytest.FixtureRequest) -> Template:
    """The template with what must be given, and with all that can be."""
    more = {**OPTIONAL, **WATCHER} if request.param == "everything" else {}
    return load_template(PATH, **LEAST, **more)


def everything() -> Template:
    return load_template(PATH, **LEAST, **OPTIONAL, **WATCHER)


def statements(template: Template, role: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for policy in template.resource(role)["Policies"]:
        found += policy["PolicyDocument"]["Statement"]
    return found


def policy(name: str) -> list[dict[str, Any]]:
    text = (IAM / name).read_text()
    text = text.replace("REGION", "eu-central-1").replace("ACCOUNT", "123456789012")
    found: list[dict[str, Any]] = json.loads(text)["Statement"]
    return found


def container(template: Template, name: str) -> dict[str, Any]:
    (found,) = template.resource(f"{name}Task")["ContainerDefinitions"]
    assert isinstance(found, dict)
    return found


def environment(template: Template, name: str) -> dict[str, Any]:
    return {entry["Name"]: entry["Value"] for entry in container(template, name)["Environment"]}


def test_cfn_lint_finds_nothing(tool: Tool) -> None:
    done = tool("cfn-lint", "--include-checks", "I", "--format", "parseable", "--", str(PATH))
    assert (done.returncode, done.stdout) == (0, "")


def test_cfn_lint_would_find_something(tool: Tool, tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text(PATH.read_text().replace("TransitEncryptionEnabled", "TransitEncryption"))
    done = tool("cfn-lint", "--format", "parseable", "--", str(broken))
    assert done.returncode != 0
    assert "TransitEncryption" in done.stdout


# -- roles


def test_workers_may_do_what_the_policy_says_and_nothing_else() -> None:
    assert statements(everything(), "WorkerRole") == policy("policy.json")


def test_what_is_not_there_is_not_granted() -> None:
    granted = {entry["Sid"] for entry in statements(load_template(PATH, **LEAST), "WorkerRole")}
    assert granted == {"Orchestrations", "Tasks", "Indexes", "TaskEvents"}
    repo_only = load_template(PATH, **LEAST, RepoTableName="repos")
    (entry,) = [s for s in statements(repo_only, "WorkerRole") if s["Sid"] == "ReadOnlyTables"]
    assert [arn.rpartition("/")[2] for arn in entry["Resource"]] == ["repos"]


def test_the_index_is_granted_to_workers_under_its_own_name_alone() -> None:
    named = load_template(PATH, **LEAST, ActiveIndexName="ChildStatusIndex")
    (entry,) = [s for s in statements(named, "WorkerRole") if s["Sid"] == "ActiveIndex"]
    assert entry["Action"] == "dynamodb:Query"
    assert entry["Resource"].endswith(":table/ORCHESTRATION_TABLE_NAME/index/ChildStatusIndex")
    for role in set(named.of_type("AWS::IAM::Role")) - {"WorkerRole"}:
        assert "ChildStatusIndex" not in str(statements(named, role))


def test_beats_read_two_rows_and_the_rest_reads_no_table(template: Template) -> None:
    assert statements(template, "BeatRole") == policy("health-policy.json")
    roles = {name: template.resource(f"{name}Task").get("TaskRoleArn") for name in SERVICES}
    assert roles == {
        "Worker": "<WorkerRole.Arn>", "Beat": "<BeatRole.Arn>", "Flower": None, "Exporter": None,
    }  # fmt: skip


def test_nothing_is_granted_on_everything(template: Template) -> None:
    for role in template.of_type("AWS::IAM::Role"):
        (trust,) = template.resource(role)["AssumeRolePolicyDocument"]["Statement"]
        assert trust["Principal"] == {"Service": "ecs-tasks.amazonaws.com"}
        assert trust["Condition"] == {"StringEquals": {"aws:SourceAccount": "123456789012"}}
        assert "ManagedPolicyArns" not in template.resource(role)
        for entry in statements(template, role):
            assert "*" not in str(entry["Action"])
            # ECR's login token is of no resource.
            assert "*" not in str(entry["Resource"]) or entry["Sid"] == "Login"


def test_only_flower_can_be_given_flowers_login(template: Template) -> None:
    login = LEAST["FlowerLoginSecretArn"]
    may = {role for role in template.of_type("AWS::IAM::Role") if login in str(
        statements(template, role))}  # fmt: skip
    assert may == {"FlowerExecutionRole"}
    uses = {n for n in SERVICES if template.resource(f"{n}Task")["ExecutionRoleArn"]
            == "<FlowerExecutionRole.Arn>"}  # fmt: skip
    assert uses == {"Flower"}


# -- the broker


def test_the_broker_speaks_tls_only_and_never_evicts(template: Template) -> None:
    broker = template.resource("Broker")
    assert broker["TransitEncryptionEnabled"] is True
    assert broker["TransitEncryptionMode"] == "required"
    assert broker["AtRestEncryptionEnabled"] is True
    assert broker["UserGroupIds"] == ["BrokerUsers"]
    parameters = template.resource(broker["CacheParameterGroupName"])
    assert parameters["Properties"] == {"maxmemory-policy": "noeviction"}
    assert broker["EngineVersion"].partition(".")[0] in parameters["CacheParameterGroupFamily"]
    for name in SERVICES:
        found = environment(template, name)
        for setting, database in (("CELERY_BROKER_URL", 0), ("CELERY_RESULT_BACKEND", 1)):
            assert found[setting] == (
                f"rediss://reconciler@Broker-PrimaryEndPoint-Address:6379/{database}"
            )


def test_its_user_has_the_rights_that_are_tested(template: Template) -> None:
    """Those of deploy/valkey/users.acl, which a real Valkey is tried with."""
    default, user = (ROOT / "deploy" / "valkey" / "users.acl").read_text().splitlines()
    name, *rules = user.split()[1:]
    found = template.resource("BrokerUser")
    assert found["UserName"] == name
    assert found["AccessString"].split() == [r for r in rules if not r.startswith(">")]
    assert default == "user default off"
    assert template.resource("BrokerDefaultUser")["AccessString"].split() == ["off", "-@all"]
    assert template.resource("BrokerUsers")["UserIds"] == ["BrokerUser", "BrokerDefaultUser"]


def test_the_password_is_in_no_environment(template: Template) -> None:
    for name in SERVICES:
        secrets = {s["Name"]: s["ValueFrom"] for s in container(template, name)["Secrets"]}
        assert secrets.pop("BROKER_PASSWORD") == "BrokerSecret:password::"
        assert set(secrets) == ({"FLOWER_BASIC_AUTH"} if name == "Flower" else set())
        assert not {n for n in environment(template, name) if "PASS" in n or "AUTH" in n}
    for user in ("BrokerUser", "BrokerDefaultUser"):
        mode = template.resource(user)["AuthenticationMode"]
        assert mode["Type"] == "password"
        assert mode["Passwords"] == [
            "{{resolve:secretsmanager:BrokerSecret:SecretString:password}}"
        ]
    assert "Outputs" in template.raw
    assert "resolve:" not in str(template.raw["Outputs"])


# -- the network


def test_nothing_is_open_to_everybody(template: Template) -> None:
    groups = template.of_type("AWS::EC2::SecurityGroup")
    for group in groups.values():
        # Without one there would be one for everything.
        assert group["SecurityGroupEgress"]
        for rule in group.get("SecurityGroupIngress", ()):
            assert "CidrIp" not in rule
        for rule in group["SecurityGroupEgress"]:
            assert rule["CidrIp"] == "127.0.0.1/32" or rule["ToPort"] == 443
    came_in = template.of_type("AWS::EC2::SecurityGroupIngress").values()
    assert {(r["ToPort"], r["SourceSecurityGroupId"]) for r in came_in} == (
        {(5555, "sg-0123456789"), (9464, "sg-0123456789")} if template.holds("IsWatched") else set()
    )
    for name in SERVICES:
        network = template.resource(f"{name}Service")["NetworkConfiguration"]
        assert network["AwsvpcConfiguration"]["AssignPublicIp"] == "DISABLED"


# -- what runs


@pytest.mark.parametrize("name", SERVICES)
def test_containers_are_of_one_mind_with_the_program(template: Template, name: str) -> None:
    found = container(template, name)
    check_environment(environment(template, name))
    check_command(found["Command"])
    health = found["HealthCheck"]["Command"]
    assert health[0] == "CMD"
    if health[1] == "reconciler":
        check_command(health[1:])
    else:
        (mapping,) = found["PortMappings"]
        assert f"127.0.0.1:{mapping['ContainerPort']}/" in health[-1]
    if name in {"Worker", "Beat"}:
        assert health == ["CMD", "reconciler", "health"]


def test_all_agree_on_broker_tables_and_interval(template: Template) -> None:
    worker = environment(template, "Worker")
    for name in SERVICES:
        found = environment(template, name)
        assert {k: v for k, v in found.items() if k != "FLOWER_DB"}.items() <= worker.items()


@pytest.mark.parametrize("name", ["Worker", "Beat", "Exporter"])
def test_whoever_goes_by_the_index_or_reckons_with_it_knows_of_it(name: str) -> None:
    """Workers sweep by it; health and the alerts go by how old a full scan may get."""
    named = environment(
        load_template(PATH, **LEAST, ActiveIndexName="ByStatus", FullScanIntervalSeconds=7200), name
    )
    assert named["ACTIVE_INDEX_NAME"] == "ByStatus"
    assert named["FULL_SCAN_INTERVAL_SECONDS"] == 7200
    without = check_environment(environment(load_template(PATH, **LEAST), name))
    assert without.active_index_name is None
    assert without.full_scan_interval_seconds == 6 * 3600


@pytest.mark.parametrize("name", SERVICES)
def test_a_stop_outlasts_the_longest_task_and_is_over_before_redelivery(
    template: Template, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    celery = celery_settings(monkeypatch, environment(template, name))
    stop = container(template, name)["StopTimeout"]
    assert stop >= 90
    assert celery["task_time_limit"] < stop <= 120
    assert stop < celery["broker_transport_options"]["visibility_timeout"]


@pytest.mark.parametrize("name", SERVICES)
def test_containers_may_not_change_anything(template: Template, name: str) -> None:
    found = container(template, name)
    assert found["User"] == "10001"
    assert found["ReadonlyRootFilesystem"] is True
    assert found["LinuxParameters"]["Capabilities"] == {"Drop": ["ALL"]}
    assert found["MountPoints"] == [{"SourceVolume": "tmp", "ContainerPath": TMP}]
    if "FLOWER_DB" in environment(template, name):
        assert environment(template, name)["FLOWER_DB"].startswith(TMP)


@pytest.mark.parametrize("name", SERVICES)
def test_a_deployment_that_fails_is_taken_back_and_its_logs_are_kept(
    template: Template, name: str
) -> None:
    deployment = template.resource(f"{name}Service")["DeploymentConfiguration"]
    assert deployment["DeploymentCircuitBreaker"] == {"Enable": True, "Rollback": True}
    logs = container(template, name)["LogConfiguration"]["Options"]["awslogs-group"]
    assert template.resource(logs)["RetentionInDays"] == 30


def test_there_are_two_beats(template: Template) -> None:
    beat = template.resource("BeatService")
    assert beat["DesiredCount"] == 2
    # One goes on while the other is replaced.
    assert beat["DeploymentConfiguration"]["MinimumHealthyPercent"] == 50


def test_every_parameter_is_used() -> None:
    text = PATH.read_text()
    for name in everything().raw["Parameters"]:
        assert f"!Ref {name}" in text or f"${{{name}}}" in text, name
