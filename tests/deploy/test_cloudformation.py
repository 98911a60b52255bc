"""The CloudFormation template: valid, least in its rights, and of one mind with the program."""

from __future__ import annotations

import io
import json
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from reconciler.observability.emf import EmfMetrics
from reconciler.observability.exporter import write_depths
from reconciler.settings import Settings, load_settings
from tests.deploy.conftest import Tool
from tests.support.broker_rights import USERS, read_users, user_of
from tests.support.cloudformation import Template, load_template
from tests.support.containers import (
    ROOT,
    celery_settings,
    check_command,
    check_environment,
)
from tests.support.emf import emf_lines, values

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
}
LOGIN = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:flower"
KEY = "arn:aws:kms:eu-central-1:123456789012:key/stack"
TABLE_KEY = "arn:aws:kms:eu-central-1:123456789012:key/tables"
BOUNDARY = "arn:aws:iam::123456789012:policy/boundary"
COMPANY = {"KmsKeyArn": KEY, "TableKeyArn": TABLE_KEY, "PermissionsBoundaryArn": BOUNDARY}
NARROW = {
    "HttpsEgressCidr": "10.0.0.0/16",
    "S3PrefixListId": "pl-0123456789abcdef0",
    "DynamoDbPrefixListId": "pl-0fedcba9876543210",
}
REPOSITORY = "arn:aws:ecr:eu-central-1:123456789012:repository/reconciler"
WATCHER = {"WatcherSecurityGroupId": "sg-0123456789", "ImageRepositoryArn": REPOSITORY}
WATCHED = {
    "FlowerLoginSecretArn": LOGIN,
    "CertificateArn": "arn:aws:acm:eu-central-1:1:certificate/1",
}
ALL = {**OPTIONAL, **WATCHER, **WATCHED}
TMP = "/tmp"  # noqa: S108 - the container's own
SERVICES = ("Worker", "Beat", "Flower", "Exporter")


@pytest.fixture(params=["least", "everything"])
def template(request: pytest.FixtureRequest) -> Template:
    """The template with what must be given, and with all that can be."""
    more = ALL if request.param == "everything" else {"FlowerLoginSecretArn": LOGIN}
    return load_template(PATH, **LEAST, **more)


def everything() -> Template:
    return load_template(PATH, **LEAST, **ALL)


def statements(template: Template, role: str) -> list[dict[str, Any]]:
    properties = template.resource(role)
    documents = [policy["PolicyDocument"] for policy in properties.get("Policies", ())]
    managed = properties.get("ManagedPolicyArns", ())
    documents += [template.resource(name)["PolicyDocument"] for name in managed]
    return [entry for document in documents for entry in document["Statement"]]


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


def settings_of(template: Template, name: str) -> dict[str, Any]:
    """Return a container's environment, with what it logs in as left out of the addresses."""
    found = environment(template, name)
    login = f"{user_of(name.lower())}@"
    return {key: value.replace(login, "") if isinstance(value, str) else value
            for key, value in found.items()}  # fmt: skip


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


def test_the_index_is_granted_by_its_name() -> None:
    named = load_template(PATH, **LEAST, ActiveIndexName="ChildStatusIndex")
    (entry,) = [s for s in statements(named, "WorkerRole") if s["Sid"] == "ActiveIndex"]
    assert entry["Action"] == "dynamodb:Query"
    assert entry["Resource"].endswith(":table/ORCHESTRATION_TABLE_NAME/index/ChildStatusIndex")
    for role in set(named.of_type("AWS::IAM::Role")) - {"WorkerRole", "OneOffRole"}:
        assert "ChildStatusIndex" not in str(statements(named, role))


def test_beats_read_two_rows_the_rest_none(template: Template) -> None:
    assert statements(template, "BeatRole") == policy("health-policy.json")
    roles = {name: template.resource(f"{name}Task").get("TaskRoleArn") for name in SERVICES}
    assert roles == {
        "Worker": "<WorkerRole.Arn>", "Beat": "<BeatRole.Arn>", "Flower": None, "Exporter": None,
    }  # fmt: skip


