"""Checks of AWS: credentials, clock, tables, task pipeline, guardrail and user pool."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

from reconciler.aws_errors import EXPLANATIONS, RAISED, translate
from reconciler.clock import Clock
from reconciler.composition import client_config
from reconciler.doctor.asking import ANSWERED, Answer, ask
from reconciler.doctor.findings import Finding, failure, ok, warning
from reconciler.doctor.permissions import PROBE_KEY, check_permissions
from reconciler.doctor.shapes import CHECK as TABLES
from reconciler.doctor.shapes import (
    ORCHESTRATIONS,
    Wanted,
    check_shape,
    keys_fit,
    mention_an_index,
    wanted_tables,
)
from reconciler.errors import (
    AccessError,
    CredentialsError,
    SettingsError,
    StoreUnavailableError,
    TableMissingError,
)
from reconciler.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

HARMLESS_TEXT = "Please add a unit test for the date parser."
_ATTACH = "attach deploy/iam/doctor-policy.json meanwhile; a sweep does not need it"
_SMALL_SKEW_SECONDS = 5.0
_ATTEMPTS = 2
_NOTHING_ANSWERS = frozenset(
    {CredentialsError.kind, SettingsError.kind, StoreUnavailableError.kind}
)


def examine_aws(settings: Settings, session: boto3.Session, clock: Clock) -> Iterator[Finding]:
    """Run the checks of AWS; stop if no further call could succeed."""
    config = client_config(_ATTEMPTS)
    try:
        client = session.client("dynamodb", config=config)
    except RAISED as error:
        fault = translate(error, "making a client")
        yield failure("credentials", "AWS", str(fault), EXPLANATIONS[fault.kind].advice)
        return
    tables = wanted_tables(settings)
    before = clock()
    first = ask(client, "describe_table", TableName=tables[0].name)
    after = clock()
    yield _credentials(session, client, first)
    if first.date is not None:
        at = before + (after - before) / 2
        yield check_clock(settings, "DynamoDB", parsedate_to_datetime(first.date), at)
    if first.kind in _NOTHING_ANSWERS:
        return
    yield from _examine_table(client, tables[0], first)
    for wanted in tables[1:]:
        described = ask(client, "describe_table", TableName=wanted.name)
        yield from _examine_table(client, wanted, described)
    yield _pipeline(settings, session, config)
    yield _guardrail(settings, session, config)
    if settings.budget_table_name is not None:
        yield _teams(settings, session, config)


def _credentials(session: boto3.Session, client: DynamoDBClient, first: Answer) -> Finding:
    where = f"{client.meta.region_name}, {urlsplit(client.meta.endpoint_url).netloc}"
    if first.kind in _NOTHING_ANSWERS:
        said = f"at {where}: {first.explained}"
        return failure("credentials", "AWS", said, EXPLANATIONS[first.kind].advice)
    found = session.get_credentials()
    source = found.method if found is not None else "unknown"
    kind = "temporary" if found is not None and found.token else "long-lived"
    return ok("credentials", "AWS", f"{kind}, from {source}; accepted at {where}")


def check_clock(settings: Settings, whose: str, theirs: datetime, ours: datetime) -> Finding:
    """Compare our clock with another; the skew must not use up the time that children are given."""
    skew = (ours - theirs).total_seconds()
    least = min(
        settings.stranded_grace_seconds,
        settings.claim_timeout_seconds,
        settings.task_start_timeout_seconds,
    )
    said = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} {whose}"
    advice = "synchronise this machine's clock (chrony, or the host's time service)"
    if abs(skew) <= _SMALL_SKEW_SECONDS:
        return ok("clock", whose, f"within {_SMALL_SKEW_SECONDS:.0f} s of {whose}")
    if abs(skew) > max(least, _SMALL_SKEW_SECONDS):
        said += f", more than the {least} s that a child is given"
        return failure("clock", whose, said, advice)
    return warning("clock", whose, said, advice)


def _examine_table(client: DynamoDBClient, wanted: Wanted, described: Answer) -> Iterator[Finding]:
    if described.kind == TableMissingError.kind:
        said = f"{wanted.name} does not exist"
        yield failure(TABLES, wanted.title, said, f"correct {wanted.setting}, or the region")
        return
    if described.kind != ANSWERED:
        yield _not_described(wanted, described)
        yield from check_permissions(client, wanted)
        return
    table = described.response["Table"]
    ttl = None
    if wanted.table.ttl:
        answer = ask(client, "describe_time_to_live", TableName=wanted.name)
        if answer.kind == ANSWERED:
            ttl = answer.response["TimeToLiveDescription"]
        else:
            said = f"its time to live cannot be looked at: {answer.explained}"
            yield warning(TABLES, wanted.title, said, _ATTACH)
    yield from check_shape(wanted, table, ttl)
    yield from mention_an_index(wanted, table)
    # With another key, every probe would be rejected as malformed.
    if keys_fit(wanted, table):
        yield from check_permissions(client, wanted)


def _not_described(wanted: Wanted, described: Answer) -> Finding:
    said = f"{wanted.name} cannot be described: {described.explained}"
    if wanted.title == ORCHESTRATIONS or described.kind != AccessError.kind:
        # Sweeps need its size to choose the number of segments.
        advice = described.advice(wanted.setting, "dynamodb:DescribeTable on it")
        return failure(TABLES, wanted.title, said, advice)
    return warning(TABLES, wanted.title, said, _ATTACH)


def _pipeline(settings: Settings, session: boto3.Session, config: Config) -> Finding:
    arn = settings.orchestrator_function_arn
    if arn is None:
        advice = "set ORCHESTRATOR_FUNCTION_ARN, unless something else starts the tasks"
        return warning("pipeline", "Lambda", "none: tasks are created and not started", advice)
    client = session.client("lambda", config=config)
    answer = ask(client, "invoke", FunctionName=arn, InvocationType="DryRun")
    if answer.kind == ANSWERED:
        configuration = ask(client, "get_function_configuration", FunctionName=arn)
        return _names(arn.split(":function:", 1)[-1], configuration)
    advice = answer.advice("ORCHESTRATOR_FUNCTION_ARN", "lambda:InvokeFunction on it")
    return failure("pipeline", "Lambda", f"cannot be invoked: {answer.explained}", advice)


def _names(function: str, configuration: Answer) -> Finding:
    """Check that the pipeline takes execution names, which prevent two runs of a task."""
    said = f"may invoke {function} (a dry run)"
    unnamed = "takes no names, so a task whose invocation is lost is not invoked again"
    if ":" not in function:
        advice = "let ORCHESTRATOR_FUNCTION_ARN name an alias or a version of the function"
        return warning("pipeline", "Lambda", f"{said}; without an alias it {unnamed}", advice)
    if configuration.kind != ANSWERED:
        said += f"; whether it is a durable function cannot be looked at: {configuration.explained}"
        return warning("pipeline", "Lambda", said, _ATTACH)
    if "DurableConfig" not in configuration.response:
        advice = "use the platform's orchestrator function, which is durable"
        return warning("pipeline", "Lambda", f"{said}; not durable, it {unnamed}", advice)
    return ok("pipeline", "Lambda", f"{said}; it is durable")


def _guardrail(settings: Settings, session: boto3.Session, config: Config) -> Finding:
    if settings.guardrail_id is None:
        return ok("guardrail", "Bedrock", "none: descriptions are not screened")
    answer = ask(
        session.client("bedrock-runtime", config=config),
        "apply_guardrail",
        guardrailIdentifier=settings.guardrail_id,
        guardrailVersion=settings.guardrail_version,
        source="INPUT",
        content=[{"text": {"text": HARMLESS_TEXT}}],
    )
    name = f"{settings.guardrail_id}, version {settings.guardrail_version}"
    if answer.kind != ANSWERED:
        advice = answer.advice("GUARDRAIL_ID and GUARDRAIL_VERSION", "bedrock:ApplyGuardrail on it")
        said = f"{name}: {answer.explained}; until it answers, nothing is released"
        return failure("guardrail", "Bedrock", said, advice)
    if answer.response.get("action") == "NONE":
        return ok("guardrail", "Bedrock", f"{name}: lets a harmless text through")
    advice = "check its rules: most children would be refused for good"
    return warning("guardrail", "Bedrock", f"{name}: blocks a harmless text", advice)


def _teams(settings: Settings, session: boto3.Session, config: Config) -> Finding:
    """List the groups of a user that does not exist, since Cognito checks the permission first."""
    pool = settings.user_pool_id
    client = session.client("cognito-idp", config=config)
    answer = ask(client, "admin_list_groups_for_user", UserPoolId=pool, Username=PROBE_KEY, Limit=1)
    if answer.kind == ANSWERED or "UserNotFoundException" in answer.said:
        return ok("teams", "Cognito", f"may list the groups of the users of {pool}")
    advice = answer.advice("USER_POOL_ID", "cognito-idp:AdminListGroupsForUser")
    said = f"{pool}: {answer.explained}; until it answers, nothing is released"
    return failure("teams", "Cognito", said, advice)
