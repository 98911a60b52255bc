"""The content of the table: a mix of orchestrations, as wire items, of any size.

Each orchestration is ``a → (b, c, …) → d``, so one lost event strands all of its middles. An
orchestration depends only on its number, so that several processes can share the seeding.

    finished   all succeeded, the parent is settled: history, most of any table
    in flight  a succeeded, the middles run, d waits
    stranded   a's task has completed, the event was lost, and the middles are due
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from reconciler.domain.identity import derived_ulid
from reconciler.domain.model import timestamp

WireItem = dict[str, Any]
ORCHESTRATIONS, TASKS = "orchestrations", "tasks"

_PADDING = "Move the cart's totals behind one function and cover it with tests. " * 20
_STRIDE = 7919
"""Prime to 1000, so that every thousand orchestrations contain the exact share of each kind."""

_FINISHED, _IN_FLIGHT, _STRANDED = "finished", "in flight", "stranded"


@dataclass(frozen=True, slots=True)
class Mix:
    """The content of a table. ``repaired``: the stranded children have been released, and run."""

    orchestrations: int = 8_000
    children: int = 5
    in_flight: float = 0.2
    stranded: float = 0.1
    row_bytes: int = 940
    repaired: bool = False

    @property
    def rows(self) -> int:
        """How many rows OrchestrationTable has."""
        return self.orchestrations * (self.children + 1)

    @property
    def middles(self) -> int:
        """How many children of an orchestration run in parallel."""
        return max(1, self.children // 2)

    @property
    def dues(self) -> int:
        """The repairs needed: an advance and a release of each middle, per stranded one."""
        return self.count(_STRANDED) * (1 + self.middles)

    def kind(self, number: int) -> str:
        """Return the kind of an orchestration; the kinds are spread evenly over the table."""
        place = number * _STRIDE % 1000
        stranded = round(self.stranded * 1000)
        if place < stranded:
            return _IN_FLIGHT if self.repaired else _STRANDED
        return _IN_FLIGHT if place < stranded + round(self.in_flight * 1000) else _FINISHED

    def count(self, kind: str) -> int:
        """Return how many orchestrations are of a kind."""
        return sum(1 for number in range(self.orchestrations) if self.kind(number) == kind)

    def to_json(self) -> dict[str, Any]:
        """Return the mix as plain values, for the record of a result."""
        return asdict(self)


def items(mix: Mix, numbers: range, now: datetime) -> Iterator[tuple[str, WireItem]]:
    """Yield (table, item) of these orchestrations, the meta row last, as the platform writes it."""
    hour, day = now - timedelta(hours=1), now - timedelta(days=1)
    for number in numbers:
        yield from _orchestration(mix, number, timestamp(hour), timestamp(day))


def _orchestration(
    mix: Mix, number: int, hour_ago: str, day_ago: str
) -> Iterator[tuple[str, WireItem]]:
    kind = mix.kind(number)
    digest = hashlib.blake2b(b"orchestration %d" % number, digest_size=16).hexdigest()
    name = f"orch_{digest}"
    common = {
        "orchestration_id": {"S": name},
        "parent_issue_ref": {"S": digest[:24]},
        "credentials_ref": {"S": f"workspace-{number % 7}"},
        "repo": {"S": f"acme/shop-{number % 50}"},
        "created_at": {"S": day_ago},
        "updated_at": {"S": hour_ago},
    }
    middles = range(1, 1 + mix.middles)
    for place in range(mix.children):
        yield from _child(mix, kind, common, number, place, middles, hour_ago)
    meta = {
        **common,
        "sub_issue_id": {"S": "#meta"},
        "child_count": {"N": str(mix.children)},
        "platform_user_id": {"S": f"user-{number % 400}"},
        "parent_context_title": {"S": "Checkout without an account"},
        "parent_context_description": {"S": _PADDING[: max(0, mix.row_bytes - 310)]},
    }
    if kind == _FINISHED:
        meta["rollup_posted_at"] = {"S": hour_ago}
    yield ORCHESTRATIONS, meta


def _child(
    mix: Mix,
    kind: str,
    common: WireItem,
    number: int,
    place: int,
    middles: range,
    hour_ago: str,
) -> Iterator[tuple[str, WireItem]]:
    name = common["orchestration_id"]["S"]
    before = [] if place == 0 else [0] if place in middles else list(middles)
    running = (kind == _IN_FLIGHT and place in middles) or (kind == _STRANDED and place == 0)
    started = kind == _FINISHED or running or place == 0
    status = "released" if running else "succeeded" if started else "blocked"
    row: WireItem = {
        **common,
        "sub_issue_id": {"S": _sub_issue(number, place)},
        "depends_on": {"L": [{"S": _sub_issue(number, earlier)} for earlier in before]},
        "child_status": {"S": status},
        "display_id": {"S": f"ENG-{number * mix.children + place}"},
        "title": {"S": f"Part {place} of checkout without an account"},
        "channel_metadata": {"M": {"linear_team": {"S": "ENG"}, "priority": {"S": "2"}}},
    }
    size = 450
    if started:
        key = f"{name}_{row['sub_issue_id']['S']}"
        task_id = derived_ulid(key, datetime(2026, 1, 1, tzinfo=UTC))
        branch = f"bgagent/{task_id}/part-{place}-of-checkout-without-an-account"
        row["child_task_id"] = {"S": task_id}
        row["child_branch_name"] = {"S": branch}
        size += 130
        if running:
            ended = "COMPLETED" if kind == _STRANDED else "RUNNING"
            yield TASKS, _task(common, task_id, key, branch, ended, number, hour_ago)
    row["description"] = {"S": _PADDING[: max(0, mix.row_bytes - size)]}
    yield ORCHESTRATIONS, row


def _sub_issue(number: int, place: int) -> str:
    digest = hashlib.blake2b(b"child %d of %d" % (place, number), digest_size=16).hexdigest()
    return "-".join((digest[:8], digest[8:12], digest[12:16], digest[16:20], digest[20:]))


def _task(
    common: WireItem, task_id: str, key: str, branch: str, status: str, number: int, at: str
) -> WireItem:
    task: WireItem = {
        "task_id": {"S": task_id},
        "user_id": {"S": f"user-{number % 400}"},
        "status": {"S": status},
        "repo": common["repo"],
        "workflow_ref": {"S": "coding/new-task-v1"},
        "task_description": {"S": _PADDING[:900]},
        "idempotency_key": {"S": key},
        "branch_name": {"S": branch},
        "created_at": {"S": at},
        "updated_at": {"S": at},
        "status_created_at": {"S": f"{status}#{at}"},
    }
    if status == "COMPLETED":
        task["completed_at"] = {"S": at}
        task["build_passed"] = {"BOOL": True}
    return task
