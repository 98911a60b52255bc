"""Planning: from a diagnosis to the actions that are due, in order.

``--report`` prints, and a repair carries out, exactly what is planned here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from reconciler.domain.codes import NEEDS_ACTION, Code
from reconciler.domain.diagnosis import (
    ChildDiagnosis,
    Diagnosis,
    Evidence,
    Policy,
    invocation_due,
)
from reconciler.domain.model import LONG_AGO, Orchestration, Task


@dataclass(frozen=True, slots=True)
class Action:
    """Something to do for one child; ``code`` is the diagnosis that calls for it."""

    sub_issue_id: str
    code: str
    since: datetime | None

    @property
    def verb(self) -> str:
        """What a person reads."""
        return type(self).__name__.lower()


@dataclass(frozen=True, slots=True)
class Advance(Action):
    """Set a released child to the outcome of its task."""

    task: Task


@dataclass(frozen=True, slots=True)
class Skip(Action):
    """Skip a child because its predecessor ``because`` did not succeed."""

    because: str


@dataclass(frozen=True, slots=True)
class Adopt(Action):
    """Record the task that an interrupted releaser left behind as the child's own."""

    task: Task


@dataclass(frozen=True, slots=True)
class ResetClaim(Action):
    """Set an abandoned claim back to ``ready``."""

    @property
    def verb(self) -> str:
        """What a person reads."""
        return "reset claim"


@dataclass(frozen=True, slots=True)
class Unskip(Action):
    """Set a skipped child back to ``blocked``, by hand."""


@dataclass(frozen=True, slots=True)
class Release(Action):
    """Release a child that is due."""


@dataclass(frozen=True, slots=True)
class Reinvoke(Action):
    """Invoke the pipeline of a task that has not started."""

    task: Task


@dataclass(frozen=True, slots=True)
class Nudge(Action):
    """Touch a finished task, so that its record is streamed again."""

    task: Task


@dataclass(frozen=True, slots=True)
class Plan:
    """What is due, in order: ``lookups``, then ``actions``, then ``releases``.

    ``lookups``: idempotency keys; their children get no actions before they are looked up.
    """

    lookups: tuple[str, ...]
    actions: tuple[Action, ...]
    releases: tuple[Release, ...]


def plan(
    orchestration: Orchestration,
    diagnosis: Diagnosis,
    evidence: Evidence,
    policy: Policy,
    now: datetime,
) -> Plan:
    """Return what a diagnosis calls for at ``now``.

    Advances come first, then skips, each after its cause, then the other actions. Releases come
    last, oldest due first, because their conditions depend on what the others write.
    """
    lookups: list[str] = []
    actions: list[Action] = []
    for key, found in diagnosis.children.items():
        idempotency_key = orchestration.children[key].idempotency_key
        if found.code in _LOOKED_UP and idempotency_key not in evidence.found:
            lookups.append(idempotency_key)
        elif found.code in _LOOKED_UP:
            actions += _adopt_or_reset(found, evidence.found[idempotency_key])
        else:
            actions += _actions_for(found, evidence, policy, now)
    return _in_order(lookups, actions)


def _in_order(lookups: Iterable[str], actions: Sequence[Action]) -> Plan:
    advances = [action for action in actions if isinstance(action, Advance)]
    skips = _behind_causes([action for action in actions if isinstance(action, Skip)])
    others = [action for action in actions if not isinstance(action, Advance | Skip | Release)]
    releases = [action for action in actions if isinstance(action, Release)]
    releases.sort(key=lambda release: (release.since or LONG_AGO, release.sub_issue_id))
    return Plan(tuple(lookups), (*advances, *skips, *others), tuple(releases))


_LOOKED_UP = frozenset({Code.ABANDONED_CLAIM, Code.MISSING_TASK_ID})
"""The action for these codes depends on whether there is a task with the child's key."""


def _actions_for(
    found: ChildDiagnosis, evidence: Evidence, policy: Policy, now: datetime
) -> list[Action]:
    key, code, since = found.sub_issue_id, found.code, found.since
    if code is Code.LOST_SKIP:
        return [Skip(key, code, since, found.blockers[0])]
    if code is Code.LOST_RELEASE:
        return [Release(key, code, since)]
    task = evidence.tasks.get(found.task_id or "")
    if task is None:
        return []
    if code is Code.LOST_TERMINAL:
        return [Advance(key, code, since, task)]
    if code is Code.UNSTARTED_TASK and invocation_due(task, policy, now):
        return [Reinvoke(key, code, since, task)]
    return []


def _adopt_or_reset(found: ChildDiagnosis, task: Task | None) -> list[Action]:
    """Adopt the task with the child's key; without one, reset the claim."""
    if task is not None:
        return [Adopt(found.sub_issue_id, found.code, found.since, task)]
    if found.code is Code.ABANDONED_CLAIM:
        return [ResetClaim(found.sub_issue_id, found.code, found.since)]
    return []


def _behind_causes(skips: list[Skip]) -> list[Skip]:
    """Order skips so that each comes after the skip that causes it."""
    by_cause: dict[str, list[Skip]] = {}
    for skip in skips:
        by_cause.setdefault(skip.because, []).append(skip)
    skipped = {skip.sub_issue_id for skip in skips}
    # Grouped by cause, because skips with the same cause share a transaction.
    first = (group for cause, group in by_cause.items() if cause not in skipped)
    # Not recursive, because there are chains of thousands.
    level = [skip for group in first for skip in group]
    ordered: list[Skip] = []
    while level:
        ordered.extend(level)
        level = [then for skip in level for then in by_cause.get(skip.sub_issue_id, ())]
    return ordered


def child_needs_action(code: Code, policy: Policy) -> bool:
    """Whether a child for which nothing is planned stays stuck until somebody acts.

    ``missing_task_id`` is one: if there was a task with the child's key, it would be adopted.
    """
    if code is Code.UNSTARTED_TASK:
        return not policy.can_invoke
    if code is Code.LOST_RECOVERY:
        return not policy.settles
    return code is Code.MISSING_TASK_ID or code in NEEDS_ACTION
