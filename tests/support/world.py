"""A world to test in: the platform's tables at a real endpoint, their items, and a clock."""

from __future__ import annotations

import itertools
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import boto3
from botocore.config import Config
from botocore.loaders import Loader, create_loader
from botocore.session import get_session
from mypy_boto3_dynamodb import DynamoDBClient

from reconciler.clock import utc_now
from reconciler.composition import build_reconciler
from reconciler.domain.identity import derived_ulid
from reconciler.domain.model import timestamp
from reconciler.domain.monthly_budget import month_of
from reconciler.repair.context import Pacer
from reconciler.repair.reconciler import Reconciler
from reconciler.settings import Settings, load_settings
from reconciler.tables import create_tables_of
from tests.support.memory import MEMORY, memory_client
from tests.support.metrics import RecordingMetrics

USER = "user-1"
REPO = "acme/shop"
_MOST_PER_WRITE = 25
_numbers = itertools.count()

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


def _present() -> datetime:
    """Return the present time, moved out of the minutes in which a sweep looks for lost recoveries.

    That look costs a request, four times a day; no test's counts may depend on the hour.
    """
    now = datetime.now(UTC).replace(microsecond=0)
    every, lasts = 6 * 3600, 300
    return now + timedelta(seconds=lasts) if now.timestamp() % every < lasts else now


@dataclass
class Clock:
    """A clock that moves only when it is told to.

    It starts at the present time, because DynamoDB Local removes items that have expired by its own
    clock.
    """

    now: datetime = field(default_factory=_present)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class RealClock(Clock):
    """The real time, which worker processes use."""

    def __call__(self) -> datetime:
        return utc_now()


class EmulatorSession(boto3.Session):
    """A session whose clients go to emulators, with credentials that only those accept.

    ``others``: service → endpoint, if it differs from the endpoint of the tables.
    """

    def __init__(self, endpoint: str, others: Mapping[str, str] | None = None) -> None:
        core = get_session()
        core.register_component("data_loader", _models())
        super().__init__("testing", "testing", region_name="us-east-1", botocore_session=core)
        self._endpoint = endpoint
        self._others = others or {}

    def client(self, service_name: Any, *args: Any, **kwargs: Any) -> Any:
        endpoint = self._others.get(service_name, self._endpoint)
        if endpoint == MEMORY:
            return memory_client()
        made: Any = super().client
        return made(service_name, *args, **{"endpoint_url": endpoint, **kwargs})


@cache
def _models() -> Loader:
    """Share botocore's models, which each session would read anew."""
    return create_loader()


@cache
def _session(endpoint: str, others: frozenset[tuple[str, str]]) -> EmulatorSession:
    return EmulatorSession(endpoint, dict(others))


def make_session(endpoint: str, others: Mapping[str, str] | None = None) -> boto3.Session:
    """Return a session for an emulator."""
    return _session(endpoint, frozenset((others or {}).items()))


def make_client(endpoint: str) -> DynamoDBClient:
    """Return a plain client that looks at tables from outside."""
    client: DynamoDBClient = make_session(endpoint).client(
        "dynamodb", config=Config(max_pool_connections=32)
    )
    return client


