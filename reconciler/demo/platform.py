"""The platform, simulated: it seeds orchestrations, runs their tasks, and reacts to what ends.

Faithful to the platform in what it writes and in the order of its writes. Clients, clock and
randomness are injected, and nothing moves but by ``step``; so a test can drive it moment by
moment, and the demonstration lets it run in a thread.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any, Literal

from reconciler.clock import Clock, utc_now
from reconciler.demo.live import (
    ClaimThenCreate,
    CreateThenFlip,
    Hook,
    LiveReconciler,
    LiveReconcilerCrashError,
    Step,
)
from reconciler.demo.shapes import INTEGRATION, Blueprint, ChildSpec, Outcome
from reconciler.demo.task_pipeline import INSTANT, Pace, TaskPipeline
from reconciler.demo.task_stream import StreamsClient, TaskStream
from reconciler.domain.model import INTEGRATION_SUFFIX, META, ChildStatus, Orchestration, timestamp
from reconciler.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

Generation = Literal["claim_then_create", "create_then_flip"]

_GENERATIONS: Mapping[Generation, type[LiveReconciler]] = {
    "claim_then_create": ClaimThenCreate,
    "create_then_flip": CreateThenFlip,
}

__all__ = [
    "Blueprint",
    "ChildSpec",
    "Generation",
    "LiveReconcilerCrashError",
    "Outcome",
    "Pace",
    "Platform",
    "Seeded",
    "Step",
]


@dataclass(frozen=True, slots=True)
class Seeded:
    """An orchestration that was seeded; ``ids``: a blueprint's key → its ``sub_issue_id``."""

    orchestration_id: str
    blueprint: Blueprint
    user_id: str
    ids: Mapping[str, str]

    def expected(self) -> dict[str, ChildStatus]:
        """How every child has to end, by ``sub_issue_id``."""
        return {self.ids[key]: status for key, status in self.blueprint.expected().items()}


