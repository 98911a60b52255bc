"""Everything that the doctor looks at, in the order in which one thing rests on another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import boto3

from reconciler.clock import Clock
from reconciler.composition import client_config
from reconciler.doctor.aws import examine_aws
from reconciler.doctor.broker import examine_broker
from reconciler.doctor.findings import Finding, Level
from reconciler.doctor.roll_out import examine_cron, examine_roll_out, examine_settings
from reconciler.doctor.workers import examine_workers
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
    """Look at everything; ``inline`` leaves out what ``sweep --inline`` does without.

    Nothing is written anywhere.
    """
    yield from examine_settings(settings, environ)
    reached = False
    for finding in examine_aws(settings, session, clock):
        reached = reached or finding.check == "tables"
        yield finding
    if reached:
        dynamodb = DynamoDB(session.client("dynamodb", config=client_config()))
        control = ControlStore(dynamodb, settings.orchestration_table_name)
        repos = RepoStore(dynamodb, settings.repo_table_name)
        yield from examine_roll_out(settings, control, repos)
        if inline:
            sweeps = SweepStore(dynamodb, settings.orchestration_table_name)
            yield from examine_cron(settings, sweeps)
    if inline:
        return
    answers = False
    for finding in examine_broker(settings, clock):
        answers = answers or (finding.subject == "server" and finding.level is Level.OK)
        yield finding
    if answers:
        yield from examine_workers(settings)
