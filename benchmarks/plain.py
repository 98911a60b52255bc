"""The simplest program that releases what a storm has stranded, with boto3 only.

    python -m benchmarks.plain      (one process; it reads its share from standard input)

It makes the reads and the transactions of a release and invokes the pipeline. It has no diagnosis,
messages, limits or logs, and nothing for an operator to look at. The cost of the reconciler through
Celery is given as a ratio to it. It also skips every read that the reconciler does not need.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from benchmarks.place import Place
from reconciler.domain.identity import derived_ulid
from reconciler.domain.model import timestamp

FUNCTION_ARN = "arn:aws:lambda:us-east-1:123456789012:function:orchestrator:live"
_TTL_SECONDS = 90 * 86_400


@dataclass(frozen=True, slots=True)
class Share:
    """The work of one process: a segment to scan, orchestrations to read, children to release."""

    place: dict[str, str]
    pipeline: str
    segment: int
    segments: int
    orchestrations: list[str]
    children: list[tuple[str, str]]


class PlainReleaser:
    """Sends the requests of a storm, and counts them."""

    def __init__(self, share: Share) -> None:
        self._share = share
        self._place = Place(**share.place)
        session = self._place.session()
        self._dynamodb: Any = session.client("dynamodb")
        self._lambda: Any = session.client("lambda", endpoint_url=share.pipeline)
        self.requests = Counter[str]()

    def run(self) -> None:
        """Do the whole share."""
        self._scan()
        for name in self._share.orchestrations:
            self._query(name)
        for name, key in self._share.children:
            self._release(name, key)

    def _call(self, operation: str, **request: Any) -> dict[str, Any]:  # noqa: ANN401 - boto3's
        self.requests[operation] += 1
        answer: dict[str, Any] = getattr(self._dynamodb, operation)(**request)
        return answer

    def _scan(self) -> None:
        request: dict[str, Any] = {
            "TableName": self._place.orchestrations,
            "Segment": self._share.segment,
            "TotalSegments": self._share.segments,
        }
        while True:
            page = self._call("scan", **request)
            if "LastEvaluatedKey" not in page:
                return
            request["ExclusiveStartKey"] = page["LastEvaluatedKey"]

    def _query(self, name: str) -> None:
        self._call(
            "query",
            TableName=self._place.orchestrations,
            ConsistentRead=True,
            KeyConditionExpression="orchestration_id = :id",
            ExpressionAttributeValues={":id": {"S": name}},
        )

    def _release(self, name: str, key: str) -> None:
        names = ("#meta", key, "a")
        keys = [{"orchestration_id": {"S": name}, "sub_issue_id": {"S": row}} for row in names]
        found = self._call(
            "batch_get_item",
            RequestItems={self._place.orchestrations: {"Keys": keys, "ConsistentRead": True}},
        )
        rows = {
            row["sub_issue_id"]["S"]: row for row in found["Responses"][self._place.orchestrations]
        }
        self._call(
            "query",
            TableName=self._place.tasks,
            IndexName="IdempotencyIndex",
            KeyConditionExpression="idempotency_key = :key",
            ExpressionAttributeValues={":key": {"S": f"{name}_{key}"}},
        )
        now = datetime.now(UTC)
        task_id = derived_ulid(f"{name}_{key}", now)
        self._call(
            "transact_write_items",
            TransactItems=self._transaction(rows[key], rows["#meta"], task_id, now),
        )
        self._lambda.invoke(
            FunctionName=FUNCTION_ARN,
            InvocationType="Event",
            DurableExecutionName=task_id,
            Payload=json.dumps({"task_id": task_id}).encode(),
        )
        self._call(
            "update_item",
            TableName=self._place.tasks,
            Key={"task_id": {"S": task_id}},
            UpdateExpression="SET reconciler_invoked_at = :now",
            ExpressionAttributeValues={":now": {"S": timestamp(now)}},
        )

    def _transaction(
        self, child: dict[str, Any], meta: dict[str, Any], task_id: str, now: datetime
    ) -> list[dict[str, Any]]:
        at = {"S": timestamp(now)}
        name, key = child["orchestration_id"]["S"], child["sub_issue_id"]["S"]
        row = {name: child[name] for name in ("orchestration_id", "sub_issue_id")}
        branch = {"S": f"bgagent/{task_id}/part"}
        task = {
            "task_id": {"S": task_id},
            "user_id": meta["platform_user_id"],
            "status": {"S": "SUBMITTED"},
            "repo": meta["repo"],
            "workflow_ref": {"S": "coding/new-task-v1"},
            "resolved_workflow": {
                "M": {"id": {"S": "coding/new-task-v1"}, "version": {"S": "1.0.0"}}
            },
            "task_description": {"S": f"{child['title']['S']}\n\n{child['description']['S']}"},
            "branch_name": branch,
            "idempotency_key": {"S": f"{name}_{key}"},
            "channel_source": {"S": "linear"},
            "channel_metadata": {
                "M": {"orchestration_id": {"S": name}, "orchestration_sub_issue_id": {"S": key}}
            },
            "status_created_at": {"S": f"SUBMITTED#{at['S']}"},
            "created_at": at,
            "updated_at": at,
            "approval_gate_count": {"N": "0"},
            "approval_gate_cap": {"N": "50"},
        }
        return [
            {
                "Update": {
                    "TableName": self._place.orchestrations,
                    "Key": row,
                    "UpdateExpression": "SET child_status = :released, child_task_id = :task, "
                    "child_branch_name = :branch, updated_at = :now",
                    "ConditionExpression": "child_status IN (:blocked, :ready) "
                    "AND attribute_not_exists(child_task_id)",
                    "ExpressionAttributeValues": {
                        ":released": {"S": "released"},
                        ":blocked": {"S": "blocked"},
                        ":ready": {"S": "ready"},
                        ":task": {"S": task_id},
                        ":branch": branch,
                        ":now": at,
                    },
                }
            },
            {
                "Put": {
                    "TableName": self._place.tasks,
                    "Item": task,
                    "ConditionExpression": "attribute_not_exists(task_id)",
                }
            },
            self._event(task_id, "task_created", {"repo": meta["repo"]}, now),
            self._event(
                task_id,
                "orchestration_recovered",
                {"orchestration_id": {"S": name}, "sub_issue_id": {"S": key}},
                now,
            ),
            {
                "ConditionCheck": {
                    "TableName": self._place.orchestrations,
                    "Key": {**row, "sub_issue_id": {"S": "a"}},
                    "ConditionExpression": "child_status = :succeeded",
                    "ExpressionAttributeValues": {":succeeded": {"S": "succeeded"}},
                }
            },
        ]

    def _event(
        self, task_id: str, kind: str, metadata: dict[str, Any], now: datetime
    ) -> dict[str, Any]:
        item = {
            "task_id": {"S": task_id},
            "event_id": {"S": derived_ulid(task_id + kind, now)},
            "event_type": {"S": kind},
            "timestamp": {"S": timestamp(now)},
            "metadata": {"M": metadata},
            "ttl": {"N": str(int(now.timestamp()) + _TTL_SECONDS)},
        }
        return {"Put": {"TableName": self._place.events, "Item": item}}


def main() -> None:
    """Make the clients, wait for the start, release, print the counts, and wait to be measured."""
    told = sys.stdin
    releaser = PlainReleaser(Share(**json.loads(told.readline())))
    print("ready", flush=True)  # noqa: T201 - the parent waits for it
    told.readline()
    releaser.run()
    print(json.dumps(releaser.requests), flush=True)  # noqa: T201 - the parent reads it
    told.readline()


if __name__ == "__main__":
    main()
