"""Parameters for the CloudFormation template, and helpers that read the result."""

from __future__ import annotations

import json
from typing import Any

from tests.support.broker_rights import user_of
from tests.support.cloudformation import Template, load_template
from tests.support.containers import (
    ROOT,
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
    """Return a container's environment, without the user in its broker addresses."""
    found = environment(template, name)
    login = f"{user_of(name.lower())}@"
    return {key: value.replace(login, "") if isinstance(value, str) else value
            for key, value in found.items()}  # fmt: skip
