"""A stand-in for DynamoDB that stores nothing: it generates each page of a scan on request.

    python -m benchmarks.standin PORT MIX

The larger the table, the longer DynamoDB Local takes for a page: with 100,000 rows in one segment
more than a second, with 300,000 longer than a client waits. So a table of a million rows cannot be
read to its end there. A benchmark of a segment task measures the client, which only sees pages.
These pages have the same rows (``mix.py``), size and units, to a thousandth. The stand-in answers
the requests of a sweep of one segment with nothing wrong, and refuses all others.
"""

from __future__ import annotations

import json
import math
import sys
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any

from benchmarks.mix import ORCHESTRATIONS, Mix, WireItem, items
from benchmarks.place import Place
from reconciler.embedded.process import answers_http, free_port, running
from reconciler.stores.items import size_of

_PAGE_BYTES = 1024 * 1024
_UNIT_BYTES = 4096
_TASKS_KEPT = 20_000
_Answer = dict[str, Any]


class Pages:
    """Generates answers. ``_tasks``: the tasks of the rows that were scanned last."""

    def __init__(self, mix: Mix) -> None:
        self._mix = mix
        self._now = datetime.now(UTC)
        self._after: dict[str, tuple[int, int]] = {}
        self._tasks: OrderedDict[str, WireItem] = OrderedDict()
        self._lock = Lock()

    def answer(self, operation: str, request: Mapping[str, Any]) -> _Answer:
        """Answer a request.

        Raises:
            KeyError: the stand-in does not support the request.
        """
        with self._lock:
            return {"Scan": self._scan, "BatchGetItem": self._batch_get}[operation](request)

    def _scan(self, request: Mapping[str, Any]) -> _Answer:
        if request.get("TotalSegments", 1) != 1 or request["TableName"] != Place("").orchestrations:
            raise KeyError("one segment of one table")
        start = request.get("ExclusiveStartKey")
        number, skipped = (0, 0) if start is None else self._after[json.dumps(start)]
        names = request["ExpressionAttributeNames"].values()
        found: list[WireItem] = []
        size = 0
        more: _Answer = {}
        for at in range(number, self._mix.orchestrations):
            for place, row in enumerate(self._rows(at)[skipped:], skipped + 1):
                size += size_of(row)
                found.append({name: row[name] for name in names if name in row})
                if size >= _PAGE_BYTES:
                    key = {name: row[name] for name in ("orchestration_id", "sub_issue_id")}
                    self._after = {json.dumps(key): (at, place)}
                    more = {"LastEvaluatedKey": key}
                    break
            if more:
                break
            skipped = 0
        answer = {"Items": found, "Count": len(found), "ScannedCount": len(found), **more}
        return {**answer, "ConsumedCapacity": _units(request["TableName"], size)}

    def _rows(self, number: int) -> list[WireItem]:
        rows = []
        for table, item in items(self._mix, range(number, number + 1), self._now):
            if table == ORCHESTRATIONS:
                rows.append(item)
            else:
                self._tasks[item["task_id"]["S"]] = item
        while len(self._tasks) > _TASKS_KEPT:
            self._tasks.popitem(last=False)
        return sorted(rows, key=lambda row: row["sub_issue_id"]["S"])

    def _batch_get(self, request: Mapping[str, Any]) -> _Answer:
        ((table, part),) = request["RequestItems"].items()
        tasks = [self._tasks[key["task_id"]["S"]] for key in part["Keys"]]
        names = part["ExpressionAttributeNames"].values()
        sizes = [size_of(task) for task in tasks]
        units = sum(_units(table, size)["CapacityUnits"] for size in sizes)
        shown = [{name: task[name] for name in names if name in task} for task in tasks]
        return {
            "Responses": {table: shown},
            "UnprocessedKeys": {},
            "ConsumedCapacity": [{"TableName": table, "CapacityUnits": units}],
        }


def _units(table: str, size: int) -> _Answer:
    """Return the cost of an eventually consistent read of ``size`` bytes."""
    return {"TableName": table, "CapacityUnits": math.ceil(size / _UNIT_BYTES) / 2}


def _handler(pages: Pages) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._say(200, {})

        def do_POST(self) -> None:
            operation = self.headers["X-Amz-Target"].rpartition(".")[2]
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            try:
                self._say(200, pages.answer(operation, request))
            except KeyError as error:
                said = {"__type": "ValidationException", "message": f"not here: {error}"}
                self._say(400, said)

        def _say(self, code: int, answer: _Answer) -> None:
            body = json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/x-amz-json-1.0")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:  # noqa: ANN401 - the library's signature
            """Log nothing."""

    return Handler


@contextmanager
def stand_in(mix: Mix) -> Iterator[Place]:
    """Run the stand-in in its own process while the block runs."""
    endpoint = f"http://127.0.0.1:{(port := free_port())}"
    with TemporaryDirectory(prefix="benchmark-") as directory:
        told = json.dumps(asdict(mix))
        command = [sys.executable, "-m", "benchmarks.standin", str(port), told]
        log = Path(directory) / "stand-in.log"
        root = Path(__file__).parents[1]
        with running(command, ready=lambda: answers_http(endpoint), log=log, cwd=root):
            yield Place(endpoint)


def main(port: str, mix: str) -> None:
    """Serve until ended."""
    handler = _handler(Pages(Mix(**json.loads(mix))))
    ThreadingHTTPServer(("127.0.0.1", int(port)), handler).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
