"""A table in which exactly one thing of each kind is stuck."""

from __future__ import annotations

from dataclasses import dataclass, field

from reconciler.domain.backoff import BACK_OFF_FROM
from reconciler.domain.codes import STUCK_CODES, Code
from reconciler.errors import InvalidRequestError
from reconciler.repair.context import Context
from tests.support.world import REPO, World

BUSY_USER = "user-at-the-cap"
CAP = 10

UNKNOWN_REPO = "acme/attic"
FUNCTION_ARN = "arn:aws:lambda:us-east-1:123456789012:function:orchestrator:live"

SETTINGS = {
    "REPO_TABLE_NAME": "{prefix}-Repos",
    "ORCHESTRATOR_FUNCTION_ARN": FUNCTION_ARN,
    "USER_CONCURRENCY_TABLE_NAME": "{prefix}-Users",
    "MAX_CONCURRENT_TASKS_PER_USER": str(CAP),
    "STRANDED_GRACE_SECONDS": "60",
    # So long that no sweep starts by itself while the test looks.
    "SWEEP_INTERVAL_SECONDS": "300",
    # So that each sweep looks for lost recoveries.
    "FULL_SCAN_INTERVAL_SECONDS": "300",
}

NEVER_STUCK = {
    Code.REFUSED.value: "a refusal is written on the row, which is terminal from then on",
}
"""Codes that nothing can be stuck with, each with the reason."""

CODES = tuple(code for code in STUCK_CODES if code not in NEVER_STUCK)
"""Every code that something can be stuck with."""

WITHOUT_CHILD = frozenset({"unsettled_parent", "rows_missing"})
"""Codes of an orchestration as a whole."""


@dataclass(slots=True)
class OneOfEach:
    """Where each code is: code → orchestration id; ``unreadable``: a task id for the endpoint."""

    world: World
    where: dict[str, str] = field(default_factory=dict)
    unreadable: str = ""

    def seed(self) -> OneOfEach:
        """Write everything."""
        repo = {"repo": {"S": REPO}, "status": {"S": "active"}}
        self.world.put(str(self.world.settings.repo_table_name), repo)
        self._lost()
        self._reopened()
        self._left_behind()
        self._tasks()
        self._graphs()
        self._rows()
        self._orphan()
        self._quarantined()
        assert set(self.where) == set(CODES)
        return self

    def seed_refused(self) -> str:
        """Write a due child whose repository is not onboarded."""
        rows = {"a": {"repo": {"S": UNKNOWN_REPO}}}
        return self.world.seed({"a": []}, age=600.0, rows=rows)

    def _lost(self) -> None:
        seed, age = self.world.seed, 3 * 3600.0
        self.where["lost_release"] = seed(
            {"schema": [], "api": ["schema"], "docs": ["api"]},
            {"schema": "succeeded"},
            age=age,
            rows=_named("ENG-10", schema="Schema", api="Checkout API", docs="Write it up"),
        )
        self.where["lost_terminal"] = seed(
            {"a": []}, {"a": "released"}, tasks={"a": "COMPLETED"}, age=2 * 3600.0
        )
        self.where["lost_skip"] = seed({"a": [], "b": ["a"]}, {"a": "failed"}, age=5400.0)
        self.where["over_budget"] = seed({"a": []}, age=1800.0, user=BUSY_USER)
        self.world.put(
            str(self.world.settings.user_concurrency_table_name),
            {"user_id": {"S": BUSY_USER}, "active_count": {"N": str(CAP)}},
        )
        self.where["unsettled_parent"] = seed(
            {"a": [], "b": []}, {"a": "succeeded", "b": "failed"}, age=4 * 3600.0
        )

    def _reopened(self) -> None:
        seed, settled = self.world.seed, {"rollup_posted_at": {"S": self.world.ago(3000)}}
        self.where["lost_unskip"] = seed(
            {"a": [], "b": ["a"]}, {"a": "succeeded", "b": "skipped"}, age=14 * 3600.0, meta=settled
        )
        mended = self.where["lost_recovery"] = seed({"a": []}, {"a": "failed"}, meta=settled)
        fix = {
            "orchestration_id": mended,
            "orchestration_sub_issue_id": "a",
            "orchestration_iteration": "true",
        }
        metadata = {"M": {name: {"S": value} for name, value in fix.items()}}
        self.world.task(mended, "fix", "COMPLETED", age=2200.0, channel_metadata=metadata)

    def _left_behind(self) -> None:
        seed, world = self.world.seed, self.world
        self.where["abandoned_claim"] = seed({"a": []}, {"a": "releasing"}, age=3000.0)
        self.where["missing_task_id"] = seed({"a": []}, {"a": "released"}, age=2500.0)
        taken = self.where["idempotency_conflict"] = seed(
            {"a": []}, {"a": "releasing"}, age=6 * 3600.0
        )
        world.task(taken, "a", "RUNNING", user="somebody-else")

    def _tasks(self) -> None:
        seed, world = self.world.seed, self.world
        self.where["unstarted_task"] = seed(
            {"a": []}, {"a": "released"}, tasks={"a": "SUBMITTED"}, age=2000.0
        )
        self.where["long_running"] = seed(
            {"a": []}, {"a": "released"}, tasks={"a": "RUNNING"}, age=3 * 86_400.0
        )
        self.where["missing_task"] = seed(
            {"a": []},
            {"a": "released"},
            rows={"a": {"child_task_id": {"S": "01ARZ3NDEKTSV4RRFFQ69G5FAV"}}},
            age=7 * 3600.0,
        )
        # Another user: no task is touched while a task of the same user cannot be read.
        unread = self.where["check_failed"] = seed(
            {"a": []}, {"a": "released"}, tasks={"a": "RUNNING"}, age=1000.0, user="unreadable"
        )
        (task,) = world.tasks(unread, "a")
        self.unreadable = task["task_id"]["S"]

    def _graphs(self) -> None:
        seed = self.world.seed
        self.where["dangling_dependency"] = seed({"a": ["gone"]}, age=8 * 3600.0)
        self.where["dependency_cycle"] = seed({"a": ["a"]}, age=9 * 3600.0)

    def _rows(self) -> None:
        seed = self.world.seed
        self.where["unknown_status"] = seed({"a": []}, {"a": "meditating"}, age=10 * 3600.0)
        self.where["malformed_row"] = seed(
            {"a": []}, rows={"a": {"depends_on": {"S": "not a list"}}}, age=11 * 3600.0
        )

    def _orphan(self) -> None:
        """Write an orchestration without its meta row, so its child is an orphan."""
        world = self.world
        found = world.seed({"a": []}, age=12 * 3600.0)
        world.client.delete_item(
            TableName=world.settings.orchestration_table_name,
            Key={"orchestration_id": {"S": found}, "sub_issue_id": {"S": "#meta"}},
        )
        self.where["orphan_row"] = self.where["rows_missing"] = found

    def _quarantined(self) -> None:
        found = self.world.seed({"a": []}, age=13 * 3600.0)
        failures = self.world.reconciler().evaluator.failures
        context = Context(self.world.clock(), "sweep:earlier")
        for _ in range(BACK_OFF_FROM):
            error = InvalidRequestError("item size exceeded")
            failures.hold_against(found, {"a": error}, context)
        self.where["quarantined"] = found


def _named(first: str, **titles: str) -> dict[str, dict[str, dict[str, str]]]:
    project, _, number = first.partition("-")
    return {
        key: {"display_id": {"S": f"{project}-{int(number) + at}"}, "title": {"S": title}}
        for at, (key, title) in enumerate(titles.items())
    }
