"""All checks of the doctor, in the order of their dependencies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import boto3

from reconciler.aws_errors import EXPLANATIONS, translate
from reconciler.clock import Clock
from reconciler.composition import client_config
from reconciler.doctor.aws import examine_aws
from reconciler.doctor.broker import examine_broker
from reconciler.doctor.findings import Finding, Level, failure
from reconciler.doctor.roll_out import examine_cron, examine_roll_out, examine_settings
from reconciler.doctor.workers import examine_workers
from reconciler.errors import ReconcilerError
from reconciler.settings import Settings
from reconciler.stores.control import ControlStore
from reconciler.stores.dynamodb import DynamoDB
from reconciler.stores.repos import RepoStore
from reconciler.stores.sweeps import SweepStore


def examine(
    settings: Settings,
    environ: Mapping[str, str],
    session: boto3.Session,
    clock: Clock,
    *,
    inline: bool,
) -> Iterator[Finding]:
    """Run all checks, without writing; ``inline`` skips those that cron mode does not need."""
    yield from examine_settings(settings, environ)
    of_aws = list(_whatever_comes("credentials", "AWS", examine_aws(settings, session, clock)))
    yield from of_aws
    if any(finding.check == "tables" for finding in of_aws):
        rest = _examine_tables_content(settings, session, inline=inline)
        yield from _whatever_comes("tables", "content", rest)
    if inline:
        return
    of_broker = list(_whatever_comes("broker", "answers", examine_broker(settings, clock)))
    yield from of_broker
    if any(finding.subject == "server" and finding.level is Level.OK for finding in of_broker):
        yield from _whatever_comes("workers", "answers", examine_workers(settings))


def _examine_tables_content(
    settings: Settings, session: boto3.Session, *, inline: bool
) -> Iterator[Finding]:
    dynamodb = DynamoDB(session.client("dynamodb", config=client_config()))
    table = settings.orchestration_table_name
    control, repos = ControlStore(dynamodb, table), RepoStore(dynamodb, settings.repo_table_name)
    yield from examine_roll_out(settings, control, repos)
    if inline:
        yield from examine_cron(settings, SweepStore(dynamodb, table))


def _whatever_comes(check: str, subject: str, findings: Iterator[Finding]) -> Iterator[Finding]:
    """Yield the findings; turn an exception into a finding."""
    try:
        yield from findings
    except Exception as error:  # noqa: BLE001 - the doctor must survive what it diagnoses
        fault = error if isinstance(error, ReconcilerError) else translate(error, "looking")
        known = EXPLANATIONS.get(fault.kind)
        advice = known.advice if known is not None else "see what the other findings say"
        yield failure(check, subject, str(fault), advice)