def test_a_one_off_may_what_workers_and_doctor_may() -> None:
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


def test_company_rules_reach_every_resource() -> None:
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


def test_nothing_is_granted_on_everything(template: Template) -> None:
    for role in template.of_type("AWS::IAM::Role"):
        (trust,) = template.resource(role)["AssumeRolePolicyDocument"]["Statement"]
        assert trust["Principal"] == {"Service": "ecs-tasks.amazonaws.com"}
        assert trust["Condition"] == {"StringEquals": {"aws:SourceAccount": "123456789012"}}
        managed = template.resource(role).get("ManagedPolicyArns", [])
        assert managed == (["ReconcilePolicy"] if role in {"WorkerRole", "OneOffRole"} else [])
        for entry in statements(template, role):
            assert "*" not in str(entry["Action"])
            # ECR's login token is of no resource.
            assert "*" not in str(entry["Resource"]) or entry["Sid"] == "Login"


def test_only_flower_can_be_given_flowers_login(template: Template) -> None:
    may = {role for role in template.of_type("AWS::IAM::Role") if LOGIN in str(
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
                f"rediss://{user_of(name.lower())}@Broker-PrimaryEndPoint-Address:6379/{database}"
            )


def test_users_have_the_rights_that_are_recorded(template: Template) -> None:
    """Those of deploy/valkey/users.acl; `make broker-users` writes both."""
    users = read_users(USERS.read_text())
    for name in SERVICES:
        found = template.resource(f"{name}BrokerUser")
        rules = users[found["UserName"]]
        assert found["UserName"] == user_of(name.lower())
        assert found["AccessString"].split() == [r for r in rules if not r.startswith(">")]
    assert users["default"] == ["off"]
    assert template.resource("BrokerDefaultUser")["AccessString"].split() == ["off", "-@all"]
    made = template.of_type("AWS::ElastiCache::User")
    assert set(template.resource("BrokerUsers")["UserIds"]) == set(made)


def test_each_role_has_a_password_of_its_own(template: Template) -> None:
    for name in SERVICES:
        secrets = {s["Name"]: s["ValueFrom"] for s in container(template, name)["Secrets"]}
        assert secrets.pop("BROKER_PASSWORD") == f"{name}BrokerSecret:password::"
        assert set(secrets) == ({"FLOWER_BASIC_AUTH"} if name == "Flower" else set())
        assert not {n for n in environment(template, name) if "PASS" in n or "AUTH" in n}
        mode = template.resource(f"{name}BrokerUser")["AuthenticationMode"]
        assert mode == {
            "Type": "password",
            "Passwords": [
                f"{{{{resolve:secretsmanager:{name}BrokerSecret:SecretString:password}}}}"
            ],
        }
        # The secret names the user, for whoever logs in by hand.
        secret = template.resource(f"{name}BrokerSecret")["GenerateSecretString"]
        assert json.loads(secret["SecretStringTemplate"]) == {"username": user_of(name.lower())}
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
            inside = rule.get("CidrIp") == "127.0.0.1/32" or "DestinationSecurityGroupId" in rule
            assert inside or rule["ToPort"] == 443
    came_in = template.of_type("AWS::EC2::SecurityGroupIngress").values()
    watchers = ("sg-0123456789", "BalancerSecurityGroup") if template.holds("IsWatched") else ()
    assert {(r["ToPort"], r["SourceSecurityGroupId"]) for r in came_in} == {
        (port, watcher) for port in (5555, 9464) for watcher in watchers
    }
    for name in SERVICES:
        network = template.resource(f"{name}Service")["NetworkConfiguration"]
        assert network["AwsvpcConfiguration"]["AssignPublicIp"] == "DISABLED"


def test_gateway_endpoints_are_reached_by_prefix_list() -> None:
    """Their addresses are public ones, which a narrow range leaves out."""
    template = load_template(PATH, **LEAST, **NARROW)
    (https,) = template.resource("TaskSecurityGroup")["SecurityGroupEgress"]
    assert https["CidrIp"] == NARROW["HttpsEgressCidr"]
    rules = template.of_type("AWS::EC2::SecurityGroupEgress").values()
    lists = {rule["DestinationPrefixListId"]: rule["ToPort"] for rule in rules
             if "DestinationPrefixListId" in rule}  # fmt: skip
    assert lists == {NARROW["S3PrefixListId"]: 443, NARROW["DynamoDbPrefixListId"]: 443}


def test_the_load_balancer_is_internal_and_speaks_tls() -> None:
    template = everything()
    balancer = template.resource("Balancer")
    assert balancer["Scheme"] == "internal"
    group = template.resource(balancer["SecurityGroups"][0])
    assert {rule["SourceSecurityGroupId"] for rule in group["SecurityGroupIngress"]} == {
        WATCHER["WatcherSecurityGroupId"]
    }
    for name, port in (("Flower", 443), ("Exporter", 9464)):
        listener = template.resource(f"{name}Listener")
        assert (listener["Protocol"], listener["Port"]) == ("HTTPS", port)
        (action,) = listener["DefaultActions"]
        target = template.resource(action["TargetGroupArn"])
        service = template.resource(f"{name}Service")
        (balanced,) = service["LoadBalancers"]
        assert balanced["TargetGroupArn"] == action["TargetGroupArn"]
        assert balanced["ContainerName"] == container(template, name)["Name"]
        (mapping,) = container(template, name)["PortMappings"]
        assert balanced["ContainerPort"] == target["Port"] == mapping["ContainerPort"]
        assert target["HealthCheckPath"] in container(template, name)["HealthCheck"]["Command"][-1]
        # An implied dependency: the service waits for the listener.
        assert service["Tags"] == [{"Key": "listener", "Value": f"{name}Listener"}]


@pytest.mark.parametrize(
    ("parameters", "services"),
    [
        ({}, {"Worker", "Beat", "Exporter"}),
        ({"RunExporter": "false"}, {"Worker", "Beat"}),
        ({"RunExporter": "false", **WATCHER, **WATCHED}, {"Worker", "Beat", "Flower"}),
    ],
)
def test_what_is_switched_off_leaves_nothing(
    parameters: dict[str, str], services: set[str]
) -> None:
    template = load_template(PATH, **LEAST, **parameters)
    made = {name for name, resource in template.raw["Resources"].items()
            if "Condition" not in resource or template.holds(resource["Condition"])}  # fmt: skip
    assert {name.removesuffix("Service") for name in made if name.endswith("Service")} == services
    for name in set(SERVICES) - services:
        assert {other for other in made if other.startswith(name)} == set()
    # What is left refers to nothing that is switched off.
    text = str([template.resource(name) for name in made])
    gone = set(template.raw["Resources"]) - made
    assert {name for name in gone if f"'{name}'" in text or f"<{name}." in text} == set()


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
        assert health == template.raw["Mappings"]["Probe"]["Process"]["Command"]


def test_every_setting_is_a_parameter() -> None:
    """Save those of the broker, which the stack makes itself, and the form of logs."""
    raw = everything().raw
    of_the_stack = {"CELERY_BROKER_URL", "CELERY_RESULT_BACKEND", "BROKER_USERNAME",
                    "BROKER_PASSWORD", "LOG_FORMAT"}  # fmt: skip
    (found,) = raw["Resources"]["WorkerTask"]["Properties"]["ContainerDefinitions"]
    by_parameter = {entry["Name"]: entry["Value"].get("Ref") for entry in found["Environment"]
                    if isinstance(entry["Value"], dict)}  # fmt: skip
    settings = {field.upper() for field in Settings.model_fields} - of_the_stack
    assert settings <= set(by_parameter)
    for setting in settings:
        assert by_parameter[setting] == setting.title().replace("_", "").replace(
            "Dynamodb", "DynamoDb"
        )


def test_defaults_are_the_program_s() -> None:
    loaded = check_environment(environment(load_template(PATH, **LEAST), "Worker")).model_dump()
    bare = load_settings({name: name for name in TABLES.values()}).model_dump()
    assert {name for name in loaded if loaded[name] != bare[name]} == {
        "celery_broker_url", "celery_result_backend", "log_format", "metrics_emf", "repair_mode",
    }  # fmt: skip


def test_exporter_and_workers_have_the_same_settings(template: Template) -> None:
    assert settings_of(template, "Exporter") == settings_of(template, "Worker")


def test_an_update_leaves_the_number_of_workers_alone(template: Template) -> None:
    assert "DesiredCount" not in template.resource("WorkerService")
    target = template.resource("WorkerScaling")
    assert (target["MinCapacity"], target["MaxCapacity"]) == (2, 6)


def test_workers_follow_the_queues_that_are_measured(template: Template) -> None:
    target = template.resource("WorkerQueuePolicy")["TargetTrackingScalingPolicyConfiguration"]
    metrics = target["CustomizedMetricSpecification"]["Metrics"]
    asked = [metric["MetricStat"]["Metric"] for metric in metrics if "MetricStat" in metric]
    stream = io.StringIO()
    namespace = environment(template, "Exporter")["METRICS_NAMESPACE"]
    emf = EmfMetrics(stream, namespace=namespace)
    write_depths(SimpleNamespace(llen=lambda _: 7), emf)  # type: ignore[arg-type]
    lines = emf_lines(stream.getvalue())
    for metric in (found for found in asked if found["Namespace"] == namespace):
        dimensions = {entry["Name"]: entry["Value"] for entry in metric["Dimensions"]}
        assert values(lines, metric["MetricName"], **dimensions) == [7]
    assert [m["Id"] for m in metrics if m["ReturnData"]] == ["each"]
    off = load_template(PATH, **LEAST, MetricsEmf="false")
    assert not off.holds("KnowsQueues")


def test_another_try_finds_no_name_taken(template: Template) -> None:
    """A stack that could not be created leaves nothing that the next one would run into."""
    for kind, name in (
        ("AWS::Logs::LogGroup", "LogGroupName"),
        ("AWS::SecretsManager::Secret", "Name"),
        ("AWS::IAM::Role", "RoleName"),
        ("AWS::IAM::ManagedPolicy", "ManagedPolicyName"),
        ("AWS::ElasticLoadBalancingV2::LoadBalancer", "Name"),
        ("AWS::ElasticLoadBalancingV2::TargetGroup", "Name"),
        ("AWS::ElastiCache::ReplicationGroup", "ReplicationGroupId"),
    ):
        assert all(name not in found for found in template.of_type(kind).values())
    users = template.of_type("AWS::ElastiCache::User").values()
    ids = {user["UserId"] for user in users} | {template.resource("BrokerUsers")["UserGroupId"]}
    kinds = ("worker", "beat", "flower", "exporter", "default", "users")
    assert ids == {f"reconciler-0123456789ab-{kind}" for kind in kinds}
    for logs in template.of_type("AWS::Logs::LogGroup"):
        assert template.raw["Resources"][logs]["DeletionPolicy"] == "RetainExceptOnCreate"


def test_all_agree_on_broker_tables_and_interval(template: Template) -> None:
    worker = settings_of(template, "Worker")
    for name in SERVICES:
        found = settings_of(template, name)
        assert {k: v for k, v in found.items() if k != "FLOWER_DB"}.items() <= worker.items()


@pytest.mark.parametrize("name", ["Worker", "Beat", "Exporter"])
def test_everyone_who_needs_the_index_knows_it(name: str) -> None:
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
def test_a_stop_fits_between_task_and_redelivery(
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
def test_a_failed_deployment_is_rolled_back(template: Template, name: str) -> None:
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