@dataclass
class World:
    """The tables of one test."""

    endpoint: str
    client: DynamoDBClient
    settings: Settings
    clock: Clock = field(default_factory=Clock)
    metrics: RecordingMetrics = field(default_factory=RecordingMetrics)
    others: dict[str, str] = field(default_factory=dict)

    # -- the code under test

    def reconciler(self, pacer: Pacer | None = None, **changes: Any) -> Reconciler:
        """Return a reconciler on these tables; ``changes`` are settings."""
        settings = self.settings.model_copy(update=changes)
        session = make_session(self.endpoint, self.others)
        return build_reconciler(
            settings, clock=self.clock, metrics=self.metrics, session=session, pacer=pacer
        )

    @property
    def environment(self) -> dict[str, str]:
        """The environment that a process needs to work on these tables."""
        names = {
            name.upper(): ",".join(sorted(value)) if isinstance(value, frozenset) else str(value)
            for name, value in self.settings.model_dump(exclude_defaults=True).items()
        }
        return {**CREDENTIALS, "AWS_ENDPOINT_URL": self.endpoint, **names}

    # -- what the platform does

    def ago(self, seconds: float) -> str:
        """Return the time ``seconds`` ago in the platform's format."""
        return timestamp(self.clock() - timedelta(seconds=seconds))

    def seed(
        self,
        graph: Mapping[str, Sequence[str]],
        statuses: Mapping[str, str] | None = None,
        *,
        age: float = 3600,
        tasks: Mapping[str, str] | None = None,
        meta: Mapping[str, Any] | None = None,
        rows: Mapping[str, Mapping[str, Any]] | None = None,
        user: str = USER,
    ) -> str:
        """Write an orchestration, its meta row last, and return its id.

        ``graph``: child → predecessors. ``statuses``: child → status, ``blocked`` by default.
        ``tasks``: child → status of its task, if it has one. ``meta`` and ``rows`` are additional
        attributes.
        """
        orchestration_id = f"orch_{uuid.uuid5(uuid.NAMESPACE_OID, str(next(_numbers))).hex}"
        at = {"S": self.ago(age)}
        common = {
            "orchestration_id": {"S": orchestration_id},
            "repo": {"S": REPO},
            "parent_issue_ref": {"S": "PARENT-1"},
            "credentials_ref": {"S": "workspace-1"},
            "created_at": at,
            "updated_at": at,
        }
        items = []
        for key, after in graph.items():
            item: dict[str, Any] = {
                **common,
                "sub_issue_id": {"S": key},
                "depends_on": {"L": [{"S": name} for name in after]},
                "child_status": {"S": (statuses or {}).get(key, "blocked")},
                "title": {"S": f"Do {key}"},
            }
            if tasks and key in tasks:
                task_id = self.task(orchestration_id, key, tasks[key], age=age, user=user)
                item["child_task_id"] = {"S": task_id}
                item["child_branch_name"] = {"S": f"bgagent/{task_id}/do-{key}"}
            items.append({**item, **((rows or {}).get(key, {}))})
        count = {"child_count": {"N": str(len(items))}, "platform_user_id": {"S": user}}
        items.append({**common, "sub_issue_id": {"S": "#meta"}, **count, **(meta or {})})
        self.put_all(self.settings.orchestration_table_name, items)
        return orchestration_id

    def task(
        self,
        orchestration_id: str,
        key: str,
        status: str,
        *,
        age: float = 3600,
        user: str = USER,
        **attributes: Any,
    ) -> str:
        """Write the task of a child as the live reconciler would create it."""
        idempotency_key = f"{orchestration_id}_{key}"
        task_id = derived_ulid(f"platform {idempotency_key} {next(_numbers)}", self.clock())
        item = {
            "task_id": {"S": task_id},
            "user_id": {"S": user},
            "status": {"S": status},
            "repo": {"S": REPO},
            "idempotency_key": {"S": idempotency_key},
            "branch_name": {"S": f"bgagent/{task_id}/do-{key}"},
            "created_at": {"S": self.ago(age)},
            "updated_at": {"S": self.ago(age)},
            "status_created_at": {"S": f"{status}#{self.ago(age)}"},
        }
        if status in {"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"}:
            item["completed_at"] = {"S": self.ago(age)}
        self.put(self.settings.task_table_name, {**item, **attributes})
        return task_id

    def budget(
        self,
        scope_key: str,
        limit: str,
        spend: str | None = None,
        *,
        hard_stop: bool = True,
        period: str | None = None,
    ) -> None:
        """Write the budget of a scope and what it has spent, this month by default."""
        table = str(self.settings.budget_table_name)
        key = {"scope_key": {"S": scope_key}}
        config = {"monthly_limit_usd": {"N": limit}, "hard_stop": {"BOOL": hard_stop}}
        self.put(table, {**key, "period": {"S": "CONFIG"}, **config})
        if spend is not None:
            month = {"S": period or month_of(self.clock())}
            self.put(table, {**key, "period": month, "spend_usd": {"N": spend}})

    def finish(self, task_id: str, status: str = "COMPLETED", *, age: float = 3600) -> None:
        """End a task as its pipeline would."""
        at = self.ago(age)
        self.client.update_item(
            TableName=self.settings.task_table_name,
            Key={"task_id": {"S": task_id}},
            UpdateExpression="SET #s = :s, completed_at = :t, updated_at = :t, "
            "status_created_at = :e",
            ExpressionAttributeNames={"#s": "status"},
            ExpressionAttributeValues={
                ":s": {"S": status},
                ":t": {"S": at},
                ":e": {"S": f"{status}#{at}"},
            },
        )

    def put(self, table: str, item: Mapping[str, Any]) -> None:
        self.client.put_item(TableName=table, Item=item)

    def put_all(self, table: str, items: Sequence[Mapping[str, Any]]) -> None:
        for start in range(0, len(items), _MOST_PER_WRITE):
            pending: Any = {
                table: [
                    {"PutRequest": {"Item": item}}
                    for item in items[start : start + _MOST_PER_WRITE]
                ]
            }
            while pending:
                pending = self.client.batch_write_item(RequestItems=pending)["UnprocessedItems"]

    def change(self, orchestration_id: str, key: str, **values: str) -> None:
        """Set string attributes of a row, as somebody else would."""
        self.client.update_item(
            TableName=self.settings.orchestration_table_name,
            Key={"orchestration_id": {"S": orchestration_id}, "sub_issue_id": {"S": key}},
            UpdateExpression="SET " + ", ".join(f"#{name} = :{name}" for name in values),
            ExpressionAttributeNames={f"#{name}": name for name in values},
            ExpressionAttributeValues={f":{name}": {"S": value} for name, value in values.items()},
        )

    # -- the contents of the tables

    def scan(self, table: str | None) -> list[dict[str, Any]]:
        """Return every item of a table."""
        pages = self.client.get_paginator("scan").paginate(TableName=str(table))
        return [item for page in pages for item in page["Items"]]

    def rows(self, orchestration_id: str) -> dict[str, dict[str, Any]]:
        """Return an orchestration's rows by sub-issue id, without our own markers."""
        return {
            row["sub_issue_id"]["S"]: row
            for row in self.scan(self.settings.orchestration_table_name)
            if row["orchestration_id"]["S"] == orchestration_id
            and not row["sub_issue_id"]["S"].startswith("reconciler#")
        }

    def statuses(self, orchestration_id: str) -> dict[str, str]:
        """Return child → status."""
        rows = self.rows(orchestration_id).items()
        return {key: row["child_status"]["S"] for key, row in rows if "child_status" in row}

    def tasks(self, orchestration_id: str, key: str | None = None) -> list[dict[str, Any]]:
        """Return the tasks of an orchestration, or of one child, by idempotency key."""
        prefix = orchestration_id if key is None else f"{orchestration_id}_{key}"
        return [
            task
            for task in self.scan(self.settings.task_table_name)
            if task.get("idempotency_key", {}).get("S", "").startswith(prefix)
        ]

    def events(self, event_type: str | None = None) -> list[dict[str, Any]]:
        """Return task events, of one type or all."""
        return [
            event
            for event in self.scan(self.settings.task_events_table_name)
            if event_type in {None, event["event_type"]["S"]}
        ]

    @property
    def tables(self) -> list[str]:
        """The names of the existing tables."""
        s = self.settings
        names = (s.orchestration_table_name, s.task_table_name, s.task_events_table_name)
        others = (s.user_concurrency_table_name, s.repo_table_name, s.budget_table_name)
        return [*names, *(name for name in others if name is not None)]

    def everything(self) -> dict[str, list[str]]:
        """Return all tables in a comparable form: unchanged tables are equal."""
        return {
            name: sorted(repr(sorted(item.items())) for item in self.scan(name))
            for name in self.tables
        }

    def remove(self) -> None:
        """Delete the tables: moto copies all its tables for each transaction."""
        for name in self.tables:
            self.client.delete_table(TableName=name)


def build_world(endpoint: str, **settings: str) -> World:
    """Create new tables at ``endpoint``; ``settings`` are environment variables."""
    prefix = f"t{os.getpid()}x{next(_numbers)}"
    environ = {
        "ORCHESTRATION_TABLE_NAME": f"{prefix}-Orchestration",
        "TASK_TABLE_NAME": f"{prefix}-Task",
        "TASK_EVENTS_TABLE_NAME": f"{prefix}-TaskEvents",
        **settings,
    }
    names = {k: v.format(prefix=prefix) for k, v in environ.items()}
    loaded = load_settings(names)
    client = make_client(endpoint)
    create_tables_of(client, loaded)
    return World(endpoint, client, loaded)
