"""The services of the CloudFormation template agree with the program."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest

from reconciler.observability.emf import EmfMetrics
from reconciler.observability.exporter import write_depths
from reconciler.settings import Settings, load_settings
from tests.deploy.stack import (
    LEAST,
    PATH,
    SERVICES,
    TABLES,
    TMP,
    container,
    environment,
    everything,
    settings_of,
)
from tests.support.cloudformation import Template, load_template
from tests.support.containers import (
    celery_settings,
    check_command,
    check_environment,
)
from tests.support.emf import emf_lines, values


@pytest.mark.parametrize("name", SERVICES)
def test_settings_and_commands_exist(template: Template, name: str) -> None:
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
    """Except the settings of the broker, which the stack creates, and the log format."""
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


def test_only_five_defaults_differ_from_the_program() -> None:
    loaded = check_environment(environment(load_template(PATH, **LEAST), "Worker")).model_dump()
    bare = load_settings({name: name for name in TABLES.values()}).model_dump()
    assert {name for name in loaded if loaded[name] != bare[name]} == {
        "celery_broker_url", "celery_result_backend", "log_format", "metrics_emf", "repair_mode",
    }  # fmt: skip


def test_exporter_and_workers_have_the_same_settings(template: Template) -> None:
    assert settings_of(template, "Exporter") == settings_of(template, "Worker")


def test_an_update_keeps_the_number_of_workers(template: Template) -> None:
    assert "DesiredCount" not in template.resource("WorkerService")
    target = template.resource("WorkerScaling")
    assert (target["MinCapacity"], target["MaxCapacity"]) == (2, 6)


def test_workers_scale_by_the_exporters_queue_metrics(template: Template) -> None:
    """Without EMF metrics there is nothing to scale by."""
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


def test_a_second_creation_finds_no_name_taken(template: Template) -> None:
    """A stack that could not be created leaves no name behind that the next one needs."""
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


def test_services_agree_on_broker_tables_and_interval(template: Template) -> None:
    worker = settings_of(template, "Worker")
    for name in SERVICES:
        found = settings_of(template, name)
        assert {k: v for k, v in found.items() if k != "FLOWER_DB"}.items() <= worker.items()


@pytest.mark.parametrize("name", ["Worker", "Beat", "Exporter"])
def test_index_settings_reach_worker_beat_and_exporter(name: str) -> None:
    """Workers read the index; health and the alerts need the maximum age of a full scan."""
    named = environment(
        load_template(PATH, **LEAST, ActiveIndexName="ByStatus", FullScanIntervalSeconds=7200), name
    )
    assert named["ACTIVE_INDEX_NAME"] == "ByStatus"
    assert named["FULL_SCAN_INTERVAL_SECONDS"] == 7200
    without = check_environment(environment(load_template(PATH, **LEAST), name))
    assert without.active_index_name is None
    assert without.full_scan_interval_seconds == 6 * 3600


@pytest.mark.parametrize("name", SERVICES)
def test_the_stop_timeout_outlasts_the_longest_task(
    template: Template, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends before the broker delivers the message again."""
    celery = celery_settings(monkeypatch, environment(template, name))
    stop = container(template, name)["StopTimeout"]
    assert stop >= 90
    assert celery["task_time_limit"] < stop <= 120
    assert stop < celery["broker_transport_options"]["visibility_timeout"]


@pytest.mark.parametrize("name", SERVICES)
def test_containers_run_unprivileged_and_read_only(template: Template, name: str) -> None:
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
