"""Reads TaskTable's stream in order, as the platform's live reconciler gets it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reconciler.domain.model import Item

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


StreamsClient = Any
"""``boto3.client("dynamodbstreams")``, which has no type stubs."""


class TaskStream:
    """Reads every shard from its beginning.

    Each read gets a new iterator, because an embedded endpoint may replace the shard when it rolls
    back a transaction, and an old iterator would go on with the old shard.
    """

    def __init__(self, client: DynamoDBClient, streams: StreamsClient, table: str) -> None:
        self._streams = streams
        described = client.describe_table(TableName=table)["Table"]
        self._arn = described["LatestStreamArn"]
        self._read_to: dict[str, str] = {}

    def read(self) -> list[Item]:
        """Return the NEW_IMAGE of every record since the last call, in each shard's order."""
        images: list[Item] = []
        description = self._streams.describe_stream(StreamArn=self._arn)["StreamDescription"]
        for shard in description["Shards"]:
            images.extend(self._read_shard(shard["ShardId"]))
        return images

    def _read_shard(self, shard_id: str) -> list[Item]:
        read_to = self._read_to.get(shard_id)
        position = (
            {"ShardIteratorType": "TRIM_HORIZON"}
            if read_to is None
            else {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": read_to}
        )
        iterator = self._streams.get_shard_iterator(
            StreamArn=self._arn, ShardId=shard_id, **position
        )["ShardIterator"]
        records = self._streams.get_records(ShardIterator=iterator)["Records"]
        if records:
            self._read_to[shard_id] = records[-1]["dynamodb"]["SequenceNumber"]
        return [
            record["dynamodb"]["NewImage"] for record in records if record["eventName"] != "REMOVE"
        ]
