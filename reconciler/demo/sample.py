"""A sample to try things on: two orchestrations that are stranded because of lost events."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from reconciler.clock import utc_now
from reconciler.demo.platform import Platform
from reconciler.demo.shapes import chain, diamond
from reconciler.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

AGO = timedelta(hours=1)
"""The age of the sample: long past every grace."""

_SAMPLES = (("acme/sandbox", chain(3)), ("acme/widgets", diamond()))


def strand(client: DynamoDBClient, settings: Settings) -> list[str]:
    """Seed two orchestrations of two repos whose first tasks' events were lost.

    Returns their ids. If the table is not empty, writes nothing and returns none.
    """
    if client.scan(TableName=settings.orchestration_table_name, Limit=1)["Items"]:
        return []
    platform = Platform(client, settings, clock=lambda: utc_now() - AGO)
    seeded = [platform.seed(blueprint, repo=repo) for repo, blueprint in _SAMPLES]
    while platform.step() or not platform.pipeline.idle:
        pass
    return [each.orchestration_id for each in seeded]