class Platform:
    """One platform on one set of tables.

    Without ``streams``, what the pipeline ends is handed to the live reconciler through a queue in
    this process, and a write by anybody else (a nudge) is not seen.
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
        generation: Generation = "claim_then_create",
        hook: Hook | None = None,
    ) -> None:
        self._client = client
        self._settings = settings
        self._clock = clock
        self._rng = Random(f"{seed}/platform")
        self._outcomes: dict[tuple[str, str], Outcome] = {}
        self.seeded: dict[str, Seeded] = {}
        self.pipeline = TaskPipeline(
            client, settings, clock, seed=seed, pace=pace, outcomes=self._outcomes
        )
        self.live = _GENERATIONS[generation](
            client, settings, clock, self.pipeline.invoke, seed=seed
        )
        if hook is not None:
            self.live.hook = hook
        self._stream = (
            TaskStream(client, streams, settings.task_table_name) if streams is not None else None
        )

    # -- time

    def step(self) -> int:
        """One turn: tasks move, then the live reconciler gets its records; return how many."""
        moved = self.pipeline.step()
        ended = self.pipeline.take_ended()
        if self._stream is None:
            for task_id in ended:
                self.deliver(task_id)
            return moved + len(ended)
        records = self._stream.read()
        for record in records:
            self.live.receive(record)
        return moved + len(records)

    def run_until_idle(self, turns: int = 1000) -> None:
        """Step until nothing moves any more: for a pace in which nothing takes time.

        Raises:
            TimeoutError: it still moves after ``turns``.
        """
        for _ in range(turns):
            if not self.step() and self.pipeline.idle:
                return
        msg = f"the platform still moves after {turns} turns"
        raise TimeoutError(msg)

    def deliver(self, task_id: str) -> None:
        """Hand a task's current record to the live reconciler, as its stream would."""
        page = self._client.get_item(
            TableName=self._settings.task_table_name,
            Key={"task_id": {"S": task_id}},
            ConsistentRead=True,
        )
        self.live.receive(page["Item"])

    # -- the live reconciler

    def take_down(self) -> None:
        """Take the live reconciler down: records that arrive from now on are lost."""
        self.live.up = False

    def bring_up(self) -> None:
        """Bring it back; it knows nothing of what it missed."""
        self.live.up = True

    def read(self, orchestration_id: str) -> Orchestration:
        """Read an orchestration, strongly consistent.

        Raises:
            LookupError: it has no rows.
        """
        orchestration = self.live.read(orchestration_id)
        if orchestration is None:
            msg = f"there is no orchestration {orchestration_id}"
            raise LookupError(msg)
        return orchestration

    # -- seeding

    def seed(
        self,
        blueprint: Blueprint,
        *,
        user_id: str = "user-1",
        repo: str = "acme/widgets",
        meta: Mapping[str, Any] | None = None,
    ) -> Seeded:
        """Write an orchestration, children first and the meta row last, then release its roots.

        ``meta``: further typed attributes of the meta row. While the live reconciler is down the
        roots stay ``ready``, as everything else stays what it is.
        """
        orchestration_id = f"orch_{self._rng.getrandbits(128):032x}"
        ids = {spec.key: self._sub_issue_id(orchestration_id, spec) for spec in blueprint.children}
        seeded = Seeded(orchestration_id, blueprint, user_id, ids)
        number = len(self.seeded) + 1
        for index, spec in enumerate(blueprint.children):
            self._outcomes[(orchestration_id, ids[spec.key])] = spec.outcome
            self._put(self._child_row(seeded, spec, number * 100 + index, repo))
        self._put({**self._meta_row(seeded, number, repo), **(meta or {})})
        self.seeded[orchestration_id] = seeded
        if self.live.up:
            self.release_due(orchestration_id)
        return seeded

    def release_due(self, orchestration_id: str) -> None:
        """Let the live reconciler look at one orchestration, as the seeder does at its end."""
        try:
            self.live.react(orchestration_id)
        except LiveReconcilerCrashError:
            return

    def retry(self, orchestration_id: str, sub_issue_id: str, outcome: Outcome) -> None:
        """What a user's retry does: the failed child is ``ready`` again and keeps its old task.

        What was skipped behind it is ``blocked`` again. ``outcome`` is how the new task ends.
        """
        orchestration = self.read(orchestration_id)
        self._outcomes[(orchestration_id, sub_issue_id)] = outcome
        again = {sub_issue_id}
        grown = True
        while grown:
            behind = {
                key
                for key, row in orchestration.children.items()
                if row.status is ChildStatus.SKIPPED and again.intersection(row.depends_on)
            }
            grown = not behind <= again
            again |= behind
        for key in again:
            status = ChildStatus.READY if key == sub_issue_id else ChildStatus.BLOCKED
            self._reset(orchestration_id, key, status)
        if self.live.up:
            self.release_due(orchestration_id)

    # -- rows

    def _sub_issue_id(self, orchestration_id: str, spec: ChildSpec) -> str:
        if spec.key == INTEGRATION:
            return f"{orchestration_id}{INTEGRATION_SUFFIX}"
        return str(uuid.UUID(int=self._rng.getrandbits(128), version=4))

    def _child_row(self, seeded: Seeded, spec: ChildSpec, number: int, repo: str) -> dict[str, Any]:
        at = timestamp(self._clock())
        row: dict[str, Any] = {
            "orchestration_id": {"S": seeded.orchestration_id},
            "sub_issue_id": {"S": seeded.ids[spec.key]},
            "parent_issue_ref": {"S": f"parent-{seeded.orchestration_id[-8:]}"},
            "credentials_ref": {"S": "workspace-1"},
            "repo": {"S": repo},
            "depends_on": {"L": [{"S": seeded.ids[key]} for key in spec.depends_on]},
            "child_status": {"S": ChildStatus.BLOCKED if spec.depends_on else ChildStatus.READY},
            "created_at": {"S": at},
            "updated_at": {"S": at},
        }
        if spec.key != INTEGRATION:
            row |= {
                "display_id": {"S": f"ENG-{number}"},
                "title": {"S": f"Part {spec.key} of a {seeded.blueprint.shape}"},
                "description": {"S": f"Do what part {spec.key} needs, with a test."},
            }
        return row

    def _meta_row(self, seeded: Seeded, number: int, repo: str) -> dict[str, Any]:
        at = timestamp(self._clock())
        return {
            "orchestration_id": {"S": seeded.orchestration_id},
            "sub_issue_id": {"S": META},
            "parent_issue_ref": {"S": f"parent-{seeded.orchestration_id[-8:]}"},
            "credentials_ref": {"S": "workspace-1"},
            "repo": {"S": repo},
            "child_count": {"N": str(len(seeded.blueprint.children))},
            "platform_user_id": {"S": seeded.user_id},
            "created_at": {"S": at},
            "updated_at": {"S": at},
            "channel_source": {"S": "linear"},
            "linear_workspace_slug": {"S": "acme"},
            "parent_context_title": {"S": f"Parent {number}: a {seeded.blueprint.shape}"},
            "parent_context_description": {"S": "Several parts that depend on one another."},
            "pre_screened_attachments_json": {"S": json.dumps([])},
        }

    def _put(self, row: Mapping[str, Any]) -> None:
        self._client.put_item(TableName=self._settings.orchestration_table_name, Item=row)

    def _reset(self, orchestration_id: str, sub_issue_id: str, status: ChildStatus) -> None:
        key = {"orchestration_id": {"S": orchestration_id}, "sub_issue_id": {"S": sub_issue_id}}
        self._client.update_item(
            TableName=self._settings.orchestration_table_name,
            Key=key,
            UpdateExpression="SET child_status = :status, updated_at = :at",
            ConditionExpression="child_status IN (:failed, :skipped)",
            ExpressionAttributeValues={
                ":status": {"S": status},
                ":at": {"S": timestamp(self._clock())},
                ":failed": {"S": ChildStatus.FAILED},
                ":skipped": {"S": ChildStatus.SKIPPED},
            },
        )
        self._client.update_item(
            TableName=self._settings.orchestration_table_name,
            Key={"orchestration_id": {"S": orchestration_id}, "sub_issue_id": {"S": META}},
            UpdateExpression="REMOVE rollup_posted_at",
        )
