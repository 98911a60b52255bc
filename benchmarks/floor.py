"""The floor: the cost of reading the same data with plain boto3.

It scans whole items in parallel and reads the tasks of running children in batches of 100, without
a diagnosis or a projection. A simpler program could not know what a sweep must know.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from benchmarks.metering import Meter, Run
from benchmarks.place import Place

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_PER_BATCH = 100


def prepare(place: Place, meter: Meter, segments: int, threads: int) -> Run:
    """Return a run that reads the table in ``segments``, then the tasks of released children."""
    client = place.client()
    meter.attach(client)
    return lambda: _read_everything(client, place, segments, threads)


def _read_everything(
    client: DynamoDBClient, place: Place, segments: int, threads: int
) -> dict[str, Any]:
    def scan(segment: int) -> tuple[int, list[str]]:
        rows, running = 0, []
        request: dict[str, Any] = {
            "TableName": place.orchestrations,
            "Segment": segment,
            "TotalSegments": segments,
            "ReturnConsumedCapacity": "TOTAL",
        }
        while True:
            page = client.scan(**request)
            for item in page["Items"]:
                rows += 1
                if item.get("child_status", {}).get("S") == "released":
                    running.append(item["child_task_id"]["S"])
            if "LastEvaluatedKey" not in page:
                return rows, running
            request["ExclusiveStartKey"] = page["LastEvaluatedKey"]

    def read(task_ids: list[str]) -> int:
        keys = [{"task_id": {"S": task_id}} for task_id in task_ids]
        answer = client.batch_get_item(
            RequestItems={place.tasks: {"Keys": keys}}, ReturnConsumedCapacity="TOTAL"
        )
        return len(answer["Responses"][place.tasks])

    began, began_cpu = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(scan, range(segments)))
        scan_cpu_seconds = time.process_time() - began_cpu
        scan_wall_seconds = time.perf_counter() - began
        running = [task_id for _, found in parts for task_id in found]
        starts = range(0, len(running), _PER_BATCH)
        tasks = sum(pool.map(read, [running[at : at + _PER_BATCH] for at in starts]))
    return {
        "rows_scanned": sum(rows for rows, _ in parts),
        "tasks_read": tasks,
        "scan_cpu_seconds": round(scan_cpu_seconds, 3),
        "scan_wall_seconds": round(scan_wall_seconds, 3),
    }
