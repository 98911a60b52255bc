"""The platform, simulated: it seeds orchestrations, runs their tasks, and reacts when they end.

It writes what the platform writes, in the same order. Clients, clock and randomness are injected,
and only ``step`` moves anything.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from reconciler.clock import Clock, utc_now
from reconciler.demo.live import LiveReconciler
from reconciler.demo.shapes import INTEGRATION, Blueprint, ChildSpec
from reconciler.demo.task_pipeline import INSTANT, Pace, TaskPipeline
from reconciler.demo.task_stream import StreamsClient, TaskStream
from reconciler.domain.model import INTEGRATION_SUFFIX, META, ChildStatus, timestamp
from reconciler.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


@dataclass(frozen=True, slots=True)
class Seeded:
    """A seeded orchestration; ``ids``: key in the blueprint → ``sub_issue_id``."""

    orchestration_id: str
    blueprint: Blueprint
    user_id: str
    ids: Mapping[str, str]

    def expected(self) -> dict[str, ChildStatus]:
        """Return how every child has to end, by ``sub_issue_id``."""
        return {self.ids[key]: status for key, status in self.blueprint.expected().items()}


class Platform:
    """A platform on one set of tables.

    ``streams``: None if its live reconciler gets no records. ``live.up``: False for an outage.
    """

    def __init__(
        self,
        client: DynamoDBClient,
        settings: Settings,
        *,
        streams: StreamsClient | None = None,
        clock: Clock = utc_now,
        seed: int = 0,
        pace: Pace = INSTANT,
    ) -> None:
        self._client = client
        self._table = settings.orchestration_table_name
        self._clock = clock
        self._rng = Random(f"{seed}/platform")
        self.seeded: dict[str, Seeded] = {}
        self.pipeline = TaskPipeline(client, settings, clock, seed=seed, pace=pace)
        self.live = LiveReconciler(client, settings, clock, self.pipeline.invoke, seed=seed)
        self._stream = streams and TaskStream(client, streams, settings.task_table_name)

    def step(self) -> int:
        """Move tasks, and deliver records to the live reconciler; returns how many tasks moved."""
        moved = self.pipeline.step()
        for record in self._stream.read() if self._stream else ():
            self.live.receive(record)
        return moved

    def seed(
        self, blueprint: Blueprint, *, user_id: str = "user-1", repo: str = "acme/widgets"
    ) -> Seeded:
        """Write an orchestration, children first and the meta row last, then release its roots.

        While the live reconciler is down the roots stay ``ready``.
        """
        orchestration_id = f"orch_{self._rng.getrandbits(128):032x}"
        ids = {spec.key: self._sub_issue_id(orchestration_id, spec) for spec in blueprint.children}
        seeded = Seeded(orchestration_id, blueprint, user_id, ids)
        number = len(self.seeded) + 1
        common = self._common(orchestration_id, repo)
        for index, spec in enumerate(blueprint.children):
            self.pipeline.outcomes[orchestration_id, ids[spec.key]] = spec.outcome
            self._put({**common, **_child(seeded, spec, number * 100 + index)})
        self._put({**common, **_meta(seeded, number)})
        self.seeded[orchestration_id] = seeded
        if self.live.up:
            self.live.react(orchestration_id)
        return seeded

    def _sub_issue_id(self, orchestration_id: str, spec: ChildSpec) -> str:
        if spec.key == INTEGRATION:
            return f"{orchestration_id}{INTEGRATION_SUFFIX}"
        return str(uuid.UUID(int=self._rng.getrandbits(128), version=4))

    def _common(self, orchestration_id: str, repo: str) -> dict[str, Any]:
        at = timestamp(self._clock())
        return {
            "orchestration_id": {"S": orchestration_id},
            "parent_issue_ref": {"S": f"parent-{orchestration_id[-8:]}"},
            "credentials_ref": {"S": "workspace-1"},
            "repo": {"S": repo},
            "created_at": {"S": at},
            "updated_at": {"S": at},
        }

    def _put(self, row: Mapping[str, Any]) -> None:
        self._client.put_item(TableName=self._table, Item=row)


def _child(seeded: Seeded, spec: ChildSpec, number: int) -> dict[str, Any]:
    row: dict[str, Any] = {
        "sub_issue_id": {"S": seeded.ids[spec.key]},
        "depends_on": {"L": [{"S": seeded.ids[key]} for key in spec.depends_on]},
        "child_status": {"S": ChildStatus.BLOCKED if spec.depends_on else ChildStatus.READY},
    }
    if spec.key != INTEGRATION:
        row |= {
            "display_id": {"S": f"ENG-{number}"},
            "title": {"S": f"Part {spec.key} of a {seeded.blueprint.shape}"},
            "description": {"S": f"Do what part {spec.key} needs, with a test."},
        }
    return row


def _meta(seeded: Seeded, number: int) -> dict[str, Any]:
    return {
        "sub_issue_id": {"S": META},
        "child_count": {"N": str(len(seeded.blueprint.children))},
        "platform_user_id": {"S": seeded.user_id},
        "channel_source": {"S": "linear"},
        "linear_workspace_slug": {"S": "acme"},
        "parent_context_title": {"S": f"Parent {number}: a {seeded.blueprint.shape}"},
        "parent_context_description": {"S": "Several parts that depend on one another."},
        "pre_screened_attachments_json": {"S": "[]"},
    }
