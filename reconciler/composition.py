"""Wiring: builds a reconciler and its clients from the settings.

Call it once in each process, after any fork: a client must not be used on both sides of one.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING

import boto3
import botocore
from botocore.config import Config

from reconciler.aws_errors import RAISED, translate
from reconciler.clock import Clock, utc_now
from reconciler.domain.diagnosis import Policy
from reconciler.observability.metrics import NULL_METRICS, Metrics
from reconciler.observability.outages import Outages
from reconciler.repair.context import Pacer
from reconciler.repair.drafter import Drafter
from reconciler.repair.evaluator import Evaluator
from reconciler.repair.failures import FailureRecords
from reconciler.repair.invoker import Invoker
from reconciler.repair.reconciler import Reconciler
from reconciler.repair.releaser import Releaser
from reconciler.repair.repair_pass import Parts
from reconciler.repair.repairer import Repairer
from reconciler.repair.reporter import Reporter
from reconciler.repair.withholding import Withholding
from reconciler.services.guardrail import Guardrail
from reconciler.services.pipeline import Pipeline
from reconciler.services.user_groups import UserGroups
from reconciler.settings import Settings
from reconciler.stores.budget import BudgetStore
from reconciler.stores.control import ControlStore
from reconciler.stores.dynamodb import DynamoDB, count_throttles
from reconciler.stores.monthly_budget import MonthlyBudgetStore
from reconciler.stores.orchestrations import OrchestrationStore
from reconciler.stores.read_pacing import Allowance, PagePacer
from reconciler.stores.repos import RepoStore
from reconciler.stores.sweeps import SweepStore
from reconciler.stores.tasks import TaskStore
from reconciler.stores.wire import read_plainly

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_CONNECT_SECONDS, _READ_SECONDS = 3, 10
_ATTEMPTS = 4
_USER_AGENT = f"orchestration-reconciler Boto3/{boto3.__version__} Botocore/{botocore.__version__}"
_ATTEMPTS_ELSEWHERE = 2
"""For the guardrail and Cognito, because a release has 50 seconds for all its calls."""


def policy_of(settings: Settings) -> Policy:
    """Return the policy of these settings."""
    return Policy(
        grace=timedelta(seconds=settings.stranded_grace_seconds),
        claim_timeout=timedelta(seconds=settings.claim_timeout_seconds),
        start_timeout=timedelta(seconds=settings.task_start_timeout_seconds),
        long_running=timedelta(seconds=settings.long_running_seconds),
        interval=timedelta(seconds=settings.sweep_interval_seconds),
        settles=settings.settle_mode == "nudge",
        can_invoke=settings.orchestrator_function_arn is not None,
    )


def client_config(attempts: int | None = None) -> Config:
    """Return the configuration of a client: timeouts, and retries with backoff."""
    return Config(
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=_READ_SECONDS,
        retries={"mode": "standard", "total_max_attempts": attempts or _ATTEMPTS},
        max_pool_connections=16,
        # DynamoDB validates requests; doing it here too takes a seventh of a repair's CPU time.
        parameter_validation=False,
        # Otherwise it is built twice for each request.
        user_agent=_USER_AGENT,
    )


def aws_session() -> boto3.Session:
    """Return a session for this environment.

    boto3 itself reads only ``AWS_DEFAULT_REGION``, but every other SDK and the platform's own
    functions use ``AWS_REGION``.

    Raises:
        SettingsError: the profile does not exist.
    """
    try:
        return boto3.Session(region_name=os.environ.get("AWS_REGION") or None)
    except RAISED as error:
        raise translate(error, "making an AWS client") from error


def dynamodb_client() -> DynamoDBClient:
    """Return a plain DynamoDB client.

    Raises:
        SettingsError, AccessError: no region or profile, or incomplete credentials.
    """
    try:
        return aws_session().client("dynamodb", config=client_config())
    except RAISED as error:
        raise translate(error, "making an AWS client") from error


def build_reconciler(
    settings: Settings,
    *,
    clock: Clock = utc_now,
    metrics: Metrics | None = None,
    session: boto3.Session | None = None,
    pacer: Pacer | None = None,
    allowance: Allowance | None = None,
    outages: Outages | None = None,
) -> Reconciler:
    """Create the clients and assemble a reconciler.

    ``allowance``: read units shared with other processes. ``outages``: pass the same object if
    this process creates clients again, so that a known outage is not logged again.

    Raises:
        SettingsError: there is no region, or the profile does not exist.
        AccessError: the credentials are incomplete.
    """
    counted = metrics if metrics is not None else NULL_METRICS
    outages = outages or Outages()
    try:
        session = session or aws_session()
        client = read_plainly(session.client("dynamodb", config=client_config()))
        count_throttles(client, counted)
        pipeline = _connect_pipeline(settings, session, outages)
        guardrail = _connect_guardrail(settings, session, outages)
        groups = _connect_user_groups(settings, session, outages)
    except RAISED as error:
        raise translate(error, "making an AWS client") from error
    return assemble(
        settings,
        DynamoDB(client, counted, outages=outages),
        pipeline=pipeline,
        guardrail=guardrail,
        groups=groups,
        clock=clock,
        metrics=counted,
        pacer=pacer or Pacer(),
        allowance=allowance,
    )


def _connect_pipeline(
    settings: Settings, session: boto3.Session, outages: Outages
) -> Pipeline | None:
    if settings.orchestrator_function_arn is None:
        return None
    # No retries: without a name, each try would start another run.
    client = session.client("lambda", config=client_config(1))
    return Pipeline(client, settings.orchestrator_function_arn, outages)


def _connect_guardrail(
    settings: Settings, session: boto3.Session, outages: Outages
) -> Guardrail | None:
    if settings.guardrail_id is None or settings.guardrail_version is None:
        return None
    client = session.client("bedrock-runtime", config=client_config(_ATTEMPTS_ELSEWHERE))
    return Guardrail(client, settings.guardrail_id, settings.guardrail_version, outages=outages)


def _connect_user_groups(
    settings: Settings, session: boto3.Session, outages: Outages
) -> UserGroups | None:
    if settings.budget_table_name is None or settings.user_pool_id is None:
        return None
    client = session.client("cognito-idp", config=client_config(_ATTEMPTS_ELSEWHERE))
    return UserGroups(client, settings.user_pool_id, outages=outages)


def assemble(
    settings: Settings,
    dynamodb: DynamoDB,
    *,
    pipeline: Pipeline | None,
    guardrail: Guardrail | None,
    groups: UserGroups | None,
    clock: Clock,
    metrics: Metrics,
    pacer: Pacer,
    allowance: Allowance | None = None,
) -> Reconciler:
    """Assemble a reconciler from existing clients."""
    table = settings.orchestration_table_name
    orchestrations = OrchestrationStore(dynamodb, table)
    tasks = TaskStore(dynamodb, settings.task_table_name, settings.task_events_table_name)
    control = ControlStore(dynamodb, table)
    budget = _budget_store(settings, dynamodb, tasks)
    drafter = _drafter(settings, dynamodb, guardrail, groups)
    policy = policy_of(settings)
    invoker = Invoker(dynamodb, tasks, pipeline, policy) if pipeline is not None else None
    releaser = Releaser(dynamodb, orchestrations, tasks, drafter, budget, invoker, pacer)
    reporter = Reporter(metrics)
    withhold = Withholding(settings, control)
    parts = Parts(
        orchestrations=orchestrations,
        tasks=tasks,
        budget=budget,
        repairer=Repairer(dynamodb, orchestrations, tasks, releaser),
        policy=policy,
        withhold=withhold,
        clock=clock,
    )
    return Reconciler(
        settings=settings,
        orchestrations=orchestrations,
        tasks=tasks,
        control=control,
        sweeps=SweepStore(dynamodb, table),
        evaluator=Evaluator(parts, FailureRecords(orchestrations, policy.interval), reporter),
        withhold=withhold,
        reporter=reporter,
        metrics=metrics,
        policy=policy,
        clock=clock,
        read_pacer=PagePacer(settings.scan_read_units_per_second, allowance),
    )


def _budget_store(settings: Settings, dynamodb: DynamoDB, tasks: TaskStore) -> BudgetStore | None:
    if settings.user_concurrency_table_name is None:
        return None
    return BudgetStore(
        dynamodb,
        settings.orchestration_table_name,
        settings.user_concurrency_table_name,
        tasks,
        settings.max_concurrent_tasks_per_user,
    )


def _drafter(
    settings: Settings, dynamodb: DynamoDB, guardrail: Guardrail | None, groups: UserGroups | None
) -> Drafter:
    budgets = None
    if settings.budget_table_name is not None and groups is not None:
        budgets = MonthlyBudgetStore(dynamodb, settings.budget_table_name, groups)
    return Drafter(RepoStore(dynamodb, settings.repo_table_name), budgets, guardrail)
